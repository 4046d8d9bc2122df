"""Importing this module lets `model.push_to_hub` publish with this package."""

from typing import Any

from fundamentallm_hf.portable.model.publishing_mixin import PublishingMixin


def _push(model: Any, repo_id: str, **options: Any) -> str:
    # Imported when a model is pushed, because most programs never do.
    from .publish import push_model

    return push_model(model, repo_id, **options).url


PublishingMixin._publisher = staticmethod(_push)
