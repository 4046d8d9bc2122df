"""Writes the card of a model, the README.md of its repository, from the files in its folder.

The text is in `model_card_template.md`, the facts come from `model_facts.py`, and `card_merge.py` keeps what people
have edited.
"""

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template
from textwrap import fill
from typing import Any

from fundamentallm_hf.model_io.loading import DEMO_MODEL
from fundamentallm_hf.model_io.model_folder import one_line
from fundamentallm_hf.portable.errors import UserError

from .card_merge import metadata_of, write_card
from .card_metadata import check_metadata, check_repo_id
from .card_tables import attribute_rows, cell, count, field_rows, megabytes, table
from .model_facts import ModelFacts, read_facts

CARD = "README.md"
TEMPLATE = Path(__file__).parent / "model_card_template.md"
WIDTH, LONGEST_ALPHABET = 120, 1000
# Examples use the first of these that the model can write, and that its training text had where that is known.
PROMPTS = ("Once upon a time", "One day", "The", "It was")
REQUIRED = ("dragon", "castle", "knight", "friend", "water", "house", "king", "night", "love")
BANNED = ("said", "very", "good", "the")
STOPS = ("The end", "\n\n", ".")
# The items of a training record that a card shows, in this order; the others are only in the file.
_TRAINING = (
    ("base_model", "began as"),
    ("text", "text"),
    ("datasets", "data sets"),
    ("characters", "characters of text"),
    ("step", "steps"),
    ("epoch", "last epoch, counted from 0"),
    ("metrics.loss", "loss, in nats per character"),
    ("metrics.val_loss", "loss on held-out text"),
    ("metrics.perplexity", "perplexity on it"),
    ("metrics.accuracy", "accuracy on it"),
    ("training_config.sequence_length", "length of a window"),
    ("training_config.batch_size", "windows a batch"),
    ("training_config.optimizer", "optimizer"),
    ("training_config.learning_rate", "learning rate"),
    ("training_config.scheduler", "schedule"),
    ("training_config.dropout", "dropout"),
    ("training_config.seed", "seed"),
)
_METADATA = ("license", "language", "datasets", "base_model")
_SHAPE = (
    ("num_hidden_layers", "n_layer", "layers"),
    ("hidden_size", "n_embd", "width"),
    ("num_attention_heads", "n_head", "attention heads"),
    ("num_key_value_heads", None, "key and value heads"),
    ("intermediate_size", "n_inner", "width of the feed-forward layers"),
    ("position_embedding_type", None, "positions"),
    ("max_position_embeddings", "n_positions", "context"),
)


