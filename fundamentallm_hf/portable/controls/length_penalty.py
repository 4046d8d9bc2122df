"""`length_penalty` where there are no beams: it shifts the probability of an end."""

from transformers.utils import logging

from ..decoding.call_processors import CallProcessors
from ..decoding.endings import LengthPenaltyLogitsProcessor
from ..decoding.phases import Phase

length_logger = logging.get_logger(__name__)


def add_length_penalty(step: CallProcessors) -> None:
    """Apply the `length_penalty` of a call to its ends; in beam search transformers ranks beams by it."""
    call = step.call
    penalty = call.field("length_penalty")
    if penalty in (None, 1.0) or not call.is_sequential:
        return
    if call.end_tokens:
        step.add(Phase.LENGTH, LengthPenaltyLogitsProcessor(penalty, call.end_tokens))
    else:
        length_logger.warning(
            f"length_penalty is {penalty} but has no effect: the model has no end-of-text token, so only the limit on "
            f"new tokens and stop strings end its texts."
        )
