"""Publishes a model on the Hub in one commit, ready for use with or without this package.

The model is saved into a new folder, so that no other files are sent with it, such as the state of an optimizer.
"""

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from fundamentallm_hf.files import NotTextError, local_path, read_text
from fundamentallm_hf.hub.connection import SILENCE, Notice, conversation, try_again
from fundamentallm_hf.hub.error_messages import hub_error
from fundamentallm_hf.hub.upload import LIBRARY, Upload, login_name, split_target, upload_folder
from fundamentallm_hf.model_io.checkpoint import convert_checkpoint, is_fundamentallm_source
from fundamentallm_hf.model_io.loading import DEMO_MODEL, load_model, tokenizer_of
from fundamentallm_hf.model_io.model_folder import write_model_folder
from fundamentallm_hf.portable.decoding.sidecar_names import BESIDE_WEIGHTS
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.guides.attribute_lookup import save_attributes
from fundamentallm_hf.portable.model.modeling_fundamentallm import FundamentaLLMPreTrainedModel
from fundamentallm_hf.portable.model.records import save_records

from .card_merge import metadata_of
from .code_license import code_license
from .model_card import card_for

CARD = "README.md"
# The code that travels with a model has this licence; the licence of the model is in its card, or in its LICENSE.
CODE_LICENSE = "LICENSE.code"
# Other files of a model's folder that are sent: those that people wrote.
_BESIDE = (CARD, "LICENSE*", "LICENCE*", "NOTICE*")
# Where the repository has more of these than the model, they are left from an older one, and would be loaded with it.
_STALE = (
    *("model*.safetensors", "model*.safetensors.index.json", *BESIDE_WEIGHTS),
    *("attributes/*", "additional_chat_templates/*"),
)


def push(
    source: str | Path | None,
    repo_id: str,
    *,
    license: str | None = None,
    trust_remote_code: bool = False,
    notice: Notice = lambda text: None,
    progress: bool = False,
    **options: Any,
) -> Upload:
    """Publish the model that `source` names.

    Args:
        source: as for `load_model`; a FundamentaLLM checkpoint is converted first.
        repo_id: `user/name`, or `user/name@branch`.
        license: of the model, by the Hub's name for it, such as "mit".
        trust_remote_code: run the code of a model that is not a FundamentaLLM model.
        notice: called with lines for the user meanwhile.
        progress: show progress bars on stderr.
        options: `private`, `revision`, `create_pr`, `message`, `description` and `dry_run`, as in `upload_folder`.

    Returns:
        The files that were sent and their address.

    Raises:
        UserError: there is no such model, part of it must not be sent, or the Hub refuses or cannot be reached.
    """
    check_publishing(repo_id, notice, options)
    told: dict[str, Any] = {"license": license, "notice": notice, "progress": progress} | options
    path = DEMO_MODEL if source is None else local_path(source)
    if is_fundamentallm_source(path):
        # Files next to a checkpoint may belong to the training run.
        return _publish(lambda folder: convert_checkpoint(path, folder), None, repo_id, **told)
    model = load_model(source, device="cpu", trust_remote_code=trust_remote_code, notice=notice, progress=progress)
    return _publish(*_of_model(model, tokenizer_of(model)), repo_id, **told)


def push_model(
    model: PreTrainedModel,
    repo_id: str,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_shard_size: int | str | None = None,
    notice: Notice = lambda text: None,
    **options: Any,
) -> Upload:
    """Publish a model in memory.

    Args:
        model: any causal language model.
        repo_id: `user/name`, or `user/name@branch`.
        tokenizer: the tokenizer of the model; by default its attribute, or the one where it was loaded from.
        max_shard_size: of a file of weights, such as "5GB".
        notice: called with lines for the user meanwhile.
        options: as in `push`, and `tags` to add to the card's.

    Raises:
        UserError: as in `push`, or the model has no tokenizer.
    """
    check_publishing(repo_id, notice, options)
    written = _of_model(model, tokenizer or tokenizer_of(model), max_shard_size)
    return _publish(*written, repo_id, notice=notice, **options)


def check_publishing(repo_id: str, notice: Notice, options: Mapping[str, Any]) -> None:
    """Raise errors that would otherwise occur at the end before any work starts."""
    split_target(repo_id, options.get("revision"))
    if not options.get("dry_run"):
        login_name(options.get("token"), notice)


def _of_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_shard_size: int | str | None = None
) -> tuple[Callable[[Path], Any], Path | None]:
    origin = Path(model.name_or_path) if model.name_or_path else None
    beside = origin if origin is not None and (origin / "config.json").is_file() else None

    def write(folder: Path) -> None:
        try:
            write_model_folder(folder, model, tokenizer, max_shard_size=max_shard_size or "50GB")
        except ValueError as error:  # transformers' checks of the files to save
            raise error if isinstance(error, UserError) else UserError(str(error).splitlines()[0]) from error
        if not isinstance(model, FundamentaLLMPreTrainedModel):  # whose `save_pretrained` writes them
            save_attributes(model, folder)
            save_records(model, folder)

    return write, beside


