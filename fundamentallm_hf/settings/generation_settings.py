"""The settings of a generation: the table of controls and all other settings.

The command's options, Python's arguments, the prompt loop, the web demo and the documentation all read names, types,
defaults, ranges and help texts from `SETTINGS`. This module imports neither torch nor transformers, so that `--help`
answers at once.
"""

import difflib
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any

from fundamentallm_hf.files import read_text
from fundamentallm_hf.portable.controls.control_table import CONTROLS
from fundamentallm_hf.portable.controls.end_settings import check_beginning, check_ending
from fundamentallm_hf.portable.controls.setting import Setting
from fundamentallm_hf.portable.decoding.phases import ENDING_FIELDS, WHOLE_TEXT_FIELDS
from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.portable.guides.attributes import read_guides
from fundamentallm_hf.portable.structured.grammars import MissingPackageError, read_grammar
from fundamentallm_hf.portable.text.word_lists import read_weights, split_alternatives
from fundamentallm_hf.portable.text.word_matcher import check_entry

DEVICES = ("auto", "cpu", "cuda", "mps")
# Maps of modules to devices that accelerate computes.
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
DTYPES = ("auto", "float32", "float16", "bfloat16")


def read_entries(file: str | Path) -> list[str]:
    """The entries of a list file: one per line, in UTF-8. Empty lines and lines that start with `#` are skipped.

    Raises:
        UserError: the file cannot be read, or is not text.
    """
    lines = (line.strip() for line in read_text(file, f"the list {str(file)!r}").splitlines())
    return [line.removeprefix("\\") if line.startswith("\\#") else line for line in lines if line and line[0] != "#"]


# The settings that are not controls: those of transformers, and those about samples and files.
_ROWS = (
    Setting("max_tokens", int, 200, "Maximum number of tokens to add.", "Length", low=1),
    Setting("min_tokens", int, 0, "Minimum number of tokens to add.", "Length", low=0),
    Setting("num_samples", int, 1, "Number of texts to generate for each prompt.", "Samples", low=1),
    Setting(
        "best",
        int,
        None,
        "Keep only the N samples of each prompt whose tokens have the highest mean log-probability under the raw "
        "model, the most probable first.",
        "Samples",
        low=1,
    ),
    Setting(
        "temperature",
        float,
        None,
        "Lower is more predictable, higher more varied; 0 always takes the most probable token (greedy). "
        "The default is 1.",
        "Sampling",
        low=0,
        high=100,
    ),
    Setting("top_k", int, None, "Sample only from the K most probable tokens.", "Sampling", low=1),
    Setting(
        "top_p",
        float,
        None,
        "Sample only from the most probable tokens that together have this probability (nucleus sampling).",
        "Sampling",
        low=0,
        high=1,
        above=True,
    ),
    Setting(
        "min_p",
        float,
        None,
        "Sample only from tokens that have at least this fraction of the probability of the most probable one.",
        "Sampling",
        low=0,
        high=1,
    ),
    Setting(
        "beam_size",
        int,
        1,
        "Keep this many candidate texts and return the most probable; sampled only if temperature, top-k, top-p or "
        "min-p is set.",
        "Beam search",
        low=1,
    ),
    Setting(
        "bad_words_file",
        str,
        None,
        "File with bad words, one per line; lines that start with # are comments.",
        "Control",
        follows="bad_words",
    ),
    Setting(
        "word_weights_file",
        str,
        None,
        "File with words and weights, such as dragon:2, one per line; lines that start with # are comments.",
        "Control",
        follows="word_weights",
    ),
)
# Any of these turns on sampling in beam search; without sampling they have no effect.
SAMPLING = ("top_k", "top_p", "min_p")
# The headings of the settings, in the order of the help.
_GROUPS = ("Length", "Samples", "Sampling", "Beam search", "Repetition", "Control", "Structured output")


