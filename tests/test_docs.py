"""The documentation matches the command: its tables list the options, and its commands run."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from command import MODEL, calls_of, load_once, run
from small_classifier import saved_classifier
from without_package import blocks

from fundamentallm_hf import convert_checkpoint
from fundamentallm_hf.cli.interactive.loop import BANNER

SPEED = re.compile(r"\d+(?= tokens/s)")
ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# They need software or models that a plain installation lacks, or take the shell over.
OTHERS = (
    "fundamentallm generate HuggingFaceTB/",
    "fundamentallm serve",
    "fundamentallm space",
    "make",
    "python",
    "accelerate",
    "curl",
    "pip",
)


def test_the_architecture_page_tells_of_every_module():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z/]+)` \| (.*) \|$", page.partition("## Folders")[2], re.MULTILINE))
    package = ROOT / "fundamentallm_hf"
    for file in package.rglob("*.py"):
        folder = file.parent.relative_to(package).as_posix()
        if folder in rows and "__" not in file.name and folder != "cli":
            named = re.findall(r"`(\w+)`", rows[folder])
            known = {name if not name.startswith("_") else f"must_include{name}" for name in named}
            assert file.stem in known, f"docs/architecture.md does not tell of {folder}/{file.name}"
    for path in re.findall(r"`([a-z_]+/[a-z_/]+\.(?:py|md|css))`", page):
        assert (package / path).is_file() or (ROOT / path).is_file(), f"there is no {path}"


def commands():
    """The shell blocks of all pages, with the page that each stands on."""
    for page in PAGES:
        for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            if not block.startswith(OTHERS):
                yield pytest.param(block, id=f"{page.name}: {block.splitlines()[0][:60]}")


def test_the_tables_are_those_of_the_program(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import option_reference

    for file, tables in option_reference.PAGES.items():
        page = file.read_text(encoding="utf-8")
        assert page == option_reference.updated(page, tables()), "run python docs/option_reference.py"
    monkeypatch.delitem(sys.modules, "option_reference")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The files of a model, by name."""
    folder = convert_checkpoint(MODEL, tmp_path_factory.mktemp("converted") / "model")
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def publish_what_is_named(hub, page, converted, place):
    """Put the repositories that pages name on the Hub of the tests."""
    if "user/stories" in page:
        repo = hub.make("user/stories", converted)
        repo.tags["v1"] = repo.branches["main"]
    if "user/raw" in page:
        names = ("final_model.pt", "tokenizer.json", "model.yaml")
        hub.make("user/raw", {name: Path(MODEL).with_name(name).read_bytes() for name in names})
    if "user/reviews" in page:
        folder = saved_classifier(place / "reviews")
        hub.make("user/reviews", {file.name: file.read_bytes() for file in folder.iterdir()})


@pytest.mark.parametrize("block", list(commands()))
def test_a_command_that_is_shown_runs(block, tmp_path, monkeypatch, hub, converted):
    load_once(monkeypatch)
    monkeypatch.chdir(tmp_path)
    publish_what_is_named(hub, "" if "--private" in block else block, converted, tmp_path)
    shutil.copytree(Path(MODEL).parent, "my_model")
    Path("prompts.txt").write_text("Once upon a time\nThe dragon\n")
    Path("in.jsonl").write_text('{"prompt": "Once upon a time", "must_include": ["dragon"], "id": "a1"}\n')
    Path("in.csv").write_text("key,text\na,The cat\n")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    Path("letters.txt").write_text("Dear Sir, I remain yours truly.\n" * 20)
    Path("chats.txt").write_text("hey, what is up? bye!\n" * 20)
    Path("starts.txt").write_text("One day, Tim\n")
    monkeypatch.setattr("fundamentallm_hf.training.attribute_training.TEXTS", 48)
    monkeypatch.setattr("fundamentallm_hf.training.attribute_training.MEASURED", 8)
    Path("books.txt").write_text("A dragon flew over the quiet town at night.\n" * 20)
    Path("stories.txt").write_text("<|endoftext|>".join("Once upon a time there was a cat." for _ in range(400)))
    Path("mine.txt").write_text("To be, or not to be: that is the question.\n" * 40)
    Path("held_out.txt").write_text("To be, or not to be: that is the question.")
    stdin = "The cat\n"
    if block.startswith("sed"):
        made = run("generate", MODEL, *shlex.split("--prompt a --format jsonl --num-samples 3 --max-tokens 5"))
        Path("stories.jsonl").write_text(made.stdout)
        stdin = made.stdout.splitlines()[1]
    if block.startswith("cat in.jsonl"):
        stdin = Path("in.jsonl").read_text()
    calls = [["completion", "bash"]] if block.startswith("eval") else calls_of(block)
    assert calls
    for call in calls:
        if call[0] == "generate" and "--max-tokens" in call:
            # As it stands but shorter; the guide's own commands run in full.
            call[call.index("--max-tokens") + 1] = "40"
            if "--min-tokens" in call:
                call[call.index("--min-tokens") + 1] = "20"
            if "--words" in call:
                call[call.index("--words") + 1] = "4-6"
        elif call[0] == "generate":
            call += ["--max-tokens", "40"]
        elif call[0] == "train":
            # A run of one step: the last of an option that is given twice counts.
            call += ["--steps", "1", "--cpu", "--held-out-characters", "600"]
        result = run(*call, stdin=stdin)
        assert result.exit_code == 0, result.stderr
        assert "Error" not in result.stderr
        assert result.stdout or "--output-file" in call


def python_blocks():
    for block in re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / "hub.md").read_text(encoding="utf-8"), re.M | re.S
    ):
        yield pytest.param(block, id=block.splitlines()[0])


@pytest.mark.parametrize("block", list(python_blocks()))
def test_python_that_is_shown_of_the_hub_runs(block, tmp_path, monkeypatch, hub, converted, capsys):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.chdir(tmp_path)
    publish_what_is_named(hub, block, converted, tmp_path)
    shutil.copytree(Path(MODEL).parent, "my_model")
    exec(compile(block, "hub.md", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("page", ["generation.md", "python.md"])
def test_the_python_blocks_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(Path(MODEL).parent, "my_model")
    scope = {}
    shown = blocks((ROOT / "docs" / page).read_text(encoding="utf-8"), "python")
    assert shown
    for block in shown:
        exec(block, scope)
        assert capsys.readouterr().out or "print(" not in block


def test_an_output_that_is_shown_is_that_of_the_command(monkeypatch):
    load_once(monkeypatch)
    shown = [
        pair
        for page in PAGES
        for pair in re.findall(r"^```bash\n([^`]*)```\n\n```\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    ]
    sessions = ["--interactive" in block for block, _ in shown]
    assert any(sessions)
    assert not all(sessions)
    for (block, output), session in zip(shown, sessions, strict=True):
        (call,) = calls_of(block)
        if not session:
            assert run(*call).stdout == output
            continue
        box, *exchanges = re.split(r"^> ", output, flags=re.MULTILINE)
        assert BANNER in "\n".join(line.strip("│ ") for line in box.splitlines())
        said = [exchange.partition("\n") for exchange in exchanges]
        result = run(*call, stdin="".join(f"{entry}\n" for entry, _, _ in said))
        answers = "".join(answer.rstrip("\n") + "\n" for _, _, answer in said)
        assert SPEED.sub("", result.output) == SPEED.sub("", answers)
