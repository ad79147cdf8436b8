"""How fast video is ingested, beside the bare libav loop and LeRobot's own writer, in one run on one machine.

    python -m benchmarks.ingest [--json] [--quick]

Every measurement is a fresh program that loads everything, says "ready", waits for the start signal and reports its own
monotonic start and end; one for each core gives the figures for all cores. Rounds are interleaved (bare, ours, LeRobot,
bare, ...) and medians are reported, so that a machine that slows down slows all three. `docs/results/benchmarks.md` names the keys.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame

from benchmarks import result

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "bare_fps_*": "Frames a second of the smallest PyAV loop: decode, scale every third frame, encode.",
    "ours_fps_*": "Frames a second of the whole ingest of the same file.",
    "lerobot_fps_*": "Frames a second of LeRobot 0.3.3's writer on the same frames, already decoded.",
    "ours_over_bare_time_ratio_*": "Time of `ours` over `bare`, median of the rounds. Aim: at most 1.05.",
    "ours_over_bare_cpu_ratio_*": "The same with CPU time.",
    "ours_over_lerobot_speed_ratio_*": "Frames a second of `ours` over `lerobot`. Budget: at least 10 at `256`, at least 6 at `1080p_full`.",
    "ours_over_lerobot_process_speed_ratio_*": "The same from the start of the process to its end, imports and a first tiny video included.",
    "lerobot_over_ours_cpu_ratio_*": "CPU time of a frame, `lerobot` over `ours`: less sensitive to other programs.",
    "ours_peak_rss_mib_short_1080p": "Peak memory of one worker on 3 s of 1080p.",
    "ours_peak_rss_mib_long_1080p": "Peak memory of one worker on 30 s of 1080p.",
    "ours_peak_rss_long_over_short_ratio": "Their ratio; 1 means that memory does not depend on length.",
    "rounds": "Rounds, of which medians are reported.",
}

ROOT = Path(__file__).parent.parent
PEER_PYTHON = ROOT / ".peer" / "bin" / "python"
SOURCE_HZ = 30
Options = tuple[tuple[str, str], ...]
LONG_GROUPS: Options = (("crf", "20"), ("preset", "veryfast"), ("g", "30"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A source size, the size it is written at, and how many pictures each method gets."""

    name: str
    width: int
    height: int
    short_side_px: int
    num_source_frames: int
    num_lerobot_frames: (
        int  # 0: not compared, because LeRobot would be handed pictures already scaled down
    ) = 0
    codec: str = "libx264"
    options: Options = LONG_GROUPS
    suffix: str = ".mp4"
    num_videos: int = 1  # of the same content, an episode each


CASES = (
    Case(name="256", width=256, height=256, short_side_px=256, num_source_frames=1800, num_lerobot_frames=150),
    Case(name="256_short", width=256, height=256, short_side_px=256, num_source_frames=150, num_videos=24),
    Case(name="640x480", width=640, height=480, short_side_px=256, num_source_frames=900, num_lerobot_frames=150),
    Case(name="640x480_short", width=640, height=480, short_side_px=256, num_source_frames=150, num_videos=12),
    Case(name="1080p", width=1920, height=1080, short_side_px=256, num_source_frames=300, num_lerobot_frames=0),
    Case(name="1080p_full", width=1920, height=1080, short_side_px=1080, num_source_frames=150, num_lerobot_frames=20),
)  # fmt: skip
MEMORY_FRAMES = (90, 900)  # 3 s and 30 s of 1080p


