"""The repository that is written to: created if necessary, committed to once, and verified afterwards.

A commit is retried only where it is certain that it did not arrive, so that it is never made twice, and the Hub's
response is checked against the repository.

`HfApi.upload_folder` does the simple case in one call. It is not used here because it leaves gaps: with hf_xet it
splits a large folder into several commits; it looks for files to delete at the commit current at that moment; a commit
that arrives while it is sent again is taken for somebody else's; a pull request whose response was lost is opened
twice; and it cannot say whether "nothing to commit" is true.
"""

import hashlib
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, constants, hf_hub_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import httpx

from fundamentallm_hf.portable.errors import UserError

from .connection import Notice, try_again
from .error_messages import ChangedError, causes, host, is_passing, page, status_of, told_by

_PULL_REQUEST = re.compile(r"refs/pr/\d+")
_FOLDERS = {"model": "", "dataset": "datasets/", "space": "spaces/"}


@dataclass
class Target:
    """The repository that is written to.

    Attributes:
        left: the traces of a failed push, as the end of a line for the user; "" where there are none.
    """

    api: HfApi
    repo_id: str
    repo_type: str
    revision: str | None
    private: bool
    create_pr: bool
    notice: Notice
    left: str = ""

    def open(self, base: str | None = None) -> str:
        """The commit to build on; the repository and its branch are created if necessary.

        Args:
            base: the commit that must still be the current one; "" where no repository may exist; None where any will
                do.

        Raises:
            ChangedError: the current commit is another.
        """
        where = f"{self.repo_id}@{self.revision}" if self.revision else self.repo_id
        made = False
        try:
            head = self._info()
        except GatedRepoError:
            raise
        except RevisionNotFoundError:
            if self.create_pr or _PULL_REQUEST.fullmatch(self.revision or ""):
                raise
            self._make_branch()
            head = self._info()
        except RepositoryNotFoundError:
            if self.create_pr:
                raise
            if base:
                raise ChangedError(where) from None
            self._make_repository()
            made = True
            if self.revision not in (None, constants.DEFAULT_REVISION):
                self._make_branch()
            head = self._info()
        if self.private and head.private is False:
            raise UserError(
                f"{self.repo_id} is there already and everybody can read it: make it private on its page at {host()}, "
                "or give another name"
            )
        if base is not None and head.sha != base and not made:
            raise ChangedError(where)
        return str(head.sha)

    def files(self, commit: str) -> dict[str, Any]:
        """The files of a commit as the Hub lists them, by name."""
        # huggingface_hub retries each of these requests itself.
        tree = self.api.list_repo_tree(self.repo_id, recursive=True, revision=commit, repo_type=self.repo_type)
        return {entry.path: entry for entry in tree if hasattr(entry, "blob_id")}

    def page(self, place: str) -> str:
        """The address of a page of the repository."""
        return page(f"{_FOLDERS[self.repo_type]}{self.repo_id}", place)

    def commit(
        self,
        parent: str,
        folder: Path,
        new: Sequence[str],
        gone: Sequence[str],
        message: str,
        description: str | None,
    ) -> CommitInfo:
        """Send files, commit them, and verify that they arrived.

        Args:
            parent: the commit to build on; the Hub refuses if the current one is another.
            folder: the folder of the files.
            new: their names.
            gone: names of files to delete.
            message, description: of the commit.

        Raises:
            ChangedError: somebody else has committed meanwhile.
            UserError: the Hub opened no pull request, or left files out.
            Exception: exceptions of huggingface_hub.
        """
        additions = [CommitOperationAdd(name, folder / name) for name in new]
        target: dict[str, Any] = {"repo_type": self.repo_type, "revision": self.revision, "create_pr": self.create_pr}

        def send() -> CommitInfo:
            try:
                return self.api.create_commit(
                    self.repo_id,
                    [*additions, *(CommitOperationDelete(name) for name in gone)],
                    commit_message=message,
                    commit_description=description,
                    parent_commit=parent,  # the Hub refuses a second copy of the commit, should the first have arrived
                    **target,
                )
            except Exception as error:
                # A refusal of the second may mean that the first arrived after all.
                unsure = is_passing(error) or any(status_of(cause) == 412 for cause in causes(error))
                if unsure and (found := self._arrived(parent, folder, new, gone, message, error)):
                    return found
                raise

        try:
            # huggingface_hub retries these itself.
            self.api.preupload_lfs_files(self.repo_id, additions, free_memory=False, **target)
            commit = self._try(send)
        except Exception as error:
            if self.create_pr and (refusal := next((each for each in causes(error) if status_of(each) == 501), None)):
                raise UserError(
                    f"{self.repo_id} cannot get a pull request, since {host()} offers none "
                    f"({told_by(refusal) or 501}): commit to a branch instead"
                ) from None
            raise
        self.left = ""
        self._check(commit, parent, folder, new, gone)
        return commit

    def _arrived(
        self, parent: str, folder: Path, new: Sequence[str], gone: Sequence[str], message: str, error: Exception
    ) -> CommitInfo | None:
        """The commit whose response was lost; None if there is none."""
        lost = any(isinstance(cause, httpx.TransportError) for cause in causes(error))
        if self.create_pr:
            if not lost or any(isinstance(cause, httpx.ConnectError) for cause in causes(error)):
                return None
            raise UserError(
                "the answer of the Hub was lost, so the pull request may have been opened or not: look at "
                f"{self.page('discussions')} before another try"
            )
        before = self.left
        self.left = "whether the commit arrived is not known: the next try finds out"
        head = self._info()
        there = self.files(head.sha) if head.sha != parent else {}
        self.left = before
        if head.sha == parent or any(name in there for name in gone):
            return None
        if not all(name in there and is_same(folder / name, there[name]) for name in new):
            return None
        url = self.page(f"commit/{head.sha}")
        return CommitInfo(commit_url=url, commit_message=message, commit_description="", oid=head.sha)

    def _check(self, commit: CommitInfo, parent: str, folder: Path, new: Sequence[str], gone: Sequence[str]) -> None:
        """Verify the commit: a server may ignore files, or requests that it does not support."""
        if self.create_pr and commit.pr_url is None and commit.oid != parent:
            raise UserError(
                "the Hub opened no pull request but committed at once, as it offers none: see "
                f"{self.page(f'commit/{commit.oid}')}"
            )
        try:
            try:
                there = self.files(commit.oid)
            except RevisionNotFoundError:  # there is no such commit: look at the current one
                there = self.files(self.revision or constants.DEFAULT_REVISION)
            wrong = [name for name in new if not self._holds(there, name, folder / name, commit.oid)]
        except Exception as error:
            if not is_passing(error):
                raise
            self.notice("the commit was made, but the Hub could not be asked whether all of it is there")
            return
        if wrong or (wrong := [name for name in gone if name in there]):
            shown = ", ".join(wrong[:3]) + (", ..." if len(wrong) > 3 else "")
            raise UserError(
                f"{host()} says that all of {self.repo_id} is there, but these files are not as they were sent: "
                f"{shown}; see whether its .gitignore leaves them out"
            )

    def _holds(self, there: Mapping[str, Any], name: str, file: Path, commit: str) -> bool:
        """Whether the Hub has the same file; if its hash differs, the contents are compared."""
        entry = there.get(name)
        if entry is None or file.stat().st_size != entry.size:
            return False
        if is_same(file, entry):
            return True

        def get() -> bool:
            with tempfile.TemporaryDirectory() as place:
                got = hf_hub_download(
                    self.repo_id, name, repo_type=self.repo_type, revision=commit, token=self.api.token, cache_dir=place
                )
                return file_hash(Path(got), sha256=True) == file_hash(file, sha256=True)

        return self._try(get)

    def _info(self) -> Any:
        return self._try(lambda: self.api.repo_info(self.repo_id, repo_type=self.repo_type, revision=self.revision))

    def _make_repository(self) -> None:
        self._try(
            lambda: self.api.create_repo(
                self.repo_id, repo_type=self.repo_type, private=self.private or None, exist_ok=True
            )
        )
        self.left = "the repository was made for this and is empty: the next try goes on with it"

    def _make_branch(self) -> None:
        assert self.revision is not None
        branch = self.revision
        self._try(lambda: self.api.create_branch(self.repo_id, branch=branch, repo_type=self.repo_type, exist_ok=True))
        self.left = self.left or f"the branch {branch} was made for this, with what was there before"

    def _try(self, action: Callable[[], Any]) -> Any:
        return try_again(action, self.notice)


def file_hash(file: Path, sha256: bool) -> str:
    """A file's hash on the Hub: the SHA-256 of a large file, or the SHA-1 of a git blob of any other."""
    digest = hashlib.sha256() if sha256 else hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    with file.open("rb") as opened:
        while piece := opened.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def is_same(file: Path, entry: Any) -> bool:
    """Whether a local file is the one that the Hub lists as `entry`."""
    if file.stat().st_size != entry.size:
        return False
    if entry.lfs is not None:
        return file_hash(file, sha256=True) == entry.lfs.sha256
    return file_hash(file, sha256=False) == entry.blob_id
