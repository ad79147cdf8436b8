"""WebDataset: tar shards of segments. A sample is `KEY.json`, `KEY.npz` with every column, and `KEY.CAMERA.mp4` of each camera.

Facts: webdataset/webdataset `src/webdataset/tariterators.py`: the key is the name up to its first dot, files of a sample follow each other. The
video of a sample is cut exactly: picture k is timestep k.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import pyarrow as pa

from ingest.corpus.layout import CorpusLayout
from ingest.export.datasets.camera_roles import camera_name
from ingest.export.datasets.format import ExportUnit, Finishing
from ingest.export.datasets.plan import DatasetPlan, ExportedSegment, ExportPlan, UnfitRows
from ingest.export.datasets.rows import Columns, default_columns, read_columns
from ingest.video.cut import cut_video

ROW = (
    "uid",
    "start",
    "end",
    "source",
    "embodiment",
    "tier",
    "reasons",
    "split",
    "weight",
    "text",
    "licence_class",
    "content_sha256",
)  # columns of the manifest
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same rows give the same bytes


@dataclass(frozen=True, slots=True)
class WebDataset:
    """The format `webdataset`."""

    name: ClassVar[str] = "webdataset"

    def settings(self) -> Mapping[str, Any]:
        return {}

    def left_out(self, rows: pa.Table) -> Iterable[UnfitRows]:
        return ()

    def divide(self, dataset: DatasetPlan) -> Iterable[DatasetPlan]:
        return (dataset,)

    def check(self, plan: ExportPlan) -> None:
        """Any dataset of a corpus fits."""

    def write(self, unit: ExportUnit, folder: Path) -> Mapping[str, Any]:
        """One shard a split: `train.tar` and so on."""
        how: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        shards: dict[str, tarfile.TarFile] = {}
        with ExitStack() as stack:
            for segment in unit.segments:
                split = segment.row.split
                if split not in shards:
                    path = folder / f"{split}.tar"
                    shard = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
                    shards[split] = stack.enter_context(shard)
                how.update(_add_sample(shards[split], unit, segment, folder / "clip.mp4"))
                counts[split] += 1
        return {"videos": how, "counts": counts}

    def places(self, finishing: Finishing) -> Iterator[tuple[int, str, str]]:
        numbers: Counter[tuple[str, str]] = Counter()
        for record in finishing.records():
            for name in record.files:
                split = name.removesuffix(".tar")
                number = numbers[record.dataset, split]
                numbers[record.dataset, split] += 1
                yield record.number, name, f"{record.dataset}/{split}-{number:06d}.tar"

    def finish(self, finishing: Finishing) -> Mapping[str, Any]:
        how: Counter[str] = Counter()
        samples: dict[str, Counter[str]] = {}
        for record in finishing.records():
            how.update(record.facts["videos"])
            samples.setdefault(record.dataset, Counter()).update(record.facts["counts"])
        return {"videos": dict(sorted(how.items())), "samples": samples}


def _add_sample(
    shard: tarfile.TarFile, unit: ExportUnit, segment: ExportedSegment, clip: Path
) -> Iterator[str]:
    """Add the files of one segment. Yields how each video was written."""
    dataset, key = unit.dataset, f"{segment.index:08d}"
    columns = read_columns(unit.corpus, dataset, segment)
    page = json.dumps(_page(dataset, segment), ensure_ascii=False).encode()
    arrays = npz_bytes({**columns, **default_columns(segment, dataset.fps)})
    for end, body in (("json", page), ("npz", arrays)):
        _add(shard, f"{key}.{end}", io.BytesIO(body), len(body))
    for video in segment.videos:
        yield cut_video(
            CorpusLayout(unit.corpus).path(video.place),
            segment.row.start,
            segment.num_frames,
            segment.length,
            clip,
            rate_hz=Fraction(dataset.fps),
            sha256=video.sha256,
        )
        with clip.open("rb") as file:
            _add(shard, f"{key}.{camera_name(video.key)}.mp4", file, clip.stat().st_size)
        clip.unlink()


def _page(dataset: DatasetPlan, segment: ExportedSegment) -> dict[str, Any]:
    row = {name: getattr(segment.row, name) for name in ROW}
    return {
        **row,
        "tasks": list(segment.row.tasks),
        "reasons": list(segment.row.reasons),
        "robot_type": dataset.robot_type,
        "fps": dataset.fps,
        "num_timesteps": segment.num_frames,
        "cameras": [camera_name(video.key) for video in segment.videos],
        "names": {name: list(dataset.names(name)) for name in dataset.numeric},
    }


def npz_bytes(columns: Columns) -> bytes:
    """A file that `numpy.load` reads without pickle: stored and not compressed, with the same times in every file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, values in columns.items():
            body = io.BytesIO()
            np.lib.format.write_array(body, np.ascontiguousarray(values), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", EPOCH), body.getvalue())
    return out.getvalue()


def _add(shard: tarfile.TarFile, name: str, body: IO[bytes], size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    shard.addfile(info, body)
