"""Contact sheets on disk: made once over restarts, bounded, gone with their episode; trouble with the file costs time and no answer."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.service import api_media, media
from jobs.service.byte_cache import ByteCache
from jobs.service.sheet_store import FILE, SheetStore
from tests.curation.lifecycle_corpus import uids
from tests.service.corpora import client_of


class Maker:
    """Counts how often a sheet is made."""

    def __init__(self, jpeg: bytes = b"jpeg") -> None:
        self.jpeg, self.count = jpeg, 0

    def __call__(self) -> bytes:
        self.count += 1
        return self.jpeg


def change(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / FILE)) as connection, connection:
        connection.execute(statement)


def test_a_sheet_is_made_once_by_all_servers(tmp_path: Path) -> None:
    make = Maker()
    for _ in range(3):
        assert SheetStore(tmp_path).get("key", "uid", make) == b"jpeg"
    assert make.count == 1
    assert SheetStore(tmp_path).get("other key", "uid", make) == b"jpeg"
    assert make.count == 2


def test_the_sheets_of_an_erased_episode_leave_the_file(tmp_path: Path) -> None:
    store, kept, erased = SheetStore(tmp_path), Maker(b"kept " * 9), Maker(b"erased " * 9)
    store.get("a", "kept uid", kept)
    store.get("b", "erased uid", erased)
    store.keep(pa.chunked_array([["another uid", "kept uid"]]))
    store.get("a", "kept uid", kept)
    assert (kept.count, erased.count) == (1, 1)
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert (kept.jpeg in content, erased.jpeg in content) == (True, False)
    store.get("b", "erased uid", erased)
    assert erased.count == 2


def test_the_oldest_go_where_there_are_too_many_bytes(tmp_path: Path) -> None:
    store = SheetStore(tmp_path, max_bytes=300_000)
    for number in range(100):
        store.get(f"key {number}", "uid", Maker(bytes([number]) * 10_000))
    last, first = Maker(), Maker()
    store.get("key 99", "uid", last)
    store.get("key 0", "uid", first)
    assert (last.count, first.count) == (0, 1)
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert (tmp_path / FILE).stat().st_size < 400_000


def test_a_sheet_that_was_changed_is_made_again(tmp_path: Path) -> None:
    make = Maker()
    SheetStore(tmp_path).get("key", "uid", make)
    change(tmp_path, "UPDATE sheets SET jpeg = x'00'")
    for _ in range(2):
        assert SheetStore(tmp_path).get("key", "uid", make) == b"jpeg"
    assert make.count == 2


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database, whatever its name says" * 100)
    make = Maker()
    for _ in range(3):
        assert SheetStore(tmp_path).get("key", "uid", make) == b"jpeg"
    assert make.count == 1


@pytest.mark.parametrize("trouble", ["no folder", "a folder in its place", "full"])
def test_a_sheet_that_cannot_be_kept_is_an_answer(tmp_path: Path, trouble: str) -> None:
    folder = tmp_path / "state"
    if trouble != "no folder":
        folder.mkdir()
    if trouble == "a folder in its place":
        (folder / FILE).mkdir()
    store, make = SheetStore(folder), Maker(b"x" * 5000)
    if trouble == "full":
        store.get("first", "uid", make)
        change(
            folder,
            "CREATE TRIGGER full BEFORE INSERT ON sheets BEGIN SELECT RAISE(FAIL, 'full'); END",
        )
    before = make.count
    for _ in range(2):
        assert store.get("key", "uid", make) == make.jpeg
    assert make.count == before + 2
    store.keep(pa.chunked_array([["other"]]))


def test_a_server_that_starts_again_draws_no_sheet(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Path(shutil.copytree(toy, tmp_path / "corpus"))
    address = f"/api/v1/episodes/{uids(corpus)['a']}/sheets/front"
    first = client_of(corpus, tmp_path / "state").get(address)
    monkeypatch.setattr(api_media, "_pictures", ByteCache())
    made = Maker(b"another")
    monkeypatch.setattr(media, "sheet_jpeg", lambda *_: made())
    again = client_of(corpus, tmp_path / "state").get(address)
    assert (again.status_code, again.content) == (200, first.content)
    # A video that was replaced has another sheet.
    monkeypatch.setattr(api_media, "_pictures", ByteCache())
    for video in corpus.rglob("*.mp4"):
        shutil.copy2(video, video.with_suffix(".new"))
        video.with_suffix(".new").rename(video)
    assert client_of(corpus, tmp_path / "state").get(address).content == b"another"
