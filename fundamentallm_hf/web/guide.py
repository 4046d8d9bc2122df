"""What the page tells programmers: its endpoints and its MCP server, out of the endpoints themselves."""

import inspect
from collections.abc import Callable, Mapping

from .limits import LIMITS


def programs_text(endpoints: Mapping[str, Callable], address: str) -> str:
    """The part of the page for programs, in Markdown.

    Args:
        endpoints: by name.
        address: of this page, without a slash at its end.
    """
    rows = []
    for name, function in endpoints.items():
        first = (inspect.getdoc(function) or "").partition("\n")[0]
        own = [each for each in inspect.signature(function).parameters if each in ("prompt", "top", "temperatures")]
        settings = len(inspect.signature(function).parameters) > len(own)
        takes = ", ".join([*(f"`{each}`" for each in own), *(["every setting"] if settings else [])]) or "nothing"
        rows.append(f"| `/{name}` | {takes} | {first} |")
    listed = "\n".join(rows)
    return f"""### Python
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
A prompt has at most {LIMITS.prompt} characters and a text {LIMITS.tokens} new tokens; at most {LIMITS.samples} samples
and {LIMITS.beams} beams; all texts of a request together at most {LIMITS.total} tokens. A list has at most
{LIMITS.entries} entries ({LIMITS.required} of must-include) of {LIMITS.entry} characters, a pattern, schema or grammar
{LIMITS.text} characters. A request that computes for longer than {LIMITS.seconds:g} seconds ends as if stopped. No
request can name a file or a model. What goes beyond is refused with a sentence, and so is a request that comes while
too many are waiting.
"""
