"""The commands of the prompt loop that move through the texts of a session, without a terminal."""

import json
import re
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_session import Recorder, told

from fundamentallm_hf import GenerationSettings, Generator
from fundamentallm_hf.cli.interactive.session import Session
from fundamentallm_hf.cli.interactive.session_files import SessionFile, last_session, sessions
from fundamentallm_hf.generation.tree_file import read_tree
from fundamentallm_hf.portable.errors import UserError

START = GenerationSettings(max_tokens=12, seed=42)


@pytest.fixture
def session(shakespeare, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Session(lambda name: shakespeare, None, START, Recorder(), file=SessionFile())


def resume(session):
    """Another session that goes on with the texts that the first one saved."""
    saved = read_tree(str(last_session()))
    return Session(session.load_model, saved.model, GenerationSettings(**saved.settings), Recorder(), resumed=saved)


def text(session):
    node = session.tree.current
    return None if node is None else session.tree.text(node.id)


def test_undo_and_redo_go_back_and_forth(session):
    assert told(session, "/undo", "/redo") == ["Error: there is nothing to undo", "Error: there is nothing to redo"]
    told(session, "To be")
    first = text(session)
    told(session, "/more")
    second = text(session)
    assert second.startswith(first)
    told(session, "/retry")
    third = text(session)
    assert (third != second, third.startswith(first)) == (True, True)
    assert told(session, "/undo")[-2:] == [f"text: {second}", _line(session)]
    assert text(session) == second
    told(session, "/undo")
    assert text(session) == first
    assert told(session, "/undo")[-1] == "(no text: type a prompt)"
    assert text(session) is None
    assert told(session, "/more")[-1] == "Error: there is no text yet: type a prompt"
    told(session, "/redo", "/redo", "/redo")
    assert text(session) == third
    told(session, "/undo", "My")
    assert told(session, "/redo")[-1] == "Error: there is nothing to redo"
    assert len(session.tree) == 6  # two prompts, and four texts: none was lost


def _line(session):
    node = session.tree.current
    return (
        f"(text {node.id}, 12 tokens, seed {node.seed}, perplexity {node.perplexity:.2f}, max-tokens=12, /more goes on)"
    )


def test_more_goes_on_from_where_one_is(session, shakespeare):
    told(session, "To be", "/retry", "/go 2", "/more")
    first, second, longer = (session.tree.text(number) for number in (2, 3, 4))
    assert session.tree[4].parent == 2
    assert longer.startswith(first)
    assert longer == Generator(shakespeare, max_tokens=12, seed=42, notice=str).generate(first)
    told(session, "/go 3", "/more 1")
    assert session.tree.text(5).startswith(second)
    assert told(session, "/more 2")[-1] == "Error: N has to be a whole number from 1 to 1 but is '2'"


def test_retry_generates_the_text_again_that_one_went_to(session):
    told(session, "To be", "/retry", "/more", "/go 2", "/retry")
    assert [node.seed for node in session.tree] == [None, 42, 43, 42, 44]  # a seed that no sibling has
    assert session.tree[5].parent == 1
    told(session, "/go 4", "/retry")
    assert (session.tree[6].parent, session.tree[6].seed) == (3, 43)
    # A prompt alone is generated from.
    told(session, "/go 1", "/retry")
    assert (session.tree[7].parent, session.tree[7].seed) == (1, 42)
    assert session.tree.text(7) == session.tree.text(2)


def test_samples_become_branches(session):
    told(session, "/set num-samples=3", "To be", "/more 2")
    assert [node.parent for node in session.tree] == [None, 1, 1, 1, 3, 3, 3]
    assert told(session, "/more")[-1] == "Error: there are 3 texts: choose one, /more 1 to /more 3"
    told(session, "/set num-samples=1", "/go 6", "/more")
    assert session.tree[8].parent == 6


@pytest.mark.parametrize(
    "chosen", [{}, {"num_samples": 3}, {"beam_size": 2, "num_samples": 2}, {"best": 1, "num_samples": 3}]
)
def test_a_text_is_reproduced_from_what_the_tree_says(session, shakespeare, chosen):
    told(session, *(f"/set {name.replace('_', '-')}={value}" for name, value in chosen.items()))
    told(session, "/set bad-words=the", "To be", "/more 1", "/retry")
    for node in (node for node in session.tree if node.completion):
        generator = Generator(shakespeare, notice=str, **node.settings)
        again = generator.complete(session.tree.prompt(node.id), seed=node.seed, scored=True)[-1]
        assert (again.completion, again.tokens) == (node.completion, node.tokens)
        assert 2.718281828**-again.mean_log_probability == pytest.approx(node.perplexity, rel=1e-3)


def test_branches_are_listed_as_a_tree(session):
    told(session, "To be", "/retry", "/more", "/set top-k=5", "/more", "/go 2")
    (listed,) = told(session, "/branches")
    named = [f"{re.escape(node.name)}" for node in session.tree]
    facts = r"12 tokens, seed \d+, perplexity \d+\.\d\d"
    expected = [
        f"  1  {named[0]}",
        rf"\* 2    {named[1]}  \({facts}\)",
        rf"  3    {named[2]}  \({facts}\)",
        rf"  4    {named[3]}  \({facts}\)",
        rf"  5    {named[4]}  \({facts}, top-k=5\)",
    ]
    assert len(listed.split("\n")) == len(expected)
    for line, pattern in zip(listed.split("\n"), expected, strict=True):
        assert re.fullmatch(pattern, line), line


def test_a_branch_is_named_and_deleted(session):
    told(session, "To be", "/more", "/retry", "/rename 3 the good one")
    (named,) = (line for line in told(session, "/branches")[0].split("\n") if "the good one" in line)
    assert named.split()[0] == "3"
    assert told(session, "/rename 3", "/rename 9 x", "/delete x", "/go 9") == [
        "Error: /rename N NAME needs NAME",
        "Error: there is no text 9: the numbers go up to 4",
        "Error: N has to be the number of a text, as in /branches, but is 'x'",
        "Error: there is no text 9: the numbers go up to 4",
    ]
    assert told(session, "/delete 2") == ["Deleted: 3 texts", "text: To be", "(text 1, /more goes on)"]
    assert text(session) == "To be"
    assert [node.id for node in session.tree] == [1]


def test_an_edited_text_goes_on(session, shakespeare):
    told(session, "To be")
    before = text(session)
    session.output.editor = lambda shown: shown.replace("To", "Not to")
    told(session, "/edit")
    assert text(session) == before.replace("To", "Not to")
    assert session.tree.current.name.startswith("Not")
    told(session, "/more")
    assert text(session) == Generator(shakespeare, max_tokens=12, seed=42, notice=str).generate(
        before.replace("To", "Not to")
    )
    told(session, "/undo", "/undo")
    assert text(session) == before
    session.output.editor = lambda shown: None
    assert told(session, "/edit") == ["(nothing was changed)"]


def test_a_text_is_begun_in_the_editor(session):
    session.output.editor = lambda shown: shown + "My lord"
    told(session, "/edit", "/more")
    assert text(session).startswith("My lord")
    assert len(text(session)) == 19


def test_differences_are_shown(session):
    told(session, "To be", "/retry")
    (parts,) = told(session, "/diff 2")
    assert "".join(part for sign, part in parts if sign in "=-") == session.tree.text(3)
    assert "".join(part for sign, part in parts if sign in "=+") == session.tree.text(2)
    (other,) = told(session, "/diff 2 3")
    assert [sign for sign, _ in other if sign == "+"]
    assert told(session, "/diff 3", "/diff 1 2 3", "/diff", "/diff 9 1") == [
        "the texts are the same",
        "Error: /diff takes the numbers of one or two texts but got '1 2 3'",
        "Error: /diff N [M] needs N [M]",
        "Error: there is no text 9: the numbers go up to 3",
    ]


def test_texts_are_saved_and_loaded(session, tmp_path):
    assert told(session, f"/save --tree {tmp_path / 'x'}") == ["Error: there is no text yet: type a prompt"]
    told(session, "/set top-k=5", "To be", "/retry", "/go 2")
    file = tmp_path / "my texts.json"
    assert told(session, f"/save --tree {file}", f"/save --tree {file}", f"/save --force --tree {file}") == [
        f"Saved: {file}",
        f"Error: the file {file} exists: choose another name, or replace it with /save --tree --force {file}",
        f"Saved: {file}",
    ]
    assert told(session, "/save --tree") == ["Error: /save --tree needs FILE"]
    texts = {node.id: session.tree.text(node.id) for node in session.tree}
    told(session, "/unset top-k", "Something else")
    before = last_session()
    assert told(session, f"/load {file}") == [
        "Loaded: 3 texts, and their settings",
        f"text: {texts[2]}",
        _line(session).replace(", /more", ", top-k=5, /more"),
    ]
    assert session.settings.top_k == 5
    assert {node.id: session.tree.text(node.id) for node in session.tree} == texts
    # What was there is in the file of the session still, and the loaded texts are in another one.
    assert len(read_tree(str(before)).tree) == 5
    assert len(sessions()) == 2
    file.write_text(file.read_text()[:-20])
    assert told(session, f"/load {file}")[0].startswith(f"Error: the tree '{file}' is not JSON: ")
    assert {node.id: session.tree.text(node.id) for node in session.tree} == texts


def test_deleted_texts_are_gone_from_the_saved_session(session):
    told(session, "To be", "/delete 1")
    assert len(resume(session).tree) == 0


def test_a_file_of_another_model_says_so(session, tmp_path):
    told(session, "To be", f"/save --tree {tmp_path / 'a.json'}")
    (tmp_path / "a.json").write_text((tmp_path / "a.json").read_text().replace('"model": null', '"model": "a/b"'))
    assert "note: the model of these texts is a/b: /model a/b switches to it" in told(
        session, f"/load {tmp_path / 'a.json'}"
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(["To be", "My", "/more", "/retry", "/undo", "/redo", "/go 1", "/go 2", "/go 3"])
        | st.sampled_from(["/delete 1", "/delete 2", "/delete 3"])
        | st.sampled_from(["/set top-k=3", "/rename 2 x", "/set num-samples=2", "/set num-samples=1", "/set seed=3"]),
        max_size=10,
    )
)
def test_after_any_session_another_one_goes_on_where_it_was(shakespeare, monkeypatch, tmp_path_factory, entries):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    session = Session(lambda name: shakespeare, None, START.replace(max_tokens=3), Recorder(), file=SessionFile())
    told(session, *entries)
    if not sessions():
        assert not len(session.tree)
        return
    resumed = resume(session)
    assert [(node, session.tree.text(node.id)) for node in session.tree] == [
        (node, resumed.tree.text(node.id)) for node in resumed.tree
    ]
    assert (resumed.tree.history, resumed.tree.position) == (session.tree.history, session.tree.position)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(["To be", "My", "/more", "/more 2", "/retry", "/undo", "/go 2", "/go 3"])
        | st.sampled_from(["/delete 1", "/delete 2", "/delete 3", "/delete 4", "/delete 5"])
        | st.sampled_from(
            ["/set num-samples=2", "/set num-samples=1", "/set must-include=impossible", "/unset must-include"]
        ),
        max_size=12,
    )
)
def test_whatever_was_deleted_the_text_in_view_is_generated_again(shakespeare, entries):
    """A text that cannot have a required word is not completed; deletions never leave its request behind."""
    session = Session(lambda name: shakespeare, None, START.replace(max_tokens=3), Recorder())
    told(session, "To be", *entries, "/unset must-include", "/set num-samples=1")
    shown = session.tree.current
    said = told(session, "/retry")
    if shown is not None or session.request is not None:
        assert not [line for line in said if line.startswith("Error")], said
        node = session.tree.current
        assert node.parent is None or session.tree[node.parent]


