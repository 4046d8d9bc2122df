"""Reads files of prompts as a stream: lines of text, JSON lines, CSV, and Parquet.

Nothing is kept of what was read, so a file may be of any size. What cannot be read as a prompt becomes a prompt with an
error, and the reading continues with the next one.

CSV is read by the standard library, because a row that is broken ends the whole file in the readers of data frames.
Parquet is read by `datasets`.
"""

import csv
import hashlib
import json
import os
import select
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fundamentallm_hf.files import local_path
from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.settings.generation_settings import SETTINGS
from fundamentallm_hf.settings.typed_values import unescape

PROMPT_FORMATS = ("text", "jsonl", "csv", "parquet")
_BY_SUFFIX = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
# They hold something, but no prompt on each line.
_NO_LINES = (".json", ".arrow", ".xlsx", ".gz", ".bz2", ".xz", ".zst", ".zip")
_CHUNK = 1 << 16
# Memory is bounded where a file has no line breaks.
LONGEST_LINE = 1 << 26


@dataclass(frozen=True)
class RawPrompt:
    """What a file holds of one prompt.

    Attributes:
        number: its index among the prompts of the file.
        line: the line of the file that it begins in, from 1; in Parquet, the row.
        content: the fields by name, or why there are none.
        digest: of everything read so far, where the input is a stream; nothing for a file, whose digest is known.
    """

    number: int
    line: int
    content: dict[str, Any] | UserError
    digest: str = ""


class LineStream:
    """The lines of a binary stream.

    Args:
        stream: read through its file descriptor, if it has one, so that nothing waits in a hidden buffer.
        hashed: keep a digest of the lines that were taken.
    """

    def __init__(self, stream: IO[bytes], hashed: bool = False) -> None:
        try:
            self._descriptor: int | None = stream.fileno()
        except (OSError, AttributeError):  # a stream in memory
            self._descriptor = None
        self._stream = stream
        self._buffer, self._ended = bytearray(), False
        self._hash = hashlib.sha256() if hashed else None

    @property
    def digest(self) -> str:
        """SHA-256 of the lines taken so far."""
        return "" if self._hash is None else self._hash.hexdigest()

    def ready(self) -> bool:
        """Whether the next line can be had without waiting for whoever writes it."""
        if self._ended or self._descriptor is None or b"\n" in self._buffer:
            return True
        return bool(select.select([self._descriptor], [], [], 0)[0])

    def __iter__(self) -> Iterator[bytes | None]:
        """The lines with their ends; None for one that is longer than `LONGEST_LINE`."""
        while True:
            taken, too_long, searched = 0, False, 0
            while (taken := self._buffer.find(b"\n", searched) + 1) == 0 and not self._ended:
                searched = len(self._buffer)
                if searched > LONGEST_LINE:
                    too_long, searched = True, 0
                    self._take(len(self._buffer))
                self._fill()
            line = self._take(taken or len(self._buffer))
            if not line and not too_long:
                return
            yield None if too_long or len(line) > LONGEST_LINE else line

    def _fill(self) -> None:
        read = self._stream.read(_CHUNK) if self._descriptor is None else os.read(self._descriptor, _CHUNK)
        self._ended = not read
        self._buffer += read

    def _take(self, length: int) -> bytes:
        line = bytes(self._buffer[:length])
        del self._buffer[:length]
        if self._hash is not None:
            self._hash.update(line)
        return line


