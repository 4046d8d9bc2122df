"""transformers' Trainer for character models: the order of windows, stages, early stopping, and progress reports."""

import math
import time
from collections.abc import Callable
from typing import Any

from torch.utils.data import SequentialSampler
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from .windows import TextWindows


class CharacterTrainer(Trainer):
    """A Trainer that also logs the loss in bits per character, and reads its windows in their order."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for callback in (PrinterCallback, ProgressCallback):  # `Reports` replaces them
            self.remove_callback(callback)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, with bits per character next to each loss in nats."""
        for name in ("loss", "eval_loss"):
            if name in logs:
                logs[name.replace("loss", "bits_per_character")] = round(float(logs[name]) / math.log(2), 4)
        super().log(logs, *args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        # The data set shuffles itself, in an order that does not change when a run is resumed.
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)


class PatienceAtFullWindow(EarlyStoppingCallback):
    """Early stopping that waits for the last stage: a model predicts badly on window lengths new to it."""

    def __init__(self, windows: TextWindows, patience: int) -> None:
        super().__init__(patience)
        self.windows = windows

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> None:
        """Count measurements without improvement, in the last stage only."""
        if self.windows.length(state.global_step - 1) == self.windows.window:
            super().on_evaluate(args, state, control, metrics, **kwargs)


class Reports(TrainerCallback):
    """Reports the progress, one line each.

    Args:
        notice: called with each line.
        characters: number that one step reads.
    """

    def __init__(self, notice: Callable[[str], Any], characters: int) -> None:
        self.notice = notice
        self.characters = characters
        self.since = (0, 0.0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the timer, and report the step at which a resumed run continues."""
        if state.is_world_process_zero and state.global_step:
            self.notice(f"continuing at step {state.global_step:,}")
        self.since = (state.global_step, time.perf_counter())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Report the training loss, the speed and the time left."""
        if not state.is_world_process_zero or not logs or "bits_per_character" not in logs:
            return
        step, now = state.global_step, time.perf_counter()
        seconds = (now - self.since[1]) / max(1, step - self.since[0])
        self.since = (step, now)
        left = round(seconds * (state.max_steps - step))
        self.notice(
            f"step {step:,} of {state.max_steps:,}: {logs['bits_per_character']:.3f} bits per character, "
            f"{self.characters / seconds:,.0f} characters a second, {left // 60}:{left % 60:02} left"
        )

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Report the loss on the held-out text."""
        if state.is_world_process_zero and metrics and "eval_loss" in metrics:
            bits = metrics["eval_loss"] / math.log(2)
            self.notice(f"step {state.global_step:,}: {bits:.4f} bits per character of the held-out text")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report why the run ended early, and its best step."""
        if state.is_world_process_zero and state.global_step < state.max_steps:
            self.notice(
                f"stopped at step {state.global_step:,}, since the held-out text was predicted no better; "
                f"best at step {state.best_global_step:,}"
            )
