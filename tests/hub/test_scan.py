"""Files that may be sent to the Hub and loaded from it: lists of refused and of accepted ones."""

import json
import os
import pickle
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fundamentallm_hf.hub.error_messages import redact
from fundamentallm_hf.hub.scan import check_names, check_outgoing, check_weights
from fundamentallm_hf.portable.errors import UserError

SAFE = ["config.json", "attributes/formal/words.tsv", "a b.txt", "é.txt", "model-00001-of-00002.safetensors", "LICENSE"]
UNSAFE = [
    ("../x", "leads out of its folder"),
    ("a/../x", "leads out of its folder"),
    ("a/..", "leads out of its folder"),
    ("/etc/passwd", "leads out of its folder"),
    ("//server/x", "leads out of its folder"),
    ("a//b", "leads out of its folder"),
    ("./x", "leads out of its folder"),
    ("", "leads out of its folder"),
    ("~/x", "leads out of its folder"),
    ("..\\x", "mean something else"),
    ("C:\\x", "mean something else"),
    ("C:x", "mean something else"),
    ("x:stream", "mean something else"),
    ("a\nb", "mean something else"),
    ("a\x00b", "mean something else"),
    ("what?.txt", "mean something else"),
    ("con", "another file or a device"),
    ("a/NUL.json", "another file or a device"),
    ("com1.txt", "another file or a device"),
    ("x.", "another file or a device"),
    (" x", "another file or a device"),
    (".git/hooks/post-checkout", "belongs to git"),
    (".GIT/config", "belongs to git"),
    ("a" * 201, "is too long"),
]


def test_safe_names_pass():
    check_names([*SAFE, ".gitattributes", ".gitignore", "a...b"], "user/name")


@pytest.mark.parametrize(("name", "why"), UNSAFE)
def test_names_that_mean_something_else_somewhere_are_refused(name, why):
    with pytest.raises(
        UserError, match=f"user/name has a file called .*{why}.*: nothing was read or written"
    ) as caught:
        check_names(["config.json", name], "user/name")
    assert "\n" not in str(caught.value)


def test_two_names_that_are_one_on_some_systems_are_refused():
    with pytest.raises(UserError, match=r"is the same as 'config.json' on systems without upper and lower case"):
        check_names(["config.json", "Config.json"], "user/name")


@given(st.lists(st.sampled_from(["..", ".", "a", "b.txt", "", "~"]), min_size=1).map("/".join))
def test_a_name_that_passes_stays_inside(name):
    try:
        check_names([name], "user/name")
    except UserError:
        return
    assert os.path.normpath(f"/folder/{name}").startswith("/folder/")
    assert os.path.normpath(name) == name


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model" / "attributes").mkdir(parents=True)
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path / "model"


def test_hidden_files_and_what_python_leaves_do_not_go(folder):
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("token")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_bytes(b"x")
    (folder / ".env").write_text("SECRET=1")
    (folder / "attributes" / "words.tsv").write_text("love\t1\n")
    assert check_outgoing(folder) == ["attributes/words.tsv", "config.json"]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is nothing to send"):
        check_outgoing(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "model.pt", "x.pth", "x.ckpt", "x.pkl", "x.PICKLE", "x.joblib", "x.npy", "tf_model.h5"],
)
def test_pickles_are_refused_by_name(folder, name):
    (folder / name).write_text("innocent")
    with pytest.raises(UserError, match=f"{name} is a pickle or may hold one, .*: save weights as safetensors"):
        check_outgoing(folder)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_are_refused_by_content(folder, protocol):
    (folder / "model.safetensors").write_bytes(pickle.dumps({"a": 1}, protocol))
    with pytest.raises(UserError, match=r"model.safetensors is a pickle or may hold one"):
        check_outgoing(folder)


def test_torch_archives_are_refused_by_content(folder):
    torch.save({"a": torch.ones(1)}, folder / "notes.md")
    with pytest.raises(UserError, match=r"notes.md is a pickle or may hold one"):
        check_outgoing(folder)


@pytest.mark.parametrize("name", ["optimizer.safetensors", "scheduler.json", "trainer_state.json", "rng_state.json"])
def test_what_training_leaves_is_refused(folder, name):
    (folder / name).write_text("{}")
    with pytest.raises(UserError, match=f"{name} belongs to a training run and not to its model"):
        check_outgoing(folder)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("config.json", {"_name_or_path": "/home/me/runs/model"}, "/home/me/runs/model, in _name_or_path"),
        ("config.json", {"a": {"b": ["x", "/Users/me/m"]}}, "/Users/me/m, in a.b"),
        ("generation_config.json", {"path": "/tmp/x/y"}, "/tmp/x/y, in path"),
        ("tokenizer_config.json", {"name_or_path": "C:\\Users\\me\\model"}, r"C:\\Users\\me\\model, in name_or_path"),
    ],
)
def test_paths_of_this_machine_are_refused_and_found_for_you(folder, name, content, told):
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        check_outgoing(folder)
    assert str(caught.value) == f"{name} names a place on this machine ({told}): take it out"


