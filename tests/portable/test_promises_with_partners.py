"""The promises of the controls on text, each next to one or two others, in every mode and after every kind of prompt.

Like `test_promises.py`, with other draws: `PROMISE_DRAWS=5000` asks for that many. Independent checkers judge every
promise of a draw, and a call may only be refused if no witness is found, which is a text that keeps all of them.
"""

import itertools
import json
import os
import random
import re
import warnings
from collections import Counter

import jsonschema
import pytest
from test_promises import BANNED, REQUIRED, WRITTEN
from test_promises_at_borders import rows_of, texts_of_row
from text_matcher import first_missing, violations
from toy_tokenizers import FAMILIES, toy_model, toy_tokenizer
from transformers import StoppingCriteriaList
from unit_checker import begins_as_asked, ends_as_asked, wrong_end

from fundamentallm_hf.portable.decoding.endings import ClosedEndCriteria

DRAWS = int(os.environ.get("PROMISE_DRAWS", "160"))
FIRST = int(os.environ.get("PROMISE_FIRST", "0"))
PROMPTS = ["the cat", "once upon a ti", "the big do", "a 日本 😀", "the é", "It ran."]
KINDS_OF_PROMPTS = ["plain", "plain", "cut", "special", "chat"]
MODES = {
    "greedy": {"do_sample": False},
    "without drafts": {"do_sample": False, "speculate": False},
    "seeded without drafts": {"do_sample": True, "temperature": 1.5, "top_k": 0, "seed": 3, "speculate": False},
    "sampled": {"do_sample": True, "temperature": 1.5, "top_k": 0, "num_return_sequences": 2},
    "top-p": {"do_sample": True, "temperature": 1.0, "top_p": 0.9},
    "streamed": {"do_sample": True, "temperature": 1.5, "top_k": 0, "stream": True},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "sampled beams": {"num_beams": 2, "do_sample": True, "num_return_sequences": 2},
    "assisted": {"do_sample": True, "assisted": True},
    "lookup": {"do_sample": False, "prompt_lookup_num_tokens": 3},
}
WEIGHTS = {"cat": 3.0, "d*": -4.0, "*o*": 1.5, "/[0-9]/": -2.0, "big dog": 5.0}
# A structure, whether a text has it, and examples of texts.
OBJECT = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 30}}, "required": ["name"]}
ARRAY = {"type": "array", "items": {"enum": ["cat", "dog", "Paris", "é"]}, "minItems": 1, "maxItems": 3}
ANIMALS = r"[0-9]{1,3} (cats|dog)(, [0-9]{1,3} (cats|dog)){0,3}"
STRUCTURES = [
    ({"pattern": r"[a-z ]{0,30}(cat|dog|sun)[a-z ]{0,30}\."}, r"[a-z ]{0,30}(cat|dog|sun)[a-z ]{0,30}\."),
    ({"pattern": ANIMALS}, ANIMALS),
    ({"json_schema": OBJECT}, OBJECT),
    ({"json_schema": ARRAY}, ARRAY),
    ({"grammar": 'start: WORD (" " WORD)*\nWORD: /[a-z]{2,5}/'}, r"[a-z]{2,5}( [a-z]{2,5})*"),
    ({"grammar": 'start: "yes" | "no" | "the " /[a-z]+/'}, r"yes|no|the [a-z]+"),
]
PARTNERS = {
    "word weights": [{"word_weights": WEIGHTS}, {"word_weights": {"cat": 4.0, "the": -float("inf")}}],
    "an end": [{"end_at": unit} for unit in ("word", "sentence", "line", "paragraph")],
    "words": [{"words": "2-6"}, {"words": 5}, {"words": "4-8", "end_at": "sentence"}, {"words": "3-40"}],
    "sentences": [{"sentences": 1}, {"sentences": "1-3"}, {"sentences": 2, "words": "2-12"}],
    "first words": [{"starts_with": "big"}, {"starts_with": ["Paris", "the cat"]}, {"starts_with": "42 and"}],
    "last words": [{"ends_with": "ran."}, {"ends_with": ["big cat", "Rome"]}, {"ends_with": "3.14"}],
    "a structure": [fields for fields, _ in STRUCTURES],
    "stop texts": [{"stop": ["."]}, {"stop": ["e", "\n"]}, {"stop": ["an"]}, {"stop": ["dog", "😀"]}],
    "no repeated words": [{"no_repeat_ngram_size": 2, "repetition_unit": "words"}],
    "length": [{"min_new_tokens": 5}, {"length_penalty": 0.5}, {"exponential_decay_length_penalty": (5, 1.2)}],
    "tokens": [{"suppress_tokens": [5, 6, 7, 30]}, {"bad_words_ids": [[5], [6], [30, 41]]}],
    "a guide": [{"guide_attribute": "positive_sentiment", "guide_strength": 2.0}],
}
PROMISES = {
    "banned words": lambda dice: {"bad_words": dice.sample([each for each in BANNED if each[0] != "/"], 2)},
    "banned expressions": lambda dice: {"bad_words": dice.sample([each for each in BANNED if each[0] == "/"], 2)},
    "required words": lambda dice: {"must_include": dice.sample([each for each in REQUIRED if each[0] != "/"], 2)},
    "required expressions": lambda dice: {"must_include": [dice.choice([*EXPRESSIONS])]},
    "in order": lambda dice: {"must_include": dice.sample(REQUIRED, 2), "must_include_ordered": True},
    "counting the prompt": lambda dice: {"must_include": [dice.choice(PROMPTS), "dog"], "must_include_prompt": True},
    "with case": lambda dice: {"must_include": ["Dog"], "bad_words": ["the", "CAT", "/[A-C]/"], "case_sensitive": True},
    "both": lambda dice: {"must_include": dice.sample(REQUIRED, 1), "bad_words": dice.sample(BANNED, 2)},
}
# Required expressions, and a text that matches each.
EXPRESSIONS = {"/[0-9]{2}/": "42", "/[0-9]\\.[0-9]/": "3.1", "/[b-d]og\\b/": "dog", "/(?i)rome|paris/": "Rome"}
EXPRESSIONS |= {"/\\bs\\w+n\\b/": "sun", "/[^\\x00-\\x7f]/": "é", "/a [a-c]/": "a b", "/\\.$/": "."}


