"""Chats: messages through a tokenizer's template, and controls that are about the reply."""

import copy
import pickle
import random

import pytest
from text_matcher import violations
from tokenizers.processors import TemplateProcessing
from toy_tokenizers import FAMILIES, toy_model

from fundamentallm_hf import Generator
from fundamentallm_hf.generation.chat import ChatPrompt, as_prompt, encode
from fundamentallm_hf.portable.errors import UserError

TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}" + "{{ eos_token }}{% endfor %}assistant:"
)
ASKED = [{"role": "user", "content": "the big dog ran and ran"}]


def chat_generator(family, **settings):
    model = copy.copy(toy_model(family))
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = TEMPLATE
    return Generator(model, tokenizer, notice=lambda line: None, **{"max_tokens": 20, "seed": 1} | settings)


def test_a_chat_is_its_template_and_the_reply_a_text_by_itself():
    generator = chat_generator("byte_level")
    messages = [{"role": "system", "content": "Be kind."}, *ASKED]
    (completion,) = generator.complete(messages, max_tokens=5)
    assert completion.prompt == "system: Be kind.<|end|>user: the big dog ran and ran<|end|>assistant:"
    assert completion.text == completion.completion == generator.generate(messages, max_tokens=5)
    record = completion.to_dict()
    assert record["messages"] == messages
    assert "prompt" not in record


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_streamed_is_the_reply(family):
    generator = chat_generator(family, temperature=1.5)
    for seed in range(4):
        stream = generator.stream(ASKED, seed=seed)
        assert "".join(stream) == stream.result.completion
        assert stream.result.completion == generator.generate(ASKED, seed=seed)


def test_chats_and_texts_can_be_asked_for_together():
    generator = chat_generator("byte_level", max_tokens=4, temperature=0)
    both = generator.complete(["the cat", ASKED, ASKED])
    alone = [generator.complete(each)[0] for each in ("the cat", ASKED, ASKED)]
    assert [each.text for each in both] == [each.text for each in alone]
    assert [each.text for each in generator.complete(ASKED)] == [alone[1].text]
    assert generator.next_tokens(ASKED, top=1)[0].label


@pytest.mark.parametrize("family", FAMILIES)
def test_controls_are_about_the_reply(family):
    generator = chat_generator(family, max_tokens=40, temperature=1.5)
    dice = random.Random(family)
    for seed in range(6):
        banned = dice.sample(["the", "ran", "a", "*og", "big dog", "e", "and"], 2)
        reply = generator.generate(ASKED, seed=seed, bad_words=banned)
        assert not violations(reply, 0, banned), (banned, reply)
        # What the user said is not said by the model.
        reply = generator.generate(ASKED, seed=seed, must_include=["dog"])
        assert violations(reply, 0, ["dog"]), reply


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reply_that_is_started_is_continued_and_shown_whole(family):
    generator = chat_generator(family, temperature=1.5, max_tokens=12)
    for start in ("the cat", "the cat ", ""):
        chat = [*ASKED, {"role": "assistant", "content": start}]
        (completion,) = generator.complete(chat)
        assert completion.prompt == as_prompt(ASKED, generator.tokenizer) + start
        assert completion.text == start + completion.completion == generator.generate(chat)
        assert completion.to_dict()["messages"] == chat
        stream = generator.stream(chat)
        assert "".join(stream) == completion.completion


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pieces_of_a_streamed_reply_know_what_controls_did(family):
    generator = chat_generator(family, temperature=1.5, bad_words=["/[a-r]/"], max_tokens=20)
    found = 0
    for seed in range(2):
        stream = generator.stream(ASKED, seed=seed, probabilities=3)
        pieces = [(piece, piece.shifts, piece.probability) for piece in stream]
        tokens = stream.result.probabilities
        assert "".join(piece for piece, _, _ in pieces) == stream.result.completion
        seen = [shift for _, shifts, _ in pieces for _, shift, _ in shifts]
        # Bytes at the end that make no character are in no piece.
        assert seen == [shift for token in tokens for shift in token.shifts][: len(seen)]
        found += len(seen)
    assert found


def test_the_template_holds_all_special_tokens():
    tokenizer = copy.deepcopy(toy_model("llama").tokenizer)
    tokenizer.chat_template = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
    start = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", start)])
    chat = as_prompt(ASKED, tokenizer)
    assert encode(["the", chat], tokenizer)[0].count(start) == 1
    assert encode(["the", chat], tokenizer)[1].count(start) == 1


def test_a_copy_of_a_chat_is_one():
    chat = ChatPrompt("user: Hello", [{"role": "user", "content": "Hello"}])
    for made in (copy.deepcopy(chat), copy.copy(chat), pickle.loads(pickle.dumps(chat))):
        assert (made, made.messages) == (chat, chat.messages)
        assert isinstance(made, ChatPrompt)


@pytest.mark.parametrize(
    ("template", "expected"),
    [(None, "has no chat template"), ("{{ raise_exception('no\\nsystem') }}", "refuses the chat: no system")],
)
def test_a_model_that_cannot_answer_says_so_in_one_line(template, expected):
    generator = chat_generator("byte_level")
    generator.tokenizer.chat_template = template
    with pytest.raises(UserError, match=expected) as raised:
        generator.generate(ASKED)
    assert "\n" not in str(raised.value)


NO_PROMPTS = (None, 5, 2.5, {"a": 1}, {}, b"abc", [], ["Once"], [["a"]], ("a", "b"), object(), "\ud800", "a\udcff")


@pytest.mark.parametrize("asked", NO_PROMPTS, ids=repr)
def test_what_is_no_prompt_is_refused_in_one_line(asked):
    generator = chat_generator("characters", max_tokens=2)
    for method in ("generate", "stream", "next_tokens"):
        with pytest.raises(UserError, match=r"prompt has to be (UTF-8 )?text") as raised:
            getattr(generator, method)(asked)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("asked", [None, 5, {"a": 1}, b"abc", [None], [b"abc"], ["a", "\ud800"], [[]]], ids=repr)
def test_every_prompt_of_several_is_checked(asked):
    generator = chat_generator("characters", max_tokens=2)
    for method in ("complete", "iterate"):
        with pytest.raises(UserError, match=r"prompt has to be (UTF-8 )?text"):
            list(getattr(generator, method)(asked))


def test_one_text_is_one_prompt_wherever_several_may_be():
    generator = chat_generator("characters", max_tokens=2)
    for method in ("complete", "iterate"):
        assert len(list(getattr(generator, method)("the dog"))) == 1
    assert [each.prompt for each in generator.complete(each for each in ("the", "dog"))] == ["the", "dog"]
