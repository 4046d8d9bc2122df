"""The control layer: fields of the generation config that work in every interface, and clear errors."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, pipeline

from fundamentallm_hf import FundamentaLLMConfig, FundamentaLLMForCausalLM, load_model
from fundamentallm_hf.model_io.loading import DEMO_MODEL
from fundamentallm_hf.model_io.model_folder import write_model_folder
from fundamentallm_hf.portable.controls.control_fields import CONTROL_FIELDS, fold_into_config

pytestmark = pytest.mark.core

HOW = {"max_new_tokens": 60, "do_sample": True, "temperature": 0.8, "top_k": 0, "top_p": 1.0, "seed": 4}
BANNED = ["the", "was", "little", "lil*"]


@pytest.fixture(scope="module")
def demo():
    return load_model(device="cpu")


@pytest.fixture
def ids(demo):
    return demo.tokenizer("Once upon a time", return_tensors="pt").input_ids


def written(demo, ids, **how):
    return demo.tokenizer.decode(demo.generate(ids, **how)[0], skip_special_tokens=True)


def test_a_call_without_controls_is_left_as_it_is(demo):
    kwargs = {"max_new_tokens": 3, "attention_mask": None}
    config, rest = fold_into_config(None, kwargs, demo)
    assert config is None
    assert rest is kwargs


def test_controls_act_as_keywords_as_a_config_and_from_the_stored_config_alike(demo, ids, tmp_path):
    expected = written(demo, ids, bad_words=BANNED, **HOW)
    assert expected != written(demo, ids, **HOW)
    config = GenerationConfig(**HOW, bad_words=BANNED, eos_token_id=3, pad_token_id=0)
    assert written(demo, ids, generation_config=config) == expected

    folder = write_model_folder(tmp_path / "model", demo, demo.tokenizer)
    stored = GenerationConfig.from_pretrained(folder)
    stored.bad_words = BANNED
    stored.save_pretrained(folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.generation_config.bad_words == BANNED
    assert written(demo, ids, generation_config=loaded.generation_config, **HOW) == expected
    # It has no tokenizer attached, so it finds its own and the word counts beside the weights.
    out = loaded.generate(ids, **HOW)
    assert demo.tokenizer.decode(out[0], skip_special_tokens=True) == expected


def test_the_stock_pipeline_carries_controls(demo, ids):
    pipe = pipeline("text-generation", model=str(DEMO_MODEL), device="cpu")
    text = pipe("Once upon a time", bad_words=BANNED, **HOW)[0]["generated_text"]
    assert text == written(demo, ids, bad_words=BANNED, **HOW)


def test_a_generation_config_from_json_carries_controls(demo, ids):
    """What `transformers serve` does with the `generation_config` of a request."""
    config = GenerationConfig(**GenerationConfig(**HOW, bad_words=BANNED).to_dict())
    text = demo.generate(ids, generation_config=config, tokenizer=demo.tokenizer)[0]
    assert demo.tokenizer.decode(text, skip_special_tokens=True) == written(demo, ids, bad_words=BANNED, **HOW)


def test_a_list_may_be_one_text(demo, ids):
    assert written(demo, ids, bad_words="the, was,little , lil*", **HOW) == written(demo, ids, bad_words=BANNED, **HOW)


def test_the_callers_config_stays_as_it_was(demo, ids):
    config = GenerationConfig(max_new_tokens=2, do_sample=False)
    before = config.to_dict()
    demo.generate(ids, generation_config=config, bad_words=["the"])
    assert config.to_dict() == before
    assert not any(getattr(demo.generation_config, name, None) for name in CONTROL_FIELDS)


@pytest.mark.parametrize(
    ("control", "message"),
    [
        ({"bad_words": [1]}, "bad_words has to be a list of texts but holds 1"),
        ({"bad_words": 5}, "bad_words has to be a list of texts but"),
        ({"bad_words": ["*"]}, "an entry has to hold a character that can be seen but is '\\*'"),
        ({"bad_words": ["/(/"]}, r"\(.*missing \)"),
        ({"bad_words": ["/a*/"]}, "matches the empty text"),
        ({"repetition_unit": "letters"}, "repetition_unit has to be one of words, tokens but is 'letters'"),
        ({"repetition_penalty": -1.0}, "has to be a"),
    ],
)
def test_a_control_that_cannot_be_is_refused_before_anything_is_computed(demo, ids, control, message, monkeypatch):
    monkeypatch.setattr(demo.model, "forward", lambda *args, **kwargs: pytest.fail("the model was run"))
    with pytest.raises(ValueError, match=message):
        demo.generate(ids, max_new_tokens=2, **control)


def test_a_model_without_a_tokenizer_says_what_to_pass():
    model = FundamentaLLMForCausalLM(
        FundamentaLLMConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    ids = torch.tensor([[4, 5]])
    with pytest.raises(ValueError, match="has no tokenizer: pass tokenizer="):
        model.generate(ids, max_new_tokens=2, bad_words=["a"])
    # A penalty can be had over tokens, as in transformers.
    assert model.generate(ids, max_new_tokens=2, repetition_penalty=1.2).shape[1] <= 4


def test_stop_strings_need_no_tokenizer_to_be_passed(demo, ids):
    text = written(demo, ids, max_new_tokens=200, do_sample=False, stop_strings=["."])
    assert text.endswith(".")
    assert text.count(".") == 1


@pytest.mark.parametrize("mode", [{"do_sample": True, "seed": 0, "num_return_sequences": 8}, {"do_sample": False}])
def test_a_length_penalty_shifts_the_odds_of_an_end(demo, ids, mode):
    def length(penalty):
        out = demo.generate(ids, max_new_tokens=900, length_penalty=penalty, **mode)
        return (out != demo.tokenizer.pad_token_id).sum().item() / len(out)

    assert length(0.0) < length(1.0) < length(2.0)


def test_the_shift_of_the_odds_is_a_hundredth_for_each_point(demo, ids):
    scores = {}
    for penalty in (1.0, 1.5):
        out = demo.generate(
            ids,
            max_new_tokens=1,
            do_sample=False,
            length_penalty=penalty,
            output_scores=True,
            return_dict_in_generate=True,
        )
        scores[penalty] = out.scores[0][0]
    difference = scores[1.5] - scores[1.0]
    assert float(difference[3]) == pytest.approx(-0.5 * math.log(100), rel=1e-4)
    assert float(difference[4:].abs().max()) == 0


def test_a_model_that_cannot_end_says_that_a_length_penalty_does_nothing(shakespeare, caplog):
    ids = shakespeare.tokenizer("To be", return_tensors="pt").input_ids
    with caplog.at_level("WARNING", logger="transformers"):
        shakespeare.generate(ids, max_new_tokens=2, do_sample=False, length_penalty=2.0)
    assert "has no effect: the model has no end-of-text token" in caplog.text


def test_what_was_compiled_from_counts_is_gone_with_them_and_never_taken_for_others(demo):
    from fundamentallm_hf.portable.decoding.generate_call import _COMPILED, Call
    from fundamentallm_hf.portable.text.word_counts import WordCounts

    call = Call(demo, demo.generation_config, None, torch.zeros(1, 1, dtype=torch.long), [0], None, demo.tokenizer)
    for number in range(50):  # so many that one has the id of another that is gone
        counts = WordCounts({"dragon": number + 1})
        assert call.kept("words", lambda counts=counts: dict(counts.counts), of=counts) == {"dragon": number + 1}
        assert call.kept("words", lambda: pytest.fail("made twice"), of=counts) == {"dragon": number + 1}
        del counts
    call.kept("others", dict)
    assert [key for key in _COMPILED[demo.tokenizer] if key[0] == "words"] == []
