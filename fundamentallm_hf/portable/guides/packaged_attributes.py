"""Attributes included as code, for use without folders.

Empty in this package, whose attributes are in folders. `fundamentallm push-controls` writes those into its copy of this
file, because transformers only downloads Python files with a recipe of `generate()`.
"""

from typing import Any

# By name, the fields of an `attribute.json` together with its words.
PACKAGED: dict[str, dict[str, Any]] = {}
