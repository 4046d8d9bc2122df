"""Finds what a model writes far more often than people do, as a list of word weights that makes it as rare.

The statistic is the log-odds ratio with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008), as for
attributes: it is 0 where both write a word equally often, and words that were seen too rarely are left out. The weight
of an entry is the opposite, so with `word_weights` the entry gets about the frequency that it has in people's texts.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.text.characters import fold_text, is_word

from .labelled_samples import Writing, write_texts
from .word_training import LARGEST, PRIOR, differences

# Words in the longest phrase, and in the openings that are taken from people's texts.
LONGEST, OPENING = 3, 3
# What a model writes less often is not judged. Thousands of phrases are, so a weight has to be this many standard
# deviations from 0: 1 in 700 would be random.
_LEAST_COUNT, _CLEARLY = 5, 3.0


@dataclass(frozen=True)
class Search:
    """What is looked for.

    Attributes:
        texts: number of texts that the model writes.
        tokens: most tokens of each.
        seed: of the texts.
        ratio: an entry is listed if the model writes it at least this many times as often as people do.
        most: number of entries, the clearest first.
    """

    texts: int = 400
    tokens: int = 300
    seed: int = 0
    ratio: float = 2.0
    most: int = 1000


def find_overused(
    model: Any,
    tokenizer: Any,
    people: Sequence[str] | Mapping[str, float],
    openings: Sequence[str] = (),
    search: Search = Search(),
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, float]:
    """Let a model write texts, and compare them with people's.

    Args:
        model: a causal language model.
        tokenizer: the tokenizer of the model.
        people: texts by people, or counts of their words. With counts only words are compared, not phrases.
        openings: prompts; by default the first words of people's texts, or the model's start-of-text token.
        search: what is looked for.
        progress: called with the number of generated texts, and the total.

    Returns:
        The weight of each word and phrase, below 0; the clearest first.

    Raises:
        UserError: there is no opening to continue, or nothing to compare with.
    """
    counts = dict(people) if isinstance(people, Mapping) else None
    texts = [] if isinstance(people, Mapping) else [text.strip() for text in people if text.strip()]
    if not (counts or texts):
        raise UserError("there are no texts to compare with: give some, one a line")
    if not openings:
        cut = [_opening(text) for text in texts[: search.texts]]
        openings, texts = (cut or [""]), [text[len(_opening(text)) :] for text in texts]
    written = write_texts(model, tokenizer, Writing(openings, search.texts, search.tokens, search.seed), progress)
    of_people = [counts] if counts else count_phrases(texts)
    return overused(count_phrases((each.text for each in written), len(of_people)), of_people, search)


def overused(
    of_model: Sequence[Mapping[str, float]], of_people: Sequence[Mapping[str, float]], search: Search
) -> dict[str, float]:
    """The weights of what a model says too often.

    A phrase is listed only if it is too frequent even where its words and shorter phrases have their weights.

    Args:
        of_model: how often each word occurs in the model's texts, each phrase of two words, and so on.
        of_people: the same of people's texts.
        search: what is looked for.
    """
    listed: dict[str, tuple[float, float]] = {}
    for mine, theirs in zip(of_model, of_people, strict=True):
        found: dict[str, tuple[float, float]] = {}
        # People's texts may be far more than the model's: the prior must not outweigh these.
        size = sum(mine.values())
        share = PRIOR * size / max(1, size + sum(theirs.values()))
        for phrase, (difference, deviation) in differences(mine, theirs, share).items():
            left = difference + sum(listed[part][0] for part in _parts(phrase) if part in listed)
            if mine.get(phrase, 0) >= _LEAST_COUNT and left >= max(_CLEARLY * deviation, math.log(search.ratio)):
                found[phrase] = -min(LARGEST, left), left / deviation
        listed |= found
    clearest = sorted(listed, key=lambda phrase: (-listed[phrase][1], phrase))[: search.most]
    return {phrase: round(listed[phrase][0], 2) for phrase in clearest}


def count_phrases(texts: Iterable[str], longest: int = LONGEST) -> list[dict[str, int]]:
    """How often each (folded) word occurs, each phrase of two words, and so on; no phrase goes across punctuation.

    Example:

    ```python
    >>> from fundamentallm_hf.training.overused import count_phrases
    >>> count_phrases(["A cat. A cat sat!"], longest=2)
    [{'a': 2, 'cat': 2, 'sat': 1}, {'a cat': 2, 'cat sat': 1}]

    ```
    """
    found: list[dict[str, int]] = [{} for _ in range(longest)]
    for text in texts:
        marked = "".join(char if is_word(char) or char.isspace() else " \0 " for char in fold_text(text))
        for run in marked.split("\0"):
            words = run.split()
            for length, counts in enumerate(found, 1):
                for start in range(len(words) - length + 1):
                    phrase = " ".join(words[start : start + length])
                    counts[phrase] = counts.get(phrase, 0) + 1
    return found


def _parts(phrase: str) -> list[str]:
    """The shorter phrases in a phrase, its words included, as often as they occur."""
    words = phrase.split()
    return [
        " ".join(words[start : start + length])
        for length in range(1, len(words))
        for start in range(len(words) - length + 1)
    ]


def _opening(text: str) -> str:
    """The first words of a text."""
    words = text.split(maxsplit=OPENING)
    return text if len(words) <= OPENING else text[: len(text) - len(words[OPENING])].rstrip()
