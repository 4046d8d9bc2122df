"""Predicting a character model's next word: what is learned, the file, and the command."""

import math

import pytest
import torch
from click.testing import CliRunner
from small_models import byte_level_gpt2
from transformers.utils import logging
from writing import whole_texts

from fundamentallm_hf import FundamentaLLMForCausalLM, UserError, load_model
from fundamentallm_hf.cli.main import cli
from fundamentallm_hf.model_io.model_folder import write_model_folder
from fundamentallm_hf.portable.decoding.next_words import NextWords
from fundamentallm_hf.portable.decoding.sidecar_files import own_next_words
from fundamentallm_hf.portable.decoding.sidecar_names import NEXT_WORDS_FILE
from fundamentallm_hf.portable.text.word_counts import WordCounts
from fundamentallm_hf.training.next_word_training import add_next_words, classes_of, fit_next_words, read_words

STORY = "Once upon a time there was a little girl named Lily. She saw a big red ball and a small dog in the park. "


@pytest.fixture(scope="module")
def stories():
    return load_model(device="cpu")


def test_the_state_before_each_word_is_read_with_its_class(stories):
    classes = ["girl", "little", "a*", "d*", "l*", "s*"]
    text = STORY * 10
    states, targets = read_words(stories, text, classes)
    assert states.shape == (len(targets), stories.config.hidden_size)
    found = [classes[target] for target in targets]
    assert found.count("girl") in (9, 10)
    assert set(found) == {"girl", "little", "a*", "d*", "l*", "s*"}
    # The state is that of the model at the space before the word.
    start = text.index("little", 16)
    with torch.no_grad():
        ids = stories.tokenizer(text[:512], return_tensors="pt").input_ids
        expected = stories.model(ids).last_hidden_state[0, start - 1]
    assert torch.allclose(states[found.index("little")].float(), expected, atol=0.02, rtol=0.02)


def test_words_are_learned_and_the_rest_of_a_letter_is_shared():
    generator = torch.Generator().manual_seed(0)
    classes = classes_of(WordCounts({"dog": 9, "cat": 5, "day": 2, "cow": 1}), classes=2)
    assert classes == ["cat", "dog", "c*", "d*"]
    targets = torch.randint(4, (4000,), generator=generator)
    states = torch.eye(4)[targets] * 3 + 0.1 * torch.randn(4000, 4, generator=generator)
    found, loss = fit_next_words(states.half(), targets, classes, width=16)
    assert loss < 0.3
    assert found.logits(torch.eye(4) * 3).argmax(dim=-1).tolist() == [0, 1, 2, 3]
    noise, of_noise = fit_next_words(torch.randn(4000, 4, generator=generator), targets, classes, width=16)
    assert math.log(4) - 0.05 < of_noise < math.log(4) + 0.05
    assert noise.classes == classes


def test_the_command_writes_a_file_that_travels_with_the_model(stories, tmp_path):
    folder = write_model_folder(tmp_path / "model", stories, stories.tokenizer)
    (folder / NEXT_WORDS_FILE).unlink(missing_ok=True)
    (tmp_path / "text.txt").write_text(STORY * 40, encoding="utf-8")
    result = CliRunner().invoke(cli, ["draft", str(folder), str(tmp_path / "text.txt"), "--next-words"])
    assert result.exit_code == 0, result.output
    assert f"{folder / NEXT_WORDS_FILE}: " in result.output
    model = FundamentaLLMForCausalLM.from_pretrained(folder)
    found = own_next_words(model)
    assert "girl" in found.classes
    model.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / NEXT_WORDS_FILE).read_bytes() == (folder / NEXT_WORDS_FILE).read_bytes()


def test_what_cannot_be_learned_from_is_refused(stories, tmp_path):
    folder = write_model_folder(tmp_path / "model", stories, stories.tokenizer)
    told = []
    with pytest.raises(UserError, match="200 are needed"):
        add_next_words(folder, STORY * 5, lambda *how: told.append(how))
    assert told == [(1, 1)]
    other = byte_level_gpt2()
    other.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="for character models only"):
        add_next_words(tmp_path / "other", STORY * 40)


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", "narrow"])
def test_a_file_that_cannot_be_used_costs_a_warning_and_no_text(content, stories, tmp_path, caplog):
    folder = write_model_folder(tmp_path / "model", stories, stories.tokenizer)
    if content == "narrow":
        NextWords(["a"], torch.zeros(2, 3), torch.zeros(2), torch.zeros(1, 2), torch.zeros(1)).save(
            folder / NEXT_WORDS_FILE
        )
    else:
        (folder / NEXT_WORDS_FILE).write_bytes(content)
    model = FundamentaLLMForCausalLM.from_pretrained(folder)
    model.tokenizer = stories.tokenizer
    logging.enable_propagation()
    assert own_next_words(model) is None
    assert NEXT_WORDS_FILE in caplog.text
    assert whole_texts(model, ["Tom"], max_new_tokens=8, word_weights={"dog": 2}, do_sample=False)
