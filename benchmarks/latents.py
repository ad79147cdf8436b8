"""`eicorpus latents`: how fast pictures are decoded and encoded, how close the whole comes to the encoder alone, and that to the machine.

    python -m benchmarks.latents [--json] [--encoder dinov3_vits16] [--device auto] [--compile]

A fresh corpus of generated demonstrations; weights are seeded, which is as fast as trained ones. Rounds are interleaved and medians
reported. The peak is the best of a few square bf16 products on the same device in the same run, and the encoder's operations are
counted by torch itself, so that `mfu_ratio` needs no data sheet. `docs/results/benchmarks.md` names the keys.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import result
from benchmarks.ingest import ingest_by_command
from benchmarks.own_process import peak_rss_mib
from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus, writer_lock
from ingest.executors.inline import InlineExecutor
from ingest.executors.local import LocalExecutor
from ingest.latents.backends import LocalBackend
from ingest.latents.encode_file import LatentMaker, decode_chunk, frame_chunks_of
from ingest.latents.plan import LatentTodo, todo_of
from ingest.latents.run import LatentTally, encode_corpus
from ingest.models.encoder import EncoderChoice, ImageEncoder
from ingest.models.encoder_weights import WeightSource
from ingest.recipe import Limits
from ingest.storage.local import LocalStorage
from jobs.demo.raw import lerobot
from jobs.demo.raw.scene import Scene
from jobs.ui.latents_report import shares_of
from training.run.compute import matmul_peak

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "bare_pictures_per_s": "The encoder alone, on whole batches in memory.",
    "decode_pictures_per_s_per_core": "One decode worker, for a second of CPU.",
    "end_to_end_over_bare_ratio": "The whole run (decoding, encoding, writing, catalog) over the encoder alone; 1 means that nothing else takes time.",
    "gflop_per_picture": "Of one forward pass, counted by torch.",
    "mfu_ratio": "Arithmetic of the encoder over the best square product of the same run. Target on a GPU: at least 0.4.",
    "peak_rss_mib": "Peak memory.",
    "batch": "Images in a batch.",
    "pictures": "Images encoded.",
}

SIZE_PX = (342, 256)
# A worker imports this module and torch, 4.2 GiB with CUDA. Those of `eicorpus latents` import neither.
LIMITS = Limits(memory_limit_mib=16384)


def build(root: Path, num_episodes: int, seconds: float) -> Path:
    """A fresh corpus."""
    scenes = [
        Scene(seed=seed, duration_s=seconds, width=SIZE_PX[0], height=SIZE_PX[1])
        for seed in range(num_episodes)
    ]
    written = lerobot.write(root / "raw", scenes=scenes)
    ingest_by_command("lerobot", written.root, root / "corpus")
    return root / "corpus"


def seconds_of(body: Callable[[], object], device: str, repeats: int) -> float:
    """Of one call, the best of a few; a GPU is waited for."""
    body()
    best = float("inf")
    for _ in range(repeats):
        _wait(device)
        began_s = time.perf_counter()
        body()
        _wait(device)
        best = min(best, time.perf_counter() - began_s)
    return best


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def flop_per_picture(encoder: ImageEncoder) -> float:
    """Operations of one forward pass, a multiplication and an addition counted as two."""
    side = encoder.choice.spec.size_px
    plain = ImageEncoder.open(replace(encoder.choice, is_compiled=False, batch=1))
    # as plain products: a fused kernel's are not counted on every device
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        plain.encode(np.zeros((1, side, side, 3), np.uint8))
    return float(counter.get_total_flops())


def bare_per_s(encoder: ImageEncoder) -> float:
    """The encoder alone, on whole batches that lie in memory."""
    side = encoder.choice.spec.size_px
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (encoder.batch, side, side, 3), dtype=np.uint8)
    return encoder.batch / seconds_of(lambda: encoder.encode(pictures), encoder.device, 3)


def decoded_per_s(todo: LatentTodo, encoder: ImageEncoder) -> float:
    """One worker: decode, scale, letterbox; seconds of CPU."""
    began_s = time.process_time()
    count = 0
    for file in todo.files():
        for piece in frame_chunks_of(file, encoder.choice, encoder.batch):
            decoded = decode_chunk(piece, LocalStorage())
            if decoded.pictures is None:
                raise SystemExit(decoded.error)
            count += len(decoded.pictures)
    return count / (time.process_time() - began_s)


def whole(
    root: Path, encoder: ImageEncoder, workers: int, number: int
) -> tuple[LatentTally, float]:
    """The run as the command does it, and its seconds; what it wrote is removed again."""
    corpus = open_corpus(root)
    executor = LocalExecutor(workers, LIMITS) if workers else InlineExecutor()
    making = LocalBackend(LatentMaker(encoder=encoder, monotonic_s=time.monotonic), executor)
    with writer_lock(corpus):
        current = snapshot.load(root)
        todo = todo_of(corpus, current, encoder.id)
        began_s = time.monotonic()
        tally, current = encode_corpus(
            todo, current, making, run_id=f"bench-{number}", disk=LocalStorage()
        )
        took_s = time.monotonic() - began_s
    for row in current.read(root, "latents").to_pylist():
        (root / row["path"]).unlink(missing_ok=True)
    return tally, took_s


def rounds_of(
    root: Path, encoder: ImageEncoder, workers: int, rounds: int
) -> Iterator[dict[str, float]]:
    for number in range(rounds):
        bare = bare_per_s(encoder)
        tally, took_s = whole(root, encoder, workers, number)
        shares = shares_of(tally, took_s)
        yield {
            "bare_pictures_per_s": bare,
            "end_to_end_pictures_per_s": shares["pictures_per_s"],
            "end_to_end_over_bare_ratio": shares["pictures_per_s"] / bare,
            "encoder_busy_share": shares["encoder_busy_share"],
            "decode_wait_share": shares["decode_wait_share"],
            "write_wait_share": shares["write_wait_share"],
        }


def measured(choice: EncoderChoice, root: Path, workers: int, rounds: int) -> dict[str, Any]:
    """All keys, of the corpus at `root`."""
    encoder = ImageEncoder.open(choice)
    todo = todo_of(open_corpus(root), snapshot.load(root), encoder.id)
    decoded = decoded_per_s(todo, encoder)
    rounds_run = list(rounds_of(root, encoder, workers, rounds))
    out: dict[str, Any] = {
        key: round(median(each[key] for each in rounds_run), 3) for key in rounds_run[0]
    }
    peak = matmul_peak(torch.device(encoder.device), torch.bfloat16, time.perf_counter)
    flop = flop_per_picture(encoder)
    return out | {
        "encoder": choice.model,
        "device": encoder.device,
        "batch": encoder.batch,
        "is_compiled": choice.is_compiled,
        "workers": workers,
        "pictures": todo.num_pictures(choice.grid_stride),
        "decode_pictures_per_s_per_core": round(decoded, 1),
        "gflop_per_picture": round(flop / 1e9, 3),
        "matmul_peak_tflops": round(peak / 1e12, 3),
        "mfu_ratio": round(out["bare_pictures_per_s"] * flop / peak, 3),
        "peak_rss_mib": peak_rss_mib(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if encoder.device == "cuda" else "not measured on GPU",
    }


def main(
    encoder: str = "dinov3_vits16",
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option()] = "auto",
    batch: Annotated[int, typer.Option(help="0: by the device.")] = 0,
    is_compiled: Annotated[bool, typer.Option("--compile")] = False,
    workers: Annotated[int, typer.Option(min=0, help="Decode processes.")] = 1,
    episodes: Annotated[int, typer.Option(min=1)] = 4,
    seconds: Annotated[float, typer.Option(help="Of each demonstration.")] = 20.0,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    corpus: Annotated[
        Path | None,
        typer.Option(
            help="One without latents of this encoder, of which a copy is used; else one is made."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure how fast latents are made."""
    choice = EncoderChoice(
        model=encoder,
        source=WeightSource(untrained_seed=0),
        device=device,
        batch=batch,
        is_compiled=is_compiled,
    )
    measured_on = result.machine() | result.gpu()
    with tempfile.TemporaryDirectory() as folder:
        if corpus is None:
            root = build(Path(folder), episodes, seconds)
        else:  # what is measured is written
            root = shutil.copytree(corpus, Path(folder) / "corpus", symlinks=True)
        figures = measured(choice, root, workers, rounds)
    if as_json:
        sys.stdout.write(result.as_json("latents", measured_on, figures) + "\n")
    else:
        sys.stdout.write("".join(f"{key}: {value}\n" for key, value in figures.items()))


if __name__ == "__main__":
    typer.run(main)
