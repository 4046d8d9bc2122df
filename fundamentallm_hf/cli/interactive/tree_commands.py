"""The commands of the prompt loop that move through the texts of a session: undo, branches, edits, differences, files.

`session.py` generates the texts and hands them over. Every change is saved in the session's file on a terminal.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fundamentallm_hf.cli.saved_settings import read_settings, write_settings
from fundamentallm_hf.files import read_text
from fundamentallm_hf.generation.text_names import first_words, one_line
from fundamentallm_hf.generation.text_tree import Node, TextTree, compare, differing, facts_of
from fundamentallm_hf.generation.tree_file import SavedTree, parse_tree, says_tree, tree_text, write_tree
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.settings.chat_messages import started_reply, turns_of, with_reply
from fundamentallm_hf.settings.generation_settings import LIST_FILES, SETTINGS, GenerationSettings
from fundamentallm_hf.settings.typed_values import show_value

from .session_files import SessionFile
from .session_output import SessionOutput

if TYPE_CHECKING:
    from fundamentallm_hf.generation.completion import Completion
    from fundamentallm_hf.generation.generator import Generator

# Seconds between two saves of a text that is being generated, and how much longer than a save that is at least.
PACE, SHARE = 1.0, 20
NOTHING = "there is no text yet: type a prompt"


@dataclass
class Request:
    """What was asked for last, so that it can be asked for again.

    Attributes:
        prompt: the start of the text.
        continued: the prompt is a text that was shown.
        parent: the id of the text that the prompt came from; None for a typed prompt.
        changes: settings for this text alone.
        asked_seed: the seed among the settings at that time.
        used_seed: the last seed that was used; None where none was set.
    """

    prompt: str
    continued: bool = False
    parent: int | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    asked_seed: int | None = None
    used_seed: int | None = None

    @property
    def chat(self) -> dict[str, Any]:
        """The field of a `Node` that holds the messages of a chat; empty for any other prompt."""
        messages = getattr(self.prompt, "messages", None)
        return {} if messages is None else {"messages": tuple(messages)}


class TreeCommands:
    """The part of a session that keeps its texts.

    Args:
        output: receives all output.
        resumed: the texts of an earlier session.
        file: saves the texts after every change; None saves none.
    """

    generator: "Generator"
    model_name: str | None

    def __init__(self, output: SessionOutput, resumed: SavedTree | None, file: SessionFile | None) -> None:
        self.output = output
        self.file = file
        self.tree = resumed.tree if resumed is not None else TextTree()
        self.samples: list[int] = []  # the ids of the last texts, where several were generated at once
        self.request: Request | None = None
        self._saved, self._cost = 0.0, 0.0

    def show_resumed(self) -> None:
        """Show the text with which a session goes on."""
        count = len(self.tree)
        self.output.aside(f"resumed {count} text{'s' if count != 1 else ''}; /branches lists them")
        self._arrive()

    def remember(self, request: Request, completions: "Sequence[Completion]", settings: GenerationSettings) -> None:
        """Add texts that were just generated, and make the first of them the current one."""
        parent = self._parent(self.tree, request)
        self.samples = []
        for each in completions:
            facts = facts_of(each, settings) | ({} if request.continued else request.chat)
            node = self.tree.add(parent, request.prompt, each.completion, **facts)
            self.samples.append(node.id)
        self.tree.go(self.samples[0])
        self.save()

    def save(self, tree: TextTree | None = None) -> None:
        """Save the texts in the session's file; a failure is reported once, and ends saving."""
        tree = self.tree if tree is None else tree
        if self.file is None or not (len(tree) or self.file.path):
            return
        began = time.monotonic()
        try:
            self.file.save(tree_text(SavedTree(tree, self._settings_to_save(), self.model_name)))
        except UserError as error:
            self.file = None
            self.output.note(f"{error}; /save --tree FILE saves its texts")
        self._saved = time.monotonic()
        self._cost = self._saved - began

    def save_part(self, request: Request, text: str, settings: GenerationSettings) -> None:
        """Save a text that is still being generated, now and then, so that little is lost if the program is killed."""
        if self.file is None or time.monotonic() - self._saved < max(PACE, SHARE * self._cost):
            return
        tree = self.tree.copy()
        parent = self._parent(tree, request)
        tokens = len(self.generator.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
        facts = {"seed": settings.seed, "settings": differing(settings), "finish_reason": "interrupted"}
        facts |= {} if request.continued else request.chat
        tree.go(tree.add(parent, request.prompt, text, tokens=tokens, **facts).id)
        self.save(tree)

    def _parent(self, tree: TextTree, request: Request) -> int:
        """The id of the text that a text comes from: its prompt, if it comes from no other."""
        if request.parent is not None:
            return request.parent
        if not request.chat:
            return tree.add_prompt(request.prompt).id
        alike = (node for node in tree.children(None) if node.prompt == request.prompt and node.messages is not None)
        message = request.chat["messages"][-1]["content"]
        name = first_words(message) or one_line(message)
        return (next(alike, None) or tree.add(None, request.prompt, name=name, **request.chat)).id

    def prompt_of(self, number: int, whole: bool = False) -> str:
        """The prompt of a text, or all of it, as it is given to the model: of a chat with its messages."""
        tree = self.tree
        text, messages = (tree.text(number), tree.chat(number)) if whole else (tree.prompt(number), tree.asked(number))
        if messages is None:
            return text
        from fundamentallm_hf.generation.chat import ChatPrompt

        return ChatPrompt(text, messages)

    def text_to_continue(self, number: str) -> Node:
        """The text that `/more` continues: the current one, or one of several samples.

        Raises:
            UserError: there is none, or the number fits none.
        """
        count = len(self.samples)
        current = self.tree.current
        if current is None:
            raise UserError(NOTHING)
        if not number:
            if count > 1:
                raise UserError(f"there are {count} texts: choose one, /more 1 to /more {count}")
            return current
        count = max(count, 1)
        if not number.isdecimal() or not 1 <= int(number) <= count:
            raise UserError(f"N has to be a whole number from 1 to {count} but is {number!r}")
        return self.tree[self.samples[int(number) - 1]] if self.samples else current

    # The commands.

    def do_undo(self, argument: str) -> None:
        self.tree.undo()
        self._moved()

    def do_redo(self, argument: str) -> None:
        self.tree.redo()
        self._moved()

    def do_go(self, number: str) -> None:
        self.tree.go(self._number(number))
        self._moved()

    def do_branches(self, argument: str) -> None:
        if not len(self.tree):
            raise UserError(NOTHING)
        shared = _shared(self.tree)
        current = self.tree.current
        width, indents = len(str(max(node.id for node in self.tree))), dict[int | None, int]()
        lines = []
        for node, _ in self.tree.depths():
            # A line of texts that only go on is not indented, so that a long one stays in sight.
            alone = len(self.tree.children(node.parent)) == 1
            indents[node.id] = 0 if node.parent is None else indents[node.parent] + (not alone)
            mark = "*" if current is not None and node.id == current.id else " "
            facts = _facts(node, shared)
            lines.append(
                f"{mark} {node.id:{width}}  {'  ' * indents[node.id]}{node.name}{f'  ({facts})' if facts else ''}"
            )
        self.output.reply("\n".join(lines))

    def do_edit(self, argument: str) -> None:
        current = self.tree.current
        before, given, chat = "", "", None
        if current is not None:
            before, chat = self.tree.text(current.id), self.tree.chat(current.id)
        if chat is not None:  # of a chat the last reply
            reply = started_reply(chat) or ""
            given, before = before.removesuffix(reply), reply
        after = self.output.edit(before)
        if after is None or after == before:
            self.output.aside("nothing was changed")
            return
        parent = None if current is None else current.id
        changed = "".join(text for sign, text in compare(before, after) if sign == "+")
        facts: dict[str, Any] = {}
        if chat is not None:
            facts["messages"] = tuple(with_reply(turns_of(chat), after))
        self.tree.go(self.tree.add(parent, given + after, name=first_words(changed), **facts).id)
        self._moved()

    def do_diff(self, numbers: str) -> None:
        typed = numbers.split()
        if len(typed) > 2:
            raise UserError(f"/diff takes the numbers of one or two texts but got {numbers!r}")
        chosen = [self._number(each) for each in typed]
        if len(chosen) == 1:
            if self.tree.current is None:
                raise UserError(NOTHING)
            chosen = [self.tree.current.id, *chosen]
        one, other = (self.tree.text(each) for each in chosen)
        if one == other:
            self.output.reply("the texts are the same")
            return
        self.output.differences(compare(one, other))

    def do_rename(self, typed: str) -> None:
        number, _, name = typed.partition(" ")
        if not name.strip():
            raise UserError("/rename N NAME needs NAME")
        self.tree.rename(self._number(number), name.strip())
        self.output.done(f"Text {number}: {name.strip()}")
        self.save()

    def do_delete(self, number: str) -> None:
        before = self.tree.current
        count = self.tree.delete(self._number(number))
        self.output.done(f"Deleted: {count} text{'s' if count > 1 else ''}")
        if self.tree.current is not before:
            self._moved()
            return
        left = {node.id for node in self.tree}
        self.samples = [each for each in self.samples if each in left]
        if self.request is not None and self.request.parent not in (None, *left):  # a text that was not completed
            self.request = None if before is None else self._request_of(before)
        self.save()

    def do_save(self, file: str) -> None:
        options: list[str] = []
        while file.split()[:1] in (["--force"], ["--tree"]):
            option, file = file.split()[0], file.split(maxsplit=1)[1] if len(file.split()) > 1 else ""
            options.append(option)
        if not file:
            raise UserError(f"/save {' '.join(options)} needs FILE")
        if "--tree" in options:
            self.save_tree(file, "--force" in options)
            return
        self.output.done(f"Saved: {write_settings(self.generator.settings, file, '--force' in options)}")

    def do_load(self, file: str) -> None:
        if file == "-":
            raise UserError("/load takes a file: stdin is where the entries come from")
        text = read_text(file, f"the config {file!r}")
        if says_tree(text):
            self.load_tree(text, file)
            return
        saved = read_settings(file, text)
        settings = GenerationSettings(**saved.settings)
        settings.check()
        self.generator.settings = settings
        changed = [
            f"{setting.label}={show_value(setting, value)}"
            for setting in SETTINGS.values()
            if (value := getattr(settings, setting.name)) != setting.default
        ]
        self.output.done("\n".join(f"Updated: {each}" for each in changed) or "Settings are the defaults")
        if saved.others:
            self.output.note(f"only its settings are taken from {file}, not its {', '.join(saved.others)}")

    def save_tree(self, file: str, replace: bool) -> None:
        """`/save --tree`."""
        if not len(self.tree):
            raise UserError(NOTHING)
        saved = SavedTree(self.tree, self._settings_to_save(), self.model_name)
        way_out = f"choose another name, or replace it with /save --tree --force {file}"
        self.output.done(f"Saved: {write_tree(saved, file, force=replace, way_out=way_out)}")

    def load_tree(self, text: str, file: str) -> None:
        """`/load`, where the file is a tree. The texts until now stay in the session's file; a new one follows."""
        saved = parse_tree(text, f"the tree {file!r}")
        settings = GenerationSettings(**saved.settings)
        settings.check()
        self.generator.settings = settings
        if self.file is not None and len(self.tree):
            self.save()
            self.file = SessionFile()
        self.tree = saved.tree
        self.output.done(f"Loaded: {len(self.tree)} texts, and their settings")
        if saved.model != self.model_name:
            named = saved.model or "bundled"
            self.output.note(f"the model of these texts is {named}: /model {named} switches to it")
        self._moved()

    def _settings_to_save(self) -> dict[str, Any]:
        settings = self.generator.settings
        try:
            kept = differing(settings)
        except UserError:  # a file of words is gone; the other settings need not be lost with it
            kept = differing(settings.replace(**dict.fromkeys(LIST_FILES)))
        return kept if settings.seed is None else kept | {"seed": settings.seed}

    def _moved(self) -> None:
        self.samples = []
        self._arrive()
        self.save()

    def _arrive(self) -> None:
        """Show the current text, and make `/retry` generate it again."""
        node = self.tree.current
        if node is None:
            self.request = None
            self.output.aside("no text: type a prompt")
            return
        self.request = self._request_of(node)
        chat = self.tree.chat(node.id)
        text = self.tree.text(node.id) if chat is None else "\n\n".join(map("{role}: {content}".format_map, chat))
        self.output.recall(text)
        facts = ", ".join(filter(None, [f"text {node.id}", _facts(node, set()), "/more goes on"]))
        self.output.aside(facts)

    def _request_of(self, node: Node) -> Request:
        prompt, parent = self.prompt_of(node.id), node.parent
        siblings = [node]
        if not node.is_generated:  # a typed prompt, or an edited text
            parent, siblings = node.id, []
        elif parent is not None:
            siblings = [each for each in self.tree.children(parent) if self.tree.prompt(each.id) == prompt]
        above = None if parent is None else self.tree[parent]
        # A reply of a chat has messages of its own: it answers the last of them, and continues no text.
        continued = node.messages is None and above is not None and (above.parent is not None or above.is_generated)
        seeds = [each.seed for each in siblings if each.seed is not None]
        return Request(prompt, continued, parent, {}, self.generator.settings.seed, max(seeds, default=None))

    def _number(self, typed: str) -> int:
        if not typed.isdecimal():
            raise UserError(f"N has to be the number of a text, as in /branches, but is {typed!r}")
        return self.tree[int(typed)].id


def _facts(node: Node, shared: set[str]) -> str:
    """How a text came about, in words; settings that all texts share are left out."""
    if node.finish_reason is None:
        return ""
    parts = [f"{node.tokens} token{'s' if node.tokens != 1 else ''}"]
    if node.seed is not None:
        parts.append(f"seed {node.seed}")
    if node.perplexity is not None:
        parts.append(f"perplexity {node.perplexity:.2f}")
    return ", ".join([*parts, *(each for each in _shown_settings(node) if each not in shared)])


def _shared(tree: TextTree) -> set[str]:
    """The settings that all generated texts of a tree have in common, as they are shown."""
    shown = [set(_shown_settings(node)) for node in tree if node.finish_reason is not None]
    return set.intersection(*shown) if shown else set()


def _shown_settings(node: Node) -> list[str]:
    return [f"{SETTINGS[name].label}={show_value(SETTINGS[name], value)}" for name, value in node.settings.items()]
