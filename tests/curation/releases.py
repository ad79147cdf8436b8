"""One demonstration in several releases, and demonstrations that are no copies of it however much they look like some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout, open_corpus, writer_lock
from ingest.corpus.snapshot import Snapshot
from ingest.curation.duplicates.signatures import KINDS
from ingest.curation.measurements.registry import select_measures
from ingest.curation.measurements.runner import measure_corpus, missing
from ingest.executors.inline import InlineExecutor
from ingest.storage.local import LocalStorage
from jobs.demo.raw import lerobot, oxe
from jobs.demo.raw.scene import Scene
from tests.faults.runs import run

BASE_FOCAL_PX = 300.0 / 320.0  # per pixel of width, so that every size shows the same picture
MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Demonstration(Scene):
    """Another reach before the same camera and boxes: three slow waves per axis, drawn from the seed."""

    def T_base_hand(self, t_s: float, side: str = "left") -> np.ndarray:
        rng = np.random.default_rng([self.seed, 17])
        rate_rad_s, phase_rad = rng.uniform(0.4, 1.6, (3, 3)), rng.uniform(0, 2 * np.pi, (3, 3))
        waves = np.sin(rate_rad_s * t_s + phase_rad).sum(axis=1)
        T = super().T_base_hand(t_s, side)
        T[:3, 3] = np.array([0.45, 0.0, 0.28]) + np.array([0.04, 0.06, 0.03]) * waves
        return T


@dataclass(frozen=True)
class Reversed(Demonstration):
    """The film run backwards."""

    def T_base_hand(self, t_s: float, side: str = "left") -> np.ndarray:
        return super().T_base_hand(self.duration_s - t_s, side)

    def gripper_opening(self, t_s: float) -> float:
        return super().gripper_opening(self.duration_s - t_s)


@dataclass(frozen=True)
class Mirrored(Demonstration):
    """Left and right exchanged, in space and in the picture."""

    def T_base_hand(self, t_s: float, side: str = "left") -> np.ndarray:
        return MIRROR @ super().T_base_hand(t_s, side) @ MIRROR

    def picture(self, t_s: float) -> np.ndarray:
        kind = Demonstration(**{f: getattr(self, f) for f in self.__dataclass_fields__})
        return np.ascontiguousarray(kind.picture(t_s)[:, ::-1])


def scene(seed: int, kind: type[Scene] = Demonstration) -> Scene:
    """A demonstration of 5 to 7 s."""
    return kind(seed=seed, duration_s=5.0 + 0.5 * (seed % 5))


def sized(given: Scene, width: int, height: int) -> Scene:
    """The same demonstration in pictures of another size (and, squeezed or not, of the same view)."""
    return replace(given, width=width, height=height, focal_px=BASE_FOCAL_PX * width)


def as_oxe(root: Path, scenes: Sequence[Scene]) -> Path:
    """RLDS, 5 Hz, 256x192, two cameras of which the second hangs upside down, and a slot without pictures."""
    spec = dict(oxe.BRIDGE)
    for k in range(3):
        spec["observation", f"image_{k}"] = ("image", (192, 256, 3), "uint8", "jpeg")
    episodes = []
    for given in scenes:
        shown = sized(given, 256, 192)
        num_steps = round(given.duration_s * oxe.RATE_HZ)
        episode = oxe.bridge_episode(shown, num_steps=num_steps)
        episode["observation", "image_1"] = [
            oxe.jpeg(shown.picture(k / oxe.RATE_HZ)[::-1, ::-1]) for k in range(num_steps)
        ]
        episodes.append(episode)
    oxe.write_set(root / oxe.NAME / oxe.VERSION, spec, episodes)
    return root


def as_lerobot(root: Path, scenes: Sequence[Scene], width: int, height: int, fps: int) -> Path:
    """LeRobot v2.1, H.264 throughout, one camera of another name, poses of another frame at the hand."""
    lerobot.write(
        root,
        scenes=[sized(s, width, height) for s in scenes],
        width=width,
        height=height,
        fps=fps,
        gop=30,
    )
    return root


def measured(out: Path) -> tuple[CorpusLayout, Snapshot]:
    """The signatures of a corpus."""
    corpus = open_corpus(out)
    with writer_lock(corpus):
        before = snapshot.load(out)
        _, current = measure_corpus(
            corpus,
            before,
            missing(corpus, before, select_measures([m.name for m in KINDS.values()])),
            InlineExecutor(LocalStorage()),
            run_id="measure",
            disk=LocalStorage(),
        )
    return corpus, current


def ingested(out: Path, raw: Path, source: str, run_id: str) -> None:
    tally = run(raw, out, source=source, run_id=run_id)
    assert tally.quarantined == tally.failed == 0, tally
