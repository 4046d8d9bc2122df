"""Retries, and that a conversation leaves huggingface_hub unchanged."""

import logging
import random
import threading
import warnings
from contextlib import ExitStack

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


def state():
    logger = logging.getLogger("huggingface_hub")
    return (
        logger.handlers,
        logger.propagate,
        _http._GLOBAL_CLIENT_FACTORY,
        len(get_session().event_hooks["request"]),
        are_progress_bars_disabled(),
        warnings.showwarning,
        warnings.filters[:],
    )


@pytest.mark.parametrize("seed", range(20))
def test_conversations_that_overlap_in_any_order_leave_all_as_it_was(seed):
    """Begun and ended in a drawn order, each in a thread of its own, with a limit and bars while any is open."""
    draw = random.Random(seed)
    before, said = state(), {}

    class Talker(threading.Thread):
        def __init__(self, number):
            super().__init__()
            self.number, self.begun, self.end = number, threading.Event(), threading.Event()
            said[number] = []

        def run(self):
            with conversation(said[self.number].append, progress=self.number % 3 == 0):
                self.begun.set()
                self.end.wait(30)
                logging.getLogger("huggingface_hub.x").warning("line of %d", self.number)
                warnings.warn(f"warning of {self.number}", UserWarning, stacklevel=1)

    begun, waiting = [], [Talker(number) for number in range(5)]
    while begun or waiting:
        if waiting and (not begun or draw.random() < 0.6):
            talker = waiting.pop(draw.randrange(len(waiting)))
            talker.start()
            assert talker.begun.wait(30)
            begun.append(talker)
        else:
            talker = begun.pop(draw.randrange(len(begun)))
            talker.end.set()
            talker.join(30)
        if begun:
            assert len(get_session().event_hooks["request"]) == 2
            assert are_progress_bars_disabled() is not any(talker.number % 3 == 0 for talker in begun)
    assert state() == before
    assert said == {number: [f"line of {number}", f"warning of {number}"] for number in range(5)}


def test_one_inside_another_is_no_different():
    before, said = state(), []
    with ExitStack() as stack:
        stack.enter_context(conversation(lambda text: said.append(f"outer {text}")))
        with conversation(lambda text: said.append(f"inner {text}")):
            logging.getLogger("huggingface_hub").warning("a")
        logging.getLogger("huggingface_hub").warning("b")
    assert (state(), said) == (before, ["inner a", "outer b"])


def test_a_conversation_cuts_off_nobody_elses_request(hub):
    """The client of a request that is on its way stays open while conversations begin and end."""
    hub.fail("whoami", ("stall", 1.0))
    done = []

    def ask():
        try:
            done.append(get_session().get(f"{hub.url}/api/whoami-v2").status_code)
        except httpx.RemoteProtocolError as error:  # the server's own end of it
            done.append(str(error))

    client, asking = get_session(), threading.Thread(target=ask)
    asking.start()
    while not hub.asked("whoami"):
        pass
    for _ in range(3):
        with conversation(lambda text: None):
            assert get_session() is client
    asking.join(30)
    assert done == ["Server disconnected without sending a response."]
    assert get_session() is client


def test_what_a_thread_of_huggingface_hub_logs_is_told_to_all():
    said = []
    with (
        conversation(lambda text: said.append(f"outer {text}")),
        conversation(lambda text: said.append(f"inner {text}")),
    ):
        worker = threading.Thread(target=logging.getLogger("huggingface_hub").warning, args=("a",))
        worker.start()
        worker.join()
    assert said == ["outer a", "inner a"]


def test_warnings_of_other_threads_go_where_they_would(recwarn):
    said = []
    with conversation(said.append):
        worker = threading.Thread(target=warnings.warn, args=("theirs", UserWarning))
        worker.start()
        worker.join()
    assert said == []
    assert [str(each.message) for each in recwarn] == ["theirs"]
