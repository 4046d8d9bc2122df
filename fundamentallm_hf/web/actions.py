"""The actions of the page's buttons, as functions of the components on screen.

A function that generates or branches returns a value for every component that shows one: gradio would recreate an
    omitted component in the session, and keep the old one for as long as the session.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import gradio as gr

from fundamentallm_hf.generation.completion import Completion
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.settings.generation_settings import GenerationSettings

from . import beam_view, comparisons, export, text_view
from .endpoints import check_columns, programs_text, sentence
from .examples import EXAMPLES
from .fields import read_field, show_fields
from .limits import OPEN, read_prompt, read_settings
from .messages import EMPTY, alert_html, refusal_html, status_html
from .runner import Writer, Written

# Requests that may wait or run before further ones are rejected: about a minute's work.
WAITING = 24
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

    def run_write(self, request: gr.Request, prompt: Any, *values: Any) -> Iterator[list]:
        """Generate the texts and show them as they grow."""
        try:
            checked, settings = self._read(prompt, values)
            texts: list[Written] = []
            for texts in self.writer.write(checked, settings, _ticket(request)):
                yield [text_view.texts_html(texts), None, status_html(text_view.status_text(texts)), ""]
        except (ValueError, RuntimeError, MemoryError) as error:
            yield [EMPTY, None, *refusal_html(error)]
            return
        result = Result(checked, settings, tuple(texts))
        yield [text_view.texts_html(texts), result, status_html(text_view.status_text(texts)), ""]

    def show_result(self, request: gr.Request, result: Result | None) -> list:
        """Show the tokens of the texts, and how to reproduce them elsewhere; nothing where there are none."""
        if result is None:
            return [""] * 5
        asked = result.prompt, result.settings
        address = address_of(request)
        return [
            text_view.tokens_html(result.texts, result.settings),
            export.as_link(*asked, address),
            export.as_python(*asked, self.model),
            export.as_command(*asked, self.model),
            export.as_curl(*asked, address),
        ]

    def run_search(self, request: gr.Request, prompt: Any, *values: Any) -> list:
        """Search with beams and draw the tree."""
        try:
            checked, settings = self._read(prompt, values)
            if settings.beam_size == 1:
                settings = read_settings(
                    settings.replace(beam_size=comparisons.BEAMS, num_samples=1, best=None).to_dict()
                )
            written, branches = self.writer.search(checked, settings, _ticket(request))
        except (ValueError, RuntimeError, MemoryError) as error:
            return ["", *refusal_html(error)]
        return [beam_view.tree_html(checked, branches), status_html(text_view.status_text([written])), ""]

    def run_compare(
        self, request: gr.Request, kind: Any, temperatures: Any, prompt: Any, *values: Any
    ) -> Iterator[list]:
        """Generate the texts of a comparison."""
        try:
            checked, settings = self._read(prompt, values)
            if kind == "controls":
                columns = comparisons.without_each(settings)
            else:
                columns = comparisons.by_temperature(settings, comparisons.read_temperatures(str(temperatures)[:200]))
            titles = [each.title for each in columns]
            for texts in self.writer.compare(
                checked, [each.settings for each in check_columns(columns)], _ticket(request)
            ):
                shown = text_view.texts_html(texts, titles, common=True)
                yield [shown, status_html(text_view.status_text(texts)), ""]
        except (ValueError, RuntimeError, MemoryError) as error:
            yield ["", *refusal_html(error)]

    def show_example(self, index: int) -> list:
        """Fill the fields with an example."""
        example = EXAMPLES[index]
        return [example.prompt, *show_fields(example.settings), [], gr.update(visible=False)]

    def branch(self, result: Result | None, trail: list[str], counts_prompt: Any, event: gr.EventData) -> list:
        """The prompt that continues from another token: everything before it, and that token."""
        try:
            if result is None:
                raise UserError("there is no text to branch from: write one first")
            chosen = [getattr(result.settings, name) for name in ("pattern", "json_schema", "grammar")]
            if any(chosen):
                raise UserError(
                    "a text that matches a pattern, a schema or a grammar cannot be continued from its middle: "
                    "clear that setting to branch"
                )
            prompt = _branch(result, event._data)
        except UserError as error:
            raise gr.Error(sentence(error), print_exception=False) from None
        # Required words in the text before the branch count as included.
        included = True if result.settings.must_include else counts_prompt
        return [prompt, included, [*trail, result.prompt], gr.update(visible=True)]

    def go_back(self, trail: list[str]) -> list:
        """The prompt before the last branch."""
        if not trail:
            return [gr.skip(), [], gr.update(visible=False)]
        return [trail[-1], trail[:-1], gr.update(visible=len(trail) > 1)]

    def make_json(self, result: Result | None) -> str:
        """The text of the download."""
        if result is None:
            raise gr.Error("there is nothing to download yet: write a text first", print_exception=False)
        return export.as_json(result.completions, result.settings, self.model)

    def arrive(self, request: gr.Request) -> list:
        """Fill the fields with the values of the link."""
        told = programs_text(self.endpoints, address_of(request))
        try:
            prompt, values = export.read_link(dict(request.query_params))
            if prompt is None and not values:
                return [gr.skip()] * (1 + len(OPEN)) + [told, ""]
            read_settings({name: value for name, value in values.items() if value is not None})
        except ValueError as error:
            return [gr.skip()] * (1 + len(OPEN)) + [told, alert_html(f"The link cannot be followed: {sentence(error)}")]
        return [gr.skip() if prompt is None else prompt, *show_fields(values), told, ""]

    def _read(self, prompt: Any, values: tuple) -> tuple[str, GenerationSettings]:
        read = {name: read_field(OPEN[name], value) for name, value in zip(OPEN, values, strict=True)}
        return read_prompt(prompt), read_settings(read)


def _ticket(request: gr.Request) -> str:
    return str(request.session_hash or "")


def _branch(result: Result, data: Any) -> str:
    """The text up to a token, with an alternative in its place."""
    with suppress(TypeError, ValueError, KeyError, IndexError, AttributeError):
        sample, token, choice = (int(data[name]) for name in ("sample", "token", "choice"))
        if min(sample, token, choice) >= 0:
            completion = result.completions[sample]
            found = (completion.probabilities or ())[token]
            text = found.alternatives[choice].text
            if not text:
                raise UserError("cannot continue after the end of the text: choose another character")
            before = "".join(each.text for each in (completion.probabilities or ())[:token])
            return read_prompt(completion.prompt + before + text)
    raise UserError("there is no such position in the text: choose a character of it")
