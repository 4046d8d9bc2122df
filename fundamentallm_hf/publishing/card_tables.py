"""Facts as table rows and numbers in Markdown, whatever characters they contain."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from fundamentallm_hf.portable.controls.control_table import CONTROLS
from fundamentallm_hf.portable.guides.attributes import Attribute

_HOLDS = {
    "prompts": "two contexts",
    "experts": "a pair of experts",
    "steering": "a steering vector",
    "classifier": "a text classifier",
}
_TOLD_APART_BY = {"experts": "its experts", "steering": "its vector"}


def table(rows: Iterable[tuple[str, ...]]) -> str:
    """Rows of a table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def cell(value: object) -> str:
    """Text for a table cell, whatever it contains: one line, without mark-up and column separators."""
    return re.sub(r"([\\`*\[\]|])", r"\\\1", " ".join(str(value).split()).replace("<", "&lt;"))


def field_rows(any_model: bool = False) -> Iterable[tuple[str, str]]:
    """The effects of the controls, one row for each field that this library adds.

    Args:
        any_model: leave out controls that only work with FundamentaLLM models.
    """
    for control in CONTROLS.values():
        if not control.stock and (control.any_model or not any_model):
            # References to the command are of no use where it is not installed.
            said = re.sub(r" [^.]*`fundamentallm [^.]*\.", "", control.help)
            yield f"`{control.config_field}`", cell(said)


def attribute_rows(attributes: Mapping[str, Attribute]) -> Iterable[tuple[str, ...]]:
    """The effects, methods and measurements of attributes, one row for each."""
    for name, each in attributes.items():
        holds = _HOLDS.get(each.kind, f"{len(each.words):,} weighted words")
        source = f", from {each.about['source']}" if each.about.get("source") else ""
        yield f"`{name}`", cell(each.description), cell(holds + source), cell(_effect(each.kind, each.about))


def _effect(kind: str, about: Mapping[str, Any]) -> str:
    told = []
    effect = about.get("effect")
    effect = effect if isinstance(effect, dict) else {}
    shares = effect.get("shares")
    if isinstance(shares, dict) and all(isinstance(share, int | float) for share in shares.values()):
        figures = ", ".join(f"{round(100 * share, 1):g}%" for share in shares.values())
        told.append(f"{figures} {effect.get('what')} at strengths {', '.join(shares).replace('+0', '0')}")
    if isinstance(area := about.get("held_out_auc"), int | float):
        what = _TOLD_APART_BY.get(kind, "its words")
        told.append(f"{what} tell held-out texts apart with an area under the ROC curve of {area:.3f}")
    return "; ".join(told) or "not measured"


def count(number: int) -> str:
    """A large number in words."""
    for size, name in ((10**9, "billion"), (10**6, "million")):
        if number >= size:
            return f"{number / size:.1f} {name}"
    return f"{number:,}"


def megabytes(number: int) -> str:
    """A number of bytes in a unit that people read."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"
