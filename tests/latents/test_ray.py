"""Ray: pictures from tasks, tokens from actors; the same bytes as without, and an actor that dies fails one file."""

from __future__ import annotations

import os
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ingest import snapshot
from ingest.corpus import open_corpus
from ingest.disk import Disk
from ingest.executor import Death, RayActors
from ingest.latents.makers import RayMaking
from ingest.latents.plan import todo_of
from ingest.latents.run import encode_corpus
from ingest.models.encoder import ImageEncoder
from schemas.errors import ConfigError
from tests.faults.runs import LIMITS
from tests.latents.corpora import TINY, encode, videos_of
from tests.latents.test_run import files_of

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def pool() -> RayActors:
    return RayActors(LIMITS, address=None, workers=2, gpus_each=0.5)


@pytest.mark.usefixtures("ray_cluster")
def test_ray_makes_the_same_files(corpus: Path, built: Path, tmp_path: Path) -> None:
    plain = Path(shutil.copytree(built, tmp_path / "plain"))
    for root in (plain, corpus):
        videos_of(root)[1].unlink()
    encoder = ImageEncoder.open(TINY)
    encode(plain, encoder)
    current = snapshot.load(corpus)
    making = RayMaking(TINY, pool(), TINY.batch, time.monotonic)
    tally, _ = encode_corpus(
        todo_of(open_corpus(corpus), current, encoder.id),
        current,
        making,
        run_id="latents-1",
        disk=Disk(),
    )
    assert (tally.encoded, tally.failed, tally.errors) == (2, 1, {"missing_video": 1})
    assert (tally.num_encoders, tally.num_pictures) == (1, 14 + 5)
    assert tally.busy_s > 0
    assert files_of(corpus) == files_of(plain)


def no_body(part: int, disk: Disk) -> int:
    return part


def tens(held: int, work: int, parts: Any) -> Any:
    if work == 2:
        os._exit(1)
    return held + sum(parts)


@pytest.mark.usefixtures("ray_cluster")
def test_an_actor_that_dies_is_the_end_of_one_work() -> None:
    run = partial(pool().run, split=range, prepare=no_body, hold=int, finish=tens)
    works = iter([4, 2, 5])
    found = dict(run(lambda: next(works, None)))
    death = found.pop(2)
    assert isinstance(death, Death)
    assert death.code.value == "worker_died"
    # those that waited for the same process may have gone with it
    assert {value for value in found.values() if not isinstance(value, Death)} <= {6, 10}


@pytest.mark.usefixtures("ray_cluster")
def test_what_no_actor_can_hold_is_said_before_any_work() -> None:
    with pytest.raises(ConfigError, match="cannot be made there"):
        list(pool().run(lambda: 1, range, no_body, _broken, tens))


def _broken() -> int:
    raise ConfigError("no weights on this machine")
