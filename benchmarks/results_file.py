"""A file of results, one JSON object per line, so that a run which was ended goes on where it was."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class ResultsFile:
    """Records by key, each measured once.

    Args:
        file: holds the records so far and gets every new one; None keeps them in memory only.
        names: the fields that make the key of a record.
    """

    def __init__(self, file: Path | None, names: Sequence[str]) -> None:
        self.file, self.names = file, tuple(names)
        lines = file.read_text(encoding="utf-8").splitlines() if file and file.exists() else []
        self.records: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._keep(json.loads(line) for line in lines)

    def _keep(self, records) -> None:
        self.records |= {tuple(record[name] for name in self.names): record for record in records}

    def add(self, records: Sequence[dict[str, Any]]) -> None:
        """Keep records, in the file all at once."""
        self._keep(records)
        if self.file:
            with self.file.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
