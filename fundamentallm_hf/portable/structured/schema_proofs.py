"""Proves which values of a JSON schema are impossible, and which are endless.

A search that finds no text for a value proves nothing: the model may lack its characters, or the search may have given
up. The results here are proven. llguidance detects contradictions between parts of a schema and masks such values
itself. It does not detect a value that must contain itself endlessly.
"""

from collections.abc import Callable, Iterable

from .json_schemas import Value, Way

Proof = Callable[[Way], bool]


class SchemaProofs:
    """The proven properties of some values.

    Args:
        values: the values, including all nested ones.
        no_string, no_number: functions that return whether an alternative provably allows no string or no number.

    Attributes:
        impossible: the values that cannot exist; llguidance masks them itself.
        endless: the values of which no instance is finite.
    """

    def __init__(self, values: Iterable[Value], no_string: Proof, no_number: Proof) -> None:
        values = list(values)
        self._no_string, self._no_number = no_string, no_number
        self._scalars: dict[Way, bool] = {}
        self.impossible: set[Value] = set()
        while found := [each for each in values if each not in self.impossible and not self._can_be(each)]:
            self.impossible.update(found)
        self._ended: set[Value] = set()
        while found := [each for each in values if each not in self._ended and self._can_end(each)]:
            self._ended.update(found)
        self.endless = set(values) - self._ended - self.impossible

    def _can_be(self, value: Value) -> bool:
        return any(map(self.may_be, value.ways))

    def _can_end(self, value: Value) -> bool:
        return any(self._may_be(way, self._ended.__contains__) for way in value.ways)

    def may_be(self, way: Way) -> bool:
        """Whether an alternative may allow a value."""
        return self._may_be(way, lambda inner: inner not in self.impossible)

    def _may_be(self, way: Way, can: Callable[[Value], bool]) -> bool:
        if self._scalar(way):
            return True
        if way.values is not None:
            return False
        return ("array" in way.types and self._array(way, can)) or ("object" in way.types and self._object(way, can))

    def _scalar(self, way: Way) -> bool:
        if way not in self._scalars:
            self._scalars[way] = (
                bool(way.values if way.values is not None else way.types & {"null", "boolean"})
                or ("string" in way.types and not self._no_string(way))
                or (not way.types.isdisjoint(("integer", "number")) and not self._no_number(way))
            )
        return self._scalars[way]

    @staticmethod
    def _array(way: Way, can: Callable[[Value], bool]) -> bool:
        least = int(way.least("minItems") or 0)
        most = way.most("maxItems")
        if most is not None and least > most:
            return False
        items = [way.item(index) for index in range(min(least, way.fixed_items + 1))]
        return all(item is not None and can(item) for item in items)

    @staticmethod
    def _object(way: Way, can: Callable[[Value], bool]) -> bool:
        most = way.most("maxProperties")
        if most is not None and most < max(way.least("minProperties") or 0, len(way.required)):
            return False
        values = [way.child(name) for name in way.required]
        if not all(value is not None and can(value) for value in values):
            return False
        if int(way.least("minProperties") or 0) <= len(way.required):
            return True
        declared = [way.child(name) for name in way.declared if name not in way.required]
        others = [*declared, *(value for _, value in way.patterned), way.additional]
        return any(value is not None and can(value) for value in others)
