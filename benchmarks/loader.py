"""Samples a second of `training/data/loader.py` against LeRobotDataset 0.3.3, on the same corpus and the same window; and memory over epochs.

    python -m benchmarks.loader [--json] [--quick] [--hogs N] [--rounds N] [--seconds N] [--workers N] [--batch-size N]
    python -m benchmarks.loader --launches [--json] [--rounds N] [--workers N] [--batch-size N]

`--launches`: what loading costs a thread that launches small operations, 100 for a sample as a step of `lda_1b`, with `run.loader` threads and process.

The corpus is made first: one camera of 256 x 256 at 10 Hz, episodes of 25 s, latents of the size of ViT-S/16 (196 patches of 384, bf16). LeRobot
runs in `.peer`; without it (`eicorpus peer`) that half is named in `not_run`.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import Annotated, Any, ClassVar

import cv2
import numpy as np
import psutil
import torch
import typer

from adapters.base import SourceInfo
from benchmarks import result
from benchmarks.annotated_corpus import (
    annotate,
    build_manifest,
    tier_row,
    vit_facts,
    vit_tensors,
    write_latent_file,
)
from benchmarks.ingest import ingest_by_command
from benchmarks.lerobot_latents import with_latents
from ingest.corpus import snapshot
from ingest.models.encoder import EncoderChoice, ImageEncoder
from ingest.models.encoder_weights import WeightSource
from schemas.episode import (
    Camera,
    EncodedImages,
    Episode,
    EpisodeRef,
    Instruction,
    Licence,
    Stream,
    gripper_channel,
    pose_channel,
)
from schemas.manifest import Manifest, load
from schemas.rate import instants_ns
from training.batch import Batch
from training.conditioning.hashed_words import WordsReader
from training.data.loader import Loader
from training.recipe import TrainRecipe

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "ours_samples_per_s": "Samples a second with `--workers` threads, warm, median of the rounds.",
    "ours_inline_samples_per_s": "The same without workers.",
    "lerobot_samples_per_s": "LeRobotDataset 0.3.3, which decodes images from the video.",
    "lerobot_latents_samples_per_s": "LeRobotDataset with the same latents as a feature (float32).",
    "ours_cpu_ms_per_sample": "CPU time of the process and its workers. Budget: at most 0.35.",
    "ours_inline_cpu_ms_per_sample": "The same without workers.",
    "lerobot_cpu_ms_per_sample": "The same of LeRobotDataset.",
    "lerobot_latents_cpu_ms_per_sample": "The same with latents as a feature.",
    "on_the_fly_cpu_ms_per_sample": "A sum: LeRobot's decoding, and three images through ViT-S/16 on one thread.",
    "ours_over_lerobot_speed_ratio": "Samples a second of both in a round.",
    "ours_over_lerobot_speed_least_ratio": "In the worst round. Budget: at least 60.",
    "lerobot_over_ours_cpu_ratio": "The same in CPU time.",
    "lerobot_over_ours_cpu_least_ratio": "In the worst round. Budget: at least 60.",
    "ours_over_lerobot_latents_speed_ratio": "The same against LeRobot on latents.",
    "ours_over_lerobot_latents_speed_least_ratio": "In the worst round. Budget: at least 10.",
    "lerobot_latents_over_ours_cpu_ratio": "The same in CPU time.",
    "lerobot_latents_over_ours_cpu_least_ratio": "In the worst round. Budget: at least 10.",
    "on_the_fly_over_ours_cpu_ratio": "That sum over the loader's.",
    "launch_cpu_ms_threads": "CPU time of the trainer's process for loading a batch, beside what launches take.",
    "launch_cpu_ms_process": "The same with `run.loader: process`.",
    "launch_mean_process_over_threads_ratio": "Time of a launch beside a process over that beside threads: means.",
    "launch_p95_process_over_threads_ratio": "The same of the 95th percentile.",
    "launch_waits_threads": "Times that the launching thread waited for another one, in a step.",
    "launch_waits_process": "The same with `run.loader: process`.",
    "hogs": "Busy processes beside both.",
    "rss_last_over_second_epoch_ratio": "Memory without mapped files after six epochs over that after two; 1 is flat.",
    "rounds": "Rounds, of which medians are reported.",
    "seconds": "Length of a round.",
    "episodes": "Episodes of the corpus.",
    "workers": "Threads or processes.",
    "batch_size": "Samples of a batch.",
}

ROOT = Path(__file__).parent.parent
PEER = ROOT / ".peer" / "bin" / "python"
SIZE_PX, LENGTH = 256, 250
NUM_PICTURES = 3  # of a sample
LIMIT_S = 120  # of one measurement of LeRobot, its start included


class Moving:
    """Episodes of a hand that moves at random before a moving texture; `episodes` is a file with their number."""

    name: ClassVar[str] = "moving"
    version: ClassVar[int] = 1
    container: ClassVar[str] = "none"
    about: ClassVar[str] = "for benchmarks/loader.py"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        licence = Licence(name="CC0", allows_commercial=True, allows_redistribution=True)
        return SourceInfo(source="moving", dataset="moving", licence=licence)

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        for number in range(int((root / "episodes").read_text())):
            yield EpisodeRef(
                source="moving",
                dataset="moving",
                episode_id=f"e{number:04d}",
                root=str(root),
                locator=(("number", number),),
                duration_hint_s=LENGTH / 10,
            )

    def load(self, ref: EpisodeRef) -> Episode:
        rng = np.random.default_rng([ref.at("number")])
        t_ns = instants_ns(LENGTH, Fraction(10))
        T = np.tile(np.eye(4), (LENGTH, 1, 1))
        T[:, :3, 3] = np.cumsum(rng.normal(size=(LENGTH, 3)) * 0.01, axis=0)
        opening = rng.random((LENGTH, 1))
        gripper = gripper_channel("left.gripper_opening", binary=False)
        frames = EncodedImages(images=tuple(pictures(rng)))
        return Episode(
            ref=ref,
            embodiment="umi",
            rate_hz=Fraction(10),
            streams=(
                Stream(spec=pose_channel("left.T_base_eef"), t_ns=t_ns, values=T),
                Stream(spec=gripper, t_ns=t_ns, values=opening),
            ),
            cameras=(Camera(name="front", frames=frames, t_ns=t_ns),),
            instructions=(Instruction(text=f"move {ref.at('number')}"),),
        )


def pictures(rng: np.random.Generator) -> Iterator[bytes]:
    """JPEG pictures of smooth texture that moves, with sensor noise."""
    coarse = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
    texture = cv2.resize(coarse, (2 * SIZE_PX, 2 * SIZE_PX), interpolation=cv2.INTER_CUBIC)
    for k in range(LENGTH):
        cut = texture[k : k + SIZE_PX, k // 2 : k // 2 + SIZE_PX].astype(np.int16)
        noisy = np.clip(cut + rng.normal(size=cut.shape) * 3, 0, 255).astype(np.uint8)
        yield cv2.imencode(".jpg", noisy)[1].tobytes()


def write_manifest(root: Path, num_episodes: int) -> Manifest:
    """The corpus with its manifest."""
    (root / "raw").mkdir()
    (root / "raw" / "episodes").write_text(str(num_episodes))
    corpus = root / "corpus"
    ingest_by_command("benchmarks.loader:Moving", root / "raw", corpus)
    tiers, latents = [], []
    for row in snapshot.load(corpus).read(corpus, "episodes").to_pylist():
        tiers.append(tier_row(row["uid"], 0, 0, row["length"], "high"))
        tensors = vit_tensors(row["length"], seed=row["episode_index"])
        facts = vit_facts(row["uid"], row["length"])
        latents.append(write_latent_file(corpus, row, facts, tensors))
    annotate(corpus, tiers, latents)
    return load(build_manifest(corpus, "bench"))


def loader_of(
    manifest: Manifest, num_workers: int, batch_size: int, where: str = "threads"
) -> Loader:
    run = {"batch_size": batch_size, "num_workers": num_workers, "loader": where}
    recipe = TrainRecipe.model_validate({"name": "bench", "run": run})
    return Loader(manifest, recipe, reader=WordsReader(num_buckets=1024, num_words=16))


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Of one side in one round."""

    samples_per_s: float
    cpu_ms_per_sample: float


