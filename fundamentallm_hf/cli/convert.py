"""`fundamentallm convert`."""

import click

from .options import CONTEXT
from .terminal import Notes


@click.command(context_settings=CONTEXT)
@click.argument("checkpoint")
@click.argument("folder")
@click.option("--force", is_flag=True, help="Replace FOLDER if it is not empty.")
def convert(checkpoint: str, folder: str, force: bool) -> None:
    """Convert a FundamentaLLM CHECKPOINT to a Hugging Face FOLDER.

    CHECKPOINT is a .pt file, the folder that holds it, or the Hub id of a repository that holds it. The folder is
    written atomically, and loads with pipeline("text-generation", model=FOLDER).

    \b
    fundamentallm convert my_model/final_model.pt my_model_hf
    """
    from transformers.utils import logging

    from fundamentallm_hf.model_io.checkpoint import convert_checkpoint
    from fundamentallm_hf.model_io.loading import find_checkpoint

    logging.disable_progress_bar()
    source = find_checkpoint(checkpoint, Notes().say)
    click.echo(convert_checkpoint(source, folder, force=force))
