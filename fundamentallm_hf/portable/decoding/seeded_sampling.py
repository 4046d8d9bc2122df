"""Sampling with one seed for every row.

`torch.manual_seed` seeds a whole batch: the third of five samples cannot be reproduced without the other four, and a
prompt's text changes with its neighbours. Here the random number of a step follows from the row's seed and the step
alone.
"""

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor
from transformers.generation import GenerationMode

from .call_processors import CallProcessors
from .phases import Phase

BLOCK = 1024
HIGHEST_SEED = 2**64 - 1


class SeededSampling(LogitsProcessor):
    """Chooses the next token of every row and masks all others, so that any sampler takes it.

    The choice inverts the cumulative distribution at a uniform number in [0, 1), so over seeds it follows
    `softmax(scores)` exactly. Must be the last processor in the list. Meant for plain sampling: beams share one random
    stream by design.

    Args:
        seed: seed of the first sample of every prompt; sample i has `seed + i`.
        samples: samples per prompt, adjacent in the batch.
        prompt_columns: width of the prompts in tokens, so that step 0 is the first new token; by default the width at
            the first call.

    Raises:
        ValueError: the seed is not a whole number that a generator accepts.

    Example:

    ```python
    >>> import torch
    >>> from fundamentallm_hf.portable.decoding.seeded_sampling import SeededSampling
    >>> processor = SeededSampling(seed=7, samples=2, prompt_columns=1)
    >>> processor(torch.zeros(2, 1, dtype=torch.long), torch.zeros(2, 4)).isfinite().sum(dim=-1)
    tensor([1, 1])

    ```
    """

    def __init__(self, seed: int, samples: int, prompt_columns: int | None = None) -> None:
        if not isinstance(seed, int) or not 0 <= seed <= HIGHEST_SEED - samples + 1:
            raise ValueError(f"seed has to be a whole number from 0 to {HIGHEST_SEED - samples + 1} but is {seed!r}")
        self.prompt_columns = prompt_columns
        # Always on the CPU, so that a seed means the same on every device.
        self.streams = [torch.Generator().manual_seed(seed + i) for i in range(samples)]
        self.uniform = torch.empty(samples, 0, dtype=torch.float64)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: (rows, length); `scores`: (rows, vocabulary). Returns scores with one open token per row."""
        chosen = self.choose(input_ids, scores)[:, None]
        closed = torch.full_like(scores, -torch.inf)
        return closed.scatter(-1, chosen, scores.gather(-1, chosen))

    def choose(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The tokens that are left open, (rows,).

        Raises:
            ValueError: a score is not a number, or every token of a row is closed.
        """
        if self.prompt_columns is None:
            self.prompt_columns = input_ids.shape[1]
        step = input_ids.shape[1] - self.prompt_columns
        self._draw(step)
        uniform = self.uniform[:, step].repeat(len(scores) // len(self.streams))
        return choose_by(uniform, scores)

    def choose_run(self, length: int, scores: torch.Tensor) -> list[int]:
        """The tokens of several steps of one row, each as if those before it were as they are.

        Args:
            length: tokens of the row before the first of these steps.
            scores: (steps, vocabulary).
        """
        return choose_by(self.numbers(length, len(scores)), scores).tolist()

    def numbers(self, length: int, steps: int) -> torch.Tensor:
        """The random numbers of several steps of one row, (steps,).

        Args:
            length: tokens of the row before the first of these steps.
            steps: how many.
        """
        assert self.prompt_columns is not None
        assert len(self.streams) == 1
        step = length - self.prompt_columns
        self._draw(step + steps - 1)
        return self.uniform[0, step : step + steps]

    def choose_at(self, rows: Sequence[int], lengths: Sequence[int], scores: torch.Tensor) -> list[int]:
        """The tokens of several steps of several rows, each as if those before it were as they are.

        Args:
            rows: for each step its row.
            lengths: for each the tokens of the row before it.
            scores: (steps, vocabulary).
        """
        assert self.prompt_columns is not None
        steps = [length - self.prompt_columns for length in lengths]
        self._draw(max(steps))
        return choose_by(self.uniform[[row % len(self.streams) for row in rows], steps], scores).tolist()

    def _draw(self, step: int) -> None:
        while step >= self.uniform.shape[1]:
            # Drawn in blocks of a fixed size: how many numbers one call draws may change what they are.
            blocks = [torch.rand(BLOCK, dtype=torch.float64, generator=stream) for stream in self.streams]
            self.uniform = torch.cat([self.uniform, torch.stack(blocks)], dim=1)


def choose_by(uniform: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """The tokens at which the cumulative distributions reach these numbers, (rows,).

    Args:
        uniform: (rows,) numbers in [0, 1).
        scores: (rows, vocabulary).

    Raises:
        ValueError: a score is not a number, or every token of a row is closed.
    """
    cumulative = _double(scores.softmax(dim=-1)).cumsum(dim=-1)
    # The largest sum stands for 1, so that rounding cannot point behind the last token; and no closed token is
    # ever hit, because its sum is that of the token before it.
    target = uniform.to(cumulative)[:, None] * cumulative[:, -1:]
    if bool(target.isnan().any()):
        raise ValueError("the scores of the next token are not numbers, so none can be drawn")
    return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(max=scores.shape[-1] - 1)


def _double(probabilities: torch.Tensor) -> torch.Tensor:
    # Apple's GPUs have no double precision.
    return probabilities.float() if probabilities.device.type == "mps" else probabilities.double()


def add_seeded_sampling(step: CallProcessors) -> None:
    """Give every row of a call random numbers from its seed, where tokens are sampled."""
    call, seed = step.call, step.call.field("seed")
    if seed is not None and call.mode == GenerationMode.SAMPLE:
        samples = call.config.num_return_sequences or 1
        step.add(Phase.CHOOSE, SeededSampling(seed, samples, call.prompt_columns))
