"""Probabilities of tokens: raw, by the model alone, and after the settings and controls of a generation.

Raw probabilities are computed from the finished text, in the same context as when it was generated. The probabilities
after settings and controls come from a `ProbabilityRecorder`.
"""

import json
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fundamentallm_hf.portable.decoding.context_window import can_slide, window_start
from fundamentallm_hf.portable.decoding.control_effects import Shift
from fundamentallm_hf.portable.decoding.forward import forward
from fundamentallm_hf.portable.decoding.recording import ProbabilityRecorder
from fundamentallm_hf.portable.decoding.row_states import row_keys
from fundamentallm_hf.portable.text.vocabulary import Vocabulary, as_bytes

_NAMES = {
    " ": "space",
    "\n": "line break",
    "\t": "tab",
    "\r": "carriage return",
    "\N{NO-BREAK SPACE}": "no-break space",
}
# The classes of probability that set a token's colour, by their lower bounds, and what users read of them.
STEPS = (0.0, 0.02, 0.1, 0.3, 0.7)
STEP_NAMES = ("under 2%", "to 10%", "to 30%", "to 70%", "over 70%")
# A token counts as chosen because of a control that made it at least so many times as likely.
RAISED = 1.1


def step_of(probability: float) -> int:
    """The class of a probability, 0 for the lowest."""
    return sum(probability >= low for low in STEPS) - 1


def led_to(shift: Shift, token: int, effects: Mapping[str, float]) -> bool:
    """Whether a token was chosen at the position of a shift because of it: the control has made the token likelier.

    Args:
        shift: what a control did there.
        token: the chosen one.
        effects: by what acted, the factor by which it changed the probability of that token.
    """
    # Without a factor, the token was impossible before.
    raised = effects.get(shift.phase, math.inf) > RAISED
    return shift.away != token and (raised or shift.towards == token)


