"""What a command and a corpus spec refuse before any work, without the libraries of the work."""

from __future__ import annotations

from pathlib import Path

from ingest.models.encoder_weights import WeightSource
from ingest.models.encoders import EncoderSpec
from schemas.errors import ConfigError
from schemas.split import Shares


def refuse_nesting(root: Path, out: Path) -> None:
    """A corpus inside the raw data would be read as raw data by the next run, and the other way round."""
    root, out = root.resolve(), out.resolve()
    if root == out or root in out.parents or out in root.parents:
        raise ConfigError(
            "the corpus must not be inside the raw data, nor the raw data inside the corpus",
            remedy="choose another --out",
            where=str(out),
        )


def shares_from(val: float, test: float) -> Shares:
    """Raises ConfigError for shares that leave nothing to train."""
    try:
        return Shares(val=val, test=test)
    except ValueError as error:
        raise ConfigError(str(error), where="--val, --test") from error


def weight_source(
    spec: EncoderSpec, weights: Path | None, hub_id: str | None, untrained: int | None
) -> WeightSource:
    """Where the weights come from.

    Raises:
        ConfigError: nowhere, and the encoder has weights.
    """
    if weights is None and hub_id is None and untrained is None and spec.needs_source:
        known = f"--weights FOLDER, --hub-id {spec.hub_id}, or " if spec.hub_id else ""
        raise ConfigError(
            "no weights",
            remedy=f"add {known}--untrained SEED (random weights, tests only)",
            where=f"--encoder {spec.name}",
        )
    folder = "" if weights is None else str(weights.absolute())
    return WeightSource(folder=folder, hub_id=hub_id or "", untrained_seed=untrained)
