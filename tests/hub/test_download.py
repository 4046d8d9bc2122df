"""Downloads are of one commit, complete, undamaged and safely named, and can be used offline afterwards."""

import errno
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import huggingface_hub.constants
import pytest
from command import heed_interrupts
from conftest import offline
from hub_server import OTHER_TOKEN, TOKEN
from pseudo_terminal import Terminal

from fundamentallm_hf.hub.download import everything, fetch, for_loading, pull
from fundamentallm_hf.portable.errors import UserError

FILES = {
    "config.json": '{"model_type": "fundamentallm"}',
    "model.safetensors": b"weights " * 5000,
    "README.md": "# Stories\n",
    "attributes/formal/attribute.json": "{}",
    "pytorch_model.bin": b"\x80\x04 pickled",
}
KEPT = sorted(name for name in FILES if not name.endswith(".bin"))


@pytest.fixture
def stories(hub):
    return hub.make("user/stories", FILES)


def read(snapshot):
    return {name: (snapshot.folder / name).read_bytes() for name in snapshot.files}


def leftovers(*folders):
    """Files that are no one's: half written ones, and ones under hidden names."""
    found = [path for folder in folders if Path(folder).exists() for path in Path(folder).rglob("*")]
    return [path.name for path in found if re.search(r"incomplete|\.partial|\.replaced", path.name)]


def test_all_files_of_one_commit_come_but_pickles(hub, stories):
    snapshot = fetch("user/stories")
    assert sorted(snapshot.files) == KEPT
    assert read(snapshot)["model.safetensors"] == FILES["model.safetensors"]
    assert (snapshot.repo_id, snapshot.commit) == ("user/stories", stories.branches["main"])
    assert snapshot.left_out == ("pytorch_model.bin",)
    assert not hub.asked("GET .*bin$")


def test_a_revision_is_a_branch_a_tag_a_commit_or_a_pull_request(hub, stories):
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
def test_what_was_got_once_serves_without_a_network(hub, stories, monkeypatch, revision):
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


@pytest.mark.parametrize("failure", [503, "cut"])
def test_when_the_hub_is_away_what_is_here_is_used_and_that_is_said(hub, stories, waits, failure):
    got = fetch("user/stories")
    hub.fail("", failure, times=99)
    said = []
    assert fetch("user/stories", notice=said.append) == got
    assert len(said) == 1
    assert said[0].endswith(f": taking the files of commit {got.commit[:12]} on this machine")
    assert not waits


def test_a_commit_that_is_here_is_not_asked_for(hub, stories):
    got = fetch("user/stories")
    before = len(hub.requests)
    assert fetch("user/stories", got.commit) == got
    assert len(hub.requests) == before


def test_a_newer_commit_is_got_and_only_what_changed_of_it(hub, stories):
    first = fetch("user/stories")
    hub.make("user/stories", {"config.json": '{"new": 1}'})
    second = fetch("user/stories")
    assert second.commit != first.commit
    assert read(second)["config.json"] == b'{"new": 1}'
    assert read(first)["config.json"] == FILES["config.json"].encode()
    assert len(hub.asked("GET /storage")) == 1


def test_an_update_that_fails_leaves_the_old_one_in_use(hub, stories, waits, monkeypatch):
    first = fetch("user/stories")
    hub.make("user/stories", {"model.safetensors": b"other weights"})
    hub.fail("GET /storage", 503, times=99)
    with pytest.raises(UserError, match=r"fails at the moment \(503\)"):
        fetch("user/stories")
    offline(monkeypatch)
    assert fetch("user/stories") == first


@pytest.mark.parametrize("status", [408, 429, 503])
@pytest.mark.parametrize(
    "where", ["GET /api/models/user/stories$", "tree", "HEAD .*safetensors", "GET /storage", "GET .*/config.json"]
)
def test_a_busy_hub_is_asked_again(hub, stories, waits, where, status):
    hub.fail(where, status, times=2 if "HEAD" in where else 1)  # the first HEAD is asked again at once
    assert read(fetch("user/stories"))["model.safetensors"] == FILES["model.safetensors"]
    assert waits


@pytest.mark.parametrize("action", ["cut", "half", ("stall", 1.5)])
@pytest.mark.parametrize(
    "where", ["GET /api/models/user/stories$", "tree", "HEAD .*safetensors", "GET /storage", "GET .*/config.json"]
)
def test_a_connection_that_breaks_or_says_nothing_is_made_again(hub, stories, waits, monkeypatch, where, action):
    monkeypatch.setattr("fundamentallm_hf.hub.download.QUICK", 0.3)
    monkeypatch.setattr("fundamentallm_hf.hub.connection.SILENCE", 0.3)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    hub.fail(where, action, times=1 if isinstance(action, tuple) else 2)
    assert read(fetch("user/stories"))["model.safetensors"] == FILES["model.safetensors"]
    assert not leftovers(huggingface_hub.constants.HF_HUB_CACHE)


