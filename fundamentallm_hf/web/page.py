"""The page of the web demo: combines its panels, and connects them with their actions."""

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

import gradio as gr

from .actions import WAITING, Actions
from .endpoints import Endpoints, attribute_list
from .examples import EXAMPLES, PRESETS
from .fields import names_of, show_chat_fields
from .messages import status_html
from .panels import JUMP, JUMPS, PromptPanel, ResultPanel, SettingsPanel, script
from .runner import Writer

TITLE = "FundamentaLLM-HF: write with a language model"
# The batcher has a queue of its own, which shows a place in it; gradio lets everybody through who was not rejected.
MODEL_QUEUE = {"concurrency_id": "model", "concurrency_limit": WAITING + 8}
# The functions that run for every text read and check the values of the browser themselves, and return what it shows.
# gradio would have a thread convert each value of each update, one after the other.
UNCONVERTED = {"preprocess": False, "postprocess": False}
# Only the browser knows the chat on screen: desk.js answers with its messages and the typed one, or "" for a text.
ASK = """(message, chat, system) => {
  const detail = {message, system, messages: "", orLast: %s, writes: %s};
  const asked = new CustomEvent("fundamentallm-message", {detail});
  if (chat) document.dispatchEvent(asked);
  return asked.detail.messages;
}"""
ASK_TYPED = ASK % ("false", "true")
# Where nothing is typed, a preset, a comparison or a search is about the last message.
ASK_OR_LAST, LOOK_AT_LAST = ASK % ("true", "true"), ASK % ("true", "false")
# Which of Write, Stop, Search and Compare can be pressed while a text is written, and otherwise. The browser does it:
# on the server gradio would make each button anew, which takes longer than everything else about an event.
_ENABLE = "() => [%s].map(interactive => ({__type__: 'update', interactive}))"
WRITING, READY = _ENABLE % "false, true, false, false", _ENABLE % "true, false, true, true"
INTRO = """# A language model writes, you steer
{who} Choose a {part} to see what else could stand there.

Ban or require words, and press *{button}*. *Export* has the text as Python."""
WHO = "A small model of children's stories writes here."


