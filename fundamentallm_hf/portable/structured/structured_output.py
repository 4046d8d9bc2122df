"""Whole text: what is written matches a regular expression, a JSON schema or a grammar from its first character to its
last.

A mask of the tokens that may come next is not enough: a text that runs out of tokens in the middle of an object is no
JSON. So as many tokens are always left as a completion needs that is known to work, and when room gets scarce a token
stays open only if behind it a completion was found that still fits. This file knows nothing of grammars.
"""

from collections.abc import Callable, Sequence

import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from ..decoding.endings import CompleteEndCriteria
from ..decoding.row_states import RowStates, row_key
from ..decoding.stop_strings import find_stop
from ..errors import UserError
from .grammar_states import GrammarPlaces, Place
from .grammars import read_grammar

# With more room than this times the longest completion, and so many tokens more, no completion is looked for.
PLENTY, MARGIN = 2, 128
# So many open tokens are looked at, and of more the likeliest, up to this share of the probability.
MOST_TRIED, ENOUGH = 512, 0.999
# Of the tokens that would complete a stop text, the likeliest so many are looked at.
STOPS_TRIED = 32


class WholeTextLogitsProcessor(LogitsProcessor):
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
        temperature: by which scores are divided later on.

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
        temperature: float = 1.0,
    ) -> None:
        if not isinstance(whole, GrammarPlaces):
            grammar = read_grammar(whole)
            if tokenizer is None or grammar is None:
                raise ValueError("a whole text needs one of pattern, json_schema, grammar and the model's tokenizer")
            whole = GrammarPlaces(grammar, tokenizer, len(tokenizer), whole.get("pattern"))
        self.places = whole
        self.remaining = remaining
        self.end_tokens = list(end_tokens)
        self.closing_token = closing_token
        self.complete = complete if complete is not None else CompleteEndCriteria()
        self.stop_strings = list(stop_strings)
        self.temperature = temperature
        self.states: RowStates[Place] = RowStates(whole.before, whole.advance, whole.prompt_end, prompt_columns)

    def check(self, input_ids: torch.Tensor, name: str = "the text") -> None:
        """See that a complete text fits into what may be added behind every prompt, `(rows, length)`.

        Raises:
            ValueError: it does not; says how many tokens it needs.
        """
        for place, room in zip(self.states(input_ids), self.remaining(input_ids), strict=True):
            plan = self.places.plan(place)
            if plan is None:
                reason = (
                    "no text that matches can be written with the model's alphabet"
                    if self.places.impossible(place)
                    else "no text that matches was found: write it simpler"
                )
                raise UserError(f"{name}: {reason}", setting=name)
            if len(plan) > room:
                raise UserError(
                    f"{name}: a text that matches needs about {len(plan)} tokens but {room} may be added: allow more",
                    setting=name,
                )

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: (rows, length); `scores`: (rows, vocabulary). Returns the scores with all else closed."""
        closed = torch.zeros(scores.shape, dtype=torch.bool)
        only_ends: list[int] = []
        for index, (place, room) in enumerate(zip(self.states(input_ids), self.remaining(input_ids), strict=True)):
            if place.matcher is None:
                continue  # the row has ended
            may = self._open(place, room, scores[index], input_ids[index])
            if not bool(may.any()) and self.places.complete(place):
                only_ends.append(index)
            if self.places.complete(place):
                may = may.clone()
                may[self.end_tokens] = True
            closed[index] = ~may
        scores = scores.masked_fill(closed.to(scores.device), -torch.inf)
        for index in only_ends:
            self.complete.rows.add(row_key(input_ids[index]))
            if not self.end_tokens and self.closing_token is not None:
                scores[index, self.closing_token] = 0.0
        return scores

    def _open(self, place: Place, room: int, scores: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        """(vocabulary,) bool: the tokens behind which a text that matches can be completed, ends not among them."""
        may = self.places.open(place)[: len(scores)]
        if len(may) < len(scores):
            may = torch.nn.functional.pad(may, (0, len(scores) - len(may)))
        if self.stop_strings:
            may = may & ~self._bad_stops(place, may, scores, row)
        if self._plenty(place, room):
            return may
        tried = self._likeliest(may, scores, place.plan)
        kept = torch.zeros_like(may)
        kept[list(self.places.plans_behind(place, tried, room - 1))] = True
        return kept

    def _plenty(self, place: Place, room: int) -> bool:
        if not self.places.tokens.all_spelled or room <= MARGIN:
            return False
        plan, worst = self.places.plan(place), self.places.worst
        return plan is not None and worst is not None and room > PLENTY * max(len(plan), worst) + MARGIN

    def _likeliest(self, may: torch.Tensor, scores: torch.Tensor, plan: Sequence[int] | None) -> list[int]:
        """The open tokens that could well be chosen, the likeliest first, and the one that the plan goes on with."""
        tokens = may.nonzero().flatten()
        chances = (scores.detach().float().cpu()[tokens] / self.temperature).softmax(dim=-1).nan_to_num()
        chances, order = chances.topk(min(MOST_TRIED, len(tokens)))
        if len(tokens) > MOST_TRIED:
            order = order[chances.cumsum(dim=-1) - chances < ENOUGH]
        likeliest = tokens[order].tolist()
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
