"""Workers of other machines in a schedule: they hand over in the bucket, lose their machines, and leave what they uploaded."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.corpus.staging import staged_rows_of, write_staged
from ingest.pipeline.process import Work
from ingest.storage.local import LocalStorage
from schemas.errors import Code, TransientError
from schemas.outcome import Outcome, StagedVideo, WorkerFailure
from tests.simulation.scheduler import Died, Process
from tests.simulation.store import Bucket, SimStore

CAMERA = "front"
ATTEMPT = "observation.state"  # the column that names the attempt


def attempt_of(rows: bytes) -> bytes:
    """The video that belongs to the rows of an episode."""
    number = pq.read_table(pa.BufferReader(rows), columns=[ATTEMPT])[ATTEMPT][0].as_py()
    return f"video {round(number)}".encode()


class Uploads:
    """What workers of one job do when their work is done. `make`: stages an episode without videos in a local folder."""

    def __init__(self, bucket: Bucket, make: Callable[[Work], Outcome]) -> None:
        self.bucket, self.make = bucket, make

    def ended(self, work: Work) -> Outcome | WorkerFailure:
        """Hand an episode over, as `ingest.pipeline.process` does, from a machine of its own."""
        store = SimStore(self.bucket, Process("worker"))
        remote = replace(work.remote_staging, store=store)
        folder = Path(work.staging)
        while True:
            try:
                if (outcome := remote.before()) is not None:
                    return outcome
                shutil.rmtree(folder, ignore_errors=True)
                outcome = self._with_video(self.make(work), folder)
                return remote.upload(folder, outcome)
            except Died:
                return WorkerFailure(code=Code.NODE_LOST, how="played", node_lost=True)
            except TransientError:
                self.bucket.scheduler.sleep(self.bucket.scheduler.random.uniform(0.2, 5))
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _with_video(self, outcome: Outcome, folder: Path) -> Outcome:
        # Bytes that another attempt would not make: nothing may rely on a repeatable encoder. The rows name the attempt, too.
        number = self.bucket.scheduler.random.randrange(1 << 20)
        video = f"video {number}".encode()
        rows = staged_rows_of(folder)
        column = pa.array([float(number)] * rows.num_rows, pa.float32())
        rows = rows.set_column(rows.schema.get_field_index(ATTEMPT), ATTEMPT, column)
        assert outcome.staged is not None
        facts = StagedVideo(
            camera=CAMERA,
            name=f"{CAMERA}.mp4",
            num_bytes=len(video),
            sha256=hashlib.sha256(video).hexdigest(),
            num_frames=outcome.num_frames,
            stats={},
        )
        (folder / facts["name"]).write_bytes(video)
        made = replace(outcome, staged=replace(outcome.staged, videos=[facts]))
        write_staged(folder, rows, made, LocalStorage(folder.parent))
        return made


class Distributed:
    """The methods that make workers those of a cluster (`ingest.executors.node_proof.Distributed`)."""

    def share(self, view: Any, is_doubtful: Any) -> None: ...
    def expect(self, num_work: int) -> None: ...
    def close(self) -> None: ...
