"""`fundamentallm serve`."""

import importlib.util
import sys
from typing import TYPE_CHECKING

import click

from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.settings.generation_settings import DEVICE_MAPS

if TYPE_CHECKING:
    from fundamentallm_hf.serving.server_limits import ServerLimits

CONTEXT = {"ignore_unknown_options": True, "show_default": True}


@click.command(context_settings=CONTEXT)
@click.option(
    "--api-key",
    metavar="KEY",
    envvar="FUNDAMENTALLM_API_KEY",
    show_envvar=True,
    help="Key that requests have to carry.",
)
@click.option("--limit-tokens", type=click.IntRange(1), default=4096, help="New tokens of a request, at most.")
@click.option("--limit-entries", type=click.IntRange(1), default=1000, help="Entries of a list, at most.")
@click.option("--limit-beams", type=click.IntRange(1), default=16, help="Beams of a request, at most.")
@click.option("--limit-samples", type=click.IntRange(1), default=16, help="Texts of a request, at most.")
@click.option("--limit-waiting", type=click.IntRange(1), default=256, help="Requests that may wait, at most.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    help="Processes that share the requests; each loads the models for itself.",
)
@click.option(
    "--device-map",
    type=click.Choice(DEVICE_MAPS),
    help="Spread a model that is larger than one device, in place of --device.",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[MODEL]")
def serve(
    api_key: str | None,
    limit_tokens: int,
    limit_entries: int,
    limit_beams: int,
    limit_samples: int,
    limit_waiting: int,
    workers: int,
    device_map: str | None,
    options: tuple[str, ...],
) -> None:
    """Serve models over HTTP, as `transformers serve` does.

    Further OPTIONS are those of `transformers serve`, which `fundamentallm serve -- --help` lists.

    Requests are computed together. Every control is a field of a request. GET /metrics reports requests, tokens and
    the queue.
    """
    for needed in ("fastapi", "uvicorn", "openai"):
        if importlib.util.find_spec(needed) is None:
            raise UserError(f"serving needs the package {needed}: pip install 'fundamentallm-hf[serve]'")
    from fundamentallm_hf.serving.server_limits import ServerLimits

    limits = ServerLimits(
        tokens=limit_tokens,
        entries=limit_entries,
        beams=limit_beams,
        samples=limit_samples,
        waiting=limit_waiting,
    )
    if device_map is not None:
        if any(option.partition("=")[0] == "--device" for option in options):
            raise UsageError("device-map decides where everything is: leave out device")
        options = (*options, "--device", device_map)  # transformers takes a map there
    if workers > 1:
        from fundamentallm_hf.serving.workers import run_workers

        run_workers(workers, options, limits, api_key)
    else:
        _run(options, limits, api_key)


def _run(options: tuple[str, ...], limits: "ServerLimits", api_key: str | None) -> None:
    """Serve in this process."""
    from transformers.cli.transformers import main as transformers_main

    from fundamentallm_hf.model_io import registration as registration
    from fundamentallm_hf.serving.server import prepare

    prepare(limits, api_key)
    sys.argv = ["transformers", "serve", *options]
    transformers_main()