def ours(manifest: Manifest, num_workers: int, batch_size: int, budget_s: float) -> Rate:
    """Workers warm."""
    batches = loader_of(manifest, num_workers, batch_size).batches()
    for _ in range(4 + 4 * num_workers):  # those that were made ahead before the clock started
        next(batches)
    num, started, cpu_before = 0, time.monotonic(), time.process_time()
    while time.monotonic() - started < budget_s:
        num += len(next(batches).action)
    elapsed_s, cpu_s = time.monotonic() - started, time.process_time() - cpu_before
    return Rate(samples_per_s=num / elapsed_s, cpu_ms_per_sample=1000 * cpu_s / num)


LAUNCHES = 100  # of a sample: 20,000 of a step of 192
STEPS = 20  # of a round


@dataclass(frozen=True, kw_only=True)
class LaunchCost:
    """Of a thread that launches, for a step: CPU time of its process, times of launches, and how often it waited for another thread."""

    cpu_ms: float
    mean_us: float
    p95_us: float
    waits: float


def launched(batches: Iterator[Batch], batch_size: int) -> LaunchCost:
    """Steps of small operations, each after it took a batch. Waiting for the batch is no launch."""
    x, clock, waits = torch.zeros(16), time.perf_counter, 0
    times = np.empty((STEPS, LAUNCHES * batch_size + 1))
    cpu_before = time.process_time()
    for of_step in times:
        next(batches)
        waits -= resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        for i in range(len(of_step)):
            of_step[i] = clock()
            x.add_(1)
        waits += resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    cpu_s, us = time.process_time() - cpu_before, 1e6 * np.diff(times)
    return LaunchCost(
        cpu_ms=1000 * cpu_s / STEPS,
        mean_us=float(us.mean()),
        p95_us=float(np.quantile(us, 0.95)),
        waits=waits / STEPS,
    )


