"""The words of the controls next to a text: written, missing, kept away; where controls shifted it; a guide's pull.

`script.js` marks in the text what a list item is about.
"""

from collections.abc import Sequence

from fundamentallm_hf.portable.controls.control_table import CONTROLS
from fundamentallm_hf.settings.generation_settings import GenerationSettings

from .escaping import escape
from .growing_text import PlacedShift, Pull
from .highlights import Mark, find_entry, find_required

# The line of a pull is full at so many nats.
FULL = 2.0
# Banned entries that are listed although nothing was kept away.
LISTED = 12


def labels_of(settings: GenerationSettings) -> dict[str, str]:
    """By phase, the controls that act in it with these settings, by their names for users."""
    found: dict[str, list[str]] = {}
    for control in CONTROLS.values():
        if control.phase is not None and getattr(settings, control.name) != control.default and not control.refines:
            found.setdefault(control.phase.name.lower(), []).append(control.label)
    return {phase: " and ".join(labels) for phase, labels in found.items()}


def entry_of(shift: PlacedShift, text: str, begin: int, settings: GenerationSettings) -> str | None:
    """The entry of a list for which a ban or a requirement shifted a text; None where it cannot be said.

    Args:
        shift: which one.
        text: prompt and completion.
        begin: index where the completion starts.
        settings: of the text.
    """
    entries = {"ban": settings.bad_words, "require": settings.must_include}.get(shift.phase, ())
    token = shift.away if shift.phase == "ban" else shift.towards
    found = find_entry(text[: begin + shift.start] + token, entries, settings.case_sensitive)
    return found or (entries[0] if len(entries) == 1 else None)


def words_html(
    prompt: str,
    added: str,
    settings: GenerationSettings,
    shifts: Sequence[PlacedShift],
    pulls: Sequence[Pull] = (),
    busy: bool = False,
) -> str:
    """The list of words above a text, finished or not; nothing where no control is about words.

    Args:
        prompt, added: the text.
        settings: of the text.
        shifts: where controls have shifted it.
        pulls: what guides did.
        busy: the text is not finished.
    """
    text, begin = prompt + added, len(prompt)
    positions: dict[tuple[str, str | None], list[int]] = {}
    for each in shifts:
        positions.setdefault((each.phase, entry_of(each, text, begin, settings)), []).append(each.start)
    items = _required(text, begin, settings, positions, busy)
    items += _banned(settings, positions) + _others(settings, positions)
    if pulls:
        towards = sum(pull.nats > 0 for pull in pulls)
        starts = [index for pull in pulls for index in range(pull.start, pull.end)]
        about = f"made {towards} word{'' if towards == 1 else 's'} likelier, {len(pulls) - towards} less likely"
        items.append(_item("pull", ", ".join(settings.guide_attribute), about, starts))
    if not items:
        return ""
    return f'<ul class="words" aria-label="What the controls did">{"".join(items)}</ul>'


def _required(
    text: str, begin: int, settings: GenerationSettings, positions: dict[tuple[str, str | None], list[int]], busy: bool
) -> list[str]:
    items, marks = [], required_marks(text, begin, settings)
    for entry in settings.must_include:
        own = [mark for mark in marks if mark.entry == entry]
        inside = [index - begin for mark in own for index in range(mark.start, mark.end) if index >= begin]
        at = inside + positions.get(("require", entry), [])
        if own:
            about = f"appears{f' {len(own)} times' if len(own) > 1 else ''}"
            items.append(_item("written", f"✓ {text[own[0].start : own[0].end]}", about, at, first=inside[:1]))
        else:
            items.append(_item("missing", entry, "still missing" if busy else "not written", at))
    return items


def _banned(settings: GenerationSettings, positions: dict[tuple[str, str | None], list[int]]) -> list[str]:
    items = []
    for number, entry in enumerate(settings.bad_words):
        at = positions.get(("ban", entry), [])
        if at or number < LISTED:
            items.append(_item("kept", entry, _kept_away(len(at)), at))
    return items


def _kept_away(times: int) -> str:
    again = " twice" if times == 2 else f" {times} times" if times > 2 else ""
    return f"kept away{again}" if times else "banned, not added"


def _others(settings: GenerationSettings, positions: dict[tuple[str, str | None], list[int]]) -> list[str]:
    items = []
    for phase, label in labels_of(settings).items():
        at = positions.get((phase, None), [])
        if at and phase != "guide":
            count = f"{len(at)} position{'' if len(at) == 1 else 's'}"
            items.append(_item("other", label, f"changed the text at {count}", at))
    return items


def required_marks(text: str, begin: int, settings: GenerationSettings) -> list[Mark]:
    """The required words of a text that count."""
    first = 0 if settings.must_include_prompt else begin
    return find_required(text, first, settings.must_include, settings.case_sensitive)


def _item(kind: str, name: str, about: str, at: Sequence[int], first: Sequence[int] = ()) -> str:
    """An item of the list; a click goes to `first`, or else to the first of the characters `at` that it marks."""
    inside = f"<b>{escape(name)}</b>{f' {escape(about)}' if about else ''}"
    at = sorted({index for index in at if index >= 0})
    if not at:
        return f'<li class="{kind}">{inside}</li>'
    listed, to = " ".join(map(str, at)), (*first, *at)[0]
    pressed = f'<button type="button" class="show" data-to="{to}" data-at="{listed}">{inside}</button>'
    return f'<li class="{kind}">{pressed}</li>'
