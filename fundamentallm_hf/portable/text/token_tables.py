"""The effect of each token on the patterns in a text: complete one, start one, or none.

Each generation step needs that for every token of the vocabulary at once. In most states only a few tokens have another
effect than in the state where nothing has started. So a full pass over the vocabulary is made for that state, and for
any other state only the tokens with another effect are examined. Results are kept, so a step costs the same for one
entry and for thousands.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import numpy as np
import torch

from .character_classes import characters_behind, continues, samples_between
from .pieces import MOST_BYTES, as_bytes
from .prefix_tree import Letters, PrefixTree
from .table_walk import Outcome, Outcomes, TableWalk
from .text_patterns import PatternState, TextPatterns
from .token_effects import TokenEffects, alike_together
from .token_reader import TextState, TokenReader
from .vocabulary import Vocabulary

# Scores that the kept tables may hold together, and the number of tables that are kept whatever their size.
_KEPT_SCORES, _KEPT_TABLES = 1 << 24, 64
_UNWRITABLE = -1
# A probability never reaches 1, so that the only masked tokens are those that complete an entry.
CERTAIN = 1 - 1e-6


@dataclass(frozen=True)
class TokenTable:
    """The effect of every token in one state of a text.

    Attributes:
        shift: (vocabulary,) float32, to be added to scores: −inf for tokens that complete an entry, log(1 −
            probability) for the others.
        closed: (vocabulary,) bool, the tokens that complete an entry; they are masked.
        completing: their ids.
        ending: ids of the tokens after which the text must not end.
        needs: (ending,) long, how many more tokens must follow each of them before it may.
        risky: ids of the tokens that start or continue an entry.
        chances: (risky,) float32, the probability of each that it becomes one.
        greatest: the greatest of `chances`.
    """

    shift: torch.Tensor
    closed: torch.Tensor
    completing: torch.Tensor
    ending: torch.Tensor
    needs: torch.Tensor
    risky: torch.Tensor
    chances: torch.Tensor
    greatest: float

    @cached_property
    def beginnings(self) -> tuple[np.ndarray, np.ndarray]:
        """`risky` and `chances` as arrays, the latter in float64."""
        return self.risky.numpy(), self.chances.numpy().astype(np.float64)

    def joined(self, other: "TokenTable") -> "TokenTable":
        """This table, with the tokens that `other` masks masked as well."""
        closed = self.closed | other.closed
        needs = torch.full((len(closed),), -1)
        needs[other.ending] = other.needs
        needs[self.ending] = torch.maximum(needs[self.ending], self.needs)
        ending = (needs >= 0).nonzero()[:, 0]
        return replace(
            self,
            shift=torch.minimum(self.shift, other.shift),
            closed=closed,
            completing=closed.nonzero()[:, 0],
            ending=ending,
            needs=needs[ending],
        )


class TokenTables(TokenReader):
    """Creates and caches the tables of one list of patterns over one vocabulary.

    Args:
        vocabulary: the text that every token adds.
        patterns: the patterns to look for.
        size: number of scores the model gives; by default the number of tokens. Tokens beyond it are left out.
    """

    def __init__(self, vocabulary: Vocabulary, patterns: TextPatterns, size: int) -> None:
        self.size = size or len(vocabulary.pieces)
        self._whole = vocabulary
        vocabulary = vocabulary.limited(self.size)
        super().__init__(vocabulary, patterns)
        self._others: dict[int, TokenTables] = {}
        tokens, self._texts = vocabulary.coded
        if patterns.is_plain:
            tree = vocabulary.folded_tree(patterns.ignore_case)
        else:
            tree = PrefixTree(self._texts, self._letters)
        self._walk = TableWalk(patterns, self._texts, tree, vocabulary.strips_trailing_space)
        self._whole_tokens = tokens
        self._parts = vocabulary.parts
        self._silent = [*vocabulary.silent, *range(len(vocabulary.pieces), self.size)]
        self._bases: dict[PatternState, TokenEffects] = {}
        self._tables: dict[TextState, TokenTable] = {}
        self._needs: dict[tuple[PatternState, bytes, bool], int | None] = {}

    def of_size(self, size: int) -> "TokenTables":
        """The same tables for another number of scores; states are the same in both."""
        if size == self.size:
            return self
        if size not in self._others:
            self._others[size] = TokenTables(self._whole, self.patterns, size)
        return self._others[size]

    def chance(self, state: TextState) -> float:
        """The probability, by word counts, that a started match becomes an entry; 0 within a character."""
        return 0.0 if state.pending else min(CERTAIN, self.patterns.chance(state.patterns))

    def table(self, state: TextState) -> TokenTable:
        """The outcomes of all tokens from `state`."""
        table = self._tables.pop(state, None)
        if table is None:
            table = self._make(state._replace(alone=None))
            if state.alone is not None:
                table = table.joined(self._make(state.alone))
        self._tables[state] = table  # the end of a dict is its newest item
        while len(self._tables) > max(_KEPT_TABLES, _KEPT_SCORES // self.size):
            del self._tables[next(iter(self._tables))]
        return table

    def _make(self, state: TextState) -> TokenTable:
        flushed, broken = self._flush(state)
        if broken:
            effects = TokenEffects.complete(self._whole_tokens)
        else:
            base = self.patterns.neutral(flushed)
            if base not in self._bases:
                self._bases[base] = self._judged(self._walk(base, None), self._whole_tokens)
            effects = self._bases[base]
            if flushed != base:
                effects = effects.updated(self._judged(self._walk(flushed, base), self._whole_tokens))
            if state.fresh:
                effects = self._at_start(flushed, effects)
        if self.ends(state):
            effects = effects.updated(self._judge(state, self._silent))
        return self._pack(effects.updated(self._judge(state, self._parts)))

    def _at_start(self, start: PatternState, effects: TokenEffects) -> TokenEffects:
        """Correct the effects of the tokens of which a decoder removes the space that a text begins with."""
        if self.vocabulary.strips_leading_space and self.patterns.step(start, " ") != (start, False):
            walk, tokens = self._unspaced
            effects = effects.without(tokens).updated(self._judged(walk(start, None), tokens))
        return effects.updated(self._judge(TextState(start, fresh=True), self.vocabulary.openings))

    @cached_property
    def _unspaced(self) -> tuple[TableWalk, np.ndarray]:
        """The walk over the tokens that start with a space, without that space, and these tokens."""
        spaced = self._texts.beginning(" ")
        rests = self._texts.chosen(spaced).behind()
        tree = PrefixTree(rests, self._letters)
        walk = TableWalk(self.patterns, rests, tree, self.vocabulary.strips_trailing_space)
        return walk, self._whole_tokens[spaced]

    @cached_property
    def _letters(self) -> Letters:
        """The characters of tokens; those that the patterns do not distinguish are one letter."""
        chars = self._texts.characters()
        if self.patterns.regex is None:
            return Letters(dict(zip(chars, map(self.patterns.key, chars), strict=True)))
        # Of a regular expression, all characters are classified faster together than one by one.
        return Letters(dict(zip(chars, self.patterns.classes.of_all(chars), strict=True)))

    def _judged(self, outcomes: Outcomes, tokens: np.ndarray) -> TokenEffects:
        """The effects of whole-character tokens, (tokens,) their ids, adjusted by the state after each."""
        hit, chance, ids = outcomes.hit.copy(), outcomes.chance.copy(), tokens[outcomes.places]
        needs = np.zeros(len(ids), dtype=np.int64)
        for number, same in alike_together(outcomes.after, outcomes.ends):
            outcome = self._with_needs(TextState(outcomes.states[number]), Outcome(False, True, 0.0))
            hit[same], needs[same] = outcome.hit, outcome.needs
        for number, same in alike_together(outcomes.after, chance > 0):
            after = outcomes.states[number]
            if self.vocabulary.longest > 1 and self.patterns.ways(after):
                pairs = zip(ids[same].tolist(), chance[same].tolist(), strict=True)
                chance[same] = [self._as_spelled(token, of_token, after) for token, of_token in pairs]
        return TokenEffects(ids, hit, outcomes.ends, chance, needs)

    def _judge(self, state: TextState, tokens: Iterable[int]) -> TokenEffects:
        """The effects in `state` of tokens that are not whole characters, or add no text."""
        judged = []
        for token in tokens:
            after, hit = self.read(state, token)
            ends = not hit and self.ends(after)
            starts = not hit and self.vocabulary.piece(token)
            outcome = Outcome(hit, ends, self.chance(after) if starts else 0.0)
            if not hit and (ends or self._is_part(token)):
                outcome = self._with_needs(after, outcome)
            judged.append((token, outcome._replace(chance=self._as_spelled(token, outcome.chance, after.patterns))))
        return TokenEffects.of(judged)

    def _pack(self, effects: TokenEffects) -> TokenTable:
        risky = (effects.chance > 0) & ~effects.hit
        closed, chances = effects.tokens[effects.hit], torch.from_numpy(effects.chance[risky]).float()
        shift, mask = torch.zeros(self.size), torch.zeros(self.size, dtype=torch.bool)
        ids = torch.from_numpy(effects.tokens[risky])
        chances = chances.clamp(max=CERTAIN)
        shift[ids] = torch.log1p(-chances)
        mask[closed] = True
        return TokenTable(
            shift=shift.masked_fill(mask, -torch.inf),
            closed=mask,
            completing=torch.from_numpy(closed),
            ending=torch.from_numpy(effects.tokens[effects.ends]),
            needs=torch.from_numpy(effects.needs[effects.ends]),
            risky=ids,
            chances=chances,
            greatest=float(effects.chance[risky].max(initial=0.0)),
        )

    def _as_spelled(self, token: int, chance: float, after: PatternState) -> float:
        """The probability of a token, limited to the usual spelling: models generate words in their training tokens.

        After " a" a sub-word model does not generate "ss" if " ass" is a token, so " a" does not start that word.
        """
        if not chance or self.vocabulary.longest <= 1 or isinstance(self.vocabulary.piece(token), bytes):
            return chance
        ways = self.patterns.ways(after)
        if not ways:
            return chance
        real = sum(rest.chance for rest in ways if not rest.text or self.vocabulary.begins_with(token, rest.text))
        return min(chance, real)

    def _is_part(self, token: int) -> bool:
        return isinstance(self.vocabulary.piece(token), bytes) or token in self.vocabulary.fallback

    def _with_needs(self, after: TextState, outcome: Outcome) -> Outcome:
        """The effect of a token, masked where the text may neither end nor continue after it."""
        after = after._replace(patterns=self.patterns.core(after.patterns))
        if after.pending:
            key = (after.patterns, after.pending, bool(after.run))
            if key not in self._needs:
                self._needs[key] = self._bytes_to_go(*key)
            needs = self._needs[key]
            if needs == _UNWRITABLE:
                needs = None if outcome.ends else 0
        else:
            key = (after.patterns, b"", False)
            if key not in self._needs:
                self._needs[key] = 1 if self._can_continue(after.patterns) else None
            needs = self._needs[key] if outcome.ends else 0
        return outcome._replace(hit=True) if needs is None else outcome._replace(needs=needs)

    def _can_continue(self, state: PatternState) -> bool:
        """Whether there is a next character after which the text may end."""
        for letter in chain(self.vocabulary.letters, self.vocabulary.spaced_letters):
            patterns, hit = self.patterns.read(state, letter)
            if not hit and not self.patterns.ends(patterns):
                return True
        return False

    def _bytes_to_go(self, state: PatternState, pending: bytes, in_run: bool) -> int | None:
        """Fewest tokens that complete the character started by `pending` without an entry, so that the text may end.

        Returns:
            None if every such character completes an entry, `_UNWRITABLE` if no tokens complete it at all.
        """
        if not self.vocabulary.all_continuations(in_run):
            return self._parts_to_go(TextState(state, pending, pending if in_run else b"", state))
        first, last, missing = characters_behind(pending)
        samples = samples_between(first, last)
        found = [more for char in samples if (more := self._after_character(state, char)) == 0]
        if not found:
            representatives = self.patterns.classes.representatives(first, last)
            lengths = (self._after_character(state, char) for char in representatives)
            found = [more for more in lengths if more is not None]
        return missing + min(found) if found else None

    def _after_character(self, state: PatternState, char: str) -> int | None:
        """Tokens from a character to a position where the text may end; None if the character is not allowed."""
        patterns, hit = self.patterns.step(state, char)
        return None if hit else self._tokens_to_end(patterns)

    def _tokens_to_end(self, patterns: PatternState) -> int | None:
        if not self.patterns.ends(patterns):
            return 0
        return 1 if self._can_continue(patterns) else None

    def _parts_to_go(self, state: TextState, tokens: int = 1) -> int | None:
        """Like `_bytes_to_go`, if only some bytes are tokens; `tokens` counts those used so far."""
        found: list[int | None] = []
        for token in self._parts if tokens <= MOST_BYTES else ():
            raw = as_bytes(self.vocabulary.piece(token))
            if bool(state.run) != (token in self.vocabulary.fallback) or not continues(state.pending, raw):
                continue
            after, hit = self.read(state, token)
            if hit:
                found.append(None)
            elif after.pending:
                found.append(self._parts_to_go(after, tokens + 1))
            else:
                more = self._tokens_to_end(after.patterns)
                found.append(None if more is None else tokens + more)
        writable = [needs for needs in found if needs != _UNWRITABLE]
        known = [needs for needs in writable if needs is not None]
        return min(known) if known else None if writable else _UNWRITABLE
