"""Trains experts or a steering vector of an attribute for any causal language model, and measures their strength.

There are three sources: two sets of texts; a classifier, which sorts texts that the model writes; or a description, of
which the model itself writes both sides and sorts them.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from fundamentallm_hf.files import is_local, local_path
from fundamentallm_hf.generation.generate_arguments import is_fundamentallm
from fundamentallm_hf.model_io.loading import tokenizer_of
from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.portable.guides.attributes import FITTED, Attribute
from fundamentallm_hf.portable.guides.text_classifier import TextClassifier
from fundamentallm_hf.settings.typed_values import short_repr

from .described_texts import OPENINGS, Description, OwnJudgement, write_both_sides
from .expert_training import ExpertTraining, train_experts
from .labelled_samples import OwnText, Writing, sort_texts, write_texts
from .steering_training import SteeringTraining, train_steering
from .suggested_strength import Judge, Leaning, measure_leaning
from .text_states import Passage
from .word_training import train_words, words_of

# Most texts that a model writes by default, the least, and parameters times tokens that it may take to write them: a
# model of 135 million parameters writes 480 texts of 65 tokens.
TEXTS, _LEAST_TEXTS, _WORK = 4000, 128, 4.2e12
# Characters of a text, about.
_CHARACTERS = 300
# Texts for each strength that is measured.
MEASURED = 48
# Of so many openings one is kept for measuring.
_HELD_OUT = 5
# The share of the texts on two sides that is kept at each end.
_SHARE_OF_SIDES = 0.4
# Texts that are classified between two reports of progress, and words of a text that make an opening.
_CLASSIFIED, _OPENING_WORDS = 128, 3

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class AttributeSource:
    """What an attribute is made of: two sets of texts, a classifier, or else its description.

    Attributes:
        description: what texts with the attribute are like. As the source, it completes the words "a text that is".
        opposite: the same of texts without it, for a description as the source.
        with_texts: texts that have the attribute.
        without_texts: texts that lack it.
        classifier: `user/name` or `user/name@revision` on the Hub, or a folder.
        label: of the classifier; "" where it has only one.
    """

    description: str = ""
    opposite: str = ""
    with_texts: Sequence[str] | None = None
    without_texts: Sequence[str] | None = None
    classifier: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        for name in ("with_texts", "without_texts"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, str) or not all(isinstance(each, str) for each in value)):
                raise UsageError(f"{name} has to be a list of texts but is {short_repr(value)}")
        has_texts = self.with_texts is not None or self.without_texts is not None
        if has_texts and (self.with_texts is None or self.without_texts is None):
            raise UsageError("texts are given on one side only: give with_texts and without_texts")
        if has_texts and self.classifier:
            raise UsageError("an attribute is made of texts or of a classifier, not of both")
        if self.opposite and (has_texts or self.classifier or not self.description):
            raise UsageError(
                "an opposite is for an attribute that is made of a description alone: give a description, and neither "
                "texts nor a classifier"
            )
        if self.label and not self.classifier:
            raise UsageError(f"label is {self.label!r}, but there is no classifier that has labels: give one")
        if not (has_texts or self.classifier or self.description.strip()):
            raise UsageError("an attribute is made of two sets of texts, of a classifier, or of a description")


@dataclass(frozen=True)
class AttributeSamples:
    """The texts that a model writes to make an attribute.

    Attributes:
        openings: prompts; without them, a description has those of `OPENINGS`, and given texts have their own first
            words. A classifier has those of `OPENINGS`, too, but a FundamentaLLM model starts without a prompt for it.
        texts: number of texts to learn from, at least 8; by default 4,000, or fewer for a large model. Of no effect
            where the source is texts.
        tokens: most tokens of each; by default about 300 characters.
        measured: number of texts at each strength that is tried; 0 suggests no strength.
        seed: of the random numbers; the same one gives the same attribute.
    """

    openings: Sequence[str] = ()
    texts: int | None = None
    tokens: int | None = None
    measured: int = MEASURED
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("texts", 8), ("tokens", 1), ("measured", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} has to be at least {least} but is {value}")


@dataclass(frozen=True)
class _Material:
    """What a source comes to: texts of both sides, and what judges texts.

    Attributes:
        having, lacking: texts with the attribute, and without.
        judge: the log-odds of a text; None where nothing judges.
        openings: for texts that are judged.
        judged_by: what the judge is.
        about: facts that are kept with the attribute.
        description: of the attribute, where none is given.
    """

    having: Sequence[str | Passage]
    lacking: Sequence[str | Passage]
    judge: Judge | None
    openings: Sequence[str]
    judged_by: str
    about: dict[str, Any] = field(default_factory=dict)
    description: str = ""


def train_attribute(
    model: Any,
    source: AttributeSource,
    samples: AttributeSamples | None = None,
    progress: Progress = lambda *_: None,
    kind: str = "experts",
) -> Attribute:
    """Train an attribute for a model: a pair of experts, or a steering vector.

    Args:
        model: any causal language model with a fast tokenizer, and for experts an output layer of plain weights.
        source: what the attribute is made of.
        samples: the texts that the model writes.
        progress: called with the name of the current step, the work done, and the total.
        kind: "experts" or "steering".

    Returns:
        The attribute. Its `about` holds `held_out_auc` (how well it tells held-out texts apart), `effect` (the
        share of texts that lean towards it, by strength), `perplexity` (of these texts, relative to no guide), and
        `suggested_strength`, if one of those tried made 90% of the texts lean.

    Raises:
        UserError: the model cannot have such an attribute, or nothing tells the two sides apart.

    Example:

    ```python
    >>> from fundamentallm_hf import AttributeSamples, AttributeSource, load_model, train_attribute
    >>> model = load_model(device="cpu")
    >>> source = AttributeSource("about a cat", "about a ship")
    >>> attribute = train_attribute(model, source, AttributeSamples(["One day,"], texts=24, tokens=20, measured=0))
    >>> attribute.kind, attribute.about["written"]
    ('experts', 24)

    ```
    """
    if kind not in FITTED:
        raise UsageError(f"the kind of a trained attribute has to be one of {', '.join(FITTED)} but is {kind!r}")
    tokenizer, samples = tokenizer_of(model), samples or AttributeSamples()
    tokens = samples.tokens or _usual_tokens(tokenizer)
    writing = Writing(samples.openings, samples.texts or _usual_texts(model, tokens), tokens, samples.seed)
    if source.with_texts is not None and source.without_texts is not None:
        material = _given_texts(source.with_texts, source.without_texts, writing.openings)
    elif source.classifier:
        material = _classified_texts(model, tokenizer, source, writing, progress)
    else:
        material = _described_texts(model, tokenizer, source, writing, progress)
    attribute = _trained(kind, model, tokenizer, material, samples.seed, progress)
    attribute = replace(attribute, description=source.description or material.description)
    if not samples.measured or material.judge is None:
        return attribute
    leaning = measure_leaning(
        model,
        tokenizer,
        attribute,
        material.judge,
        Writing(material.openings, samples.measured, tokens, samples.seed + 2),
        partial(progress, "trying strengths"),
    )
    return replace(attribute, about={**attribute.about, **_of_leaning(leaning, material.judged_by)})


def _trained(kind: str, model: Any, tokenizer: Any, material: _Material, seed: int, progress: Progress) -> Attribute:
    """The attribute of a kind that fits one model only, without a description."""
    words = words_for_other_models(material.having, material.lacking)
    sides = material.having, material.lacking
    if kind == "steering":
        vector = train_steering(model, tokenizer, *sides, progress)
        about = _about(vector, "difference of mean states, added to those of one layer")
        return Attribute(kind, "", words, about=about | material.about, vectors=vector.vectors.to_bytes())
    pair = train_experts(model, tokenizer, *sides, progress, seed=seed)
    about = _about(pair, "output-layer experts (adapters with a bottleneck), contrasted as in DExperts")
    return Attribute(kind, "", words, about=about | material.about, experts=pair.experts.to_bytes())


def words_for_other_models(having: Sequence[str | Passage], lacking: Sequence[str | Passage]) -> dict[str, float]:
    """Words for models other than that of the attribute; none where single words do not tell the texts apart."""
    with suppress(UserError):
        return train_words([_shown(each) for each in having], [_shown(each) for each in lacking]).weights
    return {}


def _shown(text: str | Passage) -> str:
    """The part of a text that shows the attribute or its absence."""
    if isinstance(text, str):
        return text
    return text.text if text.spans is None else " ".join(text.text[first:last] for first, last in text.spans)


def locate_classifier(classifier: str) -> tuple[Path | str, str]:
    """A classifier's folder or its name on the Hub, and its name in descriptions."""
    if is_local(classifier):
        path = local_path(classifier)
        return path, path.resolve().name
    return classifier, classifier