def test_a_download_goes_on_where_it_stopped(hub, stories, waits):
    hub.fail("GET /storage", "half")
    sent = []
    original = hub.next_failure
    hub.next_failure = lambda request: (sent.append(request) if "storage" in request else None) or original(request)
    said = []
    fetch("user/stories", notice=said.append)
    assert len(sent) == 2
    assert said == ["the connection broke: going on from where it stopped"]


@pytest.mark.parametrize("where", ["GET /storage", "GET .*/config.json"])
def test_a_damaged_file_is_got_once_more(hub, stories, where):
    hub.fail(where, "corrupt")
    said = []
    assert read(fetch("user/stories", notice=said.append))["config.json"] == FILES["config.json"].encode()
    assert len(said) == 1
    assert said[0].endswith("came damaged: getting it once more")


def test_a_file_that_stays_damaged_is_not_kept(hub, stories, monkeypatch):
    hub.fail("GET /storage", "corrupt", times=2)
    with pytest.raises(UserError) as caught:
        fetch("user/stories")
    assert str(caught.value).startswith("user/stories came damaged (model.safetensors: the checksum is not the Hub's)")
    kept = [path for path in Path(huggingface_hub.constants.HF_HUB_CACHE).rglob("*") if path.is_file()]
    assert not any(path.stat().st_size == len(FILES["model.safetensors"]) for path in kept)
    assert read(fetch("user/stories"))["model.safetensors"] == FILES["model.safetensors"]
    hub.make("user/stories", {"model.safetensors": b"w" * 999})
    hub.fail("GET /storage", "corrupt", times=2)
    with pytest.raises(UserError, match="came damaged"):
        fetch("user/stories")
    offline(monkeypatch)
    assert read(fetch("user/stories"))["model.safetensors"] == FILES["model.safetensors"]


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
def test_what_is_closed_or_not_there_is_one_line(hub, stories, monkeypatch, repo, revision, token, message):
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


def test_no_network_is_one_line(hub, waits, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        UserError, match=r"user/stories is out of reach: the connection to 127.0.0.1:9 failed .* try again"
    ):
        fetch("user/stories")


def test_a_full_disk_is_seen_before_anything_is_got(hub, stories, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10, 10, 1000))
    with pytest.raises(UserError, match=r"does not fit on the disk: 0.0 MB are needed in .* free some space"):
        fetch("user/stories")
    assert not hub.asked("resolve")


