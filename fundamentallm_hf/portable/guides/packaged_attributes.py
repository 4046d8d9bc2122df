"""Attributes that come along as code, where no folders do.

In this package there are none, since its own lie in folders. `fundamentallm push-controls` writes those into its copy
of this file, because with a recipe of `generate()` transformers fetches Python files alone.
"""

from typing import Any

# By name, the fields of an `attribute.json` with the words that lie beside it.
PACKAGED: dict[str, dict[str, Any]] = {}
