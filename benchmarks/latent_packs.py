"""What packs of latents gain: batches that go across short episodes, and single pictures that are read at random.

    python -m benchmarks.latent_packs [--json] [--encoder efficientnet_lite0_coarse] [--episodes 120] [--seconds 2.0] [--rounds 3]

Three ways to encode the same short episodes, interleaved in one run: a file for each, its last batch of the smallest size that holds it, as before packs; a
file for each with whole batches; packs. Reading is of pictures in random order from one pack and from a file for each episode, with and without checksums;
the pages are in memory, so that it is the reader and not the disk that is measured.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks import result
from benchmarks.latents import build
from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus, writer_lock
from ingest.executors.inline import InlineExecutor
from ingest.latents.backends import LocalBackend
from ingest.latents.cost_estimate import bytes_of
from ingest.latents.encode_file import LatentMaker
from ingest.latents.plan import Packing, todo_of
from ingest.latents.run import encode_corpus
from ingest.models.encoder import EncoderChoice, ImageEncoder
from ingest.models.encoder_weights import WeightSource
from ingest.storage.local import LocalStorage
from schemas.latent_header import span_of
from schemas.latent_pack import PACK_BYTES
from training.data.latent_reader import LatentFile

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "pictures_per_episode": "Pictures of an episode.",
    "batch": "Pictures in a batch.",
    "packs_over_files_speed_ratio": "Pictures a second of the whole run with packs, over one file for each episode as before packs.",
    "encoder_calls_over_files_ratio": "Picture places that the network computed, filled or not, over the same.",
    "objects_files": "Objects that one file for each episode makes.",
    "objects_packs": "Objects that packs make.",
    "read_us_per_picture_files": "A picture read at random, from a file for each episode, checksum compared.",
    "read_us_per_picture_packs": "The same from packs.",
    "checksum_share_of_read": "Share of that time that goes into the checksum.",
}
WAYS = ("before", "files", "packs")


class Counted:
    """An encoder that counts the slots of its batches. `has_small_batches`: small batches, as before packs, even if full ones are requested."""

    def __init__(self, encoder: ImageEncoder) -> None:
        self.encoder, self.places, self.has_small_batches = encoder, 0, False
        self._encode = encoder.encode
        self._batch = encoder._encode_batch
        encoder.encode = self.encode  # type: ignore[method-assign]
        encoder._encode_batch = self.batch  # type: ignore[method-assign]

    def encode(self, pictures: Any, *, has_whole_batches: bool = False) -> Any:
        return self._encode(
            pictures, has_whole_batches=has_whole_batches and not self.has_small_batches
        )

    def batch(self, pictures: Any, has_whole_batches: bool) -> Any:
        smallest = next(each for each in self.encoder._sizes if each >= len(pictures))
        self.places += self.encoder.batch if has_whole_batches else smallest
        return self._batch(pictures, has_whole_batches)


def encoded(root: Path, counted: Counted, way: str, number: int) -> dict[str, Any]:
    """One run in one of the ways; its rows stay, and are newer than those before."""
    encoder, corpus = counted.encoder, open_corpus(root)
    counted.has_small_batches, counted.places = way == "before", 0
    choice = encoder.choice
    packing = Packing(
        encoder_id=encoder.id,
        pack_bytes=PACK_BYTES,
        picture_bytes=bytes_of(choice, 1, choice.storage),
        grid_stride=choice.grid_stride,
    )
    making = LocalBackend(
        LatentMaker(encoder=encoder, monotonic_s=time.monotonic), InlineExecutor()
    )
    with writer_lock(corpus):
        current = snapshot.load(root)
        todo = todo_of(corpus, current, encoder.id)
        began_s = time.monotonic()
        tally, current = encode_corpus(
            todo,
            current,
            making,
            run_id=f"bench-{number:04d}",
            disk=LocalStorage(),
            packing=packing if way == "packs" else None,
        )
        took_s = time.monotonic() - began_s
    rows = current.read(root, "latents").to_pylist()
    newest = {row["uid"]: row for row in sorted(rows, key=lambda row: row["run_id"])}
    return {
        "pictures_per_s": tally.num_pictures / took_s,
        "places": counted.places,
        "rows": list(newest.values()),
        "objects": len({row["path"] for row in newest.values()}),
    }


def removed(root: Path, rows: list[dict[str, Any]]) -> None:
    for path in {row["path"] for row in rows}:
        (root / path).unlink()


def read_us(
    root: Path, rows: list[dict[str, Any]], *, has_checksums: bool, count: int = 4000
) -> float:
    """Microseconds for a picture, of files that are open."""
    files = []
    for row in rows:
        span = span_of(row["pack_offset"], row["num_bytes"])
        files.append(LatentFile(root / row["path"], row["path"], span))
    if not has_checksums:
        for file in files:
            file._crc = None
    rng = np.random.default_rng(0)
    facts = files[0].facts
    out = np.empty((facts.grid_height * facts.grid_width, facts.width), np.uint16)
    asked = [
        (file, int(rng.integers(file.facts.num_frames)) * facts.grid_stride)
        for file in (files[i] for i in rng.integers(0, len(files), count))
    ]
    return seconds_of(lambda: [file.read(at, out) for file, at in asked]) / count * 1e6


def seconds_of(work: Callable[[], Any]) -> float:
    """The best of three, of the CPU."""
    best = float("inf")
    for _ in range(3):
        began_s = time.process_time()
        work()
        best = min(best, time.process_time() - began_s)
    return best


def measured(choice: EncoderChoice, episodes: int, seconds: float, rounds: int) -> dict[str, Any]:
    """All keys."""
    encoder = ImageEncoder.open(choice)
    counted = Counted(encoder)
    speed: dict[str, list[float]] = {way: [] for way in WAYS}
    reads: dict[str, float] = {}
    last: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = build(Path(folder), episodes, seconds)
        for number in range(rounds):
            for place, way in enumerate(WAYS):
                last[way] = encoded(root, counted, way, number * len(WAYS) + place)
                speed[way].append(last[way]["pictures_per_s"])
                if way != "before" and number == rounds - 1:
                    rows = last[way]["rows"]
                    reads[way] = read_us(root, rows, has_checksums=True)
                    reads[f"{way} bare"] = read_us(root, rows, has_checksums=False)
                removed(root, last[way]["rows"])
        num_pictures = sum(row["num_frames"] for row in last["packs"]["rows"])
    ratios = [packs / before for packs, before in zip(speed["packs"], speed["before"], strict=True)]
    return {
        "encoder": choice.model,
        "episodes": episodes,
        "pictures_per_episode": round(num_pictures / episodes, 1),
        "batch": encoder.batch,
        "packs_over_files_speed_ratio": round(median(ratios), 3),
        "packs_over_files_speed_ratio_by_round": ", ".join(f"{ratio:.3f}" for ratio in ratios),
        "pictures_per_s_before": round(median(speed["before"]), 1),
        "pictures_per_s_files_of_whole_batches": round(median(speed["files"]), 1),
        "pictures_per_s_packs": round(median(speed["packs"]), 1),
        "encoder_calls_over_files_ratio": round(
            last["packs"]["places"] / last["before"]["places"], 3
        ),
        "objects_files": last["before"]["objects"],
        "objects_packs": last["packs"]["objects"],
        "read_us_per_picture_files": round(reads["files"], 1),
        "read_us_per_picture_packs": round(reads["packs"], 1),
        "checksum_share_of_read": round(1 - reads["packs bare"] / reads["packs"], 3),
    }


def main(
    encoder: str = "efficientnet_lite0_coarse",
    untrained: Annotated[int | None, typer.Option(help="Seed of random weights.")] = None,
    batch: Annotated[int, typer.Option(help="0: by the device.")] = 0,
    episodes: Annotated[int, typer.Option(min=2)] = 120,
    seconds: Annotated[float, typer.Option(help="Of each demonstration.")] = 2.0,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure what packs gain."""
    choice = EncoderChoice(model=encoder, source=WeightSource(), device="cpu", batch=batch)
    if untrained is not None:
        choice = replace(choice, source=WeightSource(untrained_seed=untrained))
    measured_on = result.machine()
    figures = measured(choice, episodes, seconds, rounds)
    if as_json:
        sys.stdout.write(result.as_json("latent_packs", measured_on, figures) + "\n")
    else:
        sys.stdout.write("".join(f"{key}: {value}\n" for key, value in figures.items()))


if __name__ == "__main__":
    typer.run(main)
