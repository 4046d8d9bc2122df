"""The Generator: one settings object, one pipeline, the same text from every form of it."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from fundamentallm_hf import Generator, UserError

SAMPLED = {"seed": 3, "max_tokens": 20, "temperature": 0.8}


@pytest.fixture(scope="module")
def generator(shakespeare):
    return Generator(shakespeare, notice=lambda text: None)


@pytest.fixture(scope="module")
def gpt2():
    """A random model with another architecture and a byte-level tokenizer."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<eos>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator(["once upon a time there was a small cat é"] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>")
    tokenizer.padding_side = "left"
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=32, eos_token_id=0, bos_token_id=0
    )
    model = GPT2LMHeadModel(config).eval()
    model.tokenizer = tokenizer
    return model


def test_the_guides_script_runs(shakespeare):
    generator = Generator(shakespeare, temperature=0.8)
    for prompt in ("The dragon", "In the forest", "A mysterious letter"):
        output = generator.generate(prompt, max_tokens=30)
        assert output.startswith(prompt)
        assert len(output) == len(prompt) + 30


def test_a_seed_repeats_the_text_and_another_one_changes_it(generator):
    texts = [generator.generate("To be", **{**SAMPLED, "seed": seed}) for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]


def test_without_a_seed_the_completion_names_the_one_that_repeats_it(generator):
    first = generator.complete("To be", temperature=1.5, max_tokens=20)[0]
    assert generator.complete("To be", temperature=1.5, max_tokens=20, seed=first.seed)[0] == first


def test_each_sample_of_several_prompts_comes_out_the_same_alone(generator):
    together = generator.complete(["To be", "KING: My lord,"], num_samples=3, **SAMPLED)
    assert [completion.prompt for completion in together] == ["To be"] * 3 + ["KING: My lord,"] * 3
    for completion in together:
        assert generator.complete(completion.prompt, **{**SAMPLED, "seed": completion.seed})[0] == completion


def test_the_stream_gives_the_same_text_piece_by_piece(generator):
    whole = generator.complete("To be", **SAMPLED)[0]
    with generator.stream("To be", **SAMPLED) as stream:
        pieces = list(stream)
    assert len(pieces) == 20
    assert "".join(pieces) == whole.completion
    assert stream.result == whole


def test_closing_the_stream_ends_the_computation(generator):
    stream = generator.stream("To be", max_tokens=1_000_000)
    next(iter(stream))
    stream.close()
    assert stream.result.finish_reason == "interrupted"
    assert stream.result.tokens < 1000


def test_an_error_in_the_work_reaches_whoever_iterates(generator):
    with pytest.raises(UserError, match="do not fit"):
        list(generator.stream("To be", overflow="error", max_tokens=500))


def test_temperature_zero_is_greedy_and_needs_no_seed(generator):
    completion = generator.complete("To be", temperature=0, max_tokens=8)[0]
    assert completion.completion == " the the"
    assert completion.seed is None


def test_top_k_one_is_greedy_whatever_the_temperature(generator):
    greedy = generator.generate("To be", temperature=0, max_tokens=30)
    assert generator.generate("To be", temperature=2, top_k=1, max_tokens=30) == greedy


def test_several_greedy_samples_are_refused(generator):
    with pytest.raises(UserError, match="at temperature 0 all samples are the same"):
        generator.complete("To be", temperature=0, num_samples=2)


@pytest.mark.parametrize(
    ("settings", "reason", "tokens"),
    [({"max_tokens": 9}, "length", 9), ({"max_tokens": 500, "overflow": "stop"}, "window", 128 - 5)],
)
def test_the_finish_reason_says_why_the_text_ended(generator, settings, reason, tokens):
    completion = generator.complete("To be", **settings)[0]
    assert (completion.finish_reason, completion.tokens) == (reason, tokens)


def test_an_end_of_text_token_ends_the_text_and_is_not_part_of_it(shakespeare):
    generator = Generator(shakespeare)
    newline = generator.tokenizer("\n").input_ids[0]
    kept = shakespeare.generation_config.eos_token_id
    shakespeare.generation_config.eos_token_id = newline
    try:
        completion = generator.complete("To be", max_tokens=2000, seed=0)[0]
    finally:
        shakespeare.generation_config.eos_token_id = kept
    assert completion.finish_reason == "eos"
    assert "\n" not in completion.completion
    assert completion.tokens == len(completion.completion)


def test_unknown_characters_are_named_once(shakespeare):
    notices = []
    generator = Generator(shakespeare, notice=notices.append, max_tokens=1)
    generator.generate("a~b@")
    generator.generate("~")
    assert len(notices) == 1
    assert "'~' '@'" in notices[0]


def test_the_default_notice_is_a_warning(shakespeare):
    with pytest.warns(UserWarning, match="no token for '~'"):
        Generator(shakespeare, max_tokens=1).generate("~")


def test_an_empty_prompt_and_an_empty_batch_work(generator):
    assert len(generator.generate("", max_tokens=5, seed=0)) == 5
    assert generator.complete([]) == []


def test_the_stock_pipeline_takes_the_same_controls(shakespeare):
    from transformers import pipeline

    pipe = pipeline("text-generation", model=shakespeare, tokenizer=shakespeare.tokenizer)
    arguments = {"max_new_tokens": 20, "do_sample": True, "temperature": 0.8, "top_k": 0, "top_p": 1.0, "seed": 3}
    text = pipe("To be", **arguments)[0]["generated_text"]
    assert text == Generator(shakespeare).generate("To be", **SAMPLED)


def test_any_causal_model_works_with_seeds_batches_and_streams(gpt2):
    generator = Generator(gpt2, max_tokens=12, temperature=1.3, top_k=40, top_p=0.95, seed=5)
    together = generator.complete(["once upon", "a"], num_samples=2)
    for completion in together:
        alone = generator.complete(completion.prompt, seed=completion.seed)[0]
        assert alone == completion
        assert "".join(generator.stream(completion.prompt, seed=completion.seed)) == completion.completion


def test_another_model_stops_at_its_window_and_cannot_slide(gpt2):
    generator = Generator(gpt2, temperature=0, max_tokens=100)
    completion = generator.complete("a")[0]
    assert completion.finish_reason == "window" or completion.finish_reason == "eos"
    assert completion.tokens <= 31
    with pytest.raises(UserError, match="cannot slide"):
        generator.complete("a", overflow="slide")
