"""The contrasts of the study and how sure they are. The two of `PRIMARY` were written down before any cell of the final scenes was run, those of P
before any cell of P, those of Q before any cell of Q and after those of L and B, and those of F and FT before any of their cells and after all others.

Names: B1 and B2 are `clone` on experts alone and with everything, L1 and L2 `routed`, T2 and T1 `pretrained`;
P1 and P2 are L1 and L2 that plan; Q2 is L2 with tiers by the built-in policy in place of labels; F1, F2, FT1 and FT2 are L1, L2, T1 and T2 whose other data
teaches forecasting alone. A contrast is a sum of cells of one seed and
one number of experts with signs; the scenes of a seed are the same for all cells, so it is made scene by scene. Its interval resamples
seeds, and within each the scenes of every task (two-level bootstrap, Efron 1979; Davison and Hinkley 1997, 3.8). Over four seeds that differ it covers 90 %
where it says 95, so Student's interval of the means of seeds stands beside it. All seeds train on the same recordings: neither knows how much other experts would change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from benchmarks.routing.cells import ALL, FORECASTING, LABEL, POLICY, Cell
from benchmarks.routing.statistics import NUM_RESAMPLES, Estimate, t_interval

Outcomes = npt.NDArray[np.float64]  # [tasks, scenes], 1 where it succeeded
# Of the largest scale, and of the largest number of chunks, that there is.
MOST = -1


class Arm(NamedTuple):
    """Cells that differ in their seed alone."""

    method: str
    scale: int
    num_chunks: int = 1
    tiers: str = LABEL
    others: str = ALL

    @classmethod
    def of(cls, cell: Cell) -> Arm:
        return cls(cell.method, cell.scale, cell.num_chunks, cell.tiers, cell.others)

    @property
    def key(self) -> str:
        """Of its random numbers. What is as by default is not in it: other methods to come leave it as it is."""
        default = self._field_defaults
        return repr([(k, v) for k, v in self._asdict().items() if default.get(k) != v])

    def placed(self, scale: int, chunks: int) -> Arm:
        """With numbers in place of `MOST`."""
        return self._replace(
            scale=scale if self.scale == MOST else self.scale,
            num_chunks=chunks if self.num_chunks == MOST else self.num_chunks,
        )


_B1, _B2 = Arm("clone", 0), Arm("clone", MOST)
_L1, _L2 = Arm("routed", 0), Arm("routed", MOST)
_T1, _T2 = Arm("pretrained", MOST), Arm("pretrained", 0)
_P1, _P2 = Arm("routed", 0, MOST), Arm("routed", MOST, MOST)
_Q2 = Arm("routed", MOST, tiers=POLICY)
_F1, _F2 = (Arm("routed", scale, others=FORECASTING) for scale in (0, MOST))
_FT1, _FT2 = (Arm("pretrained", scale, others=FORECASTING) for scale in (MOST, 0))
CONTRASTS: Mapping[str, Mapping[Arm, int]] = {
    "(L2 - L1) - (B2 - B1)": {_L2: 1, _L1: -1, _B2: -1, _B1: 1},
    "T1 - T2": {_T1: 1, _T2: -1},
    "L2 - L1": {_L2: 1, _L1: -1},
    "B2 - B1": {_B2: 1, _B1: -1},
    "L2 - B1": {_L2: 1, _B1: -1},
    "T1 - B1": {_T1: 1, _B1: -1},
    "T2 - B1": {_T2: 1, _B1: -1},
    "L1 - B1": {_L1: 1, _B1: -1},
    "P2 - L2": {_P2: 1, _L2: -1},
    "P1 - L1": {_P1: 1, _L1: -1},
    "P2 - P1": {_P2: 1, _P1: -1},
    "Q2 - L2": {_Q2: 1, _L2: -1},
    "Q2 - B2": {_Q2: 1, _B2: -1},
    "F2 - F1": {_F2: 1, _F1: -1},
    "F2 - L2": {_F2: 1, _L2: -1},
    "FT1 - FT2": {_FT1: 1, _FT2: -1},
}
PRIMARY = tuple(CONTRASTS)[:2]
Done = Sequence[tuple[Cell, Mapping[str, Any]]]


def compared_cells(done: Done, *, seed: int) -> dict[str, Any]:
    """By number of experts: success of every method and scale, and the contrasts over the seeds that have all their cells."""
    return {
        str(num): _of_experts([(c, a) for c, a in done if c.num_experts == num], seed)
        for num in sorted({cell.num_experts for cell, _ in done})
    }


def _of_experts(done: Done, seed: int) -> dict[str, Any]:
    outcomes = {(Arm.of(cell), cell.seed): succeeded(answer["success_at"]) for cell, answer in done}
    scale = max(cell.scale for cell, _ in done)
    chunks = max(cell.num_chunks for cell, _ in done)
    contrasts = {}
    for name, signs in CONTRASTS.items():
        if chunks == 1 and any(arm.num_chunks == MOST for arm in signs):
            continue
        by_seed = _by_seed(outcomes, {arm.placed(scale, chunks): s for arm, s in signs.items()})
        if by_seed:
            means = [float(each.mean()) for each in by_seed]
            contrasts[name] = two_level(by_seed, _rng(seed, name)).as_dict() | {
                "by_seed": means,
                "t_interval": None if len(means) < 2 else t_interval(means),
            }
    return {
        "scale": scale,
        "num_chunks": chunks,
        "success": _success(outcomes, done, seed),
        "contrasts": contrasts,
        "core_minutes": round(sum(answer["core_minutes"] for _, answer in done), 1),
    }


def _rng(seed: int, name: str) -> np.random.Generator:
    """Keyed, so that an interval stays as it is when other cells come."""
    return np.random.default_rng([seed, crc32(name.encode())])


def _order(arm: Arm) -> tuple[str, str, str, int, int]:
    """Of the table's rows: scales beside each other."""
    return arm.method, arm.others, arm.tiers, arm.num_chunks, arm.scale


