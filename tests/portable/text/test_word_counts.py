"""How words end, in exact numbers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundamentallm_hf.portable.text.vocabulary import Vocabulary
from fundamentallm_hf.portable.text.word_counts import WordCounts

COUNTS = WordCounts({"ran": 60, "rang": 30, "rat": 10, "big": 100})


@pytest.mark.parametrize(
    ("beginning", "word", "stem", "expected"),
    [
        ("", "ran", False, 60.5 / 200.5),
        ("r", "ran", False, 60.5 / 100.5),
        ("ra", "ran", False, 60.5 / 100.5),
        ("ran", "ran", False, 60.5 / 90.5),
        ("ran", "rang", False, 30.5 / 90.5),
        ("rang", "rang", False, 1.0),
        ("r", "ran", True, 90.5 / 100.5),
        ("", "b", True, 100.5 / 200.5),
        ("b", "bird", False, 0.5 / 100.5),
        ("z", "zebra", False, 0.5 * 0.3**4),
        ("", "zebra", False, 0.5 / 200.5),
    ],
)
def test_the_chance_of_a_word_is_its_share_of_those_that_begin_so(beginning, word, stem, expected):
    assert COUNTS.chance(beginning, word, stem) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("beginning", "mass"), [("", 200), ("r", 100), ("ran", 90), ("rang", 30), ("rangs", 0), ("ra\U0010ffff", 0)]
)
def test_the_mass_of_a_beginning_is_that_of_all_words_behind_it(beginning, mass):
    assert COUNTS.mass(beginning) == mass


@given(
    st.dictionaries(st.text("abé", min_size=1, max_size=4), st.integers(1, 9), max_size=8), st.text("abé", max_size=3)
)
def test_chances_stay_within_bounds_and_those_of_a_beginning_add_up(words, beginning):
    counts = WordCounts(words)
    known = [word for word in counts.counts if word.startswith(beginning)]
    chances = [counts.chance(beginning, word) for word in known]
    assert all(0 < chance <= 1 for chance in chances)
    mass = counts.mass(beginning)
    assert mass == sum(counts.counts[word] for word in known)
    assert sum(chances) == pytest.approx((mass + 0.5 * len(known)) / (mass + 0.5))


def test_words_are_counted_without_case_and_in_any_spelling():
    assert WordCounts({"Ran": 2, "RAN": 3, "ﬁt": 1, "fit": 1}).counts == {"ran": 5, "fit": 2}
    assert WordCounts({"caf\u00e9": 1}).counts == WordCounts({"cafe\u0301": 1}).counts


@pytest.mark.parametrize(
    ("text", "least", "counts"),
    [
        ("", 1, {}),
        ("He ran; he ran! The cat_7 ran.", 1, {"he": 2, "ran": 3, "the": 1, "cat_7": 1}),
        ("He ran; he ran! The cat ran.", 2, {"he": 2, "ran": 3}),
        ("don't", 1, {"don": 1, "t": 1}),
        ("extra\u00adordinary Straße\nSTRASSE", 1, {"extraordinary": 1, "strasse": 2}),
        ("caf\u00e9 cafe\u0301", 1, {"cafe\u0301": 2}),
    ],
)
def test_the_words_of_a_text_are_counted(text, least, counts):
    assert WordCounts.of_text(text, least).counts == counts


def test_a_vocabulary_tells_which_words_are_frequent():
    pieces = ("<s>", " the", "the", " cat", " .", " The", b" \xc3", "dog ", "  two", " ", "")
    counts = WordCounts.of_vocabulary(Vocabulary(pieces)).counts
    assert counts == {"the": 1e6 / 11 + 1e6 / 15, "cat": 1e6 / 13, "dog": 1e6 / 17}
    assert len(WordCounts.of_vocabulary(Vocabulary(("a", "b", " ")))) == 0


def test_unknown_words_are_less_likely_with_each_missing_letter():
    unknown = WordCounts({})
    assert [unknown.chance(beginning, "ran") for beginning in ("ran", "ra", "")] == pytest.approx([0.5, 0.15, 0.0135])
    assert len(unknown) == 0


def test_what_was_saved_is_loaded(tmp_path):
    file = tmp_path / "counts.json"
    counts = WordCounts({"ran": 60, "big": 100, "café": 2.5, "rat": 60})
    counts.save(file)
    assert WordCounts.load(file).counts == counts.counts
    assert WordCounts.load(str(file)).chance("r", "ran") == counts.chance("r", "ran")


def test_a_file_of_counts_has_the_most_frequent_first_and_whole_numbers_whole(tmp_path):
    file = tmp_path / "counts.json"
    WordCounts({"rat": 60, "ran": 60, "big": 100, "é": 2.5}).save(file)
    assert file.read_text(encoding="utf-8") == '{"big":100,"ran":60,"rat":60,"e\u0301":2.5}\n'
    WordCounts.load(file).save(file)
    assert [type(count) for count in json.loads(file.read_text(encoding="utf-8")).values()] == [int, int, int, float]


def test_a_broken_file_of_counts_is_a_value_error(tmp_path):
    file = tmp_path / "counts.json"
    file.write_text("{")
    with pytest.raises(ValueError, match="line 1"):
        WordCounts.load(file)
