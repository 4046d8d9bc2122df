"""Reads the constraint on a whole text (a regular expression, a JSON schema or a grammar) with llguidance.

llguidance is an optional package (`pip install 'fundamentallm-hf[structured]'`), so it is imported where it is needed.
Needs neither torch nor transformers.
"""

import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ..errors import UserError

# White space between the parts of JSON: enough to indent it. Unlimited white space would allow endless texts of it.
_WHITE_SPACE = r"[\x20\x0A\x0D\x09]{1,40}"
_EXPECTED = {
    "pattern": "a regular expression",
    "json_schema": "a JSON schema, as a dict or as text,",
    "grammar": "a Lark grammar",
}


class MissingPackageError(UserError):
    """llguidance is not installed, so the setting cannot be used with any value."""


def read_grammar(fields: Mapping[str, Any], json_whitespace: bool = False) -> str | None:
    """The grammar that a whole text has to match, in llguidance's form; None where no field is set.

    Args:
        fields: the values of `WHOLE_TEXT_FIELDS`, by name, with dashes or underscores; None and "" are not set.
        json_whitespace: JSON may have white space between its parts; settings in the schema itself take precedence.

    Raises:
        UserError: more than one is set, one is not valid, or llguidance is not installed; one line that begins with the
            name as it was given.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.structured.grammars import read_grammar
    >>> read_grammar({"pattern": "[0-9]{4}("})
    Traceback (most recent call last):
    ...
    fundamentallm_hf.portable.errors.UserError: pattern: '[0-9]{4}(' is not valid: unclosed group

    ```
    """
    given = {name: value for name, value in fields.items() if value is not None and value != ""}
    if not given:
        return None
    if len(given) > 1:
        line = f"{' and '.join(given)} are set, but a text can match only one of them as a whole: choose one"
        raise UserError(line, setting=next(iter(given)).replace("-", "_"))
    ((name, value),) = given.items()
    field = name.replace("-", "_")
    if not isinstance(value, str | dict if field == "json_schema" else str):
        expected = _EXPECTED[field]
        line = f"{name} has to be {expected} but is {value!r}"
        raise UserError(line, setting=field, value=value, expected=expected)
    matcher = import_llguidance(name).LLMatcher
    try:
        if field == "json_schema":
            schema = value if isinstance(value, str) else json.dumps(value)
            spaces = {"whitespace_pattern": _WHITE_SPACE} if json_whitespace else {"whitespace_flexible": False}
            grammar = matcher.grammar_from_json_schema(schema, defaults=spaces)
        elif field == "grammar":
            grammar = matcher.grammar_from_lark(value)
        else:
            grammar = matcher.grammar_from_regex(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: not valid JSON: {error}", setting=field, value=value) from None
    is_wrong, messages = matcher.validate_grammar_with_warnings(grammar)
    if is_wrong:
        shown = f"{value!r} is" if field == "pattern" else "it is"
        reason = in_one_line(messages[0], field)
        raise UserError(f"{name}: {shown} not valid: {reason}", setting=field, value=value)
    return str(grammar)


def in_one_line(message: str, field: str) -> str:
    """llguidance's message without its drawing of the position."""
    lines = [line.strip() for line in message.splitlines()] or [""]
    first = lines[0].removesuffix("regex parse error:").rstrip()
    if field == "pattern":
        first = first.partition("(in regex):")[2].strip() or ("" if "(in regex):" in first else first)
    reason = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), "")
    return " ".join(part for part in (first, reason) if part)


def import_llguidance(name: str) -> ModuleType:
    """Import llguidance for the field called `name`.

    Raises:
        MissingPackageError: llguidance is not installed; the message says how to install it.
    """
    # Inside `try`, transformers does not count the import as a requirement of the code that travels with a model.
    try:
        import llguidance
    except ImportError:
        raise MissingPackageError(
            f"{name} needs the package llguidance: pip install 'fundamentallm-hf[structured]'",
            setting=name.replace("-", "_"),
        ) from None
    return llguidance
