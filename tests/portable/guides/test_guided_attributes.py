"""Guided attributes: laws that hold whatever the guide, on small distributions and in whole calls."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import byte_level_gpt2, sentencepiece_llama
from writing import token_ids as run
from writing import whole_texts as texts

from fundamentallm_hf import Attribute, GuidedAttributesLogitsProcessor, load_model
from fundamentallm_hf.portable.controls.control_fields import CONTROL_FIELDS
from fundamentallm_hf.portable.decoding.texts import Texts
from fundamentallm_hf.portable.guides.guided_attributes import MOST_BELOW

pytestmark = pytest.mark.core

WORDS = {"happy": 2.0, "lov*": 1.5, "sad": -2.0, "tree": 0.5, "small": 1.0, "cat": -1.0}
MODES = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0, "seed": 3},
    "several": {"do_sample": True, "temperature": 1.2, "seed": 3, "num_return_sequences": 2},
    "beams": {"num_beams": 3, "do_sample": False},
}


def with_attributes(model):
    model.attributes = {
        "glad": Attribute("words", "", WORDS),
        "grim": Attribute("words", "", {word: -weight for word, weight in WORDS.items()}),
        "cats": Attribute("prompts", "", {}, "the small cat. ", "the end. "),
        "ends": Attribute("prompts", "", {}, "the end. ", "the small cat. "),
    }
    return model


@pytest.fixture(scope="module")
def demo():
    return with_attributes(load_model(device="cpu"))


@pytest.fixture(scope="module", params=[byte_level_gpt2, sentencepiece_llama])
def other(request):
    return with_attributes(request.param())


def constant(*shift):
    return lambda input_ids, scores: torch.tensor([shift]).expand(len(input_ids), -1)


def test_scores_are_filtered_and_then_shifted():
    scores = torch.tensor([[0.0, -1.0, -6.0], [-9.0, 0.0, -4.0]])
    processor = GuidedAttributesLogitsProcessor([(constant(0.0, 1.0, 1.0), 2.0)])
    expected = torch.tensor([[0.0, 1.0, -torch.inf], [-torch.inf, 2.0, -2.0]])
    assert torch.equal(processor(torch.zeros(2, 1, dtype=torch.long), scores), expected)


class Asked:
    """A guide that notes the texts it is asked about."""

    def __init__(self):
        self.texts = []

    def judge_texts(self, texts, scores):
        self.texts += [texts.tokens(index).tolist() for index in range(len(texts))]
        lengths = torch.tensor(texts.lengths)[:, None]
        return torch.arange(scores.shape[-1]) * 0.1 * lengths


@given(left=st.lists(st.sets(st.integers(0, 4), min_size=1), min_size=1, max_size=6))
def test_guides_are_asked_only_where_several_tokens_are_left(left):
    scores = torch.full((len(left), 5), -torch.inf)
    for row, tokens in zip(scores, left, strict=True):
        row[[*tokens]] = -torch.arange(float(len(tokens)))
    ids = torch.arange(10)[None]
    texts = Texts(ids, [0] * len(left), range(3, 3 + len(left)))
    guide = Asked()
    found = GuidedAttributesLogitsProcessor([(guide, 2.0)]).judge_texts(texts, scores).softmax(dim=-1)
    assert guide.texts == [list(range(3 + at)) for at, tokens in enumerate(left) if len(tokens) > 1]
    expected = GuidedAttributesLogitsProcessor([(lambda *_: Asked().judge_texts(texts, scores), 2.0)])
    assert torch.equal(found, expected(ids, scores).softmax(dim=-1))


def first_scores(model, **how):
    sampled = {"do_sample": True, "temperature": 1.5, "top_p": 0.95, "top_k": 0, "max_new_tokens": 1}
    batch = model.tokenizer("Once upon a time, there was a ", return_tensors="pt")
    return model.generate(**batch, **sampled, **how, output_scores=True, return_dict_in_generate=True).scores[0]


def test_a_guide_shifts_what_temperature_and_top_p_have_left_and_nothing_is_cut_off_behind_it(demo):
    plain, guided = first_scores(demo), first_scores(demo, guide_attribute="glad", guide_strength=0.5)
    twice = first_scores(demo, guide_attribute="glad", guide_strength=1.0)
    still = torch.isfinite(guided)
    assert still.sum() > 1
    assert not (still & ~torch.isfinite(plain)).any()
    unlikely = plain < plain.amax() - MOST_BELOW
    assert torch.equal(still, torch.isfinite(plain) & ~unlikely)
    # Whatever the temperature, a strength is a factor of the shift.
    assert torch.allclose((twice - plain)[still], 2 * (guided - plain)[still], atol=1e-5)


def test_the_weakest_guide_changes_nothing(demo):
    how = MODES["sampled"]
    plain = run(demo, ["Once upon a time", "Tom"], **how)
    assert torch.equal(plain, run(demo, ["Once upon a time", "Tom"], **how, guide_attribute="glad:1e-7,cats:-1e-7"))


@given(
    shifts=st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=2, max_size=4),
    strengths=st.lists(st.floats(-10, 10), min_size=4, max_size=4),
)
def test_guides_commute_and_a_strength_is_a_factor(shifts, strengths):
    ids, scores = torch.tensor([[0]]), torch.tensor([[0.0, -1.0, -2.0]])
    guides = [(constant(*shift), strength) for shift, strength in zip(shifts, strengths, strict=False)]
    there = GuidedAttributesLogitsProcessor(guides)(ids, scores)
    assert torch.equal(there, GuidedAttributesLogitsProcessor(guides[::-1])(ids, scores))
    turned = [(constant(*(-value for value in shift)), -s) for shift, s in zip(shifts, strengths, strict=False)]
    assert torch.equal(there, GuidedAttributesLogitsProcessor(turned)(ids, scores))


@pytest.mark.parametrize("how", MODES.values(), ids=MODES)
@pytest.mark.parametrize("guide", [{"guide_strength": 0}, {"guide_strength": 0.0}])
def test_a_strength_of_0_is_no_guide(demo, how, guide):
    plain = run(demo, ["Once upon a time", "Tom"], **how)
    assert torch.equal(plain, run(demo, ["Once upon a time", "Tom"], guide_attribute="glad,cats", **guide, **how))
    assert torch.equal(plain, run(demo, ["Once upon a time", "Tom"], guide_attribute="glad:0,cats:0", **how))


@pytest.mark.parametrize("how", MODES.values(), ids=MODES)
@pytest.mark.parametrize(
    ("one", "same"),
    [
        ({"guide_attribute": "glad", "guide_strength": -2}, {"guide_attribute": "grim", "guide_strength": 2}),
        ({"guide_attribute": "cats", "guide_strength": -2}, {"guide_attribute": "ends", "guide_strength": 2}),
        ({"guide_attribute": "glad:2,cats"}, {"guide_attribute": ["cats:1", "glad:2"]}),
        ({"guide_attribute": "glad:2"}, {"guide_attribute": "glad", "guide_strength": 2.0}),
        ({"guide_attribute": "glad,glad"}, {"guide_attribute": "glad:4", "guide_strength": 0.5}),
    ],
    ids=["words negated", "contexts swapped", "order", "own strength", "twice"],
)
def test_two_ways_to_say_the_same(demo, how, one, same):
    prompts = ["Once upon a time", "Tom"]
    assert torch.equal(run(demo, prompts, **how, **one), run(demo, prompts, **how, **same))


@pytest.mark.parametrize("how", [MODES["greedy"], MODES["sampled"], MODES["beams"]], ids=["greedy", "sampled", "beams"])
@pytest.mark.parametrize("guide", ["glad:4", "cats:10", "glad:-1,cats:10"])
def test_every_row_of_a_padded_batch_comes_out_as_alone(demo, other, how, guide):
    prompts = ["once upon a time", "a", "the small cat in the"]
    for model in (demo, other):
        together = texts(model, prompts, guide_attribute=guide, **how)
        assert together == [texts(model, [prompt], guide_attribute=guide, **how)[0] for prompt in prompts]
        assert together != texts(model, prompts, **how)


@pytest.mark.parametrize("guide", ["glad:2", "cats:2"])
def test_past_the_window_and_without_a_cache_the_text_is_the_same(demo, guide):
    prompts = ["The big dog was happy. " * 21, "Tom"]
    how = {"max_new_tokens": 80, "do_sample": False, "guide_attribute": guide}
    together = texts(demo, prompts, **how)
    assert together == [texts(demo, [prompt], **how)[0] for prompt in prompts]
    assert together == texts(demo, prompts, use_cache=False, **how)


@pytest.mark.parametrize("guide", ["glad:2", "cats:2"])
def test_guessed_tokens_change_nothing(other, guide):
    how = {"max_new_tokens": 16, "do_sample": False, "guide_attribute": guide}
    assert texts(other, ["once upon a a a"], **how) == texts(
        other, ["once upon a a a"], prompt_lookup_num_tokens=3, **how
    )


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    strength=st.sampled_from([-10.0, -1.0, 2.0, 10.0]),
    guide=st.sampled_from(["glad", "cats", "glad,cats:-1"]),
    others=st.fixed_dictionaries(
        {},
        optional={
            "bad_words": st.just(["happy", "the", "small*"]),
            "must_include": st.just(["sad"]),
            "repetition_penalty": st.just(1.5),
            "stop": st.just(["."]),
        },
    ),
    how=st.sampled_from([*MODES.values()]),
)
def test_other_controls_hold(demo, strength, guide, others, how):
    prompts = ["Once upon a time", "Tom"]
    found = texts(demo, prompts, guide_attribute=guide, guide_strength=strength, max_new_tokens=40, **others, **how)
    for index, text in enumerate(found):
        added = text[len(prompts[index * 2 // len(found)]) :].lower()
        if "bad_words" in others:
            assert not {"happy", "the"} & set("".join(char if char.isalnum() else " " for char in added).split())
        if "must_include" in others:
            assert "sad" in added


def test_a_pattern_holds(demo):
    found = texts(demo, ["Tom"], guide_attribute="glad:10", pattern="( cat| happy){3}", do_sample=False)
    assert found == ["Tom happy happy happy"]


def test_a_word_list_turns_the_text(demo):
    how = {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0, "seed": 0, "num_return_sequences": 16}

    def weight(strength):
        found = texts(demo, ["Once upon a time"], guide_attribute="positive_sentiment", max_new_tokens=200,
                      guide_strength=strength, **how)  # fmt: skip
        words = " ".join(found).lower().replace(".", " ").split()
        return sum(words.count(word) for word in ("happy", "fun", "love", "loved", "good", "nice")) - sum(
            words.count(word) for word in ("sad", "scared", "bad", "cry", "mad", "angry")
        )

    assert weight(3.0) > weight(0.0) > weight(-3.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"guide_attribute": "gald"}, r"there is no attribute 'gald': there are .*cats, ends, glad, grim.*make one"),
        ({"guide_attribute": "../glad"}, r"guide-attribute has to be a name but is '\.\./glad'"),
        ({"guide_attribute": "/etc"}, r"guide-attribute has to be a name but is '/etc'"),
        ({"guide_attribute": "glad:much"}, r"the strength of glad has to be a number from -10 to 10 but is 'much'"),
        ({"guide_attribute": "glad", "guide_strength": 11}, r"guide_strength has to be a number from -10 to 10 but"),
        ({"guide_attribute": "glad", "guide_strength": "nan"}, r"guide_strength has to be a number"),
        ({"guide_attribute": 3}, r"guide_attribute has to be a name, or a list of names, but is 3"),
        ({"guide_attribute": ["glad", 3]}, r"guide_attribute has to be a name, or a list of names"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(demo, fields, message):
    with pytest.raises(ValueError, match=message) as refused:
        run(demo, ["Once"], **fields)
    assert "\n" not in str(refused.value)


def test_a_list_that_cannot_be_read_is_named(demo):
    demo.attributes["odd"] = Attribute("words", "", {"two words": 1.0})
    try:
        with pytest.raises(ValueError, match=r"guide_attribute odd: an entry has to be a word, or its beginning"):
            run(demo, ["Once"], guide_attribute="odd")
    finally:
        del demo.attributes["odd"]


def test_a_generation_config_and_a_pipeline_carry_it(demo, tmp_path):
    from transformers import GenerationConfig, pipeline

    config = GenerationConfig.from_dict(demo.generation_config.to_dict())
    config.guide_attribute, config.guide_strength = ["glad:2"], 2.0
    config.save_pretrained(tmp_path)
    loaded = GenerationConfig.from_pretrained(tmp_path)
    how = {"max_new_tokens": 30, "do_sample": False}
    expected = texts(demo, ["Once upon a time"], guide_attribute="glad:4", **how)
    assert texts(demo, ["Once upon a time"], generation_config=loaded, **how) == expected
    pipe = pipeline("text-generation", model=demo, tokenizer=demo.tokenizer)
    found = pipe("Once upon a time", guide_attribute="glad:4", **how)
    assert [found[0]["generated_text"]] == expected


def test_the_fields_are_controls():
    assert {"guide_attribute", "guide_strength"} <= set(CONTROL_FIELDS)
