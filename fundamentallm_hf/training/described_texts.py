"""Texts that a model writes for an attribute of which only a description is given, and its own judgement of texts.

Openings are continued after two instructions: to write a text that fits the description, and one that fits its
opposite. The judgement of a text is the log of the ratio of its probabilities after the two, which by Bayes' rule is
the log-odds that it was written after the first. Experts learn the texts without the instructions, and so guide without
them (context distillation, Askell et al. 2021).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fundamentallm_hf.generation.chat import ChatPrompt, as_prompt

from .labelled_samples import OwnText, Writing, write_texts
from .text_likelihood import Likelihood, likelihoods

# Called with the number of texts that are done, and the total.
Report = Callable[[int, int], None]

# Neutral beginnings of texts, for a model that is given no others.
OPENINGS = (
    "The man",
    "One day, Tim",
    "In the morning",
    "My friend",
    "When I came home",
    "The letter said",
    "There was a house",
    "Yesterday",
    "At school, the teacher",
    "She looked at him and",
    "The weather",
    "After dinner",
    "Our town",
    "The book",
    "It was Monday, and",
    "He opened the door and",
    "The children",
    "People say",
    "Last year",
    "I went to",
    "In the city",
    "We walked",
    "The old woman",
    "A dog",
    "On the table",
    "It began",
    "Once upon a time",
    "The phone rang, and",
    "Nobody knew",
    "The road",
    "This is",
    "Every day",
)


@dataclass(frozen=True)
class Description:
    """What texts with an attribute are like, as it completes the words "a text that is".

    Attributes:
        having: such as "formal and polite".
        lacking: the same of texts without it; "" for texts of which nothing is asked.
    """

    having: str
    lacking: str = ""

    def prompt(self, opening: str, having: bool, tokenizer: Any) -> str:
        """An instruction with an opening after it, which the model continues.

        A tokenizer with a chat template gets a chat, of whose answer the opening is the beginning. Any other gets a
        context that announces the text.
        """
        what = self.having if having else self.lacking
        if getattr(tokenizer, "chat_template", None):
            asked = f"Write a short text{f' that is {what}' if what else ''}. Begin with: {opening}"
            chat = as_prompt([{"role": "user", "content": asked}], tokenizer)
            assert isinstance(chat, ChatPrompt)
            return ChatPrompt(chat + opening, chat.messages)
        announced = f"This is a text that is {what}:" if what else "This is a text:"
        return f"{announced}\n\n{opening}"


def write_both_sides(
    model: Any,
    tokenizer: Any,
    description: Description,
    writing: Writing,
    progress: Report = lambda *_: None,
) -> list[OwnText]:
    """Let a model write after both instructions in turn.

    Args:
        model, tokenizer: as in `write_texts`.
        description: of the texts.
        writing: the texts on both sides together.
        progress: called with the number of generated texts, and the total.

    Returns:
        The texts after the first instruction, then those after the second, with openings that leave out instructions.
    """
    found: list[OwnText] = []
    for having, count in ((True, (writing.number + 1) // 2), (False, writing.number // 2)):
        of_prompt = {description.prompt(opening, having, tokenizer): opening for opening in writing.openings}
        show = _progress_after(len(found), writing.number, progress)
        part = Writing(list(of_prompt), count, writing.tokens, writing.seed + (not having))
        written = write_texts(model, tokenizer, part, show)
        found += [OwnText(of_prompt[each.opening], each.text) for each in written]
    return found


def _progress_after(before: int, total: int, progress: Report) -> Report:
    """Reports the progress of a part of some work as that of the whole, of which so much was done before."""
    return lambda done, _: progress(before + done, total)


class OwnJudgement:
    """The judgement of a model about texts: the log-odds that they were written after the first of two instructions.

    Args:
        model: a causal language model.
        tokenizer: the tokenizer of the model.
        description: of the texts.
    """

    def __init__(self, model: Any, tokenizer: Any, description: Description) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.description = description

    def __call__(self, texts: Sequence[OwnText], progress: Report = lambda *_: None) -> list[float]:
        """The log-odds of every text, in nats; nan for a text without tokens."""
        logs: list[list[Likelihood]] = []
        for having in (True, False):
            pairs = [(self.description.prompt(each.opening, having, self.tokenizer), each.text) for each in texts]
            show = _progress_after(len(logs) * len(texts), 2 * len(texts), progress)
            logs.append(likelihoods(self.model, self.tokenizer, pairs, show))
        return [
            with_it.log - without.log if with_it.tokens else math.nan for with_it, without in zip(*logs, strict=True)
        ]
