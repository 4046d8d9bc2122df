"""The page's functions for programs: named endpoints with typed arguments, which are tools of its MCP server, too.

Arguments, their types, defaults and descriptions are those of the table of settings. What cannot be done is answered
with one sentence. This file knows nothing of how the page looks.
"""

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, get_args, get_origin

from fundamentallm_hf.portable.controls.setting import Setting
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.guides.attribute_lookup import known_attributes

from .comparisons import Column, by_temperature, without_each
from .limits import LIMITS, OPEN, read_prompt, read_settings
from .runner import Writer, Written

# Sentences are cut off behind so many characters: they may repeat what was sent.
LONGEST_SENTENCE = 400


def sentence(error: BaseException) -> str:
    """What went wrong in one line, whatever was sent."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if len(line) <= LONGEST_SENTENCE else f"{line[:LONGEST_SENTENCE]}…"


def answered(function: Callable) -> Callable:
    """Let a function, or generator, answer what goes wrong with a sentence instead of a traceback."""
    import gradio

    def refusal(error: BaseException) -> Exception:
        return gradio.Error(sentence(error), print_exception=False)

    # UserError is a ValueError; a RuntimeError is torch's, out of memory.
    expected = (ValueError, TypeError, RuntimeError, MemoryError, RecursionError)
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def stream(*arguments: Any, **keywords: Any) -> Iterator[Any]:
            try:
                yield from function(*arguments, **keywords)
            except expected as error:
                raise refusal(error) from None

        return stream

    @wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        try:
            return function(*arguments, **keywords)
        except expected as error:
            raise refusal(error) from None

    return call


def type_of(setting: Setting) -> Any:
    """The type by which programs know a setting."""
    if setting.kind is tuple:
        return list[str]
    return setting.kind if setting.default is not None else setting.kind | None


def with_settings(function: Callable) -> Callable:
    """Give a function that takes `**settings` an argument for each setting that is open to visitors, and its help."""
    own = inspect.signature(function, eval_str=True)
    parameters = [each for each in own.parameters.values() if each.kind != inspect.Parameter.VAR_KEYWORD]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    for name, setting in OPEN.items():
        default = list(setting.default) if setting.kind is tuple else setting.default
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=type_of(setting)))
    names = [each.name for each in parameters]

    # gradio hands arguments over by their places.
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def placed(*arguments: Any, **keywords: Any) -> Any:
            yield from function(**dict(zip(names, arguments, strict=False)) | keywords)
    else:

        @wraps(function)
        def placed(*arguments: Any, **keywords: Any) -> Any:
            return function(**dict(zip(names, arguments, strict=False)) | keywords)

    returned = own.return_annotation
    if get_origin(returned) is Iterator:
        (returned,) = get_args(returned)
    placed.__signature__ = inspect.Signature(parameters, return_annotation=returned)  # type: ignore[attr-defined]
    placed.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": returned}
    del placed.__wrapped__
    document = inspect.cleandoc(function.__doc__ or "")
    lines = [f"    {name}: {_help(setting)}" for name, setting in OPEN.items()]
    head, returns, tail = document.partition("\nReturns:")
    placed.__doc__ = f"{head.rstrip()}\n" + "\n".join(lines) + f"\n{returns}{tail}"
    return placed


def _help(setting: Setting) -> str:
    most = LIMITS.of(setting)
    text = " ".join(setting.help.split()).replace("`", "")
    if setting.comma_separated:
        text = text.replace(", separated by commas,", "")
    return text + (f" At most {most} here." if most else "")


def record(written: Written) -> dict[str, Any]:
    """What programs are told of a text, without the probabilities of its tokens."""
    assert written.completion is not None
    fields = written.completion.to_dict()
    fields.pop("probabilities", None)
    return fields | {"context_slides": written.slides, "seconds": round(written.seconds, 3)}


def make_endpoints(writer: Writer) -> dict[str, Callable]:
    """The endpoints by name, all of which check what they are given.

    Args:
        writer: computes.
    """

    @with_settings
    def write(prompt: str, **settings: Any) -> list[dict[str, Any]]:
        """Write text with the model, under the control of the settings.

        Args:
            prompt: How the text begins; may be empty.

        Returns:
            A record for each text: the text, what was added, why it ended, its seed, how likely the model finds it.
        """
        read = read_prompt(prompt), read_settings(settings)
        found = list(writer.write(*read))[-1]
        return [record(each) for each in found]

    @with_settings
    def stream(prompt: str, **settings: Any) -> Iterator[list[str]]:
        """Write text with the model and hand it over as it grows; ends with the whole texts.

        Args:
            prompt: How the text begins; may be empty.

        Returns:
            The texts, prompt and what was added so far, one for each sample.
        """
        read = read_prompt(prompt), read_settings(settings)
        for texts in writer.write(*read):
            yield [each.prompt + each.text for each in texts]

    @with_settings
    def see(prompt: str, **settings: Any) -> list[dict[str, Any]]:
        """Write text and tell of every token how likely it was, and what else could have come in its place.

        Args:
            prompt: How the text begins; may be empty.

        Returns:
            A record for each text, with the probabilities of its tokens before and after the settings.
        """
        read = read_prompt(prompt), read_settings(settings)
        found = list(writer.write(*read))[-1]
        made = []
        for each in found:
            probabilities = each.completion.probabilities if each.completion else ()
            made.append(record(each) | {"probabilities": [token.to_dict() for token in probabilities or ()]})
        return made

    @with_settings
    def next_tokens(prompt: str, top: int = 10, **settings: Any) -> list[dict[str, Any]]:
        """Tell which tokens could come next, by the model alone and after the settings, without writing any.

        Args:
            prompt: What stands before them; may be empty.
            top: How many tokens to tell of.

        Returns:
            The tokens with their probability after the settings, and the model's own.
        """
        if isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= LIMITS.entries:
            raise UserError(f"top has to be a whole number from 1 to {LIMITS.entries} but is {str(top)[:40]!r}")
        read = read_prompt(prompt), read_settings(settings)
        return [each.to_dict() for each in writer.next_tokens(*read, top)]

    @with_settings
    def beams(prompt: str, **settings: Any) -> dict[str, Any]:
        """Search with beams, and tell which texts were kept for a while and with which scores.

        Args:
            prompt: How the text begins; may be empty.

        Returns:
            The record of the chosen text, and the branches of the tree, of which the first is that text.
        """
        read = read_prompt(prompt), read_settings(settings)
        written, branches = writer.search(*read)
        return {"chosen": record(written), "branches": [each.to_dict() for each in branches]}

    @with_settings
    def compare(prompt: str, temperatures: list[float] = [], **settings: Any) -> list[dict[str, Any]]:  # noqa: B006
        """Write the same prompt with the same seed several times: at several temperatures, or without each control.

        Args:
            prompt: How the texts begin; may be empty.
            temperatures: Those to compare; none compares the text with those that each lack one of its controls.

        Returns:
            A record for each text, with a title that tells it from the others.
        """
        checked, settings_read = read_prompt(prompt), read_settings(settings)
        if not isinstance(temperatures, list):
            raise UserError(f"temperatures has to be a list of numbers but is {str(temperatures)[:40]!r}")
        columns = by_temperature(settings_read, temperatures) if temperatures else without_each(settings_read)
        found = list(writer.compare(checked, [each.settings for each in check_columns(columns)]))[-1]
        return [{"title": column.title} | record(each) for column, each in zip(columns, found, strict=False)]

    def attributes() -> list[dict[str, str]]:
        """List the attributes that texts can be guided towards with guide_attribute.

        Returns:
            The name of each, and what it does.
        """
        return attribute_list(writer)

    made = (write, stream, see, next_tokens, beams, compare, attributes)
    return {function.__name__: answered(function) for function in made}


def check_columns(columns: list[Column]) -> list[Column]:
    """Refuse a comparison of which one text cannot be written, before any is."""
    for column in columns:
        column.settings.check()
    total = sum(each.settings.max_tokens * each.settings.beam_size for each in columns)
    if total > LIMITS.total:
        raise UserError(
            f"max-tokens times the texts to compare is {total}, but here it has to be at most {LIMITS.total}: "
            "ask for less"
        )
    return columns


def attribute_list(writer: Writer) -> list[dict[str, str]]:
    """Name and description of every attribute that the model knows."""
    try:
        known = known_attributes(writer.generator.model)
    except UserError:  # one that cannot be read is told of when it is asked for, and keeps no page from starting
        return []
    return [{"name": name, "description": attribute.description} for name, _, attribute in known]
