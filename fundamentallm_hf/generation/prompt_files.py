"""Reads files of prompts as a stream: lines of text, JSON lines, CSV, and Parquet.

Only the current prompt is in memory, so a file may have any size. A prompt that cannot be read becomes a prompt with an
error, and reading continues with the next one.

The standard library reads CSV, because data frame readers stop at the first broken row. `datasets` reads Parquet.
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
# Known formats that do not have one prompt per line.
_NO_LINES = (".json", ".arrow", ".xlsx", ".gz", ".bz2", ".xz", ".zst", ".zip")
_CHUNK = 1 << 16
# Bytes. It limits memory for a file without line breaks.
LONGEST_LINE = 1 << 26


@dataclass(frozen=True)
class RawPrompt:
    """One prompt as the file contains it.

    Attributes:
        number: index among the prompts of the file.
        line: number of its first line in the file, from 1; in Parquet, of its row.
        content: the fields by name, or the error if they cannot be read.
        digest: of the input up to this prompt, for a stream; empty for a file.
    """

    number: int
    line: int
    content: dict[str, Any] | UserError
    digest: str = ""


class LineStream:
    """The lines of a binary stream.

    Args:
        stream: read through its file descriptor, if it has one, to bypass the buffers of Python.
        hashed: compute a digest of the lines read so far.
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
        """SHA-256 of the lines read so far; empty unless `hashed`."""
        return "" if self._hash is None else self._hash.hexdigest()

    def ready(self) -> bool:
        """Whether reading the next line will probably not block."""
        if self._ended or self._descriptor is None or b"\n" in self._buffer:
            return True
        return bool(select.select([self._descriptor], [], [], 0)[0])

    def __iter__(self) -> Iterator[bytes | None]:
        """Yield the lines with their line ends; None for a line longer than `LONGEST_LINE`."""
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
    """A file of prompts, and how to read it.

    Attributes:
        path: of the file; "-" is stdin.
        form: one of `PROMPT_FORMATS`; "auto" chooses it by the file's suffix, and text for stdin.
        prompt_column, id_column: names of the fields or columns with the prompt and its id.
        escape: interpret escapes such as `\\n` in lines of text.

    Raises:
        UsageError: the format is unknown, or does not follow from the suffix.
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
                    f"the format of prompts-file {self.path!r} does not follow from its name: set prompts-format to "
                    f"one of {', '.join(PROMPT_FORMATS)} (one prompt per line or row, not compressed)"
                )
            object.__setattr__(self, "form", _BY_SUFFIX.get(suffix, "text"))
        if self.form == "parquet" and self.is_stream:
            raise UsageError(
                "prompts-file is a pipe, but Parquet cannot be read as a stream: give the path of the file"
            )

    @property
    def is_stream(self) -> bool:
        """Whether it can be read only once: stdin, or a pipe with a path, such as `<(...)`."""
        try:
            return self.path == "-" or stat.S_ISFIFO(local_path(self.path).stat().st_mode)
        except (OSError, ValueError):
            return False

    @property
    def has_fields(self) -> bool:
        """Whether a prompt can have an id and settings."""
        return self.form != "text"

    @property
    def reading(self) -> dict[str, Any]:
        """The options of reading that change the prompts."""
        columns = {"prompt_column": self.prompt_column, "id_column": self.id_column}
        return {"format": self.form} | (columns if self.has_fields else {"escape": self.escape})

    def open(self) -> "PromptStream":
        """Open the file.

        Raises:
            UserError: the file cannot be read, or has no column of this name for the prompts.
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
        """The SHA-256 of the file, and its number of prompts. Reads the whole file.

        Raises:
            UserError: the file cannot be read, or contains no prompt.
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
    """An open file of prompts: an iterator, and a context manager that closes it.

    Attributes:
        prompts: iterator that reads each prompt when it is requested.
        ready: whether reading the next prompt will probably not block.
        close: closes the file.
        columns: names of all columns; empty for a format without columns.
        total: number of prompts; None if it is not known before reading.
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
    """The lines as text. A byte that is not UTF-8 becomes a lone surrogate, which valid text never contains."""
    for number, line in enumerate(lines):
        text = None if line is None else line.decode("utf-8", "surrogateescape")
        yield text.removeprefix("\ufeff") if text is not None and number == 0 else text


