"""Read LeRobot v2.1 datasets with LeRobot 0.3.3 itself and compare every episode with what the files hold.

    .peer/bin/python ingest/verify/lerobot_reader/check.py DATASET_DIR [DATASET_DIR ...]

Run it with the interpreter that `eicorpus peer` built. It needs nothing of the project. It prints ONE JSON object a line,
one line for each folder in the order given, and nothing else on standard output:

    {"dataset", "ok", "problems": [...], "episodes", "frames", "values_compared", "frames_compared", "max_abs_diff",
     "reader"}

Exit status: 0 all ok, 1 some folder has problems, 2 not a dataset folder. `ok` means that LeRobot opened the set offline
and that, for EVERY episode, the rows, task texts and times it returns equal the Parquet and JSON Lines files, its first,
middle and last frame of every camera equal a decode from the start of the video that never seeks, the video has exactly
one frame a row at the row's time, and windows (`delta_timestamps`) hold the right neighbours and padding.

What is independent here: all of LeRobot's reading, indexing and seeking. What is not: its "pyav" backend and this file
both decode through PyAV, so a decoder's own mistake would not show.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SCRATCH = tempfile.TemporaryDirectory(prefix="eicorpus-peer-")
# Before the imports below: they read these once. Offline, and a cache of its own, so that nothing stale is read.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HOME": SCRATCH.name,
}

import shim  # noqa: E402

shim.install()

import av  # noqa: E402
import av.error  # noqa: E402
import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import torch  # noqa: E402
from datasets.exceptions import DatasetsError  # noqa: E402
from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402

# What a third-party reader may raise on a bad data set; each becomes a problem, with its text.
READER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    DatasetsError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    av.error.FFmpegError,
    pa.ArrowException,
)
WINDOW = (-1, 0, 2)  # rows around the row asked for
TOLERANCE_S = 1e-4  # LeRobot's own default
# Few: at 3 of 8, decoding for the loader was half of the whole check's time.
BATCHES, BATCH_SIZE = 2, 4


@dataclass
class Report:
    """What one folder gave. Printed as JSON."""

    dataset: str
    ok: bool = False
    problems: list[str] = field(default_factory=list)
    episodes: int = 0
    frames: int = 0
    values_compared: int = 0
    frames_compared: int = 0
    max_abs_diff: int = 0
    reader: str = "lerobot 0.3.3"

    def expect(self, actual: object, expected: object, what: str) -> None:
        """Note a problem unless `actual` equals `expected`."""
        if actual != expected:
            self.problems.append(
                f"{what}: LeRobot returns {actual!r}, the files contain {expected!r}"
            )

    @contextmanager
    def guard(self, what: str) -> Iterator[None]:
        """Note what the reader raises as a problem of `what`, and go on with the next."""
        try:
            yield
        except READER_ERRORS as error:
            self.problems.append(f"{what}: {type(error).__name__}: {str(error)[:400]}")


@dataclass(frozen=True)
class Files:
    """The dataset as its files say it is, read without LeRobot."""

    root: Path
    info: dict[str, Any]
    tasks: dict[int, str]
    episodes: list[dict[str, Any]]

    def rows(self, episode: int) -> pa.Table:
        return pq.read_table(self._path("data_path", episode), partitioning=None)

    def video(self, episode: int, key: str) -> Path:
        return self._path("video_path", episode, video_key=key)

    def keys(self, *, video: bool) -> list[str]:
        """Feature names, of cameras or of columns (embedded images are neither: the corpus has none)."""
        kinds = {name: feature["dtype"] for name, feature in self.info["features"].items()}
        return [
            name for name, kind in kinds.items() if (kind == "video") == video and kind != "image"
        ]

    def _path(self, key: str, episode: int, **more: str) -> Path:
        chunk = episode // self.info["chunks_size"]
        template: str = self.info[key]
        name = template.format(episode_chunk=chunk, episode_index=episode, **more)
        return self.root / name


def read_files(root: Path) -> Files:
    """Read `meta/`.

    Raises:
        OSError, ValueError, KeyError: there is no such folder, or it does not hold a v2.1 set.
    """
    return Files(
        root=root,
        info=json.loads((root / "meta" / "info.json").read_text()),
        tasks={line["task_index"]: line["task"] for line in _lines(root / "meta" / "tasks.jsonl")},
        episodes=_lines(root / "meta" / "episodes.jsonl"),
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def check(root: Path) -> Report:
    """Everything, on one folder. Problems are reported, not raised."""
    report = Report(dataset=str(root))
    with report.guard("opening"):
        files = read_files(root)
        dataset = LeRobotDataset(repo_id=f"local/{root.name}", root=root, video_backend="pyav")
        check_totals(dataset, files, report)
        check_episodes(dataset, files, report)
        check_windows(files, report)
        check_loader(dataset, report)
    report.ok = not report.problems
    return report


def check_totals(dataset: LeRobotDataset, files: Files, report: Report) -> None:
    """LeRobot believes info.json. Here it must agree with the rows that are really there."""
    lengths = [episode["length"] for episode in files.episodes]
    indices = list(range(len(files.episodes)))
    report.expect([e["episode_index"] for e in files.episodes], indices, "episodes.jsonl order")
    report.expect(dataset.num_episodes, len(files.episodes), "number of episodes")
    report.expect(dataset.meta.total_frames, sum(lengths), "info.json total_frames")
    report.expect(len(dataset), sum(lengths), "number of rows")
    report.expect(dataset.meta.total_tasks, len(files.tasks), "info.json total_tasks")
    report.expect(dataset.fps, files.info["fps"], "fps")
    report.expect(sorted(dataset.meta.episodes_stats), indices, "episodes_stats.jsonl")
    if not indices:
        report.problems.append("the dataset has no episodes")


def check_episodes(dataset: LeRobotDataset, files: Files, report: Report) -> None:
    """Every episode: values, texts, times and pictures."""
    start = 0
    for episode in files.episodes:
        number, length = episode["episode_index"], episode["length"]
        with report.guard(f"episode {number}"):
            table = files.rows(number)
            report.expect(table.num_rows, length, f"episode {number} rows")
            check_columns(dataset, table, start, files, report, f"episode {number}")
            check_rows(dataset, table, start, files, episode, report)
            report.episodes += 1
            report.frames += length
        start += length


def check_columns(
    dataset: LeRobotDataset, table: pa.Table, start: int, files: Files, report: Report, where: str
) -> None:
    """Every value of every column, as LeRobot returns it and as Parquet holds it. Bit for bit (NaN equals NaN)."""
    seen = dataset.hf_dataset[start : start + table.num_rows]
    for name in files.keys(video=False):
        expected = np.asarray(table[name].to_pylist())
        values = seen[name]
        actual = np.asarray(torch.stack(values) if torch.is_tensor(values[0]) else values)
        if actual.shape != expected.shape:
            report.expect(actual.shape, expected.shape, f"{where} {name} shape")
        elif not np.array_equal(actual, expected, equal_nan=expected.dtype.kind == "f"):
            report.problems.append(f"{where} {name}: values differ from the Parquet file")
        report.values_compared += int(expected.size)


def check_rows(
    dataset: LeRobotDataset,
    table: pa.Table,
    start: int,
    files: Files,
    episode: dict[str, Any],
    report: Report,
) -> None:
    """The first, middle and last row as a trainer gets them, and the clock of all rows."""
    number, length = episode["episode_index"], episode["length"]
    fps = files.info["fps"]
    where = f"episode {number}"
    report.expect(table["index"].to_pylist(), list(range(start, start + length)), f"{where} index")
    report.expect(table["frame_index"].to_pylist(), list(range(length)), f"{where} frame_index")
    times_s = np.asarray(table["timestamp"])
    if np.abs(times_s - np.arange(length) / fps).max() > TOLERANCE_S:
        report.problems.append(f"{where}: timestamps are not frame_index / fps")
    picks = sorted({0, length // 2, length - 1})
    items = {row: dataset[start + row] for row in picks}
    for row, item in items.items():
        task = files.tasks[table["task_index"][row].as_py()]
        report.expect(item["task"], task, f"{where} row {row} task")
        if task not in episode["tasks"]:
            report.problems.append(f"{where} row {row}: task {task!r} is not in episodes.jsonl")
    for key in files.keys(video=True):
        check_video(
            files.video(number, key), {r: i[key] for r, i in items.items()}, times_s, report
        )


def check_video(
    path: Path, seen: dict[int, torch.Tensor], times_s: np.ndarray[Any, Any], report: Report
) -> None:
    """Compare LeRobot's frames with a decode from the start, and count frames and their times.

    Args:
        path: the episode's MP4.
        seen: row -> float [3, H, W] in 0..1 as LeRobot returned it.
        times_s: [T] the rows' timestamps, seconds.
    """
    where = f"{path.parent.name}/{path.name}"
    count = 0
    for count, (time_s, frame) in enumerate(frames_in_order(path), start=1):
        row = count - 1
        if row < len(times_s) and abs(time_s - times_s[row]) > TOLERANCE_S:
            report.problems.append(
                f"{where}: frame {row} is at {time_s} s, its row at {times_s[row]} s"
            )
        if row in seen:
            actual = (seen[row] * 255).round().numpy().transpose(1, 2, 0).astype(np.int16)
            compare_frames(actual, frame.to_ndarray(format="rgb24"), f"{where} frame {row}", report)
    if count != len(times_s):
        report.problems.append(f"{where}: {count} frames in the video for {len(times_s)} rows")


def frames_in_order(path: Path) -> Iterator[tuple[float, av.VideoFrame]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            assert frame.time is not None  # every frame of an MP4 has one
            yield frame.time, frame


def compare_frames(
    actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], where: str, report: Report
) -> None:
    if actual.shape != expected.shape:
        report.expect(actual.shape, expected.shape, f"{where} shape")
        return
    worst = int(np.abs(actual - expected.astype(np.int16)).max())
    report.frames_compared += 1
    report.max_abs_diff = max(report.max_abs_diff, worst)
    if worst > 1:  # 1: the float round trip of LeRobot's 0..1 pictures
        report.problems.append(f"{where}: differs from sequential decoding by {worst} of 255")


def check_windows(files: Files, report: Report) -> None:
    """`delta_timestamps` around the first and last row of every episode, cameras included."""
    fps = files.info["fps"]
    columns = [k for k in ("observation.state", "action") if k in files.info["features"]]
    keys = [*columns, *files.keys(video=True)]
    windowed = LeRobotDataset(
        repo_id=f"local/{files.root.name}",
        root=files.root,
        video_backend="pyav",
        delta_timestamps={key: [step / fps for step in WINDOW] for key in keys},
    )
    start = 0
    for episode in files.episodes:
        number, length = episode["episode_index"], episode["length"]
        with report.guard(f"episode {number} window"):
            table = files.rows(number)
            for row in sorted({0, length - 1}):
                item = windowed[start + row]
                check_window(item, table, row, keys, report, f"episode {number} row {row} window")
        start += length


def check_window(
    item: dict[str, Any], table: pa.Table, row: int, keys: list[str], report: Report, where: str
) -> None:
    """One window: clamped rows, padding flags, and as many pictures as rows."""
    rows = [row + step for step in WINDOW]
    clamped = [min(max(r, 0), table.num_rows - 1) for r in rows]
    padding = [r != c for r, c in zip(rows, clamped, strict=True)]
    for key in keys:
        report.expect(item[f"{key}_is_pad"].tolist(), padding, f"{where} {key}_is_pad")
        if key not in table.column_names:
            report.expect(item[key].shape[0], len(WINDOW), f"{where} {key} pictures")
        elif not np.array_equal(
            item[key].numpy(), np.asarray(table[key].take(clamped).to_pylist(), np.float32)
        ):
            report.problems.append(f"{where} {key}: differs from rows {clamped}")


def check_loader(dataset: LeRobotDataset, report: Report) -> None:
    """A few shuffled batches through PyTorch's own loader, as a trainer would."""
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=BATCH_SIZE,
        shuffle=True,
        generator=torch.Generator().manual_seed(0),
    )
    with report.guard("DataLoader"):
        for number, batch in enumerate(loader):
            if number == BATCHES:
                break
            expected = min(BATCH_SIZE, len(dataset) - number * BATCH_SIZE)
            report.expect(len(batch["task"]), expected, f"DataLoader batch {number}")


@contextmanager
def quiet_stdout() -> Iterator[Callable[[str], None]]:
    """Send what libraries print to standard error. Yield a writer to the real standard output."""
    real = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(real, "w") as out:
        yield lambda line: print(line, file=out, flush=True)


def main(arguments: list[str]) -> int:
    """Check every folder named. See the module's docstring."""
    roots = [Path(argument) for argument in arguments]
    strangers = [str(root) for root in roots if not (root / "meta" / "info.json").is_file()]
    if not roots or strangers:
        sys.stderr.write(f"usage: check.py DATASET_DIR ...; no meta/info.json in: {strangers}\n")
        return 2
    ok = True
    with quiet_stdout() as write:
        for root in roots:
            report = check(root.resolve())
            write(json.dumps(asdict(report)))
            ok = ok and report.ok
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
