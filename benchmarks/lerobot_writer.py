"""Write one episode with LeRobot 0.3.3's own writer and say how long it took. Run by `.peer/bin/python`, not by ours.

    .peer/bin/python benchmarks/lerobot_writer.py FRAMES.npy OUT_DIR

FRAMES.npy holds [T, H, W, 3] uint8 pictures at 10 Hz. Prints "ready", waits for a line on standard input, then prints one
JSON object: start_s and end_s (monotonic clock of the machine), cpu_s, num_frames, peak_rss_mib. Everything is LeRobot's default:
pictures as PNG files first, then libsvtav1, g = 2, crf = 30, with as many encoder threads as it likes.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

SCRATCH = tempfile.TemporaryDirectory(prefix="eicorpus-lerobot-")
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HOME": SCRATCH.name,
    "SVT_LOG": "1",
}
sys.path.insert(0, str(Path(__file__).parent.parent / "ingest" / "verify" / "lerobot_reader"))

import numpy as np  # noqa: E402
import shim  # noqa: E402

shim.install()

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402

KEY, RATE_HZ, NUM_JOINTS = "observation.images.cam", 10, 7


def write(frames: np.ndarray, out: Path) -> None:
    """One episode: pictures, a state and an action vector, as a robot would record it."""
    vector = {"dtype": "float32", "shape": (NUM_JOINTS,), "names": None}
    features = {
        KEY: {
            "dtype": "video",
            "shape": frames.shape[1:],
            "names": ["height", "width", "channels"],
        },
        "observation.state": vector,
        "action": vector,
    }
    dataset = LeRobotDataset.create("bench/bench", RATE_HZ, features, root=out)
    zeros = np.zeros(NUM_JOINTS, np.float32)
    for frame in frames:
        row = {KEY: frame, "observation.state": zeros, "action": zeros}
        dataset.add_frame(row, task="bench")
    dataset.save_episode()


def peak_rss_mib() -> float:
    """High-water mark of this program's memory."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Load, wait for the start signal, write, report."""
    frames = np.load(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    start_s, start_cpu_s = time.monotonic(), time.process_time()
    with contextlib.redirect_stdout(sys.stderr):
        write(frames, Path(sys.argv[2]))
    report = {
        "start_s": start_s,
        "end_s": time.monotonic(),
        "cpu_s": time.process_time() - start_cpu_s,
        "num_frames": len(frames),
        "peak_rss_mib": peak_rss_mib(),
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
