"""The store of actions: made once for a manifest's rows, whole or not at all, and never of what was forgotten."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.spatial.transform import Rotation

from ingest.corpus.erasure import derived
from ingest.corpus.layout import open_corpus
from schemas.action import action_spec
from schemas.errors import ConfigError
from schemas.manifest import Manifest, load
from schemas.trained_action import Named, trained_action
from tests.training import oracle
from tests.training.corpus import Trainable
from training.data import action_build
from training.data.action_build import part_name
from training.data.actions import ActionStore, default_cache, open_actions


@pytest.fixture(scope="module")
def manifest(trainable: Trainable) -> Manifest:
    return load(trainable.manifest)


def stored(store: ActionStore, manifest: Manifest, row: int) -> list[dict[str, float]]:
    """Valid elements of each timestep of a segment."""
    segment = manifest.row(row)
    if store.part_of[row] < 0:
        return [{} for _ in range(segment.start, segment.end)]
    part = store.open_part(int(store.part_of[row]))
    first = int(store.offset_of[row])
    return [
        {
            part.names[e]: float(part.values[k, e])
            for e in range(len(part.names))
            if part.valid[k, e]
        }
        for k in range(first, first + segment.end - segment.start)
    ]


def test_every_segment_is_what_plain_loops_say(manifest: Manifest, tmp_path: Path) -> None:
    store = open_actions(manifest, cache=tmp_path)
    for row in range(len(manifest)):
        wanted = oracle.actions_of(manifest.corpus, manifest.row(row))
        found = stored(store, manifest, row)
        assert [x.keys() for x in found] == [x.keys() for x in wanted]
        for mine, theirs in zip(found, wanted, strict=True):
            assert mine == pytest.approx(theirs, abs=2e-6)


def test_motions_lead_back_to_the_targets(manifest: Manifest, tmp_path: Path) -> None:
    """(f): put one after the other from the first pose. Near half a turn: tests/schemas/test_trained_action.py."""
    store = open_actions(manifest, cache=tmp_path)
    row = next(i for i in range(len(manifest)) if manifest.row(i).embodiment == "umi_bimanual")
    segment = manifest.row(row)
    columns = oracle.columns(manifest.corpus, segment.dataset_path, segment.episode_index)
    p, R = oracle.pose_at(columns["observation.state"], "right", segment.start)
    for k, step in enumerate(stored(store, manifest, row)):
        if "right.delta_position_m.x" not in step:
            continue
        p = p + R.apply([step[f"right.delta_position_m.{a}"] for a in "xyz"])
        R = R * Rotation.from_rotvec([step[f"right.delta_rotvec_rad.{a}"] for a in "xyz"])
        target_p, target_R = oracle.pose_at(columns["action"], "right", segment.start + k)
        assert np.abs(p - target_p).max() < 1e-5
        assert (R.inv() * target_R).magnitude() < 1e-5


def test_motions_near_half_a_turn_lead_back() -> None:
    """(f): each step almost turns the hand over, where the axis of a rotation vector is about to flip."""
    spec = action_spec([("left.position_m", 3), ("left.rot6d_cols", 6)])
    assert spec is not None
    rng = np.random.default_rng(0)
    axis = rng.normal(size=(40, 3))
    axis /= np.linalg.norm(axis, axis=1)[:, None]
    steps = Rotation.from_rotvec(axis * (np.pi - rng.choice([1e-3, 1e-5, 1e-7], 40))[:, None])
    R, turned = Rotation.identity(), []
    for step in steps:
        R = R * step
        turned.append(R.as_matrix())
    p = rng.normal(size=(40, 3))
    rows = np.concatenate([p, np.array(turned)[:, :, :2].transpose(0, 2, 1).reshape(-1, 6)], axis=1)
    start = np.array([[0, 0, 0, 1, 0, 0, 0, 1, 0]] * 40, dtype=float)
    yes = Named(values=np.ones((40, 2)), names=("left.position_m", "left.rot6d_cols"))
    found = trained_action(
        action=Named(values=rows, names=spec.names),
        action_valid=yes,
        state=Named(values=start, names=spec.names),
        state_valid=yes,
    )
    stored = found.values.astype(np.float32)  # as the store has them
    T_p, T_R = np.zeros(3), Rotation.identity()
    for k in range(40):
        T_p = T_p + T_R.apply(stored[k, :3])
        T_R = T_R * Rotation.from_rotvec(stored[k, 3:6])
        assert np.abs(T_p - p[k]).max() < 1e-5
        assert (T_R.inv() * Rotation.from_matrix(turned[k])).magnitude() < 1e-5


def test_it_is_made_once(manifest: Manifest, tmp_path: Path) -> None:
    first = open_actions(manifest, cache=tmp_path)
    made = (first.folder / part_name(0)).stat().st_mtime_ns
    (
        tmp_path / f".{first.folder.name}.{os.uname().nodename}.half"
    ).mkdir()  # of a process that was killed
    assert (open_actions(manifest, cache=tmp_path).folder / part_name(0)).stat().st_mtime_ns == made
    fewer = replace(manifest, rows=manifest.rows.slice(3))
    other = open_actions(fewer, cache=tmp_path)
    assert other.folder != first.folder
    assert stored(other, fewer, 2) == stored(first, manifest, 5)


def test_what_a_killed_process_left_is_no_store(manifest: Manifest, tmp_path: Path) -> None:
    whole = open_actions(manifest, cache=tmp_path / "a")
    half = tmp_path / "b" / f".{whole.folder.name}.{os.uname().nodename}.half"
    half.mkdir(parents=True)
    (half / part_name(0)).write_bytes(b"half")
    again = open_actions(manifest, cache=tmp_path / "b")
    assert stored(again, manifest, 4) == stored(whole, manifest, 4)
    assert not half.exists()


@pytest.mark.slow
def test_processes_make_the_same_bytes(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = open_actions(manifest, cache=tmp_path / "a")
    monkeypatch.setattr(action_build, "FEW_EPISODES", 0)
    seen: list[tuple[int, int]] = []
    many = open_actions(
        manifest,
        cache=tmp_path / "b",
        num_processes=2,
        progress=lambda done, whole: seen.append((done, whole)),
    )
    assert seen == [(1, 2), (2, 2)]
    for path in sorted(alone.folder.iterdir()):
        assert path.read_bytes() == (many.folder / path.name).read_bytes()


def test_parts_are_bounded(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Episodes are never cut in two, and every segment is found where the index says."""
    whole = open_actions(manifest, cache=tmp_path / "a")
    monkeypatch.setattr(action_build, "PART_EPISODES", 3)
    many = open_actions(manifest, cache=tmp_path / "b")
    assert many.num_parts == 4 + 2  # of 10 and of 6 episodes
    for row in range(len(manifest)):
        assert stored(many, manifest, row) == stored(whole, manifest, row)


