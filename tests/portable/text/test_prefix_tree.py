"""Texts that are read together come to where each comes alone, and a tree has every prefix once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundamentallm_hf.portable.text import prefix_tree
from fundamentallm_hf.portable.text.prefix_tree import CodedTexts, Letters, PrefixTree, read_together

TEXTS = st.lists(st.text("abAB é日😀\ud800", max_size=7), max_size=12)


def words_of(tree):
    """The letters from the root to each node."""
    found = [""]
    for parent, letter in zip(tree.parents[1:].tolist(), tree.characters[1:].tolist(), strict=True):
        found.append(found[parent] + tree.letters[letter])
    return found


@given(texts=TEXTS, deepest=st.integers(1, 8))
@settings(deadline=None, max_examples=200)
def test_the_nodes_are_the_prefixes_in_letters(texts, deepest):
    coded = CodedTexts.of(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_tree, "DEEPEST", deepest)
        tree = PrefixTree(coded, Letters({char: char.lower() for char in coded.characters()}))
    # Of characters that are alike, the first one that occurs is shown: a capital before its small letter.
    shown = {char.lower(): char for char in sorted(set("".join(texts)), reverse=True)}
    folded = ["".join(shown[char.lower()] for char in text) for text in texts]
    words = words_of(tree)
    heads = [text[:deepest] for text in folded]
    assert sorted(words) == sorted({text[:end] for text in heads for end in range(len(text) + 1)} | {""})
    assert [words[end] for end in tree.ends.tolist()] == heads
    assert {place: "".join(rest) for place, rest in tree.longer.items()} == {
        place: text[deepest:] for place, text in enumerate(folded) if len(text) > deepest
    }


@given(texts=TEXTS, data=st.data())
@settings(deadline=None, max_examples=200)
def test_coded_texts_are_cut_and_chosen_as_texts_are(texts, data):
    chosen = data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
    left = [text for text, taken in zip(texts, chosen, strict=True) if taken and text]
    taken = [each and bool(text) for text, each in zip(texts, chosen, strict=True)]
    coded = CodedTexts.of(texts).chosen(np.array(taken, dtype=bool))
    assert coded.beginning("a").tolist() == [text[0] == "a" for text in left]
    assert CodedTexts.of(texts).ending("b").tolist() == [text.endswith("b") for text in texts]
    after, states = read_together(coded.behind(), "", lambda state, char: state + char)
    assert [states[number] for number in after.tolist()] == [text[1:] for text in left]
    assert len(states) == len(set(states))


@given(texts=TEXTS)
@settings(deadline=None, max_examples=100)
def test_each_state_is_asked_once_for_a_character_at_one_place(texts):
    asked = []

    def step(state, char):
        asked.append((state, char))
        return (state + ord(char)) % 3

    after, states = read_together(CodedTexts.of(texts), 0, step)
    assert [states[number] for number in after.tolist()] == [sum(map(ord, text)) % 3 for text in texts]
    assert len(asked) <= 3 * len(set("".join(texts))) * max(map(len, texts), default=0)
