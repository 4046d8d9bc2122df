"""The command line as a user sees it: output streams and exit codes."""

import json
import subprocess
import sys

import pytest
from command import MODEL, load_once, run

from fundamentallm_hf.settings.typed_values import unescape


@pytest.fixture(autouse=True)
def _loaded_once(monkeypatch):
    load_once(monkeypatch)


def generate(*arguments, **keywords):
    return run("generate", MODEL, "--max-tokens", 12, *arguments, **keywords)


def test_text_goes_to_stdout_and_nothing_else():
    result = generate("--prompt", "To be", "--temperature", 0)
    assert (result.stdout, result.stderr, result.exit_code) == ("To be the the the\n", "", 0)


def test_a_seed_repeats_the_output():
    outputs = {generate("--prompt", "To be", "--seed", 42).stdout for _ in range(2)}
    assert len(outputs) == 1


def test_several_samples_are_the_samples_of_consecutive_seeds():
    several = generate("--prompt", "To be", "--seed", 7, "--num-samples", 3)
    alone = [generate("--prompt", "To be", "--seed", seed).stdout for seed in (7, 8, 9)]
    assert several.stdout == "".join(alone)
    assert "sample 2 of 3, seed 8" in several.stderr


def test_escapes_become_characters_unless_told_otherwise():
    assert generate("--prompt", r"User: Hello\nAs").stdout.startswith("User: Hello\nAs")
    assert generate("--prompt", r"User: Hello\nAs", "--no-escape").stdout.startswith(r"User: Hello\nAs")


def test_the_text_ends_before_whichever_stop_text_comes_first():
    def stopped(*stops):
        return generate("--prompt", "To be", "--temperature", 0, *stops).stdout

    assert stopped("--stop", "he t") == "To be t\n"
    assert stopped("--stop", "zzz", "--stop", "he t") == "To be t\n"
    assert stopped("--stop", "he t", "--min-tokens", 4) == "To be the t\n"


def test_bad_words_are_kept_out_from_the_option_and_from_a_file(tmp_path):
    arguments = ("--prompt", "To be", "--temperature", 0)
    assert generate(*arguments).stdout == "To be the the the\n"
    assert "the" not in generate(*arguments, "--bad-words", "zzz, the").stdout
    assert "the" not in generate(*arguments, "--bad-words", "zzz", "--bad-words", "the").stdout
    words = tmp_path / "words.txt"
    words.write_text("# articles\n\nTHE\n")
    assert "the" not in generate(*arguments, "--bad-words-file", words).stdout
    assert generate(*arguments, "--bad-words-file", words, "--case-sensitive").stdout == "To be the the the\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--bad-words", "/(/"), "bad-words: '(' is not a valid regular expression: missing )"),
        (("--bad-words", "**"), "bad-words: an entry has to hold a character that can be seen but is '**'"),
        (("--bad-words-file", "missing.txt"), "bad-words-file: cannot read the list 'missing.txt': No such file"),
        (("--repetition-penalty", 0), "has to be a number above 0 and at most 100 but is '0'"),
        (("--repetition-unit", "letters"), "has to be one of words, tokens but is 'letters'"),
    ],
)
def test_a_control_that_cannot_be_is_one_line_before_the_model_is_loaded(options, message):
    result = run("generate", "there-is-no-such-model.pt", *options)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert "there-is-no-such-model" not in result.stderr
    assert result.stdout == ""


def test_repetition_and_length_have_options():
    looping = generate("--prompt", "To be", "--temperature", 0, "--repetition-penalty", 1.2, "--max-tokens", 60)
    assert "the the the the" not in looping.stdout
    told = generate("--prompt", "To be", "--length-penalty", 1.5)
    assert "has no effect: the model has no token that ends a text" in told.stderr
    longer = run("generate", "--length-penalty", 1.5, "--max-tokens", 3)
    assert (longer.exit_code, longer.stderr) == (0, "")


def test_what_is_left_without_a_continuation_ends_and_says_so():
    result = generate("--prompt", "To be", "--bad-words", "/(?s:.)/")
    assert result.stdout == "To be\n"
    assert "the controls leave no continuation" in result.stderr


def test_serving_without_its_packages_says_how_to_get_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("serve", "--port", 1)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "pip install 'fundamentallm-hf[serve]'" in result.stderr


