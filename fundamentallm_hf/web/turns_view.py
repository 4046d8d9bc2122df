"""Shows what a text comes from: its prompt, or the messages of a chat that the text replies to."""

from fundamentallm_hf.generation.chat import ChatPrompt, own_part
from fundamentallm_hf.settings.chat_messages import turns_of

from .escaping import escape


def turns_html(prompt: str) -> str:
    """The messages before the reply, the latest in sight; nothing where there is no chat. `chat.js` shows the same."""
    if not isinstance(prompt, ChatPrompt):
        return ""
    turns = "".join(
        f'<div class="turn {escape(each["role"])}"><span class="role">{escape(each["role"])}</span>'
        f"<p>{escape(each['content'])}</p></div>"
        for each in turns_of(prompt.messages)
    )
    return f'<div class="turns" role="region" aria-label="The chat so far" tabindex="0"><div>{turns}</div></div>'


def given_html(prompt: str) -> str:
    """The part of a text that was given: the prompt, or the start of the reply."""
    return f'<span class="prompt">{escape(own_part(prompt))}</span>'
