"""The position of unfinished JSON text in its schema, and how it can be completed from there.

The text is followed byte by byte, with the alternatives of the schema that are still possible at every level. Its
shortest completion is assembled level by level from the inside out. The results are suggestions: llguidance decides
what is valid.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from .json_schemas import Value, Way
from .json_strings import broken, mended, read_number, read_string, string_end
from .schema_scalars import Spelling, escaped
from .schema_texts import SchemaTexts, Text

# In a string or property name; in a number, null, true or false; and what is expected otherwise.
STRING, NAME, ATOM, VALUE, VALUE_OR_END, KEY, KEY_OR_END, COLON, AFTER = range(9)
# Number of ways to end one level that are returned.
_MOST_TOLD = 16
_WHITE = b" \t\r\n"
_ATOMS = frozenset(b"+-.0123456789abcdefghijklmnopqrstuvwxyzE")


class Frame(NamedTuple):
    """An object or array that has started.

    Attributes:
        ways: its alternatives that are still possible.
        is_object: whether it is an object, not an array.
        names: for an object, the properties so far, including the one whose value is being written.
        done: items or properties that are complete.
    """

    ways: tuple[Way, ...]
    is_object: bool
    names: tuple[str, ...] = ()
    done: int = 0


class Position(NamedTuple):
    """A position in a text.

    Attributes:
        frames: the objects and arrays that have started, the outermost first.
        phase: the kind of part that is being written.
        raw: the bytes so far of the string, name, number or word.
        values: the values that are being written, or may come next.
    """

    frames: tuple[Frame, ...]
    phase: int
    raw: bytes
    values: tuple[Value, ...]


class JsonPositions:
    """Follows texts by one schema.

    Args:
        texts: the schema's shortest texts.
        openings: the most brackets and braces that one token opens.
    """

    def __init__(self, texts: SchemaTexts, openings: int) -> None:
        self.texts = texts
        self._openings = openings
        root = texts.reader.root
        self.start = Position((), VALUE, b"", () if root is None else (root,))

    def advance(self, position: Position, data: bytes) -> Position | None:
        """The position after more bytes; None where this module reads the schema differently from llguidance."""
        index = 0
        while index < len(data):
            if position.phase in (STRING, NAME):
                end = string_end(position.raw, data, index)
                if end < 0:
                    return position._replace(raw=position.raw + data[index:])
                content = position.raw + data[index:end]
                index = end + 1
                found = self._named(position, content) if position.phase == NAME else _ended(position, content, True)
            elif position.phase == ATOM and data[index] in _ATOMS:
                found = position._replace(raw=position.raw + data[index : index + 1])
                index += 1
            elif position.phase == ATOM:
                found = _ended(position, position.raw, False)
            else:
                found = position if data[index] in _WHITE else self._structure(position, data[index])
                index += 1
            if found is None:
                return None
            position = found
        return position

    def _structure(self, position: Position, byte: int) -> Position | None:
        frames, phase, _, values = position
        if phase in (VALUE, VALUE_OR_END):
            if byte in b"{[":
                kind = "object" if byte == ord("{") else "array"
                ways = tuple(way for value in values for way in value.of_type(kind) if way.values is None)
                if not ways:
                    return None
                frames = (*frames, Frame(ways, byte == ord("{")))
                if byte == ord("{"):
                    return Position(frames, KEY_OR_END, b"", ())
                return Position(frames, VALUE_OR_END, b"", _items(frames[-1]))
            if byte == ord('"'):
                return Position(frames, STRING, b"", values)
            if byte in _ATOMS:
                return Position(frames, ATOM, bytes([byte]), values)
        if phase in (KEY, KEY_OR_END) and byte == ord('"'):
            return Position(frames, NAME, b"", ())
        if phase == COLON and byte == ord(":"):
            return Position(frames, VALUE, b"", values)
        if phase == AFTER and byte == ord(",") and frames:
            if frames[-1].is_object:
                return Position(frames, KEY, b"", ())
            return Position(frames, VALUE, b"", _items(frames[-1]))
        if frames and byte == ord("}" if frames[-1].is_object else "]"):
            return _ended(Position(frames[:-1], AFTER, b"", ()), b"", False)
        return None

    def _named(self, position: Position, content: bytes) -> Position | None:
        name = read_string(content)
        frame = position.frames[-1]
        ways = tuple(way for way in frame.ways if name is not None and way.child(name) is not None)
        if name is None or not ways:
            return None
        values = tuple(dict.fromkeys(value for way in ways if (value := way.child(name)) is not None))
        frame = frame._replace(ways=ways, names=(*frame.names, name))
        return Position((*position.frames[:-1], frame), COLON, b"", values)

    # Token requirements.

    def worst(self, position: Position) -> float:
        """Most tokens that complete the text, whatever the next token is; infinite if that is not known."""
        if not self.texts.whole:
            return math.inf
        texts, openings = self.texts, self._openings
        outer, new = 0.0, max((texts.deep(value, openings) for value in position.values), default=0)
        for frame in position.frames:
            outer += max(map(texts.worst_of, frame.ways))
            # The token may end this value and start another in any value that is open.
            new = max(new, *(texts.deep_within(way, openings) for way in frame.ways))
        return outer + new

    def key(self, position: Position) -> Position:
        """The position without the number of items, where it does not matter any more."""
        frames = tuple(
            frame._replace(done=0 if frame.is_object else min(frame.done, max(way.alike_from for way in frame.ways)))
            for frame in position.frames
        )
        return position._replace(frames=frames)

    def settled(self, position: Position) -> bool:
        """Whether a plan holds in all texts at a position: all that is around it has one alternative."""
        return self.texts.whole and all(len(frame.ways) == 1 for frame in position.frames)

    def unlimited(self, position: Position) -> bool:
        """Whether it is in a string that may hold any text of any length."""
        rules = [self.texts.strings(way) for value in position.values for way in value.of_type("string")]
        return position.phase == STRING and any(rule.free and rule.most is None for rule in rules)

    def closable(self, position: Position) -> bool:
        """Whether it is within a string or name that may end here and after any further characters."""
        if position.phase not in (STRING, NAME) or broken(position.raw):
            return False
        if position.phase == NAME:
            ways = [way for way in position.frames[-1].ways if way.additional is not None and not way.patterned]
            names = {escaped(name) for way in position.frames[-1].ways for name in way.order}
            return bool(ways) and not any(name.startswith(position.raw) for name in names)
        for value in position.values:
            rules = [self.texts.strings(way) for way in value.of_type("string")]
            least = min((rule.least for rule in rules if rule.free), default=None)
            if least is None or (least and len(read_string(position.raw) or "") < least):
                return False
        return bool(position.values)

    # Completions.

    def stages(self, position: Position) -> list[list[bytes]]:
        """How the text can be completed: for each level, from the inside out, some ways to end it, the shortest first.

        Any of a level may be wrong; each belongs to one alternative of the schema.
        """
        frames, phase, _, values = position
        stages = []
        if phase in (STRING, ATOM, VALUE, COLON):
            start = self.texts.colon if phase == COLON else b""
            found = [start + text for text in self._leaves(position)]
            if phase in (VALUE, COLON):
                best = [self.texts.best(value) for value in values]
                found = [start + text.text for text in sorted(best, key=_tokens) if text.tokens < math.inf]
            stages.append(found)
            phase = AFTER
            frames = _counted(frames)
        while frames:
            stages.append(self._ends(frames[-1], phase, position.raw if phase == NAME else b""))
            frames, phase = _counted(frames[:-1]), AFTER
        return stages

    def _leaves(self, position: Position) -> Iterator[bytes]:
        """Ways to end a string, number or word that has started."""
        ways = [way for value in position.values for way in value.ways]
        if position.phase == ATOM:
            begun = position.raw.decode(errors="replace")
            found = [word[len(begun) :] for word in ("null", "true", "false") if word.startswith(begun)]
            for way in ways:
                if not way.types.isdisjoint(("integer", "number")):
                    for text, _ in zip(self.texts.numbers(way).completions(begun), range(4), strict=False):
                        found.append(text)
            yield from sorted({text.encode() for text in found}, key=len)[:_MOST_TOLD]
        elif position.phase == STRING:
            for raw, rest in mended(position.raw):
                content = read_string(raw + rest)
                for way in ways if content is not None else ():
                    if "string" in way.types:
                        for text, _ in zip(self.texts.strings(way).completions(content or ""), range(4), strict=False):
                            yield rest + escaped(text) + b'"'

    def _ends(self, frame: Frame, phase: int, raw: bytes) -> list[bytes]:
        found: list[Text] = []
        for way in frame.ways:
            if not frame.is_object:
                found.append(self._end_array(way, frame.done, phase))
            elif phase == NAME:
                found += self._end_name(way, frame, raw)
            else:
                found.append(self._end_object(way, frame.names, phase))
        found = sorted((text for text in found if text.tokens < math.inf), key=_tokens)
        return list(dict.fromkeys(text.text for text in found[:_MOST_TOLD]))

    def _end_array(self, way: Way, count: int, phase: int) -> Text:
        missing = [way.item(index) for index in range(count, int(way.least("minItems") or 0))]
        parts = [self.texts.best(item) for item in missing if item is not None]
        if len(parts) < len(missing):
            return Text(math.inf, b"")
        return self._joined(parts, phase, b"]")

    def _end_object(self, way: Way, names: tuple[str, ...], phase: int) -> Text:
        seen = set(names)
        parts = []
        for name in way.required:
            if name not in seen and (value := way.child(name)) is not None:
                parts.append(self.texts.property(name, value))
        missing = int(way.least("minProperties") or 0) - len(names) - len(parts)
        if missing > 0 or (phase == KEY and not parts):
            rank = max((way.order.get(name, len(way.order)) for name in names), default=-1)
            seen.update(way.required)
            for _ in range(max(1, missing)):
                more = [(self.texts.property(*each), each[0]) for each in self.texts.optional(way, seen, rank)]
                if not more:
                    return Text(math.inf, b"")
                text, name = min(more, key=lambda one: one[0].tokens)
                parts.append(text)
                seen.add(name)
        return self._joined(parts, phase, b"}")

    def _end_name(self, way: Way, frame: Frame, raw: bytes) -> Iterator[Text]:
        seen = set(frame.names)
        rank = max((way.order.get(name, len(way.order)) for name in frame.names), default=-1)
        found: list[tuple[bytes, str]] = []
        for name in way.order:
            if name not in seen and way.order[name] > rank and escaped(name).startswith(raw):
                found.append((escaped(name)[len(raw) :], name))
        for pattern, _ in way.patterned:
            expression = self.texts.name(pattern)
            if expression is None:
                continue
            for whole, rest in mended(raw):
                begun = read_string(whole + rest) or ""
                text = expression.completion(expression.read(begun))
                found += [] if text is None else [(rest + escaped(text), begun + text)]
        if way.additional is not None:
            for whole, rest in mended(raw):
                for letter in ("", *self.texts.spelling.letters[:3]):
                    name = read_string(whole + rest + escaped(letter)) or ""
                    if name not in way.order and name not in seen:
                        found.append((rest + escaped(letter), name))
        for rest, name in found:
            value = way.child(name)
            if value is not None:
                content = self.texts.best(value)
                start = rest + b'"' + self.texts.colon + content.text
                end = self._end_object(way, (*frame.names, name), AFTER)
                tokens = self.texts.spelling.cost(rest + b'"') + content.tokens + end.tokens
                yield Text(tokens, start + end.text)

    def _joined(self, parts: list[Text], phase: int, end: bytes) -> Text:
        """Parts after the text so far, and the end of the object or array."""
        comma = self.texts.comma
        text = comma.join(each.text for each in parts)
        if parts and phase == AFTER:
            text = comma + text
        tokens = sum(each.tokens for each in parts) + len(parts) * self.texts.spelling.cost(comma)
        return Text(tokens + self.texts.spelling.cost(end), text + end)

    def lacking(self) -> list[str]:
        """The characters that every text needs and that cannot be written, as far as the schema shows."""
        root, spelling = self.texts.reader.root, self.texts.spelling
        if root is None or self.texts.best(root).tokens < math.inf or self.texts.unread:
            return []
        free = SchemaTexts(self.texts.reader, _AnyCharacter(spelling))
        needed = dict.fromkeys(free.best(root).text.decode())
        return [char for char in needed if spelling.cost(char.encode()) == math.inf]

    @property
    def endless(self) -> bool:
        """Whether it is proven that no text has an end, since a value has to hold itself again and again."""
        root = self.texts.reader.root
        return root in self.texts.proofs.endless if root is not None else not self.texts.reader.partial

    def slots(self, position: Position) -> Iterator[bytes]:
        """Texts after which any text may be inserted, the shallowest first."""
        frames, phase, _, values = position
        if self.closable(position) and not any(
            self.texts.strings(way).most is not None for value in values for way in value.of_type("string")
        ):
            yield b""
        done = b""
        if phase in (VALUE, COLON):
            start = self.texts.colon if phase == COLON else b""
            yield from (start + slot for value in values for slot in self._slot(value))
        stages = self.stages(position)
        if phase in (STRING, ATOM, VALUE, COLON):
            if not stages[0]:
                return
            done, stages, frames, phase = stages[0][0], stages[1:], _counted(frames), AFTER
        for ends in stages:
            for way in frames[-1].ways if phase != NAME else ():
                yield from (done + slot for slot in self._slots_of(way, frames[-1], phase))
            if not ends:
                return
            done, frames, phase = done + ends[0], _counted(frames[:-1]), AFTER

    def _slot(self, value: Value) -> Iterator[bytes]:
        found = self.texts.with_slot(value)
        if found.slot >= 0:
            yield found.text[: found.slot]

    def _slots_of(self, way: Way, frame: Frame, phase: int) -> Iterator[bytes]:
        comma = self.texts.comma if phase == AFTER else b""
        if not frame.is_object:
            item = way.item(frame.done)
            yield from (comma + slot for slot in self._slot(item)) if item is not None else ()
            return
        seen = set(frame.names)
        last = max((way.order.get(name, len(way.order)) for name in frame.names), default=-1)
        needed = [(name, value) for name in way.required if name not in seen and (value := way.child(name))]
        for name, value in dict([*needed, *self.texts.optional(way, seen, last)]).items():
            rank = way.order.get(name, len(way.order))
            before = [self.texts.property(each, of) for each, of in needed if way.order[each] < rank]
            inner = self.texts.property(name, value, self.texts.with_slot)
            if rank > last and inner.slot >= 0:
                parts = [*(text.text for text in before), inner.text[: inner.slot]]
                yield comma + self.texts.comma.join(parts)


class _AnyCharacter:
    """The spelling of a model that has every character, where those that it lacks are expensive."""

    def __init__(self, spelling: Spelling) -> None:
        self._spelling = spelling
        self.letters = [*spelling.letters, *map(chr, range(0x20, 0x7F))]
        self.pieces_to_fill: list[str] = []
        self.fill = spelling.fill

    def cost(self, text: bytes) -> float:
        """Number of characters, where each missing one counts as a thousand."""
        return sum(1 if self._spelling.cost(char.encode()) < math.inf else 1000 for char in text.decode())


def _ended(position: Position, raw: bytes, is_string: bool) -> Position:
    """The position after a value; a simple value excludes some alternatives of the object around it."""
    frames = position.frames
    if not frames:
        return Position((), AFTER, b"", ())
    frame = frames[-1]
    if frame.is_object and raw and len(frame.ways) > 1:
        value = read_string(raw) if is_string else read_number(raw)
        if value is not None:
            name = frame.names[-1]
            kept = tuple(way for way in frame.ways if (child := way.child(name)) is not None and child.may_be(value))
            frame = frame._replace(ways=kept or frame.ways)
    return Position((*frames[:-1], frame._replace(done=frame.done + 1)), AFTER, b"", ())


def _counted(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """The frames once the part being written in the innermost is complete."""
    return (*frames[:-1], frames[-1]._replace(done=frames[-1].done + 1)) if frames else frames


def _items(frame: Frame) -> tuple[Value, ...]:
    return tuple(dict.fromkeys(item for way in frame.ways if (item := way.item(frame.done)) is not None))


def _tokens(text: Text) -> float:
    return text.tokens
