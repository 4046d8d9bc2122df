"""The first words of what is added: written as they are, whatever the model would choose.

They are checked together with the other controls before the first step. Until they are written, no other control acts;
those that read the text, such as required words, count them.
"""

from collections.abc import Sequence

import torch

from ..decoding.call_processors import CallProcessors
from ..decoding.drafts import SuggestsTokens
from ..decoding.generate_call import Call
from ..decoding.phases import WHOLE_TEXT_FIELDS, Phase
from ..decoding.stop_strings import find_stop
from ..decoding.texts import TOKEN_BYTES, JudgesTexts, Texts
from ..errors import UserError
from ..text.characters import is_invisible, needs_boundary
from ..text.vocabulary import Vocabulary
from .bad_words import BadWordsLogitsProcessor
from .end_settings import check_beginning
from .must_include import MustIncludeLogitsProcessor
from .spelled_text import Spelling, in_usual_order, is_banned, raw_end, spelled_within
from .text_ending import TextEndLogitsProcessor


class FirstTextLogitsProcessor(JudgesTexts, SuggestsTokens):
    """Writes one of several texts first; the model chooses which.

    Args:
        ways: for the tokens of each prompt, as bytes, the tokens that may come first.
        prompt_columns: width of the prompts in tokens.
        vocabulary: the text that every token adds.
        size: number of scores the model gives.
        end_tokens: ids that end the text.
    """

    def __init__(
        self,
        ways: dict[bytes, list[tuple[int, ...]]],
        prompt_columns: int,
        vocabulary: Vocabulary,
        size: int,
        end_tokens: Sequence[int] = (),
    ) -> None:
        self.ways = ways
        self.prompt_columns = prompt_columns
        self.vocabulary = vocabulary
        self.size = size
        # Tokens without text would only put off what comes next.
        self._silent = {*vocabulary.silent, *range(len(vocabulary.pieces), size)} - {*end_tokens}
        longest = max((len(way) for found in ways.values() for way in found), default=0)
        self._last_key = TOKEN_BYTES * (prompt_columns + longest)
        self._joining: dict[tuple[bool, bool], torch.Tensor] = {}

    def rests(self, key: bytes) -> list[tuple[int, ...]]:
        """What is left of the first words after a text; an empty tuple where they end with it.

        Args:
            key: the tokens of the text, as in `Texts.keys`.
        """
        cut = TOKEN_BYTES * self.prompt_columns
        added = [int.from_bytes(key[at : at + TOKEN_BYTES], "little") for at in range(cut, len(key), TOKEN_BYTES)]
        written = tuple(added)
        return [way[len(added) :] for way in self.ways.get(key[:cut], ()) if way[: len(added)] == written]

    def is_writing(self, key: bytes) -> bool:
        """Whether none of the first texts is written yet."""
        rests = self.rests(key) if self._is_early(key) else []
        return any(rests) and () not in rests

    def _is_early(self, key: bytes) -> bool:
        return len(key) <= self._last_key

    def judge_texts(self, texts: Texts, scores: torch.Tensor) -> torch.Tensor:
        """See `JudgesTexts`. Returns the scores with only the first words left, and no letter right after them.

        Where one of the texts is written and another continues it, both may follow: the other, or anything else.
        """
        keys = texts.keys
        if not any(map(self._is_early, keys)):
            return scores
        scores = scores.clone()
        for index, key in enumerate(keys):
            rests = self.rests(key) if self._is_early(key) else []
            tokens = [rest[0] for rest in rests if rest]
            kept = scores[index, tokens].clone()
            if () in rests:
                scores[index, self._joins(texts.last(index)).to(scores.device)] = -torch.inf
                scores[index, tokens] = kept
            elif tokens:
                scores[index] = -torch.inf
                # Another control may have masked them all.
                scores[index, tokens] = kept if bool((kept > -torch.inf).any()) else torch.zeros_like(kept)
        return scores

    def _joins(self, last: int) -> torch.Tensor:
        """The tokens that would make another word of the first ones, or other characters."""
        piece = self.vocabulary.piece(last)
        in_bytes = last in self.vocabulary.fallback
        in_word = needs_boundary(piece[-1]) if isinstance(piece, str) else True
        if (in_word, in_bytes) not in self._joining:
            tokens = [*self._silent, *(self.vocabulary.fallback if in_bytes else ())]
            for token, other in enumerate(self.vocabulary.pieces[: self.size]) if in_word else ():
                if other and (isinstance(other, bytes) or needs_boundary(other[0]) or is_invisible(other[0])):
                    tokens.append(token)
            self._joining[in_word, in_bytes] = torch.tensor(tokens, dtype=torch.long)
        return self._joining[in_word, in_bytes]

    def suggested(self, input_ids: torch.Tensor) -> list[list[int]]:
        """See `SuggestsTokens`: the rest of the first words, where there is one way to write it."""
        found = [self.rests(key) if self._is_early(key) else [] for key in Texts.of(input_ids).keys]
        return [list(rests[0]) if len(rests) == 1 else [] for rests in found]


