"""An episode whose one camera of two has no file: kept with the other one and counted, or quarantined, as the recipe says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.corpus import snapshot
from ingest.recipe import Recipe
from tests.curation.manifest_cases import invoke
from tests.generators import lda_demo

# Of the default recipe of commit 4caf94b: what older corpora hold is not stale because this field came.
DIGEST = "f6d10b5b713b6591"


def ingest(raw: Path, out: Path, *words: str) -> Any:
    return invoke("ingest", "lerobot", str(raw), "--out", str(out), "--workers", "0", *words)


def rows(corpus: Path, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = snapshot.load(corpus).read(corpus, table).to_pylist()
    return sorted(found, key=lambda row: str(row.get("episode_id")))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two episodes of two cameras; the first one lacks a file. A third camera has none anywhere."""
    return lda_demo.write(tmp_path / "sim_pick_place", without=("base_view/0",)).root


def test_it_is_kept_with_the_cameras_that_are_there(raw: Path, tmp_path: Path) -> None:
    done = ingest(raw, tmp_path / "corpus")
    assert done.exit_code == 0, done.output
    assert "  without a camera" in done.stdout
    first, second = rows(tmp_path / "corpus", "episodes")
    assert first["absent_cameras"] == ["base_view"]
    assert [c["name"] for c in first["cameras"]] == ["ego_view"]
    assert "policy" in first["supervises"]
    [said] = [f for f in first["facts"] if f["name"] == "camera_absent.base_view"]
    assert said["source"] == "episode_000000.mp4 is not there"
    assert second["absent_cameras"] == []
    assert [c["name"] for c in second["cameras"]] == ["base_view", "ego_view"]
    answer = json.loads(invoke("verify", str(tmp_path / "corpus"), "--json").stdout)["result"]
    assert answer["findings"] == []


def test_it_is_quarantined_where_the_recipe_drops_it(raw: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "strict.yaml"
    recipe.write_text("missing_cameras: drop\n")
    words = ("--config", str(recipe), "--max-quarantined", "1", "--json")
    tally = json.loads(ingest(raw, tmp_path / "corpus", *words).stdout)["result"]
    assert (tally["committed"], tally["lacks_cameras"]) == (1, 0)
    assert tally["codes"] == {"missing_video": 1}
    [left] = [r for r in rows(tmp_path / "corpus", "verdicts") if r["state"] == "quarantined"]
    assert "the video of camera base_view is missing; download it" in left["message"]


def test_an_episode_without_any_camera_is_missing_its_video(tmp_path: Path) -> None:
    without = ("base_view/0", "ego_view/0")
    raw = lda_demo.write(tmp_path / "sim_pick_place", without=without).root
    tally = json.loads(ingest(raw, tmp_path / "c", "--max-quarantined", "1", "--json").stdout)[
        "result"
    ]
    assert (tally["committed"], tally["codes"]) == (1, {"missing_video": 1})


def test_the_default_does_not_change_the_digest_and_the_other_choice_does() -> None:
    assert Recipe().digest == DIGEST
    assert Recipe(missing_cameras="keep").digest == DIGEST
    assert Recipe(missing_cameras="drop").digest != DIGEST