def write_source(
    path: Path,
    width: int,
    height: int,
    num_frames: int,
    *,
    codec: str = "libx264",
    options: Options = LONG_GROUPS,
) -> None:
    """Moving smooth texture with sensor noise, 30 Hz."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 4 + 20, width // 4 + 20, 3), dtype=np.uint8)
    texture = cv2.resize(coarse, (width + 80, height + 80), interpolation=cv2.INTER_CUBIC)
    noise = [rng.integers(0, 10, (height, width, 3), dtype=np.uint8) for _ in range(4)]
    with usual_priority(), av.open(str(path), "w") as container:
        stream = container.add_stream(codec, SOURCE_HZ, dict(options))
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for i in range(num_frames):
            x, y = int(32 + 30 * np.sin(i / 20)), int(32 + 30 * np.cos(i / 27))
            picture = cv2.add(texture[y : y + height, x : x + width], noise[i % 4])
            container.mux(stream.encode(VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


@contextmanager
def usual_priority() -> Iterator[None]:
    """For root, the encoder SVT-AV1 makes its process a real-time one, and the programs started after it too."""
    before, how = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, how)


def ingest_by_command(source: str, raw: Path, corpus: Path) -> None:
    """A fresh corpus of raw data, made as a user makes it, in a process of its own."""
    words = ["ingest", source, str(raw), "--out", str(corpus), "--workers", "0"]
    subprocess.run(
        [sys.executable, "-m", "jobs", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
    )


def run_together(commands: list[list[str]]) -> dict[str, float]:
    """Start all programs, release them at once; pictures a second over the whole span and with the start, CPU time, largest peak memory."""
    began_s = time.monotonic()
    running = [
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for command in commands
    ]  # fmt: skip
    for process in running:
        if process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{process.args} did not start: status {process.wait()}")
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate()[0] for process in running]
    process_s = time.monotonic() - began_s
    if any(process.returncode for process in running):
        raise SystemExit(f"{commands[0]} failed; run it by hand to see why")
    reports = [json.loads(output) for output in outputs]
    span_s = max(r["end_s"] for r in reports) - min(r["start_s"] for r in reports)
    return {
        "fps": sum(r["num_frames"] for r in reports) / span_s,
        "process_fps": sum(r["num_frames"] for r in reports) / process_s,
        "cpu_s": sum(r["cpu_s"] for r in reports),
        "cpu_s_per_frame": sum(r["cpu_s"] for r in reports) / sum(r["num_frames"] for r in reports),
        "peak_rss_mib": max(r["peak_rss_mib"] for r in reports),
    }


class Bench:
    """Sources and scratch files in one temporary folder, and the three methods."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._serial = count()
        self._sources: dict[tuple[Any, ...], Path] = {}

    def source(self, case: Case) -> Path:
        """The synthetic source of that size, length and codec, made once."""
        frames = case.width, case.height, case.num_source_frames
        stream = {"codec": case.codec, "options": case.options}
        key = (*frames, *stream.values(), case.num_videos)
        if key not in self._sources:
            path = self.folder / f"source_{len(self._sources)}{case.suffix}"
            write_source(path, *frames, **stream)
            if case.num_videos > 1:
                path = self._folder_of(path, case.num_videos)
            self._sources[key] = path
        return self._sources[key]

    def _folder_of(self, video: Path, count: int) -> Path:
        folder = video.with_suffix("")
        folder.mkdir()
        for k in range(count):
            shutil.copyfile(video, folder / f"{k:04d}{video.suffix}")
        return folder

    def libav(self, method: str, case: Case) -> list[str]:
        """Command of `bare` or `ours` on the case's source."""
        source = self.source(case)
        out = self.folder / f"{method}_{next(self._serial)}.mp4"
        loop = [sys.executable, "-m", "benchmarks.ingest_loops", method]
        return [*loop, str(source), str(out), str(case.short_side_px)]

    def lerobot(self, case: Case) -> list[str]:
        """Command of LeRobot's writer on the same pictures, already decoded and scaled for it."""
        frames = self.folder / f"{case.name}.npy"
        if not frames.exists():
            self._save_frames(case, frames)
        out = self.folder / f"lerobot_{next(self._serial)}"
        writer = str(ROOT / "benchmarks" / "lerobot_writer.py")
        return [str(PEER_PYTHON), writer, str(frames), str(out)]

    def _save_frames(self, case: Case, path: Path) -> None:
        written = self.folder / f"frames_{case.name}.mp4"
        command = self.libav("bare", replace(case, num_source_frames=3 * case.num_lerobot_frames))
        command[-2] = str(written)
        run_together([command])
        with av.open(str(written)) as container:
            np.save(
                path, np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
            )


