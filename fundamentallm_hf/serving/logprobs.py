"""Log-probabilities of the tokens of a text as it is generated, and how the OpenAI interface writes them.

They are raw: of the model alone, before settings and controls, as `Prediction.model_probability` is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from fundamentallm_hf.generation.probabilities import TokenNames
from fundamentallm_hf.generation.streaming import TokenTextStreamer
from fundamentallm_hf.portable.decoding.recording import ProbabilityRecorder, Recorder
from fundamentallm_hf.portable.text.vocabulary import as_bytes

# JSON has no infinity; the OpenAI interface gives this for a token that is impossible.
_IMPOSSIBLE = -9999.0


class _LogProbs(ProbabilityRecorder):
    """Keeps log-probabilities in place of probabilities."""

    def _read(self, scores: torch.Tensor, looked: torch.Tensor | None) -> tuple[torch.Tensor, list[dict[int, float]]]:
        rows = scores.float().log_softmax(dim=-1).cpu()
        values, tokens = rows.topk(min(self.top, rows.shape[-1]))
        return rows, [dict(zip(*best, strict=True)) for best in zip(tokens.tolist(), values.tolist(), strict=True)]


class _Look(LogitsProcessor):
    """Shows the raw scores of every step to a recorder."""

    def __init__(self, kept: _LogProbs) -> None:
        self.kept = kept

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return self.kept(input_ids, scores)


class ModelLogProbs(Recorder):
    """Keeps the raw log-probabilities of every step.

    Args:
        top: number of most probable tokens to keep at every step.
        beams: whether rows are dropped and resumed.

    Attributes:
        kept: `chosen` and `likeliest` return what is known of a row.
    """

    def __init__(self, top: int, beams: bool = False) -> None:
        self.kept = _LogProbs(top, beams=beams)
        self._look = _Look(self.kept)

    def first_look(self) -> LogitsProcessor:
        """Sees the scores before anything has changed them."""
        return self._look

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores


@dataclass(frozen=True)
class TokenLogProb:
    """A token of a text.

    Attributes:
        token: its id.
        start, end: where the text that is certain after it was extended, in characters of the completion; both are the
            same for a part of a character.
        logprob: in nats.
        top: the most probable tokens and their log-probabilities, the highest first.
    """

    token: int
    start: int
    end: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class TokenLogProbs(BaseStreamer):
    """Collects the log-probabilities of a text, token by token, before another streamer gets the token.

    Args:
        tokenizer: of the model.
        top: alternatives to each token.
        beams: whether it is searched with beams.
        streamer: the other streamer; may be None.

    Attributes:
        recorder: a processor for the call.
        found: the tokens so far, when they are streamed. Another thread may read it meanwhile.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, top: int, beams: bool = False, streamer: BaseStreamer | None = None
    ) -> None:
        self.tokenizer, self.streamer = tokenizer, streamer
        self.recorder = ModelLogProbs(top, beams)
        self.found: list[TokenLogProb] = []
        self._ids: list[int] = []
        self._texts = TokenTextStreamer(tokenizer, lambda text: None)

    def put(self, value: torch.Tensor) -> None:
        """`value`: the prompt at first, then each new token."""
        tokens = value.flatten().tolist()
        if not self._ids:
            self._ids = tokens
            self._texts.put(value)
        else:
            for token in tokens:
                self._add(token)
        if self.streamer is not None:
            self.streamer.put(value)

    def end(self) -> None:
        """End the other streamer."""
        if self.streamer is not None:
            self.streamer.end()

    def read(self, given: Sequence[int], added: Sequence[int]) -> list[TokenLogProb]:
        """The tokens of a text that has ended.

        Args:
            given: tokens of the prompt.
            added: tokens of the text.
        """
        if self._ids:
            return self.found[: len(added)]
        reader = TokenLogProbs(self.tokenizer, 0)  # it was not streamed, and may be one of several rows
        reader.recorder = self.recorder
        for each in (given, *([token] for token in added)):
            reader.put(torch.tensor([each]))
        return reader.found

    def _add(self, token: int) -> None:
        top = self.recorder.kept.likeliest(torch.tensor(self._ids))
        self._ids.append(token)
        chosen = self.recorder.kept.chosen(torch.tensor(self._ids))
        start = len(self._texts.text) - self._texts.prompt_end
        self._texts.put(torch.tensor([token]))
        end = len(self._texts.text) - self._texts.prompt_end
        highest = sorted(top.items(), key=lambda each: -each[1])
        self.found.append(TokenLogProb(token, start, end, chosen, tuple(highest)))


class Forms:
    """Writes log-probabilities as the OpenAI interface does.

    Args:
        tokenizer: of the model.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._names = TokenNames(tokenizer)

    def completion(self, tokens: Sequence[TokenLogProb]) -> dict[str, Any]:
        """The field `logprobs` of a choice of /v1/completions; offsets are those in its text."""
        tops = []
        for each in tokens:  # the token itself is always among them
            known = {self._text(token, "bytes:"): _finite(value) for token, value in each.top}
            tops.append(known | {self._text(each.token, "bytes:"): _finite(each.logprob)})
        return {
            "tokens": [self._text(each.token, "bytes:") for each in tokens],
            "token_logprobs": [_finite(each.logprob) for each in tokens],
            "top_logprobs": tops,
            "text_offset": [each.start for each in tokens],
        }

    def content(self, tokens: Sequence[TokenLogProb]) -> list[dict[str, Any]]:
        """The tokens of a chat or a response."""
        return [
            self._one(each.token, each.logprob) | {"top_logprobs": [self._one(*top) for top in each.top]}
            for each in tokens
        ]

    def _one(self, token: int, value: float) -> dict[str, Any]:
        return {"token": self._text(token), "bytes": list(self._bytes(token)), "logprob": _finite(value)}

    def _bytes(self, token: int) -> bytes:
        return as_bytes(self._names.vocabulary.piece(token))

    def _text(self, token: int, before: str = "") -> str:
        """The text of a token; its bytes, after `before`, if they are no text; its name if it has none."""
        piece = self._bytes(token)
        try:
            return piece.decode() or self._names.label(token)
        except UnicodeDecodeError:
            return before + "".join(f"\\x{byte:02x}" for byte in piece)


def _finite(value: float) -> float:
    return max(value, _IMPOSSIBLE)
