"""`eicorpus verify` of a corpus in a bucket: every object is read, none is kept, and copies that lie here say nothing."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ingest.corpus import snapshot
from ingest.corpus.working_copy import WorkingCopy, attach
from ingest.corpus.writer import complete
from ingest.storage.object_store import ObjectStore
from ingest.verify.corpus import verify
from ingest.verify.finding import CheckCode, Finding
from jobs.stages.verify import run_verify
from tests.curation.lifecycle_corpus import build


class Watched(ObjectStore):
    """Notes which files are copied and the most bytes that lie in folders of `verify` at one time."""

    folder: Path
    files: list[str]
    most = 0

    def get_file(
        self, key: str, path: Path, *, max_bytes: int | None = None, e_tag: str | None = None
    ) -> str:
        self.files.append(key)
        digest = super().get_file(key, path, max_bytes=max_bytes, e_tag=e_tag)
        with LOCK:
            lying = 0
            for folder, _, names in os.walk(self.folder):  # others are being removed
                for name in names:
                    with suppress(FileNotFoundError):
                        lying += os.stat(f"{folder}/{name}").st_size
            self.most = max(self.most, lying)
        return digest


LOCK = threading.Lock()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("verify"))


@pytest.fixture
def copy(
    corpus: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> WorkingCopy:
    """A working copy that has good copies of all files."""
    store = Watched(f"memory://{abs(hash(request.node.nodeid))}/c")
    store.files, store.folder = [], tmp_path / "tmp"
    store.folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(store.folder))
    for path in sorted(corpus.rglob("*")):
        name = path.relative_to(corpus).as_posix()
        if path.is_file() and name.startswith(("catalog/", "datasets/", "corpus.json")):
            store.put_file(name, path)
    copy = attach(tmp_path / "copy", str(store.uri), store)
    complete(copy, copy.refresh())
    store.files.clear()
    return copy


def found(copy: WorkingCopy, *, deep: bool = False) -> list[Finding]:
    return verify(copy.root, workers=2, deep=deep, bucket=copy)


def test_every_object_is_read_and_none_is_kept(copy: WorkingCopy) -> None:
    store = copy.store
    assert isinstance(store, Watched)
    assert found(copy, deep=True) == []
    state = snapshot.load(copy.root)
    parts = [part.path for parts in state.tables.values() for part in parts]
    media = [k for k in store.list("datasets") if "/meta/" not in k]
    assert sorted(store.files) == sorted([*parts, *media])
    assert list(store.folder.iterdir()) == []
    total = sum(store.size(key) or 0 for key in (*parts, *media))
    assert store.most < total / 2


Damage = Callable[[ObjectStore, str], None]


def other_bytes(store: ObjectStore, key: str) -> None:
    data = bytearray(store.get(key, max_bytes=1 << 26))
    data[len(data) // 2] ^= 255
    store.put(key, bytes(data))


def longer(store: ObjectStore, key: str) -> None:
    store.put(key, store.get(key, max_bytes=1 << 26) + b"more")


@pytest.mark.parametrize(
    ("ending", "damage", "check"),
    [
        (".mp4", other_bytes, CheckCode.FILE_CHANGED),
        (".mp4", longer, CheckCode.FILE_CHANGED),
        (".mp4", ObjectStore.delete, CheckCode.FILE_MISSING),
        ("000002.parquet", other_bytes, CheckCode.FILE_CHANGED),
        (".safetensors", other_bytes, CheckCode.LATENTS_CHANGED),
        (".safetensors", ObjectStore.delete, CheckCode.LATENTS_MISSING),
    ],
)
def test_a_damaged_object_is_found_though_a_good_copy_is_here(
    copy: WorkingCopy, ending: str, damage: Damage, check: CheckCode
) -> None:
    store = ObjectStore(copy.link.uri)
    key = next(key for key in store.list("datasets") if key.endswith(ending))
    damage(store, key)
    findings = found(copy)
    assert (check, key) in [(each.check, each.path) for each in findings]
    assert {each.path for each in findings} == {key}
    assert run_verify(copy.root, 2).findings == findings  # as the command does


def test_a_damaged_object_of_the_catalog_is_found(copy: WorkingCopy) -> None:
    store = ObjectStore(copy.link.uri)
    (part,) = snapshot.load(copy.root).parts("captions")
    other_bytes(store, part.path)
    (finding,) = found(copy)
    assert (finding.check, finding.path) == (CheckCode.CATALOG_FILE, part.path)
