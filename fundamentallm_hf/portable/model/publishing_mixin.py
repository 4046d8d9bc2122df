"""Publishing a model on the Hub as `model.push_to_hub`, replacing transformers' method.

The package does the work; it registers its function here when it is imported.
"""

from collections.abc import Callable
from typing import Any, ClassVar


class PublishingMixin:
    """Gives a model `push_to_hub`."""

    # Called with the model and the arguments of `push_to_hub`; None where the package is missing.
    _publisher: ClassVar[Callable[..., str] | None] = None

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str | None = None,
        tags: list[str] | None = None,
        **options: Any,
    ) -> str:
        """Publish the model on the Hub, **where others can read it**, with everything that belongs to it.

        Weights, tokenizer, generation config, attributes, code for `trust_remote_code` and a card are sent in one
        commit, after a scan for files that must not be published. Needs the package fundamentallm-hf.

        Args:
            repo_id: `user/name`; the repository is created if it does not exist.
            commit_message, commit_description: of the commit.
            private: make a new repository private.
            token: used instead of the one that is logged in.
            revision: the branch to commit to.
            create_pr: open a pull request instead.
            max_shard_size: of a file of weights, such as "5GB".
            tags: more tags for the card.
            options: `tokenizer`, by default the model's; `license`, by the Hub's name for it; `dry_run`, `notice` and
                `progress`, as in `upload_folder`.

        Returns:
            The address of the published model.

        Raises:
            ValueError: something must not be sent, or the Hub refuses or cannot be reached; nothing has changed there.
        """
        if PublishingMixin._publisher is None:
            raise ValueError("publishing needs the package: pip install fundamentallm-hf")
        return PublishingMixin._publisher(
            self,
            repo_id,
            message=commit_message,
            description=commit_description,
            private=bool(private),
            token=token,
            revision=revision,
            create_pr=create_pr,
            max_shard_size=max_shard_size,
            tags=tags or (),
            **options,
        )
