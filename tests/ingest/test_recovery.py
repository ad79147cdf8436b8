"""Recovery: whatever a stop can leave behind goes, whatever the snapshot names stays, and meta/ is made again to the byte."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.corpus import snapshot
from ingest.corpus.commit import datasets_of
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.writer import rebuild, recover, writing
from ingest.storage.local import LocalStorage
from tests.faults.runs import run, tree
from tests.faults.toy import write_toy


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes of one dataset, committed in batches."""
    folder = tmp_path_factory.mktemp("recovery")
    run(write_toy(folder / "raw", dict.fromkeys("abc", "good")), folder / "corpus")
    return folder / "corpus"


@pytest.fixture
def corpus(made: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(made, tmp_path / "corpus")


def recovered(corpus: Path) -> list[str]:
    current = snapshot.load(corpus)
    return recover(CorpusLayout(corpus), LocalStorage(), current, datasets_of(corpus, current))


def the_dataset(corpus: Path) -> Path:
    (info,) = corpus.glob("datasets/*/*/meta/info.json")
    return info.parent.parent


def put(path: Path, data: bytes = b"left over") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_a_sound_corpus_is_left_alone(corpus: Path) -> None:
    before = tree(corpus)
    assert recovered(corpus) == []
    assert tree(corpus) == before


LEFTOVERS: dict[str, Callable[[Path], Path]] = {
    "rows_without_a_commit": lambda c: the_dataset(c) / "data/chunk-000/episode_000003.parquet",
    "a_video_without_a_commit": lambda c: (
        the_dataset(c) / "videos/chunk-000/observation.images.front/episode_000007.mp4"
    ),
    "a_later_chunk": lambda c: the_dataset(c) / "data/chunk-001/episode_001000.parquet",
    "half_a_file": lambda c: the_dataset(c) / "data/chunk-000/.episode_000001.parquet.part",
    "half_of_meta": lambda c: the_dataset(c) / "meta/.info.json.part",
    "another_dataset": lambda c: (
        c / "datasets/toy/umi.ffffffff/data/chunk-000/episode_000000.parquet"
    ),
    "its_meta": lambda c: c / "datasets/toy/umi.ffffffff/meta/info.json",
    "an_unpublished_part": lambda c: c / "catalog/episodes/part-00.parquet",
    "half_a_snapshot": lambda c: c / "catalog/_snapshots/.00000009.json.1.part",
}


@pytest.mark.parametrize("name", LEFTOVERS)
def test_leftovers_go_and_nothing_else(corpus: Path, name: str) -> None:
    before = tree(corpus)
    path = put(LEFTOVERS[name](corpus))
    (done,) = recovered(corpus)
    assert path.relative_to(corpus).as_posix() in done
    assert tree(corpus) == before
    assert recovered(corpus) == []


def test_staging_of_committed_episodes_goes_and_of_others_stays(corpus: Path) -> None:
    (uid, *_) = snapshot.load(corpus).read(corpus, "episodes", ["uid"])["uid"].to_pylist()
    put(corpus / f"staging/{uid}.0000-v1/staged.arrow")
    other = put(corpus / "staging/11111111-1111.0000-v1/staged.arrow")
    (done,) = recovered(corpus)
    assert uid in done
    assert [path.name for path in (corpus / "staging").iterdir()] == [other.parent.name]


def test_latents_are_kept(corpus: Path) -> None:
    """They are big, and their own catalog rows decide about them."""
    path = the_dataset(corpus) / "latents/dino/chunk-000/front/episode_000000.safetensors"
    put(path)
    assert recovered(corpus) == []
    assert path.exists()


TORN: dict[str, Callable[[Path], object]] = {
    "no_marker": lambda meta: (meta / "eicorpus.json").unlink(),
    "torn_marker": lambda meta: (meta / "eicorpus.json").write_text('{"epis'),
    "marker_of_an_older_commit": lambda meta: (meta / "eicorpus.json").write_text(
        json.dumps({"episodes": 2})
    ),
    "all_gone": lambda meta: [path.unlink() for path in meta.iterdir()],
    "torn_line": lambda meta: (
        (meta / "eicorpus.json").unlink(),
        (meta / "episodes.jsonl").write_text('{"episode_index": 0, "ta'),
    ),
    "a_line_twice": lambda meta: (
        (meta / "eicorpus.json").unlink(),
        (meta / "tasks.jsonl").write_text(2 * (meta / "tasks.jsonl").read_text()),
    ),
}


LINE_FILES = ("tasks.jsonl", "episodes.jsonl", "episodes_stats.jsonl")
# What a cut of the power makes of a file whose bytes were not durable; its size may be that of before.
LOST: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    "cut": lambda data: data[: len(data) // 2],
    "a_line_less": lambda data: data[: data[:-1].rindex(b"\n") + 1],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("name", [*LINE_FILES, "info.json", "modality.json", "eicorpus.json"])
def test_what_a_power_cut_made_of_meta_is_seen_and_made_again(
    corpus: Path, name: str, lost: str
) -> None:
    before = tree(corpus)
    path = the_dataset(corpus) / "meta" / name
    path.write_bytes(LOST[lost](path.read_bytes()))
    (done,) = recovered(corpus)
    assert done.startswith("rebuilt datasets/toy/umi.")
    assert tree(corpus) == before


@pytest.mark.parametrize("name", LINE_FILES)
def test_any_writer_sees_a_size_that_is_not_vouched_for(corpus: Path, name: str) -> None:
    """Although the last writer ended in order: somebody else's mistake."""
    before = tree(corpus)
    path = the_dataset(corpus) / "meta" / name
    path.write_bytes(path.read_bytes()[:-1])
    with writing(CorpusLayout(corpus), LocalStorage()) as done:
        assert [line.partition(" ")[0] for line in done] == ["rebuilt"]
    assert tree(corpus) == before
    with writing(CorpusLayout(corpus), LocalStorage()) as done:
        assert done == []


@pytest.mark.parametrize("name", TORN)
def test_meta_is_made_again_to_the_byte(corpus: Path, name: str) -> None:
    before = tree(corpus)
    TORN[name](the_dataset(corpus) / "meta")
    (done,) = recovered(corpus)
    assert done.startswith("rebuilt datasets/toy/umi.")
    assert tree(corpus) == before


def test_appending_and_rebuilding_write_the_same_meta(corpus: Path) -> None:
    """Commits append to meta/, recovery projects all of it: two ways, the same bytes."""
    before = tree(corpus)
    current = snapshot.load(corpus)
    for dataset in datasets_of(corpus, current).values():
        rebuild(CorpusLayout(corpus), LocalStorage(), current, dataset)
    assert tree(corpus) == before
