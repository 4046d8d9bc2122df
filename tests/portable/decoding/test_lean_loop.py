"""The lean loop, with and without drafts, generates the same tokens as transformers' loop in every mode and control."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from fundamentallm_hf import load_model
from fundamentallm_hf.portable.decoding.drafts import Draft, Drafter
from fundamentallm_hf.portable.decoding.lean_loop import PassCounter
from fundamentallm_hf.portable.model.generation_fundamentallm import Decoding
from fundamentallm_hf.training.draft_training import count_ngrams

PROMPTS = ("ROMEO:\nWhat", "The king", "O", "My lord, I")


@pytest.fixture(scope="module")
def model(shakespeare):
    """A model that drafts from its own samples, so that many drafts are kept."""
    ids = shakespeare.tokenizer("ROMEO:\n", return_tensors="pt").input_ids
    own = [
        shakespeare.generate(ids, max_new_tokens=200, min_new_tokens=200, **how)[0].tolist()
        for how in ({"do_sample": False}, {"do_sample": True, "temperature": 0.5, "seed": 1, "top_k": 0})
    ]
    shakespeare.draft_table = count_ngrams(own[0] + own[1], order=6)
    yield shakespeare
    shakespeare.draft_table = None


def write(model, prompts, how, stock=False, **more):
    """The tokens and the number of passes; by transformers' loop if `stock` is set."""
    counter, streamed = PassCounter(), Streamer()
    batch = model.tokenizer(list(prompts), return_tensors="pt", padding=True)
    if len(prompts) == 1 and not how.get("num_return_sequences"):
        more["streamer"] = streamed
    torch.manual_seed(5)
    with pytest.MonkeyPatch.context() as patch:
        if stock:
            patch.setattr(Decoding, "_is_plain", lambda *given: False)
        tokens = model.generate(**batch, **how, **more, stopping_criteria=StoppingCriteriaList([counter]))
    if streamed.tokens:
        assert streamed.ended
        assert torch.equal(torch.cat(streamed.tokens), tokens[0])
    return tokens.tolist(), counter.passes


class Streamer:
    def __init__(self):
        self.tokens, self.ended = [], False

    def put(self, value):
        self.tokens.append(value.flatten())

    def end(self):
        self.ended = True


WAYS = st.sampled_from(
    [
        {"do_sample": False},
        {"do_sample": True, "temperature": 0.5, "top_k": 0, "seed": 3},
        {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0, "seed": 4},
        {"do_sample": True, "temperature": 0.6, "top_k": 5},
        {"do_sample": True, "top_k": 0, "min_p": 0.1, "seed": 6},
    ]
)
CONTROLS = st.sampled_from(
    [
        {},
        {},
        {"bad_words": ["the", "lord*", "/[A-Z]{3}/"]},
        {"must_include": ["blood", "sword"]},
        {"stop": ["\n", "e"]},
        {"pattern": "[a-z ,]{3,20}[.!]"},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
        {"min_new_tokens": 12},
        {"repetition_penalty": 1.2, "repetition_unit": "tokens"},
        {"bad_words": ["king"], "must_include": ["queen"], "length_penalty": 1.2},
        {"bad_words": ["the*", "and"], "must_include": ["blood", "night|day", "/lor./"]},
        {"end_at": "sentence"},
        {"words": "3-9", "end_at": "word", "bad_words": ["king"]},
        {"end_at": "word", "must_include": ["sword"]},
        {"starts_with": ["my", "so"], "ends_with": "the sun", "bad_words": ["king"]},
    ]
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    how=WAYS,
    controls=CONTROLS,
    prompts=st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=3, unique=True),
    samples=st.sampled_from([None, None, 3]),
    tokens=st.integers(1, 40),
)
def test_the_text_is_that_of_transformers_loop_with_and_without_drafts(model, how, controls, prompts, samples, tokens):
    needed = 60 if {"must_include", "pattern", "end_at", "starts_with"} & controls.keys() else 0
    how = {**how, **controls, "max_new_tokens": needed + tokens}
    if samples and how["do_sample"]:
        how["num_return_sequences"] = samples
    expected, _ = write(model, prompts, how, stock=True)
    assert write(model, prompts, how, speculate=False)[0] == expected
    assert write(model, prompts, how)[0] == expected


@pytest.mark.parametrize("how", [{"do_sample": False}, {"do_sample": True, "temperature": 0.5, "top_k": 0, "seed": 2}])
@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS[:3], ("x" * 140,)])
def test_the_text_is_the_same_past_the_window(model, how, prompts):
    how = {**how, "max_new_tokens": 150, "min_new_tokens": 150 if len(prompts) == 1 else None}
    expected, _ = write(model, prompts, how, stock=True)
    assert write(model, prompts, how)[0] == expected


