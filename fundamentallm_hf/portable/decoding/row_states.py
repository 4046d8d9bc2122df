"""The state of every row's text, derived from its tokens alone.

Beam search reorders rows between steps and assisted decoding takes tokens back, so the state that a processor keeps for
a row must follow from the row. Reading the row again at every step would cost the square of its length; here the state
is looked up by the tokens before the last one, whichever row they were in.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch

from .texts import TOKEN_BYTES, Texts

State = TypeVar("State")


class RowStates(Generic[State]):
    """Remembers the state after every recent row.

    Args:
        start: the state before any text.
        advance: returns the state after one more token.
        prompt_end: applied to the state at the end of the prompt.
        prompt_columns: width of the prompts in tokens, padding included; by default that of the first call.
        advance_prompt: returns the state after one more token of the prompt, if prompts are read differently.
        padding: (prompt rows,) columns of padding before each prompt, which are not read; rows made of one prompt are
            adjacent.
    """

    def __init__(
        self,
        start: State,
        advance: Callable[[State, int], State],
        prompt_end: Callable[[State], State] = lambda state: state,
        prompt_columns: int | None = None,
        advance_prompt: Callable[[State, int], State] | None = None,
        padding: Sequence[int] = (),
    ) -> None:
        self.start = start
        self.advance_prompt = advance_prompt or advance
        self.padding = [max(0, columns) for columns in padding]
        self.advance = advance
        self.prompt_end = prompt_end
        self.prompt_columns = prompt_columns
        self._known: dict[int, dict[tuple[int, bytes], State]] = {}

    def __call__(self, texts: "torch.Tensor | Texts") -> list[State]:
        """The state after every text, or every row of (rows, length) token ids."""
        texts = Texts.of(texts)
        if self.prompt_columns is None:
            self.prompt_columns = texts.lengths[0]
        for old in texts.far(self._known):
            del self._known[old]
        states = []
        for index, (length, text) in enumerate(zip(texts.lengths, texts.keys, strict=True)):
            padding = texts.padding(index, self.padding)
            here, key = self._known.setdefault(length, {}), (padding, text)
            state = here.get(key)
            if state is None:
                parent = None
                if length > self.prompt_columns:
                    parent = self._known.get(length - 1, {}).get((padding, texts.parents[index]))
                if parent is not None:
                    state = self.advance(parent, texts.last(index))
                else:
                    state = self._continued(texts, index, padding)
                here[key] = state
            states.append(state)
        return states

    def _continued(self, texts: Texts, index: int, padding: int) -> State:
        """The state after a text, from the longest known one that it begins with."""
        assert self.prompt_columns is not None
        tokens, key = texts.tokens(index).tolist(), texts.keys[index]
        for length in range(len(tokens) - 2, self.prompt_columns - 1, -1):
            state = self._known.get(length, {}).get((padding, key[: TOKEN_BYTES * length]))
            if state is not None:
                for token in tokens[length:]:
                    state = self.advance(state, token)
                return state
        return self.read(tokens, padding)

    def budget(self, input_ids: torch.Tensor, max_new_tokens: int) -> list[int]:
        """How many of `max_new_tokens` each row of `input_ids`, (rows, length), may still get."""
        columns = input_ids.shape[1] if self.prompt_columns is None else self.prompt_columns
        return [max_new_tokens - (input_ids.shape[1] - columns)] * len(input_ids)

    def read(self, tokens: list[int], padding: int = 0) -> State:
        """The state after a row of these tokens, computed from the start; the first `padding` columns are skipped."""
        state = self.start
        columns = self.prompt_columns or 0
        for token in tokens[padding:columns]:
            state = self.advance_prompt(state, token)
        state = self.prompt_end(state)
        for token in tokens[columns:]:
            state = self.advance(state, token)
        return state


def row_key(row: torch.Tensor | bytes) -> bytes:
    """The tokens of a row as a dictionary key; a key as it is."""
    return row if isinstance(row, bytes) else row.cpu().numpy().tobytes()


def row_keys(row: torch.Tensor, first: int) -> list[bytes]:
    """The keys of the starts of a row, (length,) of int64: of its first `first` tokens up to the whole row."""
    key = row_key(row)
    return [key[: TOKEN_BYTES * end] for end in range(first, len(row) + 1)]


def split_key(key: bytes) -> tuple[bytes, int]:
    """The key of a row without its last token, and that token."""
    return key[:-TOKEN_BYTES], int.from_bytes(key[-TOKEN_BYTES:], "little", signed=True)
