"""Words and sentences: the rules by examples, and against the independent checker."""

import random

import pytest
from unit_checker import count_words, read_sentences

from fundamentallm_hf.portable.text.text_units import TextUnits, reduced_text

WORDS = [
    ("The dog ran.", 3),
    ("don't well-known e.g. 3.14 3,000 a,b", 7),
    ("U.S. Army, p.m.", 3),
    ("- 'tis -5", 2),
    ("狗跑了。", 3),
    ("いぬ ran", 3),
    ("Привет, мир", 2),
    ("caf\N{COMBINING ACUTE ACCENT}e so\N{SOFT HYPHEN}ft", 2),
    ("", 0),
]
SENTENCES = [
    ("He ran. She sat.", 2, True),
    ('"Stop!" he said. "No."', 2, True),
    ("Dr. Smith paid 3.14 e.g. for tea. Then he left.", 2, True),
    ("It cost 3.14", 0, False),
    ("Mr. J. Smith met Mrs. Hill (at noon).", 1, True),
    ("Wait... and see. Done", 1, False),
    ("Wait... And see.", 2, True),
    ("Really?! Yes!!", 2, True),
    ("\u03a4\u03b9 είναι; Ένα σπίτι.", 2, True),
    ("one; two.", 1, True),
    ("Он ушёл. Она осталась…", 2, True),
    ("他走了。「好\uff01」她笑了\uff1f", 3, True),
    ("私は行く。", 1, True),
    ("He said “no.” She left.", 2, True),
    ("Er sagte: „Nein.“ Dann ging er.", 2, True),
    ("!!! ...", 0, False),
    ("The end.\n\n", 1, True),
    ("The end. (", 1, False),
    ("ok. 😀", 1, False),
    ("see example.com for more", 0, False),
]


@pytest.mark.parametrize(("text", "words"), WORDS)
def test_words_are_counted_as_documented(text, words):
    units = TextUnits(True, True)
    assert units.read(units.start, text)[1] == words == count_words(text)


@pytest.mark.parametrize(("text", "sentences", "ends"), SENTENCES)
def test_sentences_are_counted_as_documented(text, sentences, ends):
    assert _read(text) == (sentences, ends) == read_sentences(text)


ALPHABET = (
    "aAqdDrRmMvs. ..!?…\n\n,'\u2019-;\u03b3Γ0 13。\uff01日い\"”“)(*é א_\N{SOFT HYPHEN}\N{COMBINING ACUTE ACCENT}«»"
)


def _read(text):
    units = TextUnits(True, True)
    state, _, over = units.read(units.start, text)
    return over + state.open_end, state.after_sentence and over + state.open_end > 0


def test_the_automaton_agrees_with_the_checker():
    dice = random.Random(1)
    for _ in range(6000):
        text = "".join(dice.choice(ALPHABET) for _ in range(dice.randint(0, 14)))
        units = TextUnits(True, True)
        assert units.read(units.start, text)[1] == count_words(text), text
        assert _read(text) == read_sentences(text), text


def test_a_reduced_text_does_the_same_from_every_state():
    dice = random.Random(2)
    units = TextUnits(True, True)
    for _ in range(6000):
        before, text = ("".join(dice.choice(ALPHABET) for _ in range(dice.randint(0, length))) for length in (7, 8))
        state = units.read(units.start, before)[0]
        assert units.read(state, text) == units.read(state, reduced_text(text)), (before, text)
