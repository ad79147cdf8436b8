"""From raw recordings to a manifest by the commands of a user; on Local processes and on Ray it is the same manifest.

The real set is Bridge (RLDS), GR-1 (LeRobot v2.0), VITRA (hands) and EPIC-KITCHENS: its real
annotations, over a video of hands that is not EPIC's, because none of its videos is among the samples.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from tests import generators

Raw = tuple[str, Path, tuple[str, ...]]  # source, its folder, options of ingest
WAYS = {"local": ("--workers", "2"), "ray": ("--ray",)}
NO_COPIES = "uid NOT IN (SELECT uid FROM redundant)"


def told(*words: str | Path) -> dict[str, Any]:
    """What a command says in JSON."""
    result = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert result.exit_code == 0, (words, result.output, result.exception)
    found: dict[str, Any] = json.loads(result.stdout)["result"]
    return found


def curated(corpus: Path, raw: list[Raw], way: str) -> dict[str, Any]:
    """The manifest of these recordings, and what each step said of them."""
    on = WAYS[way]
    for source, root, options in raw:
        told("ingest", source, root, "--out", corpus, *options, *on)
    measured = told("measure", corpus, *on)
    assert measured["failed"] == 0
    tiers = told("tier", corpus)
    captions = told("caption", corpus, "--backend", "rules")
    told("dedup", corpus)
    manifest = told("manifest", "build", corpus, "first", "--where", NO_COPIES, *on)
    page = corpus.parent / f"{way}.html"
    assert CliRunner().invoke(app, ["report", str(corpus), "--html", str(page)]).exit_code == 0
    facts = json.loads((corpus / "manifests/first/manifest.json").read_text())
    return {
        "tiers": tiers,
        "captions": captions,
        "manifest": manifest,
        "facts": facts,
        "page": page,
    }


def counts(found: dict[str, Any]) -> dict[tuple[str, str], int]:
    rows = found["tiers"]["tiers"]
    return {
        (r["source"], r["tier"]): r["after"]["episodes"] for r in rows if r["after"]["episodes"]
    }


@pytest.fixture
def generated(tmp_path: Path) -> list[Raw]:
    out: list[Raw] = []
    for name in ("oxe", "droid", "egodex"):
        (tmp_path / name).mkdir()
        written = generators.write(name, tmp_path / name)
        out.append(
            (name, written.root, tuple(f"--option={k}={v}" for k, v in written.options.items()))
        )
    return out


@pytest.fixture
def real(samples: Path, tmp_path: Path) -> list[Raw]:
    epic = tmp_path / "epic"
    (epic / "P01/videos").mkdir(parents=True)
    shutil.copy(samples / "epic_kitchens/annotations/EPIC_100_validation.csv", epic)
    video = next((samples / "dex_retargeting").glob("*.mp4"))
    shutil.copy(video, epic / "P01/videos/P01_11.MP4")
    damaged = ("--max-quarantined", "1")  # Bridge has one of two shards, EPIC one of 138 videos
    return [
        ("oxe", samples / "oxe_bridge_rlds", damaged),
        ("robocasa_gr1", samples / "lerobot_v20_gr1_picknplace", ()),
        ("vitra", samples / "vitra", ()),
        ("epic_kitchens", epic, damaged),
    ]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures(
    "ray_cluster"
)  # what a command finds, it uses: five commands would start Ray five times
def test_local_and_ray_give_the_same_manifest(generated: list[Raw], tmp_path: Path) -> None:
    found = {way: curated(tmp_path / way, generated, way) for way in WAYS}
    local, ray = found["local"]["facts"], found["ray"]["facts"]
    assert local["rows_sha256"] == ray["rows_sha256"]
    assert local["statistics"] == ray["statistics"]
    assert local["num_rows"] == 8
    assert counts(found["local"]) == counts(found["ray"])


@pytest.mark.slow
@pytest.mark.real
def test_real_samples_become_a_manifest(real: list[Raw], tmp_path: Path) -> None:
    found = curated(tmp_path / "local", real, "local")
    assert counts(found) == {
        ("oxe", "high"): 25,
        ("robocasa_gr1", "actionless"): 5,  # no pose is stored, and no URDF was named
        ("vitra", "excluded"): 1,  # 0.9 s
        ("epic_kitchens", "actionless"): 4,
        ("epic_kitchens", "excluded"): 1,  # shorter than a second
    }
    assert found["facts"]["num_rows"] == 34
    page = found["page"].read_text()
    assert all(source in page for source in ("oxe", "robocasa_gr1", "vitra", "epic_kitchens"))
