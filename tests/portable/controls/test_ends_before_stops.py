"""`end_at`, `words`, `sentences` and `ends_with` next to stop texts of every kind, with all families of tokenizers.

The text that counts ends before a stop text, so it has to keep its promises there. A draw is a family, a mode, what the
end has to be and stop texts; draw `i` is always the same. `STOPS_DRAWS=2000` asks for that many draws.
"""

import os
import random

import pytest
from test_first_and_last_text import LASTS, added_to
from test_text_ending import ENDS, MODES, PROMPTS, checked
from toy_tokenizers import FAMILIES, toy_model
from unit_checker import ends_as_asked

from fundamentallm_hf import Generator

DRAWS = int(os.environ.get("STOPS_DRAWS", "120"))
FIRST = int(os.environ.get("STOPS_FIRST", "0"))
STOPS = [
    *(["."], ["!", "."], [","], ["o"], ["e", " d"], ["\n"], ["\n\n"], ["é"], ["日"], ["日本"]),  # a character or two
    *(["og."], [" the"], ["dog ran"], ["THE END"], ["..", "!"], [" ."], ["! ?"], [". T"]),  # several
    *([" "], ["  "], [". "], ["! ", ". "], ["? ", ".\n"], ["t. "], ["an "], [" a "], ["é "], ["!\n"]),  # white space
]
REFUSING = "ends_with|end_at|words|sentences|stop"


def draw(number):
    """The case with this number: family, prompts and arguments of `generate()`."""
    dice = random.Random(f"stops {number}")
    family, stops = dice.choice([*FAMILIES]), dice.choice(STOPS)
    how = dict(dice.choice([*MODES, {"stream": True}])) | {"stop": stops, "max_new_tokens": dice.choice([16, 40, 60])}
    asked = dice.choice(["end", "last", "both"])
    if asked != "last":
        how |= dice.choice(ENDS)
    if asked != "end":
        how["ends_with"] = dice.choice(LASTS[1:])
    prompts = PROMPTS
    if family == "word_ends":  # the space behind the prompt's last word may complete a stop text, whatever follows
        prompts = [prompt for prompt in PROMPTS if not f"{prompt} ".endswith(tuple(stops))] or ["Dr."]
    single = {"prompt_lookup_num_tokens", "stream"} & how.keys() or len(prompts) < 3
    return family, dice.sample(prompts, 1 if single else dice.choice([1, 3])), how


def added_with(model, prompts, how):
    """The prompt, the whole text and what was added, as generated or streamed."""
    if "stream" not in how:
        yield from ((prompt, prompt + added, added) for prompt, added in added_to(model, prompts, how))
        return
    asked = {name: value for name, value in how.items() if name not in ("stream", "max_new_tokens")}
    generator = Generator(model, model.tokenizer, notice=lambda line: None, max_tokens=how["max_new_tokens"], seed=1)
    added = "".join(generator.stream(prompts[0], **asked))
    yield prompts[0], prompts[0] + added, added


@pytest.mark.parametrize("number", range(FIRST, FIRST + DRAWS))
def test_a_text_ends_as_asked_for_before_a_stop_text(number):
    family, prompts, how = draw(number)
    if family == "word_ends" and " " in how["stop"]:
        pytest.skip("every text begins with the stop text there")
    for prompt, _, added in checked(added_with(toy_model(family), prompts, how), how, family, REFUSING):
        assert "ends_with" not in how or ends_as_asked(prompt, added, how["ends_with"]), (prompt, added, how, family)


WRITTEN = [
    ("byte_level", {"sentences": 2, "stop": ["! ", ". ", "? "]}),  # a line break may follow a mark
    ("byte_level", {"words": 4, "stop": ["."]}),
    ("word_ends", {"words": 4, "stop": [" the"]}),
    ("word_piece", {"sentences": 2, "stop": ["."]}),
    ("unigram", {"words": 3, "stop": [", "]}),
    ("characters", {"ends_with": "the dog", "stop": ["og "]}),
    ("llama", {"ends_with": "très", "stop": [" t"]}),
]


@pytest.mark.parametrize(("family", "asked"), WRITTEN, ids=str)
@pytest.mark.parametrize("mode", [{"do_sample": False}, {"do_sample": True, "seed": 4}, {"num_beams": 3}], ids=str)
def test_what_can_be_written_is_not_refused(family, asked, mode):
    how = asked | mode | {"max_new_tokens": 40}
    found = checked(added_with(toy_model(family), ["the cat"], how), how, family, "never")
    assert all("ends_with" not in how or ends_as_asked(*each[::2], how["ends_with"]) for each in found)
    assert found
