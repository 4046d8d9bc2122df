"""What `fundamentallm push` and `fundamentallm pull` say and print. This file knows nothing of their options, or of how
files travel.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from fundamentallm_hf.files import is_local
from fundamentallm_hf.portable.errors import UsageError

from .terminal import Notes

if TYPE_CHECKING:
    from fundamentallm_hf.hub.upload import Upload


def push(model_and_name: tuple[str, ...], quiet: bool, **options: Any) -> None:
    """Publish a model.

    Raises:
        UserError: there is no such model, something of it must not be sent, or the Hub refuses or cannot be reached.
    """
    if len(model_and_name) > 2:
        raise UsageError(f"expected [MODEL] USER/NAME but got {len(model_and_name)} arguments")
    notes = Notes(quiet)
    if len(model_and_name) == 1 and is_local(model_and_name[0]):
        raise UsageError(f"{model_and_name[0]} lies on this machine: name a repository behind it, such as user/name")
    from fundamentallm_hf.publishing.publish import push as publish

    model = model_and_name[0] if len(model_and_name) == 2 else None
    sent = publish(model, model_and_name[-1], notice=notes.say, progress=notes.shows_progress, **options)
    report(sent, notes, dry_run=options["dry_run"])


def report(sent: "Upload", notes: Notes, dry_run: bool) -> None:
    """Print what was sent: where it is, or with `dry_run` the files and their sizes."""
    if dry_run:
        click.echo("\n".join(size_lines(sent.files)))
        return
    if not sent.changed:
        notes.say(f"{sent.repo_id} has all of this already: there was nothing to commit")
    elif sent.pull_request is not None:
        notes.say(f"until it is accepted, it is {sent.repo_id}@{sent.pull_request}")
    click.echo(sent.url)


def size_lines(files: Mapping[str, int]) -> list[str]:
    """Files with their sizes, and the sum."""
    sizes = {**files, f"{len(files)} files": sum(files.values())}
    width = max(len(f"{size:,}") for size in sizes.values())
    return [f"{size:>{width},}  {name}" for name, size in sizes.items()]


def pull(name: str, folder: str | None, quiet: bool, **options: Any) -> None:
    """Get a repository.

    Raises:
        UserError: there is none, it cannot be reached or is not safe, or the folder cannot be written.
    """
    notes = Notes(quiet)
    with notes.busy(f"looking for {name}"):
        from fundamentallm_hf.hub.download import pull as get

    snapshot, place = get(name, folder, notice=notes.say, progress=notes.shows_progress, **options)
    if snapshot.left_out:
        notes.say(f"left out, since pickles can run code when they are read: {', '.join(snapshot.left_out)}")
    notes.say(f"{snapshot.repo_id} at commit {snapshot.commit}")
    click.echo(place)
