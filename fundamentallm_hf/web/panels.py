"""The panels of the page: its fields, buttons and tabs, and their layout."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from . import comparisons
from .endpoints import programs_text
from .examples import EXAMPLES, PRESETS, Example
from .fields import ESSENTIAL, FIRST_MESSAGE, FIRST_PROMPT, groups, make_field, names_of, settings_html, show_fields
from .limits import OPEN
from .messages import EMPTY, status_html

HERE = Path(__file__).parent
# The buttons for the text: what each does in desk.js, its name and its help.
_TOOLS = (
    ("more", "Continue", "Continue the text"),
    ("retry", "Retry", "Write it again with another seed"),
    ("edit", "Edit", "Edit the text by hand"),
    ("undo", "Undo", "Go back to the text before (Ctrl-Z)"),
    ("redo", "Redo", "Take the undo back (Ctrl-Shift-Z)"),
)
_NEW_CHAT = ("chat", "New chat", "Begin another chat with the next message")
BRANCHES = (
    '<h2>Branches</h2><ul class="list"></ul><p class="say" role="status"></p><div class="files">'
    '<button type="button" class="act" data-do="download" disabled>Download</button>'
    '<button type="button" class="act" data-do="upload">Upload</button>'
    '<button type="button" class="act" data-do="afresh" title="Put all texts away, and reset the settings" disabled>'
    "Start afresh</button>"
    '<input type="file" accept=".json,application/json" aria-label="a file of texts" tabindex="-1" hidden></div>'
)
CHIPS = """watch("value", () => document.dispatchEvent(new CustomEvent("fundamentallm-fields")));
element.addEventListener("click", (event) => {
  const { name, compare } = event.target.dataset || {};
  if (name) trigger("remove", { name });
  if (!compare) return;
  trigger("compare", { name: compare });
  const answer = document.getElementById("answer"); // on a phone far above
  if (Math.abs(answer.getBoundingClientRect().top) > 0.6 * window.innerHeight) answer.scrollIntoView();
});"""
JUMP = '<button type="button" class="act">{typed} and settings ↓</button>'
JUMPS = """element.addEventListener("click", (event) =>
  event.target.closest("button") && document.getElementById("asked").scrollIntoView());"""
# The scripts of the text and its tree, which run as one.
SURFACE = (
    *("script.js", "chat.js", "tree.js", "kept_tree.js", "views.js"),
    *("branch_list.js", "given.js", "offer.js", "edit.js", "desk.js"),
)
INSTALL = "after `pip install fundamentallm-hf` (`fundamentallm-hf[structured]` for a pattern, a schema or a grammar)"
HELP = '<label><input type="checkbox"> explain the settings</label>'
EXPLAIN = """element.addEventListener("change", (event) =>
  document.getElementById("settings").classList.toggle("explained", event.target.checked));"""
SEARCH = '<label>Search <input type="search" placeholder="a name, or a word of the help"></label>'


def tools_html(can_chat: bool) -> str:
    """The buttons for the text."""
    ready = ("edit", "chat")  # need no text to start from
    buttons = "".join(
        f'<button type="button" class="act" data-do="{act}" title="{title}"{"" if act in ready else " disabled"}>'
        f"{name}</button>"
        for act, name, title in (*_TOOLS, *((_NEW_CHAT,) if can_chat else ()))
    )
    return f'<div role="toolbar" aria-label="what to do with the text">{buttons}</div>'


def script(name: str) -> str:
    """A script of this folder, which runs in the browser."""
    return (HERE / name).read_text(encoding="utf-8")


class PromptPanel:
    """The prompt or message, the presets and examples, and the buttons that start and stop.

    Args:
        can_chat: whether the model has a chat template. Then the page opens with a chat.
    """

    def __init__(self, can_chat: bool) -> None:
        self.chat = gr.Checkbox(can_chat, label="chat", container=False, visible=can_chat, elem_id="field-chat")
        self.system = gr.Textbox(
            "", label="system message", placeholder="none", max_lines=3, visible=can_chat, elem_id="field-system"
        )
        typed, button = names_of(can_chat)
        self.prompt = gr.Textbox(
            FIRST_MESSAGE if can_chat else FIRST_PROMPT,
            label=typed,
            placeholder="your message" if can_chat else "",
            lines=2,
            max_lines=8,
            elem_id="field-prompt",
        )
        # The chat to answer, as the browser fills it in; nothing for a text.
        self.messages = gr.Textbox("", visible="hidden", elem_id="messages", label="messages")
        with gr.Row(elem_id="actions"):
            self.write = gr.Button(button, variant="primary", elem_id="write", scale=3, min_width=120)
            self.stop = gr.Button("Stop", interactive=False, elem_id="stop", scale=1, min_width=80)
        self.alert = gr.HTML("", elem_id="alert", js_on_load=script("mark_field.js"))
        self.presets = self._gallery(PRESETS, "Presets: sampling and length for a kind of text", "presets")
        with gr.Accordion("Examples, one for each control", open=False, elem_id="more-examples"):
            self.examples = self._gallery(EXAMPLES, "Each replaces the prompt and all settings", "examples")

    def _gallery(self, examples: tuple[Example, ...], label: str, name: str) -> gr.Dataset:
        return gr.Dataset(
            components=[gr.Textbox(visible=False)],
            samples=[[each.name] for each in examples],
            type="index",
            label=label,
            layout="gallery",
            samples_per_page=len(examples),
            elem_id=name,
        )


class SettingsPanel:
    """A field for each setting that visitors may use: a few in view, the others in one part that can be searched.

    Args:
        attributes: names of the model's attributes.
    """

    def __init__(self, attributes: list[str]) -> None:
        gr.HTML(HELP, elem_id="explain", padding=False, js_on_load=EXPLAIN)
        fields: dict[str, Any] = {name: make_field(OPEN[name], attributes) for name in ESSENTIAL}
        # Below these, so that no field moves while it is filled in.
        defaults = dict(zip(OPEN, show_fields({}), strict=True))
        self.chips = gr.HTML(settings_html(defaults), elem_id="chips", padding=False, js_on_load=CHIPS)
        with gr.Accordion("More settings", open=False, elem_id="more"):
            gr.HTML(SEARCH, elem_id="search-settings", padding=False, js_on_load=script("search.js"))
            for group, names in groups().items():
                gr.HTML(f"<h3>{group}</h3>", elem_classes="group", padding=False)
                for name in names:
                    fields[name] = make_field(OPEN[name], attributes)
                    if name == "seed":
                        self.die = gr.Button("⚄ another seed", elem_id="die", size="sm", min_width=120)
        assert set(fields) == set(OPEN)
        self.fields = {name: fields[name] for name in OPEN}


class ResultPanel:
    """The text with its tree, and the other views, each in a tab.

    Args:
        endpoints: by name, for the tab that describes them.
        can_chat: whether the model has a chat template.
    """

    def __init__(self, endpoints: Mapping[str, Callable], can_chat: bool) -> None:
        self._can_chat = can_chat
        self.status = gr.HTML(status_html(""), elem_id="status", padding=False)
        with gr.Tabs(elem_id="views") as self.tabs:
            self._build_write()
            self._build_compare()
            self._build_export()
            self._build_beams()
            self._build_programs(endpoints)

    def _build_write(self) -> None:
        with gr.Tab("Text", id="write"), gr.Row(elem_id="surface"):
            with gr.Column(min_width=260):
                gr.HTML(tools_html(self._can_chat), elem_id="tools", padding=False)
                desk = "\n".join(map(script, SURFACE))
                self.texts = gr.HTML(EMPTY, elem_id="texts", padding=False, js_on_load=desk)
            with gr.Column(min_width=200):
                gr.HTML(BRANCHES, elem_id="branches", padding=False)
            # What the browser asks to continue, and what it uploads.
            self.asked = gr.Textbox(visible="hidden", elem_id="asked-text", label="asked")
            self.opened = gr.Textbox(visible="hidden", elem_id="opened", label="opened")

    def _build_beams(self) -> None:
        with gr.Tab("Beams", id="beams"):
            gr.Markdown(
                "Beam search keeps several candidates and returns the most probable one. With a beam-size of 1, "
                f"{comparisons.BEAMS} beams are used here; at temperature 0 the search is deterministic."
            )
            self.search = gr.Button("Search with beams", elem_id="search")
            self.beams = gr.HTML("", elem_id="tree")

    def _build_compare(self) -> None:
        with gr.Tab("Compare", id="compare"):
            gr.Markdown("The same prompt and the same seed, side by side. What a text shares with the first is paler.")
            with gr.Row():
                self.kind = gr.Radio(
                    list(comparisons.KINDS),
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
            # The setting to leave out, when a chip asked for it.
            self.left_out = gr.Textbox(visible="hidden", elem_id="left-out", label="left out")
            self.columns = gr.HTML("", elem_id="columns")

    def _build_export(self) -> None:
        with gr.Tab("Export", id="take"):
            gr.Markdown("Each of these writes the text on screen again, exactly.")
            self.copies: list[tuple[str, gr.Button]] = []
            self._add_copy("link", "opens this page, and writes the text")
            self.link = gr.Textbox(label="Link", interactive=False, buttons=[], elem_id="link", lines=1)
            code: dict[str, Any] = {
                "interactive": False,
                "buttons": [],
                "wrap_lines": True,
                "language": None,
                "show_line_numbers": False,
                "lines": 1,
            }
            self._add_copy("Python", f"runs the model on your computer, {INSTALL}")
            self.python = gr.Code(label="Python", elem_id="as-python", **code)
            self._add_copy("command", "does the same in a terminal, with the same package")
            self.command = gr.Code(label="Command", elem_id="as-command", **code)
            self._add_copy(
                "curl", "asks this page, and needs nothing else; *For programs* has Python that asks this page"
            )
            self.curl = gr.Code(label="curl", elem_id="as-curl", **code)
            self.exports = [self.link, self.python, self.command, self.curl]
            self.download = gr.Button("Download as JSON", elem_id="download")
            self.json = gr.Textbox(visible="hidden", elem_id="json", label="JSON")

    def _add_copy(self, what: str, about: str) -> None:
        """A button that copies what is below it, and a line about that."""
        with gr.Row(elem_classes="copy"):
            label = f"Copy {what}"
            self.copies.append(
                (label, gr.Button(label, size="sm", min_width=130, scale=0, elem_id=f"copy-{what.lower()}"))
            )
            gr.Markdown(f"… {about}")

    def _build_programs(self, endpoints: Mapping[str, Callable]) -> None:
        with gr.Tab("For programs", id="programs"):
            self.programs = gr.Markdown(programs_text(endpoints, "http://localhost:7860"), elem_id="programs")
