"""What a run will draw from, and what it will not: shown before the first step, so that nothing is missing unnoticed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from schemas.manifest import Manifest
from schemas.supervision import Task
from training.data.sample_index import SampleIndex, allowed
from training.data.sampler import Draws
from training.data.windows import Ints, Mask, from_bits
from training.tasks import INDEX, TASKS


@dataclass(frozen=True, slots=True, kw_only=True)
class CountRow:
    """One tier of one embodiment. `by_task`: anchors that a task is allowed and possible at; `share` of the draws."""

    embodiment: str
    tier: str
    segments: int
    anchors: int
    share: float
    by_task: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Of a split. `unseen`: segments without latents, left out as the recipe says; `too_short`: no anchor; `lost_weight`: of both,
    which goes to the others. `per_batch`: samples of each task in every global batch, where tasks are drawn first. `shortfalls`: tasks with a
    share or weight that nothing can serve, whose share the others get. `labelled_segments`, `labelled_anchors`: video whose latent actions the policy says;
    they are no part of `rows`' `by_task`.
    """

    split: str
    rows: tuple[CountRow, ...]
    segments: int
    anchors: int
    unseen: int
    too_short: int
    lost_weight: float
    per_batch: dict[str, int]
    shortfalls: tuple[str, ...]
    labelled_segments: int
    labelled_anchors: int


def counts_of(
    draws: Draws, manifest: Manifest, *, split: str, embodiments: tuple[str, ...]
) -> Counts:
    """Counted from the tables that are drawn from."""
    anchors, routing, share = draws.anchors, draws.routing, draws.share_of_segments()
    segments = anchors.segments
    num: Ints = np.asarray(segments["num_anchors"])
    is_labelled = np.asarray(segments["is_labelled"] & (num > 0))
    weight = np.where(num > 0, segments["weight"], 0.0)
    in_split = pc.equal(manifest.rows["split"], split).to_numpy()
    tiers = manifest.rows["tier"].take(np.asarray(segments["row"])).combine_chunks()
    tiers = tiers.dictionary_encode()
    names = tiers.dictionary.to_pylist()
    group: Ints = np.asarray(segments["embodiment"] * len(names) + tiers.indices.to_numpy())
    can = _possible(anchors, group, len(embodiments) * len(names))
    rows = []
    for body, embodiment in enumerate(embodiments):
        for tier in sorted(names):
            which = body * len(names) + names.index(tier)
            if (is_it := group == which).any():
                rows.append(_row(embodiment, tier, is_it, num, share, can[which]))
    whole = float(np.sum(manifest.rows["weight"].to_numpy()[in_split]))
    by_task = {task.value: int(draws.counts[INDEX[task]]) for task in routing.trained}
    return Counts(
        split=split,
        rows=tuple(rows),
        segments=int(in_split.sum()),
        anchors=int(num.sum()),
        unseen=int(in_split.sum()) - len(segments),
        too_short=int((num == 0).sum()),
        lost_weight=1.0 - float(weight.sum()) / whole if whole > 0 else 0.0,
        per_batch=by_task if routing.draw == "task" else {},
        shortfalls=tuple(task.value for task in draws.unserved),
        labelled_segments=int(is_labelled.sum()),
        labelled_anchors=int(segments["num_serving"][is_labelled, INDEX[Task.POLICY]].sum()),
    )


def _possible(anchors: SampleIndex, group: Ints, num_groups: int) -> Ints:
    """[G, 4] anchors of the segments of each group that a task is allowed and possible at.

    Args:
        group: [S] of each segment.
    """
    out = np.zeros((num_groups, len(TASKS)), dtype=np.int64)
    for segment, _, bits in allowed(anchors):
        for task, can in enumerate(from_bits(bits).T):
            out[:, task] += np.bincount(group[segment[can]], minlength=num_groups)
    return out


def _row(
    embodiment: str,
    tier: str,
    is_it: Mask,
    num: Ints,
    share: npt.NDArray[np.float64],
    can: Ints,
) -> CountRow:
    return CountRow(
        embodiment=embodiment,
        tier=tier,
        segments=int(is_it.sum()),
        anchors=int(num[is_it].sum()),
        share=float(share[is_it].sum()),
        by_task={task.value: int(can[INDEX[task]]) for task in TASKS},
    )