def test_forgetting_takes_the_store_with_it(trainable: Trainable) -> None:
    corpus = open_corpus(trainable.corpus)
    assert any(default_cache(corpus.root).is_relative_to(folder) for folder in derived(corpus))


@pytest.mark.parametrize("fault", ["cut", "gone", "short", "linked"])
def test_damaged_numbers_are_refused_with_their_file(
    trainable: Trainable, tmp_path: Path, fault: str
) -> None:
    mine = trainable.copied(tmp_path / "corpus")
    manifest = load(mine.manifest)
    row = next(r for r in map(manifest.row, range(len(manifest))) if r.embodiment == "umi")
    path = mine.corpus / row.dataset_path / f"data/chunk-000/episode_{row.episode_index:06d}.parquet"  # fmt: skip
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif fault == "gone":
        path.unlink()
    elif fault == "short":
        pq.write_table(pq.read_table(path).slice(0, 5), path)
    else:
        path.rename(tmp_path / "data.parquet")
        path.symlink_to(tmp_path / "data.parquet")
    with pytest.raises(ConfigError, match=path.name):
        open_actions(manifest, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("actions-*"))


def test_a_cache_that_cannot_be_written_names_the_option(
    manifest: Manifest, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--cache DIR"):
        open_actions(manifest, cache=tmp_path / "file" / "cache")


def test_a_damaged_store_says_what_to_remove(manifest: Manifest, tmp_path: Path) -> None:
    store = open_actions(manifest, cache=tmp_path)
    path = store.folder / part_name(0)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ConfigError, match=f"remove {store.folder}"):
        ActionStore(store.folder).open_part(0)
