"""Downloads are of one commit, complete, safely named, for whom they are meant, and can be used offline afterwards."""

import hashlib
import re

import pytest
from conftest import offline
from hub_store import OTHER_TOKEN, TOKEN
from stories_on_hub import FILES, KEPT, leftovers, read, stories  # noqa: F401

from fundamentallm_hf.hub.download import everything, fetch, for_loading
from fundamentallm_hf.portable.errors import UserError


def test_all_files_of_one_commit_come_but_pickles(hub, stories):  # noqa: F811
    snapshot = fetch("user/stories")
    assert sorted(snapshot.files) == KEPT
    assert read(snapshot)["model.safetensors"] == FILES["model.safetensors"]
    assert (snapshot.repo_id, snapshot.commit) == ("user/stories", stories.branches["main"])
    assert snapshot.left_out == ("pytorch_model.bin",)
    assert not hub.asked("GET .*bin$")


def test_a_revision_is_a_branch_a_tag_a_commit_or_a_pull_request(hub, stories):  # noqa: F811
    first = stories.branches["main"]
    hub.make("user/stories", {"config.json": "new"})
    stories.tags["v1"] = first
    stories.pull_requests["refs/pr/3"] = first
    for revision in ("v1", first, "refs/pr/3", first[:8]):
        if revision == first[:8]:
            stories.tags[revision] = first  # the server here knows no abbreviations of its own
        assert fetch(f"user/stories@{revision}").commit == first
        assert fetch("user/stories", revision).commit == first
    assert fetch("user/stories").commit != first


@pytest.mark.parametrize("revision", [None, "v1", "refs/pr/3"])
def test_what_was_got_once_serves_without_a_network(hub, stories, monkeypatch, revision):  # noqa: F811
    stories.tags["v1"] = stories.pull_requests["refs/pr/3"] = stories.branches["main"]
    got = fetch("user/stories", revision)
    offline(monkeypatch)
    before, said = len(hub.requests), []
    assert fetch("user/stories", revision, notice=said.append) == got
    assert fetch("user/stories", got.commit) == got
    assert (len(hub.requests), said) == (before, [])
    with pytest.raises(UserError, match="is not fully cached, and HF_HUB_OFFLINE is set"):
        fetch("user/stories@other")
    with pytest.raises(UserError, match="user/none is not fully cached, and HF_HUB_OFFLINE is set"):
        fetch("user/none")


def test_a_commit_that_is_here_is_not_asked_for(hub, stories):  # noqa: F811
    got = fetch("user/stories")
    before = len(hub.requests)
    assert fetch("user/stories", got.commit) == got
    assert len(hub.requests) == before


def test_a_newer_commit_is_got_and_only_what_changed_of_it(hub, stories):  # noqa: F811
    first = fetch("user/stories")
    hub.make("user/stories", {"config.json": '{"new": 1}'})
    second = fetch("user/stories")
    assert second.commit != first.commit
    assert read(second)["config.json"] == b'{"new": 1}'
    assert read(first)["config.json"] == FILES["config.json"].encode()
    assert len(hub.asked("GET /storage")) == 1


@pytest.mark.parametrize(
    ("repo", "revision", "token", "message"),
    [
        ("user/none", None, TOKEN, "user/none is not on 127.0.0.1:PORT, or is private and not open to your token"),
        ("user/none", None, None, "user/none is not on 127.0.0.1:PORT, or is private: check the name, or log in with"),
        ("user/secret", None, None, "user/secret is not on 127.0.0.1:PORT, or is private: check the name, or log in"),
        ("user/secret", None, OTHER_TOKEN, "or is private and not open to your token: check the name and the token"),
        (
            "user/gated",
            None,
            OTHER_TOKEN,
            "user/gated is gated: ask for access on its page at 127.0.0.1:PORT, then log",
        ),
        ("user/gated", None, None, "user/gated is gated: ask for access on its page at 127.0.0.1:PORT, then log"),
        ("user/stories", "v9", TOKEN, "user/stories@v9 has no such revision: check the branch, tag or commit"),
        ("user/stories", "0" * 40, TOKEN, "has no such revision: check the branch, tag or commit"),
        ("user/stories", None, "hf_" + "x" * 34, "127.0.0.1:PORT does not accept your token: log in with `hf auth"),
    ],
)
def test_what_is_closed_or_not_there_is_one_line(hub, stories, monkeypatch, repo, revision, token, message):  # noqa: F811
    hub.make("user/secret", FILES, private=True)
    hub.make("user/gated", FILES, gated=True)
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError) as caught:
        fetch(repo, revision)
    assert message in re.sub(r":\d{4,5}\b", ":PORT", str(caught.value))
    assert "\n" not in str(caught.value)
    assert "hf_" not in str(caught.value)