def measure(bench: Bench, case: Case, num_workers: int, num_rounds: int) -> dict[str, float]:
    """Medians of pictures a second for each method, and their ratios."""
    methods = {"bare": lambda: bench.libav("bare", case), "ours": lambda: bench.libav("ours", case)}
    if PEER_PYTHON.exists() and case.num_lerobot_frames:
        methods["lerobot"] = lambda: bench.lerobot(case)
    for command in methods.values():
        command()  # sources and pictures are made before anything is timed
    rounds: dict[str, list[float]] = {name: [] for name in methods}
    cpu_s: dict[str, list[float]] = {name: [] for name in methods}
    process: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(num_rounds):
        for name, command in methods.items():
            reported = run_together([command() for _ in range(num_workers)])
            rounds[name].append(reported["fps"])
            cpu_s[name].append(reported["cpu_s_per_frame"])
            process[name].append(reported["process_fps"])
    fps = {name: median(values) for name, values in rounds.items()}
    figures = {f"{name}_fps": round(value, 1) for name, value in fps.items()}
    figures["ours_over_bare_time_ratio"] = round(_median_ratio(rounds["bare"], rounds["ours"]), 3)
    figures["ours_over_bare_cpu_ratio"] = round(_median_ratio(cpu_s["ours"], cpu_s["bare"]), 3)
    if "lerobot" in fps:
        figures["ours_over_lerobot_speed_ratio"] = round(fps["ours"] / fps["lerobot"], 2)
        with_start = median(process["ours"]) / median(process["lerobot"])
        figures["ours_over_lerobot_process_speed_ratio"] = round(with_start, 2)
        cpu_ratio = _median_ratio(cpu_s["lerobot"], cpu_s["ours"])
        figures["lerobot_over_ours_cpu_ratio"] = round(cpu_ratio, 2)
    return figures


def _median_ratio(over: list[float], under: list[float]) -> float:
    """Of the rounds, each of which has both."""
    return median(one / other for one, other in zip(over, under, strict=True))


def measure_memory(bench: Bench) -> dict[str, float]:
    """Peak memory of one worker for a short and a ten times longer 1080p episode."""
    peaks = []
    for num_frames in MEMORY_FRAMES:
        case = Case(
            name="memory",
            width=1920,
            height=1080,
            short_side_px=256,
            num_source_frames=num_frames,
        )
        peaks.append(run_together([bench.libav("ours", case)])["peak_rss_mib"])
    return {
        "ours_peak_rss_mib_short_1080p": round(peaks[0], 1),
        "ours_peak_rss_mib_long_1080p": round(peaks[1], 1),
        "ours_peak_rss_long_over_short_ratio": round(peaks[1] / peaks[0], 3),
    }


def quick(case: Case) -> Case:
    """A few seconds instead of minutes: enough to see that everything runs, not to quote."""
    return replace(
        case,
        num_source_frames=max(60, case.num_source_frames // 6),
        num_lerobot_frames=case.num_lerobot_frames and max(10, case.num_lerobot_frames // 10),
    )


def arguments(about: str) -> argparse.Namespace:
    """`json` and `quick`. `about`: a module's docstring, whose first line is the help."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="one short round, not to be quoted")
    return parser.parse_args()


def main() -> None:
    """Measure everything and print one object."""
    args = arguments(__doc__)
    num_rounds = 1 if args.quick else 3
    measured_on = result.machine()
    figures: dict[str, Any] = {"rounds": num_rounds, "not_run": []}
    if not PEER_PYTHON.exists():
        figures["not_run"].append("lerobot: no .peer environment; `eicorpus peer` builds it")
    with tempfile.TemporaryDirectory(prefix="eicorpus-bench-") as folder:
        bench = Bench(Path(folder))
        for case in map(quick, CASES) if args.quick else CASES:
            for suffix, num_workers in (("", 1), ("_all_cores", measured_on["cores"])):
                values = measure(bench, case, num_workers, num_rounds)
                figures |= {f"{key}_{case.name}{suffix}": value for key, value in values.items()}
        figures |= measure_memory(bench)
    if args.json:
        print(result.as_json("ingest", measured_on, figures))
    else:
        print("\n".join(f"{key:48} {value}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