def _in_order() -> dict[str, Setting]:
    """All settings by name: group by group, controls after the others, and `follows` respected."""
    rows = sorted([*_ROWS, *CONTROLS.values()], key=lambda setting: _GROUPS.index(setting.group))
    found = [setting for setting in rows if not setting.follows]
    for follower in (setting for setting in rows if setting.follows):
        place = next(index for index, setting in enumerate(found) if setting.name == follower.follows)
        found.insert(place + 1, follower)
    return {setting.name: setting for setting in found}


SETTINGS: dict[str, Setting] = _in_order()
# Settings that name a file with more entries for the list that they follow.
LIST_FILES = tuple(setting.name for setting in SETTINGS.values() if setting.follows)
# One field for every setting, so that a new control only has to be added to its table.
_Fields: Any = make_dataclass(
    "_Fields",
    [(setting.name, Any, field(default=setting.default)) for setting in SETTINGS.values()],
    frozen=True,
    kw_only=True,
)


@dataclass(frozen=True, kw_only=True)
class GenerationSettings(_Fields):
    """All settings of a generation, validated on creation.

    Raises:
        UsageError: a value is outside its range or of the wrong type.

    Example:

    ```python
    >>> from fundamentallm_hf import GenerationSettings
    >>> GenerationSettings(temperature=0.8).replace(top_p="0.9").top_p
    0.9
    >>> GenerationSettings(top_p=1.5)
    Traceback (most recent call last):
    ...
    fundamentallm_hf.portable.errors.UsageError: top-p has to be a number above 0 and at most 1 but is 1.5

    ```
    """

    def __post_init__(self) -> None:
        for setting in SETTINGS.values():
            object.__setattr__(self, setting.name, setting.parse(getattr(self, setting.name)))

    @property
    def sampled(self) -> bool:
        """Whether sampling is used: not at temperature 0, and with beams only if a sampling setting is set."""
        asked = any(getattr(self, name) is not None for name in ("temperature", *SAMPLING))
        return self.temperature != 0 and (asked or self.beam_size == 1)

    def entries(self, name: str) -> list[str]:
        """The entries of a list, including those of its file.

        Args:
            name: of a setting that a file follows, such as `bad_words`.

        Raises:
            UserError: the file cannot be read.
        """
        (file,) = (each for each in LIST_FILES if SETTINGS[each].follows == name)
        listed, path = list(getattr(self, name)), getattr(self, file)
        if path is None:
            return listed
        try:
            return [*listed, *read_entries(path)]
        except ValueError as error:
            raise UserError(f"{SETTINGS[file].label}: {error}", setting=file, value=path) from error

    def check(self) -> None:
        """Reject settings that contradict each other; called when no more will change.

        Raises:
            UsageError: two settings contradict each other, or a list has an invalid entry.
            UserError: a file cannot be read.
        """
        self._check_controls()
        self._check_numbers()

    def _check_controls(self) -> None:
        lists = {"must_include": self.must_include} | {
            name: self.entries(name) for name in ("bad_words", "word_weights")
        }
        for name, entries in lists.items():
            try:
                for entry in read_weights(entries) if name == "word_weights" else entries:
                    for part in split_alternatives(entry) if name == "must_include" else [entry]:
                        check_entry(part)
            except ValueError as error:
                raise UsageError(f"{SETTINGS[name].label}: {error}", setting=name, value=entries) from error
        try:
            read_guides(self.guide_attribute, self.guide_strength, ("guide-attribute", "guide-strength"))
        except ValueError as error:
            raise UsageError.of(error) from error
        self._check_ending()
        try:
            fields = {SETTINGS[name].label: getattr(self, name) for name in WHOLE_TEXT_FIELDS}
            read_grammar(fields, self.json_whitespace)
        except MissingPackageError as error:
            raise UserError.of(error) from error
        except ValueError as error:
            raise UsageError.of(error) from error

    def _check_ending(self) -> None:
        try:
            names = ("starts_with", *ENDING_FIELDS, *WHOLE_TEXT_FIELDS)
            fields = {name: getattr(self, name) for name in names}
            check_beginning(fields)
            check_ending(fields, self.min_tokens)
        except ValueError as error:
            raise UsageError.of(error) from error

    def _check_numbers(self) -> None:
        if self.min_tokens > self.max_tokens:
            raise UsageError(
                f"min-tokens is {self.min_tokens}, but max-tokens ends the text at {self.max_tokens}: "
                "lower the one or raise the other",
                setting="min_tokens",
                value=self.min_tokens,
            )
        if self.num_samples > self.beam_size > 1 and not self.sampled:
            raise UsageError(
                f"num-samples is {self.num_samples}, but a beam-size of {self.beam_size} keeps no more than that many "
                "texts: ask for fewer, raise it, or have the beams sampled by a temperature",
                setting="num_samples",
                value=self.num_samples,
            )
        if self.num_samples > 1 and self.beam_size == 1 and not self.sampled:
            raise UsageError(
                f"num-samples is {self.num_samples}, but at temperature 0 all samples are the same: "
                "raise the temperature or ask for one",
                setting="num_samples",
                value=self.num_samples,
            )
        if self.best is not None and self.best > self.num_samples:
            raise UsageError(
                f"best is {self.best}, but num-samples writes only {self.num_samples}: ask for fewer or raise it",
                setting="best",
                value=self.best,
            )
        highest = SETTINGS["seed"].high
        if self.seed is not None and highest is not None and self.seed + self.num_samples - 1 > highest:
            raise UsageError(
                f"seed is {self.seed}, but the last of {self.num_samples} samples would have one above {highest}: "
                "lower it",
                setting="seed",
                value=self.seed,
            )

    def without_effect(self) -> list[str]:
        """Settings that have no effect with the other settings, in one line each."""
        given = {name for name, setting in SETTINGS.items() if getattr(self, name) != setting.default}
        # Entries from a file are in the list, too.
        present = given | {SETTINGS[name].follows for name in given}
        idle = []
        if not self.sampled:
            why = "at temperature 0 nothing is sampled" if self.temperature == 0 else "these beams are not sampled"
            idle += [(name, why) for name in (*SAMPLING, "seed")]
        if len(self.must_include) == 1:
            idle.append(("must_include_ordered", "must-include holds fewer than two entries"))
        for control in CONTROLS.values():
            if control.refines and not present & {*control.refines}:
                labels = [SETTINGS[name].label for name in control.refines]
                why = f"{labels[0]} is not set" if len(labels) == 1 else f"neither {' nor '.join(labels)} is set"
                idle.append((control.name, why))
            for name, off in control.off_when:
                if getattr(self, name) == off:
                    idle.append((control.name, f"{SETTINGS[name].label} is {off}"))
        return [f"{SETTINGS[name].label} has no effect: {why}" for name, why in idle if name in given]

    def with_files_read(self) -> "GenerationSettings":
        """The same settings with the entries of list files added to their lists, so that a file is read once.

        Raises:
            UserError: the file cannot be read.
        """
        given = [file for file in LIST_FILES if getattr(self, file) is not None]
        lists = {SETTINGS[file].follows: self.entries(SETTINGS[file].follows) for file in given}
        return self.replace(**lists, **dict.fromkeys(given)) if given else self

    def replace(self, **changes: Any) -> "GenerationSettings":
        """A copy with some settings changed.

        Raises:
            UsageError: an unknown name, or an invalid value.
        """
        return GenerationSettings(**self.to_dict() | {find_setting(name).name: changes[name] for name in changes})

    # The earlier name of `replace`; it will be removed in version 0.2.
    but = replace

    def to_dict(self) -> dict[str, Any]:
        """Every setting by name."""
        return {name: getattr(self, name) for name in SETTINGS}  # all immutable, so not asdict(), which copies them


def find_setting(name: str) -> Setting:
    """The setting called `name`, with dashes or underscores.

    Raises:
        UsageError: there is none; the message names the nearest.
    """
    found = SETTINGS.get(name.replace("-", "_"))
    if found:
        return found
    near = difflib.get_close_matches(name.replace("-", "_"), SETTINGS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(SETTINGS)}"
    raise UsageError(f"there is no setting {name!r}: {hint}")
