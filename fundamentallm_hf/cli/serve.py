"""`fundamentallm serve`."""

import importlib.util
import sys

import click

from fundamentallm_hf.portable.errors import UserError


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def serve(options: tuple[str, ...]) -> None:
    """Serve models over HTTP, as `transformers serve` does.

    Takes the OPTIONS of `transformers serve`. Controls travel in the "generation_config" of a request. With
    --continuous-batching, requests without controls are answered together, and others one by one next to them.
    """
    for needed in ("fastapi", "uvicorn", "openai"):
        if importlib.util.find_spec(needed) is None:
            raise UserError(f"serving needs the package {needed}: pip install 'fundamentallm-hf[serve]'")
    from transformers.cli.transformers import main as transformers_main

    from fundamentallm_hf.model_io import registration as registration
    from fundamentallm_hf.serving import answer_with_controls

    answer_with_controls()
    sys.argv = ["transformers", "serve", *options]
    transformers_main()
