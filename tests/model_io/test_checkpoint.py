"""FundamentaLLM's checkpoints: outputs equal FundamentaLLM's, and invalid files are refused in one line."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import yaml
from conftest import FIXTURES
from safetensors.torch import load_file
from transformers import AutoTokenizer, DynamicCache

from fundamentallm_hf import FundamentaLLMForCausalLM, UserError, convert_checkpoint
from fundamentallm_hf.model_io.checkpoint import load_checkpoint, read_checkpoint
from fundamentallm_hf.portable.decoding.cache_names import CACHE
from fundamentallm_hf.portable.model.code_files import model_code

pytestmark = pytest.mark.core

NAMES = ["learned", "sinusoidal"]
CODE = [*model_code()]


@pytest.fixture(scope="module", params=NAMES)
def converted(request, tmp_path_factory):
    """A converted folder, loaded, with what FundamentaLLM computed for the same checkpoint."""
    folder = tmp_path_factory.mktemp(request.param) / "model"
    convert_checkpoint(FIXTURES / request.param / "final_model.pt", folder)
    tensors = load_file(FIXTURES / request.param / "reference.safetensors")
    references = json.loads((FIXTURES / request.param / "reference.json").read_text())
    for index, reference in enumerate(references):
        reference["ids"] = tensors[f"{index}.input_ids"].reshape(1, -1).long()
        reference["logits"] = tensors[f"{index}.logits"].reshape(reference["ids"].shape[1], -1)
    return FundamentaLLMForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), references


@pytest.fixture
def source(tmp_path):
    """A copy of a real training run's output that a test may damage."""
    folder = tmp_path / "run"
    shutil.copytree(FIXTURES / "learned", folder)
    return folder


def near(got, expected):
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


def test_token_ids_and_text_are_fundamentallms(converted):
    _, tokenizer, references = converted
    for reference in references:
        assert tokenizer(reference["prompt"]).input_ids == reference["encoded"] == reference["ids"][0].tolist()
        assert tokenizer.decode(reference["encoded"]) == reference["decoded"]


@torch.no_grad()
def test_every_logit_is_fundamentallms_at_once_and_token_by_token(converted):
    model, _, references = converted
    for reference in references:
        near(model(reference["ids"]).logits[0], reference["logits"])
        cache = DynamicCache(config=model.config)
        steps = [model(token, **{CACHE: cache}).logits for token in reference["ids"].split(1, dim=1)]
        near(torch.cat(steps, dim=1)[0], reference["logits"])


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_every_logit_is_fundamentallms_in_a_padded_batch(converted, side):
    model, tokenizer, references = converted
    batch = tokenizer([r["prompt"] for r in references], padding=True, padding_side=side, return_tensors="pt")
    logits = model(**batch).logits
    for row, mask, reference in zip(logits, batch.attention_mask, references, strict=True):
        near(row[mask.bool()], reference["logits"])


def test_greedy_text_to_the_full_context_is_fundamentallms(converted):
    model, tokenizer, references = converted
    for reference in references:
        room = model.config.max_position_embeddings - reference["ids"].shape[1]
        ids = model.generate(reference["ids"], max_new_tokens=room, do_sample=False) if room else reference["ids"]
        assert tokenizer.decode(ids[0]) == reference["greedy_to_full_context"]


@pytest.mark.parametrize("name", NAMES)
def test_best_pt_takes_its_config_from_model_yaml(name):
    best, final = (read_checkpoint(FIXTURES / name / file) for file in ("best.pt", "final_model.pt"))
    assert best.config.to_dict() == final.config.to_dict()
    assert best.state_dict.keys() == final.state_dict.keys()


def test_bare_prefixed_aliased_and_untied_states_are_read(source):
    loaded = torch.load(source / "final_model.pt", weights_only=True)
    ids = torch.tensor([[20, 30, 40]])
    with torch.no_grad():
        expected = load_checkpoint(source)[0](ids).logits
        for prefix in ("", "_orig_mod.", "module."):
            torch.save({prefix + name: value for name, value in loaded["model_state"].items()}, source / "bare.pt")
            assert torch.equal(load_checkpoint(source / "bare.pt")[0](ids).logits, expected)
        config = loaded["model_config"]
        aliased = {**config, "hidden_dim": config["d_model"], "max_seq_len": config["sequence_length"], "more": 1}
        del aliased["d_model"], aliased["sequence_length"]
        state = dict(loaded["model_state"])
        del state["output_proj.weight"]
        torch.save({"model_state": state, "model_config": aliased}, source / "aliased.pt")
        assert torch.equal(load_checkpoint(source / "aliased.pt")[0](ids).logits, expected)
        state["output_proj.weight"] = 2 * loaded["model_state"]["output_proj.weight"]
        torch.save({"model_state": state, "model_config": config}, source / "untied.pt")
        assert torch.equal(load_checkpoint(source / "untied.pt")[0](ids).logits, 2 * expected)


