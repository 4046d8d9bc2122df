"""How well a causal language model predicts a text: loss, perplexity, bits per character, accuracy.

Works with any causal model and tokenizer of transformers, one character per token or not.

The text is read through a sliding window. A window holds `window` tokens of input and predicts the token after each of
them. The next one starts `stride` tokens later and scores only what is new to it; the last is moved back to end with
the text. So each token is predicted once: from all the text before it while that fits the window, and from
`window - stride + 1` to `window` tokens afterwards. A smaller stride gives the model more context and takes more time:
about `window / stride` passes over the text.

The first token has nothing to be predicted from. It is not scored, and the characters it completes are not counted,
unless the tokenizer puts a start token before every text (Llama's does; FundamentaLLM's and GPT-2's do not): then it is
scored from that. A character that is split over several tokens counts if any token that holds a part of it is scored.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fundamentallm_hf.model_io.tokenizer import unknown_characters
from fundamentallm_hf.portable.decoding.forward import forward
from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.portable.model.records import EVALUATION, read_records, weights_digest, write_records

from .files import local_path
from .files import read_text as read_utf8

LONGEST_DEFAULT_WINDOW = 1024


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The results of `evaluate()`.

    Attributes:
        loss: mean cross-entropy in nats per scored token.
        perplexity: `exp(loss)`, per token, so comparable only between models that share a tokenizer.
        bits_per_character: all bits divided by `characters`; comparable between any two models on the same text.
        accuracy: share of the scored tokens, 0 to 1, that were the model's most probable.
        tokens: number of scored tokens.
        characters: number of characters of the text in the scored tokens.
        window: tokens of input per forward pass, which is the longest context of a prediction.
        stride: tokens between the starts of neighbouring windows.
        unknown_tokens: how many of the scored tokens are the tokenizer's unknown token. The model did not have to
            predict which character each of them is, so a large number makes the other figures too good.
    """

    loss: float
    perplexity: float
    bits_per_character: float
    accuracy: float
    tokens: int
    characters: int
    window: int
    stride: int
    unknown_tokens: int

    def to_dict(self) -> dict[str, float | int]:
        """The fields by name, ready for `json.dump`."""
        return dataclasses.asdict(self)


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure how well the model predicts a text through a sliding window, every token once.

    Args:
        model: any causal model; its mode (training or evaluation) is restored.
        tokenizer: the tokenizer of the model.
        text: the text to predict. Its first token is scored only if the tokenizer puts a start token before every text.
        window: tokens, 1 to `config.max_position_embeddings`; by default that limit, but at most 1024.
        stride: tokens, 1 to `window`; by default half the window.
        batch_size: windows per forward pass. Only the logits of one batch are kept in memory.
        progress: called after each batch with the number of tokens scored so far and their number in all.

    Raises:
        UserError: the text is empty or too short to score a token, a number is out of its range, or the tokenizer
            returns ids that the model lacks.

    Example:

    ```python
    >>> from fundamentallm_hf import evaluate, load_model
    >>> model = load_model(device="cpu")
    >>> evaluate(model, model.tokenizer, "Once upon a time").tokens
    15

    ```
    """
    window, stride = _window_and_stride(model, window, stride)
    if batch_size < 1:
        raise UsageError(f"the batch size has to be at least 1 window but is {batch_size}")
    ids, unscored, characters = _encode(tokenizer, text)
    _check_ids(model, ids)
    unknown = ids[unscored:].count(tokenizer.unk_token_id) if unknown_characters(tokenizer, text) else 0
    # Predictions of one start token from another are not scored.
    spans = [
        (begin, min(max(new, unscored - 1), end), end) for begin, new, end in window_spans(len(ids) - 1, window, stride)
    ]
    batches = [spans[first : first + batch_size] for first in range(0, len(spans), batch_size)]
    nats, hits, tokens = _score(model, torch.tensor(ids), batches, progress)
    loss = nats / tokens
    return Evaluation(
        loss=loss,
        perplexity=math.inf if loss > 700 else math.exp(loss),
        bits_per_character=nats / math.log(2) / characters,
        accuracy=hits / tokens,
        tokens=tokens,
        characters=characters,
        window=window,
        stride=stride,
        unknown_tokens=unknown,
    )


def _check_ids(model: PreTrainedModel, ids: list[int]) -> None:
    size = getattr(model.config.get_text_config(), "vocab_size", None)
    if size is not None and max(ids) >= size:
        raise UserError(
            f"the tokenizer gives the id {max(ids)} but the model has only {size} tokens: use the model's own tokenizer"
        )


def _score(
    model: PreTrainedModel,
    sequence: torch.Tensor,
    batches: list[list[tuple[int, int, int]]],
    progress: Callable[[int, int], None] | None,
) -> tuple[float, int, int]:
    """Predict the tokens of all windows.

    Args:
        model: set to evaluation mode meanwhile.
        sequence: (length,) the tokens.
        batches: windows, each as `window_spans` gives them.
        progress: as in `evaluate`.

    Returns:
        The sum of the cross-entropies in nats, the number of tokens that were the most probable, and the number of
        scored tokens.
    """
    nats, hits, done = 0.0, 0, 0
    total = sum(end - new for batch in batches for _, new, end in batch)
    with _evaluation_mode(model), torch.inference_mode():
        for batch in batches:
            inputs = torch.stack([sequence[begin:end] for begin, _, end in batch]).to(model.device)
            logits = _last_logits(model, inputs, max(end - new for _, new, end in batch))
            # Row by row: the log-softmax in float32 then needs memory for one window, not for the batch.
            for row, (_, new, end) in zip(logits, batch, strict=True):
                scores = row[len(row) - (end - new) :].float()
                targets = sequence[new + 1 : end + 1].to(scores.device)
                nats += math.fsum(nn.functional.cross_entropy(scores, targets, reduction="none").tolist())
                hits += int((scores.argmax(dim=-1) == targets).sum())
                done += end - new
            if progress is not None:
                progress(done, total)
    return nats, hits, total


def window_spans(predictions: int, window: int, stride: int) -> list[tuple[int, int, int]]:
    """The windows as `(begin, new, end)`, in tokens.

    A window takes the tokens `begin` to `end - 1` as input, and its predictions at `new` to `end - 1` are the new ones.
    All windows have the same length, so a batch needs no padding.

    Args:
        predictions: number of tokens that have a token after them.

    Example:

    ```python
    >>> from fundamentallm_hf.evaluation import window_spans
    >>> window_spans(9, window=4, stride=2)
    [(0, 0, 4), (2, 4, 6), (4, 6, 8), (5, 8, 9)]

    ```
    """
    window = min(window, predictions)
    begins = [*range(0, predictions - window, stride), predictions - window]
    ends = [begin + window for begin in begins]
    return list(zip(begins, [0, *ends], ends, strict=False))


def read_text(path: str | Path) -> str:
    """Read a text file exactly: UTF-8, with line ends unchanged.

    Line ends are not translated, because a model's loss depends on them: `"\\r\\n"` stays two characters. Only a byte
    order mark at the very start, which is a mark of the encoding and not part of the text, is dropped.

    Raises:
        UserError: there is no such file, it is a folder, cannot be read, is not UTF-8, or is empty.

    Example:

    ```python
    >>> import pathlib, tempfile
    >>> from fundamentallm_hf.evaluation import read_text
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "story.txt")
    ...     _ = path.write_bytes(b"one\\r\\ntwo\\n")
    ...     read_text(path)
    'one\\r\\ntwo\\n'

    ```
    """
    place = local_path(path)
    if place.is_dir():
        raise UserError(f"{path} is a folder: give a text file")
    if not place.exists():
        raise UserError(f"{path} does not exist: give a text file")
    text = read_utf8(place, str(path), exact=True)
    if not text:
        raise UserError(f"{path} is empty: give a file with text in it")
    return text


def _window_and_stride(model: PreTrainedModel, window: int | None, stride: int | None) -> tuple[int, int]:
    """The two numbers, checked, with their defaults filled in."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if window is None:
        window = min(limit or LONGEST_DEFAULT_WINDOW, LONGEST_DEFAULT_WINDOW)
    if window < 1:
        raise UsageError(f"the window has to be at least 1 token but is {window}")
    if limit and window > limit:
        raise UsageError(f"the window has to be at most {limit} tokens, the model's limit, but is {window}")
    if stride is None:
        stride = max(1, window // 2)
    if not 1 <= stride <= window:
        raise UsageError(f"the stride has to be 1 to {window} tokens, the window, but is {stride}")
    return window, stride


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], int, int]:
    """The text's tokens after the tokenizer's start tokens; how many are not scored; the characters of the others."""
    if not text:
        raise UserError("the text is empty: give a text of at least two tokens")
    # verbose=False: the text may be longer than the model's window.
    encoding = tokenizer(text, add_special_tokens=False, verbose=False)
    ids = list(encoding.input_ids)
    start = _start_tokens(tokenizer)
    if len(start) + len(ids) < 2 or not ids:
        raise UserError(
            f"the text has fewer than two tokens ({len(ids)}), and the first has nothing to be predicted from: "
            "give a longer text"
        )
    if start:
        return start + ids, len(start), len(text)
    if encoding.is_fast:
        # The second token may start within the first one's last character, if that has more than one byte.
        before = min(encoding.token_to_chars(0).end, encoding.token_to_chars(1).start)
    else:
        piece = str(tokenizer.decode(ids[:1]))
        before = len(piece) if text.startswith(piece) else 0
    return ids, 1, len(text) - before


