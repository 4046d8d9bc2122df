"""Trains a new FundamentaLLM model on text, or an existing one further, with transformers' Trainer.

Specific to a character model: the vocabulary is the characters of the text, texts are joined by an end-of-text token
and cut into windows, and the loss is reported in bits per character. The Trainer does everything else: several
processes or GPUs through `accelerate launch`, mixed precision, checkpoints.
"""

import ctypes
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast, TrainingArguments, set_seed
from transformers.utils import logging

from fundamentallm_hf.files import local_path
from fundamentallm_hf.model_io.checkpoint import is_fundamentallm_source, load_checkpoint
from fundamentallm_hf.model_io.model_folder import write_model_folder
from fundamentallm_hf.model_io.tokenizer import EOS, build_tokenizer, character_vocabulary, unknown_characters
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.model.configuration_fundamentallm import FundamentaLLMConfig
from fundamentallm_hf.portable.model.modeling_fundamentallm import (
    FundamentaLLMForCausalLM,
    FundamentaLLMSinusoidalPositions,
)
from fundamentallm_hf.portable.model.records import TRAINING, weights_digest
from fundamentallm_hf.portable.text.word_counts import WordCounts

from . import blockwise_attention
from .character_trainer import CharacterTrainer, PatienceAtFullWindow, Reports
from .loss_plot import plot_loss
from .muon import MuonWithAdamW
from .run_plan import FINISHED, check_plan, is_finished, make_plan, warmup_and_decay, write_plan
from .training_options import TrainingOptions, parse_stages
from .training_texts import read_texts, split_held_out, total_length
from .windows import HeldOutWindows, TextWindows, encode_texts

MODEL_FOLDER, PLOT = "model", "loss.png"


