"""The Generator: one settings object, one pipeline, the same text from every method."""

from contextlib import contextmanager
from itertools import pairwise, product

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from fundamentallm_hf import FundamentaLLMConfig, FundamentaLLMForCausalLM, Generator, UserError
from fundamentallm_hf.model_io.tokenizer import build_tokenizer, character_vocabulary

pytestmark = pytest.mark.core

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


@contextmanager
def ending_with(model, token):
    """Another end-of-text token for a while; None is none."""
    kept = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = token
    try:
        yield
    finally:
        model.generation_config.eos_token_id = kept


def test_the_guides_script_runs(shakespeare):
    generator = Generator(shakespeare, temperature=0.8)
    for prompt in ("The dragon", "In the forest", "A mysterious letter"):
        output = generator.generate(prompt, max_tokens=30)
        assert output.startswith(prompt)
        assert len(output) == len(prompt) + 30


def test_a_seed_repeats_the_text_and_another_one_changes_it(generator):
    texts = [generator.generate("To be", **{**SAMPLED, "seed": seed}) for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]


def test_asking_again_and_again_is_not_counted_as_a_job_for_a_data_set(generator):
    for _ in range(3):
        generator.generate("ROMEO:", max_tokens=1)
    assert generator.pipeline.call_count == 1


def test_without_a_seed_the_completion_names_the_one_that_repeats_it(generator):
    first = generator.complete("To be", temperature=1.5, max_tokens=20)[0]
    assert generator.complete("To be", temperature=1.5, max_tokens=20, seed=first.seed)[0] == first


def test_each_sample_of_several_prompts_comes_out_the_same_alone(generator):
    together = generator.complete(["To be", "KING: My lord,"], num_samples=3, **SAMPLED)
    assert [completion.prompt for completion in together] == ["To be"] * 3 + ["KING: My lord,"] * 3
    for completion in together:
        assert generator.complete(completion.prompt, **{**SAMPLED, "seed": completion.seed})[0] == completion


