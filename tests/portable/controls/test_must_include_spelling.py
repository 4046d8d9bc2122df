"""The usual spelling of a required word."""

import pytest

from fundamentallm_hf.portable.controls.must_include_spelling import Spellings
from fundamentallm_hf.portable.text.vocabulary import Vocabulary

PIECES = (" mar", " Mar", " MAR", "mal", "MAL", "Lad", "ade", "ade.", "\ufe0f", b"\xc3", " Paris", " paris", "mar")
VOCABULARY = Vocabulary(PIECES)


@pytest.mark.parametrize(
    ("source", "tail", "usual"),
    [
        ("marmalade", "he ate", {" mar", "mar", b"\xc3"}),
        ("marmalade", "He ate it.", {" Mar", b"\xc3"}),
        ("marmalade", "ate mar", {"mal", b"\xc3", " mar", "mar"}),
        ("marmalade", "EAT MAR", {"MAL", b"\xc3", " MAR"}),
        ("marmalade", "ate marmal", {"ade", "ade.", b"\xc3", " mar", "mar"}),
        ("Paris", "in", {" Paris", b"\xc3"}),
        ("king|paris", "in", {" paris", b"\xc3"}),
    ],
)
def test_only_the_customary_spelling_goes_on(source, tail, usual):
    spellings = Spellings([source], VOCABULARY)
    found = spellings.customary(0, tail, range(len(PIECES)))
    assert {piece for piece, as_usual in zip(PIECES, found, strict=True) if as_usual} - {"mar"} == usual - {"mar"}


@pytest.mark.parametrize("source", ["/[0-9]{4}/", "*ing"])
def test_of_a_pattern_no_spelling_is_known(source):
    assert all(Spellings([source], VOCABULARY).customary(0, "", range(len(PIECES))))