def beside_launches(
    manifest: Manifest, rounds: int, workers: int, batch_size: int
) -> dict[str, float]:
    """Medians of rounds in which both and a batch that is there already take turns."""
    ready = loader_of(manifest, 0, batch_size).batch(0)
    out: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        alone = launched(repeat(ready), batch_size)
        costs = {}
        for where in ("threads", "process"):
            batches = loader_of(manifest, workers, batch_size, where).batches()
            for _ in range(4 + 4 * workers):
                next(batches)
            costs[where] = launched(batches, batch_size)
            batches.close()
            out[f"launch_cpu_ms_{where}"].append(costs[where].cpu_ms - alone.cpu_ms)
            out[f"launch_waits_{where}"].append(costs[where].waits)
        for name in ("mean", "p95"):
            ratio = getattr(costs["process"], f"{name}_us") / getattr(
                costs["threads"], f"{name}_us"
            )
            out[f"launch_{name}_process_over_threads_ratio"].append(ratio)
    return {name: round(median(values), 3) for name, values in out.items()}


def memory(manifest: Manifest, batch_size: int, num_epochs: int) -> list[float]:
    """MiB of this process alone (without what files are mapped) after each epoch, no workers."""
    loader, out = loader_of(manifest, 0, batch_size), []
    steps, process = max(1, round(loader.steps_per_epoch)), psutil.Process(os.getpid())
    for epoch in range(num_epochs):
        for step in range(epoch * steps, (epoch + 1) * steps):
            loader.batch(step)
        usage = process.memory_info()
        out.append((usage.rss - usage.shared) / 2**20)
    return out


