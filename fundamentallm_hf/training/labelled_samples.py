"""Texts that a model generates itself, labelled by a classifier: training data for experts where there are no texts.

Experts that learn from them model how the model itself comes to generate what the classifier recognises: the log of
their ratio is the evidence, token by token, of how the whole text will be classified. That is the idea of NADO (Meng et
al. 2022), whose second model estimates the classifier's verdict.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from fundamentallm_hf.generation.batch import torch_seeded
from fundamentallm_hf.portable.errors import UserError

from .expert_training import Passage

# The share of the texts that is kept at each end; what the judge holds for neither tells little of either.
SHARE = 0.25
_SAMPLING = {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0, "num_beams": 1}
# How many texts are written at once: rows times parameters, and rows, at most; of rows more where there is a GPU.
_MOST_WORK, _MOST_ROWS, _MOST_ROWS_OF_GPU = 4_000_000_000, 64, 2048


class OwnText(NamedTuple):
    """What a model wrote behind an opening.

    Attributes:
        opening: as it was given.
        text: what follows.
    """

    opening: str
    text: str

    @property
    def passage(self) -> Passage:
        """The whole, of which the experts learn what follows the opening."""
        whole = self.opening + self.text
        return Passage(whole, [(len(self.opening), len(whole))])


def write_texts(
    model: Any,
    tokenizer: Any,
    openings: Sequence[str],
    number: int,
    tokens: int,
    progress: Callable[[int, int], None] = lambda *_: None,
    rows: int | None = None,
    seed: int = 0,
) -> list[OwnText]:
    """Let a model write, at temperature 0.8 and top-p 0.9.

    Args:
        model: a causal language model.
        tokenizer: the tokenizer of the model.
        openings: taken in turn, from the first on, as often as it needs; an empty one is the model's token for the
            beginning of a text, if it has one.
        number: of texts.
        tokens: of each text at most.
        progress: called with the texts written, and their number.
        rows: that are written side by side; by default as many as a small machine or a GPU bears.
        seed: of what is drawn; the same one gives the same texts.

    Raises:
        UserError: there is no opening that the model can go on from.
    """
    begin = model.generation_config.bos_token_id
    read = {each: tokenizer(each, verbose=False).input_ids or ([] if begin is None else [begin]) for each in openings}
    given = [each for each in openings if read[each]]
    if not given:
        raise UserError("there is no opening to write on from: give some, one a line")
    most = _MOST_ROWS if model.device.type == "cpu" else _MOST_ROWS_OF_GPU
    rows = rows or max(1, min(most, _MOST_WORK // sum(each.numel() for each in model.parameters())))
    filler = next(each for each in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if each is not None)
    found: list[OwnText] = []
    with torch_seeded(seed, model.device):
        for start in range(0, number, rows):
            part = [given[index % len(given)] for index in range(start, min(number, start + rows))]
            width = max(len(read[each]) for each in part)
            # Padding stands in front, so that what is written stands behind.
            gaps = [width - len(read[each]) for each in part]
            ids = torch.tensor([[filler] * gap + read[each] for gap, each in zip(gaps, part, strict=True)])
            mask = torch.tensor([[0] * gap + [1] * (width - gap) for gap in gaps])
            written = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                pad_token_id=filler,
                max_new_tokens=tokens,
                **_SAMPLING,
            )
            texts = tokenizer.batch_decode(written[:, width:], skip_special_tokens=True)
            found += [OwnText(*each) for each in zip(part, texts, strict=True)]
            progress(len(found), number)
    return found


def sort_texts(
    texts: Sequence[OwnText], scores: Sequence[float], share: float = SHARE
) -> tuple[list[OwnText], list[OwnText]]:
    """Those that a judge scored highest, and those that it scored lowest.

    Args:
        texts: what was judged.
        scores: of each; nan for one that nothing can be said of, which is left out.
        share: of the texts that is taken at each end, at most a half.

    Raises:
        UserError: the judge scored all alike.
    """
    order = sorted((index for index, score in enumerate(scores) if score == score), key=lambda index: scores[index])
    count = int(len(order) * share)
    if not count or scores[order[0]] == scores[order[-1]]:
        raise UserError(
            f"the {len(order)} texts that the model wrote are judged alike: let it write more, or take another judge"
        )
    return [texts[index] for index in order[-count:]], [texts[index] for index in order[:count]]