def _too_long() -> UserError:
    return UserError(f"the line has more than {LONGEST_LINE:,} bytes: is it one prompt?")


def _no_prompt(file: PromptsFile) -> UserError:
    return UserError(f"the prompts file {file.path!r} contains no prompt: write one per line")


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
            raise UsageError(f"the field {twice!r} occurs twice: give it once")
        return fields

    try:
        fields = json.loads(line, object_pairs_hook=once)
    except UserError:
        raise
    except json.JSONDecodeError as error:
        raise UsageError(f"the line is not JSON ({error.msg} at character {error.pos + 1})") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the line cannot be read as JSON ({type(error).__name__})") from None
    if not isinstance(fields, dict):
        raise UsageError(f"the line has to be a JSON object with a prompt but is of type {type(fields).__name__}")
    return fields


def _csv_rows(lines: LineStream, file: PromptsFile) -> tuple[list[str], Iterator[RawPrompt]]:
    """The header, which is read immediately, and an iterator over the prompts in the rows."""

    def whole() -> Iterator[str]:
        for index, line in enumerate(_decoded(lines), 1):
            if line is None:
                raise UserError(f"line {index} of the prompts file {file.path!r} has more than {LONGEST_LINE:,} bytes")
            yield line

    rows = csv.reader(whole(), strict=True, delimiter="\t" if Path(file.path).suffix.lower() == ".tsv" else ",")
    try:
        header = next((row for row in rows if row), None)
    except csv.Error as error:
        raise UserError(f"the prompts file {file.path!r} has no readable header: {error}") from error
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
                content = UsageError(f"the row cannot be read as CSV ({error})")
            else:
                if not row:
                    continue
                # An empty cell leaves a setting unset, but an empty prompt is valid.
                named = zip(header, row, strict=False)
                content = {name: cell for name, cell in named if cell or name == file.prompt_column}
                if len(row) != len(header):
                    content = UsageError(f"the row has {len(row)} cells, but the header names {len(header)} columns")
            yield RawPrompt(number, line, content, lines.digest)
            number += 1

    return header, prompts()


def check_columns(columns: list[str], file: PromptsFile) -> None:
    """Check the columns of a table.

    Raises:
        UsageError: the column with the prompts is missing, or two columns have the same name.
    """
    if file.prompt_column not in columns:
        raise UsageError(
            f"the prompts file {file.path!r} has no column {file.prompt_column!r}: it has {', '.join(columns)}; set "
            "prompt-column to the one with the prompts"
        )
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise UsageError(f"the prompts file {file.path!r} has two columns {twice!r}: rename one")


def unused_columns(columns: Sequence[str], file: PromptsFile) -> list[str]:
    """The columns of a table that are neither the prompt, nor the id, nor a setting."""
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
    file._binary().close()  # reports a missing file in one line
    path = str(local_path(file.path).resolve())
    try:
        about = parquet.ParquetFile(path)
        columns, total = list(about.schema_arrow.names), about.metadata.num_rows
        rows = load_dataset("parquet", data_files=path, split="train", streaming=True)
    except Exception as error:
        raise UserError(f"the prompts file {file.path!r} cannot be read as Parquet: {error}") from error
    check_columns(columns, file)

    def prompts() -> Iterator[RawPrompt]:
        for number, row in enumerate(rows):
            yield RawPrompt(number, number + 1, {name: value for name, value in row.items() if value is not None})

    return PromptStream(prompts(), lambda: True, lambda: None, tuple(columns), total)
