"""Every shell command and every list of options in the text-generation guide, run unchanged.

The guide is not part of this project. It is read if it is next to a checkout; without it nothing runs.
"""

import re
import shlex
import shutil
from itertools import pairwise

import pytest
from command import MODEL, calls_of, load_once, option_lines, run
from conftest import FIXTURES

from fundamentallm_hf.settings.generation_settings import find_setting

PLACES = [folder / "shared" / "guide" / "text-generation.md" for folder in FIXTURES.parents]
GUIDE = next((place for place in PLACES if place.is_file()), None)
pytestmark = pytest.mark.skipif(GUIDE is None, reason="the guide does not lie beside this checkout")


def guide_calls():
    """The arguments of every call in the guide, with its options alone behind `generate model.pt`."""
    if GUIDE is None:
        return []
    calls = []
    for block in re.findall(r"^```bash\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        if "fundamentallm" in block:
            calls += calls_of(block)
            continue
        lines = option_lines(block)
        # As alternatives, and all of them together.
        for options in [*lines, [option for line in lines for option in line]] if len(lines) > 1 else lines:
            calls += calls_of(f"fundamentallm generate model.pt {shlex.join(options)}")
    return calls


@pytest.mark.parametrize("call", guide_calls(), ids=shlex.join)
def test_the_guides_command_runs(call, tmp_path, monkeypatch):
    load_once(monkeypatch, stand_in=MODEL)
    monkeypatch.chdir(tmp_path)
    shutil.copy(MODEL, "model.pt")
    (tmp_path / "my_model").mkdir()
    shutil.copy(MODEL, "my_model/final_model.pt")
    result = run(*call)
    if "cuda" in call and "no such device" in result.stderr:
        assert result.exit_code == 1
        return
    assert result.exit_code == 0, result.stderr
    options = dict(zip(call[2::2], call[3::2], strict=False))
    prompts = [value.replace("\\n", "\n") for name, value in pairwise(call) if name == "--prompt"]
    text = result.stdout
    if "--output-file" in options:
        text = (tmp_path / options["--output-file"]).read_text()
    for prompt in prompts:
        assert text.count(prompt) >= int(options.get("--num-samples", 1))
    if "--show-probs" in call:
        assert re.match(r'Next token probabilities:\n  ".*?"( \(.*?\))?: \d\.\d\d ', text)
    for word in options.get("--must-include", "").split(","):
        assert word in text.lower()
    for word in options.get("--bad-words", "").split(","):
        assert not word or word not in text


def test_the_guide_shows_what_it_is_known_to_show():
    calls = guide_calls()
    assert len(calls) > 60
    named = {option for call in calls for option in call if option.startswith("--")}
    own = {"--prompt", "--interactive", "--output-file", "--show-probs", "--device"}
    assert all(find_setting(option[2:]) for option in named - own)
