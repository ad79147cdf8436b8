"""A path that data names, joined to the folder that it must stay in: the one place where dots and links are followed and looked at.

What it means that one leads out is the caller's to say: one episode is unusable, or a manifest is not to be trusted.
"""

from __future__ import annotations

from pathlib import Path


def contained(root: Path, *parts: str) -> Path:
    """The resolved `root / parts`, links followed; it need not exist.

    Raises:
        ValueError: it lies outside the resolved root (an absolute part, `..`, a link that leads out), or a part cannot be a path at all.
    """
    try:
        base = root.resolve()
        path = base.joinpath(*parts).resolve()
    except (ValueError, OSError, RuntimeError) as error:  # NUL byte, name too long, link loop
        raise ValueError(f"no usable path: {error}") from error
    if not path.is_relative_to(base):
        problem = f"leads to {path}, outside {base}; a path from data must stay under the root"
        raise ValueError(problem)
    return path