@dataclass(frozen=True)
class PromptsFile:
    """A file of prompts, and how it is read.

    Attributes:
        path: where it is; "-" is stdin.
        form: one of `PROMPT_FORMATS`; "auto" is by the name, and text for stdin.
        prompt_column, id_column: names of the fields or columns that hold the prompt and its id.
        escape: read `\\n` and its like as characters, in lines of text.

    Raises:
        UsageError: the format is unknown, or the name of the file does not tell it.
    """

    path: str
    form: str = "auto"
    prompt_column: str = "prompt"
    id_column: str = "id"
    escape: bool = False

    def __post_init__(self) -> None:
        if self.form not in ("auto", *PROMPT_FORMATS):
            expected = f"one of auto, {', '.join(PROMPT_FORMATS)}"
            raise UsageError(f"prompts-format has to be {expected} but is {self.form!r}", value=self.form)
        suffix = Path(self.path).suffix.lower()
        if self.form == "auto":
            if suffix in _NO_LINES:
                raise UsageError(
                    f"prompts-file {self.path!r} does not tell by its name what it holds: set prompts-format to one of "
                    f"{', '.join(PROMPT_FORMATS)} (one prompt a line or row, not compressed)"
                )
            object.__setattr__(self, "form", _BY_SUFFIX.get(suffix, "text"))
        if self.form == "parquet" and self.is_stream:
            raise UsageError(
                "prompts-file is a pipe, but Parquet cannot be read as a stream: give the path of the file"
            )

    @property
    def is_stream(self) -> bool:
        """Whether it can be read only once: stdin, or a pipe, such as a shell has for `<(...)`."""
        try:
            return self.path == "-" or stat.S_ISFIFO(local_path(self.path).stat().st_mode)
        except (OSError, ValueError):
            return False

    @property
    def has_fields(self) -> bool:
        """Whether a prompt can have an id and settings of its own."""
        return self.form != "text"

    @property
    def reading(self) -> dict[str, Any]:
        """How it is read, as far as that changes the prompts."""
        columns = {"prompt_column": self.prompt_column, "id_column": self.id_column}
        return {"format": self.form} | (columns if self.has_fields else {"escape": self.escape})

    def open(self) -> "PromptStream":
        """Begin to read.

        Raises:
            UserError: the file cannot be read, or lacks the column of the prompts.
        """
        if self.form == "parquet":
            return _parquet(self)
        stream = sys.stdin.buffer if self.path == "-" else self._binary()
        lines = LineStream(stream, hashed=self.is_stream)
        columns: list[str] = []
        if self.form == "csv":
            columns, prompts = _csv_rows(lines, self)
        else:
            prompts = (_json_lines if self.form == "jsonl" else _text_lines)(lines, self)
        ready = lines.ready if self.is_stream else (lambda: True)
        return PromptStream(prompts, ready, stream.close if self.path != "-" else (lambda: None), tuple(columns))

    def measure(self) -> tuple[str, int]:
        """SHA-256 of the file, and how many prompts it holds; both need one pass over it.

        Raises:
            UserError: the file cannot be read, or holds no prompt.
        """
        with self._binary() as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
        with self.open() as prompts:
            total = prompts.total if prompts.total is not None else sum(1 for _ in prompts)
        if not total:
            raise _no_prompt(self)
        return digest, total

    def _binary(self) -> IO[bytes]:
        try:
            return local_path(self.path).open("rb", buffering=0)
        except (OSError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"cannot read the prompts file {self.path!r}: {reason}") from error


@dataclass(frozen=True)
class PromptStream:
    """The prompts of a file, one after the other; a context manager.

    Attributes:
        prompts: read as they are taken.
        ready: whether the next one can be had without waiting.
        close: end the reading.
        columns: names of all columns, where the file has some.
        total: number of prompts, where it is known from the beginning.
    """

    prompts: Iterator[RawPrompt]
    ready: Callable[[], bool]
    close: Callable[[], None]
    columns: tuple[str, ...] = ()
    total: int | None = None

    def __enter__(self) -> "PromptStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[RawPrompt]:
        return self.prompts


def _decoded(lines: LineStream) -> Iterator[str | None]:
    """Lines as text. A byte that is not UTF-8 becomes half a surrogate pair, which no text holds."""
    for number, line in enumerate(lines):
        text = None if line is None else line.decode("utf-8", "surrogateescape")
        yield text.removeprefix("\ufeff") if text is not None and number == 0 else text


def _too_long() -> UserError:
    return UserError(f"the line has more than {LONGEST_LINE:,} bytes: is it one prompt?")


def _no_prompt(file: PromptsFile) -> UserError:
    return UserError(f"the prompts file {file.path!r} holds no prompt: write one a line")


def _text_lines(lines: LineStream, file: PromptsFile) -> Iterator[RawPrompt]:
    def read(line: str) -> dict[str, Any]:
        return {file.prompt_column: unescape(line) if file.escape else line}

    yield from _each_line(lines, read)


def _json_lines(lines: LineStream, file: PromptsFile) -> Iterator[RawPrompt]:
    yield from _each_line(lines, _read_json)


