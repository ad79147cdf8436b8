"""Files of an export as rules read them. What cannot be read is a finding: `BrokenFile`, which ends the rules that needed the file."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.video.source import open_video, pts_of, span_packets
from schemas.document import DocumentError
from schemas.errors import PipelineError, system_error_text
from schemas.json_text import JsonLimits, parse_json, read_json
from schemas.parquet_file import read_table
from schemas.paths import within
from schemas.regular_file import lines_of_regular, read_regular

PAGE = JsonLimits(max_bytes=1 << 26, max_elements=1 << 20)  # one file of `meta/`
LINE = JsonLimits(max_bytes=1 << 22, max_elements=1 << 16)
MOST_LINES_BYTES = 1 << 33
MOST_PROGRAM_BYTES = 1 << 20  # of a config
MOST_PICTURES = 1 << 22  # of one video
# What values of another kind than a rule expects raise.
OTHER_KINDS = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)


class BrokenFile(Exception):
    """A file that no rule can be checked on. Its text is the finding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFiles:
    """The folder of an export, or of one dataset in it; `prefix` comes before every place in findings."""

    root: Path
    prefix: str = ""

    def below(self, folder: str) -> ExportFiles:
        """One dataset.

        Raises:
            BrokenFile: the name leads out of the export.
        """
        return ExportFiles(root=self.path(folder), prefix=f"{self.prefix}{folder}/")

    def path(self, place: str) -> Path:
        """
        Raises:
            BrokenFile: the place leads out of the export.
        """
        try:
            return within(self.root, place)
        except PipelineError as error:
            raise BrokenFile(f"{self.prefix}{place}: {error.message}") from error

    def has(self, place: str) -> bool:
        return self.path(place).is_file()

    def bytes_of(self, place: str, most: int = PAGE.max_bytes) -> bytes:
        """
        Raises:
            BrokenFile: missing, or larger than any such file is.
        """
        with self._reading(place):
            return read_regular(self.path(place), max_bytes=most)

    def page(self, place: str) -> dict[str, Any]:
        """A JSON object.

        Raises:
            BrokenFile: missing, damaged or something else.
        """
        with self._reading(place):
            value = read_json(self.path(place), limits=PAGE)
        if not isinstance(value, dict):
            raise BrokenFile(f"{self.prefix}{place}: no JSON object")
        return value

    def lines(self, place: str) -> Iterator[dict[str, Any]]:
        """JSON objects, one line each.

        Raises:
            BrokenFile: as `page`.
        """
        with self._reading(place):
            lines = lines_of_regular(
                self.path(place), max_bytes=MOST_LINES_BYTES, max_line_bytes=LINE.max_bytes
            )
            for number, line in enumerate(lines, 1):
                value = parse_json(line, limits=LINE)
                if not isinstance(value, dict):
                    raise BrokenFile(f"{self.prefix}{place}: line {number} is no JSON object")
                yield value

    def table(self, place: str) -> pa.Table:
        """
        Raises:
            BrokenFile: missing or damaged.
        """
        with self._reading(place):
            return read_table(self.path(place), use_threads=False)

    def picture_times(self, place: str) -> list[Fraction]:
        """Seconds at which the pictures of a video are shown, ascending; nothing is decoded.

        Raises:
            BrokenFile: missing or damaged.
        """
        with self._reading(place), open_video(str(self.path(place))) as video:
            packets = islice(span_packets(video, 0), MOST_PICTURES)
            return sorted(pts_of(packet) * video.time_base for packet in packets)

    def program(self, place: str) -> ast.Module:
        """A config in Python, which is read and never run.

        Raises:
            BrokenFile: missing, or no Python.
        """
        data = self.bytes_of(place, MOST_PROGRAM_BYTES)
        try:
            return ast.parse(data)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise BrokenFile(f"{self.prefix}{place}: no Python ({error})") from error

    def _reading(self, place: str) -> _Reading:
        return _Reading(f"{self.prefix}{place}")


class _Reading:
    """What readers raise becomes `BrokenFile`."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, PipelineError):
            raise BrokenFile(f"{self.place}: {error.message}") from error
        if isinstance(error, OSError):
            text = system_error_text(error, self.place)
            raise BrokenFile(f"{self.place}: {text}") from error
        if isinstance(error, DocumentError):
            raise BrokenFile(f"{self.place}: {error}") from error


def findings(place: str, rules: Callable[[], Iterator[str]]) -> Iterator[str]:
    """What rules say of a place. They end with a finding where a file cannot be read or has values of another kind."""
    try:
        yield from rules()
    except BrokenFile as error:
        yield str(error)
    except OSError as error:
        yield f"{place}: {system_error_text(error, place)}"
    except OTHER_KINDS as error:
        yield f"{place}: has other keys or values than the format ({type(error).__name__}: {error})"


def literals(program: ast.Module) -> dict[str, Any]:
    """Constants of a module that are written out."""
    out: dict[str, Any] = {}
    for node in program.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                out[node.targets[0].id] = ast.literal_eval(node.value)
            except (ValueError, TypeError, RecursionError, MemoryError):
                continue  # a call or an expression, which the rules do not ask for
    return out


def matrix(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """[K, n] of a column of numbers or of lists of one length.

    Raises:
        ValueError: lists of several lengths, or values that are missing.
    """
    array = column.combine_chunks()
    if array.null_count:
        raise ValueError("values are missing")
    if not pa.types.is_nested(array.type):
        return np.asarray(array.to_numpy(zero_copy_only=False)).reshape(-1, 1)
    widths = pc.unique(pc.list_value_length(array)).to_pylist()
    if len(widths) > 1:
        raise ValueError(f"lists of {len(widths)} lengths")
    flat = array.flatten()
    if flat.null_count:
        raise ValueError("values are missing")
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(array), -1)


class Ranges:
    """Least and greatest values of columns, over all episodes."""

    def __init__(self) -> None:
        self.low: dict[str, npt.NDArray[np.float64]] = {}
        self.high: dict[str, npt.NDArray[np.float64]] = {}

    def add(self, name: str, values: npt.NDArray[Any]) -> None:
        if not len(values):
            return
        low, high = values.min(axis=0).astype(float), values.max(axis=0).astype(float)
        self.low[name] = np.minimum(self.low.get(name, low), low)
        self.high[name] = np.maximum(self.high.get(name, high), high)

    def differ(self, name: str, stats: Mapping[str, Any]) -> bool:
        """Whether `min` and `max` of statistics are not those of the data."""
        if name not in self.low:
            return False
        pairs = ((self.low[name], stats["min"]), (self.high[name], stats["max"]))
        return not all(
            np.shape(stated) == bound.shape and np.allclose(bound, stated, rtol=1e-5, atol=1e-6)
            for bound, stated in pairs
        )
