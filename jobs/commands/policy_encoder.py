"""The image encoder of a policy: the one whose latents it was trained on, found again by its id."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ingest.latents.frame_grid import fitted
from ingest.models.encoder import EncoderChoice, ImageEncoder, encoder_id
from ingest.models.encoder_weights import WeightSource
from ingest.models.encoders import Fit, encoder_spec
from schemas.errors import ConfigError
from schemas.latents import UNTRAINED, Storage

MAX_STRIDE = 30  # timesteps between pictures: 3 s
Encode = Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]


def encoder_for(
    id_wanted: str,
    *,
    weights: Path | None,
    hub_id: str | None,
    device: Literal["auto", "cpu", "cuda"],
) -> Encode | None:
    """From pictures [n, H, W, 3] to tokens [n, T, D] as the latents of that id have them; None where no weights are given and some are needed.

    Pictures are those of a corpus: a policy reduces live ones before (`schemas.stored_picture.as_stored`).

    Raises:
        ConfigError: the weights are others than those of the id.
    """
    model, seed = model_of(id_wanted)
    has_none = seed is None and weights is None and hub_id is None
    if has_none and encoder_spec(model).needs_source:
        return None
    source = WeightSource(
        folder="" if weights is None else str(weights),
        hub_id=hub_id or "",
        untrained_seed=seed,
    )
    opened = ImageEncoder.open(EncoderChoice(model=model, source=source, device=device))
    choice = next(
        (c for c in _choices(opened.choice) if encoder_id(c, opened.weights_sha256) == id_wanted),
        None,
    )
    if choice is None:
        problem = f"weights {opened.weights_sha256[:12]} of {model} are not those of {id_wanted}"
        repair = "pass the weights that `eicorpus latents images` used"
        raise ConfigError(problem, remedy=repair, where="--weights")
    encoder = ImageEncoder.open(choice)

    def encode(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        square = np.stack([fitted(picture, choice.preprocessing) for picture in pictures])
        tokens: npt.NDArray[Any] = encoder.encode(square).float().cpu().numpy()
        return tokens

    return encode


def model_of(encoder: str) -> tuple[str, int | None]:
    """Registry name of an encoder id, and the seed if its weights are random."""
    name = encoder.partition("-")[0]
    model, mark, seed = name.rpartition(f"_{UNTRAINED}")
    return (model, int(seed)) if mark and seed.isdigit() else (name, None)


def _choices(base: EncoderChoice) -> Iterator[EncoderChoice]:
    """Every setting that an id is a digest of: few enough to try them all."""
    for fit, storage, keeps, stride in product(
        get_args(Fit), get_args(Storage), (False, True), range(1, MAX_STRIDE + 1)
    ):
        yield replace(base, fit=fit, storage=storage, keeps_prefix=keeps, grid_stride=stride)
