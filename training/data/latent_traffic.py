"""What a run reads of latents: arithmetic that a plan shows, before 54 TB are anywhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from training.data.latent_reader import LatentShape
from training.data.stored_latents import GAP
from training.data.windows import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentTraffic:
    """At most: pictures outside of a segment are not read. A request of a store is for pictures that lie close to each other, and those between; scales of
    eight bits lie by themselves, and take another.
    """

    picture_bytes: int
    pictures_per_sample: int
    bytes_per_sample: int
    requests_per_sample: int
    requested_bytes_per_sample: int
    pictures_per_step: int
    bytes_per_step: int

    def as_object(self, steps_per_s: float) -> dict[str, Any]:
        """For `--json`, with rates at a speed of the run."""
        return asdict(self) | {
            "pictures_per_s": round(self.pictures_per_step * steps_per_s, 1),
            "gb_per_s": round(self.bytes_per_step * steps_per_s / 1e9, 6),
        }


def traffic_of(
    shape: LatentShape, window: Window, *, num_views: int, batch_size: int
) -> LatentTraffic:
    """Of a recipe's global batch."""
    width, num_tensors = (2 * shape.width, 1) if shape.dtype == "bf16" else (shape.width + 4, 2)
    picture = (shape.num_prefix + shape.num_patches) * width
    cells = sorted({step // shape.grid_stride for step in window.picture_steps})
    steps = [b - a for a, b in pairwise(cells)]
    num_requests = 1 + sum(step > 1 + GAP for step in steps)
    requested = len(cells) + sum(step - 1 for step in steps if step <= 1 + GAP)
    per_sample = len(cells) * num_views
    return LatentTraffic(
        picture_bytes=picture,
        pictures_per_sample=per_sample,
        bytes_per_sample=per_sample * picture,
        requests_per_sample=num_requests * num_tensors * num_views,
        requested_bytes_per_sample=requested * num_views * picture,
        pictures_per_step=per_sample * batch_size,
        bytes_per_step=per_sample * batch_size * picture,
    )
