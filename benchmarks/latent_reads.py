"""Random reads of latents beyond the page cache: from files and packs on a disk, past the page cache, and from a bucket through the cache of this machine.

    python -m benchmarks.latent_reads [--json] [--episodes 200] [--samples 600] [--rounds 3] [--folder DIR]

A sample is three pictures of 150,528 bytes at t - 3, t and t + 6 of a random episode, checksums compared, as the loader reads them. "Cold": the pages of all
files are dropped before each round (posix_fadvise), files are opened anew, and no sample comes twice. The hypervisor may keep them. The bucket is a server
of ranges on loopback that speaks S3; requests are made by 8 threads. A round goes through all ways once.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from safetensors.torch import save_file

from benchmarks import result
from benchmarks.annotated_corpus import ENCODER, GRID, STRIDE, WIDTH, vit_facts, vit_tensors
from ingest.storage.object_store import ObjectStore
from schemas.latent_header import span_of
from schemas.manifest import Latent
from training.data.block_cache import BlockCache
from training.data.latent_reader import LatentFile
from training.data.stored_latents import StoredLatents

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "gigabytes": "Of each layout.",
    "files_warm_ms_per_sample": "A file for each episode, open, its pages in memory.",
    "packs_warm_ms_per_sample": "The same from packs.",
    "files_cold_ms_per_sample": "Files opened anew, no page in memory.",
    "packs_cold_ms_per_sample": "The same from packs.",
    "direct_cold_ms_per_sample": "The same bytes by direct I/O, without format and checksum: what the disk gives.",
    "bucket_ms_per_sample": "From packs in the bucket, cache of the machine empty.",
    "whole_files_ms_per_sample": "From the bucket by whole files of episodes, as a copy before use does.",
    "cache_cold_ms_per_sample": "The same samples again: from the cache, its pages dropped.",
    "cache_warm_ms_per_sample": "And with its pages in memory.",
    "files_over_packs_cold_ratio": "Time of files over that of packs.",
    "packs_over_direct_cold_ratio": "Time of packs over that of direct I/O.",
    "cold_over_warm_ratio": "Of packs: what the page cache hides.",
    "bucket_over_cache_cold_ratio": "Time from the bucket over that from the cache.",
    "whole_files_over_bucket_ratio": "Time of whole files over that of ranges.",
    "fetched_over_used_bytes_ratio": "Bytes that ranges fetch, over those of the samples.",
    "cpu_ms_per_sample_bucket": "CPU time of this process, from the bucket.",
    "cpu_ms_per_sample_cache": "And from the cache.",
}
PATCHES, NUM_FRAMES = GRID * GRID, 84
PICTURE_BYTES = PATCHES * WIDTH * 2
OFFSETS = (-1, 0, 2)  # pictures, from that of now
THREADS, PER_PACK = 8, 20


@dataclass(frozen=True, kw_only=True)
class Layouts:
    """The same episodes as files and as members of packs."""

    root: Path
    files: Sequence[Latent]
    packs: Sequence[Latent]

    def paths(self) -> list[Path]:
        return [self.root / name for name in {each.path for each in (*self.files, *self.packs)}]


def make(root: Path, episodes: int) -> Layouts:
    """Both layouts, on the disk."""
    files: list[Latent] = []
    packs: list[Latent] = []
    for first in range(0, episodes, PER_PACK):
        pack = root / f"{first:06d}.tar"
        with tarfile.open(pack, "w", format=tarfile.GNU_FORMAT) as tar:
            for number in range(first, min(first + PER_PACK, episodes)):
                path = root / f"episode_{number:06d}.safetensors"
                length = NUM_FRAMES * STRIDE
                facts = vit_facts(f"e{number}", length)
                save_file(vit_tensors(length, seed=number), path, metadata=facts.metadata())
                tar.add(path, path.name)
                files.append(latent(path, None))
        with tarfile.open(pack) as tar:
            packs += [latent(pack, member) for member in tar]
    os.sync()
    return Layouts(root=root, files=files, packs=packs)


def latent(path: Path, member: tarfile.TarInfo | None) -> Latent:
    at, size = (None, None) if member is None else (member.offset_data, member.size)
    name = path.name if member is None else member.name
    return Latent(
        camera="front",
        encoder_id=ENCODER,
        path=path.name,
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        pack_offset=at,
        num_bytes=size,
    )


def dropped(paths: Sequence[Path]) -> None:
    """Take the pages of files out of memory."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.fdatasync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def opened(layouts: Layouts, latents: Sequence[Latent]) -> Callable[[int], LatentFile]:
    def of(number: int) -> LatentFile:
        each = latents[number]
        return LatentFile(layouts.root / each.path, each.path, span_of(each.pack_offset, each.num_bytes))  # fmt: skip

    return of


