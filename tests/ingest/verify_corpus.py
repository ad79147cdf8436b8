"""A small corpus of two sources, and ways to damage a copy of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.corpus import snapshot
from jobs.demo.raw import agibot_world
from schemas.catalog import TABLES
from tests.faults.runs import run
from tests.faults.toy import write_toy

TOY_EPISODES = {"a": "good", "b": "quarantine", "c": "good", "d": "short", "e": "good", "f": "good"}


def build_toy(raw: Path, out: Path, **request: Any) -> Path:
    """Four achieved-action episodes of one camera in one dataset; the other two end otherwise."""
    run(write_toy(raw, TOY_EPISODES), out, **request)
    return out


def build_mixed(root: Path) -> Path:
    """Toy episodes (achieved actions) and two-armed ones with two cameras (commanded actions, camera poses)."""
    corpus = build_toy(root / "toy", root / "corpus", run_id="first")
    (root / "raw").mkdir()
    written = agibot_world.write(root / "raw")
    run(written.root, corpus, source="agibot_world", run_id="second")
    return corpus


def dataset(corpus: Path, source: str = "toy") -> Path:
    [found] = (corpus / "datasets" / source).iterdir()
    return found


def data_file(corpus: Path, episode: int = 1, source: str = "toy") -> Path:
    return dataset(corpus, source) / f"data/chunk-000/episode_{episode:06d}.parquet"


def video_file(corpus: Path, episode: int = 1) -> Path:
    name = f"videos/chunk-000/observation.images.front/episode_{episode:06d}.mp4"
    return dataset(corpus) / name


def rewrite_rows(path: Path, change: Callable[[pa.Table], pa.Table], **how: Any) -> Path:
    """Write a data file again, changed, keeping its metadata unless `change` drops it."""
    with pq.ParquetFile(path) as file:
        table = file.read()
    changed = change(table)
    kept = changed.schema.metadata or table.schema.metadata
    pq.write_table(changed.replace_schema_metadata(kept), path, compression="snappy", **how)
    return path


def rewrite_column(
    path: Path, name: str, change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
) -> Path:
    """Change one column, given and taken as [K, n]."""

    def rewritten(table: pa.Table) -> pa.Table:
        field = table.schema.field(name)
        column = table.column(name).combine_chunks()
        flat = column.flatten() if pa.types.is_fixed_size_list(field.type) else column
        values = np.array(flat.to_numpy(zero_copy_only=False)).reshape(len(column), -1)
        values = change(values)
        arrow = pa.array(np.ascontiguousarray(values).reshape(-1))
        if pa.types.is_fixed_size_list(field.type):
            arrow = pa.FixedSizeListArray.from_arrays(arrow, values.shape[1])
        return table.set_column(table.schema.get_field_index(name), name, arrow)

    return rewrite_rows(path, rewritten)


def edit(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def rewrite_table(
    corpus: Path,
    table: str,
    change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
    part: int = 2,
) -> None:
    """Change the rows of one part as a writer with a bug would: the snapshot fits what it says.

    Part 2 holds the toy episodes 2 and 3, whose ids are `e` and `f`.
    """
    path = snapshot.load(corpus).parts(table)[part].path
    rows = pq.read_table(corpus / path, partitioning=None).to_pylist()
    arrow = pa.Table.from_pylist(change(rows), schema=TABLES[table])
    replace_part(corpus, table, arrow, part)


def replace_part(corpus: Path, table: str, arrow: pa.Table, part: int = 2) -> None:
    """Put another Parquet file in the place of a part and tell the snapshot."""
    current = snapshot.load(corpus)
    old = current.parts(table)[part]
    pq.write_table(arrow, corpus / old.path)
    data = (corpus / old.path).read_bytes()
    path = corpus / snapshot.FOLDER / f"{current.number:08d}.json"
    raw = json.loads(path.read_text())
    raw["tables"][table][part] |= {
        "rows": arrow.num_rows,
        "num_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    path.write_text(json.dumps(raw))


def remux(
    path: Path, *, keep: int | None = None, shift: Fraction = Fraction(0), stretch: int = 1
) -> Path:
    """Copy the packets of a video: the first `keep`, `shift` seconds later, `stretch` times slower."""
    out = path.with_name("remuxed.mp4")
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for number, packet in enumerate(source.demux(stream)):
            if packet.size == 0 or (keep is not None and number >= keep):
                continue
            ticks = int(shift / packet.time_base)
            packet.pts = packet.pts * stretch + ticks
            packet.dts = packet.dts * stretch + ticks
            packet.stream = copy
            target.mux(packet)
    out.replace(path)
    return path


def grey(count: int, width: int = 48, height: int = 32) -> list[np.ndarray[Any, Any]]:
    """`count` pictures of the toy's size."""
    return [np.full((height, width, 3), 10 * k % 256, np.uint8) for k in range(count)]
