"""The licence of this package, which is added wherever its code is copied."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

PACKAGE = "fundamentallm-hf"


def code_license() -> str:
    """The text of the licence, from the installed package or from a checkout."""
    try:
        text = distribution(PACKAGE).read_text("licenses/LICENSE")
    except PackageNotFoundError:
        text = None
    return text or (Path(__file__).parents[2] / "LICENSE").read_text(encoding="utf-8")
