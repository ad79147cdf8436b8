"""The contrasts of the study, written down before any cell of the final scenes was run, and how sure they are.

Names: B1 and B2 are `clone` on experts alone and with everything, L1 and L2 `routed`, T2 and T1 `pretrained`;
P1 and P2 are L1 and L2 that plan. A contrast is a sum of cells of one seed and
one number of experts with signs; the scenes of a seed are the same for all cells, so it is made scene by scene. Its interval resamples
seeds, and within each the scenes of every task (two-level bootstrap, Efron 1979; Davison and Hinkley 1997, 3.8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.routing.cells import Cell
from benchmarks.routing.statistics import NUM_RESAMPLES, Estimate, wilson

Key = tuple[str, int, int]  # method, scale, and number of chunks
Outcomes = npt.NDArray[np.float64]  # [tasks, scenes], 1 where it succeeded
# Of the largest scale, and of the largest number of chunks, that there is.
MOST = -1
CONTRASTS: Mapping[str, Mapping[Key, int]] = {
    "(L2 - L1) - (B2 - B1)": {("routed", MOST, 1): 1, ("routed", 0, 1): -1, ("clone", MOST, 1): -1, ("clone", 0, 1): 1},
    "T1 - T2": {("pretrained", MOST, 1): 1, ("pretrained", 0, 1): -1},
    "L2 - L1": {("routed", MOST, 1): 1, ("routed", 0, 1): -1},
    "B2 - B1": {("clone", MOST, 1): 1, ("clone", 0, 1): -1},
    "L2 - B1": {("routed", MOST, 1): 1, ("clone", 0, 1): -1},
    "T1 - B1": {("pretrained", MOST, 1): 1, ("clone", 0, 1): -1},
    "L1 - B1": {("routed", 0, 1): 1, ("clone", 0, 1): -1},
    "P2 - L2": {("routed", MOST, MOST): 1, ("routed", MOST, 1): -1},
    "P1 - L1": {("routed", 0, MOST): 1, ("routed", 0, 1): -1},
    "P2 - P1": {("routed", MOST, MOST): 1, ("routed", 0, MOST): -1},
}  # fmt: skip
PRIMARY = tuple(CONTRASTS)[:2]
Done = Sequence[tuple[Cell, Mapping[str, Any]]]


def compared_cells(done: Done, *, seed: int) -> dict[str, Any]:
    """By number of experts: success of every method and scale, and the contrasts over the seeds that have all their cells."""
    return {
        str(num): _of_experts([(c, a) for c, a in done if c.num_experts == num], seed)
        for num in sorted({cell.num_experts for cell, _ in done})
    }


def _of_experts(done: Done, seed: int) -> dict[str, Any]:
    outcomes = {
        (cell.method, cell.scale, cell.num_chunks, cell.seed): succeeded(answer["success_at"])
        for cell, answer in done
    }
    scale = max(cell.scale for cell, _ in done)
    chunks = max(cell.num_chunks for cell, _ in done)
    rng = np.random.default_rng([seed, 5])
    contrasts = {}
    for name, signs in CONTRASTS.items():
        if chunks == 1 and any(num == MOST for _, _, num in signs):
            continue
        by_seed = _by_seed(outcomes, {_placed(key, scale, chunks): s for key, s in signs.items()})
        if by_seed:
            contrasts[name] = two_level(by_seed, rng).as_dict() | {"num_seeds": len(by_seed)}
    return {
        "scale": scale,
        "num_chunks": chunks,
        "success": _success(outcomes, done),
        "contrasts": contrasts,
        "core_minutes": round(sum(answer["core_minutes"] for _, answer in done), 1),
    }


def _placed(key: Key, scale: int, chunks: int) -> Key:
    method, of_scale, of_chunks = key
    return (
        method,
        scale if of_scale == MOST else of_scale,
        chunks if of_chunks == MOST else of_chunks,
    )


def succeeded(success_at: Mapping[str, Sequence[int | None]]) -> Outcomes:
    """[tasks, scenes] of a cell, tasks by name."""
    return np.array([[at is not None for at in success_at[t]] for t in sorted(success_at)], float)


def _by_seed(
    outcomes: Mapping[tuple[str, int, int, int], Outcomes], signs: Mapping[Key, int]
) -> list[Outcomes]:
    """[tasks, scenes] of each seed that has every cell: the contrast in each scene."""
    seeds = sorted({seed for *_, seed in outcomes})
    return [
        np.sum([sign * outcomes[(*key, seed)] for key, sign in signs.items()], axis=0)
        for seed in seeds
        if all((*key, seed) in outcomes for key in signs)
    ]


def two_level(by_seed: Sequence[Outcomes], rng: np.random.Generator) -> Estimate:
    """The mean over seeds, tasks and scenes, and an interval by resampling seeds, then scenes of each task of each drawn seed."""
    values = np.stack(by_seed)  # [seeds, tasks, scenes]
    num_seeds, num_tasks, num_scenes = values.shape
    means = np.zeros(NUM_RESAMPLES)
    for _ in range(num_seeds):
        which = rng.integers(num_seeds, size=NUM_RESAMPLES)
        for task in range(num_tasks):
            drawn = rng.integers(num_scenes, size=(NUM_RESAMPLES, num_scenes))
            means += values[which[:, None], task, drawn].mean(axis=1)
    means /= num_seeds * num_tasks
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(value=float(values.mean()), low=float(low), high=float(high), count=values.size)


def _success(
    outcomes: Mapping[tuple[str, int, int, int], Outcomes], done: Done
) -> list[dict[str, Any]]:
    """Of each method, scale and number of chunks: pooled with Wilson's interval, by seed, by task, and the error at the start."""
    rows = []
    for key in sorted({(method, chunks, scale) for method, scale, chunks, _ in outcomes}):
        method, chunks, scale = key
        of = {s: o for (*k, s), o in sorted(outcomes.items()) if k == [method, scale, chunks]}
        answers = [a for c, a in done if (c.method, c.num_chunks, c.scale) == key]
        tasks = sorted(answers[0]["success_at"])
        whole = np.stack(list(of.values()))
        rows.append(
            {
                "method": method,
                "scale": scale,
                "num_chunks": chunks,
                "success": wilson(int(whole.sum()), whole.size).as_dict(),
                "by_seed": {str(s): float(o.mean()) for s, o in of.items()},
                "by_task": dict(zip(tasks, whole.mean(axis=(0, 2)).tolist(), strict=True)),
                "start_error_m": float(
                    np.mean([list(a["start_error_m"].values()) for a in answers])
                ),
            }
        )
    return rows
