"""The usual spelling of a required word: as written in the entry, or with a capital at the start of a sentence.

Words are compared without case, so `mArMaLaDe` counts as well if a model writes it. But only tokens that continue the
usual spelling are preferred or forced.
"""

import re
from collections.abc import Iterable, Sequence

from ..text.vocabulary import Vocabulary
from ..text.word_lists import is_regex, split_alternatives
from ..text.word_matcher import Entry

_SENTENCE_BEGINS = re.compile(r"(?:\A|[.!?:\n][\"'\u201d\u2019)]*)\s*[\"'\u201c\u2018(]*\Z")
_IN_CAPITALS = re.compile(r"\b[A-Z]{2,}\W+\Z")


class Spellings:
    """Finds the tokens that continue the usual spelling of an entry.

    Args:
        sources: the entries, as in `Requirements`.
        vocabulary: the text that every token adds.
    """

    def __init__(self, sources: Sequence[str], vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._written = [_written_forms(source) for source in sources]
        self.longest = max((len(form) for forms in self._written for form in forms or ()), default=0) + 8
        self._known: dict[tuple[int, str, int], bool] = {}

    def customary(self, entry: int, tail: str, tokens: Iterable[int]) -> list[bool]:
        """Whether each of some tokens that start or continue an entry spells it in the usual way.

        Args:
            entry: its index.
            tail: the last `longest` characters of the text.
            tokens: their ids.
        """
        forms = self._written[entry]
        if forms is None:
            return [True for _ in tokens]
        if len(self._known) > 1 << 16:
            self._known.clear()
        verdicts = []
        for token in tokens:
            key = (entry, tail, token)
            if key not in self._known:
                self._known[key] = self._goes_on(forms, tail, self.vocabulary.piece(token))
            verdicts.append(self._known[key])
        return verdicts

    def _goes_on(self, forms: Sequence[str], tail: str, piece: str | bytes) -> bool:
        if isinstance(piece, bytes):
            return True  # a part of a character has no case
        for form in forms:
            for done in range(len(form)):
                if not done:
                    lead = piece[: len(piece) - len(piece.lstrip())]
                    added = piece.lstrip()
                    spelled = _as_the_place_asks(form, tail + lead)
                elif tail.endswith((form[:done], form[0].upper() + form[1:done])):
                    added, spelled = piece, form[done:]
                elif done > 1 and tail.endswith(form[:done].upper()):
                    added, spelled = piece, form[done:].upper()
                else:
                    continue
                if not added or spelled.startswith(added) or added.startswith(spelled):
                    return True
        return False


def _written_forms(source: str) -> list[str] | None:
    """The alternatives of an entry as they are written; None where their spelling is not known."""
    if is_regex(source):
        return None
    entries = [Entry.parse(part) for part in split_alternatives(source)]
    if not all(entry.is_plain for entry in entries):
        return None
    return ["".join(entry.items[:-1] if entry.is_stem else entry.items) for entry in entries]


def _as_the_place_asks(form: str, before: str) -> str:
    if _IN_CAPITALS.search(before):
        return form.upper()
    return form[0].upper() + form[1:] if _SENTENCE_BEGINS.search(before) else form
