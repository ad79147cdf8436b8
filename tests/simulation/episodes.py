"""Episodes of ten timesteps that differ, and what a real worker leaves of each: computed once in a process."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np

from adapters.base import SourceInfo
from benchmarks.overhead import TIMESTEPS, Tiny
from ingest.corpus.staging import STAGED
from ingest.pipeline.process import Work, process
from ingest.recipe import Recipe
from ingest.storage.local import LocalStorage
from schemas.episode import Episode, EpisodeRef, Stream, gripper_channel
from schemas.outcome import Outcome
from schemas.rate import instants_ns

ORDER = "order"
ADAPTER = "tests.simulation.episodes:Varied"


class Varied(Tiny):
    """No two have the same rows, so that bytes under a wrong name are noticed. Those of the file `ORDER`, in its order."""

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        for index in map(int, (root / ORDER).read_text().split()):
            yield EpisodeRef(
                source="tiny", dataset="tiny", episode_id=f"{index:07d}", root=str(root)
            )

    def load(self, ref: EpisodeRef) -> Episode:
        values = np.linspace(0, 1 / (1 + int(ref.episode_id)), TIMESTEPS)
        stream = Stream(
            spec=gripper_channel("left.gripper_opening", binary=False),
            t_ns=instants_ns(TIMESTEPS, Fraction(10)),
            values=values[:, None],
        )
        return replace(super().load(ref), streams=(stream,))


@cache
def _done(episode_id: str) -> tuple[Outcome, bytes]:
    folder = Path(tempfile.mkdtemp(prefix="eicorpus-template-"))
    try:
        ref = EpisodeRef(source="tiny", dataset="tiny", episode_id=episode_id, root=str(folder))
        staging = folder / "staging"
        work = Work(ref=ref, adapter=ADAPTER, recipe=Recipe(), staging=str(staging))
        return process(work, LocalStorage()), (staging / STAGED).read_bytes()
    finally:
        shutil.rmtree(folder)


def staged(work: Work) -> Outcome:
    """Leave in the staging folder of a work what a worker does."""
    outcome, rows = _done(work.ref.episode_id)
    folder = Path(work.staging)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / STAGED).write_bytes(rows)
    return outcome
