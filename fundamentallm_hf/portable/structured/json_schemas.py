"""Reads a JSON schema as alternatives: those of every value, and the values within each.

llguidance checks texts against a schema but does not say how one can be completed. The schema does: which properties
are required, in which order they come, which values each may have. References are followed, `allOf` and keywords next
to others are merged, and `anyOf` gives alternatives, as in llguidance.
"""

import json
import math
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any
from urllib.parse import unquote

from .shortest_match import Expression

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
# Alternatives of one value that are followed.
MOST_WAYS = 96
# Nesting of references and alternatives.
_DEEPEST = 40
_LEAF_KEYWORDS = {
    *("type", "enum", "const", "properties", "additionalProperties", "patternProperties", "required", "minProperties"),
    *("maxProperties", "items", "prefixItems", "additionalItems", "minItems", "maxItems", "minLength", "maxLength"),
    *("pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}


class Way:
    """One alternative of a value: schemas without alternatives, all of which hold.

    Attributes:
        parts: the schemas, in the order in which llguidance merges them.
        types: the types that the value may have.
    """

    def __init__(self, reader: "SchemaReader", parts: tuple[dict[str, Any], ...]) -> None:
        self._reader = reader
        self.parts = parts
        self.types = frozenset(TYPES)
        for part in parts:
            named = part.get("type", TYPES)
            self.types &= frozenset([named] if isinstance(named, str) else named) | (
                {"integer"} if named == "number" or "number" in named else frozenset()
            )
        values = self.values
        if values is not None:
            self.types &= {kind for value in values for kind in types_of(value)}
        self._children: dict[str, Value | None] = {}

    @cached_property
    def values(self) -> list[Any] | None:
        """The listed values, none an array or object; None where there is no list."""
        lists = [part["enum"] for part in self.parts if "enum" in part]
        lists += [[part["const"]] for part in self.parts if "const" in part]
        if not lists:
            return None
        both = [value for value in lists[0] if all(any(same(value, other) for other in each) for each in lists[1:])]
        return [value for value in both if all(_allows(part, value) for part in self.parts)]

    def least(self, keyword: str) -> Any:
        """The highest lower limit set by a keyword; None where there is none."""
        return max((part[keyword] for part in self.parts if _is_number(part.get(keyword))), default=None)

    def most(self, keyword: str) -> Any:
        """The lowest upper limit set by a keyword; None where there is none."""
        return min((part[keyword] for part in self.parts if _is_number(part.get(keyword))), default=None)

    def all_of(self, keyword: str) -> list[Any]:
        """The values of a keyword in all parts."""
        return [part[keyword] for part in self.parts if keyword in part]

    @cached_property
    def required(self) -> list[str]:
        """The required properties, in the order in which they come."""
        names = dict.fromkeys(name for part in self.parts for name in part.get("required", ()) if isinstance(name, str))
        declared = [name for name in self.declared if name in names]
        return declared + [name for name in names if name not in set(declared)]

    @cached_property
    def declared(self) -> list[str]:
        """The properties with schemas, in the order in which they come."""
        return list(dict.fromkeys(name for part in self.parts for name in part.get("properties", ())))

    @cached_property
    def order(self) -> dict[str, int]:
        """The rank of every property that has a fixed one."""
        return {name: rank for rank, name in enumerate(dict.fromkeys([*self.declared, *self.required]))}

    def child(self, name: str) -> "Value | None":
        """The value of a property; None where it is not allowed."""
        if name not in self._children:
            found: list[Any] = []
            for part in self.parts:
                own = [part["properties"][name]] if name in part.get("properties", ()) else []
                for pattern, schema in part.get("patternProperties", {}).items():
                    if _found(pattern, name):
                        own.append(schema)
                found += own or [part.get("additionalProperties", True)]
            self._children[name] = self._reader.value(found)
        return self._children[name]

    @cached_property
    def additional(self) -> "Value | None":
        """The value of a property that is not named; None where it is not allowed."""
        return self._reader.value([part.get("additionalProperties", True) for part in self.parts])

    @cached_property
    def patterned(self) -> list[tuple[str, "Value"]]:
        """Regular expressions for names of properties, and the values of those properties."""
        found = []
        for part in self.parts:
            for pattern, schema in part.get("patternProperties", {}).items():
                value = self._reader.value([schema])
                if value is not None:
                    found.append((pattern, value))
        return found

    def item(self, index: int) -> "Value | None":
        """The value of an item of an array; None where it is not allowed."""
        most = self.most("maxItems")
        if most is not None and index >= most:
            return None
        found = []
        for part in self.parts:
            first, rest = part.get("prefixItems", []), part.get("items", True)
            if isinstance(rest, list):
                first, rest = rest, part.get("additionalItems", True)
            found.append(first[index] if index < len(first) else rest)
        return self._reader.value(found)

    @cached_property
    def fixed_items(self) -> int:
        """Items from this index on are all alike."""
        lists = [part.get("prefixItems", part.get("items")) for part in self.parts]
        return max((len(each) for each in lists if isinstance(each, list)), default=0)

    @cached_property
    def alike_from(self) -> int:
        """After so many items, any more of them change nothing in how the array can be completed."""
        most = self.most("maxItems")
        return max(self.fixed_items, int(self.least("minItems") or 0), 0 if most is None else math.ceil(most))


class Value:
    """A value as its alternatives.

    Attributes:
        ways: the alternatives, each possible as far as its types show.
    """

    def __init__(self, ways: list[Way]) -> None:
        self.ways = ways

    def of_type(self, *types: str) -> list[Way]:
        """The alternatives that allow one of some types."""
        return [way for way in self.ways if not way.types.isdisjoint(types)]

    def may_be(self, value: Any) -> bool:
        """Whether a simple value is allowed; an array or object always may be."""
        kinds = types_of(value)
        return any(
            not way.types.isdisjoint(kinds)
            and (way.values is None or any(same(value, listed) for listed in way.values))
            for way in self.ways
        )


class SchemaReader:
    """Reads a schema.

    Args:
        schema: the parsed JSON schema.

    Attributes:
        root: the value of the whole text.
        partial: something was left out: too many alternatives, or a reference that leads nowhere.
        item_separator, key_separator: the text between the parts.
    """

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._known: dict[tuple[int, ...], Value | None] = {}
        self._kept: list[Any] = []  # so that no id is reused
        self._constants: dict[int, Any] = {}
        self.partial = False
        self._followed: list[Any] = []  # the references that led here, with no value in between
        self._anchors = dict(_anchors(schema))
        options = schema.get("x-guidance", {}) if isinstance(schema, dict) else {}
        self.item_separator = str(options.get("item_separator", ","))
        self.key_separator = str(options.get("key_separator", ":"))
        self.root = self.value([schema])

    def value(self, schemas: Sequence[Any]) -> Value | None:
        """A value that satisfies all of some schemas; None where none does."""
        distinct = {id(schema): schema for schema in schemas if schema is not True}
        key = tuple(distinct)
        if key not in self._known:
            self._kept += distinct.values()
            ways = [
                way
                for parts in self._ways(list(distinct.values()), 0)
                if (way := Way(self, tuple({id(part): part for part in parts}.values()))).types
            ]
            self._known[key] = Value(ways) if ways else None
        return self._known[key]

    def _ways(self, schemas: Sequence[Any], depth: int) -> list[tuple[dict[str, Any], ...]]:
        ways: list[tuple[dict[str, Any], ...]] = [()]
        for schema in schemas:
            of_this = self._ways_of(schema, depth)
            ways = [(*before, *parts) for before in ways for parts in of_this]
            if len(ways) > MOST_WAYS:
                self.partial = True
                del ways[MOST_WAYS:]
        return ways

    def _ways_of(self, schema: Any, depth: int) -> list[tuple[dict[str, Any], ...]]:
        if not isinstance(schema, dict):
            return [()] if schema is True else []
        if depth > _DEEPEST:
            self.partial = True
            return []
        listed = schema.get("enum", [schema["const"]] if "const" in schema else ())
        if isinstance(listed, list) and any(isinstance(value, list | dict) for value in listed):
            rest = {name: part for name, part in schema.items() if name not in ("enum", "const")}
            return self._ways([self._constant(schema, listed), self._keep(schema, rest)], depth + 1)
        ways: list[tuple[dict[str, Any], ...]] = [()]
        own = [schema]
        for keyword, content in schema.items():
            if keyword in _LEAF_KEYWORDS:
                ways, own = [(*way, part) for way in ways for part in own] if own else ways, []
                continue
            inner: list[tuple[dict[str, Any], ...]] | None = None
            if keyword == "$ref":
                inner = self._referred(content, depth)
            elif keyword == "allOf" and isinstance(content, list):
                inner = self._ways(content, depth + 1)
            elif keyword in ("anyOf", "oneOf") and isinstance(content, list):
                inner = [way for each in content for way in self._ways_of(each, depth + 1)]
            if inner is not None:
                ways = [(*way, *parts) for way in ways for parts in inner]
                if len(ways) > MOST_WAYS:
                    self.partial = True
                    del ways[MOST_WAYS:]
        return ways

    def _referred(self, reference: Any, depth: int) -> list[tuple[dict[str, Any], ...]]:
        """The alternatives of what a reference leads to.

        A value that is itself, or something else, is something else: the least fixed point.
        """
        if reference in self._followed:
            return []
        self._followed.append(reference)
        try:
            return self._ways_of(self._resolve(reference), depth + 1)
        finally:
            self._followed.pop()

    def _keep(self, schema: Any, made: Any) -> Any:
        """Keep one derived schema for each original, so that it is recognized."""
        known = self._constants.setdefault(-1 - id(schema), made)
        return known

    def _constant(self, schema: Any, listed: list[Any]) -> Any:
        """A schema for listed values of which some are arrays or objects."""
        return self._constants.setdefault(id(schema), {"anyOf": [_schema_of(value) for value in listed]})

    def _resolve(self, reference: Any) -> Any:
        if not isinstance(reference, str):
            self.partial = True
            return False
        if reference in self._anchors:
            return self._anchors[reference]
        found = self._schema
        address, _, pointer = reference.partition("#")
        if address:
            found = self._anchors.get(address)
        for step in pointer.split("/")[1:]:
            step = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and step in found:
                found = found[step]
            elif isinstance(found, list) and step.isdigit() and int(step) < len(found):
                found = found[int(step)]
            else:
                found = None
                break
        if found is None:
            self.partial = True
            return False
        return found


def types_of(value: Any) -> frozenset[str]:
    """The types of a parsed value."""
    if value is None:
        return frozenset({"null"})
    if isinstance(value, bool):
        return frozenset({"boolean"})
    if isinstance(value, int | float):
        whole = isinstance(value, int) or (math.isfinite(value) and value == int(value))
        return frozenset({"integer", "number"} if whole else {"number"})
    if isinstance(value, str):
        return frozenset({"string"})
    return frozenset({"array"} if isinstance(value, list) else {"object"})


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal in JSON, where true is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def dumped(value: Any) -> str:
    """A value as JSON without white space."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _allows(part: dict[str, Any], value: Any) -> bool:
    """Whether what a schema says of strings and numbers holds of a value that is listed beside it."""
    if isinstance(value, str):
        length, pattern = len(value), part.get("pattern")
        if isinstance(pattern, str) and not _found(pattern, value):
            return False
        return bool(part.get("minLength", 0) <= length <= part.get("maxLength", length))
    if not _is_number(value):
        return True
    above, below = part.get("exclusiveMinimum"), part.get("exclusiveMaximum")
    return bool(
        part.get("minimum", value) <= value <= part.get("maximum", value)
        and not (_is_number(above) and value <= above)
        and not (_is_number(below) and value >= below)
    )


@lru_cache(maxsize=10_000)
def _found(pattern: str, name: str) -> bool:
    expression = _expression(pattern)
    # What cannot be read is taken to match: what is built by it is checked by llguidance.
    return expression is None or expression.accepts(expression.read(name))


@lru_cache(maxsize=100)
def _expression(pattern: str) -> Expression | None:
    try:
        return Expression(pattern, (), search=True, ascii_only=True)
    except ValueError:
        return None


def _schema_of(value: Any) -> Any:
    if isinstance(value, list):
        return {"type": "array", "prefixItems": [_schema_of(each) for each in value], "items": False} | {
            "minItems": len(value),
            "maxItems": len(value),
        }
    if isinstance(value, dict):
        properties = {name: _schema_of(each) for name, each in value.items()}
        return {"type": "object", "properties": properties, "required": list(value), "additionalProperties": False}
    return {"const": value}


def _anchors(schema: Any) -> Iterator[tuple[str, Any]]:
    """The names that refer to parts of a schema, other than their positions."""
    waiting = [schema]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            for keyword in ("$id", "id"):
                if isinstance(found.get(keyword), str):
                    yield found[keyword], found
            if isinstance(found.get("$anchor"), str):
                yield f"#{found['$anchor']}", found
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found
