"""The settings of a generation, each written once, as a field of `GenerationSettings`.

The command's options, Python's arguments and the configuration of `generate()` all read their names, types, defaults,
ranges and help texts here. This file imports neither torch nor transformers, so `--help` is instant.
It knows nothing of models.
"""

import difflib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.portable.guides.attributes import STRONGEST, read_guides
from fundamentallm_hf.portable.structured.grammars import WHOLE_TEXT_FIELDS, MissingPackageError, read_grammar
from fundamentallm_hf.portable.text.word_lists import read_entries, split_alternatives, split_entries
from fundamentallm_hf.portable.text.word_matcher import check_entry

NOUNS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    tuple: "text, or a list of texts, none empty,",
}
DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "float16", "bfloat16")
SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: half a surrogate pair, as a broken argument has it, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Setting:
    """One setting: what it is called, what it may be, and what it does.

    Attributes:
        name: the name in Python; the option is the same with dashes.
        kind: `int`, `float`, `bool`, `str`, or `tuple` for a list of texts.
        default: its value when nobody sets it; None is "not set".
        help: what it does, for `--help` and the documentation.
        group: the heading it stands under.
        low, high: the range, both ends included, or open at `low` where `above` is set.
        choices: the values a `str` may have.
        comma_separated: one text given for a list is split at its commas (see `split_entries`), not one entry.
        from_file: the command's option takes a file that holds the value; everywhere else it is the value itself.
        is_json: a dict may be given too, and becomes JSON text.
        escaped: where it is typed, `\\n` and its like stand for characters unless escapes are turned off.
    """

    name: str
    kind: type
    default: Any
    help: str
    group: str
    low: float | None = None
    high: float | None = None
    above: bool = False
    choices: tuple[str, ...] = ()
    comma_separated: bool = False
    from_file: bool = False
    is_json: bool = False
    escaped: bool = False

    @property
    def label(self) -> str:
        """The name as users write it, for instance `max-tokens`."""
        return self.name.replace("_", "-")

    @property
    def expected(self) -> str:
        """The values it takes, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        noun = "a dict or JSON text" if self.is_json else NOUNS[self.kind]
        if self.low is None:
            return noun
        low, high = (str(limit) if isinstance(limit, int) else f"{limit:g}" for limit in (self.low, self.high or 0))
        if self.high is None:
            return f"{noun} above {low}" if self.above else f"{noun} of at least {low}"
        if self.above:
            return f"{noun} above {low} and at most {high}"
        return f"{noun} from {low} to {high}"

    def parse(self, value: Any) -> Any:
        """`value` in its type, wherever it comes from: Python, the command line, a file.

        Raises:
            UsageError: it is not what is expected.
        """
        if value is None and self.default is None:
            return None
        refusal = UsageError(f"{self.label} has to be {self.expected} but is {value!r}")
        if self.kind is tuple:
            if isinstance(value, str):  # entries of a list are never split: their commas are their own
                value = split_entries(value) if self.comma_separated else [value]
            if not isinstance(value, list | tuple) or not all(isinstance(entry, str) and entry for entry in value):
                raise refusal
            if not all(map(is_text, value)):
                raise refusal
            return tuple(value)
        if self.is_json and isinstance(value, dict):
            try:
                return json.dumps(value)
            except (TypeError, ValueError):
                raise refusal from None
        if self.kind is bool:
            switch = value if isinstance(value, bool) else SWITCH.get(str(value).lower())
            if switch is None:
                raise refusal
            return switch
        if isinstance(value, bool) or (self.kind is str and not (isinstance(value, str) and is_text(value))):
            raise refusal
        try:
            parsed = self.kind(value)
        except (TypeError, ValueError, OverflowError):
            raise refusal from None
        if self.choices and parsed not in self.choices:
            raise refusal
        if self.kind is not str:
            if isinstance(value, float) and parsed != value:  # 2.5 tokens, or not a number
                raise refusal
            if not self._holds(parsed):
                raise refusal
        return parsed

    def _holds(self, number: float) -> bool:
        above_low = self.low is None or (number > self.low if self.above else number >= self.low)
        return math.isfinite(number) and above_low and (self.high is None or number <= self.high)


def _setting(default: Any, group: str, help: str, **limits: Any) -> Any:
    return field(default=default, metadata={"group": group, "help": help, **limits})


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """All settings of a generation, validated when it is made.

    Raises:
        UsageError: a value is outside its range or of the wrong type.

    Example:

    ```python
    >>> from fundamentallm_hf import GenerationSettings
    >>> GenerationSettings(temperature=0.8).but(top_p="0.9").top_p
    0.9
    >>> GenerationSettings(top_p=1.5)
    Traceback (most recent call last):
    ...
    fundamentallm_hf.portable.errors.UsageError: top-p has to be a number above 0 and at most 1 but is 1.5

    ```
    """

    max_tokens: int = _setting(200, "Length", "How many tokens to add at most.", low=1)
    min_tokens: int = _setting(0, "Length", "How many tokens to add at least.", low=0)
    stop: tuple[str, ...] = _setting(
        (), "Length", "End the text before this text; may be given several times.", escaped=True
    )
    overflow: str | None = _setting(
        None,
        "Length",
        "When the text outgrows the model's window: go on from its last part (slide), end there (stop), or refuse "
        "before starting (error). Unless set, slide where the model can, else stop.",
        choices=("slide", "stop", "error"),
    )
    num_samples: int = _setting(1, "Samples", "How many texts to write for each prompt.", low=1)
    best: int | None = _setting(
        None,
        "Samples",
        "Keep only the N samples of each prompt that the model itself finds likeliest, by the mean log-probability of "
        "their tokens, the likeliest first.",
        low=1,
    )
    temperature: float | None = _setting(
        None,
        "Sampling",
        "Below 1 the likely is preferred, above 1 the unlikely gets a chance; 0 always takes the likeliest (greedy). "
        "Unless set, 1.",
        low=0,
        high=100,
    )
    top_k: int | None = _setting(None, "Sampling", "Sample from the K likeliest tokens only.", low=1)
    top_p: float | None = _setting(
        None,
        "Sampling",
        "Sample from the likeliest tokens that together hold this probability (nucleus sampling).",
        low=0,
        high=1,
        above=True,
    )
    min_p: float | None = _setting(
        None,
        "Sampling",
        "Sample only from tokens that are at least this likely compared with the likeliest one.",
        low=0,
        high=1,
    )
    seed: int | None = _setting(
        None,
        "Sampling",
        "The same seed and settings write the same text. Sample i of several has the seed plus i.",
        low=0,
        high=2**62,
    )
    beam_size: int = _setting(
        1,
        "Beam search",
        "Keep this many candidate texts and return the likeliest; sampled only if temperature, top-k, top-p or min-p "
        "is set.",
        low=1,
    )

    length_penalty: float = _setting(
        1.0,
        "Length",
        "Above 1 lengthens texts, below 1 shortens them: through the chance to end, or through the ranking of beams.",
        low=-10,
        high=10,
    )
    repetition_penalty: float = _setting(
        1.0,
        "Repetition",
        "Above 1 discourages repetition: of words and sequences of words on character models, of tokens on others.",
        low=0,
        high=100,
        above=True,
    )
    no_repeat_ngram: int = _setting(
        0, "Repetition", "No sequence of this many words (tokens, see repetition-unit) comes twice; 0 is off.", low=0
    )
    repetition_unit: str | None = _setting(
        None,
        "Repetition",
        "What the two above judge. Unless set, words on character models and tokens on others.",
        choices=("words", "tokens"),
    )
    bad_words: tuple[str, ...] = _setting(
        (),
        "Control",
        "Words, separated by commas, that never appear. Whole words in any case; * stands for letters (curs*), "
        "/.../ is a regular expression.",
        comma_separated=True,
    )
    bad_words_file: str | None = _setting(
        None, "Control", "A file with bad words, one a line; lines that begin with # are comments."
    )
    must_include: tuple[str, ...] = _setting(
        (),
        "Control",
        "Words, separated by commas, that always appear: in any order, where they read well. * stands for letters "
        "(dragon*), king|queen for either, /.../ is a regular expression.",
        comma_separated=True,
    )
    must_include_ordered: bool = _setting(False, "Control", "What must be included comes in the order of the list.")
    must_include_prompt: bool = _setting(False, "Control", "What the prompt holds counts as included.")
    case_sensitive: bool = _setting(False, "Control", "Match the case of words.")

    guide_attribute: tuple[str, ...] = _setting(
        (),
        "Control",
        "Attributes, separated by commas, that the text leans towards, such as positive_sentiment; name:2 has a "
        "strength of its own. `fundamentallm attributes` lists what there is.",
        comma_separated=True,
    )
    guide_strength: float = _setting(
        1.0,
        "Control",
        "How much it leans, times the strengths of their own; below 0 away from them, 0 not at all.",
        low=-STRONGEST,
        high=STRONGEST,
    )

    pattern: str | None = _setting(
        None,
        "Whole text",
        "A regular expression that the added text matches as a whole, complete within max-tokens.",
    )
    json_schema: str | None = _setting(
        None, "Whole text", "As a whole, JSON by this schema.", from_file=True, is_json=True
    )
    grammar: str | None = _setting(
        None, "Whole text", "As a whole, by this grammar in llguidance's form of Lark.", from_file=True
    )

    def __post_init__(self) -> None:
        for setting in SETTINGS.values():
            object.__setattr__(self, setting.name, setting.parse(getattr(self, setting.name)))

    @property
    def sampled(self) -> bool:
        """Whether chance has a say: not at temperature 0, and with beams only if a sampling setting asks for it."""
        asked = any(value is not None for value in (self.temperature, self.top_k, self.top_p, self.min_p))
        return self.temperature != 0 and (asked or self.beam_size == 1)

    def banned(self) -> list[str]:
        """The bad words, those of the file included.

        Raises:
            UserError: the file cannot be read.
        """
        if self.bad_words_file is None:
            return list(self.bad_words)
        try:
            return [*self.bad_words, *read_entries(self.bad_words_file)]
        except ValueError as error:
            raise UserError(f"bad-words-file: {error}") from error

    def check(self) -> None:
        """Refuse settings that contradict each other, which only shows when no more will change.

        Raises:
            UsageError: two settings cannot both be followed, or a list holds what cannot be an entry.
            UserError: a file cannot be read.
        """
        for name, entries in (("bad-words", self.banned()), ("must-include", self.must_include)):
            try:
                for entry in entries:
                    for part in split_alternatives(entry) if name == "must-include" else [entry]:
                        check_entry(part)
            except ValueError as error:
                raise UsageError(f"{name}: {error}") from error
        try:
            read_guides(self.guide_attribute, self.guide_strength)
        except ValueError as error:
            raise UsageError(str(error).replace("guide_", "guide-", 1)) from error
        try:
            read_grammar({SETTINGS[name].label: getattr(self, name) for name in WHOLE_TEXT_FIELDS})
        except MissingPackageError as error:
            raise UserError(str(error)) from error
        except ValueError as error:
            raise UsageError(str(error)) from error
        if self.min_tokens > self.max_tokens:
            raise UsageError(
                f"min-tokens is {self.min_tokens}, but max-tokens ends the text at {self.max_tokens}: "
                "lower the one or raise the other"
            )
        if self.num_samples > self.beam_size > 1 and not self.sampled:
            raise UsageError(
                f"num-samples is {self.num_samples}, but a beam-size of {self.beam_size} keeps no more than that many "
                "texts: ask for fewer, raise it, or have the beams sampled by a temperature"
            )
        if self.num_samples > 1 and self.beam_size == 1 and not self.sampled:
            raise UsageError(
                f"num-samples is {self.num_samples}, but at temperature 0 all samples are the same: "
                "raise the temperature or ask for one"
            )
        if self.best is not None and self.best > self.num_samples:
            raise UsageError(
                f"best is {self.best}, but num-samples writes only {self.num_samples}: ask for fewer or raise it"
            )

        highest = SETTINGS["seed"].high
        if self.seed is not None and highest is not None and self.seed + self.num_samples - 1 > highest:
            raise UsageError(
                f"seed is {self.seed}, but the last of {self.num_samples} samples would have one above {highest}: "
                "lower it"
            )

    def without_effect(self) -> list[str]:
        """What is set and changes nothing beside the other settings, in one line each."""
        given = {name for name, setting in SETTINGS.items() if getattr(self, name) != setting.default}
        lists = given & {"bad_words", "bad_words_file", "must_include"}
        penalties = given & {"repetition_penalty", "no_repeat_ngram"}
        idle = []
        if not self.sampled:
            why = "at temperature 0 nothing is sampled" if self.temperature == 0 else "these beams are not sampled"
            idle += [(name, why) for name in ("top_k", "top_p", "min_p", "seed")]
        if not lists:
            idle.append(("case_sensitive", "there is no list of words"))
        if len(self.must_include) < 2:
            idle.append(("must_include_ordered", "must-include holds fewer than two entries"))
        if not self.must_include:
            idle.append(("must_include_prompt", "must-include is not set"))
        if not self.guide_attribute:
            idle.append(("guide_strength", "guide-attribute is not set"))
        if not self.guide_strength:
            idle.append(("guide_attribute", "guide-strength is 0"))
        if not penalties:
            idle.append(("repetition_unit", "neither repetition-penalty nor no-repeat-ngram is set"))
        return [f"{SETTINGS[name].label} has no effect: {why}" for name, why in idle if name in given]

    def but(self, **changes: Any) -> "GenerationSettings":
        """A copy with some settings changed.

        Raises:
            UsageError: an unknown name, or a value that is not what is expected.
        """
        return GenerationSettings(**self.to_dict() | {find_setting(name).name: changes[name] for name in changes})

    def to_dict(self) -> dict[str, Any]:
        """Every setting by name."""
        return asdict(self)


def _read_table() -> dict[str, Setting]:
    hints = get_type_hints(GenerationSettings)
    table = {}
    for entry in fields(GenerationSettings):
        hint = hints[entry.name]
        kind = get_args(hint)[0] if isinstance(hint, UnionType) else get_origin(hint) or hint
        table[entry.name] = Setting(entry.name, kind, entry.default, **entry.metadata)
    return table


SETTINGS: dict[str, Setting] = _read_table()


def find_setting(name: str) -> Setting:
    """The setting called `name`, with dashes or underscores.

    Raises:
        UsageError: there is none; names the nearest.
    """
    found = SETTINGS.get(name.replace("-", "_"))
    if found:
        return found
    near = difflib.get_close_matches(name.replace("-", "_"), SETTINGS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(SETTINGS)}"
    raise UsageError(f"there is no setting {name!r}: {hint}")
