"""The panels of the page: its fields, buttons and tabs, and their layout."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from . import comparisons
from .endpoints import programs_text
from .examples import EXAMPLES
from .fields import ESSENTIAL, groups, make_field
from .limits import OPEN
from .messages import EMPTY, status_html

HERE = Path(__file__).parent
PROMPT_HELP = "The start of the text."


def script(name: str) -> str:
    """A script of this folder, which runs in the browser."""
    return (HERE / name).read_text(encoding="utf-8")


class PromptPanel:
    """The prompt, the examples, and the buttons that start and stop."""

    def __init__(self) -> None:
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
        self.alert = gr.HTML("", elem_id="alert", js_on_load=script("mark_field.js"))


class SettingsPanel:
    """A field for each setting that visitors may use.

    Args:
        attributes: names of the model's attributes.
    """

    def __init__(self, attributes: list[str]) -> None:
        fields: dict[str, Any] = {}

        def row(*names: str) -> None:
            with gr.Row():
                for name in names:
                    fields[name] = make_field(OPEN[name], attributes)

        row("temperature")
        row("top_p")
        row("max_tokens", "num_samples")
        with gr.Row(equal_height=True, elem_id="seed-row"):
            fields["seed"] = make_field(OPEN["seed"], attributes)
            self.die = gr.Button("⚄ another seed", elem_id="die", size="sm", min_width=120)
        row("bad_words")
        row("must_include")
        row("guide_attribute")
        row("guide_strength")
        for group, names in groups().items():
            with gr.Accordion(f"More: {group}", open=False):
                for name in names:
                    fields[name] = make_field(OPEN[name], attributes)
        assert set(fields) == set(OPEN)
        assert set(ESSENTIAL) <= set(fields)
        self.fields = {name: fields[name] for name in OPEN}


class ResultPanel:
    """The results of a request, in one tab for each view.

    Args:
        endpoints: by name, for the tab that describes them.
    """

    def __init__(self, endpoints: Mapping[str, Callable]) -> None:
        self.status = gr.HTML(status_html("Nothing written yet."), elem_id="status")
        self.back = gr.Button("↩ Back to the prompt before the branch", visible=False, size="sm", elem_id="back")
        with gr.Tabs(elem_id="views"):
            self._build_write()
            self._build_inspect()
            self._build_beams()
            self._build_compare()
            self._build_export()
            self._build_programs(endpoints)

    def _build_write(self) -> None:
        with gr.Tab("Write", id="write"):
            self.texts = gr.HTML(EMPTY, elem_id="texts")

    def _build_inspect(self) -> None:
        with gr.Tab("Inspect", id="see"):
            gr.Markdown("Choose a character to see its alternatives, and to continue from another choice.")
            self.tokens = gr.HTML("", elem_id="tokens", js_on_load=script("script.js"))

    def _build_beams(self) -> None:
        with gr.Tab("Beams", id="beams"):
            gr.Markdown(
                "Beam search keeps several candidates and returns the most probable one. With a beam-size of 1, "
                f"{comparisons.BEAMS} beams are used here; at temperature 0 the search is deterministic."
            )
            self.search = gr.Button("Search with beams", elem_id="search")
            self.tree = gr.HTML("", elem_id="tree")

    def _build_compare(self) -> None:
        with gr.Tab("Compare", id="compare"):
            gr.Markdown("The same prompt and the same seed, side by side. What a text shares with the first is paler.")
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

    def _build_export(self) -> None:
        with gr.Tab("Export", id="take"):
            gr.Markdown("Each of these reproduces what is on screen exactly.")
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

    def _build_programs(self, endpoints: Mapping[str, Callable]) -> None:
        with gr.Tab("For programs", id="programs"):
            self.programs = gr.Markdown(programs_text(endpoints, "http://localhost:7860"), elem_id="programs")
