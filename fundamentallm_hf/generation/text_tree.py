"""A tree of texts: every continuation, every retry and every branch of a session, with a history of where it was.

The prompt loop and the web demo keep their texts in it; `tree_file.py` writes and reads it. Neither imports torch.
"""

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.text.pieces import common_length
from fundamentallm_hf.settings.chat_messages import with_reply
from fundamentallm_hf.settings.generation_settings import SETTINGS, GenerationSettings

from .text_names import ALIKE, first_words, one_line, words_added

if TYPE_CHECKING:
    from .completion import Completion

# Steps that `undo` can take back.
MOST_UNDONE = 1000
# A word or a sign with the white space before it.
_WORDS = re.compile(r"\s*\w+|\s*[^\w\s]|\s+")


@dataclass(frozen=True, slots=True)
class Node:
    """One text of a tree.

    Attributes:
        id: a positive number, by which people name it.
        parent: the id of the text that it came from; None for a prompt that somebody gave.
        prompt: what the model was given, or what somebody typed; None where that is the whole text of the parent.
        completion: what the model added; empty where nothing was generated.
        name: its first words, or what it was called.
        seed: reproduces the completion with these settings; None if nothing was sampled.
        settings: those that differ from the defaults, by their names in Python, without the seed.
        tokens: number of tokens that the model added.
        perplexity: of those tokens under the model alone; None where it is not known.
        finish_reason: why the completion ended, as in `Completion`; None where nothing was generated.
        messages: the chat that `prompt` was made of, with the start of the reply if there is one; None for any other
            text, and for more of the parent's reply.
    """

    id: int
    parent: int | None
    prompt: str | None
    completion: str = ""
    name: str = ""
    seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    tokens: int = 0
    perplexity: float | None = None
    finish_reason: str | None = None
    messages: tuple[Mapping[str, str], ...] | None = None

    @property
    def is_generated(self) -> bool:
        """Whether a model was asked for it, which may have ended it at once; else it was typed or edited."""
        return bool(self.completion) or self.finish_reason is not None


class TextTree:
    """Texts that came from each other, and which of them is the current one.

    Undo and redo move along the texts that were current; they never remove a text.

    Args:
        nodes: the texts, parents before their children.
        history: the ids of the texts that were current, in order; None where there was no text.
        position: the index in `history` of the current one.

    Example:

    ```python
    >>> from fundamentallm_hf.generation.text_tree import TextTree
    >>> tree = TextTree()
    >>> start = tree.add_prompt("The cat")
    >>> for completion in (" sat.", " ran."):
    ...     tree.go(tree.add(start.id, "The cat", completion).id)
    >>> tree.undo()
    >>> tree.text(tree.current.id)
    'The cat sat.'
    >>> [node.name for node in tree.children(start.id)]
    ['sat.', 'ran.']

    ```
    """

    def __init__(
        self,
        nodes: Mapping[int, Node] | None = None,
        history: list[int | None] | None = None,
        position: int | None = None,
    ) -> None:
        self._nodes = dict(nodes or {})
        self._history: list[int | None] = list(history or [None])
        self._position = len(self._history) - 1 if position is None else position

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def __getitem__(self, number: int) -> Node:
        """The text with this id.

        Raises:
            UserError: there is none.
        """
        if number in self._nodes:
            return self._nodes[number]
        if not self._nodes:
            raise UserError(f"there is no text {number}: nothing has been written yet")
        raise UserError(f"there is no text {number}: the numbers go up to {max(self._nodes)}")

    @property
    def history(self) -> tuple[int | None, ...]:
        """The ids of the texts that were current, in order; None where there was no text."""
        return tuple(self._history)

    @property
    def position(self) -> int:
        """The index in `history` of the current text."""
        return self._position

    @property
    def current(self) -> Node | None:
        """The current text; None where there is none."""
        number = self._history[self._position]
        return None if number is None else self._nodes[number]

    def text(self, number: int) -> str:
        """The whole text of a node."""
        node, parts = self[number], []
        while node.prompt is None:
            parts.append(node.completion)
            assert node.parent is not None  # a node without parent has a prompt
            node = self._nodes[node.parent]
        return "".join([node.prompt, node.completion, *reversed(parts)])

    def prompt(self, number: int) -> str:
        """The text that the model was given for a node: its whole text, where nothing was generated."""
        node = self[number]
        if node.prompt is not None:
            return node.prompt
        assert node.parent is not None
        return self.text(node.parent)

    def chat(self, number: int) -> list[dict[str, str]] | None:
        """The messages of a chat up to the reply that a node holds, if it holds one; None for any other text."""
        asked = self.asked(number)
        return None if asked is None else with_reply(asked, self[number].completion)

    def asked(self, number: int) -> list[dict[str, str]] | None:
        """The messages that the prompt of a node was made of; None where it is no chat."""
        node, parts = self[number], []
        while node.messages is None and node.prompt is None and node.parent is not None:
            node = self._nodes[node.parent]
            parts.append(node.completion)
        return None if node.messages is None else with_reply(node.messages, "".join(reversed(parts)))

    def children(self, number: int | None) -> list[Node]:
        """The texts that came from a text; for None those that came from none."""
        return [node for node in self if node.parent == number]

    def depths(self) -> Iterator[tuple[Node, int]]:
        """All texts with their depth, each followed by those that came from it."""
        below: dict[int | None, list[Node]] = {}
        for node in self:
            below.setdefault(node.parent, []).append(node)
        waiting = [(node, 0) for node in reversed(below.get(None, []))]
        while waiting:
            node, depth = waiting.pop()
            yield node, depth
            waiting += [(child, depth + 1) for child in reversed(below.get(node.id, []))]

    def add_prompt(self, prompt: str) -> Node:
        """The text that is a prompt alone, and no chat; the same one, where that prompt was given before."""
        for node in self.children(None):
            if node.prompt == prompt and not node.completion and node.messages is None:
                return node
        return self.add(None, prompt)

    def add(self, parent: int | None, prompt: str, completion: str = "", **facts: Any) -> Node:
        """Add a text; the current one stays.

        Args:
            parent: the id of the text that it came from.
            prompt: what the model was given.
            completion: what it added.
            facts: other fields of `Node`.

        Raises:
            UserError: there is no such parent.
        """
        continued = parent is not None and self.text(parent) == prompt
        name = facts.pop("name", "") or self._name(parent, prompt, completion)
        number = max(self._nodes, default=0) + 1
        node = Node(number, parent, None if continued else prompt, completion, name, **facts)
        self._nodes[number] = node
        return node

    def _name(self, parent: int | None, prompt: str, completion: str) -> str:
        """A name that tells a text from its siblings: its first words, or those where it departs from similar ones."""
        name = words_added(prompt, completion) if completion else first_words(prompt)
        text, same = prompt + completion, 0
        for other in self.children(parent):
            if other.name[:ALIKE] == name[:ALIKE]:
                same = max(same, common_length(text, self.text(other.id)))
        departs = words_added(text[:same], text[same:]) if same else ""
        return departs or name or first_words(prompt) or one_line(text) or "empty text"

    def go(self, number: int) -> None:
        """Make a text the current one, and forget what `redo` would have brought back.

        Raises:
            UserError: there is none.
        """
        number = self[number].id
        if self._history[self._position] == number:
            return
        self._history = [*self._history[: self._position + 1], number][-MOST_UNDONE - 1 :]
        self._position = len(self._history) - 1

    def undo(self) -> None:
        """Go back to the text that was current before.

        Raises:
            UserError: there was none.
        """
        if self._position == 0:
            raise UserError("there is nothing to undo")
        self._position -= 1

    def redo(self) -> None:
        """Take back the last `undo`.

        Raises:
            UserError: nothing was undone.
        """
        if self._position == len(self._history) - 1:
            raise UserError("there is nothing to redo")
        self._position += 1

    def rename(self, number: int, name: str) -> None:
        """Give a text another name.

        Raises:
            UserError: there is no such text.
        """
        self._nodes[number] = replace(self[number], name=name)

    def delete(self, number: int) -> int:
        """Delete a text and all that came from it; its parent becomes current if the current one is deleted.

        Returns:
            How many texts were deleted.

        Raises:
            UserError: there is no such text.
        """
        node = self[number]
        gone = {number}
        for each in self:  # parents come before their children
            if each.parent in gone:
                gone.add(each.id)
        self._nodes = {each.id: each for each in self if each.id not in gone}
        history: list[int | None] = []
        for index, entry in enumerate(self._history):
            shown = node.parent if entry in gone else entry
            if not history or history[-1] != shown:
                history.append(shown)
            if index == self._position:
                position = len(history) - 1
        self._history, self._position = history, position
        return len(gone)

    def copy(self) -> "TextTree":
        """A tree of the same texts, which changes by itself."""
        return TextTree(self._nodes, self._history, self._position)


