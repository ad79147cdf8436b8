"""The same recordings in two releases, through the whole pipeline: found across sources, and nothing else with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ingest.catalog.catalog import Catalog
from ingest.curation.duplicates.cluster import Clusters, commit, decide
from ingest.curation.duplicates.compare import Thresholds
from ingest.curation.duplicates.find import find_copies
from ingest.curation.duplicates.signatures import Signatures, read_signatures
from ingest.storage.local import LocalStorage
from jobs.demo.raw.scene import Scene
from tests.curation.ported import port
from tests.curation.releases import (
    Mirrored,
    Reversed,
    as_lerobot,
    as_oxe,
    ingested,
    measured,
    scene,
)
from tests.faults.runs import run


@dataclass(frozen=True)
class Answer:
    root: Path
    pairs: set[tuple[str, str]]  # (copy, kept), as dataset:number of the episode
    decided: Clusters
    found: Signatures


def answer(root: Path, releases: dict[str, Path]) -> Answer:
    """Ingest, measure and decide; `releases` by name, whose source is its first word."""
    for name, raw in releases.items():
        ingested(root / "corpus", raw, name.split()[0], run_id=name.replace(" ", "_"))
    corpus, current = measured(root / "corpus")
    found = read_signatures(corpus.root, current)
    copies = find_copies(corpus.root, current, found, Thresholds())
    with Catalog.open(corpus.root) as catalog:
        decided = decide(catalog, found, copies, Thresholds())
        commit(corpus, current, catalog, decided, "dedup", measured=len(found), disk=LocalStorage())
        rows = catalog.sql("SELECT uid, dataset, episode_id FROM episodes").rows()
    name = {uid: f"{dataset}:{int(episode[-6:])}" for uid, dataset, episode in rows}
    pairs = {(name[row.uid], name[row.kept_uid]) for row in decided.rows if row.uid != row.kept_uid}
    return Answer(root=corpus.root, pairs=pairs, decided=decided, found=found)


def others(scenes: Sequence[Scene]) -> list[Scene]:
    """No copies: mirrored, backwards, and another demonstration of the task."""
    return [
        make
        for s in scenes
        for make in (
            Mirrored(seed=s.seed, duration_s=s.duration_s),
            Reversed(seed=s.seed, duration_s=s.duration_s),
            scene(s.seed + 500),
        )
    ]


@pytest.mark.slow
def test_an_episode_of_an_rlds_set_is_found_in_its_lerobot_port(tmp_path: Path) -> None:
    scenes = [replace(scene(k), duration_s=3.0) for k in range(2)]
    found = answer(
        tmp_path,
        {
            "oxe": as_oxe(tmp_path / "rlds", scenes),
            "lerobot": as_lerobot(tmp_path / "port", scenes[::-1], 160, 128, 15),
            "lerobot other": as_lerobot(tmp_path / "other", others(scenes)[:3], 128, 96, 10),
        },
    )
    # Two cameras against one: the RLDS set stays. The port has the episodes in the other order.
    assert found.pairs == {("port:0", "bridge_dataset:1"), ("port:1", "bridge_dataset:0")}
    rows = [row for row in found.decided.rows if row.kind == "near"]
    for row in rows:
        assert row.evidence == "motion and pictures"
        assert row.path_distance < 0.03
        assert row.look_distance < 0.06
        assert row.reason == "2 cameras over 1"


@pytest.mark.slow
@pytest.mark.real
def test_real_bridge_episodes_are_found_in_two_ports_of_them(samples: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    run(
        samples / "oxe_bridge_rlds", out, source="oxe", run_id="oxe"
    )  # the other split is not there
    of = {
        name: port(out, tmp_path / name, width=width, height=height, crop_px=crop_px, fps=fps)
        for name, width, height, crop_px, fps in (
            ("port_a", 160, 120, 1, 15),
            ("port_b", 256, 256, 2, 30),
        )
    }
    found = answer(tmp_path, {f"lerobot {name}": tmp_path / name for name in of})
    with Catalog.open(found.root) as catalog:
        rows = catalog.sql("SELECT uid, source, dataset, episode_id FROM episodes").rows()
    original = {
        uid: of[dataset][int(episode[-6:])] if source == "lerobot" else uid
        for uid, source, dataset, episode in rows
    }
    left_out = {r.uid: r.kept_uid for r in found.decided.rows if r.uid != r.kept_uid}
    assert len(found.found) == 75
    assert all(
        original[uid] == kept for uid, kept in left_out.items()
    )  # the RLDS one, which has 3 cameras
    assert (
        len(left_out) >= 49
    )  # one whose arm hardly moves is a little beyond what pictures alone may differ by


@pytest.mark.slow
def test_precision_and_recall_over_four_releases(tmp_path: Path) -> None:
    scenes = [scene(k) for k in range(12)]
    found = answer(
        tmp_path,
        {
            "oxe": as_oxe(tmp_path / "rlds", scenes),
            "lerobot 30": as_lerobot(tmp_path / "port30", scenes, 320, 240, 30),
            "lerobot 10": as_lerobot(tmp_path / "port10", scenes, 160, 128, 10),
            "lerobot other": as_lerobot(tmp_path / "other", others(scenes), 256, 192, 15),
        },
    )
    expected = {
        (f"{p}:{k}", f"bridge_dataset:{k}") for p in ("port30", "port10") for k in range(12)
    }
    assert len(found.found) == 12 * 6
    assert found.pairs == expected  # recall 24 of 24, precision 24 of 24
