"""Spares the server of the page work that gradio would repeat for every session."""

from typing import Any

import gradio as gr


def keep_configs(blocks: gr.Blocks) -> None:
    """Describe the components once, when the page is complete.

    For every new session, and each call of a program is one, gradio asks every component for its description, which
    takes as long as generating a short text. A session changes only copies of the components.
    """
    for block in blocks.blocks.values():
        block.get_config = _Kept(block.get_config())  # type: ignore[method-assign]


class _Kept:
    """Returns a description that was made before, as a dict of the caller's own."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def __call__(self, cls: type | None = None) -> dict[str, Any]:
        return dict(self.config)
