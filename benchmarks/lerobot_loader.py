"""Read windows of a committed data set with LeRobot 0.3.3's own data set class. Run by `.peer/bin/python`, not by ours.

    .peer/bin/python benchmarks/lerobot_loader.py DATASET_DIR NUM_WORKERS BATCH_SIZE SECONDS

The window is that of `training/recipe.py`'s defaults: pictures at -0.3, 0 and +0.6 s, 4 history rows and a chunk of 16 rows of `action`, shuffled.
Pictures come decoded from the video (its default backend here, PyAV): the encoder would have to run on them in every step. Of a data set without videos
(`benchmarks/lerobot_latents.py`) the latents are read as a feature instead.
Prints one JSON object: samples, seconds, samples_per_s, cpu_ms_per_sample.
"""

from __future__ import annotations

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
}
sys.path.insert(0, str(Path(__file__).parent.parent / "ingest" / "verify" / "lerobot_reader"))

import shim  # noqa: E402
import torch  # noqa: E402

shim.install()

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402

RATE_HZ = 10


def dataset_of(root: Path) -> LeRobotDataset:
    info = json.loads((root / "meta" / "info.json").read_text())
    videos = [k for k, v in info["features"].items() if v["dtype"] == "video"]
    pictures = videos[0] if videos else "observation.latents"
    offsets = {
        pictures: [-3 / RATE_HZ, 0.0, 6 / RATE_HZ],
        "action": [k / RATE_HZ for k in range(-4, 16)],
    }
    return LeRobotDataset(
        "bench/bench", root=root, delta_timestamps=offsets, video_backend="pyav", tolerance_s=1e-3
    )


def cpu_s() -> float:
    """Of this process and its workers, which are its children."""
    me = Path("/proc/self")
    pids = [p for task in me.glob("task/*/children") for p in task.read_text().split()]
    stats = [
        Path("/proc", p, "stat").read_text().rpartition(")")[2].split() for p in ("self", *pids)
    ]
    return sum(int(s[11]) + int(s[12]) for s in stats) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    root, num_workers, batch_size, budget_s = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(
        dataset_of(root),
        batch_size=batch_size,
        shuffle=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        drop_last=True,
    )
    batches = iter(loader)
    for _ in range(max(1, num_workers)):  # workers have started, files are in the page cache
        next(batches)
    num_samples, started, cpu_before = 0, time.monotonic(), cpu_s()
    while time.monotonic() - started < budget_s:
        try:
            batch = next(batches)
        except StopIteration:
            batches = iter(loader)
            continue
        num_samples += len(batch["action"])
    elapsed_s = time.monotonic() - started
    report = {
        "samples": num_samples,
        "seconds": round(elapsed_s, 2),
        "samples_per_s": round(num_samples / elapsed_s, 2),
        "cpu_ms_per_sample": round(1000 * (cpu_s() - cpu_before) / num_samples, 3),
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
