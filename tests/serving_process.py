"""`fundamentallm serve` in a process of its own and a model with a chat template, for tests."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from small_models import byte_level_gpt2

from fundamentallm_hf import Generator, load_model

PROMPT = "Once upon a time"
CHAT = [{"role": "user", "content": "Tell a story."}]
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


# Fixtures for the modules that import them; a conftest.py here would hide that of the folder above.
@pytest.fixture(scope="module", name="demo")
def bundled_generator():
    """A generator with the bundled model, which the server has without a name."""
    return Generator(load_model(device="cpu"), notice=lambda line: None)


@pytest.fixture(scope="module", name="chatty")
def chat_generator(tmp_path_factory):
    """A generator with a small saved model that has a chat template, and the name to ask the server for."""
    folder = tmp_path_factory.mktemp("chatty") / "gpt2"
    model = byte_level_gpt2()
    model.tokenizer.chat_template = TEMPLATE
    model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return Generator(model, model.tokenizer, notice=lambda line: None), str(folder)


class Server:
    def __init__(self, *options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "fundamentallm_hf", "serve", "--port", str(self.port), "--device", "cpu"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen([*command, *options], env=environment, stderr=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{self.port}"
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5)
                return
            except OSError:
                assert self.process.poll() is None, self.process.stderr.read()[-3000:]
                time.sleep(0.25)
        raise AssertionError("the server does not answer")

    def get(self, path, **headers):
        """The content of a page."""
        request = urllib.request.Request(f"{self.url}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read().decode()

    def metric(self, *names):
        """The sum of the numbers of the metrics that begin with these names."""
        lines = self.get("/metrics").splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(names))

    @property
    def running(self):
        """Texts that are computed or wait."""
        return self.metric("fundamentallm_running", "fundamentallm_waiting")

    def until_idle(self, seconds=20):
        """Wait until no text is computed; returns whether that is so."""
        ended = time.monotonic() + seconds
        while self.running and time.monotonic() < ended:
            time.sleep(0.1)
        return not self.running

    def ask(self, model, prompt=PROMPT, stream=False, config=None, **body):
        """The text, or the status and what is said."""
        body |= {"model": str(model), "prompt": prompt, "stream": stream}
        if config is not None:
            body["generation_config"] = json.dumps(config)
        request = urllib.request.Request(
            f"{self.url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                content = answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        if not stream:
            return json.loads(content)["choices"][0]["text"]
        parts = [json.loads(line[6:]) for line in content.splitlines() if line.startswith("data: {")]
        return "".join(part["choices"][0]["text"] for part in parts if part.get("choices"))

    def close(self):
        self.process.kill()
        self.process.communicate()