def _given_texts(with_texts: Sequence[str], without_texts: Sequence[str], openings: Sequence[str]) -> _Material:
    weights = words_for_other_models(with_texts, without_texts)

    def judge(texts: Sequence[OwnText]) -> list[float]:
        return [sum(weights.get(word, 0.0) for word in words_of(each.text)) for each in texts]

    openings = openings or _first_words([*with_texts, *without_texts])
    return _Material(with_texts, without_texts, judge if weights else None, openings, "their words")


def _first_words(texts: Sequence[str]) -> list[str]:
    """The beginnings of some texts, spread over all."""
    picked = texts[:: max(1, len(texts) // len(OPENINGS))]
    return list(dict.fromkeys(" ".join(each.split()[:_OPENING_WORDS]) for each in picked if each.strip()))


def _classified_texts(
    model: Any, tokenizer: Any, source: AttributeSource, writing: Writing, progress: Progress
) -> _Material:
    location, name = locate_classifier(source.classifier)
    classifier = TextClassifier.load(location, source.label)
    classifier.model.to(model.device)

    def judge(texts: Sequence[OwnText]) -> list[float]:
        logs = classifier([each.text for each in texts])
        return [log if math.isnan(log) else log - math.log(max(-math.expm1(log), 1e-30)) for log in logs]

    learnt, kept = _parted(writing.openings or ([""] if is_fundamentallm(model) else OPENINGS))
    written = write_texts(model, tokenizer, replace(writing, openings=learnt), partial(progress, "writing texts"))
    scores: list[float] = []
    while len(scores) < len(written):
        scores += judge(written[len(scores) : len(scores) + _CLASSIFIED])
        progress("judging texts", len(scores), len(written))
    having, lacking = sort_texts(written, scores)
    about = {"teacher": name, "label": classifier.label, "written": len(written)}
    description = f"texts that {name} calls {classifier.label}"
    return _Material(_passages(having), _passages(lacking), judge, kept, name, about, description)


def _described_texts(
    model: Any, tokenizer: Any, source: AttributeSource, writing: Writing, progress: Progress
) -> _Material:
    description = Description(source.description.strip(), source.opposite.strip())
    judge = OwnJudgement(model, tokenizer, description)
    learnt, kept = _parted(writing.openings or OPENINGS)
    report = partial(progress, "writing texts")
    written = write_both_sides(model, tokenizer, description, replace(writing, openings=learnt), report)
    scores = judge(written, partial(progress, "judging texts"))
    having, lacking = sort_texts(written, scores, _SHARE_OF_SIDES)

    def taught(texts: Sequence[OwnText], with_it: bool) -> list[Passage]:
        return [replace(each.passage, teacher=description.prompt(each.opening, with_it, tokenizer)) for each in texts]

    about = {"teacher": "the model itself", "opposite": description.lacking, "written": len(written)}
    return _Material(taught(having, True), taught(lacking, False), judge, kept, "the model's own judgement", about)


def _parted(openings: Sequence[str]) -> tuple[list[str], list[str]]:
    """Openings to learn from, and others to measure with; where there are few, all are both."""
    if len(openings) < _HELD_OUT:
        return list(openings), list(openings)
    learnt = [each for index, each in enumerate(openings) if index % _HELD_OUT != _HELD_OUT - 1]
    return learnt, list(openings[_HELD_OUT - 1 :: _HELD_OUT])


def _passages(texts: Sequence[OwnText]) -> list[Passage]:
    return [each.passage for each in texts]


def _usual_tokens(tokenizer: Any) -> int:
    """Tokens of a text of about `_CHARACTERS` characters."""
    sample = " ".join(OPENINGS)
    return max(1, round(_CHARACTERS * len(tokenizer(sample, add_special_tokens=False).input_ids) / len(sample)))


def _usual_texts(model: Any, tokens: int) -> int:
    parameters = sum(each.numel() for each in model.parameters())
    return max(_LEAST_TEXTS, min(TEXTS, int(_WORK / (parameters * tokens))))


def _about(made: ExpertTraining | SteeringTraining, method: str) -> dict[str, Any]:
    about: dict[str, Any] = {
        "method": method,
        "texts": {"with": made.texts[0], "without": made.texts[1]},
    }
    if made.separation is not None:
        about["held_out_auc"] = round(made.separation, 4)
    return about | {"tokens": {"with": made.tokens[0], "without": made.tokens[1]}}


def _of_leaning(leaning: Leaning, judged_by: str) -> dict[str, Any]:
    free = leaning.perplexities[0.0]
    found: dict[str, Any] = {
        "effect": {
            "what": f"of {leaning.texts} texts lean towards it, by {judged_by},",
            "shares": {f"{strength:+g}": round(share, 4) for strength, share in leaning.shares.items()},
        },
        "perplexity": {f"{strength:+g}": round(each / free, 3) for strength, each in leaning.perplexities.items()},
    }
    return found if leaning.suggested is None else found | {"suggested_strength": leaning.suggested}
