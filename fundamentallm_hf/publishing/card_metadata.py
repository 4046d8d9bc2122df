"""Checks the metadata of a card by the Hub's rules, as far as that works offline.

The Hub itself checks a card when it is pushed. huggingface_hub's `ModelCardData` reads `model-index` here; it checks no
other field, and a card that it writes loses additions of people to a result, and all models but one.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from fundamentallm_hf.portable.errors import UserError

_TEXTS = ("library_name", "pipeline_tag", "license", "license_name", "license_link", "inference", "base_model_relation")
_LISTS = ("tags", "language", "datasets", "base_model", "metrics")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*|code|multilingual")


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Check that the metadata of a card can be pushed.

    Args:
        metadata: by the Hub's names.

    Raises:
        UserError: a value is not in the form that the Hub expects.

    Example:

    ```python
    >>> from fundamentallm_hf.publishing.card_metadata import check_metadata
    >>> check_metadata({"license": "apache-2.0", "language": ["en"]})
    >>> check_metadata({"datasets": 3})
    Traceback (most recent call last):
    ...
    fundamentallm_hf.portable.errors.UserError: datasets in the card's metadata has to be a list of texts but is 3

    ```
    """
    for name in _TEXTS:
        value = metadata.get(name)
        if value is not None and not isinstance(value, str | bool if name == "inference" else str):
            _refuse(name, "text", value)
    for name in _LISTS:
        value = metadata.get(name)
        if value is not None and not (
            isinstance(value, str)
            or (isinstance(value, list) and all(isinstance(item, str) and item.strip() for item in value))
        ):
            _refuse(name, "a list of texts", value)
    license_id = metadata.get("license")
    if license_id is not None and not _LICENSE.fullmatch(license_id):
        _refuse("license", "a licence id such as apache-2.0 or other", license_id)
    for code in _each(metadata.get("language")):
        if not _LANGUAGE.fullmatch(code):
            _refuse("language", "ISO 639 codes such as en", code)
    for name in ("datasets", "base_model"):
        for repo in _each(metadata.get(name)):
            try:
                check_repo_id(repo)
            except UserError:
                _refuse(name, "ids on the Hub such as user/name", repo)
    _check_widget(metadata.get("widget"))
    _check_results(metadata)


def check_repo_id(name: str) -> None:
    """Check that a repository on the Hub can have this name.

    Raises:
        UserError: it cannot.
    """
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise UserError(f"the name of a repository has to be such as user/name but is {name!r}") from None


def _each(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _check_widget(value: Any) -> None:
    if value is not None and not (isinstance(value, list) and all(isinstance(example, dict) for example in value)):
        _refuse("widget", "a list of examples with a text each", value)


def _check_results(metadata: Mapping[str, Any]) -> None:
    index = metadata.get("model-index")
    if index is None:
        return
    try:
        found = ModelCardData(**{"model-index": index}).eval_results or []
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise UserError(f"model-index in the card's metadata cannot be read: {' '.join(str(error).split())}") from error
    for result in found:
        if isinstance(result.metric_value, float) and not math.isfinite(result.metric_value):
            _refuse("model-index", "finite figures", result.metric_value)


def _refuse(name: str, expected: str, value: Any) -> None:
    raise UserError(f"{name} in the card's metadata has to be {expected} but is {value!r}")
