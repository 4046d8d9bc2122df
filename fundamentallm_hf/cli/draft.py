"""`fundamentallm draft`."""

import click

from .options import CONTEXT
from .terminal import Notes


@click.command(context_settings=CONTEXT)
@click.argument("folder")
@click.argument("text_file")
@click.option("--entries", type=click.IntRange(min=1), default=50_000, show_default=True, help="Contexts to keep.")
@click.option(
    "--next-words",
    is_flag=True,
    help="Also learn to predict words, so that word weights on a character model are exact and cheap. Takes minutes.",
)
def draft(folder: str, text_file: str, entries: int, next_words: bool) -> None:
    """Make the model in FOLDER generate faster, with drafts from TEXT_FILE.

    Counts which tokens follow each other in TEXT_FILE, best the text the model was trained on, and writes the counts to
    draft.safetensors in FOLDER. While generating, the model checks several drafted tokens in one pass. The generated
    text does not change. --no-speculate turns drafts off.
    With --next-words, next_words.safetensors is written as well.

    \b
    fundamentallm draft my_model_hf training.txt
    """
    from fundamentallm_hf.files import read_text
    from fundamentallm_hf.training.draft_training import add_draft

    text = read_text(text_file)
    click.echo(add_draft(folder, text, entries))
    if next_words:
        from fundamentallm_hf.training.next_word_training import add_next_words

        with Notes().progress() as bar:
            task = bar.add_task("learning words", total=None)
            file, loss = add_next_words(folder, text, lambda done, total: bar.update(task, completed=done, total=total))
        click.echo(f"{file}: {loss:.2f} nats a word on words held out")
