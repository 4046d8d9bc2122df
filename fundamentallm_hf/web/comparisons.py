"""Makes the settings of a comparison: several temperatures, or with and without each control."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from fundamentallm_hf.portable.controls.control_table import CONTROLS
from fundamentallm_hf.portable.errors import UsageError
from fundamentallm_hf.settings.generation_settings import SAMPLING, SETTINGS, GenerationSettings

from .limits import LIMITS, Limits

TEMPERATURES = (0.3, 0.7, 1.0, 1.5)
# What can be compared: its name for visitors, and for `Actions.run_compare`.
KINDS = (("temperatures", "temperatures"), ("with and without each control", "controls"))
# Number of beams for the tree where the settings ask for none.
BEAMS = 4
# Settings that can be left out: those that shape the text, other than by sampling or by length.
REMOVABLE = (
    *(control.name for control in CONTROLS.values() if control.shapes_text and not control.refines),
    *SAMPLING,
    "beam_size",
)


class Column(NamedTuple):
    """One text of a comparison: its title, and its settings."""

    title: str
    settings: GenerationSettings


def by_temperature(settings: GenerationSettings, temperatures: Sequence[Any], limits: Limits = LIMITS) -> list[Column]:
    """The same settings at several temperatures.

    Raises:
        UsageError: too many temperatures, or an invalid one.
    """
    if len(temperatures) > limits.columns:
        raise UsageError(
            f"temperatures has to have at most {limits.columns} entries here but has {len(temperatures)}: ask for fewer"
        )
    made = []
    for each in temperatures:
        if each is None:
            raise UsageError("temperatures has to hold numbers from 0 to 100 but holds nothing in one place")
        column = settings.replace(temperature=each, num_samples=1, best=None)
        made.append(Column(f"temperature {column.temperature:g}", column))
    return made


def without_each(settings: GenerationSettings, limits: Limits = LIMITS) -> list[Column]:
    """The text with all controls, and without each of them in turn.

    Raises:
        UsageError: no control is set.
    """
    alone = settings.replace(num_samples=1, best=None)
    found = [Column("with everything", alone)]
    for name in REMOVABLE:
        default = SETTINGS[name].default
        if getattr(settings, name) == default or (name == "top_p" and settings.top_p == 1):
            continue
        found.append(_without(alone, name))
    if len(found) == 1:
        raise UsageError("there is no control to leave out: set one, for instance bad-words")
    return found[: limits.columns]


def with_and_without(settings: GenerationSettings, name: str) -> list[Column]:
    """A text with a setting, and one without it.

    Args:
        settings: of both.
        name: of the setting; one of `REMOVABLE`.

    Raises:
        UsageError: it cannot be left out.
    """
    if name not in REMOVABLE:
        raise UsageError(
            f"{SETTINGS[name].label if name in SETTINGS else name} cannot be left out: choose one of "
            f"{', '.join(SETTINGS[each].label for each in REMOVABLE)}"
        )
    alone = settings.replace(num_samples=1, best=None)
    return [Column(f"with {SETTINGS[name].label}", alone), _without(alone, name)]


def _without(settings: GenerationSettings, name: str) -> Column:
    refining = [control.name for control in CONTROLS.values() if control.refines == (name,)]
    changes = {each: SETTINGS[each].default for each in (name, *refining)}
    return Column(f"without {SETTINGS[name].label}", settings.replace(**changes))


def read_temperatures(typed: str) -> list[Any]:
    """The temperatures in a text, separated by commas or white space."""
    return typed.replace(",", " ").split()
