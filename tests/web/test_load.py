"""Several visitors at once, briefly; `benchmarks/web_load.py` runs for minutes."""

import gc
import logging
import sys
from collections import Counter, deque
from itertools import pairwise, repeat
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the web demo needs gradio")

import httpx
from web_server import start

from fundamentallm_hf.web.actions import BUSY, WAITING


@pytest.fixture
def web_load(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import web_load

    yield web_load
    monkeypatch.delitem(sys.modules, "web_load")


def test_visitors_are_served_with_their_own_texts_at_the_same_time(web_load, monkeypatch):
    _, address, writer = start()
    monkeypatch.setattr(web_load, "SETTINGS", web_load.SETTINGS | {"max_tokens": 15})
    pairs = [(prompt, seed) for prompt in web_load.PROMPTS for seed in (1, 2)]
    expected = {
        (prompt, seed): writer.generator.generate(prompt, seed=seed, **web_load.SETTINGS) for prompt, seed in pairs
    }
    tallies = web_load.run(address, expected, visitors=6, seconds=3)
    assert all(tally.seconds for tally in tallies)
    assert sum(tally.wrong for tally in tallies) == 0
    assert [tally.failed for tally in tallies] == [[]] * 6
    assert len(writer.stops) == 0


def test_who_comes_when_too_many_wait_is_told_so(web_load):
    _, address, writer = start()
    visitor = web_load.Visitor(address, "late", httpx.get(f"{address}/config").json())
    for number in range(WAITING):
        writer.stops.open(f"waiting{number}")
    try:
        assert visitor.ask("Once", 1) is None
    finally:
        for number in range(WAITING):
            writer.stops.close(f"waiting{number}", writer.stops.find(f"waiting{number}"))
    assert visitor.ask("Once", 1)
    assert str(WAITING) in BUSY


def test_a_session_keeps_nothing_but_what_was_written_last(web_load, monkeypatch):
    blocks, address, _ = start()
    monkeypatch.setattr(web_load, "SETTINGS", web_load.SETTINGS | {"max_tokens": 4})
    visitor = web_load.Visitor(address, "again", httpx.get(f"{address}/config").json())

    def ask() -> int:
        assert visitor.ask("Once", 1)
        for function, prompt in (("run_search", "Once"), ("run_compare", "Once"), ("run_write", "x" * 10_000)):
            visitor.call("begin")
            assert visitor.call(function, prompt=prompt, max_tokens=4)
            visitor.call("show_result")
            visitor.call("end")
        return len(blocks.state_holder["again"].blocks_config.blocks)

    kept = ask()
    assert [ask() for _ in range(3)] == [kept] * 3


def count_objects():
    """All containers by type, and what they hold by the kind of container: an entry of a dict may be no container."""
    gc.collect()
    objects = gc.get_objects()
    counts = Counter(type(each) for each in objects)
    for kind in (dict, list, set, deque):
        counts["held by", kind] = sum(len(each) for each in objects if type(each) is kind)
    return counts


def test_a_long_session_leaves_no_objects_behind(web_load, monkeypatch):
    """What grows with every request would grow in every round by at least one for each."""
    _, address, writer = start()
    monkeypatch.setattr(web_load, "SETTINGS", web_load.SETTINGS | {"max_tokens": 3})
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)  # pytest keeps what is logged in a test
    visitor = web_load.Visitor(address, "long", httpx.get(f"{address}/config").json())
    requests = 5
    # What is kept of so many calls at most is full then: gradio's statistics, and the timers of the event loop. An ask
    # makes five calls.
    for number in range(25):
        assert visitor.ask("Once", number)

    def grown(leaks=None):
        counts = []
        for each in range(3):
            for number in range(requests):
                # Texts that were not asked for before, as those of a session of branches.
                assert visitor.ask(f"Once {each} {number} {leaks is None}", number)
                if leaks is not None:
                    leaks.extend(repeat(None, 100_000))
            counts.append(count_objects())
        kinds = set().union(*counts)
        steps = [{kind: later[kind] - earlier[kind] for kind in kinds} for earlier, later in pairwise(counts)]
        return {kind for kind in kinds if min(step[kind] for step in steps) >= requests}

    assert grown() == set()
    # So a list that grows would be seen, however much the rest of the process lets go of meanwhile.
    assert ("held by", list) in grown(leaks=[])
    assert len(writer.stops) == 0
