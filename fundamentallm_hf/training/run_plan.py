"""The plan of a training run: values that depend on its number of steps, and the check that a resumed run is the same.

The plan is kept in the run's folder as `plan.json`.
"""

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from fundamentallm_hf.portable.errors import UserError

from .training_options import TrainingOptions, parse_stages
from .windows import stage_length

PLAN, FINISHED = "plan.json", "finished"
_LONGEST = 1 << 30


def warmup_and_decay(options: TrainingOptions, steps: int) -> tuple[int, int]:
    """Numbers of steps in which the learning rate rises, and in which it falls."""
    return min(options.warmup_steps, max(1, steps // 10)), max(1, int(steps * options.decay_share))


def step_plan(options: TrainingOptions, step: int, steps: int) -> tuple[int, int, tuple[int, int]]:
    """What step `step` of `steps` depends on: window length, steps of warm-up, and its position in the decay."""
    warmup, decay = warmup_and_decay(options, steps)
    decayed = max(0, step - (steps - decay))
    return stage_length(parse_stages(options.stages), step / steps, _LONGEST), warmup, (decayed, decay * (decayed > 0))


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is complete."""
    complete = {}
    for checkpoint in folder.glob("checkpoint-*"):
        number = checkpoint.name.rpartition("-")[2]
        try:
            state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if number.isdecimal() and isinstance(state, dict):
            complete[int(number)] = checkpoint
    return complete[max(complete)] if complete else None


def make_plan(options: TrainingOptions, tokens: torch.Tensor, resolved: dict[str, Any]) -> dict[str, Any]:
    """The values that determine the result of a run, for comparison.

    Args:
        options: the options of the run.
        tokens: the training text.
        resolved: the final values of options that the program chose.
    """
    plan = {each.name: str(getattr(options, each.name)) for each in fields(options) if not each.metadata["free"]}
    if options.init_from is None:
        plan |= {name: str(value) for name, value in options.shape().items()}
    plan |= {name: str(value) for name, value in resolved.items()}
    digest = hashlib.sha256(tokens.numpy().tobytes()).hexdigest()[:16]
    return {**plan, "text": digest, "steps": options.steps}


def check_plan(options: TrainingOptions, plan: dict[str, Any], folder: Path) -> Path | None:
    """The checkpoint at which the run continues, or None for its start.

    The number of steps may change as long as no completed step depends on it. The result is then that of a run with the
    new number from the start. All other values have to be the same.

    Raises:
        UserError: the run in `folder` has other options.
    """
    checkpoint = last_checkpoint(folder)
    if checkpoint is None:
        return None
    try:
        old = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        before = int(old["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder} holds checkpoints but no readable {PLAN}: name another output folder") from None
    for name, value in plan.items():
        if name != "steps" and old.get(name) != value:
            was = "another text" if name == "text" else f"{name} {old.get(name)} and not {value}"
            raise UserError(
                f"{folder} holds a run that was started with {was}: "
                "continue it with the options it was started with, or name another output folder"
            )
    done, steps = int(checkpoint.name.rpartition("-")[2]), options.steps
    for step in range(done):
        if step >= steps or step_plan(options, step, before) != step_plan(options, step, steps):
            raise UserError(
                f"the run of {before} steps in {folder} has done {done}, and one of {steps} steps differs from step "
                f"{step} on: keep {before} steps, or name another output folder"
            )
    return checkpoint


def is_finished(options: TrainingOptions, folder: Path) -> bool:
    """Whether the run in `folder` has ended, which may be before its last step."""
    try:
        plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        return FINISHED in plan and plan["steps"] == options.steps
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_plan(plan: dict[str, Any], folder: Path) -> None:
    """Keep the plan in the run's folder.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PLAN).write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to {str(folder)!r}: {error.strerror or error}") from error
