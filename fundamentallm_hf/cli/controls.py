"""What `fundamentallm push-controls` does. This file knows nothing of its options, or of how files travel."""

import tempfile
from pathlib import Path
from typing import Any

import click

from fundamentallm_hf.portable.errors import UsageError

from .hub import report
from .terminal import Notes


def push(name: str, output: str | None, force: bool, quiet: bool, **options: Any) -> None:
    """Publish the repository of the controls, or write it into a folder on this machine.

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
    with tempfile.TemporaryDirectory() as place:
        there = None if options["dry_run"] else card_there(repo_id, revision, None, notes.say)
        folder = write_controls(Path(place, "controls"), repo_id=repo_id, existing=there)
        # Files of an older version would be left over, and fetched with the recipe.
        stale = ("custom_generate/*",)
        sent = upload_folder(
            folder, repo_id, revision=revision, delete=stale, notice=notes.say, progress=notes.shows_progress, **options
        )
    report(sent, notes, dry_run=options["dry_run"])
