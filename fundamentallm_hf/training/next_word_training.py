"""Learns to predict a character model's next word from its states, for word weights that need no pass of the model."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fundamentallm_hf.model_io.loading import load_model
from fundamentallm_hf.portable.decoding.next_words import OTHERS, NextWords
from fundamentallm_hf.portable.decoding.sidecar_files import own_word_counts
from fundamentallm_hf.portable.decoding.sidecar_names import NEXT_WORDS_FILE
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.text.characters import fold_text, is_word
from fundamentallm_hf.portable.text.vocabulary import Vocabulary
from fundamentallm_hf.portable.text.word_counts import WordCounts

# Characters that are read; more teach little.
MOST_CHARACTERS = 3_000_000
CLASSES, WIDTH = 2500, 384
_PASSES, _LEAST_STEPS, _BATCH, _RATE, _WARM_UP = 3, 200, 1024, 3e-3, 50
# One of so many words is held out, and with fewer words nothing can be learned.
_HELD_OUT, _LEAST = 20, 200
_ROWS, _LONGEST = 16, 512
# Words are predicted only after this many characters of context.
_CONTEXT = 16


def classes_of(counts: WordCounts, classes: int = CLASSES) -> list[str]:
    """The most frequent words, and the first letters of all."""
    words = sorted((word for word in counts.counts if word), key=lambda word: (-counts.counts[word], word))
    return [*sorted(words[:classes]), *sorted({f"{word[0]}{OTHERS}" for word in words})]


@torch.no_grad()
def read_words(
    model: Any, text: str, classes: list[str], progress: Callable[[int, int], None] = lambda *_: None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The states of a character model where the words of a text begin, and the classes of these words.

    Args:
        model: with its tokenizer as the attribute `tokenizer`.
        text: text like the model's own.
        classes: as in `NextWords`.
        progress: called with the passes done and their number.

    Returns:
        (words, hidden size) in float16 and (words,) long.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    length = min(_LONGEST, model.config.max_position_embeddings or _LONGEST)
    states, targets, shown = [], [], []
    output = model.get_output_embeddings()
    watch = output.register_forward_pre_hook(lambda _, given: shown.append(given[0]))
    pieces = [text[first : first + length] for first in range(0, len(text) - length // 2, length)]
    groups = [pieces[first : first + _ROWS] for first in range(0, len(pieces), _ROWS)]
    try:
        for done, group in enumerate(groups, 1):
            rows = [model.tokenizer(piece, verbose=False).input_ids for piece in group]
            read = [(piece, row) for piece, row in zip(group, rows, strict=True) if len(piece) == len(row) == length]
            if read:
                model(torch.tensor([row for _, row in read], device=model.device))
                for of_row, (piece, _) in zip(shown.pop(), read, strict=True):
                    begins, words = _words_in(piece, numbers)
                    states.append(of_row[begins].half().cpu())
                    targets += words
            progress(done, len(groups))
    finally:
        watch.remove()
    return torch.cat(states) if states else torch.zeros(0, 1), torch.tensor(targets, dtype=torch.long)


def _words_in(piece: str, numbers: dict[str, int]) -> tuple[list[int], list[int]]:
    """For each whole word of a piece the index of the character before it, and its class."""
    begins, words = [], []
    start = next((index for index in range(_CONTEXT, len(piece)) if not is_word(piece[index])), len(piece))
    while start + 1 < len(piece):
        end = start + 1
        while end < len(piece) and is_word(piece[end]):
            end += 1
        word = fold_text(piece[start + 1 : end])
        number = numbers.get(word, numbers.get(f"{word[:1]}{OTHERS}"))
        if word and end < len(piece) and number is not None:
            begins.append(start)
            words.append(number)
        start = end
    return begins, words


def fit_next_words(
    states: torch.Tensor,
    targets: torch.Tensor,
    classes: list[str],
    progress: Callable[[int, int], None] = lambda *_: None,
    width: int = WIDTH,
) -> tuple[NextWords, float]:
    """Learn to predict the class of the next word.

    Args:
        states: (words, hidden size).
        targets: (words,) their classes.
        classes: names of the classes.
        progress: called with the steps done and their number.
        width: of the layer inside.

    Returns:
        The classifier that was best on the words that are held out, and their mean loss in nats.
    """
    generator = torch.Generator().manual_seed(0)
    # Blocks are held out, because neighbouring words share their context.
    held = (torch.arange(len(targets)) // 256) % _HELD_OUT == _HELD_OUT - 1
    if not held.any():
        held = torch.arange(len(targets)) % _HELD_OUT == _HELD_OUT - 1
    learned, known = states[~held], targets[~held]
    counts = torch.bincount(known, minlength=len(classes)).float() + 0.5
    scale = states[:10_000].float().square().mean().sqrt().clamp(min=1e-6)
    inner = torch.randn(width, states.shape[1], generator=generator) / (scale * states.shape[1] ** 0.5)
    parameters = [inner, torch.zeros(width), torch.zeros(len(classes), width), (counts / counts.sum()).log()]
    with torch.inference_mode(False), torch.enable_grad():
        parameters = [nn.Parameter(each) for each in parameters]
        optimizer = torch.optim.AdamW(parameters, lr=_RATE, betas=(0.9, 0.98), weight_decay=0.01)
        size = min(_BATCH, len(known))
        each_pass = len(known) // size
        steps = max(_PASSES, _LEAST_STEPS // each_pass) * each_pass
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / _WARM_UP) * max(0.01, 1 - step / steps)
        )
        best, least = NextWords(classes, *parameters), float("inf")
        for step in range(steps):
            if step % each_pass == 0:
                order = torch.randperm(len(known), generator=generator)
            picked, order = order[:size], order[size:]
            made = nn.functional.linear(learned[picked].float(), parameters[0], parameters[1])
            logits = nn.functional.linear(nn.functional.gelu(made), parameters[2], parameters[3])
            loss = nn.functional.cross_entropy(logits, known[picked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if (step + 1) % each_pass == 0:
                now = NextWords(classes, *(each.detach().clone() for each in parameters))
                found = float(nn.functional.cross_entropy(now.logits(states[held]), targets[held]))
                if found < least:
                    best, least = now, found
            progress(step + 1, steps)
    return best, least


def add_next_words(
    folder: str | os.PathLike[str], text: str, progress: Callable[[int, int], None] = lambda *_: None
) -> tuple[Path, float]:
    """Learn to predict the next word of a character model, and write the classifier to the model folder.

    Args:
        folder: a Hugging Face folder of a character model.
        text: preferably the model's training text, or its samples; a million characters are enough.
        progress: called with the steps done and their number, first while the text is read, then while it is learned.

    Returns:
        The path of the written file, and the mean loss on words that were held out, in nats.

    Raises:
        UserError: the model has tokens of several characters, or the text has too few words.
    """
    model = load_model(Path(folder))
    if Vocabulary.of(model.tokenizer).longest > 1:
        raise UserError("next words are predicted for character models only, and this one has longer tokens")
    classes = classes_of(own_word_counts(model) or WordCounts.of_text(text))
    states, targets = read_words(model, text[:MOST_CHARACTERS], classes, progress)
    if len(targets) < _LEAST:
        raise UserError(
            f"the text has {len(targets)} words in whole contexts, and {_LEAST} are needed: give a longer one"
        )
    found, loss = fit_next_words(states, targets, classes, progress)
    file = Path(folder) / NEXT_WORDS_FILE
    found.save(file)
    return file, loss