class RunsCode:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def edit(source, change):
    loaded = torch.load(source / "final_model.pt", weights_only=True)
    change(loaded)
    torch.save(loaded, source / "final_model.pt")


def break_shape(loaded):
    loaded["model_config"]["d_model"] = 32


def break_vocabulary(source):
    content = json.loads((source / "tokenizer.json").read_text())
    content["char_to_id"]["~"] = len(content["char_to_id"])
    (source / "tokenizer.json").write_text(json.dumps(content))


def no_config(source):
    (source / "model.yaml").unlink()
    edit(source, lambda loaded: loaded.pop("model_config"))


DAMAGE = {
    "missing": (lambda s: (s / "final_model.pt").unlink() or (s / "best.pt").unlink(), "holds no final_model.pt"),
    "truncated": (lambda s: (s / "final_model.pt").write_bytes((s / "best.pt").read_bytes()[:5000]), "truncated"),
    "text": (lambda s: (s / "final_model.pt").write_text("hello"), "not a torch checkpoint"),
    "code": (lambda s: torch.save(RunsCode(s / "ran"), s / "final_model.pt"), "nothing was run"),
    "plain pickle": (
        lambda s: (s / "final_model.pt").write_bytes(pickle.dumps(RunsCode(s / "ran"))),
        "nothing was run",
    ),
    "no weights": (lambda s: torch.save({"epoch": 3}, s / "final_model.pt"), "holds no weights"),
    "shape": (lambda s: edit(s, break_shape), "has the shape"),
    "missing tensor": (lambda s: edit(s, lambda c: c["model_state"].pop("output_norm.weight")), "lacks"),
    "no config": (no_config, "no model.yaml or config.yaml"),
    "no tokenizer": (lambda s: (s / "tokenizer.json").unlink(), "no tokenizer.json"),
    "broken tokenizer": (lambda s: (s / "tokenizer.json").write_text("{"), "not valid JSON"),
    "foreign tokenizer": (lambda s: (s / "tokenizer.json").write_text("{}"), "not FundamentaLLM's"),
    "vocabulary": (break_vocabulary, "72 tokens"),
    "rope": (lambda s: edit(s, lambda c: c["model_config"].update(pos_encoding="rope")), "rope"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_source_is_refused_in_one_line_and_nothing_is_written(source, tmp_path, damage):
    spoil, message = DAMAGE[damage]
    spoil(source)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=message) as caught:
        convert_checkpoint(source, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before
    assert not (source / "ran").exists()


def test_a_broken_yaml_is_refused_in_one_line(source, tmp_path):
    (source / "model.yaml").write_text("a: [")
    with pytest.raises(UserError, match="not valid YAML"):
        convert_checkpoint(source / "best.pt", tmp_path / "out")
    (source / "model.yaml").write_text(yaml.safe_dump(["a"]))
    with pytest.raises(UserError, match="has to map names"):
        convert_checkpoint(source / "best.pt", tmp_path / "out")


def test_a_target_that_cannot_be_written_is_refused_and_left_alone(source, tmp_path):
    file = tmp_path / "file"
    file.write_text("kept")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("kept")
    for target, message in ((file, "is a file"), (file / "inside", "lies inside the file"), (full, "is not empty")):
        with pytest.raises(UserError, match=message):
            convert_checkpoint(source, target)
    with pytest.raises(UserError, match="holds the checkpoint"):
        convert_checkpoint(source, source, force=True)
    assert file.read_text() == (full / "mine.txt").read_text() == "kept"


def test_force_replaces_a_folder_only_when_the_new_one_is_whole(source, tmp_path, monkeypatch):
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine.txt").write_text("kept")

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("transformers.PreTrainedTokenizerFast.save_pretrained", fail)
        with pytest.raises(UserError, match="No space left on device"):
            convert_checkpoint(source, target, force=True)
    assert [path.name for path in target.iterdir()] == ["mine.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]
    convert_checkpoint(source, target, force=True)
    assert not (target / "mine.txt").exists()
    with pytest.raises(UserError, match="Hugging Face model folder already"):
        convert_checkpoint(target, tmp_path / "again")


def test_a_process_killed_midway_leaves_no_target(source, tmp_path):
    code = f"""
    import os, signal, transformers
    transformers.PreTrainedTokenizerFast.save_pretrained = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
    from fundamentallm_hf import convert_checkpoint
    convert_checkpoint({str(source)!r}, {str(tmp_path / "out")!r})
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True).returncode == -9
    assert not (tmp_path / "out").exists()
    assert all(path.name.startswith(".") for path in tmp_path.iterdir() if path != source)


def test_a_folder_tells_nothing_of_the_machine_and_holds_no_pickle(source, tmp_path):
    folder = convert_checkpoint(source, tmp_path / "out")
    assert {*CODE, "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in folder.iterdir()
    }
    for path in folder.glob("*.json"):
        assert str(tmp_path) not in path.read_text()
    assert not [path for path in folder.iterdir() if path.suffix in (".pt", ".bin", ".pkl")]


def test_provenance_keeps_the_figures_and_no_places(source):
    provenance = read_checkpoint(source).provenance
    assert provenance["step"] == 780
    assert provenance["metrics"]["val_loss"] == pytest.approx(2.0536, abs=1e-4)
    assert not [name for name in provenance["training_config"] if "path" in name or "dir" in name]


WITHOUT_PACKAGE = """
import sys
sys.modules["fundamentallm_hf"] = None
from transformers import TextStreamer, pipeline
pipe = pipeline("text-generation", model=sys.argv[1], trust_remote_code=True, device="cpu")
greedy = pipe(sys.argv[2], max_new_tokens=int(sys.argv[3]), do_sample=False)[0]["generated_text"]
assert greedy == sys.argv[4], greedy
assert len(pipe("To be", max_new_tokens=200, do_sample=True)[0]["generated_text"]) > 5
assert len(pipe("To be", max_new_tokens=20, num_beams=3, do_sample=False)[0]["generated_text"]) == 25
batch = pipe(["To be", "KING: My lord,"], batch_size=2, max_new_tokens=20, do_sample=False)
assert [one[0]["generated_text"] for one in batch] == [
    pipe(prompt, max_new_tokens=20, do_sample=False)[0]["generated_text"] for prompt in ("To be", "KING: My lord,")
]
pipe("To be", max_new_tokens=5, do_sample=False, streamer=TextStreamer(pipe.tokenizer))
for how in ({"num_beams": 3}, {"do_sample": True, "temperature": 2.0}):
    controlled = pipe("To be", max_new_tokens=60, bad_words=["the", "*o*"], repetition_penalty=1.2, **how)
    assert "o" not in controlled[0]["generated_text"][5:], controlled
"""


def test_the_pipeline_works_where_this_package_cannot_be_imported(source, tmp_path):
    folder = convert_checkpoint(source, tmp_path / "out")
    reference = json.loads((source / "reference.json").read_text())[0]
    arguments = [folder, reference["prompt"], 128 - len(reference["prompt"]), reference["greedy_to_full_context"]]
    places = {"HF_HOME": str(tmp_path / "home"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    environment = {**os.environ, **places, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_PACKAGE, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.startswith("To be the")


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_best_pt_and_final_model_pt_have_equal_logits(name):
    ids = torch.tensor([[20, 30, 40, 50]])
    best, final = (load_checkpoint(FIXTURES / name / file)[0](ids).logits for file in ("best.pt", "final_model.pt"))
    assert torch.equal(best, final)


@torch.no_grad()
def test_an_untied_output_and_float16_survive_the_folder(source, tmp_path):
    ids = torch.tensor([[20, 30, 40]])

    def untie(loaded):
        loaded["model_state"]["output_proj.weight"] = loaded["model_state"]["output_proj.weight"] * 2

    def halve(loaded):
        loaded["model_state"] = {name: tensor.half() for name, tensor in loaded["model_state"].items()}

    expected = load_checkpoint(source)[0](ids).logits
    edit(source, untie)
    untied = FundamentaLLMForCausalLM.from_pretrained(convert_checkpoint(source, tmp_path / "untied"))
    assert not untied.config.tie_word_embeddings
    assert torch.equal(untied(ids).logits, 2 * expected)
    edit(source, halve)
    half = FundamentaLLMForCausalLM.from_pretrained(convert_checkpoint(source, tmp_path / "half"))
    assert {weight.dtype for weight in half.parameters()} == {torch.float16}
    torch.testing.assert_close(half(ids).logits.float(), 2 * expected, atol=0.1, rtol=0)


def test_two_names_for_one_thing_have_to_agree(source, tmp_path):
    edit(source, lambda loaded: loaded["model_config"].update(hidden_dim=64))
    assert read_checkpoint(source).config.hidden_size == 64
    edit(source, lambda loaded: loaded["model_config"].update(hidden_dim=32))
    refused(source, tmp_path / "out", "d_model and hidden_dim")


def refused(source, target, *parts, force=False):
    """The conversion is refused in one line that holds `parts`, and leaves the target and its siblings as they were."""
    before = sorted(target.parent.iterdir()) if target.parent.is_dir() else None
    with pytest.raises(UserError) as caught:
        convert_checkpoint(source, target, force=force)
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert before == (sorted(target.parent.iterdir()) if target.parent.is_dir() else None)


def test_a_file_that_is_missing_or_only_named_pt_is_refused_by_name(source, tmp_path):
    refused(source / "none.pt", tmp_path / "out", "none.pt", "does not exist")
    (source / "notes.pt").write_text("not weights\n" * 9)
    refused(source / "notes.pt", tmp_path / "out", "notes.pt", "not a torch checkpoint")


@pytest.mark.parametrize("size", [0, 1, 100, 5000, 65536, 700000, -1])
def test_a_file_cut_off_anywhere_is_called_truncated_or_damaged(source, tmp_path, size):
    whole = (source / "final_model.pt").read_bytes()
    (source / "final_model.pt").write_bytes(whole[:size])
    refused(source, tmp_path / "out", "final_model.pt", "truncated or damaged")


def test_the_places_that_were_searched_are_named(source, tmp_path):
    (source / "model.yaml").unlink()
    refused(source / "best.pt", tmp_path / "out", "model.yaml", "config.yaml", "best.yaml", repr(str(source)))
    (source / "tokenizer.json").unlink()
    refused(source, tmp_path / "out", repr(str(source)), repr(str(tmp_path)))


@pytest.mark.parametrize("content", ["a: [", "- a", "d_model: 64", "vocab_size: many", "vocab_size: 71\nnum_layers: 9"])
def test_an_unusable_model_yaml_is_refused_by_name(source, tmp_path, content):
    (source / "model.yaml").write_text(content)
    refused(source / "best.pt", tmp_path / "out", "model.yaml")


def test_no_refused_target_is_changed(source, tmp_path):
    file = tmp_path / "file"
    file.write_text("kept")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("kept")
    refused(source, file, "is a file")
    refused(source, file / "inside" / "deeper", "lies inside the file")
    refused(source, full, "is not empty")
    refused(source, source, "holds the checkpoint", force=True)
    folder = convert_checkpoint(source, tmp_path / "converted")
    refused(folder, tmp_path / "again", "Hugging Face model folder already")
    assert [(path.name, path.read_text()) for path in full.iterdir()] == [("mine.txt", "kept")]
    assert file.read_text() == "kept"


def test_a_model_that_cannot_be_written_leaves_the_old_folder_whole(source, tmp_path, monkeypatch):
    folder = convert_checkpoint(source, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FundamentaLLMForCausalLM, "save_pretrained", fail)
    refused(source, folder, "No space left on device", force=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", NAMES)
def test_nothing_written_or_told_names_a_place_on_this_machine(name, tmp_path):
    folder = convert_checkpoint(FIXTURES / name / "final_model.pt", tmp_path / "out")
    places = [str(place) for place in (tmp_path, FIXTURES, Path.home(), Path(sys.prefix)) if len(place.parts) > 1]
    for path in folder.glob("*.json"):
        assert not [place for place in places if place in path.read_text()]
    told = json.dumps(read_checkpoint(FIXTURES / name / "final_model.pt").provenance)
    assert not re.search(r"[/~]|\\\\|_path|_dir", told)
