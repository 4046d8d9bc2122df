"""The examples of docs/serving.md run as they are shown."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from command import MODEL
from serving_process import Server

from fundamentallm_hf import convert_checkpoint

pytest.importorskip("openai", reason="serving needs fundamentallm-hf[serve]")
PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = convert_checkpoint(MODEL, tmp_path_factory.mktemp("served") / "my_model_hf")
    command, _ = [block for block in blocks("bash") if block.startswith("fundamentallm serve")]
    key = re.search(r"--api-key (\S+)", command)[1]
    running = Server("--api-key", key)
    yield running, str(folder)
    running.close()


def here(block, server):
    """A block with the address and the model of the test."""
    running, folder = server
    return block.replace("http://localhost:8000", running.url).replace("my_model_hf", folder)


def test_python_that_is_shown_runs(server, capsys):
    client, several, batched = blocks("python")
    names = {}
    exec(here(client, server), names)
    text = capsys.readouterr().out.lower()
    assert "dragon" in text
    exec(here(several, server), names)
    assert [line[0] for line in capsys.readouterr().out.splitlines() if line[:1].isdigit()] == ["0", "1", "2"]
    exec(batched, {})
    texts = capsys.readouterr().out.split("Once upon a time")[1:]
    assert len(texts) == 8
    assert all("dragon" in text.lower() for text in texts)


def test_curl_that_is_shown_runs(server):
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    own = re.search(r"^fundamentallm serve .*\n(curl .*?)^```", readme, re.MULTILINE | re.DOTALL)[1]
    (block,) = [block for block in blocks("bash") if block.startswith("curl")]
    for each in (block, own.replace("curl ", 'curl -H "authorization: Bearer secret" ', 1)):
        found = subprocess.run(here(each, server), shell=True, capture_output=True, text=True, check=True)
        assert json.loads(found.stdout)["choices"][0]["text"]


def test_options_that_are_shown_are_those_of_the_command():
    from fundamentallm_hf.cli.serve import serve

    shown = re.findall(r"^\| `(--[a-z-]+)` \| (\S+) ", PAGE, re.MULTILINE)
    assert len(shown) == 8
    for option in serve.params:
        if option.param_type_name == "option":
            default = dict(shown)[option.opts[0]]
            assert default == ("none" if option.opts[0] in ("--api-key", "--device-map") else str(option.default))
