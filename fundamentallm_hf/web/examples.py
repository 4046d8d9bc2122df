"""Presets for kinds of text, and examples that each show one control. A test generates every one of them."""

from typing import Any, NamedTuple


class Example(NamedTuple):
    """A name, a prompt, and the settings that differ from the page's defaults.

    Without a prompt it is a preset: it sets those of `PRESET`, and leaves what is to be written as it is.
    """

    name: str
    prompt: str | None
    settings: dict[str, Any]


# Settings for kinds of text, whatever the prompt and the controls.
PRESETS = (
    Example("Creative writing", None, {"temperature": 1.2, "top_p": 0.9, "max_tokens": 400}),
    Example("Code", None, {"temperature": 0.3, "top_p": 0.95, "max_tokens": 200}),
    Example("Completion", None, {"temperature": 0.7, "top_p": 1.0, "max_tokens": 50}),
    Example("Poetry", None, {"temperature": 1.0, "top_p": 1.0, "top_k": 40, "max_tokens": 100}),
    Example("Dialog", None, {"temperature": 0.7, "top_p": 0.9}),
)
# What a preset sets, if only to the page's default.
PRESET = frozenset(name for each in PRESETS for name in each.settings)
EXAMPLES = (
    Example("A story", "Once upon a time", {"max_tokens": 400}),
    Example("Words that never appear", "The big dog", {"bad_words": ("ran", "lil*", "very happy"), "max_tokens": 120}),
    Example(
        "Words that always appear",
        "Once upon a time",
        {"must_include": ("dragon*", "castle", "king|queen"), "max_tokens": 160},
    ),
    Example(
        "A mood", "One day, Tim", {"guide_attribute": ("positive_sentiment",), "guide_strength": 2.0, "max_tokens": 160}
    ),
    Example(
        "Suspense and animals", "In the dark wood", {"guide_attribute": ("suspense:2", "animals:2"), "max_tokens": 160}
    ),
    Example("A pattern", "It was on ", {"pattern": "(Monday|Tuesday), the [0-9]{1,2}th of (May|June)"}),
    Example(
        "No repetition",
        "Once upon a time",
        {"temperature": 0.0, "repetition_penalty": 1.2, "no_repeat_ngram": 3, "max_tokens": 160},
    ),
    Example("Three samples", "The ancient scroll", {"num_samples": 3, "max_tokens": 100}),
    Example("Cold", "The cat", {"temperature": 0.3, "max_tokens": 120}),
    Example("Hot", "The cat", {"temperature": 1.5, "top_p": 1.0, "max_tokens": 120}),
    Example("Beams", "Once upon a time", {"beam_size": 4, "temperature": 0.0, "max_tokens": 120}),
    Example("An early end", "Once upon a time", {"stop": (".",), "min_tokens": 20}),
)
