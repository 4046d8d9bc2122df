"""The command `fundamentallm`: lists its commands, and runs the requested one.

No command imports torch or transformers before its options are read, so `--help` answers at once.
"""

import sys

import click

from .attributes import attributes, train_attribute
from .card import card
from .completion import completion
from .convert import convert
from .draft import draft
from .evaluate import evaluate
from .generate import generate
from .hub import pull, push, push_controls
from .options import CONTEXT
from .overused import overused
from .serve import serve
from .space import space
from .terminal import Commands, prepare_process
from .train import train


@click.group(cls=Commands, context_settings=CONTEXT)
@click.version_option(package_name="fundamentallm-hf", prog_name="fundamentallm")
def cli() -> None:
    """FundamentaLLM's language models in the Hugging Face ecosystem."""


for command in (
    attributes,
    card,
    completion,
    convert,
    draft,
    evaluate,
    generate,
    overused,
    pull,
    push,
    push_controls,
    serve,
    space,
    train,
    train_attribute,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line."""
    try:
        prepare_process()
        cli(prog_name="fundamentallm")
    except KeyboardInterrupt:
        sys.exit(130)