def add_first_text(step: CallProcessors) -> None:
    """Make the texts of a call begin as asked for.

    Raises:
        ValueError: a value is not valid, or the words cannot be written beside the other controls.
    """
    call = step.call
    texts = check_beginning({name: call.field(name) for name in ("starts_with", *WHOLE_TEXT_FIELDS)})
    if not texts:
        return
    spelled = spelled_within("starts_with", texts, step)
    keys = Texts.of(call.prompts).keys
    rows = {key: row for row, key in enumerate(keys)}  # equal prompts have the same ways
    ways = {key: _ways_after(step, row, spelled) for key, row in rows.items()}
    vocabulary = Vocabulary.of(call.reader).limited(call.size)
    processor = FirstTextLogitsProcessor(ways, call.prompt_columns, vocabulary, call.size, step.end_tokens)
    for ending in step.acting(TextEndLogitsProcessor):
        ending.is_busy = processor.is_writing
    step.add(Phase.BEGINNING, processor)


def _ways_after(step: CallProcessors, row: int, spelled: Sequence[list[Spelling]]) -> list[tuple[int, ...]]:
    """The tokens of the first words after a prompt, in one way for each of their texts.

    Raises:
        UserError: there is none; the message is about the first text.
    """
    call, found, refusals = step.call, [], list[UserError]()
    prompt = call.prompts[row].tolist()
    vocabulary = Vocabulary.of(call.reader)
    # After a special token, as in a chat, another text begins.
    before = "" if prompt and vocabulary.is_border(prompt[-1]) else raw_end(prompt, vocabulary, len(prompt))
    for ways in spelled:
        text = ways[0].text
        usual = [way for way in in_usual_order(ways, before) if _comes_out(way, prompt, call)]
        for way in usual:
            try:
                _check_way(step, row, way, before, text)
            except UserError as error:
                refusals.append(error)
                continue
            found.append(way.tokens)
            break
        if not usual:
            line = f"starts_with: {text!r} cannot be written after the prompt: change one of them"
            refusals.append(UserError(line, setting="starts_with", value=text))
    if not found:
        raise refusals[0]
    return found


def _comes_out(way: Spelling, prompt: list[int], call: Call) -> bool:
    """Whether these tokens add their text after a prompt, perhaps without the space before it."""
    vocabulary = Vocabulary.of(call.reader)
    # After a special token, what is added is read by itself as well.
    for before in [prompt, []] if prompt and vocabulary.is_border(prompt[-1]) else [prompt]:
        start, whole = vocabulary.text(before), vocabulary.text([*before, *way.tokens])
        if not whole.startswith(start) or whole[len(start) :].lstrip(" ") != way.text.lstrip(" "):
            return False
    return True


def _check_way(step: CallProcessors, row: int, way: Spelling, before: str, text: str) -> None:
    """Check that first words can be written after a prompt, and what the other controls want after them.

    Raises:
        UserError: they cannot.
    """
    call = step.call
    room, tokens = call.remaining(call.prompts)[row], list(way.tokens)

    def refuse(why: str) -> None:
        raise UserError(f"starts_with: {text!r} {why}", setting="starts_with", value=text)

    if len(tokens) > room:
        refuse(f"needs {len(tokens)} tokens but {room} may be added: allow more, or ask for less")
    if find_stop(before + way.text, step.stop_strings, len(before)) is not None:
        refuse("completes a text that stops the text: change one of them")
    for ban in step.acting(BadWordsLogitsProcessor):
        if is_banned(way.tokens, ban.tables, ban.states(call.prompts)[row], len(tokens) == room):
            refuse("cannot be written after the prompt without a bad word: change one of the lists")
    added = torch.tensor(tokens, dtype=call.prompts.dtype, device=call.prompts.device)
    longer = torch.cat([call.prompts, added.expand(len(call.prompts), -1)], dim=1)
    others = (*step.acting(MustIncludeLogitsProcessor), *step.acting(TextEndLogitsProcessor))
    for each in others:
        try:
            each.check(longer, [row])
        except UserError as error:
            raise UserError(f"starts_with: after {text!r}, {error}", setting="starts_with", value=text) from error
