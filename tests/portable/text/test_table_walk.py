"""The cost of a pass over a vocabulary: characters that the patterns do not distinguish are merged."""

import pytest

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
    step = tables.patterns.step
    tables.patterns.step = lambda *args: steps.append(args) or step(*args)
    table = tables.table(tables.start)
    assert len(steps) < 400
    # Each token has the same outcome as when it is read alone.
    for token in (0, 7, len(CHARACTERS) + 7, *range(2 * len(CHARACTERS), len(pieces))):
        assert bool(table.closed[token]) == tables.read(tables.start, token)[1]
