"""Steering vectors: how they act in models of several families, in every mode, and in their own call alone."""

import threading

import pytest
import torch
from opposite_texts import GLAD, GRIM
from small_models import byte_level_gpt2, sentencepiece_llama
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from writing import token_ids as run
from writing import whole_texts as texts

from fundamentallm_hf import Attribute, AttributeSource, Generator, UserError, load_model, train_attribute
from fundamentallm_hf.generation.batcher import Batcher
from fundamentallm_hf.portable.decoding.steering import Steering, decoder_layers
from fundamentallm_hf.portable.errors import UsageError
from fundamentallm_hf.portable.guides.signed_tensors import SignedTensors
from fundamentallm_hf.portable.guides.steering_vectors import SteeringVectors
from fundamentallm_hf.training.steering_training import UNIT, train_steering
from fundamentallm_hf.training.text_sides import HELD_OUT
from fundamentallm_hf.training.text_states import Passage, Reader

pytestmark = pytest.mark.core

PROMPTS = ["once upon a time", "a", "the small cat in the"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "eos_token_id": 0, "bos_token_id": 0}
MODES = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0, "seed": 3},
    "several": {"do_sample": True, "temperature": 1.2, "seed": 3, "num_return_sequences": 2},
    "beams": {"num_beams": 3, "do_sample": False},
    "no cache": {"do_sample": False, "use_cache": False},
}
MODES = {name: how | {"max_new_tokens": 12} for name, how in MODES.items()}


def of_family(kind, config):
    """A random model of another architecture, with the tokenizer of `byte_level_gpt2`."""
    other = byte_level_gpt2()
    torch.manual_seed(0)
    model = kind(config(vocab_size=len(other.tokenizer), **SMALL)).eval()
    model.tokenizer, model.generation_config.pad_token_id = other.tokenizer, other.tokenizer.pad_token_id
    return model


FAMILIES = {
    "fundamentallm": lambda: load_model(device="cpu"),
    "gpt2": byte_level_gpt2,
    "llama": sentencepiece_llama,
    "neox": lambda: of_family(GPTNeoXForCausalLM, lambda **how: GPTNeoXConfig(intermediate_size=32, **how)),
    "opt": lambda: of_family(OPTForCausalLM, lambda **how: OPTConfig(ffn_dim=32, word_embed_proj_dim=16, **how)),
    "falcon": lambda: of_family(FalconForCausalLM, lambda **how: FalconConfig(**how)),
    "qwen2": lambda: of_family(
        Qwen2ForCausalLM, lambda **how: Qwen2Config(intermediate_size=32, num_key_value_heads=1, **how)
    ),
}


def drawn(model, seed, size=1.0):
    """A random vector for each of two layers, or for the only one."""
    generator = torch.Generator().manual_seed(seed)
    layers = len(decoder_layers(model))
    return {
        layer: torch.randn(model.config.get_text_config().hidden_size, generator=generator) * size
        for layer in {0, layers // 2}
    }


def attribute(model, vectors):
    return Attribute("steering", vectors=SteeringVectors.of_model(model, vectors).to_bytes())


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=FAMILIES)
def model(request):
    found = request.param()
    found.vectors = {name: drawn(found, seed) for seed, name in enumerate(("one", "two", "three"))}
    found.attributes = {name: attribute(found, each) for name, each in found.vectors.items()}
    return found


@pytest.fixture(scope="module")
def demo():
    return load_model(device="cpu")


def by_hand(model, vectors, **how):
    """The tokens of a model whose layers have been changed for good: the shift is part of each layer's output."""

    def shifted(vector):
        def shift(_, __, output):
            return (output[0] + vector, *output[1:]) if isinstance(output, tuple) else output + vector

        return shift

    layers = decoder_layers(model)
    handles = [layers[layer].register_forward_hook(shifted(vector)) for layer, vector in vectors.items()]
    try:
        return run(model, PROMPTS, **how)
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("how", MODES.values(), ids=MODES)
def test_every_mode_writes_what_the_changed_model_writes(model, how):
    for strength in (2.0, -1.5):
        steered = run(model, PROMPTS, guide_attribute=f"one:{strength}", **how)
        shifts = {layer: vector * strength for layer, vector in model.vectors["one"].items()}
        assert torch.equal(steered, by_hand(model, shifts, **how))
        assert not torch.equal(steered, run(model, PROMPTS, **how))


@pytest.mark.parametrize("how", [MODES["sampled"], MODES["beams"]], ids=["sampled", "beams"])
def test_several_vectors_add_up_in_any_order_and_cancel_out(model, how):
    first = run(model, PROMPTS, guide_attribute="one:2,two:-1,three:0.7", **how)
    assert torch.equal(first, run(model, PROMPTS, guide_attribute="three:0.7,one:2,two:-1", **how))
    plain = run(model, PROMPTS, **how)
    assert not torch.equal(first, plain)
    assert torch.equal(plain, run(model, PROMPTS, guide_attribute="one:0", **how))
    model.attributes["turned"] = attribute(model, {layer: -each for layer, each in model.vectors["one"].items()})
    assert torch.equal(plain, run(model, PROMPTS, guide_attribute="one:2,turned:2", **how))


