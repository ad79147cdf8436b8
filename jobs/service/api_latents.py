"""REST: what the stored latents of an episode look like over its time."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import Field

from ingest.latents.token_file import read_mean_patches
from jobs.service.api import Number, keeper_of, newest_of, served_by
from jobs.service.details import row_of
from jobs.service.keeper import Keeper
from jobs.service.limits import place
from jobs.service.models import OfSnapshot, StrictModel
from schemas.errors import ConfigError, SourceError
from schemas.geometry import Array

router = APIRouter()

MAX_PICTURES = 600  # of a strip
MAX_STRIPS = 16
NUM_COLOURS = 3
_reading = threading.BoundedSemaphore(
    2
)  # a strip reads up to 250 MB, and copies a file of a pack from a bucket


class LatentStrip(StrictModel):
    """Latents of one camera by one encoder."""

    camera: str
    encoder_id: str
    timesteps: list[int]
    colours: list[list[int]] = Field(
        description="Red, green and blue of each timestep, 0 to 255: the mean over the patches along its first three principal components in this episode, by one factor."
    )
    explained: list[float] = Field(description="Share of the variance of each component.")
    change: list[float] = Field(
        description="Cosine distance of each mean to the one before; 0 for the first."
    )
    problem: str = Field(description="Why there is nothing: the file is missing or damaged.")


class LatentsAnswer(OfSnapshot):
    uid: str
    strips: list[LatentStrip]


@router.get("/episodes/{uid}/latents", response_model=LatentsAnswer)
def latents(request: Request, uid: str, number: Number = None) -> Response:
    """Latents of every camera and encoder as colours over time."""
    served = served_by(request, number)
    rows = served.cache.rows_of("latents", row_of(served.cache, uid))
    rows.sort(key=lambda row: row["run_id"] or "")
    newest = {(row["camera"], row["encoder_id"]): row for row in rows}
    keeper = keeper_of(request)
    with place(_reading, "too many latents are being read"):
        strips = [_strip(keeper, newest[key]) for key in sorted(newest)[:MAX_STRIPS]]
    # not kept: a file that is missing now may be there again
    answer = LatentsAnswer(**newest_of(request, served), uid=uid, strips=strips)
    return Response(answer.model_dump_json(), media_type="application/json")


def _strip(keeper: Keeper, row: dict[str, Any]) -> LatentStrip:
    means, timesteps, problem = np.zeros((0, 1)), np.zeros(0, np.int64), ""
    try:
        with keeper.latents(row) as (path, span):
            read, timesteps = read_mean_patches(path, MAX_PICTURES, span)
        means = read.astype(np.float64)
    except (ConfigError, SourceError) as error:
        problem = error.message
    except FileNotFoundError:
        problem = "the file is missing"
    except OSError as error:
        # without the path on the server, which the text of the error has
        problem = f"the file cannot be read: {error.strerror}"
    colours, explained = colours_of(means)
    return LatentStrip(
        camera=row["camera"],
        encoder_id=row["encoder_id"],
        timesteps=timesteps.tolist(),
        colours=colours.tolist(),
        explained=explained.tolist(),
        change=change_of(means).round(6).tolist(),
        problem=problem,
    )


def colours_of(means: Array) -> tuple[Array, Array]:
    """[M, 3] colours from 0 to 255 and [3] shares of the variance, of [M, D] vectors.

    The sign of a component is such that its largest loading is positive, so that equal latents have equal colours everywhere.
    """
    colours, explained = np.full((len(means), NUM_COLOURS), 128), np.zeros(NUM_COLOURS)
    if not np.isfinite(means).all() or len(means) < 2:
        return colours, explained
    centred = means - means.mean(axis=0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    total = float((values**2).sum())
    if total == 0:
        return colours, explained
    axes = axes[:NUM_COLOURS]
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1))
    scores = centred @ (axes * signs).T
    count = scores.shape[1]
    colours[:, :count] = np.rint(127.5 + 127.5 * scores / np.abs(scores).max())
    explained[:count] = (values[:count] ** 2 / total).round(4)
    return colours, explained


def change_of(means: Array) -> Array:
    """[M] cosine distance of each of [M, D] vectors to the one before; 0 for the first, and where a vector has no length."""
    change = np.zeros(len(means))
    lengths = np.linalg.norm(means, axis=1)
    product = lengths[1:] * lengths[:-1]
    dots = (means[1:] * means[:-1]).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = 1 - dots / product
    change[1:] = np.where(np.isfinite(distance), np.clip(distance, 0, 2), 0)
    return change
