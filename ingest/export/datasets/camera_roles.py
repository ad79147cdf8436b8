"""Which camera of a dataset is which view, by its name: consumers with fixed names for views need to know."""

from __future__ import annotations

from collections.abc import Sequence

SCENE_FIRST = (
    "head",
    "ego",
    "top",
    "front",
    "ext",
    "agentview",
    "image",
)  # parts of names, the likeliest view first
_WRIST = ("wrist", "hand", "gripper")


def scene_camera(keys: Sequence[str]) -> str:
    """The key of the camera that sees the scene: the first whose name says so, else the first.

    Args:
        keys: of the features, one at least.
    """
    fixed = [key for key in keys if not is_wrist(key)] or list(keys)
    for word in SCENE_FIRST:
        for key in fixed:
            if word in camera_name(key):
                return key
    return fixed[0]


def wrist_cameras(keys: Sequence[str]) -> tuple[str, ...]:
    """Keys of the cameras on wrists, those of the left side first."""
    return tuple(sorted(filter(is_wrist, keys), key=lambda key: "right" in camera_name(key)))


def is_wrist(key: str) -> bool:
    return any(word in camera_name(key) for word in _WRIST)


def camera_name(key: str) -> str:
    """`front` of `observation.images.front`."""
    return key.rsplit(".", 1)[-1]
