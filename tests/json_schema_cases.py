"""The JSON schemas of the tests, each with instances that it allows and instances that it forbids.

`CASES` are fifty of many kinds, one or two rules each. `DOCUMENTS` are fifty of documents as they are written in
practice: manifests, requests, descriptions of interfaces.

They have the form of JSONSchemaBench, so `benchmarks/json_schemas.py` can be run on them. The properties
of an instance come in the order of the schema, as llguidance writes them.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent / "fixtures" / "json_schemas"


class Case(NamedTuple):
    """A schema and what is known of it."""

    name: str
    schema: Any
    valid: list[Any]
    invalid: list[Any]


def _read(file: Path) -> Case:
    found = json.loads(file.read_text(encoding="utf-8"))
    valid, invalid = ([test["data"] for test in found["tests"] if test["valid"] == kind] for kind in (True, False))
    return Case(file.stem, found["schema"], valid, invalid)


CASES = [_read(file) for file in sorted(FOLDER.glob("*.json"))]
DOCUMENTS = [_read(file) for file in sorted((FOLDER / "documents").glob("*.json"))]
ARRAYS = [case for case in CASES if case.name.startswith("array_")]
TEXTS = [compact for case in CASES for compact in (json.dumps(each, separators=(",", ":")) for each in case.valid)]
