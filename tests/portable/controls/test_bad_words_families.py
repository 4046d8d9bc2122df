"""Bad words with all families of tokenizers: characters that are written in several tokens."""

import pytest
from text_matcher import violations
from toy_tokenizers import FAMILIES, toy_model
from writing import written

RAW = {"do_sample": True, "temperature": 1.5, "top_k": 0}
MODES = [{"do_sample": False}, RAW | {"num_return_sequences": 4}, {"num_beams": 3}]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", MODES)
@pytest.mark.parametrize("tokens", [1, 3, 40])
@pytest.mark.parametrize("banned", ["/[^\\x00-\\x7f]/", "/[\\U0001f300-\\U0001faff]/"])
def test_no_part_of_a_character_is_written_that_could_only_become_a_banned_one(family, how, tokens, banned):
    """Not even what a decoder shows for a broken character."""
    prompt = "the cat"
    for text in written(toy_model(family), [prompt], max_new_tokens=tokens, bad_words=[banned], **how):
        assert not violations(prompt + text, len(prompt), [banned]), text
