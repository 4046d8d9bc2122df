"""How a text has to begin and end, as it is given. Imports neither torch nor transformers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..decoding.phases import ENDING_FIELDS, WHOLE_TEXT_FIELDS, is_given
from ..errors import UserError
from ..text.characters import needs_boundary
from ..text.text_units import TextUnits, UnitState
from ..text.word_lists import read_text_list
from .setting import read_range

END_UNITS = ("word", "sentence", "line", "paragraph")
# The most words and sentences that can be asked for: the graph has a node for each.
MOST_WORDS, MOST_SENTENCES = 20_000, 500


@dataclass(frozen=True)
class EndSettings:
    """What the end of a text has to be.

    Attributes:
        unit: of `END_UNITS`.
        words, sentences: the least and the greatest number; None for any.
        named: the settings that were given, for messages.
        last: the texts of which one has to come last; none for any.
        lead: what comes before them: the end of a `sentence`, or of a `word`.
    """

    unit: str
    words: tuple[int, int] | None = None
    sentences: tuple[int, int] | None = None
    named: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    lead: str = "word"

    @classmethod
    def of(cls, end_at: str | None, words: object, sentences: object, ends_with: object = None) -> "EndSettings | None":
        """Read the fields; None where none is set.

        Raises:
            UserError: a value is not valid, or they contradict each other.
        """
        given = {"end_at": end_at, "words": words, "sentences": sentences, "ends_with": ends_with}
        named = [name for name, value in given.items() if is_given(value)]
        if not named:
            return None
        if end_at not in (None, "", *END_UNITS):
            line = f"end_at has to be one of {', '.join(END_UNITS)} but is {end_at!r}"
            raise UserError(line, setting="end_at", value=end_at)
        word_range = _counted("words", words, MOST_WORDS)
        sentence_range = _counted("sentences", sentences, MOST_SENTENCES)
        if word_range and sentence_range and sentence_range[0] > word_range[1]:
            raise UserError(
                f"sentences: {sentence_range[0]} sentences need a word each, but words allows {word_range[1]}: ask for "
                "fewer sentences or more words",
                setting="sentences",
                value=sentences,
            )
        unit = end_at or "word"
        if unit == "word" and sentence_range:
            unit = "sentence"
        last = bounding_texts("ends_with", ends_with)
        lead = "sentence" if last and all(map(_begins_sentence, last)) else "word"
        return cls(unit, word_range, sentence_range, tuple(named), last, lead)

    @property
    def follows_sentences(self) -> bool:
        """Whether the automaton has to follow sentences."""
        return self.sentences is not None or self.unit != "word" or self.lead == "sentence"

    def make_units(self) -> TextUnits:
        """The automaton that this needs."""
        return TextUnits(self.follows_sentences, self.unit in ("line", "paragraph"))

    def ends(self, state: UnitState) -> bool:
        """Whether a text in this state has such an end, its numbers aside."""
        if not state.has_word or (self.sentences and not state.after_sentence):
            return False
        if self.unit == "word":
            return not state.in_word
        if self.unit == "sentence":
            return state.after_sentence
        return state.breaks >= 1 + (self.unit == "paragraph") and (self.unit == "line" or state.after_sentence)

    def may_end(self, state: UnitState) -> bool:
        """The same, but nothing has to follow a word."""
        return state.has_word if self.unit == "word" else self.ends(state)


def bounding_texts(name: str, value: object) -> tuple[str, ...]:
    """The texts of `starts_with` or `ends_with`; none where it is not set.

    Raises:
        ValueError: it is neither a text nor a list of texts.
        UserError: a text holds nothing but white space.
    """
    texts = read_text_list(name, value if is_given(value) else None)
    for text in texts:
        if not text.strip():
            line = f"{name} has to be text with more than white space but is {text!r}"
            raise UserError(line, setting=name, value=text)
    return texts


def _begins_sentence(text: str) -> bool:
    """Whether a text of several words begins like a sentence, so that the one before it should be over."""
    text = text.lstrip()
    first = next((char for char in text if char.isalnum()), "")
    several = any(map(str.isspace, text)) or (bool(first) and not needs_boundary(first))
    return several and first.isalpha() and not first.islower() and text[0] not in ",;:.!?)-"


def _counted(name: str, value: object, most: int) -> tuple[int, int] | None:
    """The least and the greatest number of a field like 50 or "40-60"; None where it is not set.

    Raises:
        UserError: it is neither.
    """
    if value in (None, ""):
        return None
    found = read_range(value, 1, most)
    if found is None:
        expected = f"a whole number from 1 to {most}, or a range such as 40-60"
        raise UserError(f"{name} has to be {expected} but is {value!r}", setting=name, value=value, expected=expected)
    return found


def check_ending(fields: Mapping[str, Any], least: int) -> EndSettings | None:
    """Read the fields about the end of a text; None where none is set.

    Args:
        fields: their values and those of `WHOLE_TEXT_FIELDS`, by name.
        least: the least number of tokens that is asked for.

    Raises:
        UserError: a value is not valid, or contradicts another.
    """
    found = EndSettings.of(*(fields.get(name) for name in ENDING_FIELDS))
    if found is None:
        return None
    name = found.named[-1]
    whole = _whole_text_field(fields)
    if whole is not None:
        line = f"{name} and {whole} both decide where the text ends: set one of them, or put it into the {whole}"
        raise UserError(line, setting=name, value=fields.get(name))
    if least > 0 and (found.words or found.sentences):
        line = f"{name} and min_tokens ({least}) both decide how long the text is: leave one out"
        raise UserError(line, setting=name, value=fields.get(name))
    return found


def check_beginning(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Read `starts_with`: the texts of which one comes first; none where it is not set.

    Args:
        fields: its value and those of `WHOLE_TEXT_FIELDS`, by name.

    Raises:
        UserError: the value is not valid, or contradicts another.
    """
    texts = bounding_texts("starts_with", fields.get("starts_with"))
    whole = _whole_text_field(fields)
    if texts and whole is not None:
        line = f"starts_with and {whole} both decide how the text begins: set one, or put it into the {whole}"
        raise UserError(line, setting="starts_with", value=texts)
    return texts


def _whole_text_field(fields: Mapping[str, Any]) -> str | None:
    return next((name for name in WHOLE_TEXT_FIELDS if is_given(fields.get(name))), None)
