"""What a refused write means for the user: make room, change rights, or use another file system."""

from __future__ import annotations

import errno
from pathlib import Path

from schemas.errors import ConfigError, PipelineError, TransientError

IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
IS_FAILING = frozenset(
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)
IS_READ_ONLY = frozenset({errno.EACCES, errno.EROFS, errno.EPERM})
# Of a file system without hard links and without a rename that refuses to replace.
LACKS_CALLS = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK, errno.EXDEV})


def refused_write(error: OSError, where: Path) -> PipelineError:
    """The error of a corpus in which the first write fails."""
    reason = error.strerror or str(error)
    if error.errno in IS_FULL:
        message = f"the disk is full ({reason})"
        return TransientError(
            message, remedy="make room and run the same command again", where=str(where)
        )
    if error.errno in IS_READ_ONLY:
        message = f"not writable ({reason})"
        return ConfigError(
            message,
            remedy="change the permissions or the mount, or use another folder",
            where=str(where),
        )
    if error.errno in LACKS_CALLS:
        message = f"this file system cannot hold a corpus that is written to: {reason}"
        return ConfigError(message, remedy="use another file system", where=str(where))
    if error.errno in IS_FAILING:
        message = f"a write failed ({reason})"
        return TransientError(
            message, remedy="check the disk and run the same command again", where=str(where)
        )
    return ConfigError(
        f"cannot be written: {reason}", remedy="use another folder", where=str(where)
    )
