"""The JSON form of a tree of texts: one file for the prompt loop and the web demo.

```json
{
  "format": "fundamentallm-tree",
  "version": 1,
  "model": null,
  "settings": {"max_tokens": 60},
  "history": [null, 2],
  "position": 1,
  "nodes": [
    {"id": 1, "parent": null, "name": "Once upon a time", "prompt": "Once upon a time", "completion": ""},
    {"id": 2, "parent": 1, "name": "there was a", "prompt": null, "completion": " there was a cat", "seed": 7,
     "settings": {"max_tokens": 60}, "tokens": 16, "perplexity": 2.4, "finish_reason": "length"}
  ]
}
```

The text of a node is its prompt and its completion; a prompt that is null is the text of the parent. `settings` are
those that differ from the defaults. A node with a prompt that was made of a chat has the chat as `messages`. A file is
read strictly: what is missing, unknown or of another type is an error.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fundamentallm_hf.files import OutputFile, json_text, read_text
from fundamentallm_hf.portable.controls.setting import is_text
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.settings.chat_messages import is_chat
from fundamentallm_hf.settings.generation_settings import SETTINGS, find_setting

from .text_tree import Node, TextTree

FORMAT = "fundamentallm-tree"
VERSION = 1


@dataclass(frozen=True)
class SavedTree:
    """The content of a file.

    Attributes:
        tree: the texts.
        settings: those for the next text that differ from the defaults, by their names in Python; each is checked.
        model: the path or Hub id of the model that wrote them; None is the bundled one.
    """

    tree: TextTree
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None


def says_tree(text: str) -> bool:
    """Whether the text of a file is meant as a tree, even if it cannot be read as one."""
    return text.lstrip().startswith("{") and re.search(rf'(?<!\\)"format"\s*:\s*"{FORMAT}"', text) is not None


def tree_text(saved: SavedTree) -> str:
    """A tree as JSON, one text on each line."""
    head = {
        "format": FORMAT,
        "version": VERSION,
        "model": saved.model,
        "settings": dict(saved.settings),
        "history": list(saved.tree.history),
        "position": saved.tree.position,
    }
    nodes = ",\n    ".join(json_text(_as_fields(node)) for node in saved.tree)
    return json_text(head, indent=2).removesuffix("\n}") + f',\n  "nodes": [\n    {nodes}\n  ]\n}}\n'


def _as_fields(node: Node) -> dict[str, Any]:
    fields = asdict(node)
    if node.messages is None:
        del fields["messages"]
    order = ("id", "parent", "name", "prompt", "completion", *(["messages"] if node.messages is not None else []))
    if not node.is_generated:
        return {name: fields[name] for name in order}
    return {name: fields[name] for name in (*order, *(name for name in fields if name not in order))}


def write_tree(saved: SavedTree, file: str, *, force: bool = False, way_out: str = "choose another name") -> str:
    """Write a tree atomically.

    Args:
        saved: the tree.
        file: the target.
        force: replace an existing file.
        way_out: the advice in the error if it exists.

    Returns:
        The path of the file.

    Raises:
        UserError: it exists and may not be replaced, or cannot be written.
    """
    with OutputFile(file, force=force, name="the file", way_out=way_out) as target:
        target.stream.write(tree_text(saved))
    return str(target.path)


def read_tree(file: str) -> SavedTree:
    """Read a file that `write_tree` wrote.

    Raises:
        UserError: it cannot be read, or is no tree; one line says where and why.
    """
    return parse_tree(read_text(file, f"the tree {file!r}", exact=True), f"the tree {file!r}")


def parse_tree(text: str, what: str = "the tree") -> SavedTree:
    """Read the text of a file.

    Args:
        text: JSON.
        what: the name of the file in errors.

    Raises:
        UserError: it is no tree; one line says where and why.
    """
    try:
        loaded = json.loads(text, parse_constant=_no_number, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise UserError(f"{what} is not JSON: {error.msg} in line {error.lineno}") from None
    except RecursionError:
        raise UserError(f"{what} is not a tree of texts: it is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{what} is not a tree of texts: {error}") from None
    try:
        return _read(loaded)
    except UserError as error:
        raise UserError(f"{what} is not a tree of texts: {error}") from None


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has {next(name for name in names if names.count(name) > 1)!r} twice in one object")
    return found


# What each field holds: a check, and its description in errors. None is allowed where the description says so.
_Check = tuple[Callable[[Any], bool], str]
_TEXT: _Check = (lambda value: isinstance(value, str) and is_text(value), "text")
_COUNT: _Check = (lambda value: _is_whole(value) and value >= 0, "a whole number of at least 0")
_ID: _Check = (lambda value: _is_whole(value) and value >= 1, "a whole number of at least 1")
_SETTINGS: _Check = (lambda value: isinstance(value, dict), "settings by name")
_MESSAGES: _Check = (lambda value: is_chat(value) and all(map(_is_message, value)), "a list of messages of a chat")
_PERPLEXITY: _Check = (lambda value: _is_number(value) and value >= 1, "a number of at least 1")


def _or_null(check: _Check) -> _Check:
    return lambda value: value is None or check[0](value), f"{check[1]}, or null"


_HEAD: dict[str, _Check] = {
    "format": (lambda value: value == FORMAT, f'"{FORMAT}"'),
    "version": (lambda value: _is_whole(value), "a whole number"),
    "model": _or_null(_TEXT),
    "settings": _SETTINGS,
    "history": (lambda value: isinstance(value, list) and bool(value), "a list with at least one entry"),
    "position": _COUNT,
    "nodes": (lambda value: isinstance(value, list), "a list of texts"),
}
_PROMPT_FIELDS: dict[str, _Check] = {
    "id": _ID,
    "parent": _or_null(_ID),
    "name": _TEXT,
    "prompt": _or_null(_TEXT),
    "completion": _TEXT,
}
_COMPLETION_FIELDS: dict[str, _Check] = {
    "seed": _or_null(_COUNT),
    "settings": _SETTINGS,
    "tokens": _COUNT,
    "perplexity": _or_null(_PERPLEXITY),
    "finish_reason": _or_null(_TEXT),
    "messages": _MESSAGES,
}


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"role", "content"} and all(map(_TEXT[0], value.values()))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _read(loaded: Any) -> SavedTree:
    if not isinstance(loaded, dict) or loaded.get("format") != FORMAT:
        raise UserError(f'it has to be an object with "format": "{FORMAT}"')
    version = loaded.get("version")
    if isinstance(version, int) and version > VERSION:
        raise UserError(f"it has version {version}, and this program reads up to {VERSION}: update the program")
    _check_fields(loaded, _HEAD, {}, "")
    if version != VERSION:
        raise UserError(f"version has to be {VERSION} but is {version}")
    nodes: dict[int, Node] = {}
    for index, fields in enumerate(loaded["nodes"], 1):
        node = _read_node(fields, nodes, f"text {index}")
        nodes[node.id] = node
    history, position = loaded["history"], loaded["position"]
    for entry in history:
        if entry is not None and not (_is_whole(entry) and entry in nodes):
            raise UserError(f"history has to hold ids of its texts, or null, but holds {_shown(entry)}")
    if position >= len(history):
        raise UserError(f"position has to be below {len(history)}, the length of history, but is {position}")
    settings = _read_settings(loaded["settings"], "")
    return SavedTree(TextTree(nodes, history, position), settings, loaded["model"])


def _read_node(fields: Any, nodes: Mapping[int, Node], where: str) -> Node:
    if not isinstance(fields, dict):
        raise UserError(f"{where} has to be an object but is {_shown(fields)}")
    _check_fields(fields, _PROMPT_FIELDS, _COMPLETION_FIELDS, f"{where}: ")
    number, parent = fields["id"], fields["parent"]
    if number in nodes:
        raise UserError(f"{where}: id is {number}, as of a text before it")
    if parent is not None and parent not in nodes:
        raise UserError(f"{where}: parent has to be the id of a text before it but is {parent}")
    if parent is None and fields["prompt"] is None:
        raise UserError(f"{where}: prompt has to be text where there is no parent but is null")
    read = dict(fields)
    if "settings" in read:
        read["settings"] = _read_settings(read["settings"], f"{where}: ")
    if "messages" in read:
        read["messages"] = tuple(read["messages"])
    if read.get("perplexity") is not None:
        read["perplexity"] = float(read["perplexity"])
    return Node(**read)


def _check_fields(
    fields: Mapping[str, Any], required: Mapping[str, _Check], optional: Mapping[str, _Check], where: str
) -> None:
    for name in required:
        if name not in fields:
            raise UserError(f"{where}{name} is missing")
    known = {**required, **optional}
    for name, value in fields.items():
        if name not in known:
            raise UserError(f"{where}there is no field {name!r}: there are {', '.join(known)}")
        check, expected = known[name]
        if not check(value):
            raise UserError(f"{where}{name} has to be {expected} but is {_shown(value)}")


def _read_settings(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    read = {}
    for name, value in settings.items():
        try:
            setting = find_setting(name)
            if name not in SETTINGS:
                raise UserError(f"{name!r} is written {setting.name!r} here")
            read[name] = setting.parse(value)
        except ValueError as error:
            raise UserError(f"{where}settings: {error}") from None
    return read


def _shown(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=True)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
