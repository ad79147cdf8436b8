"""A small committed corpus with real H.264 of moving scenes, and what the tests of latents ask of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout, open_corpus
from ingest.executors.inline import Executor, InlineExecutor
from ingest.latents.backends import LocalBackend
from ingest.latents.cost_estimate import bytes_of
from ingest.latents.encode_file import Decoded, DecodedChunk, LatentMaker, unit_chunks_of
from ingest.latents.plan import LatentUnit, Packing, PlannedLatentFile, todo_of
from ingest.latents.run import LatentTally, encode_corpus
from ingest.models.encoder import EncoderChoice, ImageEncoder
from ingest.models.encoder_weights import WeightSource
from ingest.storage.local import LocalStorage
from jobs.demo.raw import lerobot
from jobs.demo.raw.scene import Scene
from tests.faults.runs import run

Row = dict[str, Any]
TINY = EncoderChoice(
    model="dinov3_tiny", source=WeightSource(untrained_seed=0), device="cpu", batch=4
)


def planned_file(
    length: int, *, root: str | Path = "nowhere", episode_index: int = 0
) -> PlannedLatentFile:
    """A file to be made for an episode of `length` timesteps, of which every third has a picture."""
    return PlannedLatentFile(
        corpus=str(root),
        uid=f"u{episode_index}",
        camera="c",
        dataset_path="d",
        episode_index=episode_index,
        length=length,
        rate_hz=10.0,
        video_num_bytes=0,
        video_sha256="0" * 64,
    )


def alone(file: PlannedLatentFile) -> LatentUnit:
    """For a single file."""
    return LatentUnit(files=(file,))


def paired(unit: LatentUnit, decoded: Iterable[Decoded]) -> Iterator[DecodedChunk]:
    """With the pieces of a unit, in order, as long as there are some of either."""
    return zip(unit_chunks_of(unit, TINY, TINY.batch), decoded, strict=False)


def build(root: Path) -> Path:
    """Three episodes of one camera: 41, 21 and 13 timesteps of 160 x 96."""
    scenes = [
        Scene(seed=seed, duration_s=seconds, width=160, height=96)
        for seed, seconds in ((0, 4.1), (1, 2.1), (2, 1.3))
    ]
    written = lerobot.write(root / "raw", scenes=scenes, width=160, height=96)
    run(written.root, root / "corpus", source="lerobot", run_id="first")
    return root / "corpus"


def encode(
    root: Path,
    encoder: ImageEncoder,
    *,
    run_id: str = "latents-1",
    disk: LocalStorage | None = None,
    executor: Executor | None = None,
    pack_bytes: int = 0,
    **only: Any,
) -> LatentTally:
    """`eicorpus latents` without the command, in this process. `pack_bytes` 0: no packs."""
    corpus: CorpusLayout = open_corpus(root)
    current = snapshot.load(root)
    disk = disk or LocalStorage()
    maker = LatentMaker(encoder=encoder, monotonic_s=_no_clock, disk=disk)
    tally, _ = encode_corpus(
        todo_of(corpus, current, encoder.id, **only),
        current,
        LocalBackend(maker, executor or InlineExecutor()),
        run_id=run_id,
        disk=disk,
        packing=packing(encoder, pack_bytes) if pack_bytes else None,
    )
    return tally


def packing(encoder: ImageEncoder, pack_bytes: int) -> Packing:
    choice = encoder.choice
    return Packing(
        encoder_id=encoder.id,
        pack_bytes=pack_bytes,
        picture_bytes=bytes_of(choice, 1, choice.storage),
        grid_stride=choice.grid_stride,
    )


def _no_clock() -> float:
    return 0.0


def rows_of(root: Path, table: str = "latents") -> list[Row]:
    """By dataset path and number where there is one."""
    rows = snapshot.load(root).read(root, table).to_pylist()
    return sorted(rows, key=lambda row: str(row.get("path") or row.get("episode_index")))


def videos_of(root: Path) -> list[Path]:
    """Every video, by episode."""
    return sorted(root.rglob("*.mp4"))


def all_pictures(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """[N, H, W, 3] every picture of a video, by PyAV alone."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
