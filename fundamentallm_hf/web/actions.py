"""The actions of the page's buttons, as functions of the components on screen.

A function that generates or branches returns a value for every component that shows one: gradio would recreate an
omitted component in the session, and keep the old one for as long as the session.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from fundamentallm_hf.generation.chat import ChatPrompt
from fundamentallm_hf.generation.completion import Completion
from fundamentallm_hf.generation.tree_file import parse_tree, tree_text
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.settings.generation_settings import GenerationSettings

from . import beam_view, comparisons, export, text_view
from .endpoints import LONGEST_SENTENCE, check_columns, programs_text, sentence
from .examples import PRESET, Example
from .fields import chips_html, read_field, settings_html, show_fields
from .highlights import find_required
from .limits import LIMITS, OPEN, parse_messages, read_prompt, read_settings
from .messages import RESTORE, alert_html, refusal_html, start_html, status_html
from .runner import Writer, Written

# Requests that may wait or run before further ones are rejected: about a minute's work.
WAITING = 24
# In place of the exports, where there is no text.
NO_EXPORTS = [""] * 4
# Characters of a file of texts.
LARGEST = 5_000_000
BUSY = f"The model is busy: {WAITING} requests are waiting already. Please try again in a minute."


@dataclass(frozen=True)
class Result:
    """The results on screen, kept for their visitor alone."""

    prompt: str
    settings: GenerationSettings
    texts: tuple[Written, ...]

    @property
    def completions(self) -> list[Completion]:
        """The texts, as the library returns them."""
        return [each.completion for each in self.texts if each.completion is not None]


def address_of(request: gr.Request) -> str:
    """The address of this page as its visitor sees it, also behind a proxy; without a slash at its end."""
    headers, asked = request.headers, request.request
    host = headers.get("x-forwarded-host", headers.get("host", "localhost")).split(",")[0].strip()
    scheme = headers.get("x-forwarded-proto", asked.url.scheme if asked else "http").split(",")[0].strip()
    path = ((asked.scope.get("root_path") if asked else "") or "").rstrip("/")
    return f"{scheme}://{host}{path}"


class Actions:
    """The actions of the buttons.

    Args:
        writer: does the computation.
        endpoints: by name; the page describes them.
        model: the operator's name for the model; None is the bundled one.
    """

    def __init__(self, writer: Writer, endpoints: Mapping[str, Callable], model: str | None = None) -> None:
        self.writer = writer
        self.endpoints = endpoints
        self.model = model

    def begin(self, request: gr.Request) -> None:
        """Register the request, so that it can be stopped while it waits."""
        if len(self.writer.stops) >= WAITING:
            raise gr.Error(BUSY, print_exception=False)
        self.writer.stops.open(_ticket(request))

    def leave(self, request: gr.Request) -> None:
        """End and forget the requests of a visitor."""
        ticket = _ticket(request)
        event = self.writer.stops.find(ticket)
        event.set()
        self.writer.stops.close(ticket, event)

    def stop_writing(self, request: gr.Request) -> None:
        """End the text at the next token; the text so far stays."""
        self.writer.stops.stop(_ticket(request))

    def run_write(self, request: gr.Request, prompt: Any, messages: Any, *values: Any) -> Iterator[list]:
        """Generate the texts and show them as they grow.

        Args:
            request: of the visitor.
            prompt: the start of a text.
            messages: those of a chat as JSON, in place of a prompt; "" for a text.
            values: of the fields.
        """
        try:
            checked, settings = self._read(prompt, messages, values)
            texts: list[Written] = []
            for texts in self.writer.write(checked, settings, _ticket(request)):
                if not all(each.completion for each in texts):  # what is finished is shown below, with its tokens
                    shown = text_view.texts_html(texts, settings=[settings] * len(texts))
                    yield [shown, None, self._status(texts), ""]
        except (ValueError, RuntimeError, MemoryError) as error:
            yield [f"{RESTORE}<!-- {secrets.token_hex(8)} -->", None, *refusal_html(error)]
            return
        result = Result(checked, settings, tuple(texts))
        yield [text_view.tokens_html(texts, settings), result, self._status(texts), ""]

    def _status(self, texts: Sequence[Written]) -> str:
        """The status, at the end with what the model could not read of the prompt."""
        status = text_view.status_text(texts)
        notice = self.writer.notice(texts[0].prompt) if all(each.completion for each in texts) else ""
        return status_html(f"{status} · {notice}" if notice else status)

    async def show_result(self, request: gr.Request, result: Result | None) -> list:
        """Show how to reproduce the texts elsewhere; nothing where there are none."""
        if result is None:
            return NO_EXPORTS
        return self._exports(result.prompt, result.settings, request)

    async def clear_message(self, result: Result | None, typed: str) -> Any:
        """Empty the field of a message that was answered, if nothing else was typed since."""
        if result is None or not isinstance(result.prompt, ChatPrompt):
            return gr.skip()
        return "" if result.prompt.messages[-1]["content"] == typed else gr.skip()

    def _exports(self, prompt: str, settings: GenerationSettings, request: gr.Request) -> list:
        address = address_of(request)
        exports = [
            export.as_link(prompt, settings, address),
            export.as_python(prompt, settings, self.model),
            export.as_command(prompt, settings, self.model),
            export.as_curl(prompt, settings, address),
        ]
        return [text.strip() for text in exports]

    def run_search(self, request: gr.Request, prompt: Any, messages: Any, *values: Any) -> Iterator[list]:
        """Search with beams; show the best one so far, and draw the tree at the end."""
        try:
            checked, settings = self._read(prompt, messages, values)
            if settings.beam_size == 1:
                settings = read_settings(
                    settings.replace(beam_size=comparisons.BEAMS, num_samples=1, best=None).to_dict()
                )
            for written, branches in self.writer.search(checked, settings, _ticket(request)):
                found = [written]
                shown = beam_view.tree_html(checked, branches) if branches else text_view.texts_html(found)
                yield [shown, self._status(found), ""]
        except (ValueError, RuntimeError, MemoryError) as error:
            yield ["", *refusal_html(error)]

    def run_compare(
        self, request: gr.Request, kind: Any, temperatures: Any, prompt: Any, messages: Any, *values: Any
    ) -> Iterator[list]:
        """Generate the texts of a comparison.

        Args:
            request: of the visitor.
            kind: "temperatures", "controls", or the name of a setting to compare with and without.
            temperatures: as they are typed.
            prompt, messages, values: as in `run_write`.
        """
        try:
            checked, settings = self._read(prompt, messages, values)
            if kind == "controls":
                columns = comparisons.without_each(settings)
            elif kind == "temperatures":
                columns = comparisons.by_temperature(settings, comparisons.read_temperatures(str(temperatures)[:200]))
            else:
                columns = comparisons.with_and_without(settings, str(kind))
            titles = [each.title for each in columns]
            each_settings = [each.settings for each in check_columns(columns)]
            for texts in self.writer.compare(checked, each_settings, _ticket(request)):
                shown = text_view.texts_html(texts, titles, common=True, settings=each_settings)
                yield [shown, self._status(texts), ""]
        except (ValueError, RuntimeError, MemoryError) as error:
            yield ["", *refusal_html(error)]

    def show_example(self, examples: Sequence[Example], index: int) -> list:
        """Fill the fields with an example, which is no chat. A preset leaves prompt, chat and controls as they are."""
        example = examples[index]
        if example.prompt is None:
            values = dict(zip(OPEN, show_fields(example.settings), strict=True))
            left = [gr.skip(), gr.skip()]
            return [*left, *(value if name in PRESET else gr.skip() for name, value in values.items())]
        return [False, example.prompt, *show_fields(example.settings)]

    def ask(
        self, pattern: Any, schema: Any, grammar: Any, required: Any, counts_prompt: Any, event: gr.EventData
    ) -> list:
        """The prompt, the messages of a chat as JSON, and the fields for a text that comes from another one on screen.

        Args:
            pattern, schema, grammar, required, counts_prompt: the values of these fields.
            event: `prompt` is the text to go on from, or `messages` are the chat to answer; `seed` and `settings` are
                those of the text, where they count.
        """
        data = _data(event)
        try:
            prompt, messages = data.get("prompt"), data.get("messages")
            chat = isinstance(self.writer.read_prompt(prompt, messages), ChatPrompt)
            given = ["", json.dumps(messages)] if chat else [prompt, ""]
            if (pattern or schema or grammar) and data.get("branches"):
                raise UserError(
                    "a text that matches a pattern, a schema or a grammar cannot be continued from its middle: "
                    "clear that setting to branch"
                )
            if isinstance(data.get("settings"), dict):
                return [*given, *_fields_of(data)]
        except (ValueError, TypeError) as error:
            raise gr.Error(sentence(error), print_exception=False) from None
        fields: dict[str, Any] = {name: gr.skip() for name in OPEN}
        if isinstance(data.get("seed"), int):
            fields["seed"] = str(data["seed"])
        if not chat and (data.get("branches") or data.get("continues")):
            fields["must_include_prompt"] = bool(required) or counts_prompt  # words before the branch count
        return [*given, *fields.values()]

    def show_moved(self, request: gr.Request, event: gr.EventData) -> list:
        """How to reproduce the text that the visitor went to, nothing for a text that was typed; and its status."""
        data = _data(event)
        status = status_html(str(data.get("facts", ""))[:LONGEST_SENTENCE])
        try:
            if not data.get("written"):
                return [*NO_EXPORTS, None, status]
            prompt = self.writer.read_prompt(data.get("prompt"), data.get("messages"))
            return [*self._exports(prompt, _settings_of(data), request), None, status]
        except (ValueError, TypeError, KeyError):
            return [*NO_EXPORTS, None, status]

    def fill_fields(self, event: gr.EventData) -> list:
        """The switch of the chat, the prompt, the system message and the fields of a text on screen.

        Without settings the fields get the page's defaults: for a text that was typed, and to start afresh. Of the
        switch, the prompt and the system message, what is None stays as it is.
        """
        data = _data(event)
        try:
            # A message may be as long as a chat.
            limits = replace(LIMITS, prompt=LIMITS.chat) if data.get("chat") else LIMITS
            given = [
                bool(data["chat"]) if self.writer.can_chat and data.get("chat") is not None else gr.skip(),
                *(
                    gr.skip() if data.get(name) is None else read_prompt(data[name], limits)
                    for name in ("prompt", "system")
                ),
            ]
            return [*given, *(show_fields({}) if data.get("settings") is None else _fields_of(data))]
        except (ValueError, TypeError) as error:
            raise gr.Error(sentence(error), print_exception=False) from None

    def open_texts(self, event: gr.EventData) -> str:
        """The texts of a file, checked, in the form that the browser keeps."""
        data = _data(event)
        text, what = str(data.get("text", "")), f"the file {str(data.get('name'))[:80]!r}"
        try:
            if len(text) > LARGEST:
                raise UserError(f"{what} has to have at most {LARGEST} characters here but has {len(text)}")
            saved = parse_tree(text, what)
            for node in saved.tree:
                if node.seed is not None and node.seed > LIMITS.seed:
                    raise UserError(
                        f"{what}: the seed of text {node.id} is {node.seed}, but here {LIMITS.seed} is the highest"
                    )
            return tree_text(saved)
        except UserError as error:
            raise gr.Error(sentence(error), print_exception=False) from None

    def show_chips(self, *values: Any) -> str:
        """The fields that differ from the defaults of the page, with buttons that take them back, and the settings."""
        shown = dict(zip(OPEN, values, strict=True))
        return chips_html(shown) + settings_html(shown)

    def remove_chip(self, event: gr.EventData) -> list:
        """The page's default in one field."""
        name = _data(event).get("name")
        defaults = dict(zip(OPEN, show_fields({}), strict=True))
        return [defaults[each] if each == name else gr.skip() for each in OPEN]

    def leave_out(self, event: gr.EventData) -> list:
        """The setting to compare with and without, the tab that shows both, and there what is compared."""
        name = str(_data(event).get("name"))
        label = OPEN[name].label if name in OPEN else name
        kinds = [*comparisons.KINDS, (f"with and without {label}", name)]
        return [name, gr.Tabs(selected="compare"), gr.Radio(kinds, value=name)]

    def make_json(self, result: Result | None) -> str:
        """The text of the download."""
        if result is None:
            raise gr.Error("there is nothing to download yet: write a text first", print_exception=False)
        return export.as_json(result.completions, result.settings, self.model)

    def arrive(self, request: gr.Request) -> list:
        """Fill the fields with the values of the link."""
        told, can_chat = programs_text(self.endpoints, address_of(request)), self.writer.can_chat
        try:
            prompt, values = export.read_link(dict(request.query_params))
            if prompt is None and not values:
                start = start_html("open", self.model, can_chat)
                return [gr.skip()] * (2 + len(OPEN)) + [told, "", start]
            read_settings({name: value for name, value in values.items() if value is not None})
            messages = prompt if isinstance(prompt, list) else None
            self.writer.read_prompt("", messages)
        except ValueError as error:
            alert = alert_html(f"The link cannot be followed: {sentence(error)}")
            return [gr.skip()] * (2 + len(OPEN)) + [told, alert, gr.skip()]
        return [
            False if isinstance(prompt, str) else gr.skip(),
            prompt if isinstance(prompt, str) else gr.skip(),
            *show_fields(values),
            told,
            "",
            start_html("write", self.model, can_chat, messages),
        ]

    def _read(self, prompt: Any, messages: Any, values: tuple) -> tuple[str, GenerationSettings]:
        read = {name: read_field(OPEN[name], value) for name, value in zip(OPEN, values, strict=True)}
        settings = read_settings(read)
        checked = self.writer.read_prompt(prompt, parse_messages(messages) if messages else None)
        if isinstance(checked, ChatPrompt):
            settings = settings.replace(must_include_prompt=False, must_include=_missing(checked.reply, settings))
        return checked, settings


def _missing(reply: str, settings: GenerationSettings) -> tuple[str, ...]:
    """The required words that are not in the start of a reply."""
    found = {mark.entry for mark in find_required(reply, 0, settings.must_include, settings.case_sensitive)}
    return tuple(entry for entry in settings.must_include if entry not in found)


def _data(event: gr.EventData) -> dict[str, Any]:
    """What the browser sent with an event; any program may send something else than a dict."""
    return event._data if isinstance(event._data, dict) else {}


def _fields_of(data: dict[str, Any]) -> list[Any]:
    """The values of all fields for a text of the browser."""
    settings = _settings_of(data)
    return show_fields({name: getattr(settings, name) for name in OPEN} | {"seed": data.get("seed")})


def _settings_of(data: dict) -> GenerationSettings:
    """The settings and the seed of a text of the browser, checked."""
    given = {name: value for name, value in dict(data["settings"]).items() if name in OPEN}
    return read_settings(given | {"seed": data.get("seed")})


def _ticket(request: gr.Request) -> str:
    return str(request.session_hash or "")