def test_a_text_is_saved_while_it_is_generated(session, monkeypatch):
    for name in ("PACE", "SHARE"):
        monkeypatch.setattr(f"fundamentallm_hf.cli.interactive.tree_commands.{name}", 0)
    kept = []

    class Watching(Recorder):
        def written(self, text):
            super().written(text)
            if sessions():
                tree = read_tree(str(last_session())).tree
                kept.append((tree.text(tree.current.id), tree.current.finish_reason, self.texts[-1]))

    session.output = Watching()
    told(session, "To be")
    assert len(kept) > 3
    for saved, reason, shown in kept:
        assert reason == "interrupted"
        assert shown.startswith(saved)
        assert len(shown) - len(saved) <= 1


def test_a_session_that_cannot_be_saved_says_so_once(session, tmp_path):
    (tmp_path / "state").write_text("a file where the folder would be")
    notes = [line for line in told(session, "To be", "/more") if "note" in line]
    assert len(notes) == 1
    assert notes[0].startswith("note: the session cannot be saved in ")
    assert notes[0].endswith("; /save --tree FILE saves its texts")


def test_there_is_no_session_to_resume(session):
    with pytest.raises(UserError, match="there is no session to resume in "):
        last_session()


def test_sessions_are_private_and_those_that_are_old_go(session, monkeypatch):
    told(session, "To be")
    file = last_session()
    assert file.stat().st_mode & 0o077 == 0
    assert file.parent.stat().st_mode & 0o077 == 0
    monkeypatch.setattr("fundamentallm_hf.cli.interactive.session_files.KEPT", 2)
    for _ in range(3):
        SessionFile().save("{}")
    assert len(sessions()) == 4
    monkeypatch.setattr("fundamentallm_hf.cli.interactive.session_files.DAYS", 0)
    SessionFile().save("{}")
    assert len(sessions()) == 2


