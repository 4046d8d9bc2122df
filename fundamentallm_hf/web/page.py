"""The page: prompt and settings on one side, what came of them on the other.

What a button does is here; how a thing looks is in `style.css`, and what happens in the browser alone in `script.js`.
This file knows nothing of how texts are written or how they become HTML.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from fundamentallm_hf.generation.completion import Completion
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.settings.generation_settings import GenerationSettings

from . import beam_view, comparisons, export, text_view
from .endpoints import attribute_list, check_columns, make_endpoints, sentence
from .examples import EXAMPLES
from .fields import ESSENTIAL, groups, make_field, read_field, show_fields
from .guide import programs_text
from .limits import OPEN, field_of, read_prompt, read_settings
from .runner import Writer, Written

HERE = Path(__file__).parent
TITLE = "FundamentaLLM-HF: see what every control does"
# Requests that wait or run before others are told to come back: about a minute's work.
WAITING = 24
MODEL_QUEUE = {"concurrency_id": "model", "concurrency_limit": 1}
BUSY = f"The model is busy: {WAITING} requests are waiting already. Please try again in a minute."
BEAMS = 4
PROMPT_HELP = "How the text begins."
INTRO = """# See what every control does
A small language model writes one character at a time. Set a control, write, and look at what it changed: which
characters were likely, what was taken away, and how the text goes on from another choice."""


@dataclass(frozen=True)
class Result:
    """What is on screen, kept for its visitor alone."""

    prompt: str
    settings: GenerationSettings
    texts: tuple[Written, ...]

    @property
    def completions(self) -> list[Completion]:
        """The texts, as the library returns them."""
        return [each.completion for each in self.texts if each.completion is not None]


def address_of(request: gr.Request) -> str:
    """The address of this page as its visitor knows it, also behind a proxy; no slash at its end."""
    headers, asked = request.headers, request.request
    host = headers.get("x-forwarded-host", headers.get("host", "localhost")).split(",")[0].strip()
    scheme = headers.get("x-forwarded-proto", asked.url.scheme if asked else "http").split(",")[0].strip()
    path = ((asked.scope.get("root_path") if asked else "") or "").rstrip("/")
    return f"{scheme}://{host}{path}"


class Page:
    """Builds the page and holds what its buttons do.

    Args:
        writer: computes.
        model: what the operator calls the model; None is the bundled one.
    """

    def __init__(self, writer: Writer, model: str | None = None) -> None:
        self.writer = writer
        self.model = model
        self.endpoints = make_endpoints(writer)

    def build(self) -> gr.Blocks:
        """The page, ready to be launched."""
        with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as blocks:
            self.result = gr.State(None, time_to_live=3600)
            self.trail = gr.State([], time_to_live=3600)
            gr.Markdown(INTRO, elem_id="intro")
            # In this order on a phone; the answer stands beside the other two where there is room.
            with gr.Row(elem_id="desk"):
                with gr.Column(min_width=280, elem_id="asked"):
                    self._build_inputs()
                with gr.Column(min_width=280, elem_id="answer"):
                    self._build_outputs()
                with gr.Column(min_width=280, elem_id="settings"):
                    self._build_settings()
            self._connect(blocks)
            for name, function in self.endpoints.items():
                queue = {} if name == "attributes" else MODEL_QUEUE
                gr.api(function, api_name=name, **queue)
        return blocks

    # What stands where.

    def _build_inputs(self) -> None:
        self.prompt = gr.Textbox(
            "Once upon a time",
            label="prompt",
            info=PROMPT_HELP,
            lines=3,
            max_lines=8,
            elem_id="field-prompt",
        )
        self.examples = gr.Dataset(
            components=[gr.Textbox(visible=False)],
            samples=[[each.name] for each in EXAMPLES],
            type="index",
            label="Examples, one for each control",
            layout="gallery",
            samples_per_page=len(EXAMPLES),
            elem_id="examples",
        )
        with gr.Row(elem_id="actions"):
            self.write = gr.Button("Write", variant="primary", elem_id="write", scale=3, min_width=150)
            self.stop = gr.Button("Stop", interactive=False, elem_id="stop", scale=1, min_width=90)
        self.alert = gr.HTML("", elem_id="alert", js_on_load=_MARK)

    def _build_settings(self) -> None:
        attributes = [each["name"] for each in attribute_list(self.writer)]
        fields: dict[str, Any] = {}

        def place(*names: str) -> None:
            with gr.Row():
                for name in names:
                    fields[name] = make_field(OPEN[name], attributes)

        place("temperature")
        place("top_p")
        place("max_tokens", "num_samples")
        with gr.Row(equal_height=True, elem_id="seed-row"):
            fields["seed"] = make_field(OPEN["seed"], attributes)
            self.die = gr.Button("⚄ another seed", elem_id="die", size="sm", min_width=120)
        place("bad_words")
        place("must_include")
        place("guide_attribute")
        place("guide_strength")
        for group, names in groups().items():
            with gr.Accordion(f"More: {group}", open=False):
                for name in names:
                    fields[name] = make_field(OPEN[name], attributes)
        assert set(fields) == set(OPEN)
        assert set(ESSENTIAL) <= set(fields)
        self.fields = {name: fields[name] for name in OPEN}

    def _build_outputs(self) -> None:
        self.status = gr.HTML(_status("Nothing written yet."), elem_id="status")
        self.back = gr.Button("↩ Back to the prompt before the branch", visible=False, size="sm", elem_id="back")
        with gr.Tabs(elem_id="views"):
            with gr.Tab("Write", id="write"):
                self.texts = gr.HTML(_EMPTY, elem_id="texts")
            with gr.Tab("See", id="see"):
                gr.Markdown("Choose a character to see what it was chosen from, and to go on from another choice.")
                script = (HERE / "script.js").read_text(encoding="utf-8")
                self.tokens = gr.HTML("", elem_id="tokens", js_on_load=script)
            with gr.Tab("Beams", id="beams"):
                gr.Markdown(
                    "Beam search keeps several candidates and returns the likeliest. With a beam-size of 1, "
                    f"{BEAMS} beams are searched here; at temperature 0 nothing is left to chance."
                )
                self.search = gr.Button("Search with beams", elem_id="search")
                self.tree = gr.HTML("", elem_id="tree")
            with gr.Tab("Compare", id="compare"):
                gr.Markdown(
                    "The same prompt and the same seed, side by side. What a text shares with the first is paler."
                )
                with gr.Row():
                    self.kind = gr.Radio(
                        [("temperatures", "temperatures"), ("with and without each control", "controls")],
                        value="temperatures",
                        label="what to compare",
                        elem_id="compare-kind",
                    )
                    self.temperatures = gr.Textbox(
                        ", ".join(f"{each:g}" for each in comparisons.TEMPERATURES),
                        label="temperatures",
                        max_length=100,
                        elem_id="field-temperatures",
                    )
                self.compare = gr.Button("Compare", elem_id="compare")
                self.columns = gr.HTML("", elem_id="columns")
            with gr.Tab("Take away", id="take"):
                gr.Markdown("Each of these writes what is on screen again, to the letter.")
                self.link = gr.Textbox(
                    label="A link to these settings", interactive=False, buttons=["copy"], elem_id="link", lines=1
                )
                code: dict[str, Any] = {
                    "interactive": False,
                    "buttons": ["copy"],
                    "wrap_lines": True,
                    "language": None,
                    "show_line_numbers": False,
                }
                self.python = gr.Code(label="Copy as Python", elem_id="as-python", **code)
                self.command = gr.Code(label="Copy as command", elem_id="as-command", **code)
                self.curl = gr.Code(label="Copy as curl", elem_id="as-curl", **code)
                self.download = gr.Button("Download as JSON", elem_id="download")
                self.json = gr.Textbox(visible="hidden", elem_id="json", label="JSON")
            with gr.Tab("For programs", id="programs"):
                self.programs = gr.Markdown(programs_text(self.endpoints, "http://localhost:7860"), elem_id="programs")

    # What leads to what.

    def _connect(self, blocks: gr.Blocks) -> None:
        hidden: dict[str, Any] = {"api_visibility": "private"}
        now: dict[str, Any] = hidden | {"queue": False, "show_progress": "hidden"}
        # What may refuse goes through the queue, without waiting in it: only there gradio shows an error.
        checked: dict[str, Any] = hidden | {"concurrency_limit": None, "show_progress": "hidden"}
        model: dict[str, Any] = hidden | MODEL_QUEUE | {"show_progress": "minimal"}
        asked = [self.prompt, *self.fields.values()]
        told = [self.status, self.alert]
        began = [*told, self.write, self.stop, self.search, self.compare]
        seen = [self.tokens, self.link, self.python, self.command, self.curl]

        def run(trigger: Any, function: Callable, inputs: list, outputs: list) -> Any:
            begun = trigger(self.begin, None, began, **checked)
            return begun.success(function, inputs, [*outputs, *told], **model)

        def write(trigger: Any) -> None:
            written = run(trigger, self.run_write, asked, [self.texts, self.result])
            end(written.then(self.show_result, [self.result], seen, **now))

        def end(done: Any) -> None:
            done.then(self.end, None, [self.write, self.stop, self.search, self.compare], **now)

        write(partial(gr.on, [self.write.click, self.prompt.submit]))
        end(run(self.search.click, self.run_search, asked, [self.tree]))
        end(run(self.compare.click, self.run_compare, [self.kind, self.temperatures, *asked], [self.columns]))
        shown = self.examples.click(self.show_example, [self.examples], [*asked, self.trail, self.back], **now)
        write(shown.success)
        branched = self.tokens.branch(
            self.branch,
            [self.result, self.trail, self.fields["must_include_prompt"]],
            [self.prompt, self.fields["must_include_prompt"], self.trail, self.back],
            **checked,
        )
        write(branched.success)
        self.back.click(self.go_back, [self.trail], [self.prompt, self.trail, self.back], **now)
        self.stop.click(self.stop_writing, None, None, **now)
        self.die.click(lambda: str(secrets.randbelow(10_000)), None, [self.fields["seed"]], **now)
        loaded = self.download.click(self.make_json, [self.result], [self.json], **checked)
        loaded.success(None, [self.json], None, js=_DOWNLOAD, **now)
        blocks.load(self.arrive, None, [*asked, self.programs, self.alert], **now)
        blocks.unload(self.leave)

    # What the buttons do. Where one writes or branches, all that shows a value gets one: what is left out, gradio makes
    # anew in the session, and the old one stays there for as long as the session.

    def begin(self, request: gr.Request) -> dict:
        """Make the request known, so that it can be stopped while it waits."""
        if len(self.writer.stops) >= WAITING:
            raise gr.Error(BUSY, print_exception=False)
        self.writer.stops.open(_ticket(request))
        off = gr.update(interactive=False)
        return {
            self.alert: "",
            self.status: _status("waiting…"),
            self.write: off,
            self.search: off,
            self.compare: off,
            self.stop: gr.update(interactive=True),
        }

    def end(self, request: gr.Request) -> list:
        """Let the visitor ask again, however it went."""
        self.leave(request)
        on = gr.update(interactive=True)
        return [on, gr.update(interactive=False), on, on]

    def leave(self, request: gr.Request) -> None:
        """End and forget what a visitor has asked for."""
        ticket = _ticket(request)
        event = self.writer.stops.find(ticket)
        event.set()
        self.writer.stops.close(ticket, event)

    def stop_writing(self, request: gr.Request) -> None:
        """End the text at the next token; what is there stays."""
        self.writer.stops.stop(_ticket(request))

    def run_write(self, request: gr.Request, prompt: Any, *values: Any) -> Iterator[list]:
        """Write the texts and show them as they grow."""
        try:
            checked, settings = self._read(prompt, values)
            texts: list[Written] = []
            for texts in self.writer.write(checked, settings, _ticket(request)):
                yield [text_view.texts_html(texts), None, _status(text_view.status_text(texts)), ""]
        except (ValueError, RuntimeError, MemoryError) as error:
            yield [_EMPTY, None, *_refusal(error)]
            return
        result = Result(checked, settings, tuple(texts))
        yield [text_view.texts_html(texts), result, _status(text_view.status_text(texts)), ""]

    def show_result(self, request: gr.Request, result: Result | None) -> list:
        """Show the tokens of the texts, and how to have the same elsewhere; nothing where there are none."""
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
                settings = read_settings(settings.but(beam_size=BEAMS, num_samples=1, best=None).to_dict())
            written, branches = self.writer.search(checked, settings, _ticket(request))
        except (ValueError, RuntimeError, MemoryError) as error:
            return ["", *_refusal(error)]
        return [beam_view.tree_html(checked, branches), _status(text_view.status_text([written])), ""]

    def run_compare(
        self, request: gr.Request, kind: Any, temperatures: Any, prompt: Any, *values: Any
    ) -> Iterator[list]:
        """Write the texts of a comparison."""
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
                yield [shown, _status(text_view.status_text(texts)), ""]
        except (ValueError, RuntimeError, MemoryError) as error:
            yield ["", *_refusal(error)]

    def show_example(self, index: int) -> list:
        """Fill the fields with an example."""
        example = EXAMPLES[index]
        return [example.prompt, *show_fields(example.settings), [], gr.update(visible=False)]

    def branch(self, result: Result | None, trail: list[str], counts_prompt: Any, event: gr.EventData) -> list:
        """The prompt that goes on from another choice: everything before it, and the choice."""
        try:
            if result is None:
                raise UserError("there is no text to branch from: write one first")
            chosen = [getattr(result.settings, name) for name in ("pattern", "json_schema", "grammar")]
            if any(chosen):
                raise UserError(
                    "a text that matches a pattern, a schema or a grammar as a whole cannot be begun in its middle: "
                    "take that setting away to branch"
                )
            prompt = _branch(result, event._data)
        except UserError as error:
            raise gr.Error(sentence(error), print_exception=False) from None
        # What the text before the branch holds of the required words is there already.
        included = True if result.settings.must_include else counts_prompt
        return [prompt, included, [*trail, result.prompt], gr.update(visible=True)]

    def go_back(self, trail: list[str]) -> list:
        """The prompt before the last branch."""
        if not trail:
            return [gr.skip(), [], gr.update(visible=False)]
        return [trail[-1], trail[:-1], gr.update(visible=len(trail) > 1)]

    def make_json(self, result: Result | None) -> str:
        """What is downloaded."""
        if result is None:
            raise gr.Error("there is nothing to download yet: write a text first", print_exception=False)
        return export.as_json(result.completions, result.settings, self.model)

    def arrive(self, request: gr.Request) -> list:
        """Fill the fields with what the link says."""
        told = programs_text(self.endpoints, address_of(request))
        try:
            prompt, values = export.read_link(dict(request.query_params))
            if prompt is None and not values:
                return [gr.skip()] * (1 + len(OPEN)) + [told, ""]
            read_settings({name: value for name, value in values.items() if value is not None})
        except ValueError as error:
            return [gr.skip()] * (1 + len(OPEN)) + [told, _alert(f"The link cannot be followed: {sentence(error)}")]
        return [gr.skip() if prompt is None else prompt, *show_fields(values), told, ""]

    def _read(self, prompt: Any, values: tuple) -> tuple[str, GenerationSettings]:
        read = {name: read_field(OPEN[name], value) for name, value in zip(OPEN, values, strict=True)}
        return read_prompt(prompt), read_settings(read)


_EMPTY = '<p class="empty">What the model writes appears here.</p>'
# Done in the browser: gradio would make all fields anew for every request that may change one of them.
_MARK = """watch("value", () => {
  for (const field of document.querySelectorAll(".wrong")) {
    field.classList.remove("wrong");
    for (const said of field.querySelectorAll(".said")) said.remove();
  }
  const told = element.querySelector("[data-field]");
  const field = told && document.getElementById("field-" + told.dataset.field);
  if (!field) return;
  const said = document.createElement("p");
  said.className = "said";
  said.textContent = told.textContent;
  field.classList.add("wrong");
  field.append(said);
});"""
# A file is made in the browser, so that none lies on the server.
_DOWNLOAD = """(text) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "application/json"}));
  link.download = "fundamentallm.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""


