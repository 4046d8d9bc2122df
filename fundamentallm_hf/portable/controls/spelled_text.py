"""A text as it is written after another: with or without a space before it, and in which tokens."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from ..decoding.call_processors import CallProcessors
from ..errors import UserError
from ..text.characters import needs_boundary
from ..text.token_tables import TextState, TokenTables
from ..text.vocabulary import Vocabulary
from .bad_words import BadWordsLogitsProcessor
from .must_include import suppressed_tokens

# After these no space is missing.
_OPENERS = "([{<\u00a1\u00bf\u00ab\u2018\u201c-\u2010\u2011\u2013\u2014/"


class Spelling(NamedTuple):
    """Tokens that write a text.

    Attributes:
        text: what they add, perhaps with a space first.
        tokens: their ids.
    """

    text: str
    tokens: tuple[int, ...]


def spellings(
    text: str, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary, masked: frozenset[tuple[int, ...]]
) -> list[Spelling]:
    """How a text can be written: without and with a space before it, each in one way at most.

    Args:
        text: what is to be written.
        tokenizer: of the model; its own tokens are preferred.
        vocabulary: its tokens.
        masked: tokens, and sequences of tokens, that must not be used.
    """
    forms = (text,) if text[0].isspace() else (text, f" {text}")
    candidates = [tuple(tokenizer(form, add_special_tokens=False).input_ids) for form in forms]
    found = []
    for form in forms:
        for tokens in (*candidates, *_plain(form, vocabulary)):
            if tokens and not _holds(tokens, masked) and _added_text(tokens, vocabulary) == form:
                found.append(Spelling(form, tokens))
                break
    return found


def _added_text(tokens: tuple[int, ...], vocabulary: Vocabulary) -> str:
    """What tokens add to a text before them, at the start of which a decoder may drop a space."""
    pieces = ((token, piece) for token, piece in enumerate(vocabulary.pieces) if token not in vocabulary.fallback)
    anchor = next((token for token, piece in pieces if isinstance(piece, str) and piece.strip()), 0)
    return vocabulary.text([anchor, *tokens])[len(vocabulary.text([anchor])) :]


def _plain(text: str, vocabulary: Vocabulary) -> Iterator[tuple[int, ...]]:
    """The text in tokens as long as possible, and in single characters."""
    for parts in ([text], list(text)):
        spelled = [vocabulary.spell(part) for part in parts]
        if None not in spelled:
            yield tuple(token for part in spelled for token in part or ())


def _holds(tokens: tuple[int, ...], masked: frozenset[tuple[int, ...]]) -> bool:
    return any(
        tokens[start : start + len(each)] == each for each in masked for start in range(len(tokens) - len(each) + 1)
    )


def in_usual_order(ways: list[Spelling], before: str) -> list[Spelling]:
    """The ways to write a text after another, the usual one first.

    A letter gets a space before it, but for scripts without spaces, unless white space, an opening mark or nothing is
    before it. What would join a word is left out.

    Args:
        ways: of one text.
        before: the text before it, or the end of it.
    """
    last = before[-1:]
    spaced = [way for way in ways if way.text[0] == " " and way.text != " "]
    joined = [way for way in ways if way not in spaced]
    first = joined[0].text[0] if joined else spaced[0].text[1:2]
    if joined and needs_boundary(first) and needs_boundary(last or " "):
        joined = []
    wants = needs_boundary(first) and bool(last) and not last.isspace() and last not in _OPENERS
    return [*spaced, *joined] if wants else [*joined, *spaced]


def raw_end(tokens: list[int], vocabulary: Vocabulary, count: int = 64) -> str:
    """The end of a text of tokens, with the space that a decoder drops at the very end."""
    text = vocabulary.text(tokens[-count:], continues=len(tokens) > count)
    last = next((piece for token in reversed(tokens) if (piece := vocabulary.piece(token))), "")
    if vocabulary.strips_trailing_space and isinstance(last, str) and last.endswith(" "):
        text += " "
    return text


def spelled_within(name: str, texts: Sequence[str], step: CallProcessors) -> list[list[Spelling]]:
    """The ways to write each of some texts in a call; those that cannot be written are left out.

    Args:
        name: the field that holds them, for messages.
        texts: the first or last words of what is added.
        step: the processors of the call, its bans included.

    Raises:
        UserError: none of them can be written; the message is about the first.
    """
    found, refusals = [], []
    for text in texts:
        try:
            found.append(_ways_within(name, text, step))
        except UserError as error:
            refusals.append(error)
    if texts and not found:
        raise refusals[0]
    return found


def _ways_within(name: str, text: str, step: CallProcessors) -> list[Spelling]:
    masked = suppressed_tokens(step.call.config)
    alone = frozenset(tokens[0] for tokens in masked if len(tokens) == 1)
    vocabulary = Vocabulary.of(step.call.reader).limited(step.call.size).without(alone)
    ways = spellings(text, step.call.reader, vocabulary, masked)
    if not ways:
        line = f"{name}: {text!r} cannot be written with the model's alphabet: change it"
        raise UserError(line, setting=name, value=text)
    for stop in step.stop_strings:
        ways = [way for way in ways if stop not in way.text]
        if not ways:
            line = f"{name}: {text!r} contains {stop!r}, which stops the text: change one of them"
            raise UserError(line, setting=name, value=text)
    closes = name == "ends_with"
    for ban in step.acting(BadWordsLogitsProcessor):
        ways = [way for way in ways if not is_banned(way.tokens, ban.tables, ban.tables.start, closes)]
        if not ways:
            line = f"{name}: {text!r} cannot be written without a bad word: change one of the lists"
            raise UserError(line, setting=name, value=text)
    return ways


def is_banned(tokens: tuple[int, ...], tables: TokenTables, state: TextState, closes: bool) -> bool:
    """Whether tokens after a text complete a banned word: within, or because the text ends or a word ends with them.

    Args:
        tokens: the tokens.
        tables: of the bans.
        state: of the text before them.
        closes: whether the text ends with them.
    """
    if tables.complete(state, list(tokens)) is not None:
        return True
    for token in tokens:
        state = tables.advance(state, token)
    if closes:
        return tables.ends(state)
    # A word is complete once something else follows it.
    others = [other for char in " .,\n" if (other := tables.vocabulary.token(char)) is not None]
    return bool(others) and all(tables.complete(state, [other]) is not None for other in others)