Sample = tuple[int, int]  # episode and picture


def read_one(file: LatentFile, picture: int) -> None:
    out = np.empty((len(OFFSETS), PATCHES, WIDTH), np.uint16)
    file.read_all([(picture + each) * STRIDE for each in OFFSETS], list(out))


def reading(of: Callable[[int], LatentFile]) -> Callable[[Sample], None]:
    """Reads a sample of the file that an episode has."""
    return lambda sample: read_one(of(sample[0]), sample[1])


def timed(samples: Sequence[Sample], read: Callable[[Sample], Any], threads: int = 1) -> float:
    """Milliseconds a sample."""
    began_s = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(read, samples):
            pass
    return 1000 * (time.perf_counter() - began_s) / len(samples)


def direct(layouts: Layouts, samples: Sequence[Sample]) -> float | None:
    """Milliseconds a sample by O_DIRECT, page by page; None where the file system has none."""
    memory = mmap.mmap(-1, (len(OFFSETS) + 2) * PICTURE_BYTES)

    def read(sample: Sample) -> None:
        number, picture = sample
        handle = os.open(layouts.root / layouts.files[number].path, os.O_RDONLY | os.O_DIRECT)
        try:
            for first, count in ((picture - 1, 2), (picture + 2, 1)):
                start = first * PICTURE_BYTES // 4096 * 4096
                length = -(-count * PICTURE_BYTES // 4096) * 4096 + 4096
                os.preadv(handle, [memoryview(memory)[:length]], start)
        finally:
            os.close(handle)

    try:
        return timed(samples, read)
    except OSError:
        return None


@contextmanager
def served(root: Path) -> Iterator[ObjectStore]:
    """The folder as a bucket."""
    command = [sys.executable, "-m", "benchmarks.range_server", str(root)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=result.ROOT)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_SKIP_SIGNATURE": "true",
            "AWS_REGION": "us-east-1",
        }
        yield ObjectStore("s3://bench")
    finally:
        server.kill()
        server.wait()


class CountedStore:
    """A store, and how many bytes it gave."""

    def __init__(self, store: ObjectStore) -> None:
        self.store, self.num_bytes = store, 0

    def range(self, key: str, start: int, length: int) -> bytes:
        data = self.store.range(key, start, length)
        self.num_bytes += len(data)
        return data

    def size(self, key: str) -> int | None:
        return self.store.size(key)


def through_cache(
    layouts: Layouts, samples: Sequence[Sample], store: ObjectStore, folder: Path
) -> dict[str, float]:
    """Fetched, then again from the cache without and with its pages."""
    counted = CountedStore(store)
    cache = BlockCache(folder, max_bytes=4 * len(samples) * 8 * PICTURE_BYTES, block_bytes=PICTURE_BYTES)  # fmt: skip
    source = StoredLatents(store=counted, name="bench", cache=cache)

    def read(sample: Sample) -> None:
        read_one(source.open(layouts.packs[sample[0]]), sample[1])

    before_s = time.process_time()
    out = {"bucket": timed(samples, read, THREADS)}
    out["bucket_cpu"] = 1000 * (time.process_time() - before_s) / len(samples)
    used = len(samples) * len(OFFSETS) * PICTURE_BYTES
    out["fetched"] = counted.num_bytes / used
    dropped([*folder.glob("blocks-*")])
    out["cache_cold"] = timed(samples, read)
    before_s = time.process_time()
    out["cache_warm"] = timed(samples, read)
    out["cache_cpu"] = 1000 * (time.process_time() - before_s) / len(samples)
    return out


