"""Pairs of experts: their training, their files, and how they guide."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opposite_texts import GLAD, GRIM
from small_models import byte_level_gpt2, sentencepiece_llama
from writing import token_ids as run
from writing import whole_texts as texts

from fundamentallm_hf import Attribute, UserError, load_model
from fundamentallm_hf.portable.guides.output_experts import ExpertPair, OutputWeights, expert_logs, output_logs
from fundamentallm_hf.portable.guides.output_states import OutputStates
from fundamentallm_hf.portable.guides.signed_tensors import SignedTensors
from fundamentallm_hf.training import text_states
from fundamentallm_hf.training.expert_training import train_experts
from fundamentallm_hf.training.text_states import Passage

pytestmark = pytest.mark.core

MODES = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0, "seed": 3},
    "several": {"do_sample": True, "temperature": 1.2, "seed": 3, "num_return_sequences": 2},
    "beams": {"num_beams": 3, "do_sample": False},
    "sampled beams": {"num_beams": 3, "do_sample": True, "temperature": 1.5},
}


def trained(model):
    """The model with a pair of experts, as an attribute and swapped."""
    made = train_experts(model, model.tokenizer, GLAD * 2, GRIM * 2, bottleneck=16)
    model.attributes = {
        "glad": Attribute("experts", experts=made.experts.to_bytes()),
        "grim": Attribute("experts", experts=made.experts.swapped().to_bytes()),
        "words": Attribute("words", "", {"happy": 1.0, "sad": -1.0}),
    }
    return model, made


@pytest.fixture(scope="module")
def demo():
    return trained(load_model(device="cpu"))[0]


@pytest.fixture(scope="module", params=[byte_level_gpt2, sentencepiece_llama])
def other(request):
    return trained(request.param())[0]


@settings(max_examples=40, deadline=None)
@given(
    hidden=st.integers(1, 9),
    bottleneck=st.integers(1, 9),
    rows=st.lists(st.integers(1, 4), max_size=2),
    seed=st.integers(0, 10**6),
)
def test_a_joined_pair_tells_what_the_two_experts_tell(hidden, bottleneck, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    pair = ExpertPair(hidden, bottleneck)
    for each in pair.parameters():
        each.data = torch.randn(each.shape, generator=generator)
    output = OutputWeights(torch.randn(7, hidden, generator=generator), torch.randn(7, generator=generator))
    states = torch.randn(*rows, hidden, generator=generator)
    having, lacking = (expert_logs(each, states, output) for each in (pair.having, pair.lacking))
    found = pair.joined(output)(states)
    assert found.shape == (*rows, 7)
    torch.testing.assert_close(found, having - lacking, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pair.swapped().joined(output)(states), -found, rtol=1e-4, atol=1e-4)


def test_experts_tell_texts_apart_that_they_have_not_seen():
    model, made = trained(load_model(device="cpu"))
    assert made.separation == 1.0
    assert made.texts == (12, 12)
    # Two of twelve are held out, and the first token of a text has nothing before it.
    assert made.tokens[0] < sum(len(text) - 1 for text in GLAD * 2)
    again = train_experts(model, model.tokenizer, GLAD * 2, GRIM * 2, bottleneck=16)
    assert again.experts.to_bytes() == made.experts.to_bytes()
    turned = train_experts(model, model.tokenizer, GRIM * 2, GLAD * 2, bottleneck=16)
    assert turned.experts.to_bytes() == made.experts.swapped().to_bytes()


def test_only_the_parts_of_a_passage_are_learnt_from():
    model = load_model(device="cpu")
    text = "Tim ran. He was happy."
    spans = [Passage(text, [(9, 22)])]
    made = train_experts(model, model.tokenizer, spans, [Passage(text, [(0, 3)])], bottleneck=4)
    assert made.tokens == (13, 2)
    assert made.separation is None


def test_an_expert_learns_the_probabilities_of_its_teacher():
    """Behind the same texts, but without the prompt, it comes closer to them than the model does."""
    model = load_model(device="cpu")
    prompts = {side: f"Everyone was {side}. " * 3 for side in ("happy", "sad")}
    opening = "Then Tim"
    texts = [
        f" {verb} to the {thing}." for verb in ("went", "ran", "came") for thing in ("park", "house", "lake", "tree")
    ]
    span = [(len(opening), len(opening) + 9)]
    sides = [[Passage(opening + text, span, prompt + opening) for text in texts] for prompt in prompts.values()]
    made = train_experts(model, model.tokenizer, *sides, bottleneck=64)
    assert made.tokens == (90, 90)

    def states(context):
        with torch.no_grad():
            ids = model.tokenizer(context + " went to", return_tensors="pt").input_ids
            return model.model(ids).last_hidden_state[0, -9:-1]

    output, plain = OutputWeights.of(model), states(opening)
    base = output_logs(plain, output)
    for adapter, prompt in zip((made.experts.having, made.experts.lacking), prompts.values(), strict=True):
        taught = output_logs(states(prompt + opening), output)
        apart = [float((taught.exp() * (taught - each)).sum()) for each in (expert_logs(adapter, plain, output), base)]
        assert apart[0] < 0.5 * apart[1]


def test_a_teacher_that_reads_other_tokens_gives_way_to_the_text(other):
    """A tokenizer may join the first letters of a text to what stands before them."""
    passages = [Passage("upon a time", [(0, 11)], teacher) for teacher in ("once ", "o", "the end of t")] * 4
    made = train_experts(other, other.tokenizer, passages, GRIM * 2, bottleneck=4)
    assert made.tokens[0] > 0
    assert all(each.isfinite().all() for each in made.experts.parameters())


def test_a_budget_of_tokens_is_kept(monkeypatch):
    model = load_model(device="cpu")
    monkeypatch.setattr(text_states, "ROWS", 1)
    made = train_experts(model, model.tokenizer, GLAD, GRIM, bottleneck=4, most_tokens=50)
    assert max(made.texts) < len(GLAD)


@pytest.mark.parametrize("how", MODES.values(), ids=MODES)
def test_experts_swapped_are_the_negative_strength_and_0_is_none(demo, how):
    prompts = ["Once upon a time", "Tom"]
    guided = run(demo, prompts, guide_attribute="glad:2", **how)
    assert torch.equal(guided, run(demo, prompts, guide_attribute="grim:-2", **how))
    plain = run(demo, prompts, **how)
    assert not torch.equal(plain, guided)
    assert torch.equal(plain, run(demo, prompts, guide_attribute="glad:0", **how))
    both = run(demo, prompts, guide_attribute="glad:1,words:2", **how)
    assert torch.equal(both, run(demo, prompts, guide_attribute="words:2,glad:1", **how))


@pytest.mark.parametrize("how", [MODES["greedy"], MODES["sampled"], MODES["beams"]], ids=["greedy", "sampled", "beams"])
def test_every_row_of_a_padded_batch_comes_out_as_alone(demo, other, how):
    prompts = ["once upon a time", "a", "the small cat in the"]
    for model in (demo, other):
        together = texts(model, prompts, guide_attribute="glad:4", **how)
        assert together == [texts(model, [prompt], guide_attribute="glad:4", **how)[0] for prompt in prompts]


@pytest.mark.parametrize("how", MODES.values(), ids=MODES)
def test_what_was_taken_down_is_what_is_read_anew(demo, other, monkeypatch, how):
    prompts = ["once upon a time", "the"]
    reads, read = [], OutputStates._read
    monkeypatch.setattr(OutputStates, "_read", lambda states, ids: reads.append(1) or read(states, ids))
    for model in (demo, other):
        watched = run(model, prompts, guide_attribute="glad:3", **how)
        assert not reads
        with monkeypatch.context() as patch:
            patch.setattr(OutputStates, "__call__", lambda states, ids, scores: scores)
            assert torch.equal(watched, run(model, prompts, guide_attribute="glad:3", **how))
        assert reads
        reads.clear()


def test_questions_to_the_model_in_between_change_nothing(demo):
    how = MODES["greedy"] | {"guide_attribute": "glad:2", "must_include": ["dragon"], "max_new_tokens": 80}
    found = texts(demo, ["Once upon a time", "Tom"], **how)
    assert all("dragon" in text.lower() for text in found)
    assert found == [texts(demo, [prompt], **how)[0] for prompt in ("Once upon a time", "Tom")]


def test_past_the_window_without_a_cache_and_in_assisted_decoding_the_text_is_the_same(demo):
    prompts = ["The big dog was happy. " * 21, "Tom"]
    how = {"max_new_tokens": 60, "do_sample": False, "guide_attribute": "glad:2"}
    together = texts(demo, prompts, **how)
    assert together == [texts(demo, [prompt], **how)[0] for prompt in prompts]
    assert together == texts(demo, prompts, use_cache=False, **how)
    assert texts(demo, ["Tom"], prompt_lookup_num_tokens=3, **how) == together[1:]


def test_the_watch_ends_with_the_call(demo):
    hooks = demo.get_output_embeddings()._forward_pre_hooks
    run(demo, ["Tom"], guide_attribute="glad:2", do_sample=False)
    gc.collect()
    assert not hooks


def test_output_weights_in_half_precision_are_converted_once_for_all_experts_of_a_call(monkeypatch):
    model = trained(byte_level_gpt2())[0].to(torch.bfloat16)
    how = MODES["greedy"] | {"guide_attribute": "glad:2,grim:-1", "max_new_tokens": 6, "min_new_tokens": 6}
    made, convert = [], OutputWeights.in_float32
    monkeypatch.setattr(OutputWeights, "in_float32", lambda weights: made.append(convert(weights)) or made[-1])
    found = run(model, ["the"], **how)
    assert [each.weight.dtype for each in made] == [torch.float32]
    held = weakref.ref(made.pop().weight)
    gc.collect()
    assert held() is None  # the second copy goes with the call
    monkeypatch.setattr(OutputStates, "output", property(lambda states: OutputWeights.of(states.model)))
    assert torch.equal(run(model, ["the"], **how), found)


def test_experts_of_another_model_are_refused_or_give_way_to_words(demo, other):
    glad = demo.attributes["glad"].experts
    here = other.attributes
    try:
        other.attributes = {"alone": Attribute("experts", experts=glad)}
        misfit = rf"alone: its experts read .* {demo.config.hidden_size} numbers, and this model's have 16"
        with pytest.raises(ValueError, match=misfit):
            run(other, ["once"], guide_attribute="alone")
        other.attributes = {
            "both": Attribute("experts", words={"cat": 3.0}, experts=glad),
            "words": Attribute("words", words={"cat": 3.0}),
        }
        how = MODES["sampled"]
        both = run(other, ["once"], guide_attribute="both:2", **how)
        assert torch.equal(both, run(other, ["once"], guide_attribute="words:2", **how))
    finally:
        other.attributes = here
    pair = ExpertPair.from_bytes(glad)
    assert pair.misfit(demo) is None
    turned = load_model(device="cpu")
    with torch.no_grad():
        turned.get_output_embeddings().weight.mul_(1.1)
    assert pair.misfit(turned) == "its experts were trained on another model"
    assert pair.misfit(load_model(device="cpu", dtype=torch.bfloat16)) is None


def test_a_file_holds_the_pair(demo, tmp_path):
    kept = Attribute.load(demo.attributes["glad"].save(tmp_path / "glad"))
    assert kept.experts == demo.attributes["glad"].experts
    assert not kept.words
    both = Attribute("experts", "", {"happy": 1.0}, experts=kept.experts)
    assert Attribute.load(both.save(tmp_path / "both")).words == {"happy": 1.0}
    (tmp_path / "glad" / "experts.safetensors").unlink()
    with pytest.raises(UserError, match=r"cannot read the attribute .*glad': No such file"):
        Attribute.load(tmp_path / "glad")
    states = torch.randn(3, demo.config.hidden_size)
    ratio = ExpertPair.from_bytes(kept.experts)(states, OutputWeights.of(demo))
    assert torch.allclose(
        ratio, -ExpertPair.from_bytes(demo.attributes["grim"].experts)(states, OutputWeights.of(demo))
    )
    others = (
        SignedTensors({"a": torch.ones(2)}, (1.0,)).to_bytes(kind) for kind in ("fundamentallm-output-experts", "a")
    )
    for content in (b"", b"nothing", kept.experts[:-9], *others):
        with pytest.raises(ValueError, match="experts have to be a safetensors file that train-attribute has written"):
            ExpertPair.from_bytes(content)


def test_a_side_with_nothing_to_learn_from_is_refused(demo):
    with pytest.raises(UserError, match="the texts without the attribute hold nothing to learn from"):
        train_experts(demo, demo.tokenizer, GLAD, ["a"])


def test_what_experts_cannot_stand_on_is_refused(demo):
    class Slow:
        is_fast = False

    with pytest.raises(
        UserError, match="fast tokenizer is needed to read texts, and this model has none: choose --kind words"
    ):
        train_experts(demo, Slow(), GLAD, GRIM)
    headless = load_model(device="cpu")
    headless.get_output_embeddings = lambda: None
    with pytest.raises(UserError, match="an output layer of plain weights, and this one has none: choose --kind words"):
        train_experts(headless, headless.tokenizer, GLAD, GRIM)
