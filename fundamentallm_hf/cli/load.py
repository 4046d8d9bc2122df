"""Loads the model of a command."""

from typing import TYPE_CHECKING, Any

from fundamentallm_hf.portable.guides.attributes import Attribute

from .terminal import Notes

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load(model: str | None, notes: Notes, **options: Any) -> "PreTrainedModel":
    """Load a model, with only relevant messages on stderr."""
    with notes.busy(f"loading {model or 'the bundled model'}"):
        from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
        from transformers.utils import logging

        from fundamentallm_hf.model_io.loading import load_model

        unwanted = are_progress_bars_disabled()
        logging.disable_progress_bar()  # the bar for reading weights, which takes a moment; it also disables the Hub's
        if notes.shows_progress and not unwanted:
            enable_progress_bars()
        if notes.quiet:
            logging.set_verbosity_error()
        return load_model(model, notice=notes.say, progress=notes.shows_progress, **options)


def lend_attributes(model: "PreTrainedModel", attributes: dict[str, Attribute]) -> None:
    """Give a model the attributes that the user has named by their folders."""
    if attributes:
        model.attributes = (getattr(model, "attributes", None) or {}) | attributes
