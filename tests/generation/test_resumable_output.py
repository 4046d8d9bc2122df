"""An output file that survives being killed: at every single step, and between any two of them."""

import json
import os
import signal

import pytest

from fundamentallm_hf.generation import resumable_output
from fundamentallm_hf.generation.resumable_output import Finished, ResumableFile, RunState, StreamOutput, is_resumable
from fundamentallm_hf.portable.errors import UserError

PLAN = {"input": "abc", "settings": {"temperature": 0.8, "stop": ("a", "b")}}
PROMPTS = 7
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch):
    # What is killed is the process, not the machine, and a busy disk takes its time.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def lines(number):
    return [json.dumps({"line": number, "sample": sample}) for sample in range(1 + number % 3)]


EVERYTHING = "".join(f"{line}\n" for number in range(PROMPTS) for line in lines(number))


def work(path, order=range(PROMPTS), plan=PLAN, **options):
    """Write what is missing of some prompts, two at a time, and say how many that were."""
    output = ResumableFile(path, **options)
    complete = False
    try:
        output.begin(plan, 5)
        state = output.state
        missing = [number for number in order if number >= state.done and number not in state.ahead]
        for index in range(0, len(missing), 2):
            output.write([Finished(number, lines(number), number == 6) for number in missing[index : index + 2]])
        complete = True
    finally:
        output.close(complete)
    return len(missing)


def killed_at(step, half, path, monkeypatch, **options):
    """Work in a process that is killed at its `step`-th system call on files; whether it got that far."""
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    left = [step]

    def mortal(call):
        def counted(*arguments, **keywords):
            left[0] -= 1
            if left[0] == 0:
                if half and call is write:
                    write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **keywords)

        return counted

    write = os.write
    for name in ("open", "write", "fsync", "ftruncate", "close", "replace", "unlink"):
        monkeypatch.setattr(os, name, mortal(getattr(os, name)))
    try:
        work(path, **options)
    finally:
        os._exit(0)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("order", [range(PROMPTS), [2, 0, 5, 1, 6, 3, 4]], ids=["in order", "as they finish"])
def test_killed_at_any_step_it_goes_on_and_every_prompt_is_there_once(order, half, tmp_path, monkeypatch):
    monkeypatch.setattr(resumable_output, "BETWEEN_COMMITS", 0)
    step, died = 1, True
    while died:
        path = tmp_path / f"{step}.jsonl"
        died = killed_at(step, half, path, monkeypatch, order=order)
        # Killed once more in the next try, wherever that is.
        killed_at(1 + step * 7 % 11, half, path, monkeypatch, order=order)
        work(path, order=order)
        assert sorted(path.read_text().splitlines()) == sorted(EVERYTHING.splitlines())
        if isinstance(order, range):
            assert path.read_text() == EVERYTHING
        record = json.loads((tmp_path / f"{step}.jsonl.run.json").read_text())
        assert (record["state"]["complete"], record["state"]["errors"], record["state"]["seed"]) == (True, 1, 5)
        assert work(path, order=order) == 0
        step += 1
    assert step > 20
    assert {file.suffix for file in tmp_path.iterdir()} == {".jsonl", ".json"}


@pytest.mark.parametrize("option", ["force", "append"])
def test_killed_at_any_step_a_file_that_was_there_is_replaced_or_added_to(option, tmp_path, monkeypatch):
    monkeypatch.setattr(resumable_output, "BETWEEN_COMMITS", 0)
    step, died = 1, True
    while died:
        path = tmp_path / f"{step}.jsonl"
        path.write_text("old")
        died = killed_at(step, True, path, monkeypatch, **{option: True})
        work(path, **{option: True})
        assert path.read_text() == ("" if option == "force" else "old\n") + EVERYTHING
        step += 1


def test_little_is_done_again_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.setattr(resumable_output, "BETWEEN_COMMITS", 0)
    left = []
    for step in range(1, 60):
        path = tmp_path / f"{step}.jsonl"
        if killed_at(step, False, path, monkeypatch):
            left.append(work(path))
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0


def test_a_run_with_other_settings_is_refused_and_the_file_is_as_it_was(tmp_path):
    path = tmp_path / "out.jsonl"
    work(path)
    other = {"input": "abd", "settings": {"temperature": 0.9, "stop": ("a", "b")}}
    before = path.read_bytes(), (tmp_path / "out.jsonl.run.json").read_bytes()
    with pytest.raises(UserError, match=r"another run \(changed: input 'abc' to 'abd', temperature 0.8 to 0.9\)"):
        work(path, plan=other)
    assert (path.read_bytes(), (tmp_path / "out.jsonl.run.json").read_bytes()) == before
    for _ in range(2):  # the same command once more adds nothing
        work(path, plan=other, append=True)
        assert path.read_text() == EVERYTHING * 2
    work(path, plan=other, force=True)
    assert path.read_text() == EVERYTHING


def test_an_unfinished_run_is_not_added_to_by_another(tmp_path, monkeypatch):
    path = tmp_path / "out.jsonl"
    monkeypatch.setattr(resumable_output, "BETWEEN_COMMITS", 0)
    assert killed_at(14, False, path, monkeypatch)
    before = path.read_bytes()
    for options in ({}, {"append": True}):
        with pytest.raises(UserError, match="contains the unfinished texts of another run"):
            work(path, plan=PLAN | {"input": "x"}, **options)
    assert path.read_bytes() == before
    # With the same plan they continue it, as the command that was killed.
    work(path, force=True)
    assert path.read_text() == EVERYTHING


def test_a_file_that_no_run_has_written_is_left_alone(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("mine\n")
    with pytest.raises(UserError, match="exists: use --force to replace it or --append"):
        ResumableFile(path)
    path.write_text("")  # nothing is lost
    work(path)
    assert path.read_text() == EVERYTHING


def test_a_file_that_was_cut_short_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "out.jsonl"
    monkeypatch.setattr(resumable_output, "BETWEEN_COMMITS", 0)
    assert killed_at(14, False, path, monkeypatch)
    path.write_bytes(path.read_bytes()[:3])
    with pytest.raises(UserError, match="is shorter than recorded"):
        work(path)


def test_a_record_that_cannot_be_read_is_one_line(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("x\n")
    for text in ("{", "[]", '{"plan": {}, "offset": 1, "state": {"elsewhere": 1}}'):
        (tmp_path / "out.jsonl.run.json").write_text(text)
        with pytest.raises(UserError, match="cannot be read as the record of a run"):
            work(path)


def test_two_processes_do_not_write_one_file(tmp_path):
    first = ResumableFile(tmp_path / "out.jsonl")
    first.begin(PLAN, 1)
    with pytest.raises(UserError, match="another process is writing output-file"):
        work(tmp_path / "out.jsonl")
    first.close(False)
    work(tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == EVERYTHING


def test_a_target_that_cannot_be_is_refused_at_once(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        ResumableFile(tmp_path / "folder")
    with pytest.raises(UserError, match="which is not a folder: create it first"):
        ResumableFile(tmp_path / "missing" / "out.jsonl")
    assert is_resumable(tmp_path / "new.jsonl")
    assert not is_resumable(os.devnull)


def test_a_stream_is_written_as_it_comes():
    written = []
    output = StreamOutput(written.append)
    output.begin(PLAN, 3)
    output.write([Finished(0, ["a", "b"], tokens=4), Finished(1, ["c"], failed=True)])
    output.close(True)
    assert written == ["a\nb\nc\n"]
    assert output.state == RunState(done=2, texts=2, errors=1, seed=3)
