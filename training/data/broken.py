"""What is said of a sample that cannot be read."""

from __future__ import annotations

from schemas.errors import Code, SourceError
from schemas.manifest import ManifestRow


def broken_sample(row: ManifestRow, timestep: int, path: str, error: Exception) -> SourceError:
    """Where a sample that cannot be read is. It stops the run: another sample in its place would be another training set."""
    address = f"{path}, episode {row.uid} [{row.start}, {row.end}), timestep {timestep}"
    return SourceError(Code.UNREADABLE, f"broken sample: {error}", where=address)
