"""Sends a folder to a repository on the Hub as one commit: either all of it arrives, or nothing changes there.

Large files are sent first and stay on the Hub, so a call after a failed one continues where that stopped. Hashes are
compared locally to find the files to send. `scan.py` checks the contents of the folder.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    """The files that were sent, or would be.

    Attributes:
        repo_id: `user/name`.
        files: sizes in bytes by name, with `/` between folders.
        commit: the current commit of the repository; None where nothing was sent.
        changed: whether there is a new commit; False where everything was there already.
        url: its address on the Hub.
        pull_request: the revision that has the commit until it is accepted, such as "refs/pr/1".
    """

    repo_id: str
    files: Mapping[str, int] = field(default_factory=dict)
    commit: str | None = None
    changed: bool = False
    url: str = ""
    pull_request: str | None = None


def split_name(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """Split `user/name@revision` into a repository's name and its revision.

    Args:
        name: on the Hub.
        revision: the revision, where it is not after an `@`.

    Raises:
        UsageError: two revisions are named.
        UserError: no repository can have this name.

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
    """Like `split_name`, for a repository to write to, whose owner has to be named.

    Raises:
        UsageError: two revisions are named.
        UserError: no repository can have this name.
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
    """Send a folder to a repository, which is created if it does not exist.

    **Afterwards others can read everything in the folder except hidden files.** It is scanned before anything is sent
    (see `check_outgoing`).

    Args:
        folder, repo_id, repo_type: the folder, and its target: `user/name`, a "model", "dataset" or "space".
        private: make a new repository private; an existing public one is refused.
        revision, create_pr: the branch to commit to, created if it does not exist, or that of a pull request
            (`refs/pr/1`); or open a pull request instead.
        message, description: of the commit: its title, and the text below it.
        dry_run: only report what would be sent; needs neither a network nor a token.
        delete: patterns of files to delete from the repository where the folder has no such file.
        base: the commit that the folder builds on, where contents of the repository were used for it; "" where there
            was no repository then. A later commit is not overwritten.
        token: used instead of the one that is logged in.
        notice, progress, silence: called with lines for the user, such as a wait; show progress bars on stderr; seconds
            without a byte after which a request counts as lost.

    Raises:
        ChangedError: somebody else has committed since `base`, or while the files were sent.
        UserError: something in the folder must not be sent, or the Hub refuses or cannot be reached. Then the
            repository is unchanged, unless the line says that it was created and is empty, or that its state is not
            known.
    """
    folder = Path(folder)
    repo_id, revision = split_target(repo_id, revision)
    names = check_outgoing(folder)
    files = {name: (folder / name).stat().st_size for name in names}
    if dry_run:
        return Upload(repo_id, files)
    target = Target(HfApi(token=token, library_name=LIBRARY), repo_id, repo_type, revision, private, create_pr, notice)
    where = f"{repo_id}@{revision}" if revision else repo_id
    with _explained(target, where, notice), conversation(notice, progress=progress, silence=silence):
        if token is False or (token in (None, True) and get_token() is None):
            raise LocalTokenNotFoundError
        return _send(target, folder, files, delete, base, (message or f"Upload {repo_id}", description))


def _send(
    target: Target,
    folder: Path,
    files: Mapping[str, int],
    delete: Sequence[str],
    base: str | None,
    message: tuple[str, str | None],
) -> Upload:
    """Commit the differences, if there are any."""
    head = target.open(base)
    there = target.files(head)
    new = [name for name in files if name not in there or not is_same(folder / name, there[name])]
    gone = [name for name in sorted(there.keys() - files) if any(fnmatchcase(name, each) for each in delete)]
    if not new and not gone:
        return Upload(target.repo_id, files, commit=head, url=target.page(f"commit/{head}"))
    commit = target.commit(head, folder, new, gone, *message)
    return Upload(
        target.repo_id,
        files,
        commit=commit.oid,
        changed=commit.oid != head,
        url=commit.pr_url or target.page(f"commit/{commit.oid}"),
        pull_request=commit.pr_revision,
    )


@contextmanager
def _explained(target: Target, where: str, notice: Notice) -> Iterator[None]:
    """Turn errors into one line, including the traces left in the repository."""
    try:
        yield
    except Exception as error:
        # The cause is dropped: it may contain a request with a token.
        told = hub_error(where, error)
        raise (UserError(f"{told}; {target.left}") if target.left else told) from None
    except BaseException:
        if target.left:
            notice(target.left)
        raise


def login_name(token: str | bool | None = None, notice: Notice = lambda text: None) -> str:
    """The user of a token: checked before work that would be useless without one.

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
