"""The examples of docs/long_runs.md run on one machine, in processes of their own, and write the texts of the command.

Slurm is the real one if it runs on this machine, and otherwise a few lines of shell that set the same variables.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import MODEL, run

PAGE = (Path(__file__).parents[1] / "docs" / "long_runs.md").read_text(encoding="utf-8")
PROMPTS = [f"{word} {number}" for number in range(6) for word in ("To be", "The king", "", "No")]
SHIMS = {
    "sbatch": """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
run() { SLURM_JOB_ID=7 SLURM_JOB_NODELIST=localhost SLURM_NNODES=1 bash "$@"; }
if [[ $(< "$1") =~ --array=([0-9]+)-([0-9]+) ]]; then
  for task in $(seq "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"); do SLURM_ARRAY_TASK_ID=$task run "$@" || exit 1; done
else run "$@"; fi
""",
    "srun": '#!/bin/bash\nSLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 exec "$@"\n',
    "scontrol": "#!/bin/bash\necho 127.0.0.1\n",
}
pytestmark = pytest.mark.slow


def block(kind, first):
    """The block of this kind with this line in it, with a small model in place of the bundled one."""
    (found,) = [each for each in re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if first in each]
    found = found.replace("load_model()", f"load_model({str(MODEL)!r}, device='cpu')")
    return found.replace(" generate ", f" generate {MODEL} --device cpu ").replace("--max-tokens 40", "--max-tokens 5")


def needs(*packages):
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    Path("writer.py").write_text(block("python", "def write(batch)").replace("max_tokens=40", "max_tokens=5"))
    Path("bin").mkdir()
    for name, text in SHIMS.items():
        shim = Path("bin", name)
        shim.write_text(text)
        shim.chmod(0o755)
    Path("bin", "fundamentallm").write_text(f'#!/bin/bash\nexec {sys.executable} -m fundamentallm_hf "$@"\n')
    Path("bin", "torchrun").write_text(f'#!/bin/bash\nexec {sys.executable} -m torch.distributed.run "$@"\n')
    for name in ("fundamentallm", "torchrun"):
        Path("bin", name).chmod(0o755)
    return tmp_path


def environment():
    """That of the examples: no network, one thread, and this library for every process that they start."""
    path = f"{Path('bin').absolute()}:{os.environ['PATH']}"
    if _slurm_runs():
        for name in SHIMS:
            Path("bin", name).unlink()
    library = os.pathsep.join([str(Path(__file__).parents[1]), *(each for each in sys.path if "site-packages" in each)])
    more = {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_memory_monitor_refresh_ms": "0",
    }
    return os.environ | more | {"PATH": path, "PYTHONPATH": library, "PYSPARK_PYTHON": sys.executable}


def _slurm_runs():
    if shutil.which("sinfo") is None:
        return False
    found = subprocess.run(["sinfo", "-h", "-t", "idle"], capture_output=True, text=True, timeout=60)
    return found.returncode == 0 and bool(found.stdout.strip())


def shell(script, timeout=540):
    result = subprocess.run(
        ["bash", "-e", "-c", script], env=environment(), capture_output=True, text=True, timeout=timeout
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]


def records(*files):
    return [json.loads(line) for file in files for line in Path(file).read_text().splitlines()]


def expected(*settings):
    """The texts of the command in one process."""
    options = ["generate", MODEL, "--device", "cpu", "--max-tokens", 5, "--seed", 7, *settings]
    assert run(*options, "--prompts-file", "in.jsonl", "--output-file", "whole.jsonl").exit_code == 0
    return {each["prompt"]: each["completion"] for each in records("whole.jsonl")}


def texts(*files):
    found = records(*files)
    assert len(found) == len(PROMPTS)
    return {each["prompt"]: each["completion"] for each in found}


def test_a_job_over_several_processes_and_the_next_that_continues_it(place):
    Path("generate.sbatch").write_text(block("sbatch", "--job-name=stories"))
    submit = block("sbatch", "--dependency=singleton")
    shell(submit.replace("sbatch ", "sbatch --wait "))
    assert texts("out.jsonl") == expected()
    assert Path("out.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


def test_an_array_of_jobs(place):
    Path("array.sbatch").write_text(block("sbatch", "--job-name=parts"))
    shell(block("sbatch", "split --number"))
    assert [each["prompt"] for each in records("out.jsonl")] == PROMPTS
    assert texts("out.jsonl") == expected()


def program(first):
    Path("program.py").write_text(block("python", first))
    shell(f"{sys.executable} program.py")
    return expected("--temperature", 0.8, "--bad-words", "ran")


@needs("datasets")
def test_datasets(place):
    whole = program("from datasets import Dataset")
    assert texts("texts.jsonl") == whole
    assert [each["prompt"] for each in records("texts.jsonl")] == PROMPTS


@needs("ray", "pandas", "pyarrow")
def test_ray(place):
    assert program("ray.init(") == texts(*Path("texts").glob("*.json"))


@needs("pyspark", "pandas", "pyarrow")
@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")
def test_spark(place):
    assert program("SparkSession.builder") == texts(*Path("texts").glob("part-*.json"))


def test_a_prompt_that_fails_has_its_error(place, monkeypatch):
    monkeypatch.syspath_prepend(str(place))
    import writer

    long = "a" * 10_000
    writer.generator().settings = writer.generator().settings.replace(overflow="error")
    found = writer.write({"prompt": ["To be", long]})
    assert found["prompt"] == ["To be", long]
    assert found["completion"][0]
    assert found["completion"][1] is None
    assert found["error"][0] is None
    assert "context" in found["error"][1] or "tokens" in found["error"][1]
    monkeypatch.delitem(sys.modules, "writer")