def train_model(
    options: TrainingOptions,
    notice: Callable[[str], Any] = lambda line: print(line, file=sys.stderr),
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Train a model with the given options, and write it as a folder that `from_pretrained` loads and `push` sends.

    An interrupted run that is started again with the same options continues at its last checkpoint, and gives the same
    result as an uninterrupted one.

    Args:
        options: the options of the run.
        notice: called with each line of the report.
        about: facts for the model's card besides those known here: `license`, `language`, `datasets`, `text`.

    Returns:
        The folder of the finished model, `model` in the run's folder. `loss.png` is next to it.

    Raises:
        UserError: the texts, the architecture, the model to start from or the run's folder cannot be used.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    _check_compiler(options)
    set_seed(options.seed)
    texts, held_out = split_held_out(options, read_texts(options))
    model, tokenizer = existing_model(options.init_from) if options.init_from else new_model(options, texts)
    _check_fits(texts, tokenizer, model.config.max_position_embeddings)
    unknown = unknown_characters(tokenizer, _alphabet(held_out))
    if unknown:
        notice(f"the held-out text has {len(unknown)} characters that the model cannot read: {_shown(unknown)}")

    run = _Run(options, model, tokenizer, texts, held_out)
    folder = run.folder / MODEL_FOLDER
    plan = run.plan()
    checkpoint = check_plan(options, plan, run.folder)
    if is_finished(options, run.folder) and folder.is_dir():
        notice(f"this run is finished; to train its model further, name another output folder and init_from {folder}")
        return folder
    run.keep(plan)
    trainer = run.trainer(notice)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.is_world_process_zero():
        _write(folder, trainer, run, about or {})
        write_plan({**plan, FINISHED: trainer.state.global_step}, run.folder)
        try:
            plot_loss(trainer.state.log_history, folder.parent / PLOT, run.step_characters)
        except UserError as error:
            notice(str(error))
    return folder


class _Run:
    """The parts of one run: its windows, the Trainer's arguments, and the Trainer."""

    def __init__(
        self,
        options: TrainingOptions,
        model: FundamentaLLMForCausalLM,
        tokenizer: PreTrainedTokenizerFast,
        texts: list[str],
        held_out: list[str],
    ) -> None:
        self.options, self.model, self.tokenizer, self.texts = options, model, tokenizer, texts
        self.folder = Path(options.output_dir)
        self.end = tokenizer.convert_tokens_to_ids(EOS)
        self.window = model.config.max_position_embeddings
        self.batch = max(1, options.batch_characters // self.window)
        held = encode_texts(held_out, tokenizer, self.end)[: options.held_out_characters or None]
        if len(held) < 2:
            raise UserError("the held-out text is empty: name one with text, or leave it out")
        self.held = HeldOutWindows(held, self.window)
        # The arguments detect the device, and connect the processes if there are several.
        self.arguments = self._arguments()
        self.processes = self.arguments.world_size
        self.windows = TextWindows(
            encode_texts(texts, tokenizer, self.end),
            self.window,
            parse_stages(options.stages),
            options.steps,
            self.batch * self.processes,
            options.seed,
        )
        self.step_characters = self.batch * self.window * self.processes

    def _arguments(self) -> TrainingArguments:
        options = self.options
        warmup, decay = warmup_and_decay(options, options.steps)
        try:
            return TrainingArguments(
                output_dir=str(options.output_dir),
                max_steps=options.steps,
                per_device_train_batch_size=self.batch,
                per_device_eval_batch_size=1,  # a compiled model would be compiled again for a shorter last batch
                learning_rate=options.lr,
                weight_decay=options.weight_decay,
                max_grad_norm=1.0,
                lr_scheduler_type="warmup_stable_decay",
                lr_scheduler_kwargs={"num_decay_steps": decay, "decay_type": "linear", "min_lr_ratio": 0.01},
                warmup_steps=warmup,
                bf16=uses_bfloat16(options),
                use_cpu=options.cpu or not torch.cuda.is_available(),
                seed=options.seed,
                data_seed=options.seed,
                logging_steps=max(1, min(50, options.steps // 20)),
                eval_strategy="steps",
                eval_steps=min(options.eval_every, options.steps),
                save_strategy="steps",
                save_steps=min(options.eval_every, options.steps),
                save_total_limit=2,
                load_best_model_at_end=True,
                metric_for_best_model="eval_loss",
                greater_is_better=False,
                disable_tqdm=True,
                report_to="none",
                ddp_find_unused_parameters=False,
                remove_unused_columns=False,
            )
        except OSError as error:
            raise UserError(f"cannot write to {str(options.output_dir)!r}: {error.strerror or error}") from error

    def attention(self) -> str:
        """The attention implementation: blockwise for a compiled model on a CPU, unless the options set another."""
        if self.options.attention != "auto":
            return self.options.attention
        return "blockwise" if self.options.compile and self.arguments.device.type == "cpu" else "sdpa"

    def plan(self) -> dict[str, Any]:
        """The values that determine the result of the run."""
        resolved = {"precision": "bfloat16" if self.arguments.bf16 else "float32", "processes": self.processes}
        return make_plan(self.options, self.windows.tokens, resolved)

    def keep(self, plan: dict[str, Any]) -> None:
        """Write the plan into the run's folder, and remove incomplete output of an interrupted run."""
        with self.arguments.main_process_first(desc="writing the plan"):
            if self.arguments.process_index == 0:
                for each in self.folder.glob("checkpoint-*"):
                    if not (each / "trainer_state.json").exists():
                        shutil.rmtree(each, ignore_errors=True)
                write_plan(plan, self.folder)

    def trainer(self, notice: Callable[[str], Any]) -> CharacterTrainer:
        """The Trainer, ready to run."""
        options = self.options
        logging.disable_progress_bar()
        blockwise_attention.register()
        self.model.set_attn_implementation(self.attention())
        if options.compile:
            self.model.compile(dynamic=False)
        if self.arguments.device.type == "cpu":
            keep_freed_memory()
        if options.optimizer == "muon":
            # A factory, so that the Trainer builds the optimizer when the model is on its device.
            optimizer: Any = (
                lambda: MuonWithAdamW.from_model,
                {"lr": options.lr, "adamw_lr": options.adamw_lr, "weight_decay": options.weight_decay},
            )
        else:
            optimizer = (torch.optim.AdamW, {"lr": options.lr, "betas": (0.9, 0.98)})
        return CharacterTrainer(
            model=self.model,
            args=self.arguments,
            train_dataset=self.windows,
            eval_dataset=self.held,
            data_collator=self.windows.collate,
            callbacks=[
                PatienceAtFullWindow(self.windows, options.patience),
                Reports(notice, self.step_characters),
            ],
            optimizer_cls_and_kwargs=optimizer,
        )


def new_model(options: TrainingOptions, texts: list[str]) -> tuple[FundamentaLLMForCausalLM, PreTrainedTokenizerFast]:
    """A model with fresh weights, and a tokenizer with the characters of the texts."""
    vocabulary, shape = character_vocabulary(texts), options.shape()
    config = FundamentaLLMConfig(
        vocab_size=len(vocabulary),
        hidden_size=shape["hidden_size"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        max_position_embeddings=shape["window"],
        position_embedding_type=shape["positions"],
        dropout=shape["dropout"],
    )
    model = FundamentaLLMForCausalLM(config)
    if shape["positions"] == "learned":
        # Learned positions are initialised as faint sinusoids, so that the model need not discover the order of
        # positions, which takes a small model most of a short run. They are as faint as the token embeddings, so
        # neither dominates.
        table = FundamentaLLMSinusoidalPositions.compute(shape["window"], shape["hidden_size"])
        with torch.no_grad():
            model.model.embed_positions.weight.copy_(  # type: ignore[operator]
                table * (config.initializer_range * math.sqrt(2))
            )
    return model, build_tokenizer(vocabulary, shape["window"])


def existing_model(source: str | Path) -> tuple[FundamentaLLMForCausalLM, PreTrainedTokenizerFast]:
    """A model to be trained further, in float32, and its tokenizer.

    Raises:
        UserError: there is no model at `source`.
    """
    path = local_path(source)
    if not path.exists():
        raise UserError(f"there is no {source} to start from: give a FundamentaLLM checkpoint or a model folder")
    if is_fundamentallm_source(path):
        return load_checkpoint(path)
    if not (path / "config.json").is_file():
        raise UserError(f"{source} is neither a FundamentaLLM checkpoint nor a folder with a config.json")
    model = FundamentaLLMForCausalLM.from_pretrained(path, dtype=torch.float32)
    return model, PreTrainedTokenizerFast.from_pretrained(path)


def uses_bfloat16(options: TrainingOptions) -> bool:
    """Whether matrix products use bfloat16: as requested, or by default where the hardware supports it."""
    if options.precision != "auto":
        return options.precision == "bfloat16"
    if torch.cuda.is_available() and not options.cpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported()


def keep_freed_memory() -> None:
    """Make glibc keep freed memory: each step allocates the same large blocks again, and fresh pages cost time.

    Measured on one core with 5 million parameters: 10,200 instead of 5,400 characters per second.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
    mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


def _check_compiler(options: TrainingOptions) -> None:
    if not options.compile or (torch.cuda.is_available() and not options.cpu):
        return
    if not any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name):
        raise UserError("compiling a model for the CPU needs a C++ compiler: install g++, or leave compile out")


def _check_fits(texts: list[str], tokenizer: PreTrainedTokenizerFast, window: int) -> None:
    """Check that the vocabulary has all characters, since fine-tuning adds none, and that every text fills a window."""
    unknown = unknown_characters(tokenizer, _alphabet(texts))
    if unknown:
        raise UserError(
            f"the text has {len(unknown)} characters that the model's vocabulary lacks ({_shown(unknown)}): "
            "replace them, or train a new model"
        )
    length = total_length(texts) + len(texts)
    if length <= window:
        raise UserError(f"the text has {length} characters and the window {window}: give more text or a shorter window")


def _alphabet(texts: list[str]) -> str:
    return "".join(sorted(set().union(*map(set, texts))))


def _shown(characters: list[str]) -> str:
    return " ".join(map(repr, characters[:10]))


def _write(folder: Path, trainer: CharacterTrainer, run: _Run, about: Mapping[str, Any]) -> None:
    """Write the finished model with its tokenizer, its word counts and the record of its training."""
    finished = trainer.accelerator.unwrap_model(trainer.model)
    finished.config.use_cache = True  # the Trainer turns it off, and generate() would be slow without it
    # A text starts where another ended, so without a prompt the model starts from the end-of-text token.
    finished.generation_config = GenerationConfig(
        bos_token_id=run.end, eos_token_id=run.end, pad_token_id=run.tokenizer.pad_token_id
    )
    finished.word_counts = WordCounts.of_text(" ".join(run.texts), least=2)  # controls predict word ends with it
    finished.records = {TRAINING: [{**_record(run, trainer.state, finished), **about}]}
    write_model_folder(folder, finished, run.tokenizer, force=True)


def _record(run: _Run, state: Any, model: FundamentaLLMForCausalLM) -> dict[str, Any]:
    """The training facts for the card: figures, and no paths of the texts."""
    options = run.options
    record = {
        "weights": weights_digest(model.state_dict().values()),
        "text": f"{len(run.texts):,} texts",
        "characters": total_length(run.texts),
        "step": state.best_global_step or state.global_step,
        "training_config": {
            "optimizer": options.optimizer,
            "learning_rate": options.lr,
            "sequence_length": run.window,
            "batch_size": run.batch * run.processes,
            "scheduler": f"warm-up, constant, linear decay over the last {options.decay_share:.0%}",
            "dropout": model.config.dropout,
            "seed": options.seed,
        },
    }
    if state.best_metric is not None:
        record["metrics"] = {"val_loss": state.best_metric}
    on_hub = options.dataset and not Path(options.dataset).exists()
    return record | ({"datasets": [options.dataset]} if on_hub else {})
