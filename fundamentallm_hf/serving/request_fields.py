"""Reads the fields of a request: settings of the library, fields of the OpenAI interface, and `generation_config`.

Every field is checked here, before a model is asked. Nothing is ignored silently: a field either has its effect, or has
none by its nature (`user`), or the request is refused with one line.
"""

import difflib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig

from fundamentallm_hf.files import first_line
from fundamentallm_hf.generation.generate_arguments import generate_arguments
from fundamentallm_hf.portable.controls.control_fields import CONTROL_FIELDS
from fundamentallm_hf.portable.controls.control_table import CONTROLS
from fundamentallm_hf.portable.controls.setting import Setting
from fundamentallm_hf.portable.errors import UsageError
from fundamentallm_hf.settings.generation_settings import LIST_FILES, SETTINGS, GenerationSettings
from fundamentallm_hf.settings.typed_values import short_repr

from .server_limits import ServerLimits

# Other names of settings.
ALIASES = {
    **dict.fromkeys(("max_completion_tokens", "max_output_tokens"), "max_tokens"),
    **{"num_beams": "beam_size", "n": "num_samples"},
}
# Fields that become a setting after a calculation.
CONVERTED = ("frequency_penalty", "response_format", "best_of")
# A client cannot name a file on the server.
CLOSED = LIST_FILES
# Fields that change no text.
WITHOUT_EFFECT = {
    *("user", "metadata", "store", "stream_options", "service_tier", "parallel_tool_calls", "safety_identifier"),
    *("prompt_cache_key", "model", "stream"),
}
# Fields that the endpoints of transformers read themselves.
READ_LATER = {"prompt", "suffix", "messages", "input", "instructions", "tools", "chat_template_kwargs", "reasoning"}
# Fields that are read as a whole.
READ_APART = {"generation_config", "logprobs", "top_logprobs", "include"}
# What a request to /v1/responses includes for log-probabilities; and alternatives to a token, at most.
INCLUDED, ALTERNATIVES = "message.output_text.logprobs", 20
# Fields without support, and the values at which they have no effect.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "echo": (False,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tool_choice": ("auto", "none"),
    "modalities": (["text"],),
    "truncation": ("disabled",),
    "background": (False,),
    "text": ({"format": {"type": "text"}}, {}),
}

