"""Downloads the files of a repository: names are checked before, hashes after, and files are kept for offline use.

The files are in huggingface_hub's cache, one folder for every commit, so everything that is loaded is of one commit.
Downloaded files are never run or unpickled.
"""

import glob
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import HfApi, constants, get_cached_repo_tree, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import CachedRepoTreeNotFoundError, OfflineModeIsEnabled

from fundamentallm_hf.files import check_target, in_one_step, one_line
from fundamentallm_hf.portable.decoding.sidecar_names import BESIDE_WEIGHTS
from fundamentallm_hf.portable.errors import UserError

from .connection import Bar, Notice, conversation, try_again
from .error_messages import HubError, hub_error, is_passing
from .scan import check_names, is_pickle_name
from .upload import LIBRARY, is_same, split_name

# A model is loaded from files at the top of its repository with these endings, and from these folders.
LOADED = (".json", ".txt", ".model", ".py", ".jinja", ".tiktoken", ".bpe", ".vocab", ".md", "")
FOLDERS = ("attributes", "additional_chat_templates")
# Seconds to wait for the current commit, after which cached files are used if there are any.
QUICK = 10.0
_COMMIT = re.compile(r"[0-9a-f]{40}")

Choice = Callable[[Sequence[str]], Sequence[str]]


@dataclass(frozen=True)
class Snapshot:
    """Files of a repository at one commit.

    Attributes:
        repo_id: `user/name`.
        commit: its hash.
        folder: the folder they are in.
        files: their names, with `/` between folders.
        left_out: files of the repository that are refused because they are pickles.
    """

    repo_id: str
    commit: str
    folder: Path
    files: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The repository and its commit, as messages name them."""
        return f"{self.repo_id}@{self.commit[:12]}"


def everything(names: Sequence[str]) -> Sequence[str]:
    """All files except pickles."""
    return [name for name in names if not is_pickle_name(name)]


def for_loading(names: Sequence[str]) -> Sequence[str]:
    """The files that a model is loaded from: one set of weights, its tokenizer, and what its controls use.

    Example:

    ```python
    >>> from fundamentallm_hf.hub.download import for_loading
    >>> for_loading(["config.json", "model.safetensors", "model.fp16.safetensors", "pytorch_model.bin", "onnx/m.onnx"])
    ['config.json', 'model.safetensors']

    ```
    """
    safe = [name for name in everything(names) if not name.startswith(".")]
    top = [name for name in safe if "/" not in name]
    weights = [name for name in top if name.endswith(".safetensors") and name not in BESIDE_WEIGHTS]
    if "model.safetensors" in weights:
        weights = ["model.safetensors"]
    elif "model.safetensors.index.json" in top:
        weights = [name for name in weights if name.startswith("model-")]
    return [
        name
        for name in safe
        if name in (*weights, *BESIDE_WEIGHTS)
        or ("/" not in name and PurePosixPath(name).suffix in LOADED)
        or PurePosixPath(name).parts[0] in FOLDERS
    ]


def fetch(
    name: str,
    revision: str | None = None,
    *,
    choose: Choice = for_loading,
    notice: Notice = lambda text: None,
    progress: bool = False,
    token: str | bool | None = None,
) -> Snapshot:
    """Download files of a repository, or find them in the cache.

    Without a network, and with `HF_HUB_OFFLINE=1`, the cached files are used, if they are complete. A damaged file is
    downloaded once more.

    Args:
        name: `user/name` or `user/name@revision`.
        revision: branch, tag or commit; by default the default branch.
        choose: returns the files to download, given the names of all.
        notice: called with lines for the user meanwhile.
        progress: show progress bars on stderr.
        token: used instead of the one that is logged in.

    Raises:
        UserError: there is no such repository or revision, this user has no access to it, a name in it is not safe, it
            cannot be reached, does not fit on the disk, or is damaged.
    """
    repo_id, revision = split_name(name, revision)
    where = f"{repo_id}@{revision}" if revision else repo_id
    try:
        with conversation(notice, progress=progress):
            api = HfApi(token=token, library_name=LIBRARY)
            if _COMMIT.fullmatch(revision or "") and (
                found := _on_this_machine(repo_id, revision, choose, listed=True)
            ):
                return found  # a commit never changes
            try:
                commit = _find_commit(api, repo_id, revision, notice)
            except Exception as error:
                found = _on_this_machine(repo_id, revision, choose) if _is_away(error) else None
                if found is None:
                    raise
                if not constants.is_offline_mode():
                    told = hub_error(where, error)
                    reason = told.reason if isinstance(told, HubError) else "cannot be reached"
                    notice(f"{where} {reason}: taking the files of commit {found.commit[:12]} on this machine")
                return found
            snapshot = _download(api, repo_id, commit, where, choose, notice)
            _remember(snapshot, revision or constants.DEFAULT_REVISION)
            return snapshot
    except Exception as error:
        # The cause is dropped: it may contain a request with a token.
        raise hub_error(where, error) from None


def pull(
    name: str,
    folder: str | Path | None = None,
    revision: str | None = None,
    *,
    force: bool = False,
    notice: Notice = lambda text: None,
    progress: bool = False,
) -> tuple[Snapshot, Path]:
    """Download a whole repository except pickles, into a folder that is written atomically.

    Args:
        name: `user/name` or `user/name@revision`.
        folder: the target; without it the files stay in the cache.
        revision: branch, tag or commit.
        force: replace a folder that is not empty.
        notice: called with lines for the user meanwhile.
        progress: show progress bars on stderr.

    Returns:
        The downloaded files, and their folder.

    Raises:
        UserError: as in `fetch`, or the folder cannot be written; then it is unchanged.
    """
    target = None if folder is None else check_target(folder, force=force)
    snapshot = fetch(name, revision, choose=everything, notice=notice, progress=progress)
    if target is None:
        return snapshot, snapshot.folder
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with in_one_step(target, force) as partial:
            for file in snapshot.files:
                place = partial.joinpath(*file.split("/"))
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(snapshot.folder / file, place)
    except OSError as error:
        raise UserError(f"cannot write {str(folder)!r}: {one_line(error)}") from error
    assert folder is not None
    return snapshot, Path(folder)


def _find_commit(api: HfApi, repo_id: str, revision: str | None, notice: Notice) -> str:
    tries = 1 if _on_this_machine(repo_id, revision, lambda names: []) else 3
    info = try_again(lambda: api.model_info(repo_id, revision=revision, timeout=QUICK), notice, tries)
    assert info.sha is not None
    return info.sha


def _is_away(error: Exception) -> bool:
    """Whether the Hub cannot be reached now, rather than refusing."""
    return isinstance(error, OfflineModeIsEnabled) or is_passing(error)


def _on_this_machine(repo_id: str, revision: str | None, choose: Choice, listed: bool = False) -> Snapshot | None:
    """The cached files, if all that are chosen are there.

    Software that stores no list of files may have cached any subset; with `listed` that does not count.
    """
    try:
        names: Sequence[str] = [entry.path for entry in get_cached_repo_tree(repo_id, revision=revision)]
    except CachedRepoTreeNotFoundError:
        names = []
    if listed and not names:
        return None
    check_names(names, repo_id)
    patterns = _patterns(choose(names)) if names else None
    try:
        folder = Path(snapshot_download(repo_id, revision=revision, local_files_only=True, allow_patterns=patterns))
    except OSError:
        return None
    if not names:
        names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    return Snapshot(repo_id, folder.name, folder, tuple(choose(names)), _pickles(names))


def _download(api: HfApi, repo_id: str, commit: str, where: str, choose: Choice, notice: Notice) -> Snapshot:
    """Download the files of a commit, and verify them against the Hub's hashes."""
    # huggingface_hub retries each of these requests itself.
    tree = api.list_repo_tree(repo_id, recursive=True, revision=commit)
    entries: dict[str, Any] = {entry.path: entry for entry in tree if hasattr(entry, "blob_id")}
    check_names(entries, where)
    names = tuple(choose(list(entries)))
    for again in (False, True):
        new = [name for name in names if not isinstance(try_to_load_from_cache(repo_id, name, revision=commit), str)]
        _check_room(where, sum(entries[name].size for name in new))

        def get() -> str:
            return snapshot_download(
                repo_id, revision=commit, allow_patterns=_patterns(names), token=api.token, tqdm_class=Bar
            )

        folder = Path(try_again(get, notice))
        # Not by HfApi.verify_repo_checksums, which lists the files once more and reads all cached files, too.
        damaged = [name for name in new if not is_same(folder / name, entries[name])]
        if not damaged:
            break
        for name in damaged:  # or the damaged file would be used from now on
            (folder / name).resolve().unlink(missing_ok=True)
            (folder / name).unlink(missing_ok=True)
        if again:
            raise UserError(
                f"{where} came damaged ({', '.join(damaged[:3])}: the checksum is not the Hub's), and nothing of that "
                "was kept: try again, and if it happens again, report it to the owner of the repository or the network"
            )
        notice(f"{damaged[0]} came damaged: getting it once more")
    return Snapshot(repo_id, commit, folder, names, _pickles(entries))


