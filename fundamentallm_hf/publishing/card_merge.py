"""Rewrites a card without losing people's edits.

Generated text is enclosed in two comments, `<!-- fundamentallm: NAME DIGEST -->` and `<!-- /fundamentallm: NAME -->`,
and a last comment records which sections and which metadata were generated. So the next run can distinguish three
cases: its output, which it may replace; changes and additions of people, which stay; and deletions, which are
respected.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import yaml_dump

from fundamentallm_hf.portable.errors import UserError

_SECTION = re.compile(
    r"^<!-- fundamentallm: (?P<name>[a-z]+) (?P<digest>[0-9a-f]{8}) -->\n(?P<text>.*?)"
    r"^<!-- /fundamentallm: (?P=name) -->\n",
    re.MULTILINE | re.DOTALL,
)
_RECORD = re.compile(r"^<!-- fundamentallm wrote (?P<record>\{.*\})[^\n]*-->\n?", re.MULTILINE)
_HINT = "Between its comments, what you change or delete stays so; all other text is yours."
RESULTS = "model-index"
# Lists to which several may add; every other value belongs entirely to whoever changed it.
_SHARED = ("tags", RESULTS)


def write_card(
    metadata: Mapping[str, Any],
    sections: Mapping[str, str],
    existing: str | None = None,
    *,
    given: Mapping[str, Any] | None = None,
) -> str:
    """A card with the metadata and the sections, and with all edits of the current card.

    Args:
        metadata: values for the top, by the Hub's names; lists of `model-index` have one model.
        sections: Markdown by name, in order; names are of small letters.
        existing: the current card.
        given: metadata that must be in the card, whatever the card or `metadata` say; it counts as written by people.

    Raises:
        UserError: the metadata of the current card cannot be read.

    Example:

    ```python
    >>> from fundamentallm_hf.publishing.card_merge import write_card
    >>> first = write_card({"license": "mit"}, {"title": "# Stories", "size": "It is small."})
    >>> edited = first.replace("mit", "apache-2.0").replace("# Stories", "# My stories")
    >>> again = write_card({"license": "mit"}, {"title": "# Stories", "size": "It is big."}, edited)
    >>> "apache-2.0" in again, "# My stories" in again, "It is big." in again
    (True, True, True)

    ```
    """
    text = (existing or "").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    block, body = _split(text)
    there = _read(block)
    found = _RECORD.search(body)
    record = _read_record(found["record"]) if found else {}
    body = _RECORD.sub("", body)
    merged = _merge_metadata(there, metadata, record.get("metadata", {})) | dict(given or {})
    if merged != there or not block:
        # Not strip(): a value may end with a no-break space.
        written = yaml_dump(merged, sort_keys=False).strip("\n")
        block = f"---\n{written}\n---\n" if merged else ""
    known = record.get("sections", [])
    body = _merge_body(body, sections, known) if body.strip() or known else _fresh(sections)
    left = [name for name in known if name not in sections and f"fundamentallm: {name} " in body]
    made = {
        "metadata": {name: _mark(name, value) for name, value in metadata.items() if name not in (given or {})},
        "sections": [*sections, *left],
    }
    return f"{block}{body.rstrip()}\n\n<!-- fundamentallm wrote {json.dumps(made)}. {_HINT} -->\n"


def metadata_of(card: str) -> dict[str, Any]:
    """The metadata at the top of a card.

    Raises:
        UserError: it cannot be read.
    """
    return _read(_split(card.removeprefix("\ufeff").replace("\r\n", "\n"))[0])


def _split(text: str) -> tuple[str, str]:
    found = REGEX_YAML_BLOCK.search(text)
    return (text[: found.end()], text[found.end() :]) if found else ("", text)


def _read(block: str) -> dict[str, Any]:
    found = REGEX_YAML_BLOCK.search(block)
    try:
        fields = yaml.safe_load(found[2]) if found else None
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"the metadata of the README.md that is there is not YAML: {_one_line(error)}") from error
    if fields is None:
        return {}
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise UserError("the metadata of the README.md that is there has to be names with values: put it right first")
    return fields


def _read_record(text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except ValueError:
        return {}  # somebody has edited it: then everything in it is theirs
    shaped = isinstance(record.get("metadata"), dict) and isinstance(record.get("sections"), list)
    return record if shaped else {}


def _digest(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _mark(name: str, value: Any) -> Any:
    """The part of a value that is recorded: enough to recognize it."""
    return [_digest(item) for item in _items(name, value)] if name in _SHARED else _digest(value)


def _items(name: str, value: Any) -> list[Any]:
    if name == RESULTS:
        models = value if isinstance(value, list) else []
        return [result for model in models if isinstance(model, dict) for result in model.get("results") or ()]
    return list(value) if isinstance(value, list) else [value]


def _merge_metadata(there: Mapping[str, Any], made: Mapping[str, Any], noted: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name in [*there, *(name for name in made if name not in there)]:
        if name in _SHARED:
            items = _merge_items(name, there.get(name), made.get(name), noted.get(name) or ())
            if not items:
                continue
            if name == RESULTS:
                model: Any = next(iter(there.get(name) or made.get(name) or ()), {})
                merged[name] = [{**model, "results": items}]
            else:
                merged[name] = items
        elif name not in there:
            if name not in noted:  # otherwise somebody has deleted it
                merged[name] = made[name]
        elif noted.get(name) != _digest(there[name]):
            merged[name] = there[name]
        elif name in made:
            merged[name] = made[name]
    return merged


def _merge_items(name: str, there: Any, made: Any, noted: Any) -> list[Any]:
    old = _items(name, there) if there is not None else []
    new = _items(name, made) if made is not None else []
    if [_digest(item) for item in old] == list(noted):
        return new
    kept = [item for item in old if item in new or _digest(item) not in noted]
    taken = {_subject(item) for item in kept}
    added = [item for item in new if item not in kept and _subject(item) not in taken]
    # Recorded items that are missing now were deleted; a result that changed is not the recorded one.
    return kept + [item for item in added if _digest(item) not in noted]


def _subject(item: Any) -> str:
    """The subject of an item: of two results for one data set only one stays."""
    if not isinstance(item, dict):
        return str(item)
    data = item.get("dataset")
    return _digest([item.get("task"), data if not isinstance(data, dict) else [data.get("type"), data.get("name")]])


def _wrapped(name: str, text: str) -> str:
    # Text quoted from a model must not be mistaken for the end of its section.
    text = text.strip().replace("<!--", "&lt;!--") + "\n"
    return f"<!-- fundamentallm: {name} {_digest(text)} -->\n{text}<!-- /fundamentallm: {name} -->\n"


def _fresh(sections: Mapping[str, str]) -> str:
    return "".join(f"\n{_wrapped(name, text)}" for name, text in sections.items())


def _merge_body(body: str, sections: Mapping[str, str], known: list[str]) -> str:
    present = []

    def renew(found: re.Match[str]) -> str:
        name = found["name"]
        if _digest(found["text"]) != found["digest"]:
            present.append(name)
            return found[0]
        if name not in sections:
            return ""
        present.append(name)
        return _wrapped(name, sections[name])

    merged = _SECTION.sub(renew, body)
    order = list(sections)
    for position, (name, text) in enumerate(sections.items()):
        if name in present or name in known:
            continue
        if name == order[0] and re.search(r"^# ", body, re.MULTILINE):
            continue  # somebody has given it a title
        before = next((each for each in reversed(order[:position]) if each in present), None)
        if before is None:
            merged = f"{merged.rstrip()}\n\n{_wrapped(name, text)}"
        else:
            mark = f"<!-- /fundamentallm: {before} -->\n"
            merged = merged.replace(mark, f"{mark}\n{_wrapped(name, text)}", 1)
        present.append(name)
    return merged


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
