"""What is relied on of `generate()`: its loops, and the caches and modules that they use."""

import torch
import transformers
from private_checks import relied_on
from small_models import byte_level_gpt2
from transformers import GenerationMixin, StoppingCriteria
from transformers.generation import GenerationMode, LogitsProcessorList, MaxLengthCriteria, StoppingCriteriaList

from fundamentallm_hf import FundamentaLLMConfig


@relied_on("transformers", "generation.utils.GENERATION_MODES_MAPPING")
def modes():
    from transformers.generation.utils import GENERATION_MODES_MAPPING as loops

    assert {*GenerationMode} == loops.keys()
    for mode, loop in loops.items():
        assert "/" in loop or callable(getattr(GenerationMixin, loop)), mode


def prepared(loop):
    """What a loop gives with what `generate()` prepares for a callable, what `generate()` gives, and the mode."""
    model = byte_level_gpt2()
    ids = model.tokenizer("once upon a a a", return_tensors="pt").input_ids
    caught = {}

    def catch(model, input_ids, logits_processor, stopping_criteria, generation_config, **rest):
        assert isinstance(logits_processor, LogitsProcessorList)
        assert isinstance(stopping_criteria, StoppingCriteriaList)
        assert any(isinstance(each, MaxLengthCriteria) for each in stopping_criteria)
        caught["mode"] = generation_config.get_generation_mode()
        more = {"inputs_tensor": input_ids} if loop == "_assisted_decoding" else {}
        return getattr(type(model), loop)(
            model,
            input_ids,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            generation_config=generation_config,
            synced_gpus=False,
            **more,
            **rest,
        )

    how = {"_sample": {}, "_beam_search": {"num_beams": 3}, "_assisted_decoding": {"prompt_lookup_num_tokens": 3}}[loop]
    how |= {"max_new_tokens": 8, "do_sample": False}
    return model.generate(ids, custom_generate=catch, **how), model.generate(ids, **how), caught["mode"]


def loop_check(loop):
    def check():
        ours, theirs, mode = prepared(loop)
        assert torch.equal(ours, theirs)
        assert transformers.generation.utils.GENERATION_MODES_MAPPING[mode] == loop

    return check


for each in ("_sample", "_assisted_decoding"):
    relied_on("transformers", f"GenerationMixin.{each}")(loop_check(each))