class Page:
    """Builds the page.

    Args:
        writer: does the computation.
        model: the operator's name for the model; None is the bundled one.
    """

    def __init__(self, writer: Writer, model: str | None = None) -> None:
        self.writer = writer
        self.endpoints = Endpoints(writer).by_name()
        self.actions = Actions(writer, self.endpoints, model)

    def build(self) -> gr.Blocks:
        """The page, ready to be launched."""
        with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as blocks:
            self.result = gr.State(None, time_to_live=3600)
            bundled = self.actions.model is None
            typed, button = names_of(self.writer.can_chat)
            who, part = (WHO, "letter") if bundled else ("", "part of the text")
            gr.Markdown(INTRO.format(who=who, part=part, button=button), elem_id="intro")
            gr.HTML(JUMP.format(typed=typed.capitalize()), elem_id="jump", padding=False, js_on_load=JUMPS)
            # The order of the Tab key: what is filled in, then what is written. On a phone the text is shown first.
            with gr.Row(elem_id="desk"):
                with gr.Column(min_width=280, elem_id="asked"):
                    self.start = PromptPanel(self.writer.can_chat)
                with gr.Column(min_width=280, elem_id="settings"):
                    self.settings = SettingsPanel([each["name"] for each in attribute_list(self.writer)])
                with gr.Column(min_width=280, elem_id="answer"):
                    self.shown = ResultPanel(self.endpoints, self.writer.can_chat)
            self._connect(blocks)
            for name, function in self.endpoints.items():
                queue = {} if name == "attributes" else MODEL_QUEUE
                gr.api(function, api_name=name, **queue)
        return blocks

    def _connect(self, blocks: gr.Blocks) -> None:
        """Connect the buttons with their actions and components."""
        hidden: dict[str, Any] = {"api_visibility": "private"}
        self.now: dict[str, Any] = hidden | {"queue": False, "show_progress": "hidden"}
        # Functions that may raise an error go through the queue, without waiting in it: only there gradio shows errors.
        self.checked: dict[str, Any] = hidden | {"concurrency_limit": None, "show_progress": "hidden"}
        self.queued: dict[str, Any] = hidden | MODEL_QUEUE | UNCONVERTED | {"show_progress": "minimal"}
        start, shown, actions, now = self.start, self.shown, self.actions, self.now
        self.request = [start.prompt, start.messages, *self.settings.fields.values()]
        self.buttons = [start.write, start.stop, shown.search, shown.compare]
        self.filled = [start.chat, start.prompt, *self.settings.fields.values()]
        self._connect_model()
        self._connect_branches()
        start.chat.change(show_chat_fields, [start.chat], [start.prompt, start.write, start.system], **now)
        start.stop.click(actions.stop_writing, None, None, **now)
        fields = self.settings.fields
        self.settings.die.click(lambda: str(secrets.randbelow(10_000)), None, [fields["seed"]], **now)
        loaded = shown.download.click(actions.make_json, [self.result], [shown.json], **self.checked)
        loaded.success(None, [shown.json], None, js=script("download.js"), **now)
        for (label, copy), text in zip(shown.copies, shown.exports, strict=True):
            copied = copy.click(None, [text], [copy], js=script("copy.js"), **now)
            copied.then(
                None, None, [copy], js=f"() => new Promise(done => setTimeout(() => done('{label}'), 1500))", **now
            )
        blocks.load(actions.arrive, None, [*self.filled, shown.programs, start.alert, shown.texts], **now)
        blocks.unload(actions.leave)
        self._connect_chips()

    def _connect_model(self) -> None:
        """The buttons that compute."""
        start, shown, actions = self.start, self.shown, self.actions
        # Enter writes in every field of one line.
        lines = [each for each in self.settings.fields.values() if isinstance(each, gr.Textbox) and each.lines == 1]
        entered = [each.submit for each in (start.prompt, *lines)]
        self._connect_write(partial(gr.on, [start.write.click, *entered]))
        self._finally(self._compute(shown.search.click, actions.run_search, self.request, [shown.beams]))
        compared = [shown.kind, shown.temperatures, *self.request]
        self._finally(self._compute(shown.compare.click, actions.run_compare, compared, [shown.columns]))

    def _connect_branches(self) -> None:
        """The parts that fill the fields, and the texts that the browser asks for."""
        start, shown, actions = self.start, self.shown, self.actions
        for gallery, examples, ask in ((start.presets, PRESETS, ASK_OR_LAST), (start.examples, EXAMPLES, ASK_TYPED)):
            show = partial(actions.show_example, examples)
            self._connect_write(gallery.click(show, [gallery], self.filled, **self.now).success, ask=ask)
        self._connect_write(shown.texts.first)
        fields = self.settings.fields
        read = ("pattern", "json_schema", "grammar", "must_include", "must_include_prompt")
        filled = [shown.asked, start.messages, *fields.values()]
        asked = shown.texts.ask(actions.ask, [fields[name] for name in read], filled, **self.checked)
        self._connect_write(asked.success, shown.asked)
        shown.texts.moved(actions.show_moved, None, [*shown.exports, self.result, shown.status], **self.now)
        read_from = [start.chat, start.prompt, start.system, *fields.values()]
        shown.texts.filled(actions.fill_fields, None, read_from, **self.checked)
        opened = shown.texts.opened(actions.open_texts, None, [shown.opened], **self.checked)
        arrived = "(text) => document.dispatchEvent(new CustomEvent('fundamentallm-texts', {detail: text}))"
        opened.success(None, [shown.opened], None, js=arrived, **self.now)

    def _connect_chips(self) -> None:
        """What differs from the page's defaults, above the fields; each can be taken back."""
        fields = list(self.settings.fields.values())
        chips = self.settings.chips
        events = [each.change for each in fields]
        gr.on(events, self.actions.show_chips, fields, [chips], trigger_mode="always_last", **UNCONVERTED, **self.now)
        chips.remove(self.actions.remove_chip, None, fields, **self.now)
        shown, actions = self.shown, self.actions
        left_out = chips.compare(actions.leave_out, None, [shown.left_out, shown.tabs, shown.kind], **self.checked)
        compared = [shown.left_out, shown.temperatures, *self.request]
        self._finally(self._compute(left_out.success, actions.run_compare, compared, [shown.columns]))

    def _connect_write(self, trigger: Any, prompt: gr.Textbox | None = None, ask: str = ASK_TYPED) -> None:
        """Write a text when it is triggered.

        Args:
            trigger: of an event.
            prompt: holds what the browser asked to continue, with the messages of a chat; None for what is typed.
            ask: as in `_compute`, for what is typed.
        """
        start, shown, actions = self.start, self.shown, self.actions
        inputs = [prompt or start.prompt, start.messages, *self.settings.fields.values()]
        outputs = [shown.texts, self.result]
        written = self._compute(trigger, actions.run_write, inputs, outputs, ask if prompt is None else None)
        written = written.then(actions.show_result, [self.result], shown.exports, **UNCONVERTED, **self.now)
        if prompt is None:
            written = written.then(actions.clear_message, [self.result, start.prompt], [start.prompt], **self.now)
        self._finally(written)

    def _compute(
        self, trigger: Any, function: Callable, inputs: list, outputs: list, ask: str | None = LOOK_AT_LAST
    ) -> Any:
        """Run `function` when it is its turn, with the buttons disabled meanwhile.

        Args:
            trigger: of an event.
            function, inputs, outputs: what runs.
            ask: fills in the messages of a chat, where what is typed is its next one; None where they are known.
        """
        start, shown = self.start, self.shown
        messages = [shown.status, start.alert]
        begun = trigger(self.begin, None, messages, **UNCONVERTED, **self.checked)
        begun = begun.success(None, None, self.buttons, js=WRITING, **self.now)
        if ask is not None:
            begun = begun.success(None, [start.prompt, start.chat, start.system], [start.messages], js=ask, **self.now)
        return begun.success(function, inputs, [*outputs, *messages], **self.queued)

    def _finally(self, done: Any) -> None:
        """End the request, and enable the buttons again, whatever the result."""
        done.then(self.end, None, None, **self.now).then(None, None, self.buttons, js=READY, **self.now)

    # A function that only waits for others is `async`: any other is handed over to a thread.

    async def begin(self, request: gr.Request) -> list[str]:
        """Register the request. Returns the status and no alert."""
        self.actions.begin(request)
        return [status_html("waiting…"), ""]

    async def end(self, request: gr.Request) -> None:
        """Forget the request."""
        self.actions.leave(request)
