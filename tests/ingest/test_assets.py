"""The user's own files: what they are enters the digest, where they lie does not, and what is wrong with them stops before work."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.raw import mano_model
from ingest.corpus.snapshot import Snapshot
from ingest.pipeline.assets import NO_ASSETS, Assets
from ingest.pipeline.plan import Request, assets_of, make_plan
from ingest.recipe import HandSettings, Recipe
from jobs.demo.raw import egodex
from schemas.errors import ConfigError
from tests.generators import taco

SETTINGS = HandSettings()


@pytest.fixture(scope="module")
def mano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("smplx")
    return mano_model.write(tmp_path_factory.mktemp("mano"))


def asked(source: str, root: Path, assets: Assets, **recipe: object) -> Request:
    return Request(source=source, root=root, options={}, recipe=Recipe(**recipe), assets=assets)


def test_a_model_is_part_of_the_work_only_where_it_can_change_it(
    mano: Path, tmp_path: Path
) -> None:
    """The variable is set for good in many shells: a robot's corpus must not become stale with it."""
    with_model = Assets(mano_dir=str(mano))
    assert assets_of(asked("oxe", tmp_path, with_model)) == (NO_ASSETS, {})
    for source in ("taco", "hot3d", "vitra"):  # nothing else tells the fingers, or sometimes
        used, told = assets_of(asked(source, tmp_path, with_model))
        assert used.mano_dir == str(mano)
        assert set(told) == {"asset.mano"}
    fitted = asked("egodex", tmp_path, with_model, hands={"fit_mano": True})
    assert set(assets_of(fitted)[1]) == {"asset.mano"}
    assert assets_of(asked("hot3d", tmp_path, NO_ASSETS)) == (NO_ASSETS, {})


def test_the_place_is_no_part_of_it_and_the_content_is(mano: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(mano, moved)
    told = [Assets(mano_dir=str(p)).content_digests({"mano"}, SETTINGS) for p in (mano, moved)]
    assert told[0] == told[1]


@pytest.mark.parametrize("damage", ["cut", "swapped", "gone"])
def test_a_damaged_model_stops_before_any_work(damage: str, mano: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mano"
    shutil.copytree(mano, folder)
    left, right = folder / "MANO_LEFT.pkl", folder / "MANO_RIGHT.pkl"
    if damage == "cut":
        left.write_bytes(left.read_bytes()[:1000])
    elif damage == "swapped":
        data = left.read_bytes()
        shutil.copy(right, left)
        right.write_bytes(data)
    else:
        left.unlink()
    raw = tmp_path / "raw"
    taco.write(raw)
    with pytest.raises(ConfigError, match="MANO"):
        make_plan(asked("taco", raw, Assets(mano_dir=str(folder))), None, Snapshot())


def test_without_a_model_the_licence_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mano.is.tue.mpg.de.*--mano-dir"):
        assets_of(asked("taco", tmp_path, NO_ASSETS))


def test_changed_camera_poses_are_other_work(tmp_path: Path) -> None:
    """Equal counts give equal sizes: it is the content that tells."""
    poses = tmp_path / "poses"
    (poses / "a").mkdir(parents=True)
    named = Assets(camera_poses=str(poses))
    np.savez(poses / "a" / "v_droid.npz", cam_c2w=np.zeros((8, 4, 4)))
    first = named.content_digests((), SETTINGS)
    assert first == named.content_digests((), SETTINGS)
    np.savez(poses / "a" / "v_droid.npz", cam_c2w=np.ones((8, 4, 4)))
    assert named.content_digests((), SETTINGS) != first
    (poses / "a" / "v_droid.npz").write_bytes(b"no archive")
    assert named.content_digests((), SETTINGS) != first


def test_a_plan_carries_what_its_workers_need(mano: Path, tmp_path: Path) -> None:
    egodex.write(tmp_path / "raw")
    plan = make_plan(
        asked("egodex", tmp_path / "raw", Assets(mano_dir=str(mano))), None, Snapshot()
    )
    assert plan.assets == NO_ASSETS
    assert plan.options_digest == ""