def test_the_help_of_serving_lists_its_own_options_without_its_packages(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("serve", "--help")
    assert result.exit_code == 0
    for option in ("--api-key", "--limit-tokens", "--limit-entries", "--limit-beams", "--limit-waiting", "-- --help"):
        assert option in " ".join(result.stdout.split())


def test_escapes_in_stop_texts_become_characters_unless_told_otherwise():
    arguments = ("--prompt", "'tis true.", "--temperature", 0)
    whole = generate(*arguments).stdout
    assert whole == "'tis true.\nHam. I with\n"
    assert generate(*arguments, "--stop", r".\nHam", "--min-tokens", 0).stdout == "'tis true.\n"
    assert generate(*arguments, "--stop", r"\n").stdout == "'tis true.\n"
    assert generate(*arguments, "--stop", r"\n", "--no-escape").stdout == whole


def test_beams_print_the_likeliest_text_or_several():
    assert generate("--prompt", "To be", "--beam-size", 3).stdout == "To be the the the\n"
    several = generate("--prompt", "To be", "--beam-size", 3, "--num-samples", 2)
    assert several.stdout.startswith("To be the the the\nTo be")
    assert several.stderr == "--- sample 1 of 2 ---\n--- sample 2 of 2 ---\n"


def test_the_prompt_can_come_from_stdin_as_it_is():
    assert generate("--prompt", "-", "--temperature", 0, stdin="To\\n be").stdout.startswith("To\\n be")


def test_unknown_characters_are_named_on_stderr():
    result = generate("--prompt", "a~b")
    assert result.stderr.startswith("note: the model has no token for '~'")
    assert result.stdout.startswith("a~b")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--top-p", 2), "Invalid value for '--top-p': has to be a number above 0 and at most 1 but is '2'"),
        (("--overflow", "wrap"), "has to be one of slide, stop, error but is 'wrap'"),
        (("--stop", "a", "--stop", ""), "Invalid value for '--stop': has to be text, or a list of texts, none empty"),
        (("--max-tokns", 2), "'--max-tokens'"),
        (("--overflow", "error", "--max-tokens", 500), "do not fit into the model's window of 128"),
        (("--temperature", 0, "--num-samples", 2), "all samples are the same"),
        (("--min-tokens", 13), "min-tokens is 13, but max-tokens ends the text at 12"),
        (("--beam-size", 2, "--num-samples", 3), "num-samples is 3, but a beam-size of 2"),
        (("--num-samples", 2, "--best", 3), "best is 3, but num-samples writes only 2"),
        (("--device", "tpu"), "has to be one of auto, cpu, cuda, mps but is 'tpu'"),
        (("--dtype", "int8"), "'int8' is not one of 'auto', 'float32', 'float16', 'bfloat16'"),
        (
            ("--must-include", "extraordinary"),
            "must_include: 'extraordinary' need at least 13 tokens but 12 may be added",
        ),
        (("--prompt", "a", "--prompts-file", "b"), "prompt and prompts-file are both set"),
        (("--prompt", "-", "--prompt", "-"), "stdin more than once"),
        (("--prompt", "-", "--config", "-"), "stdin more than once"),
        (("--prompt", "\udcff"), "prompt has to be UTF-8 text but is '\\udcff'"),
        (("--stop", "\udcff"), "none empty, but is '\\udcff'"),
        (("--force",), "force is set but there is no output-file"),
        (("--output-file", "x", "--force", "--append"), "force and append are both set"),
        (("--output-file", "x", "--append", "--format", "json"), "a JSON document cannot follow another"),
        (("--probs-only", "--num-samples", 2), "probs-only writes no text, so num-samples cannot be combined"),
        (("--probs-only", "--format", "json"), "probs-only writes no text, so format json cannot be combined"),
        (("--probs-only", "--output-file", "x"), "probs-only writes no text, so output-file cannot be combined"),
        (("--batch-size", 0), "Invalid value for '--batch-size'"),
        (("two", "models"), "Got unexpected extra arguments (two models)"),
    ],
)
def test_a_wrong_use_exits_with_2_and_one_line_that_says_what_is_expected(arguments, message):
    result = generate(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_misspelt_command_is_told_its_name():
    result = run("genrate")
    assert (result.exit_code, result.stderr) == (2, "Error: No such command 'genrate'. Did you mean 'generate'?\n")


def test_a_failure_that_nobody_foresaw_is_one_line_and_tells_where_on_request(monkeypatch):
    monkeypatch.setattr("fundamentallm_hf.model_io.loading.load_model", lambda *args, **kwargs: 1 / 0)
    result = run("generate", "x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ZeroDivisionError: division by zero (for where it happened, set FUND")
    traced = run("generate", "x", env={"FUNDAMENTALLM_TRACEBACK": "1"})
    assert isinstance(traced.exception, ZeroDivisionError)


def test_a_setting_that_changes_nothing_is_named():
    result = generate(
        "--temperature",
        0,
        "--top-k",
        5,
        "--seed",
        1,
        "--case-sensitive",
        "--must-include-ordered",
        "--must-include-prompt",
    )
    assert result.stderr.splitlines() == [
        "note: top-k has no effect: at temperature 0 nothing is sampled",
        "note: seed has no effect: at temperature 0 nothing is sampled",
        "note: must-include-ordered has no effect: must-include is not set",
        "note: must-include-prompt has no effect: must-include is not set",
        "note: case-sensitive has no effect: neither bad-words nor must-include nor word-weights is set",
    ]
    assert generate("--temperature", 0, "--top-k", 5, "--quiet").stderr == ""


def test_min_p_keeps_unlikely_tokens_out():
    sure = generate("--prompt", "To be", "--min-p", 1, "--temperature", 2)
    assert sure.stdout == generate("--prompt", "To be", "--temperature", 0).stdout


def test_the_help_groups_the_options_and_shows_defaults():
    text = run("generate", "--help").stdout
    headings = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings[:4] == ["Prompt:", "Model:", "Length:", "Samples:"]
    assert headings[-2:] == ["Output:", "Other:"]
    assert "[default: 200]" in " ".join(text.split())


@pytest.mark.parametrize("option", ["bad-words-file", "json-schema", "grammar", "config", "output-file"])
def test_the_help_says_which_options_take_a_file(option):
    assert f"--{option} FILE" in " ".join(run("generate", "--help").stdout.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_is_taught_to_complete(shell):
    assert "_FUNDAMENTALLM_COMPLETE" in run("completion", shell).stdout


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("fundamentallm gen", "generate"),
        ("fundamentallm generate --must-include-", "--must-include-ordered"),
        ("fundamentallm generate --overflow s", "slide"),
        ("fundamentallm generate --device c", "cuda"),
    ],
)
def test_the_shell_completes_commands_options_and_choices(words, found):
    env = {"_FUNDAMENTALLM_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    assert f"plain,{found}" in run(env=env).stdout.splitlines()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", "missing.pt"), "does not exist"),
        (("generate", "./missing"), "there is no ./missing"),
        (("generate", MODEL, "--bad-words-file", "missing.txt"), "cannot read the list 'missing.txt'"),
        (("generate", MODEL, "--prompts-file", "missing.txt"), "cannot read the prompts file 'missing.txt'"),
        (("generate", MODEL, "--config", "missing.json"), "cannot read the config 'missing.json'"),
        (("convert", "missing.pt", "out"), "does not exist"),
        (("evaluate", MODEL, "missing.txt"), "missing.txt"),
    ],
)
def test_a_failure_exits_with_1_and_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_convert_writes_a_folder_that_generates_the_same_text(tmp_path):
    folder = tmp_path / "out"
    assert run("convert", MODEL, folder).stdout == f"{folder}\n"
    converted = run("generate", folder, "--prompt", "To be", "--seed", 1, "--max-tokens", 12)
    assert converted.stdout == generate("--prompt", "To be", "--seed", 1).stdout
    again = run("convert", MODEL, folder)
    assert again.exit_code == 1
    assert "not empty" in again.stderr
    assert run("convert", MODEL, folder, "--force").exit_code == 0