def differing(settings: GenerationSettings) -> dict[str, Any]:
    """The settings that differ from the defaults, without the seed, and without a file: its words are among them.

    Raises:
        UserError: the file of words cannot be read.
    """
    read = settings.with_files_read()
    return {
        name: value
        for name, setting in SETTINGS.items()
        if name != "seed" and (value := getattr(read, name)) != setting.default
    }


def perplexity(mean_log_probability: float | None) -> float | None:
    """The perplexity of tokens with this mean log-probability, in nats."""
    return None if mean_log_probability is None else math.exp(min(-mean_log_probability, 700))


def facts_of(completion: "Completion", settings: GenerationSettings) -> dict[str, Any]:
    """The fields of a `Node` that say how a completion came about, and reproduce it alone.

    Args:
        completion: one of those that were generated together.
        settings: those of the call that generated them.

    Raises:
        UserError: the file of words cannot be read.
    """
    # The seed of a sample reproduces it alone. Beams have no seed for each, so all up to this one are needed.
    count = 1 + (completion.sample if settings.beam_size > 1 else 0)
    return {
        "seed": completion.seed,
        "settings": differing(settings.replace(best=None, num_samples=count)),
        "tokens": completion.tokens,
        "perplexity": perplexity(completion.mean_log_probability),
        "finish_reason": completion.finish_reason,
    }


def compare(first: str, second: str) -> list[tuple[str, str]]:
    """The differences between two texts, by words.

    Returns:
        Parts of the texts in order, each with its sign: "=" is in both, "-" in the first alone, "+" in the second
        alone.

    Example:

    ```python
    >>> from fundamentallm_hf.generation.text_tree import compare
    >>> compare("The cat sat.", "The dog sat.")
    [('=', 'The'), ('-', ' cat'), ('+', ' dog'), ('=', ' sat.')]

    ```
    """
    one, other = _WORDS.findall(first), _WORDS.findall(second)
    # Texts of one tree begin alike, and difflib takes quadratic time.
    same = common_length(one, other)
    parts = [("=", "".join(one[:same]))] if same else []
    one, other = one[same:], other[same:]
    for kind, start, end, begin, stop in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append(("=", "".join(one[start:end])))
            continue
        parts += [("-", "".join(one[start:end]))] if end > start else []
        parts += [("+", "".join(other[begin:stop]))] if stop > begin else []
    return parts