def _remember(snapshot: Snapshot, revision: str) -> None:
    """Record the commit of a branch or tag for offline use; huggingface_hub does so before the files are there.

    Incomplete models do not replace an older commit. The format of these records is described in
    https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    note = snapshot.folder.parent.parent.joinpath("refs", *revision.split("/"))
    whole = _on_this_machine(snapshot.repo_id, snapshot.commit, for_loading, listed=True) is not None
    if revision == snapshot.commit or (note.exists() and not whole):
        return
    partial = note.with_name(f"{note.name}.{secrets.token_hex(4)}.partial")
    with suppress(OSError):  # without it only a later offline use fails
        note.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(snapshot.commit)
        os.replace(partial, note)  # noqa: PTH105 - in one step


def _check_room(where: str, needed: int) -> None:
    place = Path(constants.HF_HUB_CACHE).expanduser().absolute()
    free = shutil.disk_usage(next(each for each in (place, *place.parents) if each.exists())).free
    if needed > free:
        raise UserError(
            f"{where} does not fit on the disk: {needed / 1e6:,.1f} MB are needed in {place} and {free / 1e6:,.1f} MB "
            "are free; free some space, or set HF_HOME to a larger disk"
        )


def _pickles(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in names if is_pickle_name(name)))


def _patterns(names: Iterable[str]) -> list[str]:
    """Patterns that match these names and no others."""
    return [glob.escape(name) for name in names]