def succeeded(success_at: Mapping[str, Sequence[int | None]]) -> Outcomes:
    """[tasks, scenes] of a cell, tasks by name."""
    return np.array([[at is not None for at in success_at[t]] for t in sorted(success_at)], float)


def _by_seed(
    outcomes: Mapping[tuple[Arm, int], Outcomes], signs: Mapping[Arm, int]
) -> list[Outcomes]:
    """[tasks, scenes] of each seed that has every cell: the contrast in each scene."""
    return [
        np.sum([sign * outcomes[arm, seed] for arm, sign in signs.items()], axis=0)
        for seed in sorted({seed for _, seed in outcomes})
        if all((arm, seed) in outcomes for arm in signs)
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
    outcomes: Mapping[tuple[Arm, int], Outcomes], done: Done, seed: int
) -> list[dict[str, Any]]:
    """Of each arm: the mean, by seed, by task, the error at the start, and what a chunk costs."""
    rows = []
    for arm in sorted({arm for arm, _ in outcomes}, key=_order):
        of = {seed: o for (each, seed), o in sorted(outcomes.items()) if each == arm}
        answers = [answer for cell, answer in done if Arm.of(cell) == arm]
        tasks = sorted(answers[0]["success_at"])
        whole = np.stack(list(of.values()))
        cpu_s = [a["chunk_cpu_s"] for a in answers if "chunk_cpu_s" in a]
        errors_m = [list(a["start_error_m"].values()) for a in answers]
        rows.append(
            arm._asdict()
            | {
                "success": two_level(list(of.values()), _rng(seed, arm.key)).as_dict(),
                "by_seed": {str(s): float(o.mean()) for s, o in of.items()},
                "by_task": dict(zip(tasks, whole.mean(axis=(0, 2)).tolist(), strict=True)),
                "start_error_m": float(np.mean(errors_m)),
                "chunk_cpu_s": float(np.median(cpu_s)) if cpu_s else None,
            }
        )
    return rows
