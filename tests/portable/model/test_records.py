"""Records are used only for the weights that they describe."""

import json

import pytest
import torch
from command import run
from conftest import FIXTURES

from fundamentallm_hf import FundamentaLLMForCausalLM, convert_checkpoint
from fundamentallm_hf.portable.model.records import EVALUATION, TRAINING, read_records, weights_digest


@pytest.fixture
def folder(tmp_path):
    return convert_checkpoint(FIXTURES / "learned", tmp_path / "model")


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "held_out.txt"
    file.write_text("To be, or not to be: that is the question.")
    return file


def test_the_digest_is_of_values_alone():
    first, second = torch.arange(6.0), torch.ones(2, dtype=torch.bfloat16)
    digest = weights_digest([first, second])
    assert digest == weights_digest([second, first.clone(), first])
    assert digest == weights_digest([first.half(), second.float()])
    for other in ([first], [first.view(2, 3), second], [(first / 3).half(), second], [first + 1, second]):
        assert weights_digest(other) != digest
    assert weights_digest([first / 3]) != weights_digest([(first / 3).half()])


def test_a_checkpoints_training_travels_until_it_is_trained_further(folder, tmp_path):
    (record,) = read_records(folder / TRAINING)
    assert record["step"] == 780
    assert "data_path" not in record["training_config"]
    model = FundamentaLLMForCausalLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "copy")
    assert read_records(tmp_path / "copy" / TRAINING) == [record]
    with torch.no_grad():
        model.lm_head.weight += 1
    model.save_pretrained(tmp_path / "tuned")
    assert not (tmp_path / "tuned" / TRAINING).exists()


def test_an_evaluation_is_kept_once_for_each_text_and_travels(folder, text, tmp_path):
    for name in ("a", "b", "a"):
        done = run("evaluate", folder, text, "--save", "--name", name, "--dataset", "user/data", "--format", "json")
        assert done.exit_code == 0, done.stderr
    found = read_records(folder / EVALUATION)
    assert [each["dataset"] for each in found] == [{"name": name, "id": "user/data"} for name in ("b", "a")]
    assert found[0].items() >= json.loads(done.stdout).items()
    FundamentaLLMForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "copy")
    assert read_records(tmp_path / "copy" / EVALUATION) == found


def test_an_evaluation_beside_a_checkpoint_comes_into_its_folder(text, tmp_path):
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    for name in ("final_model.pt", "model.yaml", "tokenizer.json"):
        (run_folder / name).write_bytes((FIXTURES / "learned" / name).read_bytes())
    assert run("evaluate", run_folder / "final_model.pt", text, "--save").exit_code == 0
    folder = convert_checkpoint(run_folder, tmp_path / "model")
    (record,) = read_records(folder / EVALUATION)
    assert record["dataset"] == {"name": "held_out"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["user/name", "held_out.txt", "--save"], 1, "user/name is not a local model"),
        (["held_out.txt", "--save"], 1, "none is not a local model"),
        (["model", "held_out.txt", "--save", "--dtype", "float16"], 2, "dtype is float16: leave one out"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_any_work(folder, text, arguments, code, message, monkeypatch):
    monkeypatch.chdir(folder.parent)
    result = run("evaluate", *arguments)
    assert result.exit_code == code
    assert message in result.stderr


@pytest.mark.parametrize("content", ["", "[", "[]", '{"records": 3}', '{"records": [3]}', "[" * 10**5])
def test_a_file_of_something_else_holds_no_records(content, tmp_path):
    (tmp_path / TRAINING).write_text(content)
    assert read_records(tmp_path / TRAINING) == []
    assert read_records(tmp_path / "missing") == []
