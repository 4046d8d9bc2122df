"""`pull` puts all files of a repository into a folder, as a function and as a command."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import heed_interrupts
from pseudo_terminal import Terminal
from stories_on_hub import FILES, KEPT, leftovers, read, stories  # noqa: F401

from fundamentallm_hf.hub.download import fetch, pull
from fundamentallm_hf.portable.errors import UserError


def test_a_folder_is_pulled_whole(hub, stories, tmp_path):  # noqa: F811
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


def test_a_pull_that_fails_leaves_the_folder_as_it_was(hub, stories, tmp_path, waits):  # noqa: F811
    place = tmp_path / "stories"
    place.mkdir()
    (place / "mine.txt").write_text("mine")
    hub.fail("GET /storage", 503, times=99)
    with pytest.raises(UserError):
        pull("user/stories", place, force=True)
    assert [path.name for path in place.iterdir()] == ["mine.txt"]
    assert not leftovers(tmp_path)


WITHOUT_TORCH = """
import sys
sys.argv = ["fundamentallm", "pull", *sys.argv[1:]]
from fundamentallm_hf.cli.main import main
try:
    main()
finally:
    assert not {"torch", "transformers"} & sys.modules.keys()
"""


def test_pull_is_a_program_that_needs_neither_torch_nor_a_second_try(hub, stories, tmp_path):  # noqa: F811
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


def test_a_terminal_shows_progress_and_notes(hub, stories):  # noqa: F811
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
def test_a_program_that_is_ended_in_the_middle_leaves_nothing_half_written(hub, stories, tmp_path, action, number):  # noqa: F811
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
