"""Text classifiers in the Hugging Face format: the probability that a text has a label.

They are loaded safely: only weights in safetensors, and no code of a repository is run.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from ..errors import UserError
from .classifier_files import CLASSIFIER_FILES

# Texts scored in one pass, classifiers that are kept, and labels that a message lists.
_BATCH, _KEPT_CLASSIFIERS, _SHOWN = 128, 4, 20


class TextClassifier:
    """Scores texts for one label of a classifier.

    Args:
        model: has one output for each label. A single label, or several that may hold together (`problem_type`
            "multi_label_classification"), get probabilities from the logistic function, others from a softmax.
        tokenizer: the tokenizer of the classifier.
        label: as in the config's `id2label`, in any case; may be omitted where there is only one.

    Raises:
        UserError: there is no such label.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, label: str = "") -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.index, self.label = _label(model.config, label)
        self.together = model.config.num_labels == 1 or model.config.problem_type == "multi_label_classification"
        # If a text is too long, its last part says most about it.
        tokenizer.truncation_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        if model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.pad_token_id
        self.longest = _longest(model, tokenizer)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> list[float]:
        """For each text the log of the probability of the label; nan for a text without readable tokens."""
        found: list[float] = []
        for start in range(0, len(texts), _BATCH):
            found += self._judge(list(texts[start : start + _BATCH]))
        return found

    def _judge(self, texts: list[str]) -> list[float]:
        limit = {"truncation": True, "max_length": self.longest} if self.longest else {}
        batch = self.tokenizer(texts, return_tensors="pt", padding=len(texts) > 1, verbose=False, **limit)
        if not batch["input_ids"].shape[1]:
            return [float("nan")] * len(texts)
        mask = batch["attention_mask"]
        logits = self.model(**batch.to(self.model.device)).logits.float().cpu()
        logs = nn.functional.logsigmoid(logits) if self.together else logits.log_softmax(dim=-1)
        return logs[:, self.index].masked_fill(mask.sum(dim=-1).cpu() == 0, torch.nan).tolist()

    @classmethod
    def load(cls, place: str | Path, label: str = "") -> "TextClassifier":
        """Read a classifier.

        Args:
            place: a local folder, or as a string `user/name` or `user/name@revision` on the Hub.
            label: see above.

        Raises:
            UserError: it does not exist, is no text classifier, cannot be read safely, or has no such label.
        """
        try:
            with _quietly():
                folder = place if isinstance(place, Path) else _fetch(place)
                if not (folder / "config.json").is_file():
                    raise UserError("there is no config.json")
                config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
                _label(config, label)
                if not any(folder.glob("model*.safetensors")):
                    raise UserError("it has no weights in safetensors, and others are not read")
                model, report = AutoModelForSequenceClassification.from_pretrained(
                    folder,
                    config=config,
                    dtype=torch.float32,
                    use_safetensors=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
                # Weights missing from a file are initialised at random, and would give random scores.
                if lacking := [*report["missing_keys"], *report["mismatched_keys"]]:
                    raise UserError(f"it is no text classifier: its weights have no fitting {lacking[0]}")
                tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
                if len(tokenizer) <= len(tokenizer.all_special_ids):
                    raise UserError("it has no tokenizer")
                return cls(model, tokenizer, label)
        except Exception as error:  # whatever the files contain, and however transformers reports it
            reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
            raise UserError(f"the classifier {str(place)!r} cannot be used: {reason}") from error


_LOADED: dict[Any, TextClassifier] = {}
_LOCK = threading.Lock()


def load_classifier(place: str | Path, label: str = "", device: torch.device | str = "cpu") -> TextClassifier:
    """A classifier on a device, cached while it is among the last used and its files are unchanged.

    Raises:
        UserError: see `TextClassifier.load`.
    """
    with _LOCK:
        key = (str(place), label, _state(place), str(device))
        found = _LOADED.pop(key, None)
        if found is None:
            found = TextClassifier.load(place, label)
            found.model.to(device)
        _LOADED[key] = found  # the end of a dict is its newest part
        while len(_LOADED) > _KEPT_CLASSIFIERS:
            del _LOADED[next(iter(_LOADED))]
        return found


def _state(place: str | Path) -> Any:
    if not isinstance(place, Path) or not place.is_dir():
        return None
    files = sorted(file for pattern in CLASSIFIER_FILES for file in place.glob(pattern))
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)


def _fetch(name: str) -> Path:
    """Download a repository's files, all of one commit, and none that could be run."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    repo_id, _, revision = name.partition("@")
    files = [*CLASSIFIER_FILES]
    try:
        found = snapshot_download(repo_id, revision=revision or None, allow_patterns=files, ignore_patterns=["*/*"])
    except RepositoryNotFoundError:
        raise UserError("there is no such repository on the Hub, or it is not open to you") from None
    except RevisionNotFoundError:
        raise UserError(f"its repository has no revision {revision!r}") from None
    except LocalEntryNotFoundError:
        raise UserError("it is not on this machine, and the Hub cannot be reached") from None
    return Path(found)


def _label(config: Any, label: str) -> tuple[int, str]:
    """A label's index and its spelling in the classifier."""
    labels = {str(config.id2label.get(index, index)): index for index in range(config.num_labels)}
    alike = [name for name in labels if name == label] or [
        name for name in labels if name.casefold() == label.casefold() or (not label and len(labels) == 1)
    ]
    if len(alike) == 1:
        return labels[alike[0]], alike[0]
    shown = ", ".join([*labels][:_SHOWN]) + (", ..." if len(labels) > _SHOWN else "")
    raise UserError(f"it has no label {label!r}: there are {shown}" if label else f"name one of its labels: {shown}")


def _longest(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Most tokens that a classifier reads; None where there is no limit."""
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < 1 << 20 else []
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        tables = [each for each in model.modules() if isinstance(each, nn.Embedding)]
        # RoBERTa and related models count positions from the padding id on.
        skipped = [
            each.padding_idx + 1 for each in tables if each.num_embeddings == positions and each.padding_idx is not None
        ]
        limits.append(positions - max(skipped, default=0))
    return min(limits, default=None)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' progress bars and reports: the caller reports what matters in one line."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
