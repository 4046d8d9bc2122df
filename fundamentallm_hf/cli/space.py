"""`fundamentallm space`: loads a model and serves the web demo with it."""

import contextlib
import importlib.util
import io
import os
from typing import Any

import click

from fundamentallm_hf.portable.errors import UserError

from .options import CONTEXT, model_options
from .terminal import Notes

NEEDED = ("gradio", "mcp")


@click.command(context_settings=CONTEXT)
@click.option("--model", metavar="MODEL", help="As for generate.  [default: the bundled story model]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is all.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on.  [default: 7860, or the next free one]")
@click.option("--open/--no-open", "browser", default=False, show_default="off", help="Open it in the browser.")
@model_options
def space(**options: Any) -> None:
    """Start the web demo, a page that shows what every control does.

    It also serves programs, through named endpoints and an MCP server; the page explains how to use them.

    \b
    fundamentallm space
    fundamentallm space --model my_model/final_model.pt --port 8000
    """
    serve_page(**options)


def serve_page(*, model: str | None, host: str, port: int | None, browser: bool, **loading: Any) -> None:
    """Serve the page until it is interrupted.

    Args:
        model: as in `load_model`; None is the bundled one.
        host: the address to listen on.
        port: the port; None is 7860, or the next free one.
        browser: open the page.
        loading: other arguments of `load_model`.

    Raises:
        UserError: gradio is missing, the model cannot be loaded, or the address is not available.
    """
    for needed in NEEDED:
        if importlib.util.find_spec(needed) is None:
            raise UserError(f"the web demo needs the package {needed}: pip install 'fundamentallm-hf[space]'")
    with Notes(False).busy(f"loading {model or 'the bundled model'}"):
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        from transformers.utils import logging

        logging.disable_progress_bar()
        from fundamentallm_hf.web.app import create_app, launch_options

        page = create_app(model, **loading)
    try:
        options = launch_options() | {"quiet": True, "prevent_thread_lock": True}
        with contextlib.redirect_stdout(io.StringIO()):  # gradio prints its addresses even in quiet mode
            _, address, _ = page.launch(server_name=host, server_port=port, inbrowser=browser, **options)
    except OSError as error:
        raise UserError(f"cannot serve at {host}, port {port or 7860}: {error}") from error
    click.echo(f"The web demo is at {address} and its MCP server at {address}gradio_api/mcp/. Ctrl-C ends it.")
    page.block_thread()