def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing_half_written(hub, stories, tmp_path, monkeypatch):
    import huggingface_hub.file_download

    def fill(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(huggingface_hub.file_download, "http_get", fill)
        with pytest.raises(UserError, match="user/stories does not fit on the disk: free some space, or set HF_HOME"):
            fetch("user/stories")
    assert not leftovers(huggingface_hub.constants.HF_HUB_CACHE)
    monkeypatch.setattr(shutil, "copyfile", fill)
    with pytest.raises(UserError, match=r"cannot write .*/there': No space left on device"):
        pull("user/stories", tmp_path / "there")
    assert not (tmp_path / "there").exists()
    assert not leftovers(tmp_path)


def test_a_cache_that_cannot_be_written_is_one_line(hub, stories, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", "/closed/hub")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", refuse)
    with pytest.raises(UserError) as caught:
        fetch("user/stories")
    assert str(caught.value) == (
        "user/stories cannot be stored (/closed/hub): Permission denied; set HF_HOME to a folder that you may write"
    )


@pytest.mark.parametrize(
    "name", ["../escaped.txt", "/etc/passwd", "a/../../b", "C:\\x.txt", "a\\b", "nul.json", ".git/config"]
)
def test_a_name_that_leads_elsewhere_is_refused_before_anything_is_got(hub, stories, name):
    hub.make("user/stories", {name: "bad"})
    with pytest.raises(UserError, match=r"user/stories has a file called .*: nothing was read or written"):
        fetch("user/stories")
    assert not hub.asked("resolve")


def test_a_folder_is_pulled_whole(hub, stories, tmp_path):
    snapshot, place = pull("user/stories", tmp_path / "new" / "stories")
    assert place == tmp_path / "new" / "stories"
    found = sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())
    assert found == sorted([".gitattributes", *KEPT])
    assert not any(path.is_symlink() for path in place.rglob("*"))
    assert (place / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert snapshot.commit == stories.branches["main"]
    with pytest.raises(UserError, match="is not empty"):
        pull("user/stories", place)
    hub.make("user/stories", {"config.json": "new"})
    pull("user/stories", place, force=True)
    assert (place / "config.json").read_text() == "new"
    assert not leftovers(tmp_path / "new")


def test_a_pull_that_fails_leaves_the_folder_as_it_was(hub, stories, tmp_path, waits):
    place = tmp_path / "stories"
    place.mkdir()
    (place / "mine.txt").write_text("mine")
    hub.fail("GET /storage", 503, times=99)
    with pytest.raises(UserError):
        pull("user/stories", place, force=True)
    assert [path.name for path in place.iterdir()] == ["mine.txt"]
    assert not leftovers(tmp_path)


def test_what_huggingface_hub_got_by_itself_serves_too(hub, stories, monkeypatch):
    from huggingface_hub import hf_hub_download

    for name in KEPT:
        hf_hub_download("user/stories", name)
    offline(monkeypatch)
    assert sorted(fetch("user/stories").files) == KEPT


def test_a_single_file_that_was_got_by_itself_is_not_taken_for_all(hub, stories):
    from huggingface_hub import hf_hub_download

    commit = stories.branches["main"]
    hf_hub_download("user/stories", "README.md", revision=commit)
    assert sorted(fetch("user/stories", commit).files) == KEPT


def test_a_part_of_a_newer_commit_does_not_take_the_place_of_a_whole_one(hub, stories, monkeypatch):
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


WITHOUT_TORCH = """
import sys
sys.argv = ["fundamentallm", "pull", *sys.argv[1:]]
from fundamentallm_hf.cli.main import main
try:
    main()
finally:
    assert not {"torch", "transformers"} & sys.modules.keys()
"""


def test_pull_is_a_program_that_needs_neither_torch_nor_a_second_try(hub, stories, tmp_path):
    def pulled(*arguments, **environment):
        told = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
        return subprocess.run(told, capture_output=True, text=True, env=os.environ | environment, check=False)

    done = pulled("user/stories", tmp_path / "there")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'there'}\n"), done.stderr
    assert done.stderr.splitlines() == [
        "note: left out, since pickles can run code when they are read: pytorch_model.bin",
        f"note: user/stories at commit {stories.branches['main']}",
    ]
    again = pulled("user/stories", "--quiet", HF_HUB_OFFLINE="1")
    assert (again.returncode, again.stderr) == (0, "")
    assert sorted(path.name for path in Path(again.stdout.strip()).rglob("*") if path.is_file()) == sorted(
        [".gitattributes", *(Path(name).name for name in KEPT)]
    )
    closed = pulled("user/none", HF_TOKEN="hf_" + "y" * 34)
    assert (closed.returncode, closed.stdout) == (1, "")
    assert re.fullmatch(r"Error: 127.0.0.1:\d+ does not accept your token: .*\n", closed.stderr)


def test_a_terminal_shows_progress_and_notes(hub, stories):
    hub.fail("GET /storage", "half")
    command = [sys.executable, "-c", WITHOUT_TORCH, "user/stories"]
    with Terminal(command) as terminal:
        assert terminal.end() == 0
        assert "Fetching 5 files: 100%" in terminal.text
        assert "note: the connection broke: going on from where it stopped" in terminal.text
    hub.make("user/stories", {"config.json": "new"})
    with Terminal([*command, "--quiet"]) as terminal:
        assert terminal.end() == 0
        assert "note" not in terminal.text
        assert "%" not in terminal.text


@pytest.mark.parametrize(("action", "number"), [(("stall", 20), signal.SIGTERM), ("drip", signal.SIGINT)])
def test_a_program_that_is_ended_in_the_middle_leaves_nothing_half_written(hub, stories, tmp_path, action, number):
    hub.make("user/stories", {"model.safetensors": b"x" * 60_000_000})
    hub.fail("GET /storage", action)
    told = [sys.executable, "-c", WITHOUT_TORCH, "user/stories", str(tmp_path / "there")]
    quick = os.environ | {"HF_HUB_DOWNLOAD_TIMEOUT": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = subprocess.Popen(told, env=quick, preexec_fn=heed_interrupts, **pipes)
    deadline = time.monotonic() + 60
    while not hub.asked("GET /storage") and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    running.send_signal(number)
    before = time.monotonic()
    running.communicate(timeout=30)
    assert time.monotonic() - before < 10
    assert running.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert not (tmp_path / "there").exists()
    assert not leftovers(tmp_path)
    hub.failures.clear()
    hub.make("user/stories", FILES)
    assert sorted(fetch("user/stories").files) == KEPT
