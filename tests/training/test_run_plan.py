"""A resumed run is the same as the started run, or it is refused."""

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fundamentallm_hf import UserError
from fundamentallm_hf.training.run_plan import PLAN, check_plan, last_checkpoint, make_plan, step_plan, write_plan
from fundamentallm_hf.training.training_options import TrainingOptions

TOKENS = torch.arange(50)


def options(folder, **given):
    return TrainingOptions(files=["a.txt"], output_dir=folder, **given)


def begun(folder, done, **given):
    """A run that has done so many steps."""
    folder.mkdir(exist_ok=True)
    write_plan(make_plan(options(folder, **given), TOKENS, {}), folder)
    checkpoint = folder / f"checkpoint-{done}"
    checkpoint.mkdir(exist_ok=True)
    (checkpoint / "trainer_state.json").write_text("{}")
    return checkpoint


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    steps=st.integers(1, 60),
    changed=st.integers(1, 60),
    done=st.integers(1, 60),
    decay=st.sampled_from([0.1, 0.5, 1.0]),
    stages=st.sampled_from(["", "8:0.5", "8:0.2,16:0.3"]),
)
def test_other_steps_are_taken_exactly_where_nothing_done_depends_on_them(
    tmp_path_factory, steps, changed, done, decay, stages
):
    folder, done = tmp_path_factory.mktemp("run"), min(done, steps)
    shared = {"decay_share": decay, "stages": stages, "warmup_steps": 3}
    checkpoint = begun(folder, done, steps=steps, **shared)
    again = options(folder, steps=changed, **shared)
    same = done <= changed and all(
        step_plan(again, step, steps) == step_plan(again, step, changed) for step in range(done)
    )
    plan = make_plan(again, TOKENS, {})
    if same:
        assert check_plan(again, plan, folder) == checkpoint
    else:
        with pytest.raises(UserError, match=f"of {steps} steps in .* has done {done}"):
            check_plan(again, plan, folder)


@pytest.mark.parametrize(
    ("name", "value"), [("lr", 0.1), ("layers", 2), ("seed", 1), ("optimizer", "muon"), ("separator", "#")]
)
def test_other_options_are_refused_by_name(tmp_path, name, value):
    begun(tmp_path / "run", 5)
    again = options(tmp_path / "run", **{name: value})
    with pytest.raises(UserError, match=f"started with {name} .* and not {value}"):
        check_plan(again, make_plan(again, TOKENS, {}), tmp_path / "run")


def test_another_text_is_refused_and_what_leaves_the_result_alone_is_not(tmp_path):
    folder = tmp_path / "run"
    checkpoint = begun(folder, 5)
    again = options(folder, threads=1, patience=9, eval_every=7)
    assert check_plan(again, make_plan(again, TOKENS, {}), folder) == checkpoint
    with pytest.raises(UserError, match="started with another text"):
        check_plan(again, make_plan(again, TOKENS + 1, {}), folder)


def test_checkpoints_that_are_not_complete_or_of_another_program(tmp_path):
    assert last_checkpoint(tmp_path / "nothing") is None
    checkpoint = begun(tmp_path, 5)
    (tmp_path / "checkpoint-9").mkdir()
    (tmp_path / "checkpoint-12").mkdir()
    (tmp_path / "checkpoint-12" / "trainer_state.json").write_text('{"half')
    assert last_checkpoint(tmp_path) == checkpoint
    for content in (None, "{", json.dumps([]), json.dumps({"steps": "many"})):
        (tmp_path / PLAN).unlink(missing_ok=True)
        if content is not None:
            (tmp_path / PLAN).write_text(content)
        with pytest.raises(UserError, match=r"no readable plan\.json"):
            check_plan(options(tmp_path), make_plan(options(tmp_path), TOKENS, {}), tmp_path)