def draw(number):
    """The case with this number: its kinds, family, prompts as tokens, and arguments of `generate()`."""
    dice = random.Random(f"partners {number}")
    promise, mode = dice.choice([*PROMISES]), dice.choice([*MODES])
    partners = dice.sample([*PARTNERS], dice.choice([1, 1, 2]))
    if "a structure" in partners:  # it decides about these itself
        partners = [
            each for each in partners if each not in ("an end", "words", "sentences", "first words", "last words")
        ]
    how = dict(MODES[mode])
    for partner in partners:
        how |= dice.choice(PARTNERS[partner])
    how |= PROMISES[promise](dice) | {"max_new_tokens": dice.choice([40, 60, 90])}
    family = dice.choice([each for each in FAMILIES if each != "word_ends" or "a structure" not in partners])
    tokenizer = toy_tokenizer(family)
    single = {"assisted", "stream", "speculate", "prompt_lookup_num_tokens"} & how.keys()
    prompts, styles = [], []
    for text in dice.sample(PROMPTS, 1 if single else dice.choice([1, 1, 3])):
        styles.append(dice.choice(KINDS_OF_PROMPTS))
        prompts.append(prompt_of(tokenizer, text, styles[-1]))
    return {"promise": promise, "mode": mode, "partners": partners, "prompts": styles}, family, prompts, how


def prompt_of(tokenizer, text, style):
    """A prompt as tokens: plain, without its last token, with an end token, or as turns of a chat."""
    write = lambda each: tokenizer(each, add_special_tokens=False).input_ids  # noqa: E731
    end, tokens = tokenizer.eos_token_id, write(text)
    if style == "chat":
        return [end, *write("user\n"), *tokens, end, *write("\nassistant\n")]
    if style == "special":
        return [*tokens, end]
    return tokens[:-1] or [end] if style == "cut" else tokens


def cut_at_stop(text, how):
    """A text up to the first stop text in it."""
    found = re.search("|".join(map(re.escape, how.get("stop", ()))) or r"\Z", text)
    return text[: found.start()] if found else text


def whats_banned(given, whole, added, how):
    """A banned match in the text or in what was added by itself, if any."""
    weights = how.get("word_weights", {})
    banned = [*how.get("bad_words", ()), *(entry for entry, weight in weights.items() if weight == -float("inf"))]
    fold = not how.get("case_sensitive", False)
    return violations(whole, len(given), banned, fold) or violations(added, 0, banned, fold)


def whats_missing(earlier, given, whole, how):
    """The first required entry that does not appear, or not after the one before it, if any."""
    fold, ordered = not how.get("case_sensitive", False), how.get("must_include_ordered", False)
    if not how.get("must_include_prompt"):
        return first_missing(whole, len(given), how.get("must_include", ()), fold, ordered)
    return next(
        (each for each in how["must_include"] if all(first_missing(t, 0, [each]) for t in [*earlier, whole])), None
    )


def has_structure(text, how):
    """Whether a text has the structure that was asked for, if any."""
    asked = next((asked for fields, asked in STRUCTURES if fields.items() <= how.items()), None)
    if not isinstance(asked, dict):
        return asked is None or re.fullmatch(asked, text) is not None
    try:
        return jsonschema.Draft202012Validator(asked).is_valid(json.loads(text))
    except json.JSONDecodeError:
        return False