def _start_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that the tokenizer puts before every text: often none, for some models `<s>`."""
    bare = tokenizer("a", add_special_tokens=False).input_ids
    full = tokenizer("a").input_ids
    return next((full[:i] for i in range(len(full)) if full[i : i + len(bare)] == bare), [])


def _last_logits(model: PreTrainedModel, inputs: torch.Tensor, number: int) -> torch.Tensor:
    """The logits of at least the last `number` positions, `(batch, number or length, vocab)`."""
    return forward(model, inputs, mask=torch.ones_like(inputs), last=number).logits


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Turn dropout and the like off inside; afterwards restore every module's mode, frozen parts included."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


__all__ = ["Evaluation", "evaluate", "read_text", "window_spans"]


def evaluation_file(model: str | None, dtype: str) -> Path:
    """The file for the evaluations of a model, checked before any work starts.

    Args:
        model: its folder or checkpoint.
        dtype: the precision it is evaluated in.

    Raises:
        UsageError: its weights are not evaluated in their saved precision.
        UserError: it is not a local model, or the file cannot be written.
    """
    if dtype != "auto":
        raise UsageError(f"--save keeps what is told of the weights as they are, but dtype is {dtype}: leave one out")
    path = Path(model or "").expanduser()
    if model is None or not path.exists():
        raise UserError(f"--save writes next to the model, but {model or 'none'} is not a local model: give a folder")
    folder = path if path.is_dir() else path.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to {str(folder)!r}: permission denied")
    return folder / EVALUATION


def add_evaluation(
    file: Path, model: Any, result: Mapping[str, float | int], name: str, dataset: str | None = None
) -> None:
    """Save an evaluation next to the model, replacing an earlier one of the same text.

    Args:
        file: from `evaluation_file`.
        model: the evaluated model.
        result: the results, by name.
        name: the name of the text.
        dataset: the data set on the Hub that it comes from.
    """
    record = {
        "weights": weights_digest(model.state_dict().values()),
        "dataset": {"name": name} | ({"id": dataset} if dataset else {}),
        **result,
    }
    others = [
        each
        for each in read_records(file)
        if (each.get("weights"), (each.get("dataset") or {}).get("name")) != (record["weights"], name)
    ]
    try:
        write_records(file, [*others, record])
    except OSError as error:
        raise UserError(f"cannot write {str(file)!r}: {error.strerror or error}") from error
