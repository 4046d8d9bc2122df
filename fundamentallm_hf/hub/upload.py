"""Sends a folder to a repository on the Hub, as one commit: all of it arrives, or nothing changes there.

Large files are sent first and stay with the Hub, so a call after one that failed goes on where that stopped. What
has to be sent is found by comparing hashes here. What is in the folder is judged by `scan.py` and made elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id

from fundamentallm_hf.portable.errors import UsageError, UserError

from .connection import SILENCE, Notice, conversation, try_again
from .error_messages import host, hub_error
from .scan import check_outgoing
from .target import Target, file_hash, is_same

LIBRARY = "fundamentallm-hf"


@dataclass(frozen=True)
class Upload:
    """What was sent, or would be.

    Attributes:
        repo_id: `user/name`.
        files: sizes in bytes by name, with `/` between folders.
        commit: of the repository as it is now; None where nothing was sent.
        changed: whether there is a new commit; False where all was there already.
        url: where to look at it.
        pull_request: the revision that holds it until it is accepted, such as "refs/pr/1".
    """

    repo_id: str
    files: Mapping[str, int] = field(default_factory=dict)
    commit: str | None = None
    changed: bool = False
    url: str = ""
    pull_request: str | None = None


def split_name(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """`user/name@revision` as a repository's name and its revision.

    Args:
        name: on the Hub.
        revision: the same as behind the `@`, where there is one.

    Raises:
        UsageError: two revisions are named.
        UserError: no repository can be called so.

    Example:

    ```python
    >>> from fundamentallm_hf.hub.upload import split_name
    >>> split_name("user/stories@v1"), split_name("user/stories")
    (('user/stories', 'v1'), ('user/stories', None))

    ```
    """
    repo_id, at, pinned = name.partition("@")
    if at and not pinned:
        raise UsageError(f"{name} ends in @ without a revision: name a branch, tag or commit, or leave the @ out")
    if pinned and revision not in (None, pinned):
        raise UsageError(f"the model is {name} but revision is {revision!r}: name one of the two")
    revision = pinned or revision
    if revision is not None and (not revision.strip("/") or ".." in revision or revision.startswith(("-", "/"))):
        raise UserError(f"revision has to be a branch, tag or commit but is {revision!r}")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise hub_error(name, error) from None
    return repo_id, revision


def split_target(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """As `split_name`, for a repository to write to, whose owner has to be named.

    Raises:
        UsageError: two revisions are named.
        UserError: no repository can be called so.
    """
    repo_id, revision = split_name(name, revision)
    if "/" not in repo_id:
        raise UserError(f"the repository has to be a name such as user/{repo_id} but is {repo_id!r}")
    return repo_id, revision


def upload_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    message: str | None = None,
    description: str | None = None,
    dry_run: bool = False,
    delete: Sequence[str] = (),
    base: str | None = None,
    repo_type: str = "model",
    token: str | bool | None = None,
    notice: Notice = lambda text: None,
    progress: bool = False,
    silence: float = SILENCE,
) -> Upload:
    """Send a folder to a repository, which is made if it is not there.

    **Everything in the folder but hidden files can be read by others afterwards.** It is scanned before anything is
    sent (see `check_outgoing`).

    Args:
        folder: what to send.
        repo_id: `user/name`.
        private: make a new repository private; one that is there and public is refused.
        revision: the branch to commit to, made from the default branch if it is not there, or a pull request's
            (`refs/pr/1`).
        create_pr: open a pull request instead of committing.
        message: of the commit, in a line.
        description: of the commit, below the line.
        dry_run: only tell what would be sent; needs neither a network nor a token.
        delete: patterns of files to take out of the repository where the folder has no such file.
        base: the commit that the folder builds on, where something of the repository was taken into it; "" where there
            was no repository then. Another commit since is not written over.
        repo_type: "model", "dataset" or "space".
        token: instead of the one that is logged in.
        notice: is told what a user should know meanwhile, such as a wait.
        progress: show progress bars on stderr.
        silence: seconds without a byte after which a request counts as lost.

    Returns:
        What was sent and where it is.

    Raises:
        ChangedError: somebody else has committed since `base`, or while the files were sent.
        UserError: something in the folder must not be sent, or the Hub refuses or cannot be reached; then the
            repository is as it was before. The line says so where it was made for this and stays empty, and where
            nobody can tell.

    Example:

    ```python
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from fundamentallm_hf.hub.upload import upload_folder
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "config.json").write_text("{}")
    ...     upload_folder(folder, "user/name", dry_run=True).files
    {'config.json': 2}

    ```
    """
    folder = Path(folder)
    repo_id, revision = split_target(repo_id, revision)
    names = check_outgoing(folder)
    files = {name: (folder / name).stat().st_size for name in names}
    if dry_run:
        return Upload(repo_id, files)
    api = HfApi(token=token, library_name=LIBRARY)
    where = f"{repo_id}@{revision}" if revision else repo_id
    target = Target(api, repo_id, repo_type, revision, private, create_pr, notice)
    try:
        with conversation(notice, progress=progress, silence=silence):
            if token is False or (token in (None, True) and get_token() is None):
                raise LocalTokenNotFoundError
            head = target.open(base)
            there = target.files(head)
            new = [name for name in names if name not in there or not is_same(folder / name, there[name])]
            gone = [name for name in sorted(there.keys() - names) if any(fnmatchcase(name, each) for each in delete)]
            if not new and not gone:
                return Upload(repo_id, files, commit=head, url=target.page(f"commit/{head}"))
            commit = target.commit(head, folder, new, gone, message or f"Upload {repo_id}", description)
    except Exception as error:
        # The cause is dropped: it may hold what a token was sent with.
        told = hub_error(where, error)
        raise (UserError(f"{told}; {target.left}") if target.left else told) from None
    except BaseException:
        if target.left:
            notice(target.left)
        raise
    return Upload(
        repo_id,
        files,
        commit=commit.oid,
        changed=commit.oid != head,
        url=commit.pr_url or target.page(f"commit/{commit.oid}"),
        pull_request=commit.pr_revision,
    )


def login_name(token: str | bool | None = None, notice: Notice = lambda text: None) -> str:
    """Whose token it is: asked before work that would be in vain without one.

    Raises:
        UserError: there is no token, the Hub does not accept it, or cannot be reached.
    """
    try:
        with conversation(notice):
            return str(try_again(HfApi(token=token, library_name=LIBRARY).whoami, notice)["name"])
    except Exception as error:
        raise hub_error(host(), error) from None


__all__ = [
    "LIBRARY",
    "Upload",
    "file_hash",
    "is_same",
    "login_name",
    "split_name",
    "split_target",
    "upload_folder",
]
