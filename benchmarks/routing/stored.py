"""What the corpus says of the recordings: their tiers, and their actions as a trainer derives them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.routing.record import LABEL
from ingest.catalog.catalog import Catalog
from schemas.geometry import Array, rotmat_from_rot6d_cols, transform
from schemas.trained_action import Named, TrainedAction, trained_action
from training.data.recording import FEATURES, data_path, feature_names, read_features

SIDE = "left"
_TIERS = """SELECT episode_id, length, action_source, t.tier, t."end" - t.start AS steps,
    list_transform(t.reasons, lambda r: r.code) AS codes
    FROM episodes JOIN tiers t USING (uid) ORDER BY episode_id, t.start"""
_PLACES = """SELECT episode_id, dataset_path, episode_index FROM episodes
    WHERE action_source <> 'none' AND split_part(episode_id, '/', 1) = ? ORDER BY episode_id"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One episode: how it was played in truth, and what the tier policy made of it."""

    episode_id: str
    label: dict[str, Any]  # benchmarks/routing/record.py
    tier_steps: dict[str, int]  # timesteps given each tier
    length: int
    codes: tuple[str, ...]  # rules that were reasons

    @property
    def high_share(self) -> float:
        return self.tier_steps.get("high", 0) / self.length

    @property
    def tier(self) -> str:
        """That of most of it."""
        return max(self.tier_steps, key=lambda tier: (self.tier_steps[tier], tier))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stored:
    """Actions of one episode as they come back from the corpus.

    motions: [K, 6] of `delta_body_rotvec_1`; T_start: [4, 4] pose of the hand (`hand_xfz`) that they begin at; opening: [K], 1 is open.
    """

    episode_id: str
    motions: Array
    T_start: Array
    opening: Array


def label_of(raw: Path, episode_id: str) -> dict[str, Any]:
    label: dict[str, Any] = json.loads((raw / f"{episode_id}{LABEL}").read_text())
    return label


def judged(corpus: Path, raw: Path) -> list[Judged]:
    """Every episode with what `eicorpus tier` said last, beside its label; sorted by id."""
    by_episode: dict[str, list[dict[str, Any]]] = {}
    with Catalog.open(corpus) as catalog:
        for row in catalog.arrow(_TIERS).to_pylist():
            by_episode.setdefault(row["episode_id"], []).append(row)
    out = []
    for episode_id, rows in by_episode.items():
        steps: dict[str, int] = {}
        for row in rows:
            steps[row["tier"]] = steps.get(row["tier"], 0) + row["steps"]
        codes = sorted({code for row in rows for code in row["codes"]})
        out.append(
            Judged(
                episode_id=episode_id,
                label=label_of(raw, episode_id),
                tier_steps=steps,
                length=rows[0]["length"],
                codes=tuple(codes),
            )
        )
    return out


def stored(corpus: Path, task: str) -> Iterator[Stored]:
    """Every episode of a task that has actions, in the order of ids."""
    with Catalog.open(corpus) as catalog:
        places = catalog.arrow(_PLACES, [task]).to_pylist()
    for row in places:
        path = data_path(row["dataset_path"], row["episode_index"])
        features = read_features(corpus, path, feature_names(corpus, row["dataset_path"]))
        yield of_features(row["episode_id"], features)


def of_features(episode_id: str, features: dict[str, Named]) -> Stored:
    """From the four stored features; every action must be valid, for a script never loses its hand."""
    action, action_valid, state, state_valid = (features[name] for name in FEATURES)
    derived = trained_action(
        action=action, action_valid=action_valid, state=state, state_valid=state_valid
    )
    if not derived.valid.all():
        raise ValueError(f"{episode_id}: {(~derived.valid).sum()} action elements are not valid")
    position_m, turn = state.part(f"{SIDE}.position_m"), state.part(f"{SIDE}.rot6d_cols")
    if position_m is None or turn is None:
        raise ValueError(f"{episode_id}: no pose of the hand in {state.names}")
    return Stored(
        episode_id=episode_id,
        motions=_elements(derived, f"{SIDE}.delta_"),
        T_start=transform(rotmat_from_rot6d_cols(turn[0]), position_m[0]),
        opening=_elements(derived, f"{SIDE}.gripper_opening")[:, 0],
    )


def _elements(derived: TrainedAction, prefix: str) -> Array:
    at = [i for i, name in enumerate(derived.names) if name.startswith(prefix)]
    return np.asarray(derived.values[:, at], dtype=np.float64)


def uids_of(corpus: Path) -> dict[str, str]:
    """By the id of the episode."""
    with Catalog.open(corpus) as catalog:
        rows = catalog.arrow("SELECT episode_id, uid FROM episodes ORDER BY episode_id").to_pylist()
    return {row["episode_id"]: row["uid"] for row in rows}
