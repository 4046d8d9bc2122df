"""Bad words: text that never appears, however it is tokenized, without words being cut short.

A mask alone acts too late: with "ran" banned, " ran" may still be generated, and then only junk may follow. So before
    each token, the probability that the token leads to a banned word is estimated, and its score gets the logarithm of
    one minus that probability. The estimate comes from word counts, and where it matters from the model itself, which
    scores the banned word ahead (`lookahead.py`), under the same temperature, top-k and top-p as the sampling, so that
    it is the probability in this call. A word that is sure to be banned is then hardly started, and all others keep
    their relative probabilities.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import torch
from transformers import PreTrainedTokenizerBase

from ..decoding.call_processors import CallProcessors
from ..decoding.generate_call import Call
from ..decoding.lookahead import ModelLookahead
from ..decoding.phases import Phase
from ..decoding.row_states import RowStates
from ..decoding.sidecar_files import own_word_counts
from ..decoding.texts import JudgesTexts, Texts, longer_key
from ..text.characters import is_word
from ..text.text_patterns import TextPatterns
from ..text.token_tables import CERTAIN, TextState, TokenTable, TokenTables
from ..text.vocabulary import Vocabulary
from ..text.word_counts import WordCounts

# The model is asked when a banned word would come with at least this probability in one step, by word counts.
MATERIAL = 0.003
# Most continuations that are looked ahead for one row in one step.
MOST_ASKED = 12
# The tail of the distribution stays cut off as long as a ban leaves this much of the rest.
LEAST_KEPT = 0.05

Policy = Callable[[torch.Tensor], torch.Tensor]


def compile_bad_words(
    bad_words: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    size: int,
    case_sensitive: bool = False,
    counts: WordCounts | None = None,
) -> TokenTables:
    """Compile the tables of a list of bad words, for any number of calls.

    Args:
        bad_words: the entries; see `BadWordsLogitsProcessor`.
        tokenizer: the model's.
        size: number of scores the model gives.
        case_sensitive: "Will" does not ban "will".
        counts: word counts; by default estimated from a sub-word tokenizer's vocabulary.

    Raises:
        ValueError: an entry cannot be read; the message names it.
    """
    vocabulary = Vocabulary.of(tokenizer)
    if counts is None:
        counts = WordCounts.of_vocabulary(vocabulary)
    return TokenTables(vocabulary, TextPatterns(bad_words, not case_sensitive, counts), size)


class BadWordsLogitsProcessor(JudgesTexts):
    """Keeps bad words out of the text.

    An entry is a word or a phrase, matched in any case as a whole word: "ass" does not match "class".
    `*` stands for any letters (`curs*`, `*art*`), white space for any white space, and `/…/` is a regular expression.
    Matches that are entirely in the prompt are ignored; those that the model would complete are not.

    Args:
        bad_words: the entries, or the result of `compile_bad_words`.
        tokenizer: the model's tokenizer; not needed with compiled entries.
        case_sensitive: match case.
        prompt_columns: width of the prompts in tokens; by default that of the first call.
        padding: (prompt rows,) columns of padding before each prompt.
        end_tokens: ids that end the text; masked where the text must not end.
        remaining: called with the token ids `(rows, length)`, returns how many tokens each row may still get.
        stop_strings: texts that end the text.
        lookahead: the model, asked for probabilities.
        policy: turns the model's logits into the probabilities by which tokens are chosen; softmax by default.
        temperature: the number that scores are divided by later.
        trims: the policy masks unlikely tokens, as top-k and top-p do.

    Raises:
        ValueError: an entry cannot be read.

    Example:

    ```python
    >>> import torch
    >>> from fundamentallm_hf import BadWordsLogitsProcessor, load_model
    >>> tokenizer = load_model(device="cpu").tokenizer
    >>> processor = BadWordsLogitsProcessor(["ran"], tokenizer, prompt_columns=1)
    >>> ids = tokenizer("He ran", return_tensors="pt").input_ids
    >>> scores = processor(ids, torch.zeros(1, len(tokenizer)))
    >>> [char for char in " .gt" if scores[0, tokenizer(char).input_ids[0]] == -torch.inf]
    [' ', '.']

    ```
    """

    def __init__(
        self,
        bad_words: Sequence[str] | TokenTables,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        case_sensitive: bool = False,
        prompt_columns: int | None = None,
        padding: Sequence[int] = (),
        end_tokens: Sequence[int] = (),
        remaining: Callable[[torch.Tensor], Sequence[int]] | None = None,
        stop_strings: Sequence[str] = (),
        lookahead: ModelLookahead | None = None,
        policy: Policy = lambda logits: logits.softmax(dim=-1),
        temperature: float = 1.0,
        trims: bool = False,
    ) -> None:
        if not isinstance(bad_words, TokenTables):
            if tokenizer is None:
                raise ValueError("bad words need the model's tokenizer to read its tokens as text: pass tokenizer=")
            bad_words = compile_bad_words(bad_words, tokenizer, len(tokenizer), case_sensitive)
        self.tables = bad_words
        self.end_tokens = torch.tensor([end for end in end_tokens if end < bad_words.size], dtype=torch.long)
        self.remaining = remaining
        # Where a stop string starts with punctuation, no word before it could have been generated.
        self.stop_strings = [stop for stop in stop_strings if self.tables.patterns.regex or is_word(stop[0])]
        self.lookahead = lookahead
        self.policy = policy
        self.temperature = temperature
        self.trims = trims
        self.states: RowStates[TextState] = RowStates(
            self.tables.start,
            self.tables.follow_text,
            self.tables.prompt_end,
            prompt_columns,
            self.tables.advance_prompt,
            padding,
        )
        # The model's probabilities: by length and tokens of a text, of each next token that was asked about.
        self._asked: dict[int, dict[bytes, dict[int, float]]] = {}

    def judge_texts(self, texts: Texts, scores: torch.Tensor) -> torch.Tensor:
        """See `JudgesTexts`. Returns the scores with bad words kept out."""
        self.tables = self.tables.of_size(scores.shape[-1])
        states = self.states(texts)
        tables = [self.tables.table(state) for state in states]
        shift = torch.stack([table.shift for table in tables])
        material = self._material(scores, tables)
        if material and self.lookahead is not None:
            self._ask(texts, states, material)
        self._put_chances(texts, states, shift)
        self._close_ends(texts, states, tables, shift)
        shift = shift.to(scores.device, scores.dtype)
        if material and self.trims:
            rows = torch.tensor(list(material), device=scores.device)
            filtered = self._filtered(scores.index_select(0, rows), shift.index_select(0, rows))
            scores = scores.index_copy(0, rows, filtered)
        return torch.add(scores, shift, alpha=self.temperature)

    def closed(self, input_ids: torch.Tensor, size: int) -> torch.Tensor:
        """(rows, size) bool: the tokens that are masked after each row of `input_ids`, (rows, length)."""
        self.tables = self.tables.of_size(size)
        texts = Texts.of(input_ids)
        states = self.states(texts)
        tables = [self.tables.table(state) for state in states]
        shift = torch.stack([table.shift for table in tables])
        self._close_ends(texts, states, tables, shift)
        return shift == -torch.inf

    def unfinished(self, input_ids: torch.Tensor) -> list[bool]:
        """Whether a banned word would be complete if each row of `input_ids`, (rows, length), ended."""
        return [self.tables.ends(state) for state in self.states(input_ids)]

    def _material(self, scores: torch.Tensor, tables: list[TokenTable]) -> dict[int, dict[int, float]]:
        """The rows in which a bad word could well be next: the tokens that would start it, and their probabilities."""
        found: dict[int, dict[int, float]] = {}
        if all(table.greatest < MATERIAL for table in tables):
            return found
        probabilities = (scores.float() / self.temperature).softmax(dim=-1).cpu().numpy()
        for index, table in enumerate(tables):
            if table.greatest < MATERIAL:
                continue
            risky, chances = table.beginnings
            chosen = probabilities[index, risky]
            matter = chosen * chances >= MATERIAL
            if matter.any():
                found[index] = dict(zip(risky[matter].tolist(), chosen[matter].tolist(), strict=True))
        return found

    def _filtered(self, scores: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """Scores, (texts, vocabulary), without the tokens that the warpers would have masked without a ban.

        Otherwise the tail that they cut off would be sampled where a likely word is banned. It has to be where the ban
        leaves next to nothing of the tokens that they keep.
        """
        kept = self.policy(scores.float())
        enough = (kept * shift.exp()).sum(dim=-1, keepdim=True) >= LEAST_KEPT
        return scores.masked_fill((kept == 0) & enough, -torch.inf)

    def _put_chances(self, texts: Texts, states: list[TextState], shift: torch.Tensor) -> None:
        """Put the model's probabilities into `shift`, and refund what the texts have paid for their started words."""
        for index, (length, state) in enumerate(zip(texts.lengths, states, strict=True)):
            begun, here = self.tables.chance(state), self._asked.get(length)
            if not here and not begun:
                continue
            for token, chance in (here or {}).get(texts.keys[index], {}).items():
                if shift[index, token] != -torch.inf:
                    shift[index, token] = _log_of_rest(chance)
            # In beam search scores add up over a word, so the penalty for starting it is refunded as it continues.
            if begun:
                paid = self._asked.get(length - 1, {}).get(texts.parents[index], {})
                shift[index] -= _log_of_rest(paid.get(texts.last(index), begun))

    def _ask(self, texts: Texts, states: list[TextState], material: dict[int, dict[int, float]]) -> None:
        """Ask the model how probable the likely bad words are, where it has not been asked yet."""
        for old in texts.far(self._asked):
            del self._asked[old]
        for _, group in groupby(material, texts.lengths.__getitem__):
            # What was asked about a text tells about its continuations, too.
            self._ask_group(texts, states, {index: material[index] for index in group})

    def _ask_group(self, texts: Texts, states: list[TextState], material: dict[int, dict[int, float]]) -> None:
        rows: list[int] = []
        paths: list[list[int]] = []
        seen = set()
        for index, tokens in material.items():
            key = texts.keys[index]
            known = self._asked.get(texts.lengths[index], {}).get(key, {})
            if key in seen:  # beams start as copies of each other
                continue
            seen.add(key)
            ways = [
                way
                for token, chosen in tokens.items()
                if token not in known
                for way in self._ways(states[index], token, chosen)
            ]
            ways.sort(key=lambda way: -way[0])
            rows += [index] * len(ways[:MOST_ASKED])
            paths += [path for _, path in ways[:MOST_ASKED]]
        if not paths:
            return
        assert self.lookahead is not None
        answers = self.lookahead.logits(texts, rows, paths)
        told = [logits for logits in answers if logits is not None]
        if not told:
            return
        chances = iter(self.policy(torch.cat(told).float()).cpu().split([len(logits) for logits in told]))
        for index, path, logits in zip(rows, paths, answers, strict=True):
            if logits is not None:
                self._keep(texts.keys[index], texts.lengths[index], states[index], path, next(chances))

    def _ways(self, state: TextState, token: int, probability: float) -> list[tuple[float, list[int]]]:
        """The continuations that start with `token` and complete an entry, each with its probability by word counts."""
        after = self.tables.advance(state, token)
        piece = self.tables.vocabulary.piece(token)
        ways = []
        for rest in self.tables.patterns.ways(after.patterns):
            if probability * rest.chance < MATERIAL:
                break
            tokens = self.tables.vocabulary.spell_rest(piece, rest.text)
            if tokens is not None:
                ways.append((probability * rest.chance, [token, *tokens]))
        return ways

    def _keep(self, row: bytes, length: int, state: TextState, path: list[int], probabilities: torch.Tensor) -> None:
        """Compute the probability of `path` after each of its prefixes, from its end to its first token."""
        needed = self.tables.complete(state, path)
        chance = 1.0
        if needed is None:
            end = state
            for token in path:
                end = self.tables.advance(end, token)
            table = self.tables.table(end)
            closed = table.closed[: probabilities.shape[-1]].clone()
            if self.tables.ends(end):
                closed[self.end_tokens] = True
            chance = float(probabilities[-1, closed].sum())
        for cut in range(len(path) - 1, -1, -1):
            if needed is None or cut < needed:
                key = longer_key(row, path[:cut])
                chances = self._asked.setdefault(length + cut, {}).setdefault(key, {})
                chances[path[cut]] = min(CERTAIN, chances.get(path[cut], 0.0) + chance)
                if cut:
                    chance *= float(probabilities[cut - 1, path[cut]])

    def _close_ends(self, texts: Texts, states: list[TextState], tables: list[TokenTable], shift: torch.Tensor) -> None:
        """Mask the tokens that would end the text where it must not end."""
        rooms: Sequence[int] | None = None
        for index, (state, table) in enumerate(zip(states, tables, strict=True)):
            if len(self.end_tokens) and self.tables.ends(state):
                shift[index, self.end_tokens] = -torch.inf
            if len(table.ending) and self.remaining is not None:
                rooms = texts.room(self.remaining) if rooms is None else rooms
                shift[index, table.ending[table.needs >= rooms[index]]] = -torch.inf
        if self.stop_strings:
            for index in range(len(texts)):
                for token in self._bad_stops(texts.tokens(index).tolist()):
                    shift[index, token] = -torch.inf

    def _bad_stops(self, row: list[int]) -> Iterator[int]:
        """The tokens that complete a stop string where the text, with it or without it, would end in a bad word."""
        vocabulary = self.tables.vocabulary
        before = vocabulary.text(row)
        for stop in self.stop_strings:
            for token in vocabulary.completing(before[-len(stop) :], stop):
                text = before + vocabulary.whole(token)
                end = text.rindex(stop)
                if any(self._ends_badly(row, text[:cut]) for cut in (end, end + len(stop), len(text))):
                    yield token

    def _ends_badly(self, row: list[int], text: str) -> bool:
        columns = self.states.prompt_columns or 0
        vocabulary, patterns = self.tables.vocabulary, self.tables.patterns
        prompt = vocabulary.text(row[:columns])
        begin = max((index + 1 for index in range(columns) if vocabulary.is_border(row[index])), default=0)
        state = patterns.forget(patterns.read(patterns.start, vocabulary.text(row[begin:columns]))[0])
        added = text[len(prompt) :]
        by_itself = added.removeprefix(" ") if vocabulary.strips_leading_space else added
        ways = ((state, added), (patterns.start, by_itself))
        return bool(added) and any(patterns.ends(patterns.read(*way)[0]) for way in ways)


def _log_of_rest(chance: float) -> float:
    """log(1 − chance), for a probability below 1."""
    return math.log1p(-min(chance, CERTAIN))


def add_bad_words(step: CallProcessors) -> None:
    """Keep the `bad_words` of a call, and the words whose weight is -inf, out of its texts.

    Raises:
        ValueError: an entry cannot be read.
    """
    entries = step.banned
    if entries:
        processor = BadWordsLogitsProcessor(
            compiled_bad_words(entries, step.call),
            prompt_columns=step.call.prompt_columns,
            padding=step.call.padding,
            end_tokens=step.end_tokens,
            remaining=step.call.remaining,
            stop_strings=step.stop_strings,
            lookahead=step.call.lookahead,
            policy=step.policy,
            temperature=step.temperature,
            trims=step.trims,
        )
        step.add(Phase.BAN, processor)


def compiled_bad_words(entries: tuple[str, ...], call: Call) -> TokenTables:
    """The tables of a call's bad words, cached while they are among the last used."""
    case_sensitive, counts = bool(call.field("case_sensitive")), own_word_counts(call.model)
    return call.kept(
        (entries, case_sensitive),
        lambda: compile_bad_words(entries, call.reader, call.size, case_sensitive, counts),
        of=counts,
    )