def _each_line(lines: LineStream, read: Callable[[str], dict[str, Any]]) -> Iterator[RawPrompt]:
    number = 0
    for index, line in enumerate(_decoded(lines), 1):
        content: dict[str, Any] | UserError
        if line is None:
            content = _too_long()
        elif not line.strip():
            continue
        else:
            try:
                content = read(line.removesuffix("\n").removesuffix("\r"))
            except UserError as error:
                content = error
        yield RawPrompt(number, index, content, lines.digest)
        number += 1


def _read_json(line: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            twice = next(name for name in fields if [key for key, _ in pairs].count(name) > 1)
            raise UsageError(f"the field {twice!r} is there twice: give it once")
        return fields

    try:
        fields = json.loads(line, object_pairs_hook=once)
    except UserError:
        raise
    except json.JSONDecodeError as error:
        raise UsageError(f"the line is not JSON ({error.msg} at character {error.pos + 1})") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the line is not JSON that can be read ({type(error).__name__})") from None
    if not isinstance(fields, dict):
        raise UsageError(f"the line has to be a JSON object with a prompt but is of type {type(fields).__name__}")
    return fields


def _csv_rows(lines: LineStream, file: PromptsFile) -> tuple[list[str], Iterator[RawPrompt]]:
    """The header, which is read at once, and the prompts of the rows after it."""

    def whole() -> Iterator[str]:
        for index, line in enumerate(_decoded(lines), 1):
            if line is None:
                raise UserError(f"line {index} of the prompts file {file.path!r} has more than {LONGEST_LINE:,} bytes")
            yield line

    rows = csv.reader(whole(), strict=True, delimiter="\t" if Path(file.path).suffix.lower() == ".tsv" else ",")
    try:
        header = next((row for row in rows if row), None)
    except csv.Error as error:
        raise UserError(f"the prompts file {file.path!r} has no header that can be read: {error}") from error
    if header is None:
        raise _no_prompt(file)
    check_columns(header, file)

    def prompts() -> Iterator[RawPrompt]:
        number = 0
        while True:
            line = rows.line_num + 1
            content: dict[str, Any] | UserError
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                content = UsageError(f"the row is not CSV that can be read ({error})")
            else:
                if not row:
                    continue
                # An empty cell is a setting that is not set, and an empty prompt is a prompt.
                named = zip(header, row, strict=False)
                content = {name: cell for name, cell in named if cell or name == file.prompt_column}
                if len(row) != len(header):
                    content = UsageError(f"the row has {len(row)} cells, but the header names {len(header)} columns")
            yield RawPrompt(number, line, content, lines.digest)
            number += 1

    return header, prompts()


def check_columns(columns: list[str], file: PromptsFile) -> None:
    """Refuse a table without the column of the prompts, or with two columns of one name.

    Raises:
        UsageError: it is such a table.
    """
    if file.prompt_column not in columns:
        raise UsageError(
            f"the prompts file {file.path!r} has no column {file.prompt_column!r}: it has {', '.join(columns)}; name "
            "the one with the prompts as prompt-column"
        )
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise UsageError(f"the prompts file {file.path!r} has two columns {twice!r}: rename one")


def unused_columns(columns: Sequence[str], file: PromptsFile) -> list[str]:
    """The columns of a table that say nothing to the generation: they are neither prompt nor id nor a setting."""
    used = {file.prompt_column, file.id_column, *SETTINGS}
    return [name for name in columns if name not in used and name.replace("-", "_") not in used]


def _parquet(file: PromptsFile) -> PromptStream:
    try:
        from datasets import load_dataset
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            "a Parquet file of prompts needs the package datasets: pip install 'fundamentallm-hf[files]'"
        ) from None
    file._binary().close()  # so that a file that is missing is one line
    path = str(local_path(file.path).resolve())
    try:
        about = parquet.ParquetFile(path)
        columns, total = list(about.schema_arrow.names), about.metadata.num_rows
        rows = load_dataset("parquet", data_files=path, split="train", streaming=True)
    except Exception as error:
        raise UserError(f"the prompts file {file.path!r} is not Parquet that can be read: {error}") from error
    check_columns(columns, file)

    def prompts() -> Iterator[RawPrompt]:
        for number, row in enumerate(rows):
            yield RawPrompt(number, number + 1, {name: value for name, value in row.items() if value is not None})

    return PromptStream(prompts(), lambda: True, lambda: None, tuple(columns), total)