def card_for(
    folder: Path,
    *,
    repo_id: str | None = None,
    existing: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> str:
    """The card of the model in a folder.

    Args:
        folder: a model folder, as `convert` writes it.
        repo_id: `user/name`, for the examples; without it they name the folder.
        existing: the current card. Text that people wrote, changed or deleted in it stays as they left it.
        metadata: values for the top, which override the current card, such as `{"license": "mit"}`.

    Returns:
        The text of a README.md, its metadata checked.

    Raises:
        UserError: the folder has no model, or the metadata of the current card, or those given for it, are invalid.

    Example:

    ```python
    >>> from fundamentallm_hf.model_io.loading import DEMO_MODEL
    >>> from fundamentallm_hf.publishing.model_card import card_for
    >>> "library_name: transformers" in card_for(DEMO_MODEL, repo_id="user/stories")
    True

    ```
    """
    folder = Path(folder)
    facts = read_facts(folder)
    given = {name: value for name, value in (metadata or {}).items() if value}
    check_metadata(given)
    there = metadata_of(existing or "")
    check_metadata(there)
    card = write_card(
        _metadata(facts, _name(folder, repo_id)),
        _sections(facts, folder, repo_id, there),
        existing,
        given=given,
    )
    check_metadata(metadata_of(card))
    return card


def update_card(folder: str | Path, *, repo_id: str | None = None, metadata: Mapping[str, Any] | None = None) -> Path:
    """Write the card of the model in a folder there, over the current one.

    Args:
        folder, repo_id, metadata: as in `card_for`.

    Returns:
        The card.

    Raises:
        UserError: as in `card_for`, or it cannot be read or written.
    """
    file = Path(folder).expanduser() / CARD
    if repo_id is not None:
        check_repo_id(repo_id)
    try:
        existing = file.read_text(encoding="utf-8") if file.exists() else None
        text = card_for(file.parent, repo_id=repo_id, existing=existing, metadata=metadata)
        file.write_text(text, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot write {str(file)!r}: {one_line(error)}") from error
    return file


def _name(folder: Path, repo_id: str | None) -> str:
    return repo_id.split("/")[-1] if repo_id else folder.resolve().name


def _metadata(facts: ModelFacts, name: str) -> dict[str, Any]:
    made: dict[str, Any] = {key: facts.training[key] for key in _METADATA if facts.training.get(key)}
    tags = (["fundamentallm"] if facts.is_fundamentallm else []) + (["character-level"] if facts.characters else [])
    made |= {"library_name": "transformers", "pipeline_tag": "text-generation"}
    made["tags"] = [*tags, "controlled-generation"]
    made["widget"] = [{"text": prompt} for prompt in _prompts(facts, {})[:3]]
    if facts.evaluations:
        made["metrics"] = ["perplexity", "accuracy"]
        made["model-index"] = [{"name": name, "results": [_result(each) for each in facts.evaluations]}]
    try:
        check_metadata(made)
    except ValueError:  # a record in a form that this package does not write
        made = {key: value for key, value in made.items() if key not in _METADATA}
    return made


def _result(record: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation in the Hub's form (https://github.com/huggingface/hub-docs/blob/main/modelcard.md)."""
    data = record.get("dataset") or {}
    name = str(data.get("name") or "text")
    metrics = (
        ("bits_per_character", "Bits per character"),
        ("perplexity", "Perplexity"),
        ("accuracy", "Next-token accuracy"),
    )
    return {
        "task": {"type": "text-generation", "name": "Text generation"},
        "dataset": {"name": name, "type": str(data.get("id") or re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"))},
        "metrics": [{"type": kind, "value": round(record[kind], 4), "name": shown} for kind, shown in metrics],
    }


def _sections(facts: ModelFacts, folder: Path, repo_id: str | None, there: Mapping[str, Any]) -> dict[str, str]:
    bundled = repo_id is None and folder.resolve() == DEMO_MODEL.resolve()
    model = repo_id or folder.resolve().name
    prompt = _prompts(facts, there)[0]
    banned, required = _words(facts, BANNED, 2), _words(facts, REQUIRED, 2)
    stop = next((text for text in STOPS if facts.writes(text)), facts.characters[:1])
    named = next((name for name in facts.attributes if "positive" in name), next(iter(facts.attributes), ""))
    values = {
        "name": cell(_name(folder, repo_id)),
        "summary": fill(_summary(facts), WIDTH),
        "generate": "fundamentallm generate" + ("" if bundled else f" {_shell(model)}"),
        "load": "load_model()" if bundled else f"load_model({_python(model)})",
        "plain_use": "" if bundled else _plain_use(facts, model, prompt),
        "plain_controls": "" if bundled or not facts.is_fundamentallm else _plain_controls(facts, prompt, banned),
        "prompt": _shell(prompt),
        "prompt_text": _python(prompt),
        "banned": _shell(",".join(banned)),
        "banned_list": _python(banned),
        "required": _shell(",".join(required)),
        "required_list": _python(required),
        "stop": _shell(stop),
        "architecture": table(_architecture(facts)),
        "alphabet": _alphabet(facts),
        "fields": table(field_rows()),
        "attribute": _shell(named) if named else "",
        "attributes": table(attribute_rows(facts.attributes)),
        "evaluation": table(_evaluations(facts)),
        "windows": _windows(facts),
        "training": table(_training(facts.training)),
        "limits": "\n".join(fill(f"- {limit}", WIDTH, subsequent_indent="  ") for limit in _limits(facts)),
    }
    parts = re.split(r"^<!-- section: ([a-z]+) -->\n", TEMPLATE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    made = {}
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        template = Template(text)
        # A section about something absent is left out; these two may have an empty part.
        if all(values[each] for each in template.get_identifiers() if not each.startswith("plain_")):
            made[name] = re.sub(r"\n{3,}", "\n\n", template.substitute(values))
    return made


def _summary(facts: ModelFacts) -> str:
    kind = "FundamentaLLM" if facts.is_fundamentallm else cell(facts.config.get("model_type"))
    unit = "character-level " if facts.characters else ""
    return (
        f"A {unit}language model of {count(facts.parameters)} parameters ({kind} architecture), with control over the "
        "text that it generates: banned words, required words, and attributes to steer towards."
    )


def _plain_use(facts: ModelFacts, model: str, prompt: str) -> str:
    trust = ", trust_remote_code=True" if facts.is_fundamentallm else ""
    needs = "With transformers alone" + (", which runs the code in this repository:" if facts.is_fundamentallm else ":")
    return f"""{needs}

```python
from transformers import pipeline

pipe = pipeline("text-generation", model={_python(model)}{trust})
print(pipe({_python(prompt)}, max_new_tokens=100, do_sample=True, temperature=0.8)[0]["generated_text"])
```
"""


def _plain_controls(facts: ModelFacts, prompt: str, banned: list[str]) -> str:
    return f"""The pipeline above accepts them, too:

```python
print(pipe({_python(prompt)}, bad_words={_python(banned)}, max_new_tokens=100)[0]["generated_text"])
```
"""


def _architecture(facts: ModelFacts) -> Iterable[tuple[str, str]]:
    config = facts.config
    yield "architecture", cell(", ".join(map(str, config.get("architectures") or [config.get("model_type")])))
    for name, other, shown in _SHAPE:
        value = config.get(name, config.get(other) if other else None)
        if value is not None:
            unit = (" characters" if facts.characters else " tokens") if shown == "context" else ""
            yield shown, f"{value:,}{unit}" if isinstance(value, int) else cell(value)
    if isinstance(size := config.get("vocab_size"), int):
        yield "vocabulary", f"{size:,} tokens"
    tied = config.get("tie_word_embeddings")
    yield "parameters", f"{facts.parameters:,}" + (", the output tied to the embedding" if tied else "")
    yield "weights", f"{', '.join(facts.dtypes)}, {megabytes(facts.weight_bytes)}"


def _alphabet(facts: ModelFacts) -> str:
    if not facts.characters:
        if not facts.vocabulary:
            return ""
        return f"{len(facts.vocabulary):,} tokens of several characters, of which every text is made."
    shown = "".join({"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}.get(char, char) for char in facts.characters)
    if len(shown) > LONGEST_ALPHABET:
        shown = f"{shown[:LONGEST_ALPHABET]} …"
    specials = ", ".join(f"`{' '.join(token.split())}`" for token in facts.specials)
    ticks = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    return (
        f"{len(facts.characters)} characters, one token each, and {len(facts.specials)} special tokens ({specials}):"
        f"\n\n{ticks} {shown} {ticks}"
    )


def _evaluations(facts: ModelFacts) -> Iterable[tuple[str, ...]]:
    for each in facts.evaluations:
        yield (
            cell((each.get("dataset") or {}).get("name", "text")),
            f"**{each['bits_per_character']:.3f}**",
            f"{each['perplexity']:.3f}",
            f"{100 * each['accuracy']:.1f}%",
            f"{each['characters']:,}",
        )


def _windows(facts: ModelFacts) -> str:
    seen = dict.fromkeys((each["window"], each["stride"]) for each in facts.evaluations)
    return " ".join(f"The window was {window} tokens, the stride {stride}." for window, stride in seen)


def _training(record: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for path, shown in _TRAINING:
        value: Any = record
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        if isinstance(value, float):
            value = f"{value:.4g}"
        if value not in (None, ""):
            yield shown, f"{value:,}" if isinstance(value, int) else cell(value)


def _limits(facts: ModelFacts) -> Iterable[str]:
    unit = "characters" if facts.characters else "tokens"
    window = facts.config.get("max_position_embeddings", facts.config.get("n_positions"))
    if isinstance(window, int):
        goes_on = (
            "; longer texts continue from their last part, and the text before is forgotten"
            if facts.is_fundamentallm
            else ""
        )
        yield f"It sees {window:,} {unit} at once{goes_on}."
    if facts.characters:
        yield "It can neither read nor write characters outside its alphabet; `fundamentallm` names such characters."
    if not facts.ends:
        yield "It has no token that ends a text, so it writes until a limit on new tokens or a stop text is reached."
    if facts.is_fundamentallm and facts.counts is None:
        yield "It has no word counts, so controls estimate words by the model's probabilities alone."
    if not facts.evaluations:
        yield "It has not been evaluated yet: run `fundamentallm evaluate MODEL held_out.txt --save`."
    yield (
        f"It has {count(facts.parameters)} parameters and no knowledge but that of its training text, with whatever "
        "bias that has. Controls act on words, not on meaning or truth."
    )


def _prompts(facts: ModelFacts, there: Mapping[str, Any]) -> list[str]:
    """The prompts of the examples: those of the card's widget, else prompts that the model can write."""
    widget = there.get("widget")
    texts = [each.get("text") for each in widget if isinstance(each, dict)] if isinstance(widget, list) else []
    from_card = [text for text in texts if isinstance(text, str) and re.fullmatch(r"[^\n\r`]{1,200}", text)]
    fitting = [text for text in (*from_card, *PROMPTS) if facts.writes(text)]
    return fitting or ["".join(char for char in facts.characters if char.isalnum())[:3] or facts.characters[:1]]


def _words(facts: ModelFacts, wanted: tuple[str, ...], number: int) -> list[str]:
    counted = facts.counts.counts if facts.counts is not None else None
    found = [word for word in wanted if facts.writes(word) and (counted is None or word in counted)]
    if len(found) < number and counted:
        often = sorted(counted, key=lambda word: -counted[word])
        found += [word for word in often if len(word) > 2 and facts.writes(word) and word not in found]
    letters = [char for char in facts.characters if char.isalnum()]
    found += ["".join(letters[at : at + 2]) for at in range(0, 2 * number, 2)]
    return [word for word in found if word][:number]


def _shell(text: str) -> str:
    if re.fullmatch(r"[\w./@-]+", text, re.ASCII):
        return text if "/" in text or "_" in text else f'"{text}"'
    return f'"{text}"' if re.fullmatch(r"[\w .,:;?'@/*-]+", text) else shlex.quote(text)


def _python(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
