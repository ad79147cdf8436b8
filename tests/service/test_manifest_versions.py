"""Manifests of a corpus spec have versions: REST names them, opens the newest, and compares two."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs.build_cases import POLICY, build, newest, write_spec
from tests.service.corpora import client_of

API = "/api/v1/manifests"


@pytest.mark.slow
def test_versions_are_listed_opened_and_compared(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, {"a": "good", "b": "good"})
    build(spec, "manifests.train")
    first = newest(spec)
    (tmp_path / "policy.yaml").write_text(POLICY % 99)
    build(spec, "manifests.train")
    second = newest(spec)
    assert first != second
    client = client_of(tmp_path / "corpus", tmp_path / "state")
    page = client.get(API).json()
    assert {(each["name"], each["version"]) for each in page["manifests"]} == {
        ("train", first),
        ("train", second),
    }
    of = {
        version: client.get(f"{API}/train?version={version}").json() for version in (first, second)
    }
    assert client.get(f"{API}/train").json() == of[second] != of[first]
    assert all("where" not in each and "mixture" not in each for each in page["manifests"])
    assert "where" in of[first]["manifest"]
    page_of_first = tmp_path / "corpus" / "manifests" / "train" / first / "manifest.json"
    text = page_of_first.read_text()
    page_of_first.write_text(text.replace("{", "[", 1))  # the row that is kept is of another page
    assert f"train/{first}" in client.get(API).json()["damaged"]
    page_of_first.write_text(text)
    assert not client.get(API).json()["damaged"]
    difference = client.get(f"{API}/train/diff/train?before_version={first}").json()
    assert (
        difference
        == client.get(
            f"{API}/train/diff/train?before_version={first}&after_version={second}"
        ).json()
    )
    same = client.get(f"{API}/train/diff/train").json()
    assert same != difference
    for missing in ("train?version=0123456789abcdef", "trai", "train?version=../train"):
        assert client.get(f"{API}/{missing}").status_code == 404
    steps = [each["step"] for each in client.get("/api/v1/overview").json()["funnel"]]
    assert [each for each in steps if each.startswith("manifest ")] == ["manifest train"]
