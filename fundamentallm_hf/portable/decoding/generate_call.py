"""One call of `generate()` as controls see it: its config, its rows, and their remaining token budget."""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import cached_property
from typing import Any, TypeVar

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase
from transformers.generation import GenerationMode

from .context_window import WindowFullCriteria
from .lookahead import InSight, ModelLookahead
from .phases import ENDING_FIELDS, WHOLE_TEXT_FIELDS, is_given
from .steering import Steering

Made = TypeVar("Made")
# A list of thousands is compiled once for a tokenizer, not once a call.
_COMPILED: "weakref.WeakKeyDictionary[PreTrainedTokenizerBase, dict[Any, Any]]" = weakref.WeakKeyDictionary()
_KEPT = 8
_SEQUENTIAL = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE, GenerationMode.ASSISTED_GENERATION)


@dataclass(frozen=True)
class Call:
    """One call of `generate()` as controls see it.

    Attributes:
        model: the model that generates.
        config: the merged generation config.
        mode: how the next token is chosen.
        prompts: (rows, prompt columns) token ids of the padded prompts.
        padding: (rows,) columns of padding before each prompt.
        cache: the keys and values that the decoding loop extends, if it has any.
        tokenizer: the model's, if a control over text is set.
        window: number of positions of the model, if it is fixed.
        in_sight: how many of a row's tokens are visible to the model.
        window_full: ends the rows that have filled the window, if they have to end there.
        steering: what controls add to the hidden states of the model; it has to act while a loop runs.
    """

    model: Any
    config: GenerationConfig
    mode: GenerationMode
    prompts: torch.Tensor
    padding: Sequence[int]
    cache: Any
    tokenizer: PreTrainedTokenizerBase | None
    window: int | None = None
    in_sight: InSight = lambda length: length
    window_full: WindowFullCriteria | None = None
    steering: Steering = dataclass_field(default_factory=Steering)

    @property
    def prompt_columns(self) -> int:
        """Width of the padded prompts in tokens."""
        return self.prompts.shape[1]

    def field(self, name: str) -> Any:
        """The value of a field; None where it is not set."""
        return getattr(self.config, name, None)

    @property
    def reader(self) -> PreTrainedTokenizerBase:
        """The tokenizer, for controls that need one."""
        if self.tokenizer is None:
            raise ValueError("the controls work on text and there is no tokenizer to read it with: pass tokenizer=")
        return self.tokenizer

    @property
    def has_structure(self) -> bool:
        """Whether the added text has to match something as a whole or end in some way, and so ends by itself."""
        return any(is_given(self.field(name)) for name in (*WHOLE_TEXT_FIELDS, *ENDING_FIELDS))

    @property
    def is_sequential(self) -> bool:
        """Whether a row keeps its place in the batch from step to step: there are no beams."""
        return self.mode in _SEQUENTIAL

    @property
    def is_greedy(self) -> bool:
        """Whether the next token of a row is its most probable one, guessed or not."""
        return self.is_sequential and not self.config.do_sample

    @property
    def end_tokens(self) -> list[int]:
        """Ids that end the text."""
        ends = self.config.eos_token_id
        return [ends] if isinstance(ends, int) else list(ends or ())

    @property
    def closing_token(self) -> int | None:
        """The token that ends a text where no continuation is left; None if the model has none."""
        return next(iter(self.end_tokens), self.config.pad_token_id)

    @property
    def size(self) -> int:
        """Number of scores the model gives."""
        head = self.model.get_output_embeddings()
        return getattr(head, "out_features", None) or self.model.config.get_text_config().vocab_size

    @cached_property
    def lookahead(self) -> ModelLookahead:
        """The model, to be asked how its texts would go on; one for all who ask in this call."""
        return ModelLookahead(self.model, self.cache, self.padding, self.window, self.in_sight)

    def kept(self, key: Any, make: Callable[[], Made], of: Any = None) -> Made:
        """Caches the result of `make` for the tokenizer and the number of scores, while it is among those used last.

        Args:
            key: identifies the result.
            make: computes it.
            of: another object that it is computed from, compared by identity; None if there is none.
        """
        kept = _COMPILED.setdefault(self.reader, {})
        # Not by its id, which another object may have once this one is gone; a reference that is dead equals no other.
        for old in [each for each in kept if each[-1] is not None and each[-1]() is None]:
            del kept[old]
        key = (key, self.size, len(self.reader), None if of is None else weakref.ref(of))
        if key not in kept:
            while len(kept) >= _KEPT:
                del kept[next(iter(kept))]
            kept[key] = make()
        return kept[key]

    def remaining(self, input_ids: torch.Tensor) -> list[int]:
        """How many tokens each row of `input_ids`, (rows, length), may still get, apart from an end that is forced."""
        forced = self.config.forced_eos_token_id is not None
        left = [self.config.max_length - input_ids.shape[1] - forced] * len(input_ids)
        if self.window_full is None:
            return left
        added = input_ids.shape[1] - self.prompt_columns
        room = self.window_full.room_of(len(input_ids)).tolist()
        return [min(most, of_row - added) for most, of_row in zip(left, room, strict=True)]
