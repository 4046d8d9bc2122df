"""Every control in one table: what it is called, what it may be, what it does, and what carries it out.

A control is a field of the generation config next to transformers' own. Everything that lists controls reads this
table: `generate()`, `controlled_generate`, the settings and with them the `Generator`, the command, the prompt loop and
the web demo, model cards, the repository of the controls, and the documentation.

To add a control, write a module with its processor and a function that adds it to a call, and a row here. Nothing is
imported but what names a control, so that `--help` needs neither torch nor transformers.
"""

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..decoding.phases import Phase
from ..guides.attributes import STRONGEST
from .setting import Setting

if TYPE_CHECKING:
    from ..decoding.call_processors import CallProcessors

Apply = Callable[["CallProcessors"], None]


@dataclass(frozen=True, kw_only=True)
class Control(Setting):
    """A setting that acts on the text through this library.

    Attributes:
        field: its name in the generation config, if it is another one: a field of transformers.
        stock: transformers knows the field too, and acts on it where this library does not.
        taken_over: transformers is not shown the field, because it would warn that it has no effect.
        any_model: it acts on every causal language model, not on FundamentaLLM models alone.
        refines: controls that it only refines: without one of them it has no effect.
        reads_text: it works on text and needs the model's tokenizer.
        off_when: values of other fields with which it does nothing.
        shapes_text: what is written depends on it, other than by chance or by its length.
        phase: when its processor acts in a step; None where it has none.
        apply: adds what carries it out to a call; None where the controls that it refines read it.
    """

    field: str = ""
    stock: bool = False
    taken_over: bool = False
    any_model: bool = True
    refines: tuple[str, ...] = ()
    reads_text: bool = False
    off_when: tuple[tuple[str, Any], ...] = ()
    shapes_text: bool = True
    phase: Phase | None = None
    apply: Apply | None = None

    @property
    def config_field(self) -> str:
        """Its name in the generation config."""
        return self.field or self.name

    def is_set(self, values: Mapping[str, Any]) -> bool:
        """Whether fields, by name, ask for this control."""
        value = values.get(self.config_field)
        if value is None or value == self.default or value in ("", [], ()):
            return False
        return all(values.get(name) != off for name, off in self.off_when)


# Imported when a control is applied, because the command line reads this table without torch.


def _bad_words(step: "CallProcessors") -> None:
    from .bad_words import add_bad_words

    add_bad_words(step)


def _must_include(step: "CallProcessors") -> None:
    from .must_include import add_must_include

    add_must_include(step)


def _guides(step: "CallProcessors") -> None:
    from ..guides.build_guides import add_guides

    add_guides(step)


def _structured_output(step: "CallProcessors") -> None:
    from .structured_control import add_structured_output

    add_structured_output(step)


def _word_repetition(step: "CallProcessors") -> None:
    from .word_repetition import add_word_repetition

    add_word_repetition(step)


def _length_penalty(step: "CallProcessors") -> None:
    from .length_penalty import add_length_penalty

    add_length_penalty(step)


def _stop(step: "CallProcessors") -> None:
    from ..decoding.stop_strings import add_stop

    add_stop(step)


def _seed(step: "CallProcessors") -> None:
    from ..decoding.seeded_sampling import add_seeded_sampling

    add_seeded_sampling(step)


