"""Tokens that controls force skip passes of any model, in transformers' loop of assisted decoding.

That loop checks candidates for the next tokens in one pass. Here the candidates are the tokens that a pattern or a JSON
schema forces, or the rest of a required word. A candidate is kept exactly when it is the token that would have been
chosen anyway, so the text is the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.generation import EosTokenCriteria, GenerationMode, MaxLengthCriteria
from transformers.generation.candidate_generator import CandidateGenerator

from .cache_names import CACHE
from .context_window import can_slide
from .drafts import SuggestsTokens, first_suggestion
from .endings import EndCriteria
from .lean_loop import PassCounter
from .lookahead import CANDIDATES_LAST
from .recording import Recorder
from .seeded_sampling import SeededSampling
from .watched_states import StatesWatcher

# Criteria that still see in time where a text ends, if several tokens are added at once.
_TIMELY = (MaxLengthCriteria, EosTokenCriteria, PassCounter, EndCriteria)


class ForcedCandidates(CandidateGenerator):
    """Candidates that controls suggest.

    Args:
        suggesting: the controls.
        max_length: tokens of the longest text, the prompt included.
    """

    def __init__(self, suggesting: Sequence[SuggestsTokens], max_length: int) -> None:
        self.suggesting = suggesting
        self.max_length = max_length

    def get_candidates(self, input_ids: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, None]:
        """`input_ids`: (1, length). Returns them with the candidates, and no probabilities."""
        found = first_suggestion(self.suggesting, input_ids)
        most = max(0, self.max_length - input_ids.shape[1] - 1)
        candidates = torch.tensor([found[:most]], dtype=input_ids.dtype, device=input_ids.device)
        return torch.cat([input_ids, candidates], dim=1), None


class WrappedModel:
    """A model some of whose methods a subclass replaces for a decoding loop."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._model(*args, **kwargs)


class Forced(WrappedModel):
    """A model whose loop of assisted decoding takes these candidates."""

    def __init__(self, model: Any, candidates: ForcedCandidates) -> None:
        super().__init__(model)
        self._candidates = candidates

    def _get_candidate_generator(self, *args: Any, **kwargs: Any) -> ForcedCandidates:
        return self._candidates


def forced_candidates(
    model: Any, mode: GenerationMode, input_ids: torch.Tensor, prepared: Mapping[str, Any]
) -> ForcedCandidates | None:
    """The candidates of a call; None where it has none, or where its text could differ or its loop needs every step.

    Args:
        model: the model that generates.
        mode: how the next token is chosen.
        input_ids: (rows, length) the prompts.
        prepared: the arguments that `generate()` has prepared.
    """
    config, processors = prepared["generation_config"], prepared["logits_processor"]
    suggesting = [each for each in processors if isinstance(each, SuggestsTokens)]
    if not suggesting or len(input_ids) > 1 or getattr(config, "speculate", None) is False:
        return None
    # Without a seed, the numbers that are drawn depend on how many tokens are checked at once.
    seeded = mode == GenerationMode.SAMPLE and any(type(each) is SeededSampling for each in processors)
    if mode != GenerationMode.GREEDY_SEARCH and not seeded:
        return None
    if config.return_dict_in_generate or any(isinstance(each, Recorder | StatesWatcher) for each in processors):
        return None
    if not all(isinstance(each, _TIMELY) for each in prepared["stopping_criteria"]):
        return None
    if prepared.get("inputs_embeds") is not None or config.prefill_chunk_size is not None:
        return None
    if can_slide(model) and config.max_length > model.config.max_position_embeddings:
        return None
    if not _goes_back(model, prepared):
        return None
    CANDIDATES_LAST.add(prepared[CACHE])
    return ForcedCandidates(suggesting, config.max_length)


def _goes_back(model: Any, prepared: Mapping[str, Any]) -> bool:
    """Whether tokens can be taken back, and one pass over several rounds as several over one do."""
    cache: Any = prepared.get(CACHE)
    if not prepared.get("use_cache") or type(cache) is not DynamicCache or cache.offloading:
        return False
    if getattr(model, "_is_stateful", False) or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return False
    return model.dtype == torch.float32 and not cache.get_seq_length()
