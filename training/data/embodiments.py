"""Which body has which number: an adapter of the network belongs to it, so a number never changes once a run has given it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from schemas.errors import ConfigError
from schemas.manifest import Manifest


def embodiments_of(manifest: Manifest) -> tuple[str, ...]:
    """Every body of a manifest, all splits, sorted."""
    return tuple(sorted(manifest.rows["embodiment"].unique().to_pylist()))


def grown(saved: Sequence[str], names: Iterable[str]) -> tuple[str, ...]:
    """A saved list with new bodies behind it: fine-tuning adds, and moves nobody."""
    return (*saved, *sorted(set(names) - set(saved)))


def check_known(saved: Sequence[str], names: Iterable[str], *, where: str) -> None:
    """
    Raises:
        ConfigError: a body that a checkpoint has no adapter for.
    """
    strangers = sorted(set(names) - set(saved))
    if strangers:
        known = f"the checkpoint knows {', '.join(saved)}"
        repair = "add it by `eicorpus train --recipe finetune --init-from RUN`"
        raise ConfigError(f"unknown embodiment {strangers[0]}; {known}; {repair}", where=where)