def whats_wrong(earlier, given, whole, added, how, broken=False):
    """What is wrong with a text, if anything.

    Args:
        earlier: the texts of the prompt before its last special token.
        given: the rest of the prompt's text.
        whole: the same, with what was added.
        added: what was added, by itself.
        how: the arguments of `generate()`.
        broken: the text was ended before its structure was complete, as reported to the caller.
    """
    if found := whats_banned(given, whole, added, how):
        return found
    rest = whole[len(given) :] if whole.startswith(given) else added
    kept = cut_at_stop(rest, how)
    if not broken and kept == rest and not has_structure(rest, how):
        return "another structure"
    if not broken and (missing := whats_missing(earlier, given, given + kept, how)):
        return f"{missing!r} is missing"
    ends = {name: how.get(name) for name in ("end_at", "words", "sentences")}
    if any(ends.values()) and (wrong := wrong_end(kept, **ends)):
        return wrong
    if "starts_with" in how and not begins_as_asked(given, kept, how["starts_with"]):
        return "other first words"
    if "ends_with" in how and not ends_as_asked(given, kept, how["ends_with"]):
        return "other last words"
    return ""


def turns_of(model, prompt):
    """The texts of the prompt before its last special token."""
    special = set(model.tokenizer.all_special_ids)
    turns = [[]]
    for token in prompt:
        turns = [*turns, []] if token in special else [*turns[:-1], [*turns[-1], token]]
    return [model.tokenizer.decode(turn) for turn in turns[:-1]]


def witnesses(how):
    """Texts that may keep what a refused call asks."""
    middle = [WRITTEN.get(entry, EXPRESSIONS.get(entry, entry)) for entry in how.get("must_include", ())]
    words = " ".join(middle)
    yield from (f'{{"name":"{words}"}}', '["dog","Paris","é"]', "42 dog, 1 cats", f"{words} cat.", "the dog", "yes")
    first, last = (
        [text] if isinstance(text := how.get(name, ""), str) else text for name in ("starts_with", "ends_with")
    )
    for start, end, more, begun in itertools.product(first, last, range(5), ("", " ", ". ", " It ran. ")):
        text = " ".join(filter(None, [start, *middle, *["sun"] * more, end]))
        yield from (begun + text + ending for ending in ("", ".", "\n", ".\n", ".\n\n"))


def is_possible(model, prompt, how):
    """Whether one of the witnesses, in the tokenizer's own spelling, keeps what a refused call asks."""
    closed = {*how.get("suppress_tokens", ()), *model.tokenizer.all_special_ids}
    closed |= {token for tokens in how.get("bad_words_ids", ()) for token in tokens}
    if "no_repeat_ngram_size" in how or how.get("min_new_tokens"):
        return False  # that is not judged here
    for text in witnesses(how):
        tokens = model.tokenizer(text, add_special_tokens=False).input_ids
        if len(tokens) >= how["max_new_tokens"] or closed & {*tokens}:
            continue
        given, whole, added = texts_of_row(model, prompt, tokens)
        straddles = any(stop in whole[max(0, len(given) - len(stop)) :] for stop in how.get("stop", ()))
        kept = whole.startswith(given) and not straddles
        if kept and not whats_wrong(turns_of(model, prompt), given, whole, added, how):
            return text
    return False


@pytest.mark.parametrize("number", range(FIRST, FIRST + DRAWS))
def test_what_is_promised_holds_next_to_partners(number):
    kinds, family, prompts, how = draw(number)
    model, blocked, found, refusal = toy_model(family), ClosedEndCriteria(tell=False), [], ""
    case = (kinds, family, prompts, how)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            watched = how | {"stopping_criteria": StoppingCriteriaList([blocked])}
            found = list(rows_of(model, prompts, watched, number))
            if "speculate" in how:
                watched.pop("speculate")
                assert found == list(rows_of(model, prompts, watched, number)), case
    except ValueError as error:
        refusal = str(error)
    assert "\n" not in refusal, case
    if refusal:
        possible = [is_possible(model, prompt, how) for prompt in prompts]
        assert not all(possible), (case, refusal, possible)
    for prompt, added in found:
        broken = bool(blocked.rows)
        assert not whats_wrong(turns_of(model, prompt), *texts_of_row(model, prompt, added), how, broken), case


def test_the_draws_pair_every_promise_with_every_partner_mode_and_prompt():
    pairs = Counter()
    for number in range(2000):
        kinds, family, _, _ = draw(number)
        others = [("mode", kinds["mode"]), ("family", family), *itertools.product(["partner"], kinds["partners"])]
        others += itertools.product(["prompt"], kinds["prompts"])
        pairs.update((kinds["promise"], other) for other in others)
        pairs.update(itertools.combinations(sorted(others), 2))
    wanted = [("mode", each) for each in MODES] + [("partner", each) for each in PARTNERS]
    wanted += [("family", each) for each in FAMILIES] + [("prompt", each) for each in KINDS_OF_PROMPTS]
    for other in wanted:
        assert all(pairs[promise, other] > 4 for promise in PROMISES), other
    for mode, partner in itertools.product(MODES, PARTNERS):
        assert pairs[("mode", mode), ("partner", partner)] > 4, (mode, partner)