def _ticket(request: gr.Request) -> str:
    return str(request.session_hash or "")


def _status(text: str) -> str:
    return f'<p role="status">{text_view.escape(text)}</p>'


def _alert(text: str, field: str | None = None) -> str:
    """A sentence; the browser repeats it beside the field that it is about."""
    about = f' data-field="{field}"' if field else ""
    return f'<p role="alert"{about}>{text_view.escape(text)}</p>'


def _refusal(error: BaseException) -> tuple[str, str]:
    """The status, and one sentence beside the field that it is about and below the button."""
    name = field_of(error) if isinstance(error, UserError) else None
    return _status("Nothing was written."), _alert(sentence(error), name)


def _branch(result: Result, data: Any) -> str:
    """The text up to a token, with an alternative in its place."""
    with suppress(TypeError, ValueError, KeyError, IndexError, AttributeError):
        sample, token, choice = (int(data[name]) for name in ("sample", "token", "choice"))
        if min(sample, token, choice) >= 0:
            completion = result.completions[sample]
            found = (completion.probabilities or ())[token]
            text = found.alternatives[choice].text
            if not text:
                raise UserError("a text cannot go on behind its own end: choose another character")
            before = "".join(each.text for each in (completion.probabilities or ())[:token])
            return read_prompt(completion.prompt + before + text)
    raise UserError("there is no such place in the text: choose a character of it")
