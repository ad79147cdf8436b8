"""REST: hands and end effectors of an episode, in space and in its pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from jobs.service import geometry, models
from jobs.service.api import Number, keeper_of, newest_of, served_by
from jobs.service.details import stored_episode
from schemas.geometry import Array
from schemas.hand import joint_parents

router = APIRouter()

Point = list[float] | None  # null: not known


class HandAnswer(models.StrictModel):
    side: str
    position: list[Point]
    points: list[list[Point]] | None


class SeenAnswer(models.StrictModel):
    camera: str
    side: str
    trail: list[list[Point]]
    points: list[list[Point]] | None


class GeometryAnswer(models.OfSnapshot):
    uid: str
    timesteps: list[int]
    frame: str
    parents: list[int]
    hands: list[HandAnswer]
    pictures: list[SeenAnswer]


@router.get("/episodes/{uid}/geometry", response_model=GeometryAnswer)
def geometry_of(request: Request, uid: str, number: Number = None) -> Response:
    """Positions of end effectors and the 21 points of hands in metres, and both in pixels of every camera with a known pose, at up to 600 timesteps."""
    served = served_by(request, number)
    episode = stored_episode(keeper_of(request), served.cache, uid)
    at = geometry.shown_timesteps(episode.length)
    hands = geometry.hands_of(episode)
    pictures = [
        seen
        for camera in episode.row["cameras"]
        for seen in geometry.seen_by(episode, camera, hands, at)
    ]
    answer = GeometryAnswer(
        **newest_of(request, served),
        uid=uid,
        timesteps=at.tolist(),
        frame=episode.row["eef_frame"] or "",
        parents=list(joint_parents()),
        hands=[
            HandAnswer(
                side=hand.side,
                position=_points(hand.position[at], 4),
                points=None if hand.points is None else _points(hand.points[at], 4),
            )
            for hand in hands
        ],
        pictures=[
            SeenAnswer(
                camera=seen.camera,
                side=seen.side,
                trail=_points(seen.trail, 1),
                points=None if seen.points is None else _points(seen.points, 1),
            )
            for seen in pictures
        ],
    )
    return Response(answer.model_dump_json(), media_type="application/json")


def _points(values: Array, decimals: int) -> list[Any]:
    """[..., n] as lists, a point that is not known as null."""
    if values.ndim > 2:
        return [_points(each, decimals) for each in values]
    is_known: list[bool] = np.asarray(np.isfinite(values).all(axis=-1)).tolist()
    points: list[list[float]] = values.round(decimals).tolist()
    return [point if known else None for point, known in zip(points, is_known, strict=True)]
