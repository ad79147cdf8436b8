"""A WebDataset export, read with tarfile and numpy alone."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ingest.executors.inline import InlineExecutor
from ingest.export.datasets.run import run_export
from ingest.export.datasets.webdataset import WebDataset
from tests.ingest.export_cases import CAMERAS, manifest_of, numbered_corpus, page_of, plan_of
from tests.ingest.test_export_groot import shown

SEGMENTS = [("a", 0, 37), ("a", 3, 12), ("b", 0, 24), ("c", 0, 12)]
SPLITS = ["train", "val", "train", "train"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_corpus(tmp_path_factory.mktemp("numbered"))


def exported(corpus: Path, out: Path) -> Path:
    plan = plan_of(corpus, manifest_of(corpus, SEGMENTS, split=SPLITS), WebDataset())
    run_export(plan, WebDataset(), out, InlineExecutor())
    return out


def samples(out: Path) -> Iterator[tuple[str, str, dict[str, bytes]]]:
    """(split, key, files by their end) as WebDataset groups them: files of a key follow each other."""
    for path in sorted(out.glob("*/*.tar")):
        last, files = "", dict[str, bytes]()
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, end = member.name.partition(".")
                if key != last and files:
                    yield path.name.split("-")[0], last, files
                    files = {}
                body = tar.extractfile(member)
                assert body is not None
                last, files[end] = key, body.read()
        yield path.name.split("-")[0], last, files


def test_every_sample_has_its_text_rows_and_pictures(corpus: Path, tmp_path: Path) -> None:
    out = exported(corpus, tmp_path / "out")
    keys = []
    for split, key, files in samples(out):
        keys.append(key)
        page: dict[str, Any] = json.loads(files["json"])
        assert page["split"] == split
        assert page["text"] in ("do a", "do b", "do c")
        number, (start, end) = "abc".index(page["text"][-1]), (page["start"], page["end"])
        arrays = np.load(io.BytesIO(files["npz"]))
        (path,) = corpus.glob(f"datasets/*/*/data/*/episode_{number:06d}.parquet")
        stored = pq.read_table(path)
        for name, elements in page["names"].items():
            wanted = np.array(stored[name].to_pylist())[start:end]
            np.testing.assert_array_equal(arrays[name], wanted.astype(arrays[name].dtype))
            assert len(elements) == arrays[name].shape[1]
        np.testing.assert_allclose(arrays["timestamp"], np.arange(end - start) / 10, atol=1e-6)
        for c, camera in enumerate(CAMERAS):
            clip = tmp_path / "clip.mp4"
            clip.write_bytes(files[f"{camera}.mp4"])
            first = 1000 * c + 100 * number + start
            assert shown(clip) == list(range(first, first + end - start))
    assert len(keys) == len(set(keys)) == 4
    assert list(page_of(out)["samples"].values()) == [{"train": 3, "val": 1}]


def test_the_same_rows_give_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    first, second = (page_of(exported(corpus, tmp_path / name))["sha256"] for name in "ab")
    assert first == second
