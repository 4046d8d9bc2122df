"""Trees of texts: what they keep, where undo and redo lead, and their file."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fundamentallm_hf import GenerationSettings
from fundamentallm_hf.generation.text_names import NAME_LENGTH, one_line
from fundamentallm_hf.generation.text_tree import MOST_UNDONE, TextTree, compare, differing
from fundamentallm_hf.generation.tree_file import SavedTree, parse_tree, read_tree, tree_text, write_tree
from fundamentallm_hf.portable.errors import UserError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


class Trees(RuleBasedStateMachine):
    """A tree next to plain lists of what it has to hold: every text as a whole, and the history of the current one."""

    def __init__(self):
        super().__init__()
        self.tree, self.texts, self.parents = TextTree(), {}, {}
        self.before, self.here, self.after = [], None, []

    def _moved(self, number):
        if number != self.here:
            self.before, self.here, self.after = [*self.before, self.here], number, []

    def _pick(self, data):
        return data.draw(st.sampled_from(sorted(self.texts))) if self.texts else None

    @rule(data=st.data(), prompt=TEXTS, completion=TEXTS, continues=st.booleans())
    def write(self, data, prompt, completion, continues):
        parent = self._pick(data)
        if parent is not None and continues:
            prompt = self.texts[parent]
        node = self.tree.add(parent, prompt, completion, finish_reason="length", tokens=len(completion))
        assert node.id not in self.texts
        assert (node.prompt is None) == (parent is not None and prompt == self.texts[parent])
        self.texts[node.id], self.parents[node.id] = prompt + completion, parent
        self.tree.go(node.id)
        self._moved(node.id)

    @rule(prompt=TEXTS)
    def give(self, prompt):
        number = self.tree.add_prompt(prompt).id
        assert self.tree.add_prompt(prompt).id == number
        self.texts.setdefault(number, prompt)
        self.parents.setdefault(number, None)

    @rule(data=st.data())
    def go(self, data):
        if (number := self._pick(data)) is not None:
            self.tree.go(number)
            self._moved(number)

    @rule()
    def undo(self):
        if not self.before:
            with pytest.raises(UserError, match="nothing to undo"):
                self.tree.undo()
            return
        self.tree.undo()
        self.after, self.here = [self.here, *self.after], self.before.pop()

    @rule()
    def redo(self):
        if not self.after:
            with pytest.raises(UserError, match="nothing to redo"):
                self.tree.redo()
            return
        self.tree.redo()
        self.before, self.here = [*self.before, self.here], self.after.pop(0)

    @rule(data=st.data(), name=TEXTS)
    def rename(self, data, name):
        if (number := self._pick(data)) is not None:
            self.tree.rename(number, name)
            assert self.tree[number].name == name

    @rule(data=st.data())
    def delete(self, data):
        number = self._pick(data)
        if number is None:
            return
        gone, up = {number}, self.parents[number]
        while more := {each for each, parent in self.parents.items() if parent in gone} - gone:
            gone |= more
        assert self.tree.delete(number) == len(gone)
        for each in gone:
            del self.texts[each], self.parents[each]
        # The steps that only differed in what is gone are one step.
        steps = [up if each in gone else each for each in [*self.before, self.here, *self.after]]
        at = len(self.before)
        kept = [index for index, each in enumerate(steps) if not index or steps[index - 1] != each]
        place = max(index for index, each in enumerate(kept) if each <= at)
        steps = [steps[index] for index in kept]
        self.before, self.here, self.after = steps[:place], steps[place], steps[place + 1 :]

    @rule()
    def save_and_load(self):
        saved = tree_text(SavedTree(self.tree, {"top_k": 5}, "a/b"))
        read = parse_tree(saved)
        assert tree_text(read) == saved
        assert (dict(read.settings), read.model) == ({"top_k": 5}, "a/b")
        self.tree = read.tree

    @invariant()
    def holds_the_texts(self):
        assert {node.id: self.tree.text(node.id) for node in self.tree} == self.texts
        assert {node.id: node.parent for node in self.tree} == self.parents
        assert (self.tree.current.id if self.tree.current else None) == self.here
        assert all(self.tree.prompt(node.id) + node.completion == self.texts[node.id] for node in self.tree)
        shown = list(self.tree.depths())
        assert sorted(node.id for node, _ in shown) == sorted(self.texts)
        depth = {None: -1}
        for node, deep in shown:
            depth[node.id] = depth[node.parent] + 1
            assert deep == depth[node.id]


TestTrees = Trees.TestCase
TestTrees.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def written(**facts):
    """A tree of a prompt and one completion, as its file."""
    tree = TextTree()
    start = tree.add_prompt("The cat")
    tree.go(tree.add(start.id, "The cat", " sat.", tokens=5, finish_reason="length", **facts).id)
    return tree_text(SavedTree(tree))


def test_the_prompt_of_a_chat_is_no_plain_prompt():
    tree = TextTree()
    chat = tree.add(None, "<user> Hi", messages=({"role": "user", "content": "Hi"},))
    plain = tree.add_prompt("<user> Hi")
    assert plain.id != chat.id
    assert tree.add_prompt("<user> Hi") == plain
    assert (tree.chat(plain.id), len(tree)) == (None, 2)


def test_a_history_has_an_end():
    tree = TextTree()
    numbers = [tree.add_prompt(text).id for text in "ab"]
    for index in range(MOST_UNDONE + 10):
        tree.go(numbers[index % 2])
    for _ in range(MOST_UNDONE):
        tree.undo()
    with pytest.raises(UserError):
        tree.undo()


def test_a_text_that_is_not_there_is_named():
    with pytest.raises(UserError, match="there is no text 3: nothing has been written yet"):
        TextTree()[3]
    tree = TextTree()
    tree.add_prompt("a")
    with pytest.raises(UserError, match="there is no text 3: the numbers go up to 1"):
        tree.go(3)
    with pytest.raises(UserError, match="there is no text 7"):
        tree.add(7, "a", "b")


def test_deep_trees_are_read_and_walked():
    tree, parent = TextTree(), None
    for index in range(3000):
        parent = tree.add(parent, tree.text(parent) if parent else "a", f" {index}").id
    assert parse_tree(tree_text(SavedTree(tree))).tree.text(parent).endswith(" 2998 2999")
    assert max(depth for _, depth in tree.depths()) == 2999
    assert tree.delete(2) == 2999


@given(TEXTS, st.integers(1, 60))
def test_a_name_is_one_short_line_of_the_text(text, length):
    name = one_line(text, length)
    assert len(name) <= length
    assert name.isprintable()
    shown = "".join(char for char in " ".join(text.split()) if char.isprintable())
    assert name == shown or (name[-1] == "…" and shown.startswith(name[:-1]))


def test_a_text_is_named_by_what_is_new_in_it():
    tree = TextTree()
    assert tree.add(None, "The cat", " sat on\nthe mat").name == "sat on the mat"
    assert tree.add(None, "The cat", "\n").name == "The cat"
    assert tree.add(None, "", " ").name == "empty text"
    assert tree.add(None, "x" * 100, "").name == "x" * (NAME_LENGTH - 1) + "…"


@given(TEXTS, TEXTS, TEXTS)
def test_a_comparison_holds_both_texts(start, first, second):
    parts = compare(start + first, start + second)
    assert "".join(text for sign, text in parts if sign in "=-") == start + first
    assert "".join(text for sign, text in parts if sign in "=+") == start + second
    assert all(text for _, text in parts)
    assert (compare(first, first) or [("=", "")]) == [("=", first)]


def test_settings_that_differ_are_the_text_of_their_file(tmp_path):
    (tmp_path / "words.txt").write_text("ran\n")
    chosen = GenerationSettings(seed=3, top_k=5, bad_words_file=str(tmp_path / "words.txt"), bad_words=["sad"])
    assert differing(chosen) == {"top_k": 5, "bad_words": ("sad", "ran")}
    assert differing(GenerationSettings()) == {}


def test_a_file_is_never_replaced_by_accident(tmp_path):
    file, tree = str(tmp_path / "a.json"), parse_tree(written())
    assert write_tree(tree, file) == file
    assert tree_text(read_tree(file)) == written()
    with pytest.raises(UserError, match=r"exists: choose another name"):
        write_tree(tree, file)
    write_tree(SavedTree(TextTree()), file, force=True)
    assert len(read_tree(file).tree) == 0


def changed(path, value):
    """The file with another value at a path; `...` leaves the field out."""
    loaded = json.loads(written(seed=4, settings={"top_k": 5}, perplexity=2.5))
    at = loaded
    for name in path[:-1]:
        at = at[name]
    if value is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return json.dumps(loaded)


BAD = [
    ((), "", "is not JSON: Expecting value in line 1"),
    ((), "[1,\n2", "is not JSON: Expecting ',' delimiter in line 2"),
    ((), "[]", 'it has to be an object with "format": "fundamentallm-tree"'),
    ((), '{"temperature": 1}', 'it has to be an object with "format": "fundamentallm-tree"'),
    ((), '{"format": "fundamentallm-tree", "format": 1}', "it has 'format' twice in one object"),
    ((), '{"a": NaN}', "NaN is no number in JSON"),
    ((), "[" * 100_000, "it is nested too deeply"),
    (("version",), 2, "it has version 2, and this program reads up to 1: update the program"),
    (("version",), 0, "version has to be 1 but is 0"),
    (("version",), "1", 'version has to be a whole number but is "1"'),
    (("nodes",), ..., "nodes is missing"),
    (("nodes",), {}, "nodes has to be a list of texts but is {}"),
    (("model",), 3, "model has to be text, or null but is 3"),
    (("more",), 3, "there is no field 'more': there are format, version, model, settings, history, position, nodes"),
    (("history",), [], "history has to be a list with at least one entry but is []"),
    (("history",), [None, 9], "history has to hold ids of its texts, or null, but holds 9"),
    (("history",), [None, True], "history has to hold ids of its texts, or null, but holds true"),
    (("position",), 2, "position has to be below 2, the length of history, but is 2"),
    (("position",), -1, "position has to be a whole number of at least 0 but is -1"),
    (("settings",), {"top_q": 1}, "settings: there is no setting 'top_q': did you mean 'top_p'?"),
    (("settings",), {"top-p": 0.5}, "settings: 'top-p' is written 'top_p' here"),
    (("settings",), {"top_p": 5}, "settings: top-p has to be a number above 0 and at most 1 but is 5"),
    (("nodes", 0), 3, "text 1 has to be an object but is 3"),
    (("nodes", 0, "id"), 0, "text 1: id has to be a whole number of at least 1 but is 0"),
    (("nodes", 0, "id"), True, "text 1: id has to be a whole number of at least 1 but is true"),
    (("nodes", 0, "prompt"), None, "text 1: prompt has to be text where there is no parent but is null"),
    (("nodes", 0, "prompt"), "\ud800", 'text 1: prompt has to be text, or null but is "\\ud800"'),
    (("nodes", 0, "parent"), 2, "text 1: parent has to be the id of a text before it but is 2"),
    (("nodes", 1, "parent"), 2, "text 2: parent has to be the id of a text before it but is 2"),
    (("nodes", 1, "id"), 1, "text 2: id is 1, as of a text before it"),
    (("nodes", 1, "completion"), ..., "text 2: completion is missing"),
    (("nodes", 1, "seed"), 1.5, "text 2: seed has to be a whole number of at least 0, or null but is 1.5"),
    (("nodes", 1, "tokens"), "5", 'text 2: tokens has to be a whole number of at least 0 but is "5"'),
    (("nodes", 1, "perplexity"), 0.5, "text 2: perplexity has to be a number of at least 1, or null but is 0.5"),
    (("nodes", 1, "perplexity"), 10**400, "text 2: perplexity has to be a number of at least 1, or null but is 1000"),
    (("nodes", 1, "settings"), {"top_k": 0}, "text 2: settings: top-k has to be a whole number of at least 1"),
    (("nodes", 1, "x" * 99), 1, "text 2: there is no field 'xxx"),
]


@pytest.mark.parametrize(("path", "value", "line"), BAD, ids=[line[:50] for _, _, line in BAD])
def test_a_bad_file_gets_one_clear_line(path, value, line, tmp_path):
    file = tmp_path / "bad.json"
    file.write_text(changed(path, value) if path else value)
    with pytest.raises(UserError) as refused:
        read_tree(str(file))
    message = str(refused.value)
    assert message.startswith(f"the tree '{file}' is not ")
    assert line in message
    assert "\n" not in message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PATHS = st.sampled_from(
    [(name,) for name in json.loads(written())]
    + [("nodes", index, name) for index, node in enumerate(json.loads(written())["nodes"]) for name in node]
)


@given(PATHS, JSON)
def test_any_other_value_is_read_or_refused_in_one_line(path, value):
    try:
        read = parse_tree(changed(path, value))
    except UserError as error:
        message = str(error)
    else:
        message = ""
        assert [read.tree.text(node.id) for node in read.tree]
        assert tree_text(parse_tree(tree_text(read))) == tree_text(read)
    assert "\n" not in message
