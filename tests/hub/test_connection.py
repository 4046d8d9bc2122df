"""How often something is tried, and that a conversation leaves huggingface_hub as it was."""

import logging
import warnings

import pytest
from huggingface_hub.utils import _http, are_progress_bars_disabled, get_session, httpx

from fundamentallm_hf.hub.connection import conversation, try_again
from fundamentallm_hf.portable.errors import UserError


def failing(*errors):
    left = list(errors)

    def action():
        if left:
            raise left.pop(0)
        return "done"

    return action


BROKEN = httpx.ReadError("broken")


def test_what_may_pass_is_tried_again_and_told(waits):
    said = []
    assert try_again(failing(BROKEN, httpx.ReadTimeout("silent")), said.append) == "done"
    assert waits == [1, 2]
    assert said == ["the connection broke: trying again in 1 s", "the connection broke: trying again in 2 s"]


@pytest.mark.parametrize(("errors", "tries"), [((BROKEN,) * 9, 3), ((ValueError("no"),), 1), ((UserError("no"),), 1)])
def test_there_is_an_end_to_it(waits, errors, tries):
    action = failing(*errors)
    with pytest.raises(type(errors[0])):
        try_again(action, lambda text: None)
    assert len(waits) == tries - 1


def test_a_users_error_about_a_broken_connection_is_final(waits):
    def action():
        try:
            raise BROKEN
        except httpx.ReadError:
            raise UserError("the answer was lost") from None

    with pytest.raises(UserError):
        try_again(action, lambda text: None)
    assert not waits


def test_a_conversation_leaves_all_as_it_was():
    logger = logging.getLogger("huggingface_hub")
    before = (logger.handlers, logger.propagate, _http._GLOBAL_CLIENT_FACTORY, are_progress_bars_disabled())
    said = []
    with conversation(said.append):
        assert get_session().event_hooks["request"]
        logging.getLogger("huggingface_hub.anything").warning("Something with\nhf_%s in it", "a" * 34)
        warnings.warn("the card lacks metadata", UserWarning, stacklevel=1)
        warnings.warn("not for users", DeprecationWarning, stacklevel=1)
    assert said == ["Something with hf_... in it", "the card lacks metadata"]
    after = (logger.handlers, logger.propagate, _http._GLOBAL_CLIENT_FACTORY, are_progress_bars_disabled())
    assert after == before
    assert len(get_session().event_hooks["request"]) == 1
