"""What is asked of Ray's actors, without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ingest.latents.backends import RayBackend, encode_from, open_backend
from ingest.latents.encode_file import unit_chunks_of
from ingest.latents.plan import LatentUnit
from ingest.models.encoder import ImageEncoder
from schemas.errors import Code, ConfigError
from schemas.outcome import WorkerFailure
from tests.latents.corpora import TINY, alone, planned_file


class Pool:
    """Notes what it is given."""

    count = 1

    def __init__(self) -> None:
        self.given: list[LatentUnit] = []

    def run(self, next_work: Any, *how: Any) -> Iterator[tuple[LatentUnit, WorkerFailure]]:
        self.given += iter(next_work, None)
        return iter([(unit, WorkerFailure(code=Code.WORKER_DIED, how="x")) for unit in self.given])


def test_actors_begin_where_there_are_files_and_are_given_each() -> None:
    units = [alone(planned_file(30, episode_index=index)) for index in range(3)]
    for wanted in ([], units):
        pool: Any = Pool()
        pool.run = pool.run if wanted else None
        making = RayBackend(TINY, "x-0", pool, TINY.batch, float)
        made = dict(making.make(iter(wanted)))
        assert [*made] == pool.given == wanted
        assert {each.files[0].error for each in made.values()} <= {"worker_died: x"}


def test_another_encoder_on_another_machine_is_refused(tiny: ImageEncoder) -> None:
    """Its files would lie in a folder of their own, and the next run would find none."""
    assert open_backend(TINY, tiny.id, float).encoder.id == tiny.id
    other = tiny.id.replace("untrained0", "untrained1")
    with pytest.raises(ConfigError, match=f"is {tiny.id} on a machine of the cluster and {other}"):
        open_backend(TINY, other, float)


def test_a_task_that_dies_is_told_with_its_video(tiny: ImageEncoder) -> None:
    maker = open_backend(TINY, tiny.id, float)
    death = WorkerFailure(code=Code.OUT_OF_MEMORY, how="killed")
    file = planned_file(30)
    unit = alone(file)
    [chunk] = unit_chunks_of(unit, TINY, TINY.batch)
    [made] = encode_from(maker, unit, iter([(chunk, death)])).files
    assert (made.row, made.error) == (None, f"out_of_memory: killed ({file.video})")
