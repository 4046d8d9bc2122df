"""The page's functions for programs: named endpoints with typed arguments, which are tools of its MCP server, too.

Arguments, their types, defaults and descriptions come from the table of settings. Errors are returned as one sentence.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any, get_args, get_origin

from fundamentallm_hf.files import first_line
from fundamentallm_hf.generation.chat import own_part
from fundamentallm_hf.portable.controls.setting import Setting
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.guides.attribute_lookup import known_attributes
from fundamentallm_hf.settings.generation_settings import GenerationSettings

from .comparisons import Column, by_temperature, without_each
from .limits import LIMITS, OPEN, read_settings
from .runner import Wanted, Writer, Written

# Sentences are cut off after this many characters: they may repeat parts of the request.
LONGEST_SENTENCE = 400
# The argument for a chat.
MESSAGES = "messages"
_MESSAGES_HELP = (
    'A chat to be answered in place of a prompt, a list of {"role": ..., "content": ...}; needs a model with a chat '
    "template. If the last message is the assistant's, it is the start of the reply."
)


def sentence(error: BaseException) -> str:
    """The error in one line, whatever the request contained."""
    line = first_line(error)
    return line if len(line) <= LONGEST_SENTENCE else f"{line[:LONGEST_SENTENCE]}…"


def answered(function: Callable) -> Callable:
    """Let a function, or generator, return errors as a sentence instead of a traceback."""
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
    """The type of a setting in the programs' interface."""
    if setting.kind is tuple:
        return list[str]
    return setting.kind if setting.default is not None else setting.kind | None


def with_settings(function: Callable) -> Callable:
    """Give a function that takes `**settings` an argument and its help for a chat, and for each setting of visitors."""
    signature = inspect.signature(function, eval_str=True)
    parameters = [each for each in signature.parameters.values() if each.kind != inspect.Parameter.VAR_KEYWORD]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters.append(inspect.Parameter(MESSAGES, kind, default=[], annotation=list[dict[str, str]]))
    for name, setting in OPEN.items():
        default = list(setting.default) if setting.kind is tuple else setting.default
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=type_of(setting)))
    names = [each.name for each in parameters]

    # gradio passes arguments by position.
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def with_each(*arguments: Any, **keywords: Any) -> Any:
            yield from function(**dict(zip(names, arguments, strict=False)) | keywords)
    else:

        @wraps(function)
        def with_each(*arguments: Any, **keywords: Any) -> Any:
            return function(**dict(zip(names, arguments, strict=False)) | keywords)

    returned = signature.return_annotation
    if get_origin(returned) is Iterator:
        (returned,) = get_args(returned)
    with_each.__signature__ = inspect.Signature(parameters, return_annotation=returned)  # type: ignore[attr-defined]
    with_each.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": returned}
    del with_each.__wrapped__
    document = inspect.cleandoc(function.__doc__ or "")
    lines = [f"    {MESSAGES}: {_MESSAGES_HELP}"]
    lines += [f"    {name}: {_help(setting)}" for name, setting in OPEN.items()]
    head, returns, tail = document.partition("\nReturns:")
    with_each.__doc__ = f"{head.rstrip()}\n" + "\n".join(lines) + f"\n{returns}{tail}"
    return with_each


def _help(setting: Setting) -> str:
    most = LIMITS.of(setting)
    text = " ".join(setting.help.split()).replace("`", "")
    if setting.comma_separated:
        text = text.replace(", separated by commas,", "")
    return text + (f" At most {most} here." if most else "")


def record(written: Written) -> dict[str, Any]:
    """The record of a text for programs, without the probabilities of its tokens."""
    assert written.completion is not None
    fields = replace(written.completion, probabilities=None).to_dict()
    return fields | {"context_slides": written.slides, "seconds": round(written.seconds, 3)}


