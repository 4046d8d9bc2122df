"""Downloads when the Hub, the connection or the disk fails: asked again, or one line and nothing half written."""

import errno
import shutil
from collections import namedtuple
from pathlib import Path

import huggingface_hub.constants
import pytest
from conftest import offline
from stories_on_hub import FILES, KEPT, leftovers, read, stories  # noqa: F401

from fundamentallm_hf.hub.download import fetch, pull
from fundamentallm_hf.portable.errors import UserError


@pytest.mark.parametrize("status", [408, 429, 503])
@pytest.mark.parametrize(
    "where", ["GET /api/models/user/stories$", "tree", "HEAD .*safetensors", "GET /storage", "GET .*/config.json"]
)
def test_a_busy_hub_is_asked_again(hub, stories, waits, where, status):  # noqa: F811
    hub.fail(where, status, times=2 if "HEAD" in where else 1)  # the first HEAD is asked again at once
    assert read(fetch("user/stories"))["model.safetensors"] == FILES["model.safetensors"]
    assert waits


@pytest.mark.parametrize("action", ["cut", "half", ("stall", 1.5)])
@pytest.mark.parametrize(
    "where", ["GET /api/models/user/stories$", "tree", "HEAD .*safetensors", "GET /storage", "GET .*/config.json"]
)
def test_a_connection_that_breaks_or_says_nothing_is_made_again(hub, stories, waits, monkeypatch, where, action):  # noqa: F811
    monkeypatch.setattr("fundamentallm_hf.hub.download.QUICK", 0.3)
    monkeypatch.setattr("fundamentallm_hf.hub.connection.SILENCE", 0.3)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    hub.fail(where, action, times=1 if isinstance(action, tuple) else 2)
    assert read(fetch("user/stories"))["model.safetensors"] == FILES["model.safetensors"]
    assert not leftovers(huggingface_hub.constants.HF_HUB_CACHE)


def test_a_download_goes_on_where_it_stopped(hub, stories, waits):  # noqa: F811
    hub.fail("GET /storage", "half")
    sent = []
    original = hub.next_failure
    hub.next_failure = lambda request: (sent.append(request) if "storage" in request else None) or original(request)
    said = []
    fetch("user/stories", notice=said.append)
    assert len(sent) == 2
    assert said == ["the connection broke: going on from where it stopped"]


@pytest.mark.parametrize("where", ["GET /storage", "GET .*/config.json"])
def test_a_damaged_file_is_got_once_more(hub, stories, where):  # noqa: F811
    hub.fail(where, "corrupt")
    said = []
    assert read(fetch("user/stories", notice=said.append))["config.json"] == FILES["config.json"].encode()
    assert len(said) == 1
    assert said[0].endswith("came damaged: getting it once more")


def test_a_file_that_stays_damaged_is_not_kept(hub, stories, monkeypatch):  # noqa: F811
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


def test_no_network_is_one_line(hub, waits, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        UserError, match=r"user/stories is out of reach: the connection to 127.0.0.1:9 failed .* try again"
    ):
        fetch("user/stories")


def test_a_full_disk_is_seen_before_anything_is_got(hub, stories, monkeypatch):  # noqa: F811
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10, 10, 1000))
    with pytest.raises(UserError, match=r"does not fit on the disk: 0.0 MB are needed in .* free some space"):
        fetch("user/stories")
    assert not hub.asked("resolve")


def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing_half_written(hub, stories, tmp_path, monkeypatch):  # noqa: F811
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


def test_a_cache_that_cannot_be_written_is_one_line(hub, stories, monkeypatch):  # noqa: F811
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", "/closed/hub")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", refuse)
    with pytest.raises(UserError) as caught:
        fetch("user/stories")
    assert str(caught.value) == (
        "user/stories cannot be stored (/closed/hub): Permission denied; set HF_HOME to a folder that you may write"
    )


def test_an_update_that_fails_leaves_the_old_one_in_use(hub, stories, waits, monkeypatch):  # noqa: F811
    first = fetch("user/stories")
    hub.make("user/stories", {"model.safetensors": b"other weights"})
    hub.fail("GET /storage", 503, times=99)
    with pytest.raises(UserError, match=r"fails at the moment \(503\)"):
        fetch("user/stories")
    offline(monkeypatch)
    assert fetch("user/stories") == first


@pytest.mark.parametrize("failure", [503, "cut"])
def test_when_the_hub_is_away_what_is_here_is_used_and_that_is_said(hub, stories, waits, failure):  # noqa: F811
    got = fetch("user/stories")
    hub.fail("", failure, times=99)
    said = []
    assert fetch("user/stories", notice=said.append) == got
    assert len(said) == 1
    assert said[0].endswith(f": taking the files of commit {got.commit[:12]} on this machine")
    assert not waits