@pytest.mark.parametrize("prompt", ["O", "t", "\n"])
def test_a_prompt_of_one_token_is_read_before_anything_is_drafted(model, prompt, monkeypatch):
    monkeypatch.setattr(Drafter, "__call__", lambda self, tokens, most, *rest: Draft([*tokens[-1:] * 2, 5][:most]))
    for how in ({"do_sample": False}, {"do_sample": True, "temperature": 0.5, "top_k": 0, "seed": 2}):
        expected, _ = write(model, [prompt], how | {"max_new_tokens": 12}, stock=True)
        assert write(model, [prompt], how | {"max_new_tokens": 12})[0] == expected


def test_kept_drafts_save_passes(model):
    how = {"do_sample": False, "max_new_tokens": 80}
    tokens, passes = write(model, PROMPTS[:1], how)
    _, without = write(model, PROMPTS[:1], how, speculate=False)
    added = len(tokens[0]) - len(model.tokenizer(PROMPTS[0]).input_ids)
    assert without == added
    assert passes < added / 2


class Watching(LogitsProcessor):
    def __init__(self):
        self.seen = []

    def __call__(self, input_ids, scores):
        self.seen.append(input_ids[0].tolist())
        return scores


def test_processors_see_every_token_once_and_no_refused_draft(model):
    watching = Watching()
    tokens, passes = write(
        model, PROMPTS[:1], {"do_sample": False, "max_new_tokens": 60}, logits_processor=LogitsProcessorList([watching])
    )
    first = len(tokens[0]) - len(watching.seen)
    assert watching.seen == [tokens[0][:end] for end in range(first, len(tokens[0]))]
    assert passes < len(watching.seen)


def test_rows_with_one_prompt_share_its_pass_and_ended_rows_are_left_out(model, monkeypatch):
    from fundamentallm_hf.portable.model import lean_step

    shapes = []
    call = lean_step.LeanStep.__call__
    monkeypatch.setattr(
        lean_step.LeanStep,
        "__call__",
        lambda self, tokens, *rest, **more: shapes.append(tuple(tokens.shape)) or call(self, tokens, *rest, **more),
    )
    ends = model.tokenizer(" ").input_ids
    how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "seed": 1, "num_return_sequences": 8}
    how |= {"max_new_tokens": 20, "eos_token_id": ends, "pad_token_id": 0}
    found, _ = write(model, PROMPTS[:1], how, speculate=False)
    assert shapes[0] == (1, len(model.tokenizer(PROMPTS[0]).input_ids))
    rows = [each for each, _ in shapes[1:]]
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < 8
    assert found == write(model, PROMPTS[:1], how, stock=True)[0]


@pytest.mark.parametrize(
    "more",
    [
        {"return_dict_in_generate": True, "output_scores": True},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"num_beams": 2},
        {"prompt_lookup_num_tokens": 3},
    ],
)
def test_what_it_does_not_offer_is_left_to_transformers(model, more, monkeypatch):
    from fundamentallm_hf.portable.model import generation_fundamentallm

    monkeypatch.setattr(generation_fundamentallm, "LeanLoop", None)
    ids = model.tokenizer(PROMPTS[0], return_tensors="pt").input_ids
    found = model.generate(ids, max_new_tokens=5, do_sample=False, **more)
    tokens = found if isinstance(found, torch.Tensor) else found.sequences
    assert tokens.shape == (1, ids.shape[1] + 5)


def test_lower_precision_is_not_drafted(model):
    model = copy.deepcopy(model).to(torch.bfloat16)
    tokens, passes = write(model, PROMPTS[:1], {"do_sample": False, "max_new_tokens": 30})
    assert passes == len(tokens[0]) - len(model.tokenizer(PROMPTS[0]).input_ids)


def test_the_tokens_are_ordinary_tensors(model):
    ids = model.tokenizer(PROMPTS[0], return_tensors="pt").input_ids
    tokens = model.generate(ids, max_new_tokens=3)
    assert not tokens.is_inference()
    assert tokens.is_contiguous()


