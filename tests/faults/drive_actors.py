"""The driver of `test_actor_nodes.py`: a pool of actors, one for each GPU that a node declares, and a line for each work that is done.

`python -m tests.faults.drive_actors COUNT --ray --address ADDRESS`
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

from ingest.executors.ray_actors import RayActors
from ingest.storage.local import LocalStorage
from schemas.outcome import WorkerFailure
from tests.faults.runs import LIMITS

WORK_S = 1.0


def node() -> str:
    """What an actor holds: where it is."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def part(work: int, disk: LocalStorage) -> int:
    return work


def finish(held: str, work: int, parts: Iterator[tuple[int, int | WorkerFailure]]) -> list[object]:
    time.sleep(WORK_S)
    return [held, [made if isinstance(made, int) else made.how for _, made in parts]]


def main() -> None:
    count, address = int(sys.argv[1]), sys.argv[-1]
    works = iter(range(count))
    actors = RayActors(LIMITS, address=address, workers=None, gpus_each=1.0)
    run = actors.run(lambda: next(works, None), lambda work: [work], part, node, finish)
    for work, result in run:
        outcome = result.how if isinstance(result, WorkerFailure) else result
        sys.stdout.write(json.dumps([work, outcome]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