class Endpoints:
    """The functions for programs. Every method checks its arguments.

    The docstrings describe the tools of the MCP server.

    Args:
        writer: does the computation.
    """

    NAMES = ("write", "stream", "see", "next_tokens", "beams", "compare", "attributes")

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    def by_name(self) -> dict[str, Callable]:
        """The endpoints in gradio's form: with an argument for each setting, and errors as sentences."""
        found: dict[str, Callable] = {}
        for name in self.NAMES:
            method = getattr(self, name)
            kinds = [each.kind for each in inspect.signature(method).parameters.values()]
            takes_settings = inspect.Parameter.VAR_KEYWORD in kinds
            found[name] = answered(with_settings(method) if takes_settings else method)
        return found

    def _read(self, prompt: Any, settings: dict[str, Any]) -> tuple[str, GenerationSettings]:
        """The prompt or the chat, and the settings; both checked."""
        messages = settings.pop(MESSAGES, None)
        return self.writer.read_prompt(prompt, messages), read_settings(settings)

    def _written(self, prompt: Any, settings: dict[str, Any], probabilities: bool) -> list[Written]:
        """The finished texts of a request."""
        read = self._read(prompt, settings)
        *_, found = self.writer.write(*read, wanted=Wanted(growing=False, probabilities=probabilities))
        return found

    def write(self, prompt: str = "", **settings: Any) -> list[dict[str, Any]]:
        """Generate text with the model, under the control of the settings.

        Args:
            prompt: The start of the text; may be empty, and is where there are messages.

        Returns:
            A record for each text: the text, what was added, why it ended, its seed, its log-probability.
        """
        return [record(each) for each in self._written(prompt, settings, probabilities=False)]

    def stream(self, prompt: str = "", **settings: Any) -> Iterator[list[str]]:
        """Generate text with the model and stream it; ends with the whole texts.

        Args:
            prompt: The start of the text; may be empty, and is where there are messages.

        Returns:
            The texts, prompt and what was added so far, one for each sample.
        """
        read = self._read(prompt, settings)
        for texts in self.writer.write(*read, wanted=Wanted(probabilities=False)):
            yield [own_part(each.prompt) + each.text for each in texts]

    def see(self, prompt: str = "", **settings: Any) -> list[dict[str, Any]]:
        """Generate text and report the probability of every token, and of its alternatives.

        Args:
            prompt: The start of the text; may be empty, and is where there are messages.

        Returns:
            A record for each text, with the probabilities of its tokens before and after the settings.
        """
        made = []
        for each in self._written(prompt, settings, probabilities=True):
            probabilities = each.completion.probabilities if each.completion else ()
            made.append(record(each) | {"probabilities": [token.to_dict() for token in probabilities or ()]})
        return made

    def next_tokens(self, prompt: str = "", top: int = 10, **settings: Any) -> list[dict[str, Any]]:
        """Report which tokens could come next, by the model alone and after the settings, without generating any.

        Args:
            prompt: The text before them; may be empty, and is where there are messages.
            top: How many tokens to report.

        Returns:
            The tokens with their probability after the settings, and the raw one.
        """
        if isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= LIMITS.entries:
            raise UserError(f"top has to be a whole number from 1 to {LIMITS.entries} but is {str(top)[:40]!r}")
        read = self._read(prompt, settings)
        return [each.to_dict() for each in self.writer.next_tokens(*read, top)]

    def beams(self, prompt: str = "", **settings: Any) -> dict[str, Any]:
        """Search with beams, and report the texts that were kept during the search, with their scores.

        Args:
            prompt: The start of the text; may be empty, and is where there are messages.

        Returns:
            The record of the chosen text, and the branches of the tree, of which the first is that text.
        """
        read = self._read(prompt, settings)
        *_, (written, branches) = self.writer.search(*read)
        return {"chosen": record(written), "branches": [each.to_dict() for each in branches]}

    def compare(self, prompt: str = "", temperatures: list[float] = [], **settings: Any) -> list[dict[str, Any]]:  # noqa: B006
        """Generate from one prompt and seed several times: at several temperatures, or without each control.

        Args:
            prompt: The start of the texts; may be empty, and is where there are messages.
            temperatures: Those to compare; if empty, each control is left out in turn instead.

        Returns:
            A record for each text, with a title that says how it differs.
        """
        checked, settings_read = self._read(prompt, settings)
        if not isinstance(temperatures, list):
            raise UserError(f"temperatures has to be a list of numbers but is {str(temperatures)[:40]!r}")
        columns = by_temperature(settings_read, temperatures) if temperatures else without_each(settings_read)
        each_settings = [each.settings for each in check_columns(columns)]
        *_, found = self.writer.compare(checked, each_settings, wanted=Wanted(growing=False, probabilities=False))
        return [{"title": column.title} | record(each) for column, each in zip(columns, found, strict=False)]

    def attributes(self) -> list[dict[str, str]]:
        """List the attributes that texts can be guided towards with guide_attribute.

        Returns:
            The name and effect of each.
        """
        return attribute_list(self.writer)


def check_columns(columns: list[Column]) -> list[Column]:
    """Reject a comparison if one of its texts is not allowed, before any is generated."""
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
    """Name and description of every attribute of the model."""
    try:
        known = known_attributes(writer.generator.model)
    except UserError:  # an unreadable one is reported when it is used, and does not keep the page from starting
        return []
    return [{"name": name, "description": attribute.description} for name, _, attribute in known]


def programs_text(endpoints: Mapping[str, Callable], address: str) -> str:
    """The part of the page for programs, in Markdown.

    Args:
        endpoints: by name.
        address: of this page, without a slash at its end.
    """
    rows = []
    for name, function in endpoints.items():
        first = (inspect.getdoc(function) or "").partition("\n")[0]
        names = inspect.signature(function).parameters
        others = [each for each in names if each in ("prompt", MESSAGES, "top", "temperatures")]
        settings = ["every setting"] if len(names) > len(others) else []
        takes = ", ".join([*(f"`{each}`" for each in others), *settings]) or "nothing"
        rows.append(f"| `/{name}` | {takes} | {first} |")
    listed = "\n".join(rows)
    return f"""### Python that asks this page
It needs `pip install gradio_client`, and no model on your computer. The Python under *Export* runs the model there.
```python
from gradio_client import Client

client = Client("{address}")
for text in client.predict("Once upon a time", seed=7, must_include=["dragon"], api_name="/write"):
    print(text["text"])
```
`client.view_api()` lists every argument with its type. Settings have the names, defaults and ranges of
`fundamentallm generate --help`; a list is a list of texts.

| endpoint | takes | what it does |
|---|---|---|
{listed}

### MCP
The same functions are tools for assistants that speak the Model Context Protocol. Their server is at
`{address}/gradio_api/mcp/`:
```json
{{"mcpServers": {{"fundamentallm": {{"url": "{address}/gradio_api/mcp/"}}}}}}
```

### Limits
A prompt has at most {LIMITS.prompt} characters, a chat {LIMITS.chat} in {LIMITS.messages} messages, and a text
{LIMITS.tokens} new tokens; at most {LIMITS.samples} samples and {LIMITS.beams} beams; all texts of a request together
at most {LIMITS.total} tokens. A list has at most {LIMITS.entries} entries ({LIMITS.required} of must-include) of
{LIMITS.entry} characters, a pattern, schema or grammar {LIMITS.text} characters. A request that computes for longer
than {LIMITS.seconds:g} seconds ends as if stopped. No request can name a file or a model. What goes beyond is refused
with a sentence, and so is a request that comes while too many are waiting.
"""
