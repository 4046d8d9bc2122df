"""Chats as prompts: the text that a tokenizer's chat template makes of messages."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from fundamentallm_hf.portable.errors import UsageError
from fundamentallm_hf.settings.chat_messages import Messages, Prompt, check_prompt, is_chat, started_reply, turns_of


class ChatPrompt(str):
    """What a model is given for a chat. Its special tokens are written out, so none is added when it is encoded.

    Attributes:
        messages: the chat that it was made of. If it ends with the start of a reply, so does the text.
    """

    messages: Messages

    def __new__(cls, text: str, messages: Messages) -> "ChatPrompt":
        self = super().__new__(cls, text)
        self.messages = messages
        return self

    def __deepcopy__(self, memo: Any) -> "ChatPrompt":
        return self

    def __getnewargs__(self) -> tuple[str, Messages]:  # type: ignore[override]
        return str(self), self.messages

    @property
    def reply(self) -> str:
        """The start of the reply, which the model continues; empty for a message that is to be answered."""
        return started_reply(self.messages) or ""


def own_part(prompt: str) -> str:
    """What belongs to the text that a model continues: the prompt; of a chat the start of the reply."""
    return prompt.reply if isinstance(prompt, ChatPrompt) else prompt


def as_prompt(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> str:
    """A prompt as a text: messages go through the tokenizer's chat template, and the start of a reply follows.

    Raises:
        UsageError: it is neither text nor a chat, there is no template, or it refuses the messages.
    """
    messages = check_prompt(prompt)
    if isinstance(messages, str):
        return prompt  # type: ignore[return-value]
    if not getattr(tokenizer, "chat_template", None):
        raise UsageError(
            "the model's tokenizer has no chat template, so it cannot answer a chat: give it the start of a text, or "
            "use a model that was trained on chats"
        )
    try:
        text = tokenizer.apply_chat_template(turns_of(messages), tokenize=False, add_generation_prompt=True)
    except (TemplateError, ValueError, ImportError) as error:
        raise UsageError(f"the model's chat template refuses the chat: {' '.join(str(error).split())}") from error
    return ChatPrompt(f"{text}{started_reply(messages) or ''}", messages)


def as_prompts(prompts: Prompt | Iterable[Prompt], tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """One prompt or several as texts, one after another: a list whose items are messages is one chat.

    Raises:
        UsageError: as in `as_prompt`.
    """
    one = isinstance(prompts, str | bytes | Mapping) or not isinstance(prompts, Iterable) or is_chat(prompts)
    return (as_prompt(each, tokenizer) for each in ([prompts] if one else prompts))  # type: ignore[arg-type]


def encode(prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The tokens of each prompt, with the special tokens that the tokenizer adds to what is no chat."""
    return [
        tokenizer(prompt, verbose=False, add_special_tokens=not isinstance(prompt, ChatPrompt)).input_ids
        for prompt in prompts
    ]
