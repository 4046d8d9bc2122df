"""Keeps every beam of transformers' beam search within what the processors allow.

transformers expects more allowed continuations than beams. Controls may leave fewer, and then it continues masked
candidates, goes on after the end of a text, and returns unfinished or empty texts. Here three of its steps see to it
that a beam consists of allowed tokens alone, that no beam goes on after its end, and that all returned texts are
finished. Where every step has enough allowed continuations, the texts are those of transformers.
"""

from typing import Any

import torch

from .forced_tokens import WrappedModel

# A copy of a beam scores so much less than the beam itself: it is continued only where other continuations are lacking.
# Small enough that the scores of its own continuations still differ in float32.
_COPY = 1e4


class AllowedBeams(WrappedModel):
    """A model whose beams follow the processors, however few continuations these leave.

    Its sampled beams also continue in the order of their scores, as from transformers 5.24 on. Older versions kept them
    in the order in which they were drawn, and a search took the first drawn for the best.
    """

    def _get_top_k_continuations(
        self, *, accumulated_log_probs: torch.Tensor, do_sample: bool, beams_to_keep: int, **others: Any
    ) -> tuple[torch.Tensor, ...]:
        """The candidates of a step, best first; masked ones only where no others are left."""
        if do_sample:
            accumulated_log_probs = _drawn(accumulated_log_probs, beams_to_keep)
        found: tuple[torch.Tensor, ...] = self._model._get_top_k_continuations(
            accumulated_log_probs=accumulated_log_probs, do_sample=False, beams_to_keep=beams_to_keep, **others
        )
        return found

    def _get_running_beams_for_next_iteration(
        self,
        *,
        topk_log_probs: torch.Tensor,
        topk_running_sequences: torch.Tensor,
        topk_running_beam_indices: torch.Tensor,
        next_token_hits_stopping_criteria: torch.Tensor,
        **others: Any,
    ) -> tuple[torch.Tensor, ...]:
        """The beams that continue: copies of the best one take the place of those that have ended or are masked."""
        scores = topk_log_probs.masked_fill(next_token_hits_stopping_criteria, -torch.inf)  # (prompts, candidates)
        best, place = scores.max(dim=-1, keepdim=True)
        lost = scores == -torch.inf
        # Where nothing continues, all scores stay masked, so that the search of this prompt is over.
        scores = torch.where(lost, best - _COPY, scores)
        order = torch.where(lost, place, torch.arange(scores.shape[-1], device=scores.device))
        found: tuple[torch.Tensor, ...] = self._model._get_running_beams_for_next_iteration(
            topk_log_probs=scores,
            topk_running_sequences=_reordered(topk_running_sequences, order),
            topk_running_beam_indices=_reordered(topk_running_beam_indices, order),
            next_token_hits_stopping_criteria=torch.zeros_like(next_token_hits_stopping_criteria),
            **others,
        )
        return found

    def _update_finished_beams(
        self, *, topk_log_probs: torch.Tensor, next_token_hits_stopping_criteria: torch.Tensor, **others: Any
    ) -> tuple[torch.Tensor, ...]:
        """The finished texts of each prompt, best first; copies of the best one where there are not enough."""
        sequences, scores, indices, finished = self._model._update_finished_beams(
            topk_log_probs=topk_log_probs.masked_fill(~next_token_hits_stopping_criteria, -torch.inf),
            next_token_hits_stopping_criteria=next_token_hits_stopping_criteria,
            **others,
        )
        # A copy keeps the score of the empty place, so that the next finished text takes it.
        places = torch.arange(finished.shape[-1], device=finished.device)
        order = torch.where(finished, places, finished.int().argmax(dim=-1, keepdim=True))
        return _reordered(sequences, order), scores, _reordered(indices, order), finished


def _drawn(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Scores, (prompts, candidates), with all but `count` candidates of each prompt masked, drawn without replacement.

    They are the ones that `torch.multinomial` draws from the softmax of the scores. That function fills up with masked
    candidates where fewer have a probability above zero in float32; here, the most probable others follow.
    """
    noise = torch.empty_like(scores).exponential_().clamp_min(torch.finfo(scores.dtype).tiny).log()
    drawn = (scores - noise).topk(count).indices
    return torch.full_like(scores, -torch.inf).scatter(-1, drawn, scores.gather(-1, drawn))


def _reordered(candidates: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Candidates, (prompts, count, length), in another order, (prompts, count)."""
    return candidates[torch.arange(len(candidates), device=candidates.device)[:, None], order]
