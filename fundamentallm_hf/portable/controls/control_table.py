"""The table of all controls: each with its name, its values, its effect and its implementation.

A control is a field of the generation config next to transformers' own. All code that lists controls reads this table:
`generate()`, `controlled_generate`, the settings and with them the `Generator`, the command, the prompt loop and the
web demo, model cards, the repository of the controls, and the documentation.

To add a control, write a module with its processor and a function that adds it to a call, and a row here. This module
imports only descriptions of controls, so that `--help` needs neither torch nor transformers.
"""

import textwrap
from typing import TYPE_CHECKING

from ..decoding.phases import Phase
from ..guides.attributes import STRONGEST
from .control import Control
from .end_settings import END_UNITS, MOST_SENTENCES, MOST_WORDS

if TYPE_CHECKING:
    from ..decoding.call_processors import CallProcessors

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


def _word_weights(step: "CallProcessors") -> None:
    from .word_weighting import add_word_weights

    add_word_weights(step)


def _structured_output(step: "CallProcessors") -> None:
    from .structured_control import add_structured_output

    add_structured_output(step)


def _text_ending(step: "CallProcessors") -> None:
    from .end_control import add_text_ending

    add_text_ending(step)


def _first_text(step: "CallProcessors") -> None:
    from .first_text import add_first_text

    add_first_text(step)


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
        help="Words that never appear, separated by commas. Entries match whole words in any case; * stands for "
        "letters (curs*), /.../ is a regular expression.",
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
        help="Words that always appear, separated by commas: in any order, where they read well. * stands for letters "
        "(dragon*), king|queen for either word, /.../ is a regular expression.",
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
        help="Required words appear in the order of the list.",
        group="Control",
        refines=("must_include",),
    ),
    Control(
        name="must_include_prompt",
        kind=bool,
        default=False,
        help="Text in the prompt counts as included.",
        group="Control",
        refines=("must_include",),
    ),
    Control(
        name="case_sensitive",
        kind=bool,
        default=False,
        help="Match the case of bad words, required words and words with weights.",
        group="Control",
        refines=("bad_words", "must_include", "word_weights"),
    ),
    Control(
        name="starts_with",
        kind=tuple,
        default=(),
        help="The added text starts with these words, exactly as written; may be given several times, for any one of "
        "them.",
        group="Control",
        escaped=True,
        reads_text=True,
        phase=Phase.BEGINNING,
        apply=_first_text,
    ),
    Control(
        name="ends_with",
        kind=tuple,
        default=(),
        help="The added text ends with these words, exactly as written and within max-tokens; may be given several "
        "times, for any one of them.",
        group="Control",
        escaped=True,
        reads_text=True,
        phase=Phase.ENDING,
        apply=_text_ending,
    ),
    Control(
        name="guide_attribute",
        kind=tuple,
        default=(),
        help="Attributes to steer the text towards, separated by commas, such as positive_sentiment; name:2 sets the "
        "strength of one. `fundamentallm attributes` lists all attributes.",
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
        help="Multiplies the strength of each attribute; negative values steer away from it, 0 disables guidance.",
        group="Control",
        low=-STRONGEST,
        high=STRONGEST,
        refines=("guide_attribute",),
    ),
    Control(
        name="word_weights",
        kind=tuple,
        default=(),
        help="Words that appear more or less often, such as dragon:2,said:-1.5: a weight w is a factor of e^w on the "
        "odds of the word, -inf a ban. Entries are those of bad-words.",
        group="Control",
        comma_separated=True,
        is_weighted=True,
        reads_text=True,
        phase=Phase.GUIDE,
        apply=_word_weights,
    ),
    Control(
        name="pattern",
        kind=str,
        default=None,
        help="Regular expression that the completion matches from start to end, within max-tokens.",
        group="Structured output",
        reads_text=True,
        phase=Phase.STRUCTURE,
        apply=_structured_output,
    ),
    Control(
        name="json_schema",
        kind=str,
        default=None,
        help="JSON Schema: the completion is JSON that conforms to it, complete within max-tokens.",
        group="Structured output",
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
        help="Allow spaces and line breaks between the parts of the JSON by json-schema.",
        group="Structured output",
        refines=("json_schema",),
    ),
    Control(
        name="grammar",
        kind=str,
        default=None,
        help="Grammar in llguidance's form of Lark: the completion matches it from start to end, within max-tokens.",
        group="Structured output",
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
        help="No sequence of this many words (or tokens, see repetition-unit) appears twice; 0 disables this.",
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
        help="Unit of repetition-penalty and no-repeat-ngram. The default is words on character models, tokens on "
        "others.",
        group="Repetition",
        choices=("words", "tokens"),
        refines=("repetition_penalty", "no_repeat_ngram"),
    ),
    Control(
        name="stop",
        kind=tuple,
        default=(),
        help="End the text before this string; may be given several times.",
        group="Length",
        escaped=True,
        reads_text=True,
        apply=_stop,
    ),
    Control(
        name="end_at",
        kind=str,
        default=None,
        help="The text ends at the end of a word, sentence, line or paragraph, within max-tokens.",
        group="Length",
        choices=END_UNITS,
        reads_text=True,
        phase=Phase.ENDING,
        apply=_text_ending,
    ),
    Control(
        name="sentences",
        kind=str,
        default=None,
        help="The text has exactly so many sentences, or as many as a range allows (3 or 2-4).",
        group="Length",
        low=1,
        high=MOST_SENTENCES,
        is_range=True,
        reads_text=True,
        phase=Phase.ENDING,
        apply=_text_ending,
    ),
    Control(
        name="words",
        kind=str,
        default=None,
        help="The text has exactly so many words, or as many as a range allows (50 or 40-60).",
        group="Length",
        low=1,
        high=MOST_WORDS,
        is_range=True,
        reads_text=True,
        phase=Phase.ENDING,
        apply=_text_ending,
    ),
    Control(
        name="overflow",
        kind=str,
        default=None,
        help="When the text exceeds the context length: continue from its last part (slide), end there (stop), or "
        "refuse the call before it starts (error). The default is slide where the model supports it, else stop.",
        group="Length",
        choices=("slide", "stop", "error"),
        any_model=False,
        shapes_text=False,
    ),
    Control(
        name="length_penalty",
        kind=float,
        default=1.0,
        help="Above 1 lengthens texts, below 1 shortens them: by the probability of an end or, with beams, by their "
        "ranking.",
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
        help="The same seed and settings reproduce the same text. Sample i of several has the seed plus i.",
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
        shapes_text=False,
    ),
)
CONTROLS: dict[str, Control] = {control.name: control for control in _ROWS}
_TYPES = {tuple: "list[str]", int: "int", float: "float", bool: "bool", str: "str"}


def describe_controls(docstring: str | None, any_model: bool = False) -> str:
    """A docstring in which `{controls}` is replaced by the controls, as its arguments.

    Args:
        docstring: the docstring with the placeholder.
        any_model: leave out controls that only work with FundamentaLLM models.
    """
    before, _, after = (docstring or "").partition("{controls}")
    indent = before.rpartition("\n")[2]
    entries = []
    for control in CONTROLS.values():
        if control.any_model or not any_model:
            kind = "dict or str" if control.is_json else "dict" if control.is_weighted else _TYPES[control.kind]
            lines = textwrap.wrap(f"{control.config_field} ({kind}): {control.help}", 112, subsequent_indent="    ")
            entries.append(f"\n{indent}".join(lines))
    return before + f"\n{indent}".join(entries) + after
