"""`fundamentallm card`."""

from typing import Any

import click

from .options import CONTEXT


@click.command(context_settings=CONTEXT)
@click.argument("folder")
@click.argument("name", required=False, metavar="[USER/NAME]")
@click.option("--license", metavar="ID", help="Licence of the model, by its Hub id, such as mit.")
@click.option("--language", multiple=True, metavar="CODE", help="Language that it generates, such as en.")
@click.option("--dataset", "datasets", multiple=True, metavar="ID", help="Hub id of a data set that it was trained on.")
@click.option("--base-model", metavar="ID", help="Hub id of the model that it was trained from.")
def card(folder: str, name: str | None, **metadata: Any) -> None:
    """Write the card of the model in FOLDER, its README.md, from the files there.

    Your edits are kept when the card is written again, here or by push. With USER/NAME its examples name the model on
    the Hub. --language and --dataset may be given several times.

    \b
    fundamentallm card my_model_hf user/stories --license mit --language en
    """
    from fundamentallm_hf.publishing.model_card import update_card

    values = {key: list(value) if isinstance(value, tuple) else value for key, value in metadata.items()}
    click.echo(update_card(folder, repo_id=name, metadata=values))
