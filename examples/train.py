"""Train or fine-tune a FundamentaLLM model on text, with transformers' Trainer.

    python examples/train.py stories.txt --held-out valid.txt --output-dir runs/stories --steps 2000
    accelerate launch --num_processes 2 examples/train.py stories.txt --output-dir runs/stories --steps 2000
    python examples/train.py mine.txt --init-from my_model/final_model.pt --output-dir runs/mine --steps 200

Everything that a Trainer does is at hand: several processes or GPUs through `accelerate launch`, bf16, checkpoints,
and going on where an interrupted run stopped (run the same command again). What is particular to a character model
stands in this file: the vocabulary is read off the text, texts are joined by an end-of-text token and cut into windows,
and loss is told in bits per character. The last line is a folder that `from_pretrained` loads.

The files beside this one hold the two pieces with an idea of their own: `windows.py` cuts the text, `muon.py` is the
optimizer.
"""

import argparse
import math
import os
import sys
from pathlib import Path
from typing import Any

import torch
from muon import MuonWithAdamW
from transformers import (
    EarlyStoppingCallback,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from windows import HeldOutWindows, Stages, TextWindows, encode_texts

from fundamentallm_hf import FundamentaLLMConfig, FundamentaLLMForCausalLM
from fundamentallm_hf.model_io.checkpoint import is_fundamentallm_source, load_checkpoint
from fundamentallm_hf.model_io.model_folder import write_model_folder
from fundamentallm_hf.model_io.tokenizer import EOS, build_tokenizer, character_vocabulary, unknown_characters
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.model.modeling_fundamentallm import FundamentaLLMSinusoidalPositions
from fundamentallm_hf.portable.model.records import TRAINING, weights_digest
from fundamentallm_hf.portable.text.word_counts import WordCounts


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train or fine-tune a FundamentaLLM model on text.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    data = parser.add_argument_group("data")
    data.add_argument("files", nargs="*", type=Path, help="text files (UTF-8)")
    data.add_argument("--dataset", help="a data set on the Hub instead of files, streamed (needs the extra `train`)")
    data.add_argument("--dataset-column", default="text", help="the column of --dataset that holds the text")
    data.add_argument("--dataset-texts", type=int, default=20_000, help="how many texts of --dataset to read")
    data.add_argument("--separator", default="<|endoftext|>", help="what stands between two texts of a file")
    data.add_argument("--held-out", type=Path, help="a text to measure on; by default the last 5%% of the texts")
    data.add_argument("--held-out-characters", type=int, default=60_000, help="how much of it to read as training goes")
    shape = parser.add_argument_group("shape (of a new model)")
    shape.add_argument("--hidden-size", type=int, default=192)
    shape.add_argument("--layers", type=int, default=4)
    shape.add_argument("--heads", type=int, default=3)
    shape.add_argument("--window", type=int, default=512, help="context length in characters")
    shape.add_argument("--positions", choices=("learned", "sinusoidal"), default="learned")
    shape.add_argument("--dropout", type=float, default=0.0)
    shape.add_argument("--init-from", type=Path, help="start from this checkpoint (.pt or folder) instead of a new one")
    run = parser.add_argument_group("run")
    run.add_argument("--output-dir", type=Path, required=True, help="checkpoints go here, the model into its `model`")
    run.add_argument("--steps", type=int, default=1000)
    run.add_argument("--batch-characters", type=int, default=8192, help="characters per step and process")
    run.add_argument(
        "--stages",
        type=Stages.parse,
        default="",
        help="shorter windows first: 'LENGTH:SHARE,...' of the steps, for instance 128:0.6,256:0.2 (the rest is whole)",
    )
    run.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    run.add_argument("--lr", type=float, default=3e-3, help="peak learning rate (of AdamW, or of Muon's matrices)")
    run.add_argument("--adamw-lr", type=float, default=3e-3, help="with muon: of the embeddings, norms and biases")
    run.add_argument("--weight-decay", type=float, default=0.1)
    run.add_argument("--warmup-steps", type=int, default=50)
    run.add_argument("--decay-share", type=float, default=0.7, help="last share of the steps, in which the rate falls")
    run.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa", help="eager is faster on short windows")
    run.add_argument("--bf16", action="store_true", help="mixed precision")
    run.add_argument("--eval-every", type=int, default=250, help="steps between two measurements and checkpoints")
    run.add_argument("--patience", type=int, default=5, help="stop after so many measurements without improvement")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--threads", type=int, help="CPU threads per process")
    run.add_argument("--cpu", action="store_true", help="stay on the CPU even if there is a GPU")
    arguments = parser.parse_args(argv)
    if bool(arguments.files) == bool(arguments.dataset):
        parser.error("give text files, or --dataset, and not both")
    return arguments


def read_texts(arguments: argparse.Namespace) -> list[str]:
    """The training texts, without what separates them."""
    if arguments.dataset:
        try:
            from datasets import load_dataset
        except ImportError:
            raise UserError("--dataset needs the package datasets: pip install 'fundamentallm-hf[train]'") from None
        rows = load_dataset(arguments.dataset, split="train", streaming=True).take(arguments.dataset_texts)
        texts = [row[arguments.dataset_column] for row in rows]
    else:
        texts = [text for path in arguments.files for text in read_file(path).split(arguments.separator)]
    texts = [text.strip() for text in texts if text.strip()]
    if not texts:
        raise UserError(f"there is no text in {arguments.dataset or ', '.join(map(str, arguments.files))}")
    return texts


def read_file(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start})") from None
    if not text.strip():
        raise UserError(f"{path} is empty: give a file with text to train on")
    return text


