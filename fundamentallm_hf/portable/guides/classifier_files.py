"""The files of a text classifier that are read, and that are therefore copied with an attribute that contains one."""

import shutil
from pathlib import Path

# The folder of a classifier inside an attribute, and the value that refers to it in place of a name on the Hub.
CLASSIFIER_FOLDER, ITS_OWN = "classifier", "."
# Name patterns at the top of a folder or repository: weights in safetensors, and nothing that could be run.
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
    """Copy the files that a classifier is read from, and no others, replacing any earlier ones."""
    if target.exists() and target.samefile(source):
        return
    found = [file for pattern in CLASSIFIER_FILES for file in source.glob(pattern)]
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    for file in found:
        shutil.copyfile(file, target / file.name)
