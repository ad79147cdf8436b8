"""What a policy is shown and what it answers, as arrays without torch. The shape of what travels is in docs/how-to/serve.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.action import ActionSpec
from schemas.errors import ConfigError
from schemas.geometry import Array, rotmat_from_rot6d_cols, transform
from schemas.stored_picture import as_stored
from schemas.vlm import MAX_ASPECT

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observation:
    """What is known now.

    pictures: camera -> [p, height, width, 3] RGB, the last is now, the one before it as long ago as the recipe's `past_s` say; p may be
    fewer than the recipe's pictures at the start of an episode, missing ones are masked in the network. latents: camera -> [p, N, D]
    in place of pictures. history: [h, A] absolute targets at 10 Hz in the layout of `ActionSpec`, the last is the one in force now (where the hand is,
    when nothing was commanded yet); more than the recipe's history is not looked at, None is none. state: [A] as measured now, for networks that were
    trained with it. is_stored: the pictures were decoded from videos of a corpus, or as it would store them; others are reduced to what it would store.
    """

    text: str
    embodiment: str
    pictures: Mapping[str, Pixels] = field(default_factory=dict)
    latents: Mapping[str, Values] = field(default_factory=dict)
    history: npt.NDArray[Any] | None = None
    state: npt.NDArray[Any] | None = None
    is_stored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActionChunk:
    """What to do next: [K, A] absolute targets in the layout of `spec`, reached `t_s` [K] seconds from now.

    Poses are in the frame of the history's; without a history they are seen from the hand of now. plan_values: [N] of the candidates of a policy that plans.
    """

    spec: ActionSpec
    targets: Array
    t_s: Array
    plan_values: npt.NDArray[np.float32] | None = None

    def part(self, name: str) -> Array:
        """[K, n]: the slice of this name, `right.gripper_opening` say; KeyError naming what there is."""
        return self.targets[:, self.spec.slice(name)]

    def T_ref_hand(self, side: str) -> Array:
        """[K, 4, 4] of the hand, `hand_xfz`."""
        rotmat = rotmat_from_rot6d_cols(self.part(f"{side}.rot6d_cols"))
        return transform(rotmat, self.part(f"{side}.position_m"))


def stored_images(
    observation: Observation, camera: str, short_side_px: int, *, last: int
) -> Pixels:
    """[last or fewer, h, w, 3] of a camera: what a corpus would give back of the newest.

    Args:
        short_side_px: of the corpus.

    Raises:
        ConfigError: they are no pictures.
    """
    newest = checked_images(observation.pictures[camera], camera)[-last:]
    if observation.is_stored:
        return newest
    return np.stack([as_stored(picture, short_side_px) for picture in newest])


def checked_images(pictures: Pixels, camera: str) -> Pixels:
    """The same.

    Raises:
        ConfigError: they are no pictures.
    """
    is_some = pictures.dtype == np.uint8 and pictures.ndim == 4 and pictures.shape[-1] == 3
    sides = pictures.shape[1:3]
    if not is_some or 0 in pictures.shape or max(sides) > MAX_ASPECT * min(sides):
        problem = f"images of camera {camera!r:.80} are {pictures.dtype} {list(pictures.shape)}"
        expected = f"uint8 [p, height, width, 3] with an aspect ratio of at most {MAX_ASPECT}"
        raise ConfigError(f"{problem}; expected {expected}", where="observation")
    return pictures
