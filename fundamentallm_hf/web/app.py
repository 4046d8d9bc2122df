"""Starts the web demo: loads the model, builds the page, and sets the theme and options of its server.

`space/app.py` and the command `fundamentallm space` both use it.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Set before gradio is imported: nothing is sent anywhere, and gradio's statistics of requests stay small.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "100")

import gradio as gr

from fundamentallm_hf.generation.generator import Generator
from fundamentallm_hf.model_io.loading import load_model

from .actions import WAITING
from .page import Page
from .runner import Writer
from .server_costs import keep_configs

HERE = Path(__file__).parent
# Sessions whose last result is kept. Every call of a program is a session, and takes about 0.3 MiB.
SESSIONS = 300


def create_app(
    model: str | None = None, *, apart: Callable[[Callable], Callable] | None = None, **loading: Any
) -> gr.Blocks:
    """The page for a model.

    Args:
        model: as `load_model` takes it; None is the bundled one.
        apart: decorates the functions that compute, for instance `spaces.GPU`.
        loading: other arguments of `load_model`.

    Raises:
        UserError: the model cannot be loaded.
    """
    generator = Generator(load_model(model, **loading), notice=lambda text: None)
    return serve(Page(Writer(generator, apart=apart), model))


def serve(page: Page) -> gr.Blocks:
    """The page with its queue: requests are computed together, some wait, and further ones are rejected."""
    blocks = page.build().queue(max_size=WAITING + 8, api_open=False)
    keep_configs(blocks)
    return blocks


def theme() -> gr.themes.Base:
    """Paper and ink, with fonts that every machine has: nothing is downloaded."""
    sans = ("system-ui", "-apple-system", "Segoe UI", "Helvetica Neue", "Liberation Sans", "sans-serif")
    mono = ("ui-monospace", "SFMono-Regular", "Menlo", "DejaVu Sans Mono", "monospace")
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.stone,
        font=sans,
        font_mono=mono,
        radius_size=gr.themes.sizes.radius_md,
    ).set(
        body_background_fill="#faf8f5",
        body_background_fill_dark="#171513",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1f1c1a",
        block_border_color="#e7e2da",
        block_border_color_dark="#35302c",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        button_primary_background_fill="#0f5f59",
        button_primary_background_fill_hover="#0b4a46",
        button_primary_background_fill_dark="#137a72",
        button_primary_background_fill_hover_dark="#0f625c",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        body_text_color_subdued="#5f5850",
        body_text_color_subdued_dark="#b5aca2",
        slider_color="#0f766e",
        slider_color_dark="#35a99c",
        checkbox_background_color_selected="#0f766e",
        checkbox_background_color_selected_dark="#35a99c",
        checkbox_border_color_selected="#0f766e",
        checkbox_label_background_fill="transparent",
        checkbox_label_background_fill_dark="transparent",
        checkbox_label_background_fill_selected="transparent",
        checkbox_label_background_fill_selected_dark="transparent",
        input_placeholder_color="#78716c",
        input_placeholder_color_dark="#9a9188",
        button_secondary_background_fill="#ece8e1",
        button_secondary_background_fill_hover="#e2ddd4",
        button_secondary_background_fill_dark="#35302c",
        button_secondary_background_fill_hover_dark="#423c37",
        block_info_text_color="#5f5850",
        block_info_text_color_dark="#b5aca2",
    )


def launch_options() -> dict[str, Any]:
    """The arguments of `launch()` for the page's style and for programs."""
    return {
        "theme": theme(),
        "css_paths": [HERE / "style.css"],
        "mcp_server": True,
        "ssr_mode": False,
        "run_history": False,
        "state_session_capacity": SESSIONS,
        "max_file_size": "1kb",
        # Each request that is computed or waits for the batcher holds a thread.
        "max_threads": 2 * (WAITING + 8),
        "footer_links": ["api", "settings"],
    }