@relied_on("transformers", "GenerationMixin._beam_search")
def beams():
    loop_check("_beam_search")()
    model, beams, shown = byte_level_gpt2(), 3, []
    ids = model.tokenizer("once upon a a a", return_tensors="pt").input_ids

    class Looking(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            shown.append(input_ids)
            return torch.zeros(len(input_ids), dtype=torch.bool)

    criteria = StoppingCriteriaList([Looking()])
    model.generate(ids, max_new_tokens=6, num_beams=beams, do_sample=False, stopping_criteria=criteria)
    assert len(shown) == 6
    for rows in shown:
        assert len(rows) > beams
        with torch.no_grad():
            logs = model(rows[:, :-1]).logits[:, ids.shape[1] - 1 :].log_softmax(-1)
        sums = logs.gather(-1, rows[:, ids.shape[1] :, None]).sum((1, 2))
        assert torch.all(sums[:-1] >= sums[1:] - 1e-4)  # the best first
        assert sums[0] > sums[-1] + 1e-3


@relied_on("transformers", "GenerationMixin._get_candidate_generator")
def candidates():
    asked = []

    class Looking(transformers.generation.candidate_generator.CandidateGenerator):
        def get_candidates(self, input_ids, **kwargs):
            asked.append(input_ids.shape[1])
            return torch.cat([input_ids, input_ids[:, -1:]], dim=1), None

    model = byte_level_gpt2()
    model._get_candidate_generator = lambda **given: Looking()
    ids = model.tokenizer("once upon a a a", return_tensors="pt").input_ids
    model.generate(ids, max_new_tokens=4, do_sample=False, prompt_lookup_num_tokens=2)
    assert asked[0] == ids.shape[1]


@relied_on("transformers", "generation.candidate_generator.CandidateGenerator")
def candidate_class():
    found = transformers.generation.candidate_generator.CandidateGenerator()
    assert found.requires_model_outputs is False
    found.update_candidate_strategy(None, None, 0)


@relied_on("transformers", "PreTrainedModel._is_stateful")
def stateful():
    assert byte_level_gpt2()._is_stateful is False
    assert transformers.MambaForCausalLM._is_stateful is True


@relied_on("transformers", "GenerationMixin._get_top_k_continuations")
def continuations():
    scores = torch.tensor([[0.0, -1.0, -5.0, -2.0, -3.0, -4.0]])
    torch.manual_seed(0)
    found = byte_level_gpt2()._get_top_k_continuations(
        accumulated_log_probs=scores,
        running_sequences=torch.zeros(1, 2, 4, dtype=torch.long),
        running_beam_indices=torch.zeros(1, 2, 4, dtype=torch.int32),
        cur_len=1,
        decoder_prompt_len=1,
        do_sample=True,
        beams_to_keep=4,
        num_beams=2,
        batch_size=1,
    )
    assert len(found) == 3
    assert all(each.shape[:2] == (1, 4) for each in found)
    # The first are the scores of the others: what was written last says which they belong to.
    places = found[2][0, :, 0] * 3 + found[1][0, :, 1]
    assert torch.equal(scores[0, places], found[0][0])


def beam_step(name):
    """The arguments that a step of beam search gets, and what it returns, at every call of a short search."""
    model, calls = byte_level_gpt2(), []
    step = getattr(model, name)

    def watch(**given):
        calls.append((given, step(**given)))
        return calls[-1][1]

    setattr(model, name, watch)
    ids = model.tokenizer("once upon a a a", return_tensors="pt").input_ids
    model.generate(ids, max_new_tokens=4, num_beams=3, do_sample=False)
    assert len(calls) == 4
    return calls


@relied_on("transformers", "GenerationMixin._get_running_beams_for_next_iteration")
def running_beams():
    for given, found in beam_step("_get_running_beams_for_next_iteration"):
        scores, hits = given["topk_log_probs"], given["next_token_hits_stopping_criteria"]
        assert scores.shape == hits.shape == given["topk_running_sequences"].shape[:2] == (1, 6)
        assert given["topk_running_beam_indices"].shape[:2] == (1, 6)
        assert [each.shape[:2] for each in found] == [(1, 3)] * 3
        if not bool(hits.any()):
            assert torch.equal(found[1], scores[:, :3])


@relied_on("transformers", "GenerationMixin._update_finished_beams")
def finished_beams():
    for given, found in beam_step("_update_finished_beams"):
        assert given["topk_log_probs"].shape == given["next_token_hits_stopping_criteria"].shape == (1, 6)
        sequences, scores, indices, finished = found
        assert sequences.shape[:2] == indices.shape[:2] == scores.shape == finished.shape == (1, 3)
        assert finished.dtype == torch.bool
    assert bool(finished.all())


@relied_on("transformers", "generation.MaxLengthCriteria.max_position_embeddings")
def limit():
    criterion = MaxLengthCriteria(5, max_position_embeddings=3)
    assert criterion.max_position_embeddings == 3
    criterion.max_position_embeddings = None
    assert bool(criterion(torch.zeros(1, 5, dtype=torch.long), None).all())


@relied_on("transformers", "cache_utils.DynamicLayer.keys")
def layers():
    cache = transformers.DynamicCache()
    keys = torch.randn(2, 1, 3, 4)
    cache.update(keys, keys, 0)
    (layer,) = cache.layers
    before = layer.keys
    assert torch.equal(before, keys)
    assert not cache.offloading
    cache.update(keys, keys, 0)
    assert layer.keys is not before  # so a copy of a layer keeps what it had
    assert torch.equal(before, keys)


@relied_on("transformers", "cache_utils.DynamicLayer.lazy_initialization")
def lent_layers():
    from transformers.cache_utils import DynamicLayer

    keys, values = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 3, 4)
    layer = DynamicLayer()
    assert not layer.is_initialized
    layer.lazy_initialization(keys, values)
    assert layer.is_initialized
    layer.keys, layer.values = keys, values
    cache = transformers.DynamicCache()
    cache.layers = [layer]
    assert cache.get_seq_length() == 3
    longer, _ = cache.update(keys[:, :, :1], values[:, :, :1], 0)
    assert torch.equal(longer, torch.cat([keys, keys[:, :, :1]], dim=2))


@relied_on("torch", "nn.Module._forward_hooks")
def hooks():
    module, calls = torch.nn.Linear(2, 2), []
    module.register_forward_hook(lambda *given: calls.append("after"))
    module.register_forward_pre_hook(early := lambda *given: calls.append("before"))
    assert len(module._forward_hooks) == 1
    assert list(module._forward_pre_hooks.values()) == [early]
    everywhere = torch.nn.modules.module
    handles = [
        everywhere.register_module_forward_hook(lambda *given: calls.append("any")),
        everywhere.register_module_forward_pre_hook(lambda *given: calls.append("any before")),
    ]
    assert len(everywhere._global_forward_hooks) == len(everywhere._global_forward_pre_hooks) == 1
    module(torch.zeros(1, 2))
    assert calls == ["any before", "before", "any", "after"]
    for handle in handles:
        handle.remove()
    assert not everywhere._global_forward_hooks
    assert not everywhere._global_forward_pre_hooks


@relied_on("torch", "nn.Module._compiled_call_impl")
def compiled():
    module = torch.nn.Linear(2, 2)
    assert module._compiled_call_impl is None
    module.compile(backend="eager")
    assert module._compiled_call_impl is not None


@relied_on("transformers", "GenerationMixin._update_model_kwargs_for_generation")
def step_methods():
    model, calls = byte_level_gpt2(), []
    update = model._update_model_kwargs_for_generation
    model._update_model_kwargs_for_generation = lambda *given, **more: calls.append(1) or update(*given, **more)
    model.generate(torch.tensor([[1, 2]]), max_new_tokens=3, min_new_tokens=3)
    assert len(calls) == 3


@relied_on("transformers", "cache_utils.StaticLayer.max_cache_len")
def static():
    config = FundamentaLLMConfig(vocab_size=10, num_hidden_layers=2)
    cache = transformers.StaticCache(config=config, max_cache_len=7, offloading=False)
    assert [layer.max_cache_len for layer in cache.layers] == [7, 7]
    assert cache.offloading is False
