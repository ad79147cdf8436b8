"""Which timesteps a sample looks at, and which tasks it can serve: index arithmetic, nothing is read here.

"Now" is a timestep t of a segment [start, end) that has a picture. Beside it lie pictures at `past_steps` (the last is 0) and at
`future_step`, `num_history` rows of actions t-H .. t-1 and a chunk of rows t .. t+K-1. Row t+j is the motion from timestep t+j to t+j+1, so the
chunk's row j is reached (j+1) / rate after now. Nothing outside the segment is ever looked at: it is masked, never clamped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError
from schemas.supervision import Task
from training.recipe import DataSettings
from training.tasks import INDEX, TASKS

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
BIT = {task: np.uint8(1 << index) for task, index in INDEX.items()}  # of a set of tasks in a byte
_TOLERANCE = 1e-3  # of a timestep: -0.333 s is not -1/3 s, but 0.3 s at 10 Hz is 3.0000000000000004


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Offsets in timesteps. Pictures are at every `grid_stride`-th timestep of an episode."""

    rate_hz: float
    grid_stride: int
    past_steps: tuple[int, ...]
    future_step: int
    num_actions: int
    num_history: int
    # Of one more picture, of which nothing depends which windows there are: it is not part of a table's key.
    later_step: int | None = field(default=None, repr=False)

    @property
    def action_t_s(self) -> npt.NDArray[np.float64]:
        """[K] seconds from now until each motion of the chunk has ended."""
        return (np.arange(self.num_actions) + 1) / self.rate_hz

    @property
    def future_t_s(self) -> float:
        return self.future_step / self.rate_hz

    @property
    def picture_steps(self) -> tuple[int, ...]:
        """The one more where there is one, the past, then the future."""
        more = () if self.later_step is None else (self.later_step,)
        return (*more, *self.past_steps, self.future_step)

    def pictures(self, now: Ints, start: Ints, end: Ints) -> tuple[Ints, Mask]:
        """[B, P+1], or P+2 with one more, timesteps of the pictures, and whether they lie in the segment."""
        return _inside(now[:, None] + np.array(self.picture_steps), start, end)

    def rows(self, now: Ints, start: Ints, end: Ints) -> tuple[Ints, Mask]:
        """[B, H + K] rows of actions, the history first, and whether they lie in the segment."""
        return _inside(now[:, None] + np.arange(-self.num_history, self.num_actions), start, end)

    def grid(self, start: Ints, end: Ints) -> tuple[Ints, Ints]:
        """[S] the first timestep of each segment that has a picture, and how many have one."""
        first = -(-start // self.grid_stride) * self.grid_stride
        return first, np.maximum(-(-(end - first) // self.grid_stride), 0)

    def serves(self, now: Ints, end: Ints, known_before: Ints, row: Ints) -> npt.NDArray[np.uint8]:
        """[N] which tasks each window can serve, as bits.

        Policy and inverse dynamics need an action to score, the latter before the future picture; forward dynamics is given the actions,
        so none up to that picture may be missing.

        Args:
            now: [N] timestep. end: [N] of its segment.
            known_before: [R + 1] how many of the first r rows of a store have any valid action element.
            row: [N] where now's row lies in that store; the rest of its segment follows. -1 where nothing is stored.
        """
        left = end - now
        has_store = row >= 0
        at = np.where(has_store, row, 0)

        def known(length: Ints) -> Ints:
            return np.where(has_store, known_before[at + length * has_store] - known_before[at], 0)

        has_future = left > self.future_step
        reach = min(self.future_step, self.num_actions)
        in_reach = known(np.minimum(left, reach))
        can = {
            Task.POLICY: known(np.minimum(left, self.num_actions)) > 0,
            Task.INVERSE_DYNAMICS: has_future & (in_reach > 0),
            Task.FORWARD_DYNAMICS: has_future & (in_reach == reach),
            Task.VISUAL_FORECASTING: has_future,
        }
        return as_bits(np.stack([can[task] for task in TASKS], axis=1))


def _inside(at: Ints, start: Ints, end: Ints) -> tuple[Ints, Mask]:
    return at, (at >= start[:, None]) & (at < end[:, None])


def as_bits(can: Mask) -> npt.NDArray[np.uint8]:
    """[N, 4] in the order of TASKS to a byte each."""
    return np.packbits(can, axis=1, bitorder="little")[:, 0]


def from_bits(bits: npt.NDArray[np.uint8]) -> Mask:
    """[N] bytes to [N, 4]."""
    return np.unpackbits(bits[:, None], axis=1, count=len(TASKS), bitorder="little").astype(bool)


def window_of(
    settings: DataSettings, *, rate_hz: float, grid_stride: int, later_s: float | None = None
) -> Window:
    """The recipe's seconds as timesteps.

    Args:
        rate_hz: timesteps a second. grid_stride: of the latents. later_s: of the picture that LARA's latent action leads to.

    Raises:
        ConfigError: a picture is asked for where the latents have none; the message names the nearest that they have.
    """
    past = _steps("data.past_s", settings.past_s, rate_hz, grid_stride)
    future = _steps("data.future_s", (settings.future_s,), rate_hz, grid_stride)
    later = () if later_s is None else _steps("lara.future_s", (later_s,), rate_hz, grid_stride)
    return Window(
        rate_hz=rate_hz,
        grid_stride=grid_stride,
        past_steps=past,
        future_step=future[0],
        num_actions=settings.num_actions,
        num_history=settings.num_history,
        later_step=later[0] if later and later != future else None,
    )


def _steps(key: str, offsets_s: Sequence[float], rate_hz: float, stride: int) -> tuple[int, ...]:
    out = []
    for offset_s in offsets_s:
        cells = offset_s * rate_hz / stride
        cell = round(cells)
        if abs(cells - cell) * stride > _TOLERANCE or (offset_s != 0 and cell == 0):
            low = int(np.floor(cells))
            near = [c for c in (low, low + 1) if offset_s == 0 or c != 0]
            allowed = " or ".join(f"{c * stride / rate_hz:g}" for c in near)
            problem = f"offset {offset_s:g} s is not a multiple of the latents' image interval, {stride / rate_hz:g} s"
            raise ConfigError(problem, remedy=f"use {allowed}, for example `--set {key}=...`", where=f"recipe key {key}")  # fmt: skip
        out.append(cell * stride)
    return tuple(out)
