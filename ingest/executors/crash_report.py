"""How a worker process ended: what it left in its file in the corpus, and how often the kernel of its node has killed for memory.

Ray says the same of every process that ends without an answer. A process therefore writes the task, its node and the kernel's counter into a
file before the work. faulthandler adds the signal or the time limit when the process ends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ingest.executors.node_proof import SharedView
from ingest.storage.process_folder import KEPT
from ingest.storage.process_folder import PREFIX as PROCESS

WATCH = KEPT  # of the file of a worker process
TIMED_OUT = "Timeout ("  # how faulthandler begins
FATAL = "Fatal Python error: "
REPORT_BYTES = 1 << 16  # of its head, which is looked at
SIGNALS = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Illegal instruction": "SIGILL",
    "Floating-point exception": "SIGFPE",
    "Floating point exception": "SIGFPE",
}
# Of the kernel, and of the memory cgroup of this process in version 2 and 1: a container may see one of them only.
OOM_COUNTERS = ("proc/vmstat", "sys/fs/cgroup/memory.events", "sys/fs/cgroup/memory/memory.oom_control")  # fmt: skip


COUNTS = re.compile(rf"[0-9]{{1,20}}(,[0-9]{{1,20}}){{{len(OOM_COUNTERS) - 1}}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashReport:
    """What the process of a task wrote before and when it ended."""

    node_id: str
    oom_kills: tuple[int, ...]  # of its node before the work
    text: str = ""  # of faulthandler

    @property
    def is_timed_out(self) -> bool:
        return TIMED_OUT in self.text

    @property
    def crash(self) -> str:
        """The signal and the place in the code; "" for a process that was killed or has ended itself."""
        match = re.search(rf"{FATAL}([^\n]+)", self.text)
        if match is None:
            return ""
        name = SIGNALS.get(match[1].strip(), match[1].strip())
        frame = re.search(r'File "([^"]+)", line (\d+) in (\S+)', self.text)
        return f"{name} at {Path(frame[1]).name}:{frame[2]} in {frame[3]}" if frame else name


def heading(task_id: str, node_id: str) -> str:
    """What a process writes before the work of a task."""
    return f"{task_id} {node_id} {','.join(map(str, oom_kills()))}\n"


def report_of(view: SharedView | None, task_id: str) -> CrashReport | None:
    """None when nothing was shared, or the task has not begun; with a bucket also when it was on another machine."""
    if view is None:
        return None
    folders = f"{PROCESS}*/" if view.bucket else ""
    for path in Path(view.folder).glob(f"{folders}{WATCH}*"):
        with path.open("rb") as file:
            head, _, rest = file.read(REPORT_BYTES).decode(errors="replace").partition("\n")
        words = head.split()
        if len(words) == 3 and words[0] == task_id and COUNTS.fullmatch(words[2]):
            kills = tuple(map(int, words[2].split(",")))
            return CrashReport(node_id=words[1], oom_kills=kills, text=rest)
    return None


def oom_kills(root: Path = Path("/")) -> tuple[int, ...]:
    """How often the kernel has killed a process of this machine or container because memory is full, by each of `OOM_COUNTERS`.

    They count the same kills, so their sum says nothing.
    """
    return tuple(_counted(root / name) for name in OOM_COUNTERS)


def is_more(now: tuple[int, ...], before: tuple[int, ...]) -> bool:
    """Whether the kernel has killed between two `oom_kills`."""
    return any(a > b for a, b in zip(now, before, strict=True))


def plus_one(before: tuple[int, ...], now: tuple[int, ...]) -> tuple[int, ...]:
    """`before` with one kill more, in each counter that has seen it."""
    return tuple(min(a, b + 1) for a, b in zip(now, before, strict=True))


def _counted(path: Path) -> int:
    try:
        match = re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) if match else 0