def test_a_criterion_may_answer_with_one_value_for_all_rows(model):
    class Enough(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return input_ids.shape[1] >= 12

    batch = model.tokenizer(list(PROMPTS[:2]), return_tensors="pt", padding=True)
    how = {"max_new_tokens": 30, "stopping_criteria": StoppingCriteriaList([Enough()])}
    assert model.generate(**batch, **how).shape[1] == 12
    assert model.generate(batch.input_ids[:1], **how).shape[1] == 12


class Viewing(LogitsProcessor):
    """Reads tokens and scores in a way that requires contiguous tensors, and changes the scores in place."""

    def __call__(self, input_ids, scores):
        scores.view(-1)[input_ids.view(-1)[-1]] -= 5.0
        return scores


@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS[:3]])
def test_processors_may_change_scores_in_place(model, prompts):
    how = {"do_sample": False, "max_new_tokens": 30}
    expected, _ = write(model, prompts, how, stock=True, logits_processor=LogitsProcessorList([Viewing()]))
    assert write(model, prompts, how, logits_processor=LogitsProcessorList([Viewing()]))[0] == expected


def pad_a_whole_row(model, batch):
    batch["attention_mask"][0] = 0


def embed(model, batch):
    batch["inputs_embeds"] = model.get_input_embeddings()(batch.pop("input_ids"))


def cache(model, batch):
    batch["past_key_values"] = DynamicCache(config=model.config)


def count_positions_otherwise(model, batch):
    batch["position_ids"] = torch.arange(batch["input_ids"].shape[1])[None] + 3


@pytest.mark.parametrize("change", [pad_a_whole_row, embed, cache, count_positions_otherwise], ids=lambda f: f.__name__)
def test_unusual_arguments_are_left_to_transformers(model, change, monkeypatch):
    from fundamentallm_hf.portable.model import generation_fundamentallm

    monkeypatch.setattr(generation_fundamentallm, "LeanLoop", None)
    batch = dict(model.tokenizer(list(PROMPTS[:2]), return_tensors="pt", padding=True))
    change(model, batch)
    assert len(model.generate(**batch, max_new_tokens=3, do_sample=False)) == 2


def test_guides_by_experts_see_every_state(model_with_experts):
    how = {"max_new_tokens": 60, "guide_attribute": "positive_sentiment", "guide_strength": 3.0}
    for way in ({"do_sample": False}, {"do_sample": True, "temperature": 0.8, "top_k": 0, "seed": 2}):
        expected, _ = write(model_with_experts, ["Once upon a time"], how | way, stock=True)
        found, passes = write(model_with_experts, ["Once upon a time"], how | way)
        assert found == expected
        assert passes < 45


@pytest.fixture(scope="module")
def model_with_experts():
    return load_model(device="cpu")


@pytest.mark.parametrize("how", [{"do_sample": False}, {"do_sample": True, "temperature": 0.5, "top_k": 0, "seed": 2}])
@pytest.mark.parametrize("ends", [None, "e"])
def test_several_rows_save_passes_and_end_by_themselves(model, how, ends):
    if how["do_sample"]:
        how = {**how, "num_return_sequences": 4}
    if ends:
        how = {**how, "eos_token_id": model.tokenizer(ends).input_ids, "pad_token_id": 0}
    for prompts, tokens in ((PROMPTS[:1], 70), (PROMPTS[:3], 70), (PROMPTS, 150)):
        expected, most = write(model, prompts, how | {"max_new_tokens": tokens}, stock=True)
        found, passes = write(model, prompts, how | {"max_new_tokens": tokens})
        assert found == expected
        if not ends and len(found) > 1:
            assert passes < 0.9 * most


def test_rows_are_not_drafted_apart_where_something_looks_at_all_of_them(model, monkeypatch):
    from fundamentallm_hf.portable.decoding import lean_loop

    monkeypatch.setattr(lean_loop, "RowDrafts", type("Refusing", (lean_loop.RowDrafts,), {"run": None}))
    watching = {"logits_processor": LogitsProcessorList([Watching()])}
    for more in (watching, {"do_sample": True, "top_k": 0}, {"stop": ["x"]}, {"repetition_penalty": 1.2}):
        batch = model.tokenizer(list(PROMPTS[:2]), return_tensors="pt", padding=True)
        assert len(model.generate(**batch, max_new_tokens=6, **more)) == 2