def test_who_has_access_gets_a_gated_or_private_repository(hub, monkeypatch):
    hub.make("user/gated", FILES, gated=True, private=True, readers={"other"})
    monkeypatch.setenv("HF_TOKEN", OTHER_TOKEN)
    assert sorted(fetch("user/gated").files) == KEPT


@pytest.mark.parametrize(
    "name", ["../escaped.txt", "/etc/passwd", "a/../../b", "C:\\x.txt", "a\\b", "nul.json", ".git/config"]
)
def test_a_name_that_leads_elsewhere_is_refused_before_anything_is_got(hub, stories, name):  # noqa: F811
    hub.make("user/stories", {name: "bad"})
    with pytest.raises(UserError, match=r"user/stories has a file called .*: nothing was read or written"):
        fetch("user/stories")
    assert not hub.asked("resolve")


def test_what_huggingface_hub_got_by_itself_serves_too(hub, stories, monkeypatch):  # noqa: F811
    from huggingface_hub import hf_hub_download

    for name in KEPT:
        hf_hub_download("user/stories", name)
    offline(monkeypatch)
    assert sorted(fetch("user/stories").files) == KEPT


def test_a_single_file_that_was_got_by_itself_is_not_taken_for_all(hub, stories):  # noqa: F811
    from huggingface_hub import hf_hub_download

    commit = stories.branches["main"]
    hf_hub_download("user/stories", "README.md", revision=commit)
    assert sorted(fetch("user/stories", commit).files) == KEPT


def test_a_part_of_a_newer_commit_does_not_take_the_place_of_a_whole_one(hub, stories, monkeypatch):  # noqa: F811
    first = fetch("user/stories")
    hub.make("user/stories", {"model.safetensors": b"newer"})
    part = fetch("user/stories", choose=lambda names: ["config.json"])
    assert (part.files, part.commit != first.commit) == (("config.json",), True)
    with monkeypatch.context() as patched:
        offline(patched)
        assert fetch("user/stories") == first
    second = fetch("user/stories")
    offline(monkeypatch)
    assert fetch("user/stories") == second


def test_one_set_of_weights_is_enough():
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = "model.safetensors.index.json"
    assert for_loading(["consolidated.safetensors", *shards, index]) == [*shards, index]
    assert for_loading(["model.safetensors", *shards, index]) == ["model.safetensors", index]
    assert for_loading(["draft.safetensors", "model.safetensors"]) == ["draft.safetensors", "model.safetensors"]
    assert for_loading(["draft.safetensors", *shards, index]) == ["draft.safetensors", *shards, index]
    assert for_loading(["adapter_model.safetensors"]) == ["adapter_model.safetensors"]
    assert for_loading(["a.png", "onnx/config.json", "model.gguf", "tokenizer.model", "LICENSE"]) == [
        "tokenizer.model",
        "LICENSE",
    ]
    assert everything(["a.png", "onnx/m.onnx", "x.pkl"]) == ["a.png", "onnx/m.onnx"]


def test_the_hashes_are_those_of_git(tmp_path):
    from fundamentallm_hf.hub.upload import file_hash

    (tmp_path / "a").write_bytes(b"hello\n")
    assert file_hash(tmp_path / "a", sha256=False) == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert file_hash(tmp_path / "a", sha256=True) == hashlib.sha256(b"hello\n").hexdigest()
