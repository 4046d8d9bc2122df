"""Guides by a pair of experts: one was trained on texts with the attribute, the other on texts without it.

The shift is the log of the ratio of the two probabilities, as in DExperts (Liu et al. 2021).
"""

from collections.abc import Sequence

import torch

from ..decoding.texts import Texts
from .output_experts import ExpertPair, JoinedPair
from .output_states import OutputStates


class ExpertGuide:
    """Guides by a pair of experts. See `Guide`.

    Args:
        experts: trained on the model that generates.
        states: the output states of that model.
        quiet: ids of tokens that are left unchanged: the special ones, which training texts do not contain.
    """

    has_cheap_texts = True

    def __init__(self, experts: ExpertPair, states: OutputStates, quiet: Sequence[int] = ()) -> None:
        self.experts = experts
        self.states = states
        self.quiet = torch.tensor(quiet, dtype=torch.long)
        self._pair: JoinedPair | None = None
        self._pass: tuple[torch.Tensor, torch.Tensor] | None = None
        # A pass that is judged as texts, and the shifts of those that were asked for.
        self._judged: tuple[torch.Tensor | None, dict[int, torch.Tensor]] = None, {}

    @torch.no_grad()
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """See `Guide`."""
        if self.states.shown is None or not self.states.is_current(input_ids):
            return self._shift(self.states.of(input_ids))[:, : scores.shape[-1]]
        # A pass over drafts is judged as a whole, at its first step.
        states, index = self.states.shown
        if self._pass is None or self._pass[0] is not states:
            self._pass = states, self._shift(states)
        return self._pass[1][:, index, : scores.shape[-1]]

    @torch.no_grad()
    def judge_texts(self, texts: Texts, scores: torch.Tensor) -> torch.Tensor:
        """See `JudgesTexts`."""
        states, places = self.states.of_texts(texts)
        if self._judged[0] is not states:
            self._judged = states, {}
        known = self._judged[1]
        if new := [place for place in places if place not in known]:
            known |= zip(new, self._shift(states.index_select(0, torch.tensor(new))), strict=True)
        return torch.stack([known[place] for place in places])[:, : scores.shape[-1]]

    def _shift(self, states: torch.Tensor) -> torch.Tensor:
        if self._pair is None or self._pair.device != states.device:
            self._pair = self.experts.to(states.device).joined(self.states.output)
            self.quiet = self.quiet.to(states.device)
        return self._pair(states).nan_to_num_(0.0).index_fill_(-1, self.quiet, 0.0)
