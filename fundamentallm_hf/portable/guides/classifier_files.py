"""The files of a text classifier that are read, and that therefore go along where an attribute keeps one of its own.

This file knows nothing of what is in them.
"""

import shutil
from pathlib import Path

# Where an attribute holds a classifier of its own, and how it says so in place of a name on the Hub.
CLASSIFIER_FOLDER, ITS_OWN = "classifier", "."
# Patterns of names at the top of a folder or repository: weights in safetensors, and nothing that could be run.
CLASSIFIER_FILES = (
    "config.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
)


def copy_classifier(source: Path, target: Path) -> None:
    """Copy what a classifier is read from, and nothing else that lies beside it, in place of what was there."""
    if target.exists() and target.samefile(source):
        return
    found = [file for pattern in CLASSIFIER_FILES for file in source.glob(pattern)]
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    for file in found:
        shutil.copyfile(file, target / file.name)