def split_held_out(arguments: argparse.Namespace, texts: list[str]) -> tuple[list[str], list[str]]:
    """Training texts and held-out texts: the file that was named, or the last twentieth of the text."""
    if arguments.held_out:
        return texts, [text.strip() for text in read_file(arguments.held_out).split(arguments.separator)]
    if len(texts) >= 20:
        cut = len(texts) - len(texts) // 20
        return texts[:cut], texts[cut:]
    *whole, last = texts
    cut = len(last) - max(1, sum(map(len, texts)) // 20)
    if cut < 1:
        raise UserError("the texts are too short to hold a twentieth out: name a held-out text with --held-out")
    return [*whole, last[:cut]], [last[cut:]]


def new_model(arguments: argparse.Namespace, texts: list[str]) -> tuple[FundamentaLLMForCausalLM, Any]:
    vocabulary = character_vocabulary(texts)
    config = FundamentaLLMConfig(
        vocab_size=len(vocabulary),
        hidden_size=arguments.hidden_size,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.heads,
        max_position_embeddings=arguments.window,
        position_embedding_type=arguments.positions,
        dropout=arguments.dropout,
    )
    model = FundamentaLLMForCausalLM(config)
    if arguments.positions == "learned":
        # Learned positions that begin as faint sinusoids spare the model from discovering that positions have an
        # order, which takes a small model most of a short run. As faint as the token embeddings, so neither drowns.
        table = FundamentaLLMSinusoidalPositions.compute(arguments.window, arguments.hidden_size)
        with torch.no_grad():
            model.model.embed_positions.weight.copy_(table * (config.initializer_range * math.sqrt(2)))
    return model, build_tokenizer(vocabulary, arguments.window)


def existing_model(path: Path) -> tuple[FundamentaLLMForCausalLM, Any]:
    if is_fundamentallm_source(path):
        return load_checkpoint(path)
    if not (path / "config.json").is_file():
        raise UserError(f"--init-from {path} is neither a FundamentaLLM checkpoint nor a folder with a config.json")
    model = FundamentaLLMForCausalLM.from_pretrained(path, dtype=torch.float32)
    return model, PreTrainedTokenizerFast.from_pretrained(path)


def check_fits(texts: list[str], tokenizer: PreTrainedTokenizerFast, window: int) -> None:
    """Fine-tuning cannot teach characters that the vocabulary has no token for; every text needs a whole window."""
    unknown = unknown_characters(tokenizer, "".join(sorted(set().union(*map(set, texts)))))
    if unknown:
        raise UserError(
            f"the text holds {len(unknown)} characters that the model's vocabulary lacks "
            f"({' '.join(map(repr, unknown[:10]))}): replace them, or train a new model"
        )
    length = sum(len(text) + 1 for text in texts)
    if length <= window:
        raise UserError(
            f"the text has {length} characters and the window {window}: give more text or a shorter --window"
        )


class CharacterTrainer(Trainer):
    """A Trainer that tells loss in bits per character as well, and keeps its windows in step with the stages."""

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        for name in ("loss", "eval_loss"):
            if name in logs:
                logs[name.replace("loss", "bits_per_character")] = round(float(logs[name]) / math.log(2), 4)
        super().log(logs, *args, **kwargs)


class FollowStages(TrainerCallback):
    """Tells the collator how far the run is."""

    def __init__(self, windows: TextWindows) -> None:
        self.windows = windows

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.windows.progress = state.global_step / max(1, state.max_steps)


class PatienceAtFullWindow(EarlyStoppingCallback):
    """Early stopping that waits for the last stage: whoever has seen only short windows does badly on whole ones."""

    def __init__(self, windows: TextWindows, patience: int) -> None:
        super().__init__(patience)
        self.windows = windows

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> None:
        if self.windows.length() == self.windows.window:
            super().on_evaluate(args, state, control, metrics, **kwargs)


def train(arguments: argparse.Namespace) -> Path:
    """Run the whole training.

    Returns:
        The folder of the finished model.

    Raises:
        UserError: the texts, the shape or the checkpoint cannot be used.
    """
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    set_seed(arguments.seed)
    texts, held_out = split_held_out(arguments, read_texts(arguments))
    model, tokenizer = existing_model(arguments.init_from) if arguments.init_from else new_model(arguments, texts)
    window = model.config.max_position_embeddings
    check_fits(texts, tokenizer, window)
    model.set_attn_implementation(arguments.attention)

    end = tokenizer.convert_tokens_to_ids(EOS)
    windows = TextWindows(encode_texts(texts, tokenizer, end), window, arguments.stages)
    held = encode_texts(held_out, tokenizer, end)[: arguments.held_out_characters]
    if len(held) < 2:
        raise UserError("the held-out text is empty: give one with text, or leave --held-out out")

    if arguments.optimizer == "muon":
        # A factory, so that the Trainer builds the optimizer when the model is on its device.
        optimizer: Any = (
            lambda: MuonWithAdamW.from_model,
            {"lr": arguments.lr, "adamw_lr": arguments.adamw_lr, "weight_decay": arguments.weight_decay},
        )
    else:
        optimizer = (torch.optim.AdamW, {"lr": arguments.lr, "betas": (0.9, 0.98)})

    trainer = CharacterTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(arguments.output_dir),
            max_steps=arguments.steps,
            per_device_train_batch_size=max(1, arguments.batch_characters // window),
            per_device_eval_batch_size=8,
            learning_rate=arguments.lr,
            weight_decay=arguments.weight_decay,
            max_grad_norm=1.0,
            lr_scheduler_type="warmup_stable_decay",
            lr_scheduler_kwargs={
                "num_decay_steps": max(1, int(arguments.steps * arguments.decay_share)),
                "decay_type": "linear",
                "min_lr_ratio": 0.01,
            },
            warmup_steps=min(arguments.warmup_steps, max(1, arguments.steps // 10)),
            bf16=arguments.bf16,
            use_cpu=arguments.cpu,
            seed=arguments.seed,
            data_seed=arguments.seed,
            logging_steps=max(1, min(50, arguments.steps // 20)),
            eval_strategy="steps",
            eval_steps=arguments.eval_every,
            save_strategy="steps",
            save_steps=arguments.eval_every,
            save_total_limit=2,
            load_best_model_at_end=True,
            metric_for_best_model="eval_loss",
            greater_is_better=False,
            report_to="none",
            ddp_find_unused_parameters=False,
            remove_unused_columns=False,
        ),
        train_dataset=windows,
        eval_dataset=HeldOutWindows(held, window),
        data_collator=windows.collate,
        callbacks=[FollowStages(windows), PatienceAtFullWindow(windows, arguments.patience)],
        optimizer_cls_and_kwargs=optimizer,
    )
    interrupted = any(arguments.output_dir.glob("checkpoint-*/trainer_state.json"))
    trainer.train(resume_from_checkpoint=True if interrupted else None)

    folder = arguments.output_dir / "model"
    if trainer.is_world_process_zero():
        finished = trainer.accelerator.unwrap_model(trainer.model)
        finished.config.use_cache = True  # the Trainer turns it off, and generate() would be slow without it
        # A text begins where another ended, so with no prompt the model starts from the end-of-text token.
        finished.generation_config = GenerationConfig(
            bos_token_id=end, eos_token_id=end, pad_token_id=tokenizer.pad_token_id
        )
        finished.word_counts = WordCounts.of_text(" ".join(texts), least=2)  # controls ask it how words end
        finished.records = {TRAINING: [told(arguments, texts, trainer.state, finished)]}
        write_model_folder(folder, finished, tokenizer, force=True)
        print(folder)
    return folder


def told(
    arguments: argparse.Namespace, texts: list[str], state: Any, model: FundamentaLLMForCausalLM
) -> dict[str, Any]:
    """What lies beside the model of its training, for its card: figures, and nothing of where the texts lay."""
    record = {
        "weights": weights_digest(model.state_dict().values()),
        "text": f"{len(texts):,} texts",
        "characters": sum(map(len, texts)),
        "step": state.best_global_step or state.global_step,
        "training_config": {
            "optimizer": arguments.optimizer,
            "learning_rate": arguments.lr,
            "sequence_length": model.config.max_position_embeddings,
            "seed": arguments.seed,
        },
    }
    if state.best_metric is not None:
        record["metrics"] = {"val_loss": state.best_metric}
    on_hub = arguments.dataset and not Path(arguments.dataset).exists()
    return record | ({"datasets": [arguments.dataset]} if on_hub else {})


def main() -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    arguments = parse_arguments()
    try:
        train(arguments)
    except UserError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