# All fields that a request may have.
FIELDS = sorted({*SETTINGS, *ALIASES, *CONVERTED, *WITHOUT_EFFECT, *READ_LATER, *READ_APART, *NEUTRAL} - {*CLOSED})


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Attributes:
        settings: those of the plain fields.
        given: the names of these settings.
        config: the fields of its `generation_config`; None if it has none.
        alternatives: most probable tokens next to each token, with log-probabilities; None without log-probabilities.
    """

    settings: GenerationSettings
    given: frozenset[str]
    config: Mapping[str, Any] | None
    alternatives: int | None = None

    @property
    def beams(self) -> int:
        """Candidates of the search; 1 without one."""
        return max(self.settings.beam_size, (self.config or {}).get("num_beams") or 1)

    def make_config(self, model: Any, sample: int = 0) -> GenerationConfig:
        """The config of `generate()`: where the request has no `generation_config`, what the command would pass.

        Args:
            model: that generates.
            sample: index of the text; the texts of a search have one config.
        """
        settings = self.settings.replace(best=None)
        if self.beams == 1:
            seed = None if settings.seed is None else settings.seed + sample
            settings = settings.replace(num_samples=1, seed=seed)
        arguments = generate_arguments(model, settings, lambda line: None)
        arguments |= {"seed": settings.seed} | ({} if settings.speculate else {"speculate": False})
        if settings.overflow is not None:
            arguments["overflow"] = settings.overflow
        if self.config is not None:
            neutral = generate_arguments(model, GenerationSettings(), lambda line: None)
            arguments = {name: value for name, value in arguments.items() if neutral.get(name) != value}
            if "max_tokens" in self.given:
                arguments["max_new_tokens"] = settings.max_tokens
            arguments = {**self.config, **{name: value for name, value in arguments.items() if value is not None}}
            if self.beams == 1 and self.config.get("seed") is not None:
                arguments["seed"] = self.config["seed"] + sample
        extra = arguments.pop("logits_processor", None)
        config = GenerationConfig(**arguments)
        if config.do_sample and getattr(config, "seed", None) is None:
            config.seed = secrets.randbits(32)
        # The manager takes these out again.
        config.request_settings, config.extra_processors = (settings if self.config is None else None), extra
        return config


def read_fields(body: Mapping[str, Any], limits: ServerLimits, endpoint: str = "completions") -> Asked:
    """Read and check all fields but those of the prompt.

    Args:
        body: the fields.
        limits: upper limits.
        endpoint: "completions", "chat" or "responses".

    Raises:
        UsageError: a field is unknown, has a value that it cannot have, or exceeds a limit.
    """
    values: dict[str, Any] = {}
    for name, value in _with_best_of(body).items():
        if value is None or name in WITHOUT_EFFECT | READ_LATER | READ_APART:
            continue
        if name in NEUTRAL:
            if value not in NEUTRAL[name]:
                raise UsageError(f"{name} is not supported here but is {short_repr(value)}: leave it out", setting=name)
            continue
        setting_name, meant = _as_setting(name, value)
        if meant is None:
            continue
        if setting_name not in SETTINGS:
            raise UsageError(f"there is no field {name!r}: {_hint(name)}", setting=name)
        if setting_name in values:
            raise UsageError(f"{name} is given twice, by two names: leave one out", setting=name)
        values[setting_name] = _value(SETTINGS[setting_name], meant, limits)
    settings = GenerationSettings(**values)
    settings.check()
    config = _read_config(body.get("generation_config"), limits)
    doubled = sorted(_fields_of(values) & set(config or ()))
    if doubled:
        raise UsageError(f"{doubled[0]} is in the request and in its generation_config: leave one out")
    asked = Asked(settings, frozenset(values), config, _read_logprobs(body, endpoint))
    _check_samples(asked, endpoint, bool(body.get("stream", endpoint == "responses")))
    return asked


def _check_samples(asked: Asked, endpoint: str, streaming: bool) -> None:
    count, best = asked.settings.num_samples, asked.settings.best
    if endpoint == "responses" and count > 1:
        raise UsageError("num-samples has to be 1 for a response: use chat completions", setting="num_samples")
    if count > asked.beams > 1:
        raise UsageError(
            f"num-samples is {count}, but a search with {asked.beams} beams gives {asked.beams} texts at most "
            "here: ask for fewer texts, or for more beams",
            setting="num_samples",
        )
    if best is not None and streaming:
        raise UsageError(
            f"best is {best}, but which texts are the best is known at the end: leave out stream", setting="best"
        )


def _with_best_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """`best_of` texts of which `n` are kept, as the settings of the library say it."""
    if body.get("best_of") is None:
        return body
    if body.get("best") is not None:
        raise UsageError("best is given next to best_of, of which n texts are kept: leave one out", setting="best")
    left = {name: value for name, value in body.items() if name not in ("best_of", "n")}
    kept = 1 if body.get("n") is None else body["n"]
    return left | {"n": body["best_of"]} | ({} if kept == body["best_of"] else {"best": kept})


def _read_logprobs(body: Mapping[str, Any], endpoint: str) -> int | None:
    """The number of alternatives to each token; None without log-probabilities."""
    given, top, include = body.get("logprobs"), body.get("top_logprobs"), body.get("include")
    if include not in (None, [], [INCLUDED]) or (include and endpoint != "responses"):
        raise UsageError(
            f"include has to be {[INCLUDED]} in a response, and empty elsewhere, but is {short_repr(include)}",
            setting="include",
        )
    if endpoint == "completions":
        if top not in (None, 0):
            raise UsageError("top_logprobs is a field of chats: give the number as logprobs", setting="top_logprobs")
        return None if given is None or given is False else _alternatives("logprobs", given)
    if given not in (None, False) and (given is not True or endpoint == "responses"):
        expected = (
            "true or false" if endpoint == "chat" else f'false in a response, which has "include": ["{INCLUDED}"]'
        )
        raise UsageError(f"logprobs has to be {expected} but is {short_repr(given)}", setting="logprobs")
    number = _alternatives("top_logprobs", 0 if top is None else top)
    if number and endpoint == "chat" and not given:
        raise UsageError('top_logprobs needs "logprobs": true', setting="top_logprobs")
    return number if given or include or number else None


def _alternatives(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= ALTERNATIVES:
        raise UsageError(
            f"{name} has to be a whole number from 0 to {ALTERNATIVES} but is {short_repr(value)}", setting=name
        )
    return value


def _as_setting(name: str, value: Any) -> tuple[str, Any]:
    """The name and the value of the setting that a field stands for; the value is None if it sets nothing."""
    if name == "frequency_penalty":
        penalty = _number(name, value)
        return "repetition_penalty", 1.0 + penalty if penalty else None
    if name == "response_format":
        return "json_schema", _schema(value)
    return ALIASES.get(name, name), value


def _fields_of(values: Mapping[str, Any]) -> set[str]:
    """The fields of `GenerationConfig` that settings become."""
    config = {"max_tokens": "max_new_tokens", "beam_size": "num_beams", "min_tokens": "min_new_tokens"}
    config |= {name: control.config_field for name, control in CONTROLS.items()}
    return {config.get(name, name) for name in values}


def _value(setting: Setting, value: Any, limits: ServerLimits) -> Any:
    if setting.name in CLOSED:
        raise UsageError(f"{setting.label} is not available here: give the words themselves", setting=setting.name)
    if setting.name == "stop" and isinstance(value, str):
        value = [value]
    listed = isinstance(value, list) or (setting.is_weighted and isinstance(value, dict))
    entries = list(value) if listed else [value]
    if len(entries) > limits.entries:
        raise UsageError(
            f"{setting.label} has to have at most {limits.entries} entries here but has {len(entries)}: shorten it",
            setting=setting.name,
        )
    if any(len(str(entry)) > limits.characters for entry in entries if isinstance(entry, str | dict)):
        raise UsageError(
            f"{setting.label} has to have at most {limits.characters} characters here: shorten it", setting=setting.name
        )
    parsed = setting.parse(value)
    _check_most(setting.name, parsed, limits)
    return parsed


def _check_most(name: str, value: Any, limits: ServerLimits) -> None:
    most = {
        **dict.fromkeys(("max_tokens", "min_tokens", "max_new_tokens", "min_new_tokens", "max_length"), limits.tokens),
        **dict.fromkeys(("beam_size", "num_beams"), limits.beams),
        "num_samples": limits.samples,
    }.get(name)
    if most is not None and isinstance(value, int) and value > most:
        raise UsageError(
            f"{name.replace('_', '-')} has to be at most {most} here but is {value}: ask for less", setting=name
        )


def _read_config(text: Any, limits: ServerLimits) -> Mapping[str, Any] | None:
    if text is None:
        return None
    try:
        config = json.loads(text) if isinstance(text, str) else text
    except ValueError as error:
        raise UsageError(f"generation_config has to be a JSON object but cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise UsageError(f"generation_config has to be a JSON object but is {short_repr(config)}")
    known = set(GenerationConfig().to_dict()) | set(CONTROL_FIELDS)
    for name, value in config.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "see the documentation of generate()"
            raise UsageError(f"generation_config has no field {name!r}: {hint}", setting=name)
        if isinstance(value, list) and len(value) > limits.entries:
            raise UsageError(
                f"{name} has to have at most {limits.entries} entries here but has {len(value)}: shorten it"
            )
        _check_most(name, value, limits)
    if config.get("num_return_sequences") not in (None, 1):
        raise UsageError("num_return_sequences has to be 1 here: give the number of texts as n")
    try:
        GenerationConfig(**config)
    except (ValueError, TypeError) as error:
        raise UsageError(f"generation_config is not valid: {first_line(error)}") from None
    return config


def _schema(value: Any) -> Mapping[str, Any] | None:
    """The schema in the field `response_format`; None for plain text."""
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "text":
        return None
    described = value.get("json_schema") if kind == "json_schema" else None
    schema = described.get("schema") if isinstance(described, Mapping) else None
    if not isinstance(schema, Mapping):
        raise UsageError(
            f'response_format has to be {{"type": "text"}} or {{"type": "json_schema", "json_schema": {{"schema": '
            f"...}}}} but is {short_repr(value)}",
            setting="response_format",
        )
    return schema


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} has to be a number but is {short_repr(value)}", setting=name)
    return float(value)


def _hint(name: str) -> str:
    near = difflib.get_close_matches(name, FIELDS, n=1)
    return f"did you mean {near[0]!r}?" if near else "leave it out"