@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS[:2]])
def test_a_limit_beyond_all_memory_takes_none(model, prompts):
    class Enough(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return torch.full((len(input_ids),), input_ids.shape[1] >= 150)

    batch = model.tokenizer(list(prompts), return_tensors="pt", padding=True)
    more = {"stopping_criteria": StoppingCriteriaList([Enough()]), "do_sample": False}
    assert model.generate(**batch, max_new_tokens=10**12, **more).shape[1] == 150


def test_questions_of_controls_share_passes_with_the_text(model_with_experts, monkeypatch):
    from fundamentallm_hf.portable.model import lean_step

    passes = []
    for name in ("__call__", "aside"):
        method = getattr(lean_step.LeanStep, name)
        counted = lambda self, *given, method=method, **more: passes.append(1) or method(self, *given, **more)  # noqa: E731
        monkeypatch.setattr(lean_step.LeanStep, name, counted)
    how = {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0, "seed": 1, "max_new_tokens": 160}
    how |= {"bad_words": "sad,mad,bad,lost,dark,scared,big,was,red", "must_include": "dragon,castle,friend"}
    counts = []
    for more in ({}, {"speculate": False}):
        passes.clear()
        counts.append((write(model_with_experts, ["Once upon a time"], how | more)[0], len(passes)))
    (drafted, some), (plain, many) = counts
    assert drafted == plain
    assert some < 0.45 * many


def test_texts_are_judged_again_together_with_those_that_follow(model_with_experts, monkeypatch):
    from fundamentallm_hf.portable.decoding import judged_runs

    judged, asked, judge_all = [], [], judged_runs.judge_all
    monkeypatch.setattr(judged_runs, "judge_all", lambda *given: judged.append(len(given[1])) or judge_all(*given))
    beside = judged_runs.JudgedRuns._read_beside
    counted = lambda self, *given: asked.append(given) or beside(self, *given)  # noqa: E731
    monkeypatch.setattr(judged_runs.JudgedRuns, "_read_beside", counted)
    how = {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0, "seed": 1, "max_new_tokens": 160}
    _, passes = write(model_with_experts, ["Once upon a time"], how | {"bad_words": "sad,mad,bad,dark,scared,big,red"})
    assert len(asked) > 5
    assert len(judged) < passes + len(asked) / 2  # and not once more for each answer


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(how=WAYS, controls=CONTROLS, data=st.data())
def test_a_wrong_guess_of_what_follows_an_answer_changes_nothing(model, how, controls, data):
    """The pass that was made along with an answer is not used where the answer changes the choice."""
    from fundamentallm_hf.portable.decoding.judged_runs import JudgedRuns

    goes_on = JudgedRuns._goes_on

    def wrong(self, guess):
        if goes_on(self, guess) and data.draw(st.booleans()):
            guess[-1] = data.draw(st.integers(4, 60))
        return goes_on(self, guess)

    how = {**how, **controls, "max_new_tokens": 40}
    expected, _ = write(model, PROMPTS[:1], how, speculate=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JudgedRuns, "_goes_on", wrong)
        assert write(model, PROMPTS[:1], how)[0] == expected


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(controls=CONTROLS, tokens=st.integers(1, 60), ends=st.sets(st.integers(4, 60), max_size=3))
def test_without_a_seed_a_call_draws_one_number_for_each_token(model, controls, tokens, ends):
    """Also where it ends early or drafts are refused, so that what is drawn after the call is the same, too."""
    how = {"do_sample": True, "temperature": 0.7, "top_k": 0, **controls, "max_new_tokens": 24 + tokens}
    how = how if not ends else how | {"eos_token_id": sorted(ends)}
    found = []
    for more in ({}, {"speculate": False}):
        text, _ = write(model, PROMPTS[:1], how, **more)
        found.append((text, torch.rand(3).tolist()))
    assert found[0] == found[1]


def test_a_recorder_sees_the_chosen_tokens_only(model):
    from fundamentallm_hf.portable.decoding.recording import ProbabilityRecorder

    how = {"do_sample": True, "temperature": 0.5, "top_k": 0, "seed": 2, "max_new_tokens": 60}
    found = []
    for more in ({}, {"speculate": False}):
        recorder = ProbabilityRecorder(4)
        tokens, _ = write(
            model, PROMPTS[:1], how, logits_processor=LogitsProcessorList([recorder]), bad_words=["lord*"], **more
        )
        first = len(model.tokenizer(PROMPTS[0]).input_ids)
        rows = [torch.tensor(tokens[0][:end]) for end in range(first, len(tokens[0]))]
        found.append((tokens, [recorder.likeliest(row) for row in rows], len(recorder._likeliest)))
    (drafted, seen, count), (plain, expected, _) = found
    assert drafted == plain
    assert count == len(seen)
    for one, other in zip(seen, expected, strict=True):
        assert one.keys() == other.keys()
        assert all(abs(one[token] - other[token]) < 1e-4 for token in one)