def lerobot(
    dataset: Path, scratch: Path, num_workers: int, batch_size: int, budget_s: float
) -> Rate | None:
    """The other one, in its own environment; None where it has no figure after LIMIT_S.

    Args:
        scratch: where it keeps its copy of the data set, which one that is killed does not remove.
    """
    script = Path(__file__).with_name("lerobot_loader.py")
    arguments = map(str, (dataset, num_workers, batch_size, int(budget_s)))
    try:
        done = subprocess.run(
            [str(PEER), str(script), *arguments],
            env={**os.environ, "TMPDIR": str(scratch)},
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise SystemExit(done.stderr)
    figures = json.loads(done.stdout.splitlines()[-1])
    return Rate(**{name: figures[name] for name in Rate.__dataclass_fields__})


def main(
    as_json: Annotated[bool, typer.Option("--json")] = False,
    quick: Annotated[bool, typer.Option(help="One short round: that it runs.")] = False,
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    episodes: Annotated[int, typer.Option(min=6)] = 24,
    workers: Annotated[int, typer.Option(min=0, help="Threads of ours, processes of theirs.")] = 2,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    hogs: Annotated[int, typer.Option(min=0, help="Busy processes beside each measurement.")] = 0,
    launches: Annotated[bool, typer.Option(help="Only what loading costs launches.")] = False,
) -> None:
    """Print samples a second of both, their ratio, and memory over epochs."""
    if quick:
        seconds, rounds, episodes = 2.0, 1, 8
    torch.set_num_threads(1)
    measured_on = result.machine()
    out: dict[str, Any] = {"rounds": rounds, "seconds": seconds}
    out |= {"episodes": episodes, "workers": workers, "batch_size": batch_size, "hogs": hogs}
    out["not_run"] = []
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_manifest(Path(folder), episodes)
        if launches:
            out |= beside_launches(manifest, rounds, workers, batch_size)
            _show(measured_on, out, as_json=as_json)
            return
        theirs: dict[str, Path] = {}
        if PEER.is_file():
            dataset = manifest.corpus / manifest.row(0).dataset_path
            as_feature = with_latents(manifest, dataset, Path(folder) / "feature", 4)
            theirs = {"lerobot": dataset, "lerobot_latents": as_feature}
        with busy(hogs):
            figures = measured(manifest, rounds, seconds, workers, batch_size, theirs)
        if figures.get("lerobot_cpu_ms_per_sample"):
            on_the_fly = median(figures["lerobot_cpu_ms_per_sample"]) + NUM_PICTURES * encoder_ms()
            out["on_the_fly_cpu_ms_per_sample"] = round(
                on_the_fly, 1
            )  # a sum: decoding as measured, and the encoder
        mib = memory(manifest, batch_size, 2 if quick else 6)
    for name, values in figures.items():
        out |= of_rounds(name, values)
    if "on_the_fly_cpu_ms_per_sample" in out:
        of_ours = out["on_the_fly_cpu_ms_per_sample"] / out["ours_cpu_ms_per_sample"]
        out["on_the_fly_over_ours_cpu_ratio"] = round(of_ours, 1)
    if not PEER.is_file():
        out["not_run"].append("lerobot: no .peer, run `eicorpus peer`")
    late = (side for side in theirs if not figures.get(f"{side}_samples_per_s"))
    out["not_run"] += [f"{side}: no figure within {LIMIT_S} s" for side in late]
    out["rss_mib_by_epoch"] = [round(x, 1) for x in mib]
    out["rss_last_over_second_epoch_ratio"] = round(mib[-1] / mib[min(1, len(mib) - 1)], 3)
    _show(measured_on, out, as_json=as_json)


def _show(measured_on: Mapping[str, Any], figures: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(result.as_json("loader", measured_on, figures) + "\n")
        return
    for key, value in figures.items():
        typer.echo(f"{key}: {value}")


def of_rounds(name: str, values: list[float]) -> dict[str, Any]:
    """The median of a figure, and of a ratio the worst round and all of them."""
    if not values:
        return {}
    out: dict[str, Any] = {name: round(median(values), 3)}
    if name.endswith("_ratio"):
        out[f"{name.removesuffix('ratio')}least_ratio"] = round(min(values), 3)
        out[f"{name}_by_round"] = ", ".join(f"{each:.1f}" for each in values)
    return out


@contextmanager
def busy(number: int) -> Iterator[None]:
    """Processes that compute while the block runs."""
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def encoder_ms() -> float:
    """CPU time of ViT-S/16 for a picture of the benchmark's size, in batches, on one thread: what reading latents saves beside decoding."""
    source = WeightSource(untrained_seed=0)
    encoder = ImageEncoder.open(
        EncoderChoice(model="dinov3_vits16", source=source, device="cpu", batch=8)
    )
    pictures = np.random.default_rng(0).integers(0, 255, (8, 224, 224, 3), dtype=np.uint8)
    encoder.encode(pictures)
    before = time.process_time()
    for _ in range(2):
        encoder.encode(pictures)
    return 1000 * (time.process_time() - before) / 16


def measured(
    manifest: Manifest,
    rounds: int,
    seconds: float,
    workers: int,
    batch_size: int,
    theirs: Mapping[str, Path],
) -> dict[str, list[float]]:
    """Each side in each round, rounds interleaved, and the ratios. theirs: the data sets that LeRobot reads, by the name of the row."""
    out: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        by_side = {
            "ours_inline": ours(manifest, 0, batch_size, seconds),
            "ours": ours(manifest, workers, batch_size, seconds),
        }
        for side, dataset in theirs.items():
            scratch = manifest.corpus.parent
            if (rate := lerobot(dataset, scratch, workers, batch_size, seconds)) is not None:
                by_side[side] = rate
                cpu_ratio = rate.cpu_ms_per_sample / by_side["ours"].cpu_ms_per_sample
                speed_ratio = by_side["ours"].samples_per_s / rate.samples_per_s
                out[f"{side}_over_ours_cpu_ratio"].append(cpu_ratio)
                out[f"ours_over_{side}_speed_ratio"].append(speed_ratio)
        for side, rate in by_side.items():
            out[f"{side}_samples_per_s"].append(rate.samples_per_s)
            out[f"{side}_cpu_ms_per_sample"].append(rate.cpu_ms_per_sample)
    return out


if __name__ == "__main__":
    typer.run(main)
