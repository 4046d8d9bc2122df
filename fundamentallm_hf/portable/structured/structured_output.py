"""Whole text: what is written matches a regular expression, a JSON schema or a grammar from its first character to its
last.

A mask of the tokens that may come next is not enough: a text that runs out of tokens in the middle of an object is no
JSON. So as many tokens are always left as a completion needs that is known to work. As long as there is room for
whatever the next token may begin, the mask is llguidance's own; when room gets scarce, a token stays open only if
behind it a completion is known that still fits.
"""

from collections.abc import Callable, Sequence

import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from ..decoding.drafts import SuggestsTokens
from ..decoding.endings import CompleteEndCriteria
from ..decoding.row_states import RowStates, row_key
from ..decoding.stop_strings import find_stop
from ..errors import UserError
from .grammar_guides import Partner
from .grammar_search import Plan
from .grammar_states import GrammarPlaces, Place
from .grammars import read_grammar

# So many open tokens are looked at where room is scarce, the likeliest; fewer where words have still to appear.
MOST_TRIED, MOST_TRIED_WITH_WORDS = 512, 64
# More open tokens than this are taken for free text, from which words that are barred are got round.
FREE_TEXT = 64
# Tokens that getting round a word, or ending one, may take.
ROUND = 8
# Of the tokens that would complete a stop text, the likeliest so many are looked at.
STOPS_TRIED = 32


