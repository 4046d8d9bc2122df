"""Which settings are held against each other: several temperatures, or with and without each control.

This file knows nothing of how texts are written or shown.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from fundamentallm_hf.portable.errors import UsageError
from fundamentallm_hf.settings.generation_settings import SETTINGS, GenerationSettings

from .limits import LIMITS, Limits

TEMPERATURES = (0.3, 0.7, 1.0, 1.5)
# What says how a control works goes with it.
_GOES_WITH = {
    "must_include": ("must_include_ordered", "must_include_prompt"),
    "guide_attribute": ("guide_strength",),
}
# What a text is without: the rest is its length, its number, its seed, or says how something else works.
CONTROLS = (
    "bad_words",
    "must_include",
    "guide_attribute",
    "pattern",
    "json_schema",
    "grammar",
    "repetition_penalty",
    "no_repeat_ngram",
    "length_penalty",
    "stop",
    "top_k",
    "top_p",
    "min_p",
    "beam_size",
)


class Column(NamedTuple):
    """One text of a comparison: what tells it from the others, and its settings."""

    title: str
    settings: GenerationSettings


def by_temperature(settings: GenerationSettings, temperatures: Sequence[Any], limits: Limits = LIMITS) -> list[Column]:
    """The same at several temperatures.

    Raises:
        UsageError: too many, or one that cannot be.
    """
    if len(temperatures) > limits.columns:
        raise UsageError(
            f"temperatures has to have at most {limits.columns} entries here but has {len(temperatures)}: ask for fewer"
        )
    made = []
    for each in temperatures:
        if each is None:
            raise UsageError("temperatures has to hold numbers from 0 to 100 but holds nothing in one place")
        column = settings.but(temperature=each, num_samples=1, best=None)
        made.append(Column(f"temperature {column.temperature:g}", column))
    return made


def without_each(settings: GenerationSettings, limits: Limits = LIMITS) -> list[Column]:
    """The text with all controls, and without each of them in turn.

    Raises:
        UsageError: no control is set.
    """
    alone = settings.but(num_samples=1, best=None)
    found = [Column("with everything", alone)]
    for name in CONTROLS:
        default = SETTINGS[name].default
        if getattr(settings, name) == default or (name == "top_p" and settings.top_p == 1):
            continue
        changes = {each: SETTINGS[each].default for each in (name, *_GOES_WITH.get(name, ()))}
        found.append(Column(f"without {SETTINGS[name].label}", alone.but(**changes)))
    if len(found) == 1:
        raise UsageError("there is no control to leave out: set one, for instance bad-words")
    return found[: limits.columns]


def read_temperatures(typed: str) -> list[Any]:
    """The temperatures in a text, separated by commas or white space."""
    return typed.replace(",", " ").split()
