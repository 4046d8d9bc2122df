"""The shortest numbers that a schema allows, in the digits that a model has."""

import math
from decimal import Decimal
from typing import ClassVar

from hypothesis import given
from hypothesis import strategies as st

from fundamentallm_hf.portable.structured.json_schemas import SchemaReader
from fundamentallm_hf.portable.structured.schema_scalars import Numbers


class _SomeDigits:
    """The spelling of a model that has no characters but some digits, a minus sign and a point."""

    pieces_to_fill: ClassVar[list[str]] = []

    def __init__(self, held):
        self.letters = [*held, "-", "."]

    def cost(self, text):
        return len(text) if set(text.decode()) <= set(self.letters) else math.inf


@given(
    held=st.sets(st.sampled_from("0123456789"), min_size=1, max_size=9),
    low=st.integers(0, 3000),
    more=st.integers(0, 3000),
    factor=st.sampled_from([1, 1, 2, 3, 7, 12, 125]),
    scale=st.sampled_from([1, 1, 10, 100]),
)
def test_the_nearest_number_of_some_digits_is_found_wherever_there_is_one(held, low, more, factor, scale):
    limits = {"minimum": low / scale, "maximum": (low + more) / scale, "multipleOf": factor / scale}
    schema = limits | {"type": "number" if scale > 1 else "integer"}
    found = next(Numbers(SchemaReader(schema).root.ways[0], _SomeDigits(sorted(held))).completions(""), None)
    places = len(str(scale)) - 1
    texts = [f"{Decimal(each) / scale:.{places}f}" for each in range(low, low + more + 1) if each % factor == 0]
    texts = [text for text in texts if set(text) - {"."} <= held]
    if found is None:
        assert not texts
    else:
        assert set(found) - {"."} <= held
        assert limits["minimum"] <= float(found) <= limits["maximum"]
        assert Decimal(found) % Decimal(str(limits["multipleOf"])) == 0