@dataclass(frozen=True, slots=True)
class Prediction:
    """One token at one position of a text.

    Attributes:
        token: its id.
        text: what it adds to the text; nothing if it is a special token.
        label: how to show it: `"c"`, `" " (space)`, `<EOS>`.
        probability: after the settings and controls: the probability with which it is chosen. At temperature 0 that is
            0 or 1; in beam search it is the weight that the step gives to the beam.
        model_probability: the raw probability, by the model alone.
        alternatives: the most probable tokens at the same position, by the model alone or after settings and controls.
        effects: by what acted ("ban", "require", "guide", "structure", "ending", "beginning", "repetition"), the factor
            by which it changed this token's probability; 0 took it away. Without what changed nothing.
        shifts: of a token in a text, the controls that moved at least a tenth of the probability at its position.
    """

    token: int
    text: str
    label: str
    probability: float
    model_probability: float
    alternatives: "tuple[Prediction, ...]" = ()
    effects: dict[str, float] = field(default_factory=dict)
    shifts: tuple[Shift, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The fields by name; the last three only if there are any."""
        optional = ("alternatives", "effects", "shifts")
        made: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__ if name not in optional}
        if self.alternatives:
            made["alternatives"] = [each.to_dict() for each in self.alternatives]
        if self.effects:
            made["effects"] = dict(self.effects)
        if self.shifts:
            made["shifts"] = [asdict(each) for each in self.shifts]
        return made


class TokenNames:
    """The texts of tokens, and labels that show them.

    Example:

    ```python
    >>> from fundamentallm_hf import load_model
    >>> from fundamentallm_hf.generation.probabilities import TokenNames
    >>> names = TokenNames(load_model(device="cpu").tokenizer)
    >>> [names.label(token) for token in names.tokenizer("a \\n").input_ids]
    ['"a"', '" " (space)', '"\\\\n" (line break)']

    ```
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = Vocabulary.of(tokenizer)
        self._labels: dict[int, str] = {}
        self._texts: dict[int, str] = {}

    def text(self, token: int) -> str:
        """The text that `token` adds; a replacement character where it is only a part of one."""
        if token not in self._texts:
            self._texts[token] = as_bytes(self.vocabulary.piece(token)).decode("utf-8", "replace")
        return self._texts[token]

    def label(self, token: int) -> str:
        """The token in quotes, with its name if it is not visible; a special token as the tokenizer calls it."""
        if token not in self._labels:
            self._labels[token] = self._label(token)
        return self._labels[token]

    def _label(self, token: int) -> str:
        text = self.text(token)
        if not text or "\N{REPLACEMENT CHARACTER}" in text:
            return str(self.tokenizer.convert_ids_to_tokens(token) if token < len(self.tokenizer) else f"<{token}>")
        quoted = json.dumps(text, ensure_ascii=False)
        shown = "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in quoted)
        if len(text) == 1 and (text in _NAMES or not text.isprintable() or unicodedata.category(text)[0] in "MZ"):
            return f"{shown} ({_NAMES.get(text) or unicodedata.name(text, f'U+{ord(text):04X}').lower()})"
        return shown


@torch.no_grad()
def raw_log_probabilities(model: PreTrainedModel, tokens: Sequence[int], first: int) -> Iterator[torch.Tensor]:
    """The model's raw log-probabilities of the next token, in the same context as when it generates.

    Args:
        model: any causal language model.
        tokens: of one text, without padding.
        first: the shortest prefix of the text to ask about, in tokens, at least 1.

    Yields:
        (n, vocabulary) for n prefixes at a time: after `first` tokens, after one more, up to the whole text. Where the
        text exceeds the window of a FundamentaLLM model, each prefix is read from the start of its window.
    """
    window = model.config.get_text_config().max_position_embeddings if can_slide(model) else len(tokens)
    length = first
    while length <= len(tokens):
        start, end = window_start(length, window), length
        while end < len(tokens) and window_start(end + 1, window) == start:
            end += 1
        kept = end - length + 1
        shown = torch.tensor([list(tokens[start:end])], device=model.device)
        logits = forward(model, shown, last=kept).logits[0, -kept:]
        yield logits.float().log_softmax(dim=-1).cpu()
        length = end + 1


def log_probability(model: PreTrainedModel, tokens: Sequence[int], first: int) -> float:
    """The model's raw log-probability of the tokens after the first `first` ones, summed, in nats.

    Args:
        model: any causal language model.
        tokens: of one text, without padding.
        first: how many of them are given, at least 1.

    Example:

    ```python
    >>> from fundamentallm_hf import load_model
    >>> from fundamentallm_hf.generation.probabilities import log_probability
    >>> model = load_model(device="cpu")
    >>> ids = model.tokenizer("Once upon a time").input_ids
    >>> log_probability(model, ids, first=4) > log_probability(model, ids[:4] + ids[:3:-1], first=4)
    True

    ```
    """
    total, position = 0.0, first
    for rows in raw_log_probabilities(model, tokens[:-1], first) if len(tokens) > first else ():
        following = torch.tensor(tokens[position : position + len(rows)])
        total += float(rows.gather(-1, following[:, None]).double().sum())
        position += len(rows)
    return total


def next_predictions(names: TokenNames, raw: torch.Tensor, final: torch.Tensor, top: int) -> list[Prediction]:
    """The most probable next tokens, by the raw model or after settings and controls, so that masked ones show, too.

    Args:
        names: names of the tokens.
        raw: (vocabulary,) the model's raw probabilities.
        final: (vocabulary,) the probabilities by which the token is chosen.
        top: how many.
    """
    picked = torch.maximum(raw, final).topk(min(top, len(raw))).indices.tolist()
    found = [_prediction(names, token, float(final[token]), float(raw[token])) for token in picked]
    return sorted(found, key=lambda each: (-each.probability, -each.model_probability))


def token_predictions(
    model: PreTrainedModel,
    names: TokenNames,
    row: Sequence[int],
    given: int,
    padding: int,
    recorder: ProbabilityRecorder,
    raw: torch.Tensor | None = None,
) -> tuple[Prediction, ...]:
    """Every added token of a text, with the most probable alternatives to it.

    Args:
        model: the model that generated the text.
        names: names of the tokens.
        row: all tokens, as `generate()` returned them.
        given: how many of them belong to the prompt, padding included.
        padding: how many of them are padding, at the beginning.
        recorder: recorded the generation of the text.
        raw: (added tokens, vocabulary) the raw log-probabilities, if they are known.
    """
    found: list[Prediction] = []
    tokens = torch.tensor(list(row))
    position, keys = given, row_keys(tokens, given)
    blocks: Iterable[torch.Tensor] = ()
    if len(row) > given:
        blocks = [raw] if raw is not None else raw_log_probabilities(model, row[padding:-1], given - padding)
    for block in blocks:
        steps = keys[position - given : position - given + len(block) + 1]
        known = [recorder.likeliest(before) for before in steps[:-1]]
        following = tokens[position : position + len(block)].tolist()
        asked = [[*likely, token] for likely, token in zip(known, following, strict=True)]
        at = torch.arange(len(block)).repeat_interleave(torch.tensor([len(each) for each in asked]))
        raws = iter(block[at, torch.tensor([token for each in asked for token in each])].exp().tolist())
        for (before, after), likely, token in zip(pairwise(steps), known, following, strict=True):
            # As in `next_predictions`: probable by either number, so that masked and raised tokens show.
            listed = [(other, final, next(raws)) for other, final in likely.items()]
            listed = sorted(listed, key=lambda each: -max(each[1], each[2]))[: recorder.top]
            listed.sort(key=lambda each: (-each[1], -each[2]))
            of_token = partial(recorder.effects.of_token, before)
            found.append(
                _prediction(
                    names,
                    token,
                    recorder.chosen(after),
                    next(raws),
                    of_token(token),
                    tuple(_prediction(names, *each, of_token(each[0])) for each in listed),
                    recorder.effects.after(before).shifts,
                )
            )
        position += len(block)
    return tuple(found)


def _prediction(
    names: TokenNames,
    token: int,
    final: float,
    raw: float,
    effects: dict[str, float] | None = None,
    alternatives: tuple[Prediction, ...] = (),
    shifts: tuple[Shift, ...] = (),
) -> Prediction:
    return Prediction(token, names.text(token), names.label(token), final, raw, alternatives, effects or {}, shifts)
