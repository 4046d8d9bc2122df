"""Combines the options of `fundamentallm generate`, saved settings and prompts, and checks them.

All checks that do not need the model run before it is loaded.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fundamentallm_hf.generation.prompt_files import PromptsFile
from fundamentallm_hf.generation.tree_file import SavedTree, read_tree
from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.portable.guides.attributes import Attribute, is_path, read_guides
from fundamentallm_hf.settings.chat_messages import Messages, check_messages, user_chat, with_system
from fundamentallm_hf.settings.generation_settings import SETTINGS, GenerationSettings
from fundamentallm_hf.settings.typed_values import unescape

from .interactive.session_files import last_session
from .output import check_output
from .prompts import prompts_from_options, read_chat_prompts, read_prompts
from .saved_settings import SavedSettings, read_settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The alternatives to options that cannot be combined with --interactive.
INSTEAD = {
    "prompts-file": "give its lines on stdin",
    "output-file": "send stdout there",
    "format": "texts are written as they are",
    "show-probs": "/probs shows them",
    "probs-only": "/probs shows them",
}


@dataclass(frozen=True)
class Request:
    """A checked request.

    Attributes:
        prompts: at least one, but where more can be typed or are read as a stream; texts, or chats.
        prompts_file: the file that is read as a stream; None for no file, or one that is read as a whole.
        settings: of the generation.
        model: its path or Hub id; None is the bundled one.
        loading: the options for loading it.
        form: "text", "json" or "jsonl".
        sample: the index of the only sample to write, where settings generate several; None for all.
        batch_size: texts to generate at a time.
        show_probs: also show the most probable next tokens.
        probs_only: only show those.
        attributes: those given by their folders.
        resumed: the texts of the last session of the prompt loop; None where it is not resumed.
        chat: the prompts are messages of chats.
        system: the system message of the chats.
    """

    prompts: list[str] | list[Messages]
    prompts_file: PromptsFile | None
    settings: GenerationSettings
    model: str | None
    loading: dict[str, Any]
    form: str
    sample: int | None
    batch_size: int
    show_probs: bool
    probs_only: bool
    attributes: dict[str, Attribute]
    resumed: SavedTree | None = None
    chat: bool = False
    system: str | None = None

    @property
    def kept(self) -> int:
        """Texts for each prompt."""
        return 1 if self.sample is not None else self.settings.best or self.settings.num_samples


def read_request(options: dict[str, Any], explicit: dict[str, Any]) -> Request:
    """Combine options, saved settings and prompts.

    Raises:
        UsageError: they contradict each other, or have invalid values.
        UserError: a file cannot be read.
    """
    if options["interactive"]:
        _check_interactive(options)
    elif options["resume"]:
        raise UsageError("resume is set without interactive, whose last session it continues: add --interactive")
    file, form = _prompts_file_and_format(options, explicit)
    check_output(form, options["output_file"], options["force"], options["append"])
    _check_prompts_file(options, explicit, file, form)
    if "prompt" in explicit and options["prompts_file"] is not None:
        raise UsageError("prompt and prompts-file are both set: give the prompts in one of them")
    sources = [*options["prompt"], options["prompts_file"], options["config"]]
    if sources.count("-") > 1:
        raise UsageError(
            "- stands for stdin more than once among prompt, prompts-file and config: it is read only once"
        )
    saved = read_settings(options["config"]) if options["config"] is not None else SavedSettings()
    typed = {name: value for name, value in explicit.items() if name in SETTINGS}
    if options["escape"]:
        for name in (name for name in typed if SETTINGS[name].escaped):
            typed[name] = [unescape(text) for text in typed[name]]
    resumed = read_tree(str(last_session())) if options["resume"] else None
    settings = GenerationSettings(**{**(resumed.settings if resumed else {}), **saved.settings, **typed})
    settings.check()
    _check_probabilities(options | {"form": form}, settings)
    streamed = file if form == "jsonl" else None
    prompts = [] if streamed is not None else _prompts(options, explicit, saved)
    loading = {"trust_remote_code": options["trust_remote_code"]}
    for name in ("device", "device_map", "dtype", "revision"):
        loading[name] = options[name] if name in explicit else saved.others.get(name, options[name])
    for name, other in (("device", "device_map"), ("device_map", "device")):
        if name in explicit and other not in explicit:  # it replaces what was saved
            loading[other] = options[other]
    sample = saved.sample if "num_samples" not in typed and "best" not in typed else None
    if sample is not None and sample >= settings.num_samples:
        raise UsageError(f"sample is {sample} in the config, but num-samples writes only {settings.num_samples}")
    return Request(
        prompts=prompts,
        prompts_file=streamed,
        settings=settings,
        model=options["model"] or saved.others.get("model") or (resumed.model if resumed else None),
        loading=loading,
        form=form,
        sample=sample,
        batch_size=options["batch_size"],
        show_probs=options["show_probs"] or options["probs_only"],
        probs_only=options["probs_only"],
        attributes=_read_attributes(settings),
        resumed=resumed,
        chat=options["chat"],
        system=_system(options),
    )


def streams_prompts(options: dict[str, Any], explicit: dict[str, Any]) -> bool:
    """Whether the prompts are read as a stream from a file, as `Request.prompts_file`.

    Raises:
        UsageError: the options contradict each other.
    """
    file, form = _prompts_file_and_format(options, explicit)
    return file is not None and form == "jsonl"


def _prompts_file_and_format(options: dict[str, Any], explicit: dict[str, Any]) -> tuple[PromptsFile | None, str]:
    file = _prompts_file(options, explicit)
    return file, options["form"] or _usual_format(options, file)


def _prompts(options: dict[str, Any], explicit: dict[str, Any], saved: SavedSettings) -> list[str] | list[Messages]:
    """The prompts that were given, or the saved one; as chats where a chat was asked for."""
    system = _system(options)
    given = "prompt" in explicit or options["prompts_file"] is not None
    if not options["chat"] and saved.messages is None and system is not None:
        raise UsageError("system is set without chat, which it is the first message of: add --chat")
    if saved.messages is not None and not given:
        return [with_system(check_messages(saved.messages, "the chat of the config"), system)]
    if options["prompts_file"] is not None:
        if options["chat"]:
            return read_chat_prompts(options["prompts_file"], system)
        return read_prompts(options["prompts_file"], options["escape"])
    if "prompt" in explicit or "prompt" not in saved.others:
        prompts = prompts_from_options(options["prompt"], options["escape"])
        prompts = prompts or ([] if options["interactive"] else [""])
    else:
        prompts = [saved.others["prompt"]]
    if not options["chat"]:
        return prompts
    if prompts == [""]:
        raise UsageError("chat is set but there is no message to answer: give it as --prompt")
    return [user_chat(prompt, system) for prompt in prompts]


def _system(options: dict[str, Any]) -> str | None:
    system = options["system"]
    return unescape(system) if system is not None and options["escape"] else system


def _prompts_file(options: dict[str, Any], explicit: dict[str, Any]) -> PromptsFile | None:
    """The file of prompts, and how it is read; None if there is none, or if it holds chats."""
    if options["prompts_file"] is None or options["chat"]:
        reason = "chat reads its own form of prompts-file: leave one out" if options["chat"] else ""
        for name in ("prompts_format", "prompt_column", "id_column", "unordered"):
            if name in explicit:
                reason = reason or "there is no prompts-file: give one"
                raise UsageError(f"{name.replace('_', '-')} is set but {reason}")
        return None
    return PromptsFile(
        options["prompts_file"],
        options["prompts_format"],
        options["prompt_column"],
        options["id_column"],
        options["escape"],
    )


def _usual_format(options: dict[str, Any], file: PromptsFile | None) -> str:
    """The output format where none is given."""
    named = Path(options["output_file"] or "").suffix.lower() in (".jsonl", ".ndjson")
    return "jsonl" if file is not None and (file.has_fields or named) and not options["probs_only"] else "text"


def _check_prompts_file(options: dict[str, Any], explicit: dict[str, Any], file: PromptsFile | None, form: str) -> None:
    """Refuse what does not go with a file of prompts, or with its kind.

    Raises:
        UsageError: there is something.
    """
    if file is None:
        return
    if file.has_fields and form != "jsonl":
        what = "probs-only" if options["probs_only"] else f"format {form}"
        raise UsageError(f"prompts-file holds {file.form}, which {what} cannot be combined with: use --format jsonl")
    if options["unordered"] and form != "jsonl":
        raise UsageError(f"unordered is set, but in format {form} nothing says whose text it is: use --format jsonl")
    if not file.has_fields:
        for name in ("prompt_column", "id_column"):
            if name in explicit:
                raise UsageError(
                    f"{name.replace('_', '-')} is set, but prompts-file holds lines of text: set prompts-format to "
                    "jsonl, csv or parquet if it does not"
                )


def _read_attributes(settings: GenerationSettings) -> dict[str, Attribute]:
    """The attributes that the option gives by their folders."""
    try:
        return {name: Attribute.load(name) for name in filter(is_path, read_guides(settings.guide_attribute))}
    except UserError as error:  # as for every option whose value does not exist
        raise UsageError(f"guide-attribute: {error}") from error


def _check_interactive(options: dict[str, Any]) -> None:
    given = {name: options[name.replace("-", "_")] for name in INSTEAD if name != "format"}
    given["format"] = options["form"] not in (None, "text")
    for name, instead in INSTEAD.items():
        if given[name]:
            raise UsageError(f"{name} cannot be combined with interactive: {instead}")
    if "-" in (*options["prompt"], options["config"]):
        raise UsageError("interactive reads its input from stdin, so - cannot be combined with it: give them there")


def _check_probabilities(options: dict[str, Any], settings: GenerationSettings) -> None:
    if not options["probs_only"]:
        return
    idle = {
        "num-samples": settings.num_samples > 1,
        "output-file": options["output_file"] is not None,
        f"format {options['form']}": options["form"] != "text",
    }
    for name, is_set in idle.items():
        if is_set:
            raise UsageError(f"probs-only writes no text, so {name} cannot be combined with it: use --show-probs")


def origin(request: Request, model: "PreTrainedModel") -> dict[str, Any]:
    """The model's part of a record, with which it is found again: on the Hub, the commit and not a branch.

    Default values are left out. The permission to run a repository's code is never saved: it has to be given each time.
    """
    usual = {"device": "auto", "device_map": None, "dtype": "auto", "revision": None}
    told = {name: request.loading[name] for name in usual if request.loading[name] != usual[name]}
    commit = getattr(model.config, "_commit_hash", None)
    if request.model is None or commit is None:
        return {"model": request.model} | told
    return {"model": request.model.partition("@")[0]} | told | {"revision": commit}
