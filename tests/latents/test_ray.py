"""Ray: pictures from tasks, tokens from actors; the same bytes as without, and an actor that dies fails one file."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.executors.ray_actors import RayActors
from ingest.latents.backends import RayBackend
from ingest.latents.plan import todo_of
from ingest.latents.run import encode_corpus
from ingest.models.encoder import ImageEncoder
from ingest.storage.local import LocalStorage
from schemas.errors import ConfigError
from schemas.outcome import WorkerFailure
from tests.faults.runs import LIMITS
from tests.latents.corpora import TINY, encode, videos_of
from tests.latents.test_run import files_of

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def pool() -> RayActors:
    return RayActors(LIMITS, address=None, workers=2, gpus_each=0.5)


@pytest.mark.usefixtures("ray_cluster")
def test_ray_makes_the_same_files(
    corpus: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four and two pieces there, of which an actor has begun one before it is at the file; of one piece each here."""
    plain = Path(shutil.copytree(built, tmp_path / "plain"))
    for root in (plain, corpus):
        videos_of(root)[1].unlink()
    encoder = ImageEncoder.open(TINY)
    encode(plain, encoder)
    monkeypatch.setattr("ingest.latents.encode_file.PIECE_PICTURES", TINY.batch)
    monkeypatch.setattr(RayActors, "AHEAD", 1)
    current = snapshot.load(corpus)
    making = RayBackend(TINY, encoder.id, pool(), TINY.batch, time.monotonic)
    tally, _ = encode_corpus(
        todo_of(open_corpus(corpus), current, encoder.id),
        current,
        making,
        run_id="latents-1",
        disk=LocalStorage(),
    )
    assert (tally.encoded, tally.failed, tally.errors) == (2, 1, {"missing_video": 1})
    assert (tally.num_encoders, tally.num_pictures) == (1, 14 + 5)
    assert tally.busy_s > 0
    assert files_of(corpus) == files_of(plain)


def itself(part: int, disk: LocalStorage) -> int:
    if part == 9:
        os._exit(1)
    return part


def total(held: int, work: int, parts: Iterator[tuple[int, int | WorkerFailure]]) -> int | str:
    """Of the parts, or how one of them ended."""
    if work == 2:
        os._exit(1)
    for _, part in parts:
        if isinstance(part, WorkerFailure):
            return part.code.value
        held += part
    return held


@pytest.mark.usefixtures("ray_cluster")
def test_who_dies_is_the_end_of_one_work() -> None:
    """A task, which its actor outlives, and an actor."""
    run = partial(pool().run, split=range, prepare=itself, hold=int, finish=total)
    works = iter([12, 4, 2, 5])
    found = dict(run(lambda: next(works, None)))
    assert found.pop(12) == "worker_died"
    death = found.pop(2)
    assert isinstance(death, WorkerFailure)
    assert death.code.value == "worker_died"
    assert found == {4: 6, 5: 10}  # whoever waited for the same process is done by another


@pytest.mark.usefixtures("ray_cluster")
def test_what_no_actor_can_hold_is_said_before_any_work() -> None:
    with pytest.raises(ConfigError, match="an actor cannot be created on this node"):
        list(pool().run(lambda: 1, range, itself, _broken, total))


def _broken() -> int:
    raise ConfigError("no weights on this machine")
