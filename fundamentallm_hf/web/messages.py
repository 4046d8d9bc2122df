"""The page's messages about a request: its status, and errors next to their fields."""

import hashlib
import json
from functools import cache
from pathlib import Path

from fundamentallm_hf.portable.controls.control_table import CONTROLS
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.settings.chat_messages import Messages

from .endpoints import sentence
from .escaping import escape
from .fields import with_field_names
from .limits import field_of

HERE = Path(__file__).parent
# After an error: the browser shows the text again that was there before.
RESTORE = '<p class="restore"></p>'
EMPTY = '<p class="empty">What the model writes appears here.</p>'


def status_html(text: str) -> str:
    """The status as the page shows it."""
    return f'<p role="status">{escape(text)}</p>'


def alert_html(text: str, field: str | None = None) -> str:
    """An error message; the browser repeats it next to its field."""
    about = f' data-field="{field}"' if field else ""
    return f'<p role="alert"{about}>{escape(text)}</p>'


def refusal_html(error: BaseException) -> tuple[str, str]:
    """The status, and one sentence next to its field and below the button."""
    name = field_of(error) if isinstance(error, UserError) else None
    alert = alert_html(with_field_names(sentence(error)), name)
    return status_html("Nothing new was written. This is the text from before."), alert


def start_html(what: str, model: str | None, can_chat: bool, chat: Messages | None = None) -> str:
    """What the page shows before its first text; the browser reads whether to write one.

    Args:
        what: "write" for a link, whose text is written; "open" where a text of an earlier visit is shown, if any.
        model: the operator's name for the model.
        can_chat: whether the model has a chat template.
        chat: the messages to answer, of a link to a chat.
    """
    data = {"start": what, "model": model or "", "version": page_version(), "can-chat": "yes" if can_chat else ""}
    data |= {"chat": json.dumps(chat)} if chat else {}
    listed = " ".join(f'data-{name}="{escape(value)}"' for name, value in data.items())
    return f'<p class="empty" {listed}>The first text comes …</p>'


@cache
def page_version() -> str:
    """Differs where this page shows texts differently, so that the browser uses no view of an older page."""
    files = sorted([*HERE.glob("*.py"), *HERE.glob("*.js")])
    labels = [control.label for control in CONTROLS.values()]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files) + repr(labels).encode()).hexdigest()[:12]
