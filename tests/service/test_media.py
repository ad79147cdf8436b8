"""Pictures and series of episodes, and what happens when their files are not there or lead elsewhere."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from ingest.catalog.catalog import Catalog
from ingest.recipe import Recipe, VideoSettings
from ingest.stored_episode import StoredEpisode
from jobs.service import api_media
from jobs.service.series import min_max
from tests.curation.lifecycle_corpus import rows_of, uids
from tests.faults.runs import run
from tests.faults.toy import write_toy
from tests.service.corpora import client_of

API = "/api/v1"


@pytest.fixture
def copy(toy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy, tmp_path / "corpus"))


def picture_of(jpeg: bytes) -> Any:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture


def test_a_frame_is_the_picture_of_its_timestep(toy: Path, toy_client: TestClient) -> None:
    uid = uids(toy)["a"]
    with Catalog.open(toy) as catalog:
        pictures = list(StoredEpisode.read(catalog, uid).iter_frames("front"))
    for timestep in (0, 3, len(pictures) - 1):
        answer = toy_client.get(f"{API}/episodes/{uid}/frames/{timestep}/front")
        assert answer.status_code == 200
        decoded = picture_of(answer.content)
        rgb = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(int)
        differences = [np.abs(rgb - p.astype(int)).mean() for p in pictures]
        assert int(np.argmin(differences)) == timestep
    small = toy_client.get(f"{API}/episodes/{uid}/frames/0/front", params={"width": 24})
    assert picture_of(small.content).shape[1] == 24
    tag = small.headers["etag"]
    again = toy_client.get(
        f"{API}/episodes/{uid}/frames/0/front",
        params={"width": 24},
        headers={"If-None-Match": tag},
    )
    assert again.status_code == 304
    other = toy_client.get(f"{API}/episodes/{uid}/frames/1/front", headers={"If-None-Match": tag})
    assert other.status_code == 200


def test_a_video_says_its_codec(toy: Path, toy_client: TestClient, tmp_path: Path) -> None:
    """A page asks the browser whether it plays that; many do not play what has no loss."""
    lossless = tmp_path / "corpus"
    recipe = Recipe(video=VideoSettings(crf=0))
    run(write_toy(tmp_path / "raw", {"a": "good"}), lossless, recipe=recipe)
    types = {}
    for corpus, client in ((toy, toy_client), (lossless, client_of(lossless, tmp_path / "state"))):
        address = f"{API}/episodes/{uids(corpus)['a']}/videos/front"
        head, whole = client.head(address), client.get(address)
        assert head.headers["content-type"] == whole.headers["content-type"]
        part = client.get(address, headers={"Range": "bytes=0-0"})
        assert (part.status_code, part.headers["content-type"]) == (
            206,
            head.headers["content-type"],
        )
        types[corpus] = head.headers["content-type"]
    assert re.fullmatch(r'video/mp4; codecs="avc1\.64[0-9A-F]{4}"', types[toy])
    assert re.fullmatch(r'video/mp4; codecs="avc1\.F4[0-9A-F]{4}"', types[lossless])


def test_a_video_that_is_none_has_the_type_of_any(copy: Path, tmp_path: Path) -> None:
    client, uid = client_of(copy, tmp_path / "state"), uids(copy)["a"]
    for video in copy.rglob("*.mp4"):
        video.unlink()
        video.write_bytes(b"no video")
    answer = client.head(f"{API}/episodes/{uid}/videos/front")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")


def test_a_sheet_is_a_picture(toy: Path, toy_client: TestClient) -> None:
    answer = toy_client.get(f"{API}/episodes/{uids(toy)['a']}/sheets/front")
    assert answer.headers["content-type"] == "image/jpeg"
    assert picture_of(answer.content).size


def test_pictures_are_made_a_few_at_a_time(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no place is free, and where too many wait, the answer is 503; what is kept needs no place."""
    monkeypatch.setattr(api_media, "WAIT_S", 0.0)
    client = client_of(copy, tmp_path / "state")
    frames = f"{API}/episodes/{uids(copy)['a']}/frames"
    assert client.get(f"{frames}/0/front").status_code == 200
    for places, count in (
        (api_media._decoding, api_media.MAX_DECODES),
        (api_media._asking, api_media.MAX_WAITING),
    ):
        for _ in range(count):
            assert places.acquire(blocking=False)
        refused = client.get(f"{frames}/1/front")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert refused.json()["error"]["code"] == "busy"
        assert client.get(f"{frames}/0/front").status_code == 200
        for _ in range(count):
            places.release()
    assert client.get(f"{frames}/1/front").status_code == 200
    assert "eicorpus_decode_wait_seconds_count 3.0" in client.get("/metrics").text


@pytest.mark.parametrize("timestep", [-1, 10**9, "x", "1.5"])
def test_a_frame_that_is_not_there(toy: Path, toy_client: TestClient, timestep: object) -> None:
    answer = toy_client.get(f"{API}/episodes/{uids(toy)['a']}/frames/{timestep}/front")
    assert answer.status_code in (404, 422)
    assert answer.json()["ok"] is False


@pytest.mark.parametrize(
    "camera",
    [
        "no_such",
        "..%2f..%2f..%2fcorpus.json",
        "%2e%2e/%2e%2e/etc/passwd",
        "front%00",
        "%2fetc%2fpasswd",
        "front\\..\\front",
    ],
)
@pytest.mark.parametrize("kind", ["videos", "frames/0", "sheets"])
def test_a_camera_is_a_name_and_never_a_path(
    toy: Path, toy_client: TestClient, camera: str, kind: str
) -> None:
    answer = toy_client.get(f"{API}/episodes/{uids(toy)['a']}/{kind}/{camera}")
    assert answer.status_code in (404, 422)
    assert b"format_version" not in answer.content
    assert b"root:" not in answer.content