_ROWS = (
    Control(
        name="bad_words",
        kind=tuple,
        default=(),
        help="Words, separated by commas, that never appear. Whole words in any case; * stands for letters (curs*), "
        "/.../ is a regular expression.",
        group="Control",
        comma_separated=True,
        reads_text=True,
        phase=Phase.BAN,
        apply=_bad_words,
    ),
    Control(
        name="must_include",
        kind=tuple,
        default=(),
        help="Words, separated by commas, that always appear: in any order, where they read well. * stands for letters "
        "(dragon*), king|queen for either, /.../ is a regular expression.",
        group="Control",
        comma_separated=True,
        reads_text=True,
        phase=Phase.REQUIRE,
        apply=_must_include,
    ),
    Control(
        name="must_include_ordered",
        kind=bool,
        default=False,
        help="What must be included comes in the order of the list.",
        group="Control",
        refines=("must_include",),
    ),
    Control(
        name="must_include_prompt",
        kind=bool,
        default=False,
        help="What the prompt holds counts as included.",
        group="Control",
        refines=("must_include",),
    ),
    Control(
        name="case_sensitive",
        kind=bool,
        default=False,
        help="Match the case of words.",
        group="Control",
        refines=("bad_words", "must_include"),
    ),
    Control(
        name="guide_attribute",
        kind=tuple,
        default=(),
        help="Attributes, separated by commas, that the text leans towards, such as positive_sentiment; name:2 has a "
        "strength of its own. `fundamentallm attributes` lists what there is.",
        group="Control",
        comma_separated=True,
        reads_text=True,
        off_when=(("guide_strength", 0),),
        phase=Phase.GUIDE,
        apply=_guides,
    ),
    Control(
        name="guide_strength",
        kind=float,
        default=1.0,
        help="Multiplies the strength of each attribute; below 0 steers away from it, 0 is no guidance.",
        group="Control",
        low=-STRONGEST,
        high=STRONGEST,
        refines=("guide_attribute",),
    ),
    Control(
        name="pattern",
        kind=str,
        default=None,
        help="A regular expression that the added text matches as a whole, complete within max-tokens.",
        group="Whole text",
        reads_text=True,
        phase=Phase.STRUCTURE,
        apply=_structured_output,
    ),
    Control(
        name="json_schema",
        kind=str,
        default=None,
        help="As a whole, JSON by this schema.",
        group="Whole text",
        from_file=True,
        is_json=True,
        reads_text=True,
        phase=Phase.STRUCTURE,
        apply=_structured_output,
    ),
    Control(
        name="json_whitespace",
        kind=bool,
        default=False,
        help="The JSON of json-schema may have spaces and line breaks between its parts.",
        group="Whole text",
        refines=("json_schema",),
    ),
    Control(
        name="grammar",
        kind=str,
        default=None,
        help="As a whole, by this grammar in llguidance's form of Lark.",
        group="Whole text",
        from_file=True,
        reads_text=True,
        phase=Phase.STRUCTURE,
        apply=_structured_output,
    ),
    Control(
        name="repetition_penalty",
        kind=float,
        default=1.0,
        help="Above 1 discourages repetition: of words and sequences of words on character models, of tokens on "
        "others.",
        group="Repetition",
        low=0,
        high=100,
        above=True,
        stock=True,
        phase=Phase.REPETITION,
        apply=_word_repetition,
    ),
    Control(
        name="no_repeat_ngram",
        field="no_repeat_ngram_size",
        kind=int,
        default=0,
        help="No sequence of this many words (tokens, see repetition-unit) comes twice; 0 is off.",
        group="Repetition",
        low=0,
        stock=True,
        phase=Phase.REPETITION,
        apply=_word_repetition,
    ),
    Control(
        name="repetition_unit",
        kind=str,
        default=None,
        help="What the two above judge. Unless set, words on character models and tokens on others.",
        group="Repetition",
        choices=("words", "tokens"),
        refines=("repetition_penalty", "no_repeat_ngram"),
    ),
    Control(
        name="stop",
        kind=tuple,
        default=(),
        help="End the text before this text; may be given several times.",
        group="Length",
        escaped=True,
        reads_text=True,
        apply=_stop,
    ),
    Control(
        name="overflow",
        kind=str,
        default=None,
        help="When the text outgrows the model's window: go on from its last part (slide), end there (stop), or refuse "
        "before starting (error). Unless set, slide where the model can, else stop.",
        group="Length",
        choices=("slide", "stop", "error"),
        any_model=False,
        shapes_text=False,
    ),
    Control(
        name="length_penalty",
        kind=float,
        default=1.0,
        help="Above 1 lengthens texts, below 1 shortens them: through the probability of an end, or through the "
        "ranking of beams.",
        group="Length",
        low=-10,
        high=10,
        stock=True,
        taken_over=True,
        phase=Phase.LENGTH,
        apply=_length_penalty,
    ),
    Control(
        name="seed",
        kind=int,
        default=None,
        help="The same seed and settings write the same text. Sample i of several has the seed plus i.",
        group="Sampling",
        low=0,
        high=2**62,
        shapes_text=False,
        phase=Phase.CHOOSE,
        apply=_seed,
    ),
    Control(
        name="speculate",
        kind=bool,
        default=True,
        help="Check several drafted tokens in one pass of the model. The text is the same without, and takes longer.",
        group="Sampling",
        any_model=False,
        shapes_text=False,
    ),
)
CONTROLS: dict[str, Control] = {control.name: control for control in _ROWS}
_TYPES = {tuple: "list[str]", int: "int", float: "float", bool: "bool", str: "str"}


def describe_controls(docstring: str | None, any_model: bool = False) -> str:
    """A docstring with the controls in place of `{controls}`, as its arguments.

    Args:
        docstring: what is to be completed.
        any_model: leave out what acts on FundamentaLLM models alone.
    """
    before, _, after = (docstring or "").partition("{controls}")
    indent = before.rpartition("\n")[2]
    entries = []
    for control in CONTROLS.values():
        if control.any_model or not any_model:
            kind = "dict or str" if control.is_json else _TYPES[control.kind]
            lines = textwrap.wrap(f"{control.config_field} ({kind}): {control.help}", 112, subsequent_indent="    ")
            entries.append(f"\n{indent}".join(lines))
    return before + f"\n{indent}".join(entries) + after
