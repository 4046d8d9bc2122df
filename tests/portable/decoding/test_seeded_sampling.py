"""Seeded sampling follows the distribution exactly, and depends only on the row's seed and the step."""

import torch

from fundamentallm_hf.portable.decoding.seeded_sampling import SeededSampling

SCORES = torch.tensor([[0.1, 0.0, 0.5, 0.4]]).log()


def chosen(processor, scores, step=0):
    out = processor(torch.zeros(len(scores), 1 + step, dtype=torch.long), scores)
    assert (out.isfinite().sum(dim=-1) == 1).all()
    return out.argmax(dim=-1)


def test_frequencies_follow_the_distribution():
    rows = 4000
    picks = chosen(SeededSampling(0, rows, 1), SCORES.expand(rows, -1))
    frequencies = torch.bincount(picks, minlength=4) / rows
    assert (frequencies - SCORES.exp()[0]).abs().max() < 4 * (0.25 / rows) ** 0.5
    assert frequencies[1] == 0


def test_closed_tokens_are_never_chosen_at_either_end_of_the_interval():
    scores = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]])
    processor = SeededSampling(0, 1, 1)
    for uniform, token in ((0.0, 1), (0.4999999, 1), (0.5, 3), (1 - 2**-53, 3)):
        processor.uniform = torch.full((1, 1024), uniform, dtype=torch.float64)
        assert chosen(processor, scores).tolist() == [token]


def test_row_i_of_a_prompt_has_the_seed_plus_i():
    together = SeededSampling(5, 3, 1)
    flat = torch.zeros(6, 50)
    picks = chosen(together, flat, step=7)
    assert torch.equal(picks[:3], picks[3:])  # two prompts with three samples each
    alone = [chosen(SeededSampling(5 + i, 1, 1), flat[:1], step=7) for i in range(3)]
    assert torch.equal(picks[:3], torch.cat(alone))


def test_a_step_is_the_same_whichever_steps_came_before():
    flat = torch.zeros(1, 1000)
    walked = SeededSampling(1, 1, 1)
    for step in range(1030):
        last = chosen(walked, flat, step)
    assert torch.equal(last, chosen(SeededSampling(1, 1, 1), flat, step=1029))
