"""A source whose episodes misbehave on demand: `episodes.json` is {"<id>": "<kind>"}.

Kinds: good; quarantine (a SourceError); short (one timestep); segfault (a real SIGSEGV); kill (SIGKILL on itself); hang; oom
(allocates until the limit stops it); deep (reads DEEP/<id>); crash (a bug of ours); flaky (a hiccup of storage, once); slow (half a second); gated (works until the test opens the gate).
Faithful where it matters: `load` runs in the worker, as every adapter's does.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from adapters.base import SourceInfo
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
from schemas.errors import Code, SourceError, TransientError
from schemas.rate import instants_ns

DEEP = "a/b/c/d/e"  # deeper than the folders that a plan samples
GATE = "gate"  # the file at the raw root that lets gated episodes go on
WAITING = "waiting"  # the file there that says that one has come to the gate


def write_toy(root: Path, kinds: Mapping[str, str]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "episodes.json").write_text(json.dumps(kinds))
    return root


class Toy:
    name: ClassVar[str] = "toy"
    version: ClassVar[int] = 1
    container: ClassVar[str] = "json"
    about: ClassVar[str] = "episodes that misbehave on demand"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        return SourceInfo(
            source="toy", dataset="toy", licence=Licence(name="CC0", allows_commercial=True)
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        for name, kind in json.loads((root / "episodes.json").read_text()).items():
            yield EpisodeRef(
                source="toy",
                dataset="toy",
                episode_id=name,
                root=str(root),
                locator=(("kind", kind),),
                duration_hint_s=1.0,
            )

    def load(self, ref: EpisodeRef) -> Episode:
        misbehave(ref.at("kind"), ref)
        seed = sum(map(ord, ref.episode_id))
        count = 1 if ref.at("kind") == "short" else 8 + seed % 5
        t_ns = instants_ns(count, Fraction(10))
        T = np.tile(np.eye(4), (count, 1, 1))
        T[:, :3, 3] = np.random.default_rng(seed).normal(size=(count, 3))
        images = tuple(
            cv2.imencode(".png", np.full((32, 48, 3), (seed * 7 + 5 * k) % 256, np.uint8))[
                1
            ].tobytes()
            for k in range(count)
        )
        return Episode(
            ref=ref,
            embodiment="umi",
            rate_hz=Fraction(10),
            streams=(
                Stream(spec=pose_channel("left.T_base_eef"), t_ns=t_ns, values=T),
                Stream(
                    spec=gripper_channel("left.gripper_opening", binary=False),
                    t_ns=t_ns,
                    values=np.linspace(0, 1, count)[:, None],
                ),
            ),
            cameras=(Camera(name="front", frames=EncodedImages(images=images), t_ns=t_ns),),
            instructions=(Instruction(text=f"do {ref.episode_id}"),),
        )


def misbehave(kind: str, ref: EpisodeRef) -> None:
    """Everything that can go wrong inside a worker."""
    if kind == "flaky":
        _fail_once(Path(ref.root) / f"{ref.episode_id}.tried")
    elif kind == "gated":
        _wait_for(Path(ref.root) / GATE)
    elif kind == "deep":
        _read(Path(ref.root) / DEEP / ref.episode_id)
    elif kind in _MISCHIEF:
        _MISCHIEF[kind]()


def _quarantine() -> None:
    raise SourceError(Code.TRUNCATED, "half a file; expected a whole one", where="toy")


def _crash() -> None:
    raise ZeroDivisionError("a bug")


def _hoard() -> None:
    hoard = [
        np.empty(16 * 1024 * 1024) for _ in range(1024)
    ]  # 128 MiB each; the limit counts what is mapped
    assert hoard


def _wait_for(gate: Path) -> None:
    gate.with_name(WAITING).touch()
    while not gate.exists():
        time.sleep(0.02)


def _read(path: Path) -> None:
    if not path.is_file():
        raise SourceError(Code.MISSING_FILE, "not there; expected a file", where=str(path))


def _fail_once(marker: Path) -> None:
    if not marker.exists():
        marker.touch()
        raise TransientError("connection reset; expected bytes")


_MISCHIEF: dict[str, Callable[[], object]] = {
    "quarantine": _quarantine,
    "segfault": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda: time.sleep(3600),
    "oom": _hoard,
    "crash": _crash,
    "slow": lambda: time.sleep(0.5),
}
