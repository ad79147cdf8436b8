"""The worker body with every ending turned into an outcome.

The only module that catches everything: an unknown exception becomes a `failed` outcome with its address, never a lost episode.
"""

from __future__ import annotations

import errno
import os
import traceback

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from ingest.pipeline.process import Work, process
from ingest.storage.local import LocalStorage
from schemas.errors import Code, ConfigError, PipelineError, TransientError
from schemas.outcome import Outcome, State
from schemas.system_error import system_error_text

DISK_FULL, IO_ERROR, INTERNAL_ERROR = "disk_full", "io_error", "internal_error"
TRIES = 3  # of one attempt at an episode, when storage hiccups


def guarded(work: Work, disk: LocalStorage) -> Outcome:
    """The worker body with every ending turned into an outcome."""
    retrying = Retrying(
        retry=retry_if_exception_type(TransientError),
        stop=stop_after_attempt(TRIES),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        reraise=True,
    )
    uid = work.ref.uid
    try:
        return retrying(process, work, disk)
    except MemoryError as error:
        message = f"out of memory: {error}; raise --memory-limit-mb or cut the recording"
        return Outcome(
            uid=uid, state=State.QUARANTINED, code=Code.OUT_OF_MEMORY.value, message=message
        )
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        code = DISK_FULL if is_full else IO_ERROR
        return Outcome(uid=uid, state=State.FAILED, code=code, message=system_error_text(error))
    except PipelineError as error:
        return Outcome(uid=uid, state=State.FAILED, code=type(error).__name__, message=str(error))
    except Exception as error:  # noqa: BLE001  an unknown crash is counted with its address, not lost
        at = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{error!r} at {os.path.basename(at.filename)}:{at.lineno} in {at.name}"
        return Outcome(uid=uid, state=State.FAILED, code=INTERNAL_ERROR, message=message)


def _names(kind: type[PipelineError]) -> set[str]:
    """What `guarded` calls errors of a kind: each has the name of its own class."""
    return {kind.__name__}.union(*map(_names, kind.__subclasses__()))


# What a node says that does not see the raw data, the assets or the corpus as the driver does.
_ABSENCES = frozenset(
    {
        *(Code.MISSING_FILE, Code.MISSING_SHARD, Code.MISSING_VIDEO, Code.MISSING_META),
        *(Code.UNREADABLE, IO_ERROR),
    }
)


def is_doubtful(work: Work, outcome: Outcome) -> bool:
    """Whether an outcome says that something is absent which was there when the run was planned."""
    return work.ref.problem is None and (
        outcome.code in _ABSENCES or outcome.code in _names(ConfigError)
    )
