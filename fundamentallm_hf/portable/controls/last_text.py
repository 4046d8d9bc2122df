"""The last words of a text: where they may begin, and what is left of those that have begun.

`text_ending.py` decides when they begin. From then on nothing else may come, so they are remembered by the tokens
before them, whichever row those are in.

Where they continue a sentence, the model is asked ahead, between the last words that fit before them, how probable they
are. They follow the first position that is better than nearly all before it; how many may be better grows as fewer are
left, which is close to the rule for the least expected rank (Chow, Moriguti, Robbins and Samuels 1964).
"""

from collections.abc import Sequence

import numpy as np

from ..decoding.lookahead import ModelLookahead
from ..decoding.stop_strings import find_stop
from ..decoding.texts import TOKEN_BYTES, Texts
from ..text.characters import needs_boundary
from ..text.unit_tables import UnitText
from .bad_words import BadWordsLogitsProcessor
from .ending_plan import EndingPlan
from .ending_scores import log_sum
from .spelled_text import Spelling, in_usual_order, is_banned, raw_end

# So many words before the last position, last words can begin. One position may be better for each such share that is
# left; as long as more is left, positions are only compared.
_OFFERS, _BETTER = 12, 0.8


class LastText:
    """The texts of which one has to come last.

    Args:
        plan: what has to hold at the end, with the ways to write each of these texts.
        prompt_columns: width of the prompts in tokens.
        bans: bans that hold in them, too.
        stops: texts that would end the text before them.
        least: the least number of tokens of a text.
        lookahead: the model, asked how probable the words are.
        word_rate: tokens of a word.
    """

    def __init__(
        self,
        plan: EndingPlan,
        prompt_columns: int,
        bans: Sequence[BadWordsLogitsProcessor] = (),
        stops: Sequence[str] = (),
        least: int = 0,
        lookahead: ModelLookahead | None = None,
        word_rate: float = 1.0,
    ) -> None:
        self.plan, self.vocabulary = plan, plan.tables.vocabulary
        self.prompt_columns = prompt_columns
        self.bans, self.stops, self.least = bans, stops, least
        written = {way.text for ways in plan.last for way in ways}
        self._texts = [text for text in plan.settings.last if {text, f" {text}"} & written]
        self._longest = max(len(way.tokens) for ways in plan.last for way in ways)
        # A character takes 4 bytes at most, and each may be a token.
        self._view = 4 * max(map(len, self._texts)) + 8
        self._begun: dict[bytes, list[tuple[int, ...]]] = {}
        self.lookahead = lookahead
        # Tokens before the last position; none where they begin a sentence, which a text is led to the end of.
        self.offers = round(_OFFERS * word_rate) if plan.unit == "word" else 0
        self._chances: dict[bytes, float] = {}

    def rests(self, key: bytes) -> list[tuple[int, ...]]:
        """What is left of last words that were begun; an empty tuple where all is written.

        Args:
            key: the tokens of a text, as in `Texts.keys`.
        """
        found: list[tuple[int, ...]] = []
        for count in range(1, min(self._longest, len(key) // TOKEN_BYTES) + 1) if self._begun else ():
            cut = len(key) - TOKEN_BYTES * count
            for tokens in self._begun.get(key[:cut], ()):
                written = b"".join(token.to_bytes(TOKEN_BYTES, "little") for token in tokens[:count])
                if len(tokens) >= count and written == key[cut:]:
                    found.append(tokens[count:])
        return found

    def begin(self, key: bytes, ways: list[tuple[int, ...]]) -> None:
        """Remember that last words have to follow a text, in one of these ways; in none, that they need not."""
        if ways:
            self._begun[key] = ways
        else:
            self._begun.pop(key, None)

    def starts(self, texts: Texts, index: int, state: UnitText, room: int) -> list[tuple[int, ...]]:
        """The ways in which last words may follow a text.

        Args:
            texts: texts.
            index: of the text.
            state: of the text.
            room: tokens that may be added.
        """
        here = self.plan.tables.states[state.place]
        if state.pending or not any(self.plan.may_lead(ways[-1].text, here) for ways in self.plan.last):
            return []
        row = texts.tokens(index).tolist()
        before = raw_end(row, self.vocabulary, self._view)
        found = []
        for ways in self.plan.last:
            for way in in_usual_order(ways, before):
                if self._suits(way, state, room, before) and self._is_open(way, row, texts, index):
                    found.append(way.tokens)
                    break
        return found

    def preferred(
        self, texts: Texts, index: int, state: UnitText, ways: list[tuple[int, ...]], given: np.ndarray, room: int
    ) -> list[tuple[int, ...]]:
        """The ways in which last words should follow a text now, within a sentence; none if a better position may come.

        Args:
            texts: texts.
            index: of the text.
            state: of the text.
            ways: those in which they may follow.
            given: (vocabulary,) scores of the next token.
            room: tokens that may be added.
        """
        left = room - self.plan.last_cost
        if self.plan.words is not None:
            in_words = (self.plan.left(state)[0] - self.plan.last_words) * self.offers // _OFFERS
            left = min(left, in_words)
        if not ways or self.lookahead is None or not 0 <= left <= self.offers:
            return []
        chances = self._log_chances(texts, index, ways, given)
        key = texts.keys[index]
        if not chances:
            return []
        best = max(range(len(ways)), key=chances.__getitem__)
        self._chances[key] = chances[best]
        before = (self._chances.get(key[: -TOKEN_BYTES * count], -np.inf) for count in range(1, self.offers + 1))
        better = sum(chance > chances[best] for chance in before)
        allowed = int(_BETTER * self.offers / max(left, 1)) - 1
        # The longer ones that begin with it may follow, too.
        return [way for way in ways if way[: len(ways[best])] == ways[best]] if better <= allowed else []

    def forks(self, texts: Texts, index: int, rests: list[tuple[int, ...]], given: np.ndarray) -> list[float]:
        """The log-probability of each text that continues a complete one; none where the model cannot be asked.

        Args:
            texts: texts.
            index: of the text.
            rests: what is left of last words; empty for a complete one.
            given: (vocabulary,) scores of the next token.
        """
        longer = [rest for rest in rests if rest]
        return self._log_chances(texts, index, longer, given) if longer and len(longer) < len(rests) else []

    def _log_chances(self, texts: Texts, index: int, ways: list[tuple[int, ...]], given: np.ndarray) -> list[float]:
        """The log-probability of each way after a text; none where the model cannot be asked."""
        if self.lookahead is None:
            return []
        found, all_logits = [], self.lookahead.logits(texts, [index] * len(ways), ways)
        for way, logits in zip(ways, all_logits, strict=True):
            if logits is None:
                return []
            rest = logits[:-1].float().log_softmax(dim=-1).cpu()
            later = sum(float(rest[place, token]) for place, token in enumerate(way[1:]))
            found.append(float(given[way[0]]) - log_sum(given) + later)
        return found

    def _suits(self, way: Spelling, state: UnitText, room: int, before: str) -> bool:
        """Whether the text may end with these words, as far as numbers, the budget and stop texts go."""
        here = self.plan.tables.states[state.place]
        needed = len(way.tokens)
        if needed > room or (state.length + needed < self.least and needed < room):
            return False
        if not self.plan.may_lead(way.text, here):
            return False
        if find_stop(before + way.text, self.stops, len(before)) is not None:
            return False
        after, words, sentences = self.plan.tables.units.read(here, way.text)
        done = state._replace(
            place=self.plan.tables.index(after), words=state.words + words, sentences=state.sentences + sentences
        )
        return self.plan.may_end(done)

    def _is_open(self, way: Spelling, row: list[int], texts: Texts, index: int) -> bool:
        """Whether these words come out so, and without a banned word."""
        tail = row[-self._view :]
        text = self.vocabulary.text([*tail, *way.tokens], continues=len(tail) < len(row))
        before = self.vocabulary.text(tail, continues=len(tail) < len(row))
        if not text.startswith(before) or text[len(before) :].lstrip(" ") != way.text.lstrip(" "):
            return False
        return not any(is_banned(way.tokens, ban.tables, ban.states(texts)[index], True) for ban in self.bans)

    def closes(self, row: list[int]) -> bool:
        """Whether what is added in a row of tokens ends with one of these texts."""
        return bool(row[self.prompt_columns :]) and self.closes_text(
            self.vocabulary.text(row[self.prompt_columns :][-self._view :], continues=True),
            self.vocabulary.text(row[-2 * self._view :], continues=True),
        )

    def closes_text(self, added: str, whole: str) -> bool:
        """The same for the end of the added text, and of the whole text."""
        for text in self._texts:
            before = whole[: -len(text)][-1:]
            joined = needs_boundary(text[0]) and bool(before) and needs_boundary(before)
            if added.endswith(text) and not joined:
                return True
        return False
