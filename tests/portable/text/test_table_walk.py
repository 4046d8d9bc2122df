"""A pass over a vocabulary finds what reading each token finds, in a few steps."""

import random

import pytest
from toy_tokenizers import FAMILIES, toy_tokenizer

from fundamentallm_hf.portable.text import prefix_tree, table_walk
from fundamentallm_hf.portable.text.table_walk import Outcome
from fundamentallm_hf.portable.text.text_patterns import TextPatterns
from fundamentallm_hf.portable.text.token_tables import TokenTables
from fundamentallm_hf.portable.text.vocabulary import Vocabulary
from fundamentallm_hf.portable.text.word_counts import WordCounts

CHARACTERS = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)] + [chr(code) for code in range(0x430, 0x450)]


@pytest.mark.parametrize(
    "entries", [["ran", "big dog"], ["*ing"], ["*a*"], ["/[0-9]{4}/"], ["日"], ["/[^\\x00-\\x7f]/"]]
)
def test_thousands_of_characters_cost_a_few_steps(entries):
    pieces = [*CHARACTERS, *(" " + char for char in CHARACTERS), *"abcdefgnrtABC0123456789 ", "ran", " ring", "日本"]
    tables = TokenTables(Vocabulary(tuple(pieces)), TextPatterns(entries, True, WordCounts({"ran": 1})), len(pieces))
    steps = []
    step = tables.patterns.step_once
    tables.patterns.step_once = lambda *args: steps.append(args) or step(*args)
    table = tables.table(tables.start)
    assert len(steps) < 400
    # Each token has the same outcome as when it is read alone.
    for token in (0, 7, len(CHARACTERS) + 7, *range(2 * len(CHARACTERS), len(pieces))):
        assert bool(table.closed[token]) == tables.read(tables.start, token)[1]


NOTHING = Outcome(False, False, 0.0)
LISTS = [
    ["cat", "ran*"],
    ["*og", "Paris"],
    ["/[a-z]{2}[0-9]/", "b*g"],
    ["/\\bthe\\b/"],
    ["*a*n"],
    ["/a.{3}t/", "was not"],
]


def by_place(outcomes):
    """The outcome of each token that has one."""
    columns = (each.tolist() for each in (outcomes.places, outcomes.hit, outcomes.ends, outcomes.chance))
    return {place: Outcome(hit, ends, chance) for place, hit, ends, chance in zip(*columns, strict=True)}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("widest", "deepest", "most"), [(1 << 11, 32, 1 << 24), (0, 2, 1 << 24), (0, 32, 60), (1 << 11, 1, 60)]
)
def test_a_pass_finds_what_reading_each_token_finds(family, widest, deepest, most, monkeypatch):
    """Also with transitions that are stored as pairs, with tokens longer than the tree is deep, and forgetting."""
    monkeypatch.setattr(prefix_tree, "DEEPEST", deepest)
    for name, value in (("_WIDEST", widest), ("_MOST_MOVES", most)):
        monkeypatch.setattr(table_walk, name, value)
    vocabulary = Vocabulary.of(toy_tokenizer(family))
    dice = random.Random(family)
    whole = vocabulary.coded[0].tolist()
    for entries in LISTS:
        patterns = TextPatterns(entries, True, WordCounts({"cat": 3, "ran": 9, "rang": 1, "dog": 4}), expects=True)
        walk = TokenTables(vocabulary, patterns, len(vocabulary.pieces))._walk
        for _ in range(4):
            text = "".join(dice.choice(["the ", "ca", "r", "an", " ", "x4", "é", "was", "a", "."]) for _ in range(4))
            start = patterns.read(patterns.start, text)[0]
            base = patterns.neutral(start)
            found = by_place(walk(base, None))
            assert NOTHING not in found.values()
            found |= by_place(walk(start, base))
            for place, token in enumerate(whole):
                piece = str(vocabulary.pieces[token])
                after, hit = patterns.read(start, piece)
                unspaced = patterns.read(start, piece[:-1])[0]
                shown = unspaced if vocabulary.strips_trailing_space and piece.endswith(" ") else after
                chance = patterns.chance(after)
                expected = Outcome(True, False, 0.0) if hit else Outcome(False, patterns.ends(shown), chance)
                assert found.get(place, NOTHING) == expected, (entries, text, piece)