def test_a_file_of_words_is_read_once_for_all_batches(generator, tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("the\n", encoding="utf-8")
    batches = generator.iterate(["To be", "To be"], rows=1, bad_words_file=str(file), temperature=0, max_tokens=8)
    (first,) = next(batches)
    file.unlink()
    ((second,),) = batches
    assert first == second
    assert "the" not in first.completion.split()


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
    with ending_with(shakespeare, newline):
        completion = generator.complete("To be", max_tokens=2000, seed=0)[0]
        longer = generator.complete("To be", max_tokens=2000, seed=0, min_tokens=completion.tokens + 1)[0]
    assert completion.finish_reason == "eos"
    assert "\n" not in completion.completion
    assert completion.tokens == len(completion.completion)
    assert longer.tokens > completion.tokens
    assert longer.completion.startswith(completion.completion)


def test_a_text_ends_before_the_first_stop_text_in_every_row(generator):
    settings = {**SAMPLED, "num_samples": 3, "max_tokens": 60}
    prompts, stops = ["To be", "KING: My lord,"], ["he ", "th", "an"]
    whole = [completion.completion for completion in generator.complete(prompts, **settings)]
    for text, stopped in zip(whole, generator.complete(prompts, stop=stops, **settings), strict=True):
        end = min(text.find(stop) for stop in stops if stop in text)
        assert (stopped.completion, stopped.tokens, stopped.finish_reason) == (text[:end], end, "stop")


def test_a_stop_text_counts_behind_the_tokens_that_have_to_be_added(generator):
    whole = generator.complete("To be", temperature=0, max_tokens=40)[0].completion
    assert whole.startswith(" the the the")
    for least, end in ((0, 0), (1, 4), (4, 4), (5, 8)):
        completion = generator.complete("To be", temperature=0, max_tokens=40, stop=" t", min_tokens=least)[0]
        assert completion.completion == whole[:end]
        assert "".join(generator.stream("To be", temperature=0, stop=" t", min_tokens=least)) == whole[:end]


def test_a_stop_text_in_the_prompt_does_not_count_but_one_that_ends_behind_it_does(generator):
    settings = {"temperature": 0, "max_tokens": 8}
    assert generator.complete("To be", stop=["be", "To"], **settings)[0].completion == " the the"
    for stop in ("be t", "e "):
        completion = generator.complete("To be", stop=stop, **settings)[0]
        assert (completion.completion, completion.tokens, completion.finish_reason) == ("", 0, "stop")
        assert list(generator.stream("To be", stop=stop, **settings)) == []


@pytest.mark.parametrize("stop", ["e", "the th", ["e th", "z"], "zzz", " ", ["\n\n", "e,"]])
def test_the_stream_never_hands_over_what_a_stop_text_cuts_off(generator, stop):
    for seed in range(3):
        settings = {"temperature": 0.8, "max_tokens": 40, "stop": stop, "seed": seed}
        stream = generator.stream("To be", **settings)
        assert "".join(stream) == stream.result.completion
        assert stream.result == generator.complete("To be", **settings)[0]


def test_a_stop_text_the_model_cannot_write_is_named_and_ends_nothing(shakespeare):
    notices = []
    completion = Generator(shakespeare, notice=notices.append).complete("To be", stop=["~"], max_tokens=5)[0]
    assert (completion.tokens, completion.finish_reason) == (5, "length")
    assert "no token for '~'" in notices[0]


def test_stop_texts_need_no_letters_in_the_vocabulary():
    text = "1984, 2001: 365"
    vocabulary = character_vocabulary([text])
    torch.manual_seed(0)
    config = FundamentaLLMConfig(vocab_size=len(vocabulary), hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    generator = Generator(FundamentaLLMForCausalLM(config).eval(), build_tokenizer(vocabulary, 16), seed=0)
    whole = generator.complete(text, max_tokens=8)[0].completion
    stop = whole[4:6]
    assert generator.complete(text, max_tokens=8, stop=stop)[0].completion == whole[: whole.index(stop)]


def test_min_tokens_above_max_tokens_are_refused_before_any_work(generator):
    with pytest.raises(UserError, match="min-tokens is 9, but max-tokens ends the text at 8"):
        generator.stream("To be", min_tokens=9, max_tokens=8)


def test_enough_beams_find_the_likeliest_of_all_texts(generator, shakespeare):
    tokenizer, vocabulary = generator.tokenizer, shakespeare.config.vocab_size
    prompt = tokenizer("My lord", return_tensors="pt").input_ids
    pairs = torch.tensor(list(product(range(vocabulary), repeat=2)))
    logits = shakespeare(torch.cat([prompt.repeat(vocabulary, 1), torch.arange(vocabulary)[:, None]], dim=1)).logits
    first, second = logits.log_softmax(-1)[:, -2:].unbind(1)
    best = (first[0][:, None] + second).flatten().argmax()
    completions = generator.complete("My lord", beam_size=vocabulary, max_tokens=2, num_samples=2)
    assert completions[0].completion == tokenizer.decode(pairs[best])
    assert completions[0].completion != generator.complete("My lord", temperature=0, max_tokens=2)[0].completion
    assert completions[1].completion != completions[0].completion


def test_beam_search_is_the_same_every_time_alone_and_in_a_batch(generator):
    together = generator.complete(["To be", "KING: My lord,"], beam_size=3, num_samples=2, max_tokens=20, seed=1)
    assert {completion.seed for completion in together} == {None}
    for completion in together:
        assert completion in generator.complete(completion.prompt, beam_size=3, num_samples=2, max_tokens=20)


def test_sampled_beams_repeat_with_their_seed_and_leave_torchs_stream_alone(generator):
    def write(**settings):
        return generator.complete(["To be", "My"], beam_size=3, num_samples=2, temperature=1, max_tokens=20, **settings)

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = write()
    assert torch.equal(torch.get_rng_state(), before)
    assert len({completion.seed for completion in first}) == 1
    torch.manual_seed(2)
    assert write(seed=first[0].seed) == first
    assert write(seed=first[0].seed + 1) != first


def test_top_k_alone_samples_the_beams(generator):
    texts = {generator.generate("To be", beam_size=2, top_k=5, max_tokens=20, seed=seed) for seed in range(4)}
    assert len(texts) > 1


def test_more_samples_than_beams_are_refused(generator):
    with pytest.raises(UserError, match="num-samples is 3, but a beam-size of 2"):
        generator.complete("To be", beam_size=2, num_samples=3)


def test_a_stream_with_beams_hands_over_the_whole_at_the_end(generator):
    settings = {"beam_size": 3, "max_tokens": 20, "stop": "ha"}
    stream = generator.stream("To be", **settings)
    assert list(stream) == [stream.result.completion]
    assert stream.result == generator.complete("To be", **settings)[0]


def test_closing_a_stream_with_beams_ends_the_computation(generator):
    stream = generator.stream("To be", beam_size=2, max_tokens=10_000)
    stream.close()
    assert stream.result.finish_reason == "interrupted"


@pytest.mark.parametrize("end", ["<EOS>", None])
def test_beams_of_different_lengths_all_end_at_the_window(generator, shakespeare, end):
    token = end and generator.tokenizer.convert_tokens_to_ids(end)
    with ending_with(shakespeare, token):
        completions = generator.complete(
            ["To be", "My lord"], beam_size=2, num_samples=2, overflow="stop", max_tokens=500
        )
    assert [(each.finish_reason, each.tokens) for each in completions] == [("window", 123)] * 2 + [("window", 121)] * 2


@pytest.mark.parametrize(("settings", "reason"), [({}, "eos"), ({"stop": "\nHam."}, "eos"), ({"stop": "am"}, "stop")])
def test_beams_tell_an_end_of_text_from_a_stop_text(generator, shakespeare, settings, reason):
    with ending_with(shakespeare, generator.tokenizer(".").input_ids[0]):
        first, *others = generator.complete("'tis true.", beam_size=3, num_samples=3, max_tokens=12, **settings)
    assert first.finish_reason == reason
    assert all(each.tokens == len(each.completion) for each in (first, *others))
    assert all((each.finish_reason == "length") == (each.tokens == 12) for each in (first, *others))


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


@pytest.mark.parametrize("seed", range(6))
def test_stop_texts_work_across_tokens_of_several_bytes(gpt2, seed):
    generator = Generator(gpt2, max_tokens=20, temperature=1.3, seed=seed)
    with ending_with(gpt2, None):
        whole = generator.complete("once upon é")[0].completion
        stop = next(pair for pair in map("".join, pairwise(whole[8:])) if "\ufffd" not in pair)
        stopped = generator.complete("once upon é", stop=stop)[0]
        assert "".join(generator.stream("once upon é", stop=stop)) == stopped.completion
        assert (stopped.completion, stopped.finish_reason) == (whole[: whole.index(stop)], "stop")
        for tokens, enough in ((stopped.tokens, True), (stopped.tokens - 1, False)):
            text = generator.complete("once upon é", max_tokens=tokens)[0].completion
            assert text.startswith(stopped.completion) is enough


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"seed": 1}, {"beam_size": 2}])
def test_every_prompt_of_another_model_ends_at_its_window(gpt2, settings):
    with ending_with(gpt2, None):
        completions = Generator(gpt2, max_tokens=100, **settings).complete(["a", "once upon a time"])
    room = [32 - len(ids) for ids in gpt2.tokenizer(["a", "once upon a time"]).input_ids]
    assert [(each.finish_reason, each.tokens) for each in completions] == [("window", tokens) for tokens in room]


def test_another_model_stops_at_its_window_and_cannot_slide(gpt2):
    generator = Generator(gpt2, temperature=0, max_tokens=100)
    completion = generator.complete("a")[0]
    assert completion.finish_reason == "window" or completion.finish_reason == "eos"
    assert completion.tokens <= 31
    with pytest.raises(UserError, match="cannot slide"):
        generator.complete("a", overflow="slide")


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 1.2e-38, 5e-324])
def test_the_smallest_temperatures_are_greedy(shakespeare, temperature):
    def written(temperature):
        return Generator(shakespeare, temperature=temperature, max_tokens=12, seed=3).generate("KING: the")

    assert written(temperature) == written(0)
