"""The order in which processors act in one step of decoding. Imports neither torch nor transformers."""

from enum import IntEnum

# The fields that constrain the added text as a whole; at most one of them may be set.
WHOLE_TEXT_FIELDS = ("pattern", "json_schema", "grammar")
# The fields that decide how the added text ends.
ENDING_FIELDS = ("end_at", "words", "sentences", "ends_with")


def is_given(value: object) -> bool:
    """Whether the value of a field asks for anything."""
    return value is not None and value not in ("", [], (), {})


class Phase(IntEnum):
    """When a processor acts in a step; those of one phase act in the order in which they were added.

    Attributes:
        WATCH: sees the model's raw scores and changes none.
        STOCK: transformers' processors, and those of the caller, that come before its warpers.
        REPETITION, LENGTH: penalties.
        STRUCTURE, REQUIRE, BAN: masks and lookahead of the text-level controls.
        ENDING: leads to an end as asked for, through what the others allow.
        BEGINNING: allows nothing but the first words asked for until they are written, whatever the others allow: that
            the others can go on after them was checked before the first step.
        END: decides what happens where the controls leave no continuation.
        WARP: temperature, top-k, top-p and the like.
        GUIDE: shifts the tokens that are still allowed; nothing is cut off afterwards.
        FINISH: processors that transformers puts after its warpers.
        RECORD: sees the scores by which the next token is chosen.
        CHOOSE: makes the choice.
    """

    WATCH = 0
    STOCK = 1
    REPETITION = 2
    LENGTH = 3
    STRUCTURE = 4
    REQUIRE = 5
    BAN = 6
    ENDING = 7
    BEGINNING = 8
    END = 9
    WARP = 10
    GUIDE = 11
    FINISH = 12
    RECORD = 13
    CHOOSE = 14


# The phases of the controls that decide how a text may go on. Guides, and weights of words, only shift what is left.
CONSTRAINTS = (Phase.REPETITION, Phase.LENGTH, Phase.STRUCTURE, Phase.REQUIRE, Phase.BAN, Phase.ENDING, Phase.BEGINNING)
