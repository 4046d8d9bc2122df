"""The names of branches: whole words, none of them punctuation, the same in the browser and in the prompt loop."""

import random

import pytest

pytest.importorskip("gradio", reason="the web demo needs gradio")

from hypothesis import given
from hypothesis import strategies as st
from web_visit import browser  # noqa: F401

from fundamentallm_hf.generation.text_names import ALIKE, one_line
from fundamentallm_hf.generation.text_tree import TextTree
from fundamentallm_hf.web.panels import script

# Letters, a mark on one, a digit, apostrophes, and what no name starts with.
SIGNS = "aabbcÜe\u0301漢7_'\u2019,.\"“-  \n🙂"
LETTERS = "abcÜe\u0301漢7_"


def starts_amid_a_word(text, index):
    before = text[:index]
    return bool(before) and (before[-1] in LETTERS or (before[-1] in "'\u2019" and before[-2:-1] in tuple(LETTERS)))


@given(st.text(SIGNS, max_size=60), st.text(SIGNS, max_size=200))
def test_a_name_is_made_of_whole_words(prompt, completion):
    tree = TextTree()
    name = tree.add(None, prompt, completion).name
    text = one_line(prompt + completion, 10_000)
    if not set(text) & set(LETTERS):
        assert name == (one_line(text) or "empty text")
        return
    assert name[0] in LETTERS
    shown, starts = name.removesuffix("…"), []
    while (start := text.find(shown, starts[-1] + 1 if starts else 0)) >= 0:
        starts.append(start)
    assert any(not starts_amid_a_word(text, start) for start in starts)


def test_texts_that_start_alike_are_named_by_where_they_depart():
    tree = TextTree()
    start = tree.add_prompt("Once upon a time")
    added = (
        ", there was a boy named Tim.",
        ", there was a boy named Tom. He ran.",
        ", there was a bird.",
        ", there was a boy named Timmy.",
    )
    names = [tree.add(start.id, "Once upon a time", completion).name for completion in added]
    assert names == ["there was a boy named Tim.", "Tom. He ran.", "there was a bird.", "Timmy."]
    assert tree.add(start.id, "Once upon a time, there was a g", "irl.").name == "girl."
    assert len({name[:ALIKE] for name in names}) == len(names)


def drawn_steps(seed):
    """Texts for a tree, each with the index of the one that it comes from, if it does, and where that one is cut."""
    rng = random.Random(seed)
    steps = []
    for number in range(rng.randrange(3, 12)):
        parent = rng.randrange(-1, number)
        words = [
            "there was",
            " a boy",
            ", who",
            "'s",
            ' said, "',
            "girl",
            " ",
            "\n",
            "Tim",
            "漢字",
            "e\u0301",
            "🙂",
            "…",
            ".",
        ]
        added = "".join(rng.choices(words, k=rng.randrange(0, 9)))
        steps.append([parent, rng.choice(["", "Once upon a t", "One day, "]), rng.choice([0, 0, 1, 3]), added])
    return steps


BUILD = """drawn => drawn.map(steps => {
  const tree = new Tree(null);
  const ids = [];
  for (const [parent, prompt, cut, added] of steps) {
    const above = parent < 0 ? prompt : tree.text(tree.nodes.get(ids[parent]));
    const given = Array.from(above).slice(0, Math.max(0, Array.from(above).length - cut)).join("");
    ids.push(tree.add(parent < 0 ? null : ids[parent], given, added).id);
  }
  return [...tree.nodes.values()].map((node) => node.name);
})"""


def test_browser_and_prompt_loop_name_texts_alike(browser):  # noqa: F811
    drawn = [drawn_steps(seed) for seed in range(300)]
    page = browser.new_page()
    page.add_script_tag(content=f"{script('tree.js')}\nwindow.Tree = Tree;")
    named = page.evaluate(BUILD, drawn)
    page.close()
    for steps, names in zip(drawn, named, strict=True):
        tree, ids = TextTree(), []
        for parent, prompt, cut, added in steps:
            above = prompt if parent < 0 else tree.text(ids[parent])
            given_text = above[: max(0, len(above) - cut)]
            ids.append(tree.add(None if parent < 0 else ids[parent], given_text, added).id)
        assert [node.name for node in tree] == names, steps
    assert any(name[0] == "g" for names in named for name in names)
