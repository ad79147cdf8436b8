"""A catalog that someone sent: NULL in every column, and places that lead out of the corpus. Nothing of it is a bug of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from benchmarks.synthetic import declared, publish
from ingest.corpus.snapshot import write_tables
from ingest.storage.local import LocalStorage
from schemas.catalog import TABLES
from tests.generators.corpus import episode, uid_of
from tests.service.corpora import client_of

API = "/api/v1"
TABLES_OF_EPISODES = ("measurements", "segments", "tiers", "captions", "duplicates", "latents")


def corpus_of(root: Path, episodes: list[dict[str, Any]]) -> Path:
    """One row in every other table, whose columns but the uid are NULL."""
    root.mkdir()
    (root / "corpus.json").write_text('{"format_version": 1, "uid": "hostile"}')
    disk = LocalStorage()
    pieces = {"episodes": pa.Table.from_pylist(episodes, schema=TABLES["episodes"])}
    for name in (*TABLES_OF_EPISODES, "artifacts", "verdicts", "tombstones"):
        pieces[name] = declared(name, {"uid": pa.array([uid_of(0)])}, 1)
    for name in ("runs", "sources", "dedups"):
        pieces[name] = declared(name, {}, 1)
    parts = dict.fromkeys(TABLES, ()) | {
        name: (write_tables(disk, root, name, [piece]),) for name, piece in pieces.items()
    }
    publish(disk, root, parts)
    return root


@pytest.fixture(scope="module")
def nulls(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    folder = tmp_path_factory.mktemp("nulls")
    empty = dict.fromkeys(TABLES["episodes"].names) | {"uid": uid_of(0)}
    none = dict.fromkeys(TABLES["episodes"].names)
    half = episode(1) | {
        "cameras": [dict.fromkeys(episode(1)["cameras"][0]), None],
        "tasks": [None],
    }
    return client_of(corpus_of(folder / "corpus", [empty, none, half]), folder / "state")


@pytest.mark.parametrize("sort", ["uid", "-hours", "source", "episode_id", "tier"])
def test_pages_of_nothing(nulls: TestClient, sort: str) -> None:
    page = nulls.get(f"{API}/episodes", params={"sort": sort, "limit": 1}).json()
    rest = nulls.get(
        f"{API}/episodes", params={"sort": sort, "limit": 1, "cursor": page["cursor"]}
    ).json()
    uids = {row["uid"] for each in (page, rest) for row in each["episodes"]}
    assert uids == {uid_of(0), uid_of(1)}
    assert rest["cursor"] is None


def test_details_of_nothing(nulls: TestClient) -> None:
    for uid in (uid_of(0), uid_of(1)):
        assert nulls.get(f"{API}/episodes/{uid}").status_code == 200
        for kind in ("videos/head", "frames/0/head", "sheets/head", "series"):
            assert nulls.get(f"{API}/episodes/{uid}/{kind}").status_code == 404


@pytest.mark.parametrize(
    "path",
    ["facets", "columns", "histogram?column=hours", "quarantine", "outcomes", "runs", "sources"],
)
def test_tables_of_nothing(nulls: TestClient, path: str) -> None:
    assert nulls.get(f"{API}/{path}").status_code == 200
    assert nulls.get("/metrics").status_code == 200


@pytest.mark.parametrize(
    ("dataset_path", "camera"),
    [
        ("../../../../etc", "head"),
        ("/etc", "head"),
        ("datasets/a", "../../../../../../etc/passwd"),
        ("datasets/a", "..\x00"),
        ("datasets/a", "x" * 5000),
        ("datasets//a", "head"),
        ("datasets/./a", "head"),
    ],
)
def test_places_that_lead_out_of_the_corpus(tmp_path: Path, dataset_path: str, camera: str) -> None:
    row = episode(0)
    row["cameras"] = [row["cameras"][0] | {"name": camera}]
    client = client_of(
        corpus_of(tmp_path / "corpus", [row | {"dataset_path": dataset_path}]), tmp_path / "state"
    )
    detail = client.get(f"{API}/episodes/{row['uid']}").json()
    (video,) = detail["videos"]
    assert video["camera"] == camera
    for path in (video["href"], f"{API}/episodes/{row['uid']}/series"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] in (
            "unsafe_path",
            "missing_video",
            "unreadable",
            "not_found",
        )
        assert "root:" not in answer.text
