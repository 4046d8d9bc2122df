"""The Space's folder, the command that starts the same page, and the error without gradio."""

import os
import re
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command import heed_interrupts, run

SPACE = Path(__file__).parents[2] / "space"


def test_the_front_matter_is_complete():
    front = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---")[1])
    needed = {"title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "app_file", "license"}
    assert needed <= set(front)
    assert (SPACE / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60
    pinned = re.search(r"^gradio==(.*)$", (SPACE.parent / "constraints.txt").read_text(), re.MULTILINE)
    assert front["sdk_version"] == pinned[1]


def test_what_the_space_installs_holds_the_page():
    (needed,) = (SPACE / "requirements.txt").read_text().split()
    assert needed.startswith("fundamentallm-hf[space,structured]")


def test_the_space_builds_the_page():
    pytest.importorskip("gradio", reason="the web demo needs gradio")
    names = runpy.run_path(str(SPACE / "app.py"))
    names = {each.api_name for each in names["demo"].fns.values() if each.api_visibility == "public"}
    assert {"write", "see", "compare"} <= names


def test_a_missing_package_is_told_in_a_line(monkeypatch):
    monkeypatch.setattr("fundamentallm_hf.cli.space.NEEDED", ("no_such_package",))
    result = run("space")
    assert result.exit_code == 1
    assert "the web demo needs the package no_such_package: pip install 'fundamentallm-hf[space]'" in result.stderr


def test_a_model_that_is_not_there_is_told_in_a_line():
    pytest.importorskip("gradio", reason="the web demo needs gradio")
    result = run("space", "--model", "./nowhere")
    assert result.exit_code == 1
    assert "there is no ./nowhere" in result.stderr


def test_the_command_serves_until_it_is_interrupted():
    pytest.importorskip("gradio", reason="the web demo needs gradio")
    import httpx

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "fundamentallm_hf", "space", "--port", port, "--device", "cpu"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    heeding = {"preexec_fn": heed_interrupts}
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes, **heeding) as server:
        line = server.stdout.readline()
        assert f"The web demo is at http://127.0.0.1:{port}/ and its MCP server at" in line
        assert httpx.get(f"http://127.0.0.1:{port}/config").status_code == 200
        server.send_signal(signal.SIGINT)
        try:
            _, told = server.communicate(timeout=30)
        finally:
            server.kill()
    assert "Traceback" not in told