def test_evaluate_prints_a_table_or_json(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be: that is the question.")
    table = run("evaluate", MODEL, text)
    values = json.loads(run("evaluate", MODEL, text, "--format", "json").stdout)
    assert "bits per character" in table.stdout
    assert f"{values['bits_per_character']:.4f}" in table.stdout
    assert values["tokens"] == 41


def test_help_and_version_do_not_import_torch():
    code = (
        "import sys; sys.argv = ['fundamentallm', *{}]\n"
        "from fundamentallm_hf.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    for arguments in (["--help"], ["--version"], ["generate", "--help"], ["completion", "zsh"]):
        subprocess.run([sys.executable, "-c", code.format(arguments)], check=True, capture_output=True)


def test_the_package_runs_as_a_module():
    output = subprocess.run([sys.executable, "-m", "fundamentallm_hf", "--version"], capture_output=True, text=True)
    assert output.stdout.startswith("fundamentallm, version")


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        (r"a\nb\tc", "a\nb\tc"),
        (r"a\\nb", r"a\nb"),
        (r"\x41é\u00e9\U0001F600", "Aéé\U0001f600"),
        (r"\q \x4 \ud800 end" + "\\", r"\q \x4 \ud800 end" + "\\"),
    ],
)
def test_unescape(typed, text):
    assert unescape(typed) == text
