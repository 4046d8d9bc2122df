"""Sends a folder to a repository on the Hub, as one commit: all of it arrives, or nothing changes there.

Large files are sent first and stay with the Hub, so a call after one that failed goes on where that stopped; the commit
itself is tried again only where it is certain that it did not arrive. This file knows nothing of models: what is in
the folder is judged by `scan.py` and made elsewhere.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx, validate_repo_id

from fundamentallm_hf.portable.errors import UsageError, UserError

from .connection import SILENCE, Notice, conversation, try_again
from .error_messages import causes, host, hub_error, is_passing, page, status_of
from .scan import check_outgoing

LIBRARY = "fundamentallm-hf"
_PULL_REQUEST = re.compile(r"refs/pr/\d+")


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
        repo_type: "model", "dataset" or "space".
        token: instead of the one that is logged in.
        notice: is told what a user should know meanwhile, such as a wait.
        progress: show progress bars on stderr.
        silence: seconds without a byte after which a request counts as lost.

    Returns:
        What was sent and where it is.

    Raises:
        UserError: something in the folder must not be sent, or the Hub refuses or cannot be reached; then the
            repository is as it was before.

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
    target = _Target(api, repo_id, repo_type, revision, private, create_pr, notice)
    try:
        with conversation(notice, progress=progress, silence=silence):
            if token is False or (token in (None, True) and get_token() is None):
                raise LocalTokenNotFoundError
            head = target.open()
            there = {sibling.rfilename for sibling in head.siblings or ()}
            gone = [name for name in sorted(there.difference(names)) if any(fnmatchcase(name, each) for each in delete)]
            commit = target.commit(head.sha, folder, names, gone, message or f"Upload {repo_id}", description)
    except Exception as error:
        # The cause is dropped: it may hold what a token was sent with.
        raise hub_error(where, error) from None
    return Upload(
        repo_id,
        files,
        commit=commit.oid,
        changed=commit.oid != head.sha,
        url=commit.pr_url or str(commit),
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


def file_hash(file: Path, sha256: bool) -> str:
    """A file's name in git: the SHA-256 of a large file, or the SHA-1 of a blob of any other."""
    digest = hashlib.sha256() if sha256 else hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    with file.open("rb") as opened:
        while piece := opened.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@dataclass(frozen=True)
class _Target:
    """The repository that is written to."""

    api: HfApi
    repo_id: str
    repo_type: str
    revision: str | None
    private: bool
    create_pr: bool
    notice: Notice

    def open(self) -> Any:
        """The repository's state before the commit; it and its branch are made if need be."""
        try:
            head = self._info()
        except GatedRepoError:
            raise
        except RevisionNotFoundError:
            if self.create_pr or _PULL_REQUEST.fullmatch(self.revision or ""):
                raise
            self._make_branch()
            return self._info()
        except RepositoryNotFoundError:
            if self.create_pr:
                raise
            self._try(
                lambda: self.api.create_repo(
                    self.repo_id, repo_type=self.repo_type, private=self.private or None, exist_ok=True
                )
            )
            if self.revision not in (None, constants.DEFAULT_REVISION):
                self._make_branch()
            head = self._info()
        if self.private and head.private is False:
            raise UserError(
                f"{self.repo_id} is there already and everybody can read it: make it private on its page at {host()}, "
                "or give another name"
            )
        return head

    def commit(
        self,
        parent: str,
        folder: Path,
        names: Sequence[str],
        gone: Sequence[str],
        message: str,
        description: str | None,
    ) -> Any:
        """Send the files and commit them."""
        additions = [CommitOperationAdd(name, folder / name) for name in names]
        target: dict[str, Any] = {"repo_type": self.repo_type, "revision": self.revision, "create_pr": self.create_pr}
        # huggingface_hub tries these again by itself.
        self.api.preupload_lfs_files(self.repo_id, additions, free_memory=False, **target)

        def send() -> Any:
            try:
                return self.api.create_commit(
                    self.repo_id,
                    [*additions, *(CommitOperationDelete(name) for name in gone)],
                    commit_message=message,
                    commit_description=description,
                    parent_commit=parent,  # the Hub refuses a second commit of the same, should the first have arrived
                    **target,
                )
            except Exception as error:
                # A refusal of the second may mean that the first arrived after all.
                unsure = is_passing(error) or any(status_of(cause) == 412 for cause in causes(error))
                if unsure and (found := self._arrived(parent, folder, names, gone, message, error)):
                    return found
                raise

        return self._try(send)

    def _arrived(
        self, parent: str, folder: Path, names: Sequence[str], gone: Sequence[str], message: str, error: Exception
    ) -> Any:
        """The commit whose answer was lost on the way; None if there is none."""
        lost = any(isinstance(cause, httpx.TransportError) for cause in causes(error))
        if self.create_pr:
            if not lost or any(isinstance(cause, httpx.ConnectError) for cause in causes(error)):
                return None
            raise UserError(
                f"the answer of {host()} was lost, so the pull request may have been opened or not: look at "
                f"{page(self.repo_id, 'discussions')} before another try"
            )
        head = self._info()
        if head.sha == parent:
            return None
        tree = {
            entry.path: entry
            for entry in self.api.list_repo_tree(
                self.repo_id, recursive=True, revision=head.sha, repo_type=self.repo_type
            )
        }
        same = all(name in tree and is_same(folder / name, tree[name]) for name in names)
        if not same or any(name in tree for name in gone):
            return None
        url = page(self.repo_id, f"commit/{head.sha}")
        return CommitInfo(commit_url=url, commit_message=message, commit_description="", oid=head.sha)

    def _info(self) -> Any:
        return self._try(lambda: self.api.repo_info(self.repo_id, repo_type=self.repo_type, revision=self.revision))

    def _make_branch(self) -> None:
        assert self.revision is not None
        branch = self.revision
        self._try(lambda: self.api.create_branch(self.repo_id, branch=branch, repo_type=self.repo_type, exist_ok=True))

    def _try(self, action: Callable[[], Any]) -> Any:
        return try_again(action, self.notice)


def is_same(file: Path, entry: Any) -> bool:
    """Whether a file on this machine is the one that the Hub lists as `entry`."""
    if file.stat().st_size != entry.size:
        return False
    if entry.lfs is not None:
        return file_hash(file, sha256=True) == entry.lfs.sha256
    return file_hash(file, sha256=False) == entry.blob_id