def calls_of(function, *arguments):
    """The number of Python functions that a call runs, which no other work on the machine changes."""
    count = 0

    def watch(frame, event, argument):
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        function(*arguments)
    finally:
        sys.setprofile(before)
    return count


def test_a_session_is_quick_with_many_branches(session):
    """What the texts cost besides the model: saved, listed, compared and moved through."""
    words = "and the king said to the queen that he would go " * 20
    for index in range(200):
        parent = None if index % 3 == 0 else index
        session.tree.add(parent, f"{index} {words}", f" {words}", seed=index, tokens=900, finish_reason="length")
    session.tree.go(150)
    for command in ("/go 199", "/branches", "/diff 12", "/undo", "/rename 3 x"):
        assert calls_of(told, session, command) < 20_000, command


def test_probabilities_are_shown_inline_on_request(session, shakespeare):
    class Coloured(Recorder):
        def written(self, text):
            super().written(text)
            self.talk.append(("piece", str(text), getattr(text, "probability", None)))

        def scale(self):
            self.talk.append("scale")

    session.output = Coloured()
    assert told(session, "/set show-probs=inline") == ["Updated: show-probs=inline", "scale"]
    pieces = [each for each in told(session, "To be") if each[0] == "piece"]
    expected = Generator(shakespeare, max_tokens=12, seed=42).complete("To be", probabilities=1)[0].probabilities
    assert [each[1:] for each in pieces] == [(each.text, pytest.approx(each.probability)) for each in expected]
    assert told(session, "/status")[0].endswith("* show-probs=inline")
    pieces = [each for each in told(session, "/set num-samples=2", "My") if each[0] == "piece"]
    assert len(pieces) == 24
    assert told(session, "/set show-probs=loud") == [
        "Error: show-probs has to be one of off, inline but is 'loud'",
    ]
    assert told(session, "/set show-probs")[0].startswith("show-probs=inline\n")
    described = told(session, "/help show-probs")[0].replace("=inline", "=off")
    assert told(session, "/unset show-probs", "/set show-probs") == [
        "Updated: show-probs=off",
        described,
    ]
    assert {each[2] for each in told(session, "/set num-samples=1", "To be") if each[0] == "piece"} == {None}


def test_a_saved_tree_is_no_config(session, tmp_path):
    told(session, "To be", f"/save --tree {tmp_path / 'a.json'}")
    from fundamentallm_hf.cli.saved_settings import read_settings

    with pytest.raises(UserError, match="holds texts, not settings alone: /load in the prompt loop reads it"):
        read_settings(str(tmp_path / "a.json"))
    (tmp_path / "b.json").write_text(json.dumps({"stop": ['"format": "fundamentallm-tree"']}))
    assert told(session, f"/load {tmp_path / 'b.json'}")[0].startswith("Updated: stop=")
