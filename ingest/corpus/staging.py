"""The staging folder of one episode: its videos and, written last, `staged.arrow` with its rows and, in the metadata, the outcome.

One file instead of two, because at 10^5 tiny episodes creating and removing files is what costs. The file written last is what makes a
staged episode count: a run that was stopped picks it up again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from ingest.recipe import Recipe
from ingest.storage.local import LocalStorage
from schemas.outcome import Outcome
from schemas.regular_file import blocks_of_regular, read_regular

STAGED = "staged.arrow"
_OUTCOME = b"eicorpus.outcome"
_KEPT = "outcome.json"
MOST_STAGED_BYTES = 512 << 20  # rows of one episode
_MAX_OUTCOME_BYTES = 1 << 30


def work_digest(recipe: Recipe, adapter_version: int, options: str) -> str:
    """Under what an episode counts as done: the same recipe, adapter version and adapter options."""
    return digest_of(recipe.digest, adapter_version, options)


def digest_of(recipe_digest: str, adapter_version: int, options: str) -> str:
    """`work_digest` from what the catalog keeps of it."""
    return f"{recipe_digest}-v{adapter_version}{'-' if options else ''}{options}"


def options_digest(options: Mapping[str, str]) -> str:
    """8 hex digits of the adapter's options and of the files they name; "" for none. A mapping that was edited is another."""
    if not options:
        return ""
    values = {name: [value, _file_digest(Path(value))] for name, value in options.items()}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def _file_digest(path: Path) -> str:
    files = sorted(path.glob("*")) if path.is_dir() else [path]
    sha256, num_bytes = hashlib.sha256(), 0
    for block in (b for each in files if each.is_file() for b in blocks_of_regular(each)):
        sha256.update(block)
        num_bytes += len(block)
    return sha256.hexdigest() if num_bytes else ""


def staged_before(folder: Path) -> Outcome | None:
    """The outcome of an earlier run whose staged episode is whole; None where there is none, or half of one."""
    if not _is_plain(folder / STAGED):
        return None
    outcome = staged_outcome(folder)
    return outcome if _has_videos(folder, outcome) else None


def _is_plain(path: Path) -> bool:
    """A link is a half-written attempt like any other, and is removed."""
    return path.is_file() and not path.is_symlink()


def staged_rows_of(folder: Path) -> pa.Table:
    """The rows a worker left in a staging folder."""
    with _opened(folder) as reader:
        return reader.read_all()


def _opened(folder: Path) -> pa.ipc.RecordBatchFileReader:
    """From memory: for a file Arrow would wait for a thread of its own, twice as long as everything else that a commit does."""
    data = read_regular(folder / STAGED, max_bytes=MOST_STAGED_BYTES)
    return pa.ipc.open_file(pa.py_buffer(data))


def staged_outcome(folder: Path) -> Outcome:
    """The outcome a worker left in a staging folder, as it returned it."""
    with _opened(folder) as reader:
        return Outcome.from_json(reader.schema.metadata[_OUTCOME].decode())


def outcome_in(data: bytes) -> Outcome:
    """As `staged_outcome`, of the bytes of `staged.arrow`."""
    with pa.ipc.open_file(pa.BufferReader(data)) as reader:
        return Outcome.from_json(reader.schema.metadata[_OUTCOME].decode())


def keep_outcome(folder: Path, outcome: Outcome, disk: LocalStorage) -> None:
    """Write down the outcome of an episode that is staged elsewhere, so that it need not stay in memory until its turn."""
    disk.make_dir(folder)
    disk.write(folder / _KEPT, outcome.to_json().encode())


def kept_outcome(folder: Path) -> Outcome | None:
    """What `keep_outcome` wrote; None where it is gone."""
    path = folder / _KEPT
    return (
        Outcome.from_json(read_regular(path, max_bytes=_MAX_OUTCOME_BYTES).decode())
        if path.is_file()
        else None
    )


def _has_videos(folder: Path, outcome: Outcome) -> bool:
    """Whether what `staged.arrow` speaks of is there: after a power cut one name may have outlived another."""
    videos = outcome.staged.videos if outcome.staged is not None else []
    sizes = {path.name: path.stat().st_size for path in folder.glob("*.mp4")}
    return all(sizes.get(video["name"]) == video["num_bytes"] for video in videos)


def write_staged(folder: Path, table: pa.Table, outcome: Outcome, disk: LocalStorage) -> None:
    """Written last, and durable: the episode counts as staged from here on."""
    schema = table.schema.with_metadata({_OUTCOME: outcome.to_json().encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table.replace_schema_metadata(schema.metadata))
    disk.write(folder / STAGED, sink.getvalue().to_pybytes(), is_durable=True)