def one_round(
    layouts: Layouts, samples: Sequence[Sample], store: ObjectStore, scratch: Path
) -> dict[str, float]:
    """Milliseconds a sample by each way."""
    out: dict[str, float] = {}
    for name, latents in (("files", layouts.files), ("packs", layouts.packs)):
        of = opened(layouts, latents)
        dropped(layouts.paths())
        out[f"{name}_cold"] = timed(samples, reading(of))
        held = {number: of(number) for number in {number for number, _ in samples}}
        timed(samples, reading(held.__getitem__))
        out[f"{name}_warm"] = timed(samples, reading(held.__getitem__))
    dropped(layouts.paths())
    if (ms := direct(layouts, samples)) is not None:
        out["direct_cold"] = ms
    dropped(layouts.paths())
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        out |= through_cache(layouts, samples, store, Path(folder))
    dropped(layouts.paths())
    few = samples[: max(THREADS, len(samples) // 20)]
    size = (layouts.root / layouts.files[0].path).stat().st_size
    out["whole_files"] = timed(few, lambda s: store.range(layouts.files[s[0]].path, 0, size), THREADS)  # fmt: skip
    return out


def figures_of(rounds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Medians of the rounds; ratios are of one round."""

    def ratio(above: str, below: str) -> float:
        ratios = [each[above] / each[below] for each in rounds if above in each and below in each]
        return round(median(ratios), 2) if ratios else float("nan")

    ways = ["files_warm", "packs_warm", "files_cold", "packs_cold", "direct_cold", "bucket"]
    ways += ["whole_files", "cache_cold", "cache_warm"]
    out: dict[str, Any] = {
        f"{way}_ms_per_sample": round(median(each[way] for each in rounds if way in each), 3)
        for way in ways
        if any(way in each for each in rounds)
    }
    return out | {
        "files_over_packs_cold_ratio": ratio("files_cold", "packs_cold"),
        "packs_over_direct_cold_ratio": ratio("packs_cold", "direct_cold"),
        "cold_over_warm_ratio": ratio("packs_cold", "packs_warm"),
        "bucket_over_cache_cold_ratio": ratio("bucket", "cache_cold"),
        "whole_files_over_bucket_ratio": ratio("whole_files", "bucket"),
        "fetched_over_used_bytes_ratio": round(median(each["fetched"] for each in rounds), 3),
        "cpu_ms_per_sample_bucket": round(median(each["bucket_cpu"] for each in rounds), 3),
        "cpu_ms_per_sample_cache": round(median(each["cache_cpu"] for each in rounds), 3),
    }


def main(
    as_json: Annotated[bool, typer.Option("--json")] = False,
    episodes: Annotated[int, typer.Option(min=2)] = 200,
    samples: Annotated[int, typer.Option(min=20)] = 600,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    folder: Annotated[Path | None, typer.Option(help="On the disk that is measured.")] = None,
) -> None:
    """Measure random reads of latents, cold and warm, and from a bucket."""
    measured_on = result.machine()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        (root := Path(scratch) / "layouts").mkdir()
        layouts = make(root, episodes)
        by_round = []
        with served(root) as store:
            for number in range(rounds):
                rng = np.random.default_rng(number)
                every = rng.permutation(episodes * (NUM_FRAMES - 3))[:samples]
                chosen = [(int(n) // (NUM_FRAMES - 3), 1 + int(n) % (NUM_FRAMES - 3)) for n in every]  # fmt: skip
                by_round.append(one_round(layouts, chosen, store, Path(scratch)))
        size = sum((root / each.path).stat().st_size for each in layouts.files)
    figures = {"episodes": episodes, "samples": samples, "rounds": rounds}
    figures |= {"gigabytes": round(size / 1e9, 2)} | figures_of(by_round)
    if as_json:
        sys.stdout.write(result.as_json("latent_reads", measured_on, figures) + "\n")
    else:
        sys.stdout.write("".join(f"{key}: {value}\n" for key, value in figures.items()))


if __name__ == "__main__":
    typer.run(main)
