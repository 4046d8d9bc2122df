"""Several processes behind one address: each request gets its text, whoever answers, and one that dies is replaced."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from serving_process import PROMPT, Server, bundled_generator, chat_generator  # noqa: F401

pytest.importorskip("openai", reason="serving needs fundamentallm-hf[serve]")

from fundamentallm_hf.model_io.loading import DEMO_MODEL
from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.serving.guard import Guard
from fundamentallm_hf.serving.metrics import Metrics
from fundamentallm_hf.serving.server_limits import ServerLimits
from fundamentallm_hf.serving.shared_counts import TEXT_PATHS, SharedCounts
from fundamentallm_hf.serving.workers import listen, read_address, run_workers, thread_share

pytestmark = pytest.mark.core
CONTROLS = ({}, {"must_include": ["dragon"]}, {"bad_words": ["the", "was"]}, {"repetition_penalty": 1.2}, {"top_k": 5})


class Workers(Server):
    """A server with two workers."""

    def __init__(self, *options):
        super().__init__(str(DEMO_MODEL), "--workers", "2", *options)
        self.until_complete()

    def until_complete(self):
        """Wait until both workers answer."""
        ended = time.monotonic() + 300
        while self.metric("fundamentallm_workers") < 2:
            assert time.monotonic() < ended, "a worker is missing"
            time.sleep(0.1)

    @property
    def workers(self):
        """The processes that answer."""
        children = psutil.Process(self.process.pid).children()
        return [each for each in children if each.status() != "zombie" and "--multiprocessing-fork" in each.cmdline()]


def draws(number, seed):
    """(settings, streamed) of requests with all kinds of controls."""
    chance = random.Random(seed)
    return [
        ({"seed": chance.randrange(1000), "temperature": 0.8, "max_tokens": 20, **chance.choice(CONTROLS)}, each % 2)
        for each in range(number)
    ]


def kill(process):
    """End a process at once, and wait until it has ended."""
    os.kill(process.pid, signal.SIGKILL)
    while psutil.pid_exists(process.pid) and process.status() != "zombie":
        time.sleep(0.01)


def answered(server):
    return server.metric('fundamentallm_requests_total{path="/v1/completions",status="200"}')


def test_each_gets_the_text_of_the_command_and_a_worker_that_dies_is_replaced(demo):
    server, asked = Workers("--limit-samples", "2"), draws(16, seed=1)

    def ask(case):
        settings, stream = case
        return server.ask(DEMO_MODEL, stream=bool(stream), **settings)

    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(ask, asked))
        assert found == [demo.complete(PROMPT, **settings)[0].completion for settings, _ in asked]
        # Every page has the sum, and what one worker refuses the other refuses as well.
        assert [answered(server) for _ in range(6)] == [16] * 6
        assert {server.ask(DEMO_MODEL, n=3)[0] for _ in range(4)} == {400}
        tokens = sum(demo.complete(PROMPT, **settings)[0].tokens for settings, _ in asked)
        ended = time.monotonic() + 60
        while server.metric("fundamentallm_tokens_total") != tokens:  # what another worker does is seen a moment later
            assert time.monotonic() < ended
            time.sleep(0.1)

        for victim in server.workers:  # so both are seen to answer alone
            kill(victim)
            assert [ask(case) for case in asked[:2]] == found[:2]
            victim.wait(60)  # until it was noticed
            server.until_complete()
        assert [ask(case) for case in asked[:4]] == found[:4]
        assert answered(server) == 16 + 2 + 2 + 4
        assert server.until_idle()

        left = [server.process, *server.workers]
        server.process.terminate()
        said = server.process.communicate(timeout=60)[1]
        assert server.process.returncode == 0
        assert said.count("has died and is replaced") == 2
        assert "Traceback" not in said
        assert "leaked" not in said
        assert not [each for each in left if psutil.pid_exists(each.pid)]
    finally:
        server.close()


def test_a_model_that_cannot_be_loaded_ends_the_command_in_one_line():
    with pytest.raises(AssertionError) as ended:
        Server("./no-such-model", "--workers", "2")
    lines = [line for line in str(ended.value).splitlines() if line.startswith("Error")]
    assert len(lines) == 1
    assert "no-such-model" in lines[0]


def test_a_port_in_use_and_wrong_options_are_reported_before_a_worker_starts():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen at localhost, port {port}: Address already in use"):
            run_workers(2, ("--port", str(port)), ServerLimits(), None)
    with pytest.raises(UsageError, match="No such option '--nothing'"):
        read_address(("--nothing",))
    with pytest.raises(UserError, match=r"cannot listen at nowhere\.invalid, port 1"):
        listen("nowhere.invalid", 1)
    assert read_address((str(DEMO_MODEL), "--port", "9")) == ("localhost", 9)


def test_all_addresses_of_a_host_have_one_port():
    sockets = listen("localhost", 0)
    assert len({each.getsockname()[1] for each in sockets}) == 1
    for each in sockets:
        with socket.create_connection(each.getsockname()[:2], timeout=5):
            each.close()


@pytest.mark.parametrize(("cores", "workers", "threads"), [(2, 2, 1), (8, 2, 4), (8, 3, 2), (2, 5, 1)])
def test_the_cores_are_shared(monkeypatch, cores, workers, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    assert thread_share(workers) == threads


@pytest.mark.parametrize("seed", range(5))
def test_counts_of_the_dead_are_kept_and_their_texts_are_not(seed):
    chance = random.Random(seed)
    counts, alive, expected, next_id = SharedCounts(3), set(), 0, 1
    for _ in range(60):
        while len(alive) < 3:
            alive.add(next_id)
            next_id += 1
        counts.assign(alive)
        assert sorted(row.process for row in counts.rows) == sorted(alive)
        for row in counts.rows:
            metrics = Metrics(counts, row)
            row.ready, row.running, row.waiting = 1, 1, 2
            metrics.count("/v1/completions", 200)
            expected += 1
        assert (counts.total("running"), counts.total("waiting")) == (3, 6)
        gone = set(chance.sample(sorted(alive), chance.randrange(4)))
        alive -= gone
        assert {process for process, ready in counts.assign(alive) if ready} == gone
        assert counts.total("running") == len(alive)
        assert list(counts.answers()) == [("/v1/completions", 200, expected)]


@pytest.mark.parametrize(
    ("waiting", "answering", "status", "closes"), [(0, 0, 200, True), (0, 9, 200, False), (5, 0, 503, False)]
)
def test_what_others_do_is_known_where_a_request_comes_in(waiting, answering, status, closes):
    counts, sent = SharedCounts(2), []
    own, other = counts.rows
    own.ready = other.ready = 1
    own.answering, other.answering, other.waiting = 3, answering, waiting
    path = "/v1/completions"

    async def app(scope, receive, send):
        assert own.answering == 4
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})

    async def send(message):
        sent.append(message)

    guard = Guard(app, TEXT_PATHS, None, 5, Metrics(counts, own))
    asyncio.run(guard({"type": "http", "path": path, "headers": [], "method": "POST"}, None, send))
    assert sent[0]["status"] == status
    assert ((b"connection", b"close") in sent[0]["headers"]) == closes
    assert own.answering == 3
    assert list(counts.answers()) == [(path, status, 1)]


CHILD = """
import multiprocessing, time
from fundamentallm_hf.serving.worker import _end_with_parent
child = multiprocessing.get_context("spawn").Process(target=_end_with_parent)
child.start()
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_worker_ends_with_the_process_that_started_it_even_if_that_is_killed():
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        kill(psutil.Process(parent.pid))
    child.wait(60)


@pytest.mark.parametrize(
    ("own", "others", "crowded"), [(1, [], 0), (2, [0], 1), (1, [0], 0), (2, [1], 0), (9, [2, 8], 1)]
)
def test_a_client_is_sent_on_where_another_has_less_to_do(own, others, crowded):
    counts = SharedCounts(1 + len(others))
    for row, answering in zip(counts.rows, [own, *others], strict=True):
        row.ready, row.answering = 1, answering
    assert Metrics(counts, counts.rows[0]).crowded == crowded
    for row in list(counts.rows)[1:]:
        row.ready = 0
    assert not Metrics(counts, counts.rows[0]).crowded
