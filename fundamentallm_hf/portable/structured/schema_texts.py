"""The shortest text of every value of a JSON schema, and how many tokens a text within one may still need at most.

Both are computed for all values together, repeatedly until nothing gets shorter, so that a schema may refer to itself.
Lengths are counted in the model's tokens; a text with a character that the model lacks is infinitely long.
"""

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

from .json_schemas import SchemaReader, Value, Way, dumped
from .schema_proofs import SchemaProofs
from .schema_scalars import Numbers, Spelling, Strings, escaped
from .shortest_match import Expression, shortest_match

# Values of one schema that are examined; for a larger one the most tokens that a text may need are not known.
MOST_VALUES = 3000
# Largest minimum length of an array whose shortest text is computed.
_MOST_ITEMS = 2000
_CONTAINERS = frozenset({"array", "object"})


class Text(NamedTuple):
    """A text and how many tokens it takes.

    Attributes:
        tokens: fewest tokens; infinite where it cannot be written.
        text: the text.
        slot: index in the text where any text may be inserted, if there is one.
    """

    tokens: float
    text: bytes
    slot: int = -1


NONE = Text(math.inf, b"")


class SchemaTexts:
    """The shortest texts of a schema's values.

    Args:
        reader: the schema.
        spelling: the model's tokens.

    Attributes:
        comma, colon: the text between items, and between the name and the value of a property.
        whole: all values of the schema were examined.
    """

    def __init__(self, reader: SchemaReader, spelling: Spelling) -> None:
        self.reader, self.spelling = reader, spelling
        letters = spelling.letters
        self.comma = (shortest_match(reader.item_separator, letters) or ",").encode()
        self.colon = (shortest_match(reader.key_separator, letters) or ":").encode()
        self._strings: dict[Way, Strings] = {}
        self._numbers: dict[Way, Numbers] = {}
        self._names: dict[str, Expression | None] = {}
        self._scalars: dict[Way, Text] = {}
        self._best: dict[Value, Text] = {}
        self._with_slot: dict[Value, Text] | None = None
        self._worst: dict[Way, float] = {}
        self._deep: dict[tuple[Value | Way, int], float] = {}
        self._values = self._collect()
        self._best = self._solve(self._shortest)
        self.whole = not reader.partial and len(self._values) < MOST_VALUES

    @cached_property
    def proofs(self) -> SchemaProofs:
        """What is proven of the values; nothing if not all were looked at."""
        values = self._values if self.whole else []
        return SchemaProofs(values, lambda way: self.strings(way).none, lambda way: self.numbers(way).none)

    def best(self, value: Value) -> Text:
        """The shortest text of a value."""
        if value not in self._best:
            self._best[value] = NONE
            self._best[value] = self._shortest(value, self._best)
        return self._best[value]

    def with_slot(self, value: Value) -> Text:
        """The shortest text of a value that has a position for any text."""
        if self._with_slot is None:
            self._with_slot = {}
            self._with_slot = self._solve(self._shortest_with_slot)
        return self._with_slot.get(value, NONE)

    def strings(self, way: Way) -> Strings:
        """The strings that an alternative allows."""
        if way not in self._strings:
            self._strings[way] = Strings(way, self.spelling)
        return self._strings[way]

    @property
    def unread(self) -> bool:
        """Whether something was met that is not known here, so that there may be texts that are not known either."""
        rules: list[Strings | Numbers] = [*self._strings.values(), *self._numbers.values()]
        return self.reader.partial or any(rule.unread for rule in rules)

    def numbers(self, way: Way) -> Numbers:
        """The numbers that an alternative allows."""
        if way not in self._numbers:
            self._numbers[way] = Numbers(way, self.spelling)
        return self._numbers[way]

    def name(self, pattern: str) -> Expression | None:
        """The regular expression for names of properties; None if it cannot be read."""
        if pattern not in self._names:
            try:
                self._names[pattern] = Expression(
                    pattern, self.spelling.letters, self._writes, search=True, ascii_only=True
                )
            except ValueError:
                self._names[pattern] = None
        return self._names[pattern]

    def _writes(self, letter: str) -> bool:
        return self.spelling.cost(escaped(letter)) < math.inf

    def worst(self, value: Value) -> float:
        """Most tokens that end a value from anywhere in it, at its level, with everything within it complete."""
        return max((self.worst_of(way) for way in value.ways), default=0)

    def deep(self, value: Value, openings: int) -> float:
        """The same for a value and the values within it, down to this many levels."""
        key = (value, openings)
        if key not in self._deep:
            self._deep[key] = self.worst(value) + max(
                (self.deep_within(way, openings - 1) for way in value.ways if openings), default=0
            )
        return self._deep[key]

    def deep_within(self, way: Way, openings: int) -> float:
        """The same for any of the values directly within one alternative of an array or object."""
        key = (way, openings)
        if key not in self._deep:
            self._deep[key] = max((self.deep(value, openings) for value in _within_way(way)), default=0)
        return self._deep[key]

    def property(self, name: str, value: Value, best: Callable[[Value], Text] | None = None) -> Text:
        """A property, without the separator before it."""
        start = f'"{escaped(name).decode()}"'.encode() + self.colon
        content = (best or self.best)(value)
        slot = content.slot + len(start) if content.slot >= 0 else -1
        return Text(self.spelling.cost(start) + content.tokens, start + content.text, slot)

    def optional(self, way: Way, seen: frozenset[str] | set[str], behind: int = -1) -> Iterator[tuple[str, Value]]:
        """The properties that an object may still get, where those up to a rank are no longer possible."""
        for name in way.declared:
            if name not in seen and way.order[name] > behind and (value := way.child(name)) is not None:
                yield name, value
        for pattern, value in way.patterned:
            expression = self.name(pattern)
            found = expression.completion(expression.start) if expression is not None else None
            if found is not None and found not in way.order:
                yield found, value
        if way.additional is not None:
            free = ["", *self.spelling.letters[:40]]
            names = [name for name in free if name not in way.order and name not in seen]
            if names and all(self.name(pattern) is not None for pattern, _ in way.patterned):
                yield names[0], way.additional

    # Computation.

    def _collect(self) -> list[Value]:
        found: dict[Value, None] = {} if self.reader.root is None else {self.reader.root: None}
        waiting = list(found)
        while waiting and len(found) < MOST_VALUES:
            for inner in (each for way in waiting.pop().ways for each in _within_way(way)):
                if inner not in found:
                    found[inner] = None
                    waiting.append(inner)
        return list(found)

    def _solve(self, shortest: Callable[[Value, dict[Value, Text]], Text]) -> dict[Value, Text]:
        best = dict.fromkeys(self._values, NONE)
        changed = True
        while changed:
            changed = False
            for value in reversed(self._values):
                found = shortest(value, best)
                if found.tokens < best[value].tokens:
                    best[value], changed = found, True
        return best

    def _shortest(self, value: Value, best: dict[Value, Text]) -> Text:
        found = NONE
        for way in value.ways:
            found = min(found, self._scalar(way), key=_tokens_of_text)
            if "array" in way.types and way.values is None:
                found = min(found, self._array(way, best), key=_tokens_of_text)
            if "object" in way.types and way.values is None:
                found = min(found, self._object(way, best), key=_tokens_of_text)
        return found

    def _scalar(self, way: Way) -> Text:
        if way not in self._scalars:
            self._scalars[way] = min(
                (self._text(text) for text in self._scalar_texts(way)), key=_tokens_of_text, default=NONE
            )
        return self._scalars[way]

    def _text(self, text: bytes) -> Text:
        return Text(self.spelling.cost(text), text)

    def _scalar_texts(self, way: Way) -> Iterator[bytes]:
        if way.values is not None:
            yield from (dumped(value).encode() for value in way.values)
            return
        if "null" in way.types:
            yield b"null"
        if "boolean" in way.types:
            yield from (b"true", b"false")
        if not way.types.isdisjoint(("integer", "number")):
            number = next(self.numbers(way).completions(""), None)
            yield from [number.encode()] if number is not None else []
        if "string" in way.types:
            content = next(self.strings(way).completions(""), None)
            yield from [dumped(content).encode()] if content is not None else []

    def _array(self, way: Way, best: dict[Value, Text]) -> Text:
        least = int(way.least("minItems") or 0)
        if least > _MOST_ITEMS:
            return NONE
        items = [way.item(index) for index in range(least)]
        if any(item is None for item in items):
            return NONE
        found = [best.get(item, NONE) for item in items if item is not None]
        tokens = self.spelling.cost(b"[") + self.spelling.cost(b"]")
        tokens += sum(each.tokens for each in found) + max(0, least - 1) * self.spelling.cost(self.comma)
        return Text(tokens, b"[" + self.comma.join(each.text for each in found) + b"]")

    def _object(self, way: Way, best: dict[Value, Text]) -> Text:
        parts = []
        for name in way.required:
            value = way.child(name)
            if value is None:
                return NONE
            parts.append(self.property(name, value, lambda each: best.get(each, NONE)))
        most = way.most("maxProperties")
        if most is not None and most < max(len(parts), way.least("minProperties") or 0):
            return NONE
        missing = int(way.least("minProperties") or 0) - len(parts)
        seen = set(way.required)
        while missing > 0:
            more = [
                (self.property(name, value, lambda each: best.get(each, NONE)), name)
                for name, value in self.optional(way, seen)
            ]
            chosen = min(more, key=lambda one: one[0].tokens, default=None)
            if chosen is None or missing > _MOST_ITEMS:
                return NONE
            parts.append(chosen[0])
            seen.add(chosen[1])
            missing -= 1
        return self._braced(way, parts)

    def _braced(self, way: Way, parts: list[Text]) -> Text:
        tokens = self.spelling.cost(b"{") + self.spelling.cost(b"}") + sum(each.tokens for each in parts)
        tokens += max(0, len(parts) - 1) * self.spelling.cost(self.comma)
        order = {f'"{escaped(name).decode()}"': rank for name, rank in way.order.items()}
        rank = len(order)
        parts = sorted(parts, key=lambda each: order.get(each.text.split(self.colon, 1)[0].decode(), rank))
        text, slot = b"{", -1
        for index, each in enumerate(parts):
            text += self.comma if index else b""
            slot = len(text) + each.slot if each.slot >= 0 else slot
            text += each.text
        return Text(tokens, text + b"}", slot)

    def _shortest_with_slot(self, value: Value, known: dict[Value, Text]) -> Text:
        found = NONE
        for way in value.ways:
            if "string" in way.types and way.values is None and self.strings(way).free:
                text = dumped(next(self.strings(way).completions(""), "")).encode()
                if self.strings(way).most is None:
                    found = min(found, Text(self.spelling.cost(text), text, 1), key=_tokens_of_text)
            if "array" in way.types and way.values is None and (item := way.item(0)) is not None:
                rest = self._array(way, self._best)
                inner = known.get(item, NONE)
                least = int(way.least("minItems") or 0)
                if least <= 1 and inner.tokens < math.inf:
                    text = b"[" + inner.text + b"]"
                    found = min(found, Text(self.spelling.cost(text), text, inner.slot + 1), key=_tokens_of_text)
                elif inner.tokens < math.inf and rest.tokens < math.inf:
                    head = b"[" + inner.text
                    text = head + rest.text[1 + len(self._best.get(item, NONE).text) :]
                    found = min(found, Text(self.spelling.cost(text), text, inner.slot + 1), key=_tokens_of_text)
            if "object" in way.types and way.values is None:
                found = min(found, self._object_with_slot(way, known), key=_tokens_of_text)
        return found

    def _object_with_slot(self, way: Way, known: dict[Value, Text]) -> Text:
        needed = [(name, way.child(name)) for name in way.required]
        parts = [self.property(name, value) for name, value in needed if value is not None]
        found = NONE
        for index, (name, value) in enumerate(needed):
            if value is not None and len(parts) == len(needed):
                inner = self.property(name, value, lambda each: known.get(each, NONE))
                found = min(found, self._braced(way, [*parts[:index], inner, *parts[index + 1 :]]), key=_tokens_of_text)
        if len(parts) == len(needed):
            for name, value in self.optional(way, set(way.required)):
                inner = self.property(name, value, lambda each: known.get(each, NONE))
                found = min(found, self._braced(way, [*parts, inner]), key=_tokens_of_text)
        return found if found.tokens < math.inf else NONE

    def worst_of(self, way: Way) -> float:
        """The same for one alternative."""
        if way not in self._worst:
            self._worst[way] = self._worst_of(way) if self.proofs.may_be(way) else 0
        return self._worst[way]

    def _worst_of(self, way: Way) -> float:
        worst = 6.0  # the rest of null, true or false, and what ends it
        if way.values is not None:
            worst = max([worst, *(len(dumped(value).encode()) for value in way.values)])
        if not way.types.isdisjoint(("integer", "number")):
            worst = max(worst, self.numbers(way).worst)
        if "string" in way.types:
            worst = max(worst, self.strings(way).worst)
        if "array" in way.types and way.values is None:
            least = int(way.least("minItems") or 0)
            items = [way.item(index) for index in range(max(least, way.fixed_items) + 1)] if least < _MOST_ITEMS else []
            each = max((self.best(item).tokens + 1 for item in items if item and self._may_come(item)), default=0)
            worst = max(worst, 2 + each * (least + 1))
        if "object" in way.types and way.values is None:
            worst = max(worst, self._worst_object(way))
        return worst

    def _may_come(self, value: Value) -> bool:
        return value not in self.proofs.impossible

    def _worst_object(self, way: Way) -> float:
        """All that is required, and one more property of which the name has begun."""
        needed = [self.property(name, value).tokens + 1 for name in way.required if (value := way.child(name))]
        beside = [(name, value) for name, value in self.optional(way, set()) if self._may_come(value)]
        more = [len(escaped(name)) + 4 + self.best(value).tokens for name, value in beside]
        for pattern, value in way.patterned:
            if not self._may_come(value):
                continue
            expression = self.name(pattern)
            length = None if expression is None else expression.worst
            more.append(math.inf if length is None else 4 * length + 10 + self.best(value).tokens)
        if way.additional is not None and self._may_come(way.additional):
            more.append(14 + self.best(way.additional).tokens)
        least = int(way.least("minProperties") or 0)
        return 2 + sum(needed) + max(more, default=0) * (1 + max(0, least - len(needed)))


def _tokens_of_text(text: Text) -> float:
    return text.tokens


def _within_way(way: Way) -> Iterator[Value]:
    """The values directly within one alternative of a value."""
    inner: list[Value | None] = []
    if way.values is None and "object" in way.types:
        inner += [way.child(name) for name in dict.fromkeys([*way.declared, *way.required])]
        inner += [each for _, each in way.patterned] + [way.additional]
    if way.values is None and "array" in way.types:
        inner += [way.item(index) for index in range(way.fixed_items + 1)]
    yield from (each for each in inner if each is not None)