@pytest.mark.parametrize(
    "text", ["trained in /root/runs/1", "see file:///home/me/a.txt", "(/mnt/data/texts)", "`/media/x/y`"]
)
def test_paths_in_cards_are_refused(folder, text):
    (folder / "README.md").write_text(text)
    with pytest.raises(UserError, match=r"README.md names a place on this machine"):
        check_outgoing(folder)


def test_where_the_user_works_is_refused_whatever_it_is_called(folder, monkeypatch):
    place = folder.parent / "secret project"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(folder.parent / "of somebody"))
    for named in (place, folder, folder.parent / "of somebody"):
        (folder / "tokenizer.json").write_text(json.dumps({"from": f"{named}/x"}))
        with pytest.raises(UserError, match=r"tokenizer.json names a place on this machine"):
            check_outgoing(folder)


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/home/me/x",
        "a/home/run",
        "/path/to/model",
        "~/.cache/huggingface",
        "either/or",
        "/home",
        "and/or /tmp or not",
    ],
)
def test_what_only_looks_like_a_path_passes(folder, text):
    (folder / "README.md").write_text(text)
    assert check_outgoing(folder) == ["README.md", "config.json"]


def test_words_that_a_tokenizer_learned_may_look_like_anything(folder):
    (folder / "tokenizer.json").write_text(json.dumps({"vocab": {"/home/user": 1}}))
    assert "tokenizer.json" in check_outgoing(folder)


@pytest.mark.parametrize("name", ["README.md", "config.json", "notes.py", "attributes/words.tsv", "tokenizer.json"])
def test_tokens_are_refused_and_not_told(folder, monkeypatch, name):
    for token, set_it in (("hf_" + "aB3" * 12, False), ("api_org-secret-of-mine", True)):
        if set_it:
            monkeypatch.setenv("HF_TOKEN", token)
        (folder / name).write_text(f'{{"key": "{token}"}}')
        with pytest.raises(UserError, match=f"{name} holds an access token: take it out, and make a new one") as caught:
            check_outgoing(folder)
        assert token not in str(caught.value)


def test_links_that_lead_out_are_refused_and_others_not(folder, tmp_path):
    (tmp_path / "outside.txt").write_text("outside")
    (folder / "inside.txt").symlink_to(folder / "config.json")
    assert check_outgoing(folder) == ["config.json", "inside.txt"]
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    with pytest.raises(UserError, match=r"link.txt is a link that leads out of its folder"):
        check_outgoing(folder)
    (folder / "link.txt").unlink()
    (folder / "all").symlink_to(tmp_path)
    with pytest.raises(UserError, match="all is a link to a folder"):
        check_outgoing(folder)


def test_text_that_is_no_utf_8_is_refused(folder):
    (folder / "notes.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(UserError, match=r"notes.txt has to be UTF-8 text"):
        check_outgoing(folder)


@pytest.mark.parametrize(
    ("names", "how"),
    [
        (["pytorch_model.bin", "config.json"], "safetensors/convert, then name the revision that it makes"),
        (
            ["pytorch_model-1-of-2.bin", "pytorch_model-2-of-2.bin", "x.bin"],
            r"-1-of-2.bin, pytorch_model-2-of-2.bin, \.\.\.",
        ),
        (["pytorch_model.bin", "draft.safetensors"], "safetensors/convert, then name the revision that it makes"),
        (["final_model.pt", "tokenizer.json"], "with `fundamentallm convert user/name@v1 FOLDER`, which runs nothing"),
    ],
)
def test_weights_that_are_pickles_are_refused_with_the_way_to_convert_them(names, how):
    with pytest.raises(UserError, match="user/name@v1 has its weights only as pickles") as caught:
        check_weights(names, "user/name@v1")
    assert re.search(how, str(caught.value))


@pytest.mark.parametrize(
    "names", [["model.safetensors", "pytorch_model.bin"], ["config.json"], ["training_args.bin"], []]
)
def test_other_weights_pass(names):
    check_weights(names, "user/name")


def test_messages_hold_no_tokens(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "a-strange-token")
    monkeypatch.setattr("huggingface_hub.constants.HF_STORED_TOKENS_PATH", str(tmp_path / "stored"))
    (tmp_path / "stored").write_text("[work]\nhf_token = another-strange-token\n")
    text = (
        "a-strange-token, another-strange-token, hf_abcdefghijklmnop, bearer x.y, https://u:p@host/a?sig=1 and HF_TOKEN"
    )
    assert redact(text) == "..., ..., hf_..., bearer ..., https://host/a and HF_TOKEN"


@given(st.text(alphabet="abcHF_:/?@ .", max_size=60))
def test_redacting_twice_is_redacting_once(text):
    assert redact(redact(text)) == redact(text)
