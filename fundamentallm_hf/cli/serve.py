"""`fundamentallm serve`."""

import importlib.util
import sys

import click

from fundamentallm_hf.portable.errors import UserError

CONTEXT = {"ignore_unknown_options": True, "help_option_names": []}


@click.command(context_settings=CONTEXT)
@click.option("--api-key", metavar="KEY", envvar="FUNDAMENTALLM_API_KEY", help="Key that requests have to carry.")
@click.option("--limit-tokens", type=click.IntRange(1), default=4096, help="New tokens of a request, at most.")
@click.option("--limit-entries", type=click.IntRange(1), default=1000, help="Entries of a list, at most.")
@click.option("--limit-beams", type=click.IntRange(1), default=16, help="Beams of a request, at most.")
@click.option("--limit-waiting", type=click.IntRange(1), default=256, help="Requests that may wait, at most.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def serve(
    api_key: str | None,
    limit_tokens: int,
    limit_entries: int,
    limit_beams: int,
    limit_waiting: int,
    options: tuple[str, ...],
) -> None:
    """Serve models over HTTP, as `transformers serve` does.

    Takes the OPTIONS of `transformers serve`, and options of its own:

    \b
    --api-key KEY        requests have to carry this key [FUNDAMENTALLM_API_KEY]
    --limit-tokens N     new tokens of a request, at most [4096]
    --limit-entries N    entries of a list, at most [1000]
    --limit-beams N      beams of a request, at most [16]
    --limit-waiting N    requests that may wait, at most [256]

    Requests are computed together. Every control is a field of a request. GET /metrics reports requests, tokens and
    the queue.
    """
    for needed in ("fastapi", "uvicorn", "openai"):
        if importlib.util.find_spec(needed) is None:
            raise UserError(f"serving needs the package {needed}: pip install 'fundamentallm-hf[serve]'")
    from transformers.cli.transformers import main as transformers_main

    from fundamentallm_hf.model_io import registration as registration
    from fundamentallm_hf.serving.request_fields import ServerLimits
    from fundamentallm_hf.serving.server import prepare

    limits = ServerLimits(tokens=limit_tokens, entries=limit_entries, beams=limit_beams, waiting=limit_waiting)
    prepare(limits, api_key)
    sys.argv = ["transformers", "serve", *options]
    transformers_main()