class WholeTextLogitsProcessor(LogitsProcessor, SuggestsTokens):
    """Keeps every row on the way to a text that matches as a whole, and complete when its tokens are used up.

    Args:
        whole: a grammar over the model's tokens, or its source as the `fields` of `read_grammar`.
        tokenizer: the model's; not needed with `GrammarPlaces`.
        remaining: called with the token ids `(rows, length)`, tells how many tokens each row may still get.
        end_tokens: ids that end the text; closed until it is complete.
        closing_token: what to write behind a complete text that cannot go on, where there are no `end_tokens`.
        complete: told of the rows that can only end.
        stop_strings: texts that end the text; not completed unless it matches with them and without.
        prompt_columns: width of the prompts in tokens; by default that of the first call.
        partner: words that must and must not appear; heeded if any text can heed them.

    Raises:
        ValueError: the grammar is not valid.

    Example:

    ```python
    >>> from transformers import LogitsProcessorList
    >>> from fundamentallm_hf import WholeTextLogitsProcessor, load_model
    >>> model = load_model(device="cpu")
    >>> ids = model.tokenizer("It was the ", return_tensors="pt").input_ids
    >>> date = WholeTextLogitsProcessor(
    ...     {"pattern": "[0-9]{1,2}(st|nd|rd|th) of (May|June)"},
    ...     model.tokenizer,
    ...     remaining=lambda ids: [40 - ids.shape[1]] * len(ids),
    ...     end_tokens=[model.tokenizer.eos_token_id],
    ... )
    >>> out = model.generate(ids, logits_processor=LogitsProcessorList([date]), max_length=40, do_sample=False)
    >>> text = model.tokenizer.decode(out[0], skip_special_tokens=True)
    >>> text.endswith(" of May") or text.endswith(" of June")
    True

    ```
    """

    def __init__(
        self,
        whole: GrammarPlaces | dict,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        remaining: Callable[[torch.Tensor], Sequence[int]],
        end_tokens: Sequence[int] = (),
        closing_token: int | None = None,
        complete: CompleteEndCriteria | None = None,
        stop_strings: Sequence[str] = (),
        prompt_columns: int | None = None,
        partner: Partner | None = None,
    ) -> None:
        if not isinstance(whole, GrammarPlaces):
            grammar = read_grammar(whole)
            if tokenizer is None or grammar is None:
                raise ValueError("a whole text needs one of pattern, json_schema, grammar and the model's tokenizer")
            whole = GrammarPlaces(grammar, tokenizer, len(tokenizer), whole.get("pattern"))
        self._places = self.places = whole
        self.remaining = remaining
        self.end_tokens = list(end_tokens)
        self.closing_token = closing_token
        self.complete = complete if complete is not None else CompleteEndCriteria()
        self.complete.judge = self.is_complete
        self.stop_strings = list(stop_strings)
        self._prompt_columns = prompt_columns
        self._heed(whole if partner is None else whole.with_partner(partner))

    def _heed(self, places: GrammarPlaces) -> None:
        self.places = places
        self.states: RowStates[Place] = RowStates(
            places.before, places.advance, places.prompt_end, self._prompt_columns
        )

    def heeds(self, input_ids: torch.Tensor) -> bool:
        """Whether a text is known behind every prompt, `(rows, length)`, that heeds the partner; if not, none does."""
        if self.places.partner is None:
            return False
        if all(self.places.plan(place) is not None for place in self.states(input_ids)):
            return True
        self._heed(self._places)
        return False

    def check(self, input_ids: torch.Tensor, name: str = "the text") -> None:
        """See that a complete text fits into what may be added behind every prompt, `(rows, length)`.

        Raises:
            ValueError: it does not; says how many tokens it needs, or which characters the model lacks.
        """
        for place, room in zip(self.states(input_ids), self.remaining(input_ids), strict=True):
            plan = self.places.plan(place)
            if plan is None:
                raise UserError(f"{name}: {self._reason(place)}", setting=name)
            if len(plan) > room:
                words = "" if self.places.partner is None else " and heeds the lists of words"
                needs = f"a text that matches{words} needs about {len(plan)} tokens"
                raise UserError(f"{name}: {needs} but {room} may be added: allow more", setting=name)

    def _reason(self, place: Place) -> str:
        """Why no text was found that matches."""
        lacking = self.places.lacking()
        if lacking:
            shown = " ".join(map(repr, lacking))
            return f"no text that matches can be written with the model's alphabet, which lacks {shown}"
        if self.places.impossible(place):
            return "no text that matches can be written with the model's alphabet"
        return "no text that matches was found: write it simpler"

    def is_complete(self, tokens: Sequence[int]) -> bool:
        """Whether a row of these tokens, its prompt among them, has a text that matches as a whole."""
        place = self.states.read(list(tokens))
        return place.matcher is not None and bool(place.matcher.is_accepting())

    def forced(self, input_ids: torch.Tensor) -> list[list[int]]:
        """For each row of `input_ids`, (rows, length), the tokens that have to come next, none if several may.

        They are the tokens in which the tokenizer writes what the grammar leaves no choice of, so no pass of the model
        is needed for them. They leave room for the rest of the text.
        """
        found = []
        for place, room in zip(self.states(input_ids), self.remaining(input_ids), strict=True):
            found.append([] if place.matcher is None or self.stop_strings else self._forced(place, room))
        return found

    def suggested(self, input_ids: torch.Tensor) -> list[list[int]]:
        """See `SuggestsTokens`: what is forced, however long."""
        return self.forced(input_ids)

    def _forced(self, place: Place, room: int) -> list[int]:
        tokens = list(place.matcher.compute_ff_tokens()) if place.matcher is not None else []
        # Behind fewer of them the text is forced as well, so a plan is known wherever one is known behind them all.
        after = place
        for token in tokens:
            after = self.places.advance(after, token)
        if not tokens or after.matcher is None:
            return []
        if self.places.partner is None and room - len(tokens) > self.places.bound(after):
            return tokens
        plan = self.places.plan(after)
        return tokens if plan is not None and len(tokens) + len(plan) <= room else []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: (rows, length); `scores`: (rows, vocabulary). Returns the scores with all else closed."""
        states = self.states(input_ids)
        self.places.masks(states)
        everything = None
        rows: list[torch.Tensor] = []
        only_ends: list[int] = []
        for index, (place, room) in enumerate(zip(states, self.remaining(input_ids), strict=True)):
            if place.matcher is None:  # the row has ended
                everything = torch.ones(scores.shape[1], dtype=torch.bool) if everything is None else everything
                rows.append(everything)
                continue
            may = self._open(place, room, scores[index], input_ids[index])
            if len(may) < scores.shape[1]:
                may = torch.nn.functional.pad(may, (0, scores.shape[1] - len(may)))
            if self.places.complete(place):
                if not bool(may.any()):
                    only_ends.append(index)
                may = may.clone()
                may[self.end_tokens] = True
            rows.append(may[: scores.shape[1]])
        may = rows[0][None] if len(rows) == 1 else torch.stack(rows)
        scores = torch.where(may.to(scores.device), scores, -torch.inf)
        for index in only_ends:
            self.complete.rows.add(row_key(input_ids[index]))
            if not self.end_tokens and self.closing_token is not None:
                scores[index, self.closing_token] = 0.0
        return scores

    def _open(self, place: Place, room: int, scores: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        """(tokens,) bool: the tokens behind which a text that matches can be completed, ends not among them."""
        may = self.places.open(place)
        bad_stops = self._bad_stops(place, may, scores, row) if self.stop_strings else torch.zeros_like(may)
        may = may & ~bad_stops
        if room > self.places.bound(place) and self._words_fit(place, room, may, scores):
            return may
        kept = self._with_plans(place, room, may, scores)
        if not bool(kept.any()) and not self.places.complete(place):
            plan = self._last_way(place, room)
            if plan and not bool(bad_stops[plan[0]]):
                # It may spell what is certain in other tokens than the tokenizer.
                kept[plan[0]] = True
                place.plans[plan[0]] = plan[1:]
        return kept

    def _with_plans(self, place: Place, room: int, may: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Of the tokens that may come those behind which a plan is known that fits."""
        plan = self.places.plan(place)
        kept = torch.zeros_like(may)
        spare = ROUND if self.places.partner is not None else 0
        # What ends the string here ends it behind any plain token more.
        if plan and len(plan) + spare < room and self.places.closes_string(plan) and self.places.closable(place):
            kept = may & self.places.tokens.plain
        with_words = self.places.partner is not None and bool(self.places.partner.missing(place.beside))
        most = MOST_TRIED_WITH_WORDS if with_words else MOST_TRIED
        tried = self._likeliest(may & ~kept, scores, plan, most)
        kept[list(self.places.plans_behind(place, tried, room - 1))] = True
        return kept

    def _last_way(self, place: Place, room: int) -> Plan | None:
        plan = self.places.plan(place)
        if plan is None and self.places.partner is not None:
            # The words cannot be heeded any more; the text is to be complete all the same.
            plan = self._places.plan(Place(place.matcher, position=place.position))
        return plan if plan is not None and len(plan) <= room else None

    def _words_fit(self, place: Place, room: int, may: torch.Tensor, scores: torch.Tensor) -> bool:
        """Whether the words leave all tokens open that may come: that is seen by the likeliest and the longest."""
        if self.places.partner is None:
            return True
        tokens = may.nonzero().flatten()
        if len(tokens) <= FREE_TEXT:
            return False
        missing = self.places.partner.missing(place.beside)
        if not missing:
            return True
        plan = self.places.plan(place)
        if plan is None or len(plan) + ROUND + len(missing) > room - self.places.bound(place):
            return False
        tried = self._likeliest(may, scores, plan, ROUND)
        lengths = self.places.tokens.lengths[tokens]
        tried.append(int(tokens[lengths.argmax()]))
        return len(self.places.plans_behind(place, tried, room - 1)) == len(set(tried))

    def _likeliest(self, may: torch.Tensor, scores: torch.Tensor, plan: Plan | None, most: int) -> list[int]:
        """The open tokens that could well be chosen, the likeliest first, and the one that the plan goes on with."""
        tokens = may[: len(scores)].nonzero().flatten()
        if len(tokens) > most:
            tokens = tokens[scores.detach().float().cpu()[tokens].topk(most).indices]
        likeliest: list[int] = tokens.tolist()
        first = next(iter(plan or ()), None)
        return likeliest if first is None or first in likeliest or not may[first] else [first, *likeliest]

    def _bad_stops(self, place: Place, may: torch.Tensor, scores: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        """(vocabulary,) bool: tokens that complete a stop text where the text must not end, with it or without it."""
        vocabulary = self.places.vocabulary
        tokens = row.tolist()
        text, before = vocabulary.text(tokens), len(vocabulary.text(tokens[: self.states.prompt_columns]))
        bad = torch.zeros_like(may)
        completing = {token for stop in self.stop_strings for token in vocabulary.completing(text[-len(stop) :], stop)}
        bad[[token for token in completing if token < len(may)]] = True
        inside = (bad & may).nonzero().flatten()
        for token in inside[scores.cpu()[inside].argsort(descending=True)][:STOPS_TRIED].tolist():
            longer = text + str(vocabulary.piece(token))
            cut = find_stop(longer, self.stop_strings, len(text))
            ways = (longer[before:], longer[before : max(before, cut if cut is not None else 0)])
            bad[token] = cut is None or not all(map(self.places.matches, ways))
        return bad