def _publish(
    write: Callable[[Path], Any],
    beside: Path | None,
    repo_id: str,
    *,
    license: str | None = None,
    tags: Sequence[str] = (),
    token: str | bool | None = None,
    notice: Notice = lambda text: None,
    **options: Any,
) -> Upload:
    """Write the folder, its card, and send it."""
    name, revision = split_target(repo_id, options.pop("revision", None))
    with _quiet(), tempfile.TemporaryDirectory() as scratch:
        # The folder's name is not in any file, but a card may use its last part as the name of a model.
        folder = Path(scratch, name.rpartition("/")[2])
        write(folder)
        _copy_beside(beside, folder)
        if (folder / "modeling_fundamentallm.py").exists():
            (folder / CODE_LICENSE).write_text(code_license(), encoding="utf-8")
        card = folder / CARD
        written = read_text(card, CARD) if card.exists() else None
        there = None if options.get("dry_run") else card_there(name, revision, token, notice)
        if there is not None:
            written = there.text or written
        card.write_text(_card(folder, name, written, license, tags), encoding="utf-8")
        base = None if there is None else there.commit
        return upload_folder(
            folder, name, revision=revision, base=base, delete=_STALE, token=token, notice=notice, **options
        )


def _copy_beside(origin: Path | None, folder: Path) -> None:
    for file in sorted(file for pattern in _BESIDE if origin is not None for file in origin.glob(pattern)):
        if file.is_file() and not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)


def _card(folder: Path, repo_id: str, existing: str | None, license: str | None, tags: Sequence[str]) -> str:
    given: dict[str, Any] = {"license": license} if license else {}
    card = card_for(folder, repo_id=repo_id, existing=existing, metadata=given)
    if tags:
        given["tags"] = list(dict.fromkeys([*metadata_of(card).get("tags", ()), *tags]))
        card = card_for(folder, repo_id=repo_id, existing=existing, metadata=given)
    return card


@dataclass(frozen=True)
class CardThere:
    """The current card of a repository, and the commit it was read from.

    Attributes:
        text: the card; None if there is none.
        commit: the commit it was read from, on which a commit with a new card has to build, or edits made meanwhile
            would be lost; "" where there is no repository.
    """

    text: str | None
    commit: str


def card_there(repo_id: str, revision: str | None, token: str | bool | None, notice: Notice) -> CardThere:
    """The card in the repository, which people may have edited."""
    api = HfApi(token=token, library_name=LIBRARY)

    def get() -> CardThere:
        for each in dict.fromkeys((revision, None)):  # a new branch starts as the default branch
            try:
                commit = str(api.model_info(repo_id, revision=each, timeout=SILENCE).sha)
            except RevisionNotFoundError:
                continue
            except GatedRepoError:
                raise
            except RepositoryNotFoundError:
                break
            try:
                with tempfile.TemporaryDirectory() as place:  # one file of a commit is of no use in the cache
                    card = hf_hub_download(repo_id, CARD, revision=commit, token=token, cache_dir=place)
                    return CardThere(read_text(card, f"the card of {repo_id}"), commit)
            except EntryNotFoundError as error:
                if isinstance(error, LocalEntryNotFoundError):  # the Hub was not reached
                    raise
                return CardThere(None, commit)
        return CardThere(None, "")

    try:
        with conversation(notice):
            return try_again(get, notice)
    except NotTextError:
        raise UserError(f"the card of {repo_id} is not UTF-8 text: correct its README.md on the Hub first") from None
    except Exception as error:
        raise hub_error(repo_id, error) from None


_quiet_lock = threading.Lock()
_quiet_pushes = 0
_shown_before = True


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide transformers' progress bar for writing weights, which takes a moment; those of the Hub stay.

    The switch is process-wide: the first of several pushes turns it off, and the last restores it.
    """
    global _quiet_pushes, _shown_before
    with _quiet_lock:
        if not _quiet_pushes:
            _shown_before = logging.is_progress_bar_enabled()
            _switch_bars(False)
        _quiet_pushes += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_pushes -= 1
            if not _quiet_pushes:
                _switch_bars(_shown_before)


def _switch_bars(shown: bool) -> None:
    hidden = are_progress_bars_disabled()
    (logging.enable_progress_bar if shown else logging.disable_progress_bar)()  # they switch the Hub's as well
    (disable_progress_bars if hidden else enable_progress_bars)()