@pytest.mark.parametrize("how", [MODES["greedy"], MODES["sampled"], MODES["beams"]], ids=["greedy", "sampled", "beams"])
def test_every_row_of_a_padded_batch_comes_out_as_alone(model, how):
    together = texts(model, PROMPTS, guide_attribute="one", **how)
    assert together == [texts(model, [prompt], guide_attribute="one", **how)[0] for prompt in PROMPTS]


def test_nothing_is_left_of_a_call_that_ends_or_fails(model):
    layers = decoder_layers(model)
    how = MODES["beams"] | {"guide_attribute": "one"}
    run(model, PROMPTS, **how)
    assert not any(layer._forward_hooks for layer in layers)

    class Fails:
        def __call__(self, input_ids, scores):
            assert any(layer._forward_hooks for layer in layers)
            raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        run(model, PROMPTS, logits_processor=[Fails()], **how)
    assert not any(layer._forward_hooks for layer in layers)


def test_calls_of_other_threads_on_the_same_model_are_left_alone(model):
    """Two calls take turns after every token; one is steered."""
    how = MODES["beams"] | {"min_new_tokens": 12}
    prompts = PROMPTS[:1]
    expected = {name: run(model, prompts, guide_attribute=name, **how) for name in ("one:2", "two:-2")}
    expected[""] = run(model, prompts, **how)
    barrier, found = threading.Barrier(3, timeout=60), {}

    class Waits:
        def __call__(self, input_ids, scores):
            if input_ids.shape[1] < first + 4:
                barrier.wait()
            return scores

    first = model.tokenizer(prompts, return_tensors="pt").input_ids.shape[1]

    def write(name):
        found[name] = run(model, prompts, guide_attribute=name or None, logits_processor=[Waits()], **how)

    threads = [threading.Thread(target=write, args=[name]) for name in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_loop_for_the_cpu_steers_past_the_window_with_drafts_and_next_to_words(demo):
    demo.attributes = {"one": attribute(demo, drawn(demo, 5, 0.5))}
    try:
        for more in ({}, {"must_include": ["dragon"], "bad_words": ["the"]}, {"speculate": False}):
            how = {"do_sample": False, "max_new_tokens": 60, "guide_attribute": "one:2", **more}
            prompts = ["The big dog was happy. " * 21, "Tom"]
            together = texts(demo, prompts, **how)
            assert together == [texts(demo, [prompt], **how)[0] for prompt in prompts]
            # An output object is for transformers' loop to give, whose passes call the modules.
            slow = run(demo, prompts, return_dict_in_generate=True, **how).sequences
            assert together == demo.tokenizer.batch_decode(slow, skip_special_tokens=True)
            assert together != texts(demo, prompts, **how | {"guide_attribute": None})
    finally:
        del demo.attributes


def test_requests_that_are_computed_together_keep_their_strengths(demo):
    demo.attributes = {"one": attribute(demo, drawn(demo, 5, 0.5))}
    generator = Generator(demo, notice=lambda line: None, max_tokens=25)
    settings = [
        {"guide_attribute": f"one:{strength}", "seed": 1} if strength else {"seed": 1} for strength in (0, 2, -2, 0, 1)
    ]
    try:
        expected = [generator.complete("Tom", **each)[0].text for each in settings]
        assert len(set(expected)) == 4
        running = Batcher(generator, rows=6)
        try:
            requests = [running.submit("Tom", **each) for each in settings]
            assert [each.future.result(60).text for each in requests] == expected
        finally:
            running.close()
    finally:
        del demo.attributes


def test_vectors_are_the_difference_of_mean_states(model):
    made = train_steering(model, model.tokenizer, GLAD * 2, GRIM * 2)
    assert made.texts == (12, 12)
    ((layer, vector),) = made.vectors.vectors.items()
    means = []
    for side in (GLAD, GRIM):
        states = []
        for text in [text for index, text in enumerate(sorted(side * 2, key=len)) if index % 5 != 4]:
            ids = model.tokenizer(text, return_tensors="pt").input_ids
            with torch.no_grad():
                found = model(ids, output_hidden_states=True).hidden_states
            states.append(found[layer + 1][0, 1:].mean(dim=0))
        means.append(torch.stack(states).mean(dim=0))
    if layer < len(decoder_layers(model)) - 1:  # what transformers calls the last state has passed the last norm
        assert torch.allclose(vector, (means[0] - means[1]) * UNIT, atol=2e-3)
    again = train_steering(model, model.tokenizer, GRIM * 2, GLAD * 2).vectors.vectors[layer]
    assert torch.equal(again, -vector)


def test_vectors_tell_texts_apart_and_turn_them(demo):
    made = train_steering(demo, demo.tokenizer, GLAD * 2, GRIM * 2)
    assert made.separation == 1.0
    demo.attributes = {"glad": Attribute("steering", vectors=made.vectors.to_bytes())}
    try:
        how = MODES["sampled"] | {"num_return_sequences": 12, "max_new_tokens": 120}
        count = {
            strength: sum(
                text.count("happy") - text.count("sad")
                for text in texts(demo, ["Tim was"], guide_attribute="glad", guide_strength=strength, **how)
            )
            for strength in (-4, 4)
        }
        assert count[4] > count[-4]
    finally:
        del demo.attributes


def test_a_reader_stops_after_its_layer(demo):
    calls = []
    handle = decoder_layers(demo)[-1].register_forward_hook(lambda *_: calls.append(1))
    try:
        side = Reader(demo, demo.tokenizer, layer=0).read([Passage(text) for text in GLAD], lambda *_: None)
    finally:
        handle.remove()
    assert not calls
    assert side.passages == len(GLAD)
    assert len(GLAD) > HELD_OUT


def test_vectors_of_another_model_are_refused_or_give_way_to_words(model, demo):
    other = byte_level_gpt2()
    with torch.no_grad():
        other.get_input_embeddings().weight.mul_(1.3)
    theirs = model.attributes["one"].vectors
    other.attributes = {
        "alone": Attribute("steering", vectors=theirs),
        "both": Attribute("steering", words={"cat": 3.0}, vectors=theirs),
        "words": Attribute("words", words={"cat": 3.0}),
    }
    with pytest.raises(UserError, match=r"alone: .*: make one for it with `fundamentallm train-attribute --kind steer"):
        run(other, ["once"], guide_attribute="alone")
    how = MODES["sampled"]
    both = run(other, ["once"], guide_attribute="both:2", **how)
    assert torch.equal(both, run(other, ["once"], guide_attribute="words:2", **how))
    assert SteeringVectors.from_bytes(theirs).misfit(model) is None


def test_a_model_that_cannot_be_steered_is_refused(model):
    vectors = SteeringVectors.from_bytes(model.attributes["one"].vectors)
    config = model.config.get_text_config()
    layers = config.num_hidden_layers
    config.num_hidden_layers = 77
    try:
        assert vectors.misfit(model) == (
            f"steering needs a model with one list of 77 decoder layers, and {type(model).__name__} has none"
        )
        with pytest.raises(UserError, match=r"77 decoder layers, .* has none: choose another --kind"):
            train_steering(model, model.tokenizer, GLAD, GRIM)
    finally:
        config.num_hidden_layers = layers
    layer = decoder_layers(model)[0]
    layer.compile()
    try:
        assert vectors.misfit(model) == "steering cannot act in a compiled model: load it without compile()"
    finally:
        layer._compiled_call_impl = None


def test_a_pass_that_leaves_the_layers_out_is_noticed(demo):
    steering = Steering()
    steering.add({0: torch.ones(demo.config.hidden_size)}, 1.0)
    with pytest.raises(RuntimeError, match="the text was not steered"), steering.acting(demo):
        pass
    with steering.acting(demo, has_hooks=False):
        pass
    assert not decoder_layers(demo)[0]._forward_hooks


def test_a_file_holds_the_vectors(model, tmp_path):
    kept = Attribute.load(model.attributes["one"].save(tmp_path / "one"))
    assert kept == model.attributes["one"]
    for layer, vector in SteeringVectors.from_bytes(kept.vectors).vectors.items():
        assert torch.equal(vector, model.vectors["one"][layer])
    (tmp_path / "one" / "steering.safetensors").unlink()
    with pytest.raises(UserError, match=r"cannot read the attribute .*one': No such file"):
        Attribute.load(tmp_path / "one")
    others = (
        SignedTensors({"a": torch.ones(2)}, (1.0,)).to_bytes(kind) for kind in ("fundamentallm-steering-vectors", "a")
    )
    for content in (b"", b"nothing", kept.vectors[:-9], *others):
        with pytest.raises(ValueError, match="vectors have to be a safetensors file that train-attribute has written"):
            SteeringVectors.from_bytes(content)
    with pytest.raises(UserError, match=r"kind steering has to hold them in steering.safetensors but holds none"):
        Attribute("steering")
    for vectors in ({}, {0: torch.ones(3), 1: torch.ones(4)}, {0: torch.ones(2, 2)}):
        with pytest.raises(ValueError, match="vectors of one size, at least one"):
            SteeringVectors(vectors, ())


def test_a_kind_that_cannot_be_trained_is_refused(demo):
    with pytest.raises(UsageError, match="has to be one of experts, steering but is 'prompts'"):
        train_attribute(demo, AttributeSource("glad"), kind="prompts")
