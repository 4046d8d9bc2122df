"""`fundamentallm push`, `push-controls` and `pull`."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fundamentallm_hf.files import is_local
from fundamentallm_hf.portable.errors import UsageError

from .options import CONTEXT
from .terminal import Notes

if TYPE_CHECKING:
    from fundamentallm_hf.hub.upload import Upload


@click.command(context_settings=CONTEXT)
@click.argument("model_and_name", nargs=-1, required=True, metavar="[MODEL] USER/NAME")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--revision", metavar="NAME", help="Branch to commit to; it is created if missing.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing.")
@click.option("--message", metavar="TEXT", help="Commit message.  [default: Upload USER/NAME]")
@click.option("--license", metavar="ID", help="Licence of the model, by its Hub id, such as mit.")
@click.option("--dry-run", is_flag=True, help="List the files and their sizes in bytes, and send nothing.")
@click.option("--trust-remote-code", is_flag=True, help="Run the code of a MODEL that is not a FundamentaLLM model.")
@click.option("--quiet", "-q", is_flag=True, help="Print only errors on stderr.")
def push(model_and_name: tuple[str, ...], **options: Any) -> None:
    """Publish MODEL on the Hub as USER/NAME, in one commit.

    Weights, tokenizer, generation config, attributes, code for trust_remote_code and a card are sent; a checkpoint is
    converted first. Optimizer state, local paths, access tokens and pickles are never sent. After an interruption, the
    same command continues. Log in with `hf auth login`, or set HF_TOKEN. Without MODEL, the bundled
    story model is sent.

    \b
    fundamentallm push my_model/final_model.pt user/stories --private
    fundamentallm push my_model_hf user/stories --create-pr --message "Train longer"
    """
    _push(model_and_name, **options)


@click.command("push-controls", context_settings=CONTEXT)
@click.argument("name", metavar="USER/NAME")
@click.option("--output", metavar="FOLDER", help="Write the repository into FOLDER and send nothing.")
@click.option("--force", is_flag=True, help="Replace FOLDER if it is not empty.")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--revision", metavar="NAME", help="Branch to commit to; it is created if missing.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing.")
@click.option("--message", metavar="TEXT", help="Commit message.")
@click.option("--dry-run", is_flag=True, help="List the files and their sizes in bytes, and send nothing.")
@click.option("--quiet", "-q", is_flag=True, help="Print only errors on stderr.")
def push_controls(name: str, **options: Any) -> None:
    """Publish the controls on the Hub as USER/NAME, for any model of transformers.

    Users of transformers can then call, without installing anything else, model.generate(**inputs,
    custom_generate="USER/NAME", trust_remote_code=True, must_include=["dragon"]).

    \b
    fundamentallm push-controls user/controlled-generation --dry-run
    fundamentallm push-controls user/controlled-generation
    """
    _push_controls(name, **options)


@click.command(context_settings=CONTEXT)
@click.argument("name", metavar="USER/NAME")
@click.argument("folder", required=False)
@click.option("--revision", metavar="NAME", help="Branch, tag or commit; the same as USER/NAME@REVISION.")
@click.option("--force", is_flag=True, help="Replace FOLDER if it is not empty.")
@click.option("--quiet", "-q", is_flag=True, help="Print only errors on stderr.")
def pull(name: str, folder: str | None, **options: Any) -> None:
    """Download USER/NAME, or USER/NAME@REVISION, from the Hub.

    Fetches all files except pickles, verifies their checksums, and runs nothing. FOLDER is written atomically. Without
    FOLDER the files stay in the cache, where every MODEL argument finds them, also offline. Prints the path.

    \b
    fundamentallm pull user/stories
    fundamentallm pull user/stories@v1 stories
    """
    _pull(name, folder, **options)


def _push(model_and_name: tuple[str, ...], quiet: bool, **options: Any) -> None:
    """Publish a model.

    Raises:
        UserError: there is no such model, part of it must not be sent, or the Hub refuses or cannot be reached.
    """
    if len(model_and_name) > 2:
        raise UsageError(f"expected [MODEL] USER/NAME but got {len(model_and_name)} arguments")
    notes = Notes(quiet)
    if len(model_and_name) == 1 and is_local(model_and_name[0]):
        raise UsageError(f"{model_and_name[0]} is on this machine: add the name of a repository, such as user/name")
    from fundamentallm_hf.publishing.publish import push as publish

    model = model_and_name[0] if len(model_and_name) == 2 else None
    sent = publish(model, model_and_name[-1], notice=notes.say, progress=notes.shows_progress, **options)
    _report(sent, notes, dry_run=options["dry_run"])


def _push_controls(name: str, output: str | None, force: bool, quiet: bool, **options: Any) -> None:
    """Publish the repository of the controls, or write it into a local folder.

    Raises:
        UserError: the folder cannot be written, or the Hub refuses or cannot be reached.
    """
    from fundamentallm_hf.hub.upload import split_name, upload_folder
    from fundamentallm_hf.publishing.controls_repository import write_controls
    from fundamentallm_hf.publishing.publish import card_there, check_publishing

    repo_id, revision = split_name(name, options.pop("revision"))
    if output is not None:
        if useless := [option for option, value in (options | {"revision": revision}).items() if value]:
            raise UsageError(
                f"--output sends nothing, so --{useless[0].replace('_', '-')} has no effect: leave one out"
            )
        click.echo(write_controls(output, repo_id=repo_id, force=force))
        return
    if force:
        raise UsageError("--force replaces the folder of --output, which is not given: leave it out")
    notes = Notes(quiet)
    options["message"] = options["message"] or f"Upload the controls of fundamentallm as {repo_id}"
    check_publishing(name, notes.say, options)
    with tempfile.TemporaryDirectory() as scratch:
        there = None if options["dry_run"] else card_there(repo_id, revision, None, notes.say)
        text, base = (None, None) if there is None else (there.text, there.commit)
        folder = write_controls(Path(scratch, "controls"), repo_id=repo_id, existing=text)
        # Files of an older version would remain, and be downloaded with the recipe.
        stale = ("custom_generate/*",)
        sent = upload_folder(
            folder,
            repo_id,
            revision=revision,
            base=base,
            delete=stale,
            notice=notes.say,
            progress=notes.shows_progress,
            **options,
        )
    _report(sent, notes, dry_run=options["dry_run"])


def _pull(name: str, folder: str | None, quiet: bool, **options: Any) -> None:
    """Download a repository.

    Raises:
        UserError: it does not exist, cannot be reached or is not safe, or the folder cannot be written.
    """
    notes = Notes(quiet)
    with notes.busy(f"looking for {name}"):
        from fundamentallm_hf.hub.download import pull as get

    snapshot, path = get(name, folder, notice=notes.say, progress=notes.shows_progress, **options)
    if snapshot.left_out:
        notes.say(f"left out, since pickles can run code when they are read: {', '.join(snapshot.left_out)}")
    notes.say(f"{snapshot.repo_id} at commit {snapshot.commit}")
    click.echo(path)


def _report(sent: "Upload", notes: Notes, dry_run: bool) -> None:
    """Print the address of the upload, or with `dry_run` the files and their sizes."""
    if dry_run:
        click.echo("\n".join(_size_lines(sent.files)))
        return
    if not sent.changed:
        notes.say(f"{sent.repo_id} has all of this already: there was nothing to commit")
    elif sent.pull_request is not None:
        notes.say(f"until it is accepted, it is {sent.repo_id}@{sent.pull_request}")
    click.echo(sent.url)


def _size_lines(files: Mapping[str, int]) -> list[str]:
    """Files with their sizes, and the total."""
    sizes = {**files, f"{len(files)} files": sum(files.values())}
    width = max(len(f"{size:,}") for size in sizes.values())
    return [f"{size:>{width},}  {name}" for name, size in sizes.items()]
