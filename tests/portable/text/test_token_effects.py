"""Effects of tokens as arrays do what a dictionary of outcomes does."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fundamentallm_hf.portable.text.table_walk import Outcome
from fundamentallm_hf.portable.text.token_effects import TokenEffects, alike_together

OUTCOMES = st.builds(Outcome, st.booleans(), st.booleans(), st.floats(0, 1), st.integers(0, 4))
TABLES = st.dictionaries(st.integers(0, 30), OUTCOMES, max_size=12)


def as_dict(effects):
    columns = zip(*(column.tolist() for column in effects), strict=True)
    return {token: Outcome(*rest) for token, *rest in columns}


@given(one=TABLES, other=TABLES, without=st.sets(st.integers(0, 30)))
def test_effects_are_updated_as_a_dictionary(one, other, without):
    effects = TokenEffects.of(sorted(one.items()))
    updated = effects.updated(TokenEffects.of([*other.items()]))
    assert as_dict(updated) == one | other
    assert not other or updated.tokens.tolist() == sorted(one | other)
    left = effects.without(np.array([*without], dtype=np.int64))
    assert as_dict(left) == {token: outcome for token, outcome in one.items() if token not in without}
    assert as_dict(TokenEffects.complete(effects.tokens)) == dict.fromkeys(one, Outcome(True, False, 0.0))


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans())))
def test_places_are_grouped_by_their_number(pairs):
    numbers, which = np.array([number for number, _ in pairs]), np.array([taken for _, taken in pairs], dtype=bool)
    found = {number: places.tolist() for number, places in alike_together(numbers, which)}
    wanted = {number: [at for at, pair in enumerate(pairs) if pair == (number, True)] for number in range(5)}
    assert found == {number: places for number, places in wanted.items() if places}
