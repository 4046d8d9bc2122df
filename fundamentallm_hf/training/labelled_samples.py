"""Texts that a model generates itself, labelled by a classifier: training data for an attribute without given texts.

Experts trained on them model how the model generates text that the classifier recognises: the log of their ratio is the
evidence, token by token, for the classification of the whole text. This is the idea of NADO (Meng et al. 2022), whose
second model estimates the classifier's verdict.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch

from fundamentallm_hf.generation.batch import torch_seeded
from fundamentallm_hf.generation.chat import encode
from fundamentallm_hf.generation.generate_arguments import is_fundamentallm
from fundamentallm_hf.portable.controls.controlled_generate import controlled_generate
from fundamentallm_hf.portable.errors import UserError

from .text_states import Passage

# The share of the texts that is kept at each end; texts in the middle are not informative.
SHARE = 0.25
_SAMPLING = {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0, "num_beams": 1}
# Most texts that are generated at once: rows times parameters, and rows; more rows on a GPU.
_MOST_WORK, _MOST_ROWS, _MOST_ROWS_OF_GPU = 4_000_000_000, 64, 2048


class OwnText(NamedTuple):
    """A completion that a model generated after an opening.

    Attributes:
        opening: the prompt, as given.
        text: the completion.
    """

    opening: str
    text: str

    @property
    def passage(self) -> Passage:
        """The whole text; only the part after the opening is learned from."""
        whole = self.opening + self.text
        return Passage(whole, [(len(self.opening), len(whole))])


@dataclass(frozen=True)
class Writing:
    """Which texts a model is to generate.

    Attributes:
        openings: prompts, used in turn from the first on, as often as needed; an empty one is the model's start-of-text
            token, if it has one. A `ChatPrompt` has its special tokens written out.
        number: of texts.
        tokens: most tokens of each.
        seed: of the random numbers; the same one gives the same texts.
    """

    openings: Sequence[str]
    number: int
    tokens: int
    seed: int = 0


def write_texts(
    model: Any,
    tokenizer: Any,
    writing: Writing,
    progress: Callable[[int, int], None] = lambda *_: None,
    rows: int | None = None,
    controls: Mapping[str, Any] | None = None,
) -> list[OwnText]:
    """Let a model generate texts, at temperature 0.8 and top-p 0.9.

    Args:
        model: a causal language model.
        tokenizer: the tokenizer of the model.
        writing: which texts.
        progress: called with the number of generated texts, and the total.
        rows: texts generated at once; by default as many as a small machine or a GPU can handle.
        controls: fields of the generation config, such as `guide_attribute`.

    Raises:
        UserError: there is no opening that the model can continue.
    """
    begin = model.generation_config.bos_token_id
    of_openings = zip(writing.openings, encode(writing.openings, tokenizer), strict=True)
    read = {each: ids or ([] if begin is None else [begin]) for each, ids in of_openings}
    given = [each for each in writing.openings if read[each]]
    if not given:
        raise UserError("there is no opening to write on from: give some, one a line")
    most = _MOST_ROWS if model.device.type == "cpu" else _MOST_ROWS_OF_GPU
    rows = rows or max(1, min(most, _MOST_WORK // sum(each.numel() for each in model.parameters())))
    filler = next(each for each in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if each is not None)
    how = {**_SAMPLING, **(controls or {})}
    if controls and not is_fundamentallm(model):
        how["custom_generate"] = partial(controlled_generate, tokenizer=tokenizer)
    found: list[OwnText] = []
    with torch_seeded(writing.seed, model.device):
        for start in range(0, writing.number, rows):
            part = [given[index % len(given)] for index in range(start, min(writing.number, start + rows))]
            width = max(len(read[each]) for each in part)
            # Padding comes first, so that the completion comes last.
            gaps = [width - len(read[each]) for each in part]
            ids = torch.tensor([[filler] * gap + read[each] for gap, each in zip(gaps, part, strict=True)])
            mask = torch.tensor([[0] * gap + [1] * (width - gap) for gap in gaps])
            written = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                pad_token_id=filler,
                max_new_tokens=writing.tokens,
                **how,
            )
            texts = [_added(tokenizer, ids, width) for ids in written.tolist()]
            found += [OwnText(*each) for each in zip(part, texts, strict=True)]
            progress(len(found), writing.number)
    return found


def _added(tokenizer: Any, ids: list[int], width: int) -> str:
    """The text after the first `width` tokens, as it reads after them: with the space that a decoder drops first."""
    before = tokenizer.decode(ids[:width], skip_special_tokens=True)
    whole = tokenizer.decode(ids, skip_special_tokens=True)
    return whole[len(before) :] if whole.startswith(before) else tokenizer.decode(ids[width:], skip_special_tokens=True)


def sort_texts(
    texts: Sequence[OwnText], scores: Sequence[float], share: float = SHARE, groups: Sequence[int] | None = None
) -> tuple[list[OwnText], list[OwnText]]:
    """The texts that a classifier scored highest, and those that it scored lowest.

    Args:
        texts: the scored texts.
        scores: of each; nan for a text without a score, which is left out.
        share: of the texts that is kept at each end, at most a half.
        groups: of each text. The share is kept of every group, so that the two sides do not differ in what the groups
            are about, such as the topic of the texts. By default all texts are one group.

    Raises:
        UserError: in every group, all scores are the same.
    """
    scored = [index for index, score in enumerate(scores) if score == score]
    members: dict[int, list[int]] = {}
    for index in scored:
        members.setdefault(0 if groups is None else groups[index], []).append(index)
    having, lacking = [], []
    for group in sorted(members):
        order = sorted(members[group], key=lambda index: scores[index])
        count = int(len(order) * share)
        if count and scores[order[0]] != scores[order[-1]]:
            having += [texts[index] for index in order[-count:]]
            lacking += [texts[index] for index in order[:count]]
    if not having:
        raise UserError(
            f"the {len(scored)} texts that the model wrote are judged alike: let it write more, or take another judge"
        )
    return having, lacking