@pytest.mark.parametrize(
    "uid", ["..", "%2e%2e", "..%2f..%2fcorpus.json", "a%00b", "' OR 1=1 --", "x" * 5000, "%ff%fe"]
)
def test_a_uid_is_a_name_and_never_a_path(toy_client: TestClient, uid: str) -> None:
    answer = toy_client.get(f"{API}/episodes/{uid}")
    assert answer.status_code in (404, 307)
    assert b"format_version" not in answer.content


def test_a_video_that_has_gone(copy: Path, tmp_path: Path) -> None:
    client = client_of(copy, tmp_path / "state")
    video = next(r for r in rows_of(copy, "artifacts") if r["kind"] == "video")
    uid = video["uid"]
    (copy / video["path"]).unlink()
    for kind in ("videos/front", "frames/0/front", "sheets/front"):
        answer = client.get(f"{API}/episodes/{uid}/{kind}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "missing_video")
    assert client.get(f"{API}/episodes/{uid}").status_code == 200
    assert client.get(f"{API}/episodes/{uid}/series").status_code == 200


def test_a_video_that_is_a_link_is_not_followed(copy: Path, tmp_path: Path) -> None:
    client = client_of(copy, tmp_path / "state")
    video = next(r for r in rows_of(copy, "artifacts") if r["kind"] == "video")
    secret = tmp_path / "secret"
    secret.write_text("a secret of the machine")
    (copy / video["path"]).unlink()
    (copy / video["path"]).symlink_to(secret)
    for kind in ("videos/front", "frames/0/front", "sheets/front"):
        answer = client.get(f"{API}/episodes/{video['uid']}/{kind}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unsafe_path")
        assert b"a secret" not in answer.content


def test_a_video_that_is_damaged(copy: Path, tmp_path: Path) -> None:
    client = client_of(copy, tmp_path / "state")
    video = next(r for r in rows_of(copy, "artifacts") if r["kind"] == "video")
    path = copy / video["path"]
    path.write_bytes(path.read_bytes()[:300])
    answer = client.get(f"{API}/episodes/{video['uid']}/frames/0/front")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] != "bug"
    assert client.get(f"{API}/episodes/{video['uid']}/videos/front").content == path.read_bytes()


def test_rows_that_have_gone(copy: Path, tmp_path: Path) -> None:
    client = client_of(copy, tmp_path / "state")
    data = next(r for r in rows_of(copy, "artifacts") if r["kind"] == "data")
    (copy / data["path"]).unlink()
    answer = client.get(f"{API}/episodes/{data['uid']}/series")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unreadable")
    assert client.get(f"{API}/episodes/{data['uid']}").status_code == 200


def test_series_are_the_values_of_the_file(toy: Path, toy_client: TestClient) -> None:
    uid = uids(toy)["c"]
    with Catalog.open(toy) as catalog:
        stored = StoredEpisode.read(catalog, uid)
    answer = toy_client.get(f"{API}/episodes/{uid}/series", params={"start": 2, "end": 9}).json()
    names = stored.features["observation.state"]
    state = [c for c in answer["channels"] if c["feature"] == "observation.state"]
    assert [c["name"] for c in state] == list(names)
    for place, channel in enumerate(state):
        assert channel["timesteps"] == list(range(2, 9))
        assert np.allclose(channel["values"], stored.state[2:9, place], equal_nan=True)
    arrow = toy_client.get(
        f"{API}/episodes/{uid}/series", params={"start": 2, "end": 9, "format": "arrow"}
    )
    table = pa.ipc.open_stream(arrow.content).read_all()
    assert table.num_rows == 7 * len(answer["channels"])
    assert table["value"].to_pylist() == [v for c in answer["channels"] for v in c["values"]]
    is_valid = stored.valid("action", "left.position_m")
    spans = [
        s for s in answer["invalid"] if s["part"] == "left.position_m" and s["feature"] == "action"
    ]
    marked = np.ones(stored.length, dtype=bool)
    for span in spans:
        marked[span["start"] : span["end"]] = False
    assert marked[2:9].tolist() == is_valid[2:9].tolist()


@pytest.mark.parametrize("query", [{"feature": "no.such"}, {"start": 999}, {"start": 5, "end": 5}])
def test_series_that_are_not_there(
    toy: Path, toy_client: TestClient, query: dict[str, Any]
) -> None:
    answer = toy_client.get(f"{API}/episodes/{uids(toy)['a']}/series", params=query)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "usage")


@pytest.mark.parametrize("points", [4, 5, 100, 2000])
def test_thinning_keeps_ends_and_extremes(points: int) -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=9999).astype(np.float32)
    values[4321], values[77] = 50, -50
    kept = min_max(values, points)
    assert len(kept) <= points
    assert (np.diff(kept) > 0).all()
    assert {0, 77, 4321, 9998} <= set(kept.tolist())


def test_thinning_keeps_gaps_and_short_series() -> None:
    values = np.arange(1000, dtype=np.float32)
    values[300:700] = np.nan
    kept = min_max(values, 50)
    assert np.isnan(values[kept]).sum() > 5
    assert min_max(values[:50], 50).tolist() == list(range(50))
