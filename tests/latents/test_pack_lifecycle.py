"""What becomes of packs: an erased episode leaves them, replaced ones are collected, files of their own go into them, a check sees what is wrong."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from benchmarks.annotated_corpus import build_manifest
from ingest.corpus import publishing, snapshot
from ingest.corpus.commit import datasets_of
from ingest.corpus.latent_packs import replaced_latents
from ingest.corpus.layout import CorpusLayout, open_corpus
from ingest.corpus.snapshot import Part, Snapshot
from ingest.corpus.snapshot_list import load_all
from ingest.corpus.working_copy import attach
from ingest.corpus.writer import complete, recover, writing
from ingest.curation.manifests.issue import IssueKind
from ingest.maintenance import pack_latents as packing_module
from ingest.maintenance.erase import forget
from ingest.maintenance.erase_bucket import forget_in_bucket
from ingest.maintenance.gc import collect_garbage, plan_gc
from ingest.maintenance.pack_latents import PackTally, pack_latents, plan_packs
from ingest.models.encoder import ImageEncoder
from ingest.storage.local import LocalStorage
from ingest.storage.object_store import ObjectStore
from ingest.verify.corpus import verify
from ingest.verify.manifest import verify_manifest
from schemas.catalog import TABLES
from schemas.committed_rows import LatentRow
from schemas.manifest import ROW_SCHEMA, load_rows
from tests.curation.manifest_cases import invoke, policy
from tests.faults.disks import CuttingDisk, PowerCut
from tests.faults.runs import tree
from tests.latents.corpora import encode, rows_of
from tests.latents.test_packs import BIG, by_uid, bytes_of_row, packs_of

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def packed(corpus: Path, tiny: ImageEncoder) -> Path:
    encode(corpus, tiny, pack_bytes=BIG)
    return corpus


@pytest.fixture
def loose(corpus: Path, tiny: ImageEncoder) -> Path:
    encode(corpus, tiny)
    return corpus


def uid_of(corpus: Path, episode_index: int) -> str:
    return next(
        str(r["uid"]) for r in rows_of(corpus, "episodes") if r["episode_index"] == episode_index
    )


def forgotten(corpus: Path, uid: str, disk: LocalStorage | None = None) -> None:
    how: dict[str, Any] = {"reason": "asked", "run_id": "forget-1", "erased_at": NOW}
    forget(open_corpus(corpus), disk or LocalStorage(), [uid], **how)


def pack_all(corpus: Path, pack_bytes: int = BIG, run_id: str = "pack-1") -> PackTally:
    opened, current = open_corpus(corpus), snapshot.load(corpus)
    plan = plan_packs(opened, current, pack_bytes)
    return pack_latents(opened, LocalStorage(corpus), current, plan, run_id)[0]


def collected(corpus: Path) -> tuple[str, ...]:
    opened = open_corpus(corpus)
    garbage = plan_gc(opened, keep=1, older_than_s=0.0, now_s=1e12)
    collect_garbage(opened, LocalStorage(corpus), garbage)
    return garbage.latents


def checks(corpus: Path, *, deep: bool = False) -> list[str]:
    return [found.check.value for found in verify(corpus, deep=deep)]


# --- forget ----------------------------------------------------------------------------------------------------------


def test_an_erased_episode_leaves_its_pack_and_the_others_stay_where_they_are(
    packed: Path,
) -> None:
    uid = uid_of(packed, 1)
    before = by_uid(packed)
    secret = bytes_of_row(packed, before[uid])
    kept = {u: bytes_of_row(packed, row) for u, row in before.items() if u != uid}
    [pack] = packs_of(packed)
    size = pack.stat().st_size
    forgotten(packed, uid)
    data = pack.read_bytes()
    assert len(data) == size
    first = before[uid]["pack_offset"]
    assert data[first : first + len(secret)] == bytes(len(secret))
    for at in range(2048, len(secret) - 64, 64):  # nor do its tokens lie anywhere else
        assert secret[at : at + 64] not in data
    after = by_uid(packed)
    assert after == {u: row for u, row in before.items() if u != uid}
    assert {u: bytes_of_row(packed, row) for u, row in after.items()} == kept
    with tarfile.open(pack) as opened:
        assert [name[:7] for name in opened.getnames()] == ["episode", "erased.", "episode"]
    assert checks(packed, deep=True) == []
    assert uid not in pack.read_bytes().decode("latin1")


def test_an_erased_episode_leaves_the_pack_of_a_bucket(packed: Path, tmp_path: Path) -> None:
    """The object gets the bytes that a pack on a local disk would get, and another machine reads the others."""
    store = ObjectStore(f"memory://{packed.parent.name}/c")
    for path in packed.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            store.put_file(path.relative_to(packed).as_posix(), path)
    uid, [pack] = uid_of(packed, 1), packs_of(packed)
    secret = bytes_of_row(packed, by_uid(packed)[uid])
    copy = attach(tmp_path / "one", str(store.uri), store)
    copy.refresh()
    disk = LocalStorage(copy.root)
    how: dict[str, Any] = {"reason": "asked", "run_id": "forget-1", "erased_at": NOW}
    with writing(CorpusLayout(copy.root), disk, block_recovers=True):
        forget_in_bucket(copy, disk, [uid], **how)
    key = pack.relative_to(packed).as_posix()
    stored = store.get(key, max_bytes=1 << 30)
    forgotten(packed, uid)
    assert stored == pack.read_bytes()
    assert secret[2048:2112] not in stored
    later = attach(tmp_path / "two", str(store.uri), store)
    complete(later, later.refresh())
    assert by_uid(later.root) == by_uid(packed)
    assert checks(later.root, deep=True) == []


def test_a_member_that_no_row_names_is_erased_too(packed: Path, tiny: ImageEncoder) -> None:
    """Encoded again into another pack: the older member is still there."""
    uid = uid_of(packed, 1)
    [old] = packs_of(packed)
    data = old.read_bytes()
    row = by_uid(packed)[uid]
    old.write_bytes(data[: row["pack_offset"] + 10])
    encode(packed, tiny, run_id="latents-2", pack_bytes=BIG)
    old.write_bytes(data)  # it comes back from a copy
    assert len(packs_of(packed)) == 2
    forgotten(packed, uid)
    for pack in packs_of(packed):
        assert uid not in pack.read_bytes().decode("latin1")


def test_a_pack_that_cannot_be_read_is_removed_with_the_episode(packed: Path) -> None:
    """It cannot be shown that it does not hold it."""
    [pack] = packs_of(packed)
    data = bytearray(pack.read_bytes())
    data[0:512] = b"x" * 512
    pack.write_bytes(data)
    forgotten(packed, uid_of(packed, 1))
    assert not packs_of(packed)


@pytest.mark.slow
def test_the_power_goes_while_an_episode_is_erased(
    built: Path, tiny: ImageEncoder, tmp_path: Path
) -> None:
    """The power goes after any operation: the next writer finishes the erasure or it never began, and no pack is half-written."""
    base = Path(shutil.copytree(built, tmp_path / "base"))
    encode(base, tiny, pack_bytes=BIG)
    uid = uid_of(base, 1)
    whole = Path(shutil.copytree(base, tmp_path / "whole"))
    disk = CuttingDisk(10**6)
    forgotten(whole, uid, disk)
    [pack] = packs_of(whole)
    erased = pack.read_bytes()
    [before] = [p.read_bytes() for p in packs_of(base)]
    for allowed in range(0, disk.done, 3):
        corpus = Path(shutil.copytree(base, tmp_path / f"cut-{allowed}"))
        with pytest.raises(PowerCut):
            forgotten(corpus, uid, CuttingDisk(allowed))
        [pack] = packs_of(corpus)
        assert pack.read_bytes() in (before, erased)
        opened, current = open_corpus(corpus), snapshot.load(corpus)
        is_committed = uid not in by_uid(corpus)
        recover(opened, LocalStorage(corpus), current, datasets_of(corpus, current))
        assert pack.read_bytes() == (erased if is_committed else before), allowed


# --- gc --------------------------------------------------------------------------------------------------------------


def test_files_that_were_put_into_a_pack_are_collected(loose: Path) -> None:
    before = {uid: (loose / row["path"]).read_bytes() for uid, row in by_uid(loose).items()}
    tally = pack_all(loose)
    assert (tally.files, tally.packed, tally.packs) == (3, 3, 1)
    newest = {row["uid"]: row for row in rows_of(loose) if row["run_id"] == "pack-1"}
    assert {uid: bytes_of_row(loose, row) for uid, row in newest.items()} == before
    assert len(list(loose.rglob("*.safetensors"))) == 3
    assert checks(loose, deep=True) == []
    assert len(collected(loose)) == 3
    assert not list(loose.rglob("*.safetensors"))
    assert checks(loose, deep=True) == []
    assert len(packs_of(loose)) == 1
    assert not collected(loose)


def test_nothing_is_collected_that_a_snapshot_still_needs(loose: Path) -> None:
    pack_all(loose)
    opened = open_corpus(loose)
    assert not plan_gc(opened, keep=2, older_than_s=0.0, now_s=1e12).latents
    assert len(plan_gc(opened, keep=1, older_than_s=0.0, now_s=1e12).latents) == 3


@pytest.mark.parametrize("place", ["data", "video", "meta", "latents of another encoder"])
def test_no_row_of_a_stranger_makes_it_delete_what_is_no_file_of_latents(
    loose: Path, place: str
) -> None:
    """A replaced row names a file of an episode."""
    dataset = loose / rows_of(loose, "episodes")[0]["dataset_path"]
    path = {
        "data": next(dataset.rglob("*.parquet")),
        "video": next(dataset.rglob("*.mp4")),
        "meta": dataset / "meta" / "info.json",
        "latents of another encoder": dataset
        / "latents/other-0/chunk-000/a/episode_000000.safetensors",
    }[place]
    if not path.exists():
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")

    def lie(rows: list[dict[str, Any]]) -> None:
        named = path.relative_to(loose).as_posix()
        rows.append(rows[0] | {"run_id": "a", "path": named})

    recommit(loose, lie)
    assert not collected(loose)
    assert path.is_file()


def test_what_each_kept_snapshot_reads_is_needed(
    loose: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old rows in a kept snapshot, newer ones in two others; each part is read once."""
    before = {row["path"] for row in rows_of(loose)}
    pack_all(loose, run_id="pack-1", pack_bytes=1)
    first = {row["path"] for row in rows_of(loose)} - before
    pack_all(loose, run_id="pack-2")
    every = load_all(loose)
    corpus = open_corpus(loose)
    assert not replaced_latents(corpus, every, every)
    assert set(replaced_latents(corpus, every, every[-1:])) == before | first
    assert set(replaced_latents(corpus, every, every[-2:])) == before
    assert set(replaced_latents(corpus, every, [every[-1], every[-3]])) == first
    assert set(replaced_latents(corpus, every, every[:1])) == {
        row["path"] for row in rows_of(loose)
    }
    read = Snapshot.read
    parts_read: list[Part] = []

    def watched(self: Snapshot, root: Path, name: str, columns: list[str]) -> pa.Table:
        parts_read.extend(self.parts(name))
        return read(self, root, name, columns)

    monkeypatch.setattr(Snapshot, "read", watched)
    replaced_latents(corpus, every, every)
    assert len(parts_read) == len(set(parts_read)) == 3


# --- compact ---------------------------------------------------------------------------------------------------------


def test_packing_twice_changes_nothing(loose: Path) -> None:
    pack_all(loose)
    before = tree(loose)
    tally = pack_all(loose, run_id="pack-2")
    assert tally.files == 0
    assert tree(loose) == before


def test_small_packs_are_put_together(corpus: Path, tiny: ImageEncoder) -> None:
    encode(corpus, tiny, pack_bytes=1)
    assert len(packs_of(corpus)) == 3
    before = {uid: row["sha256"] for uid, row in by_uid(corpus).items()}
    assert pack_all(corpus).packs == 1
    assert len(collected(corpus)) == 3
    assert len(packs_of(corpus)) == 1
    newest = {r["uid"]: r for r in rows_of(corpus) if r["run_id"] == "pack-1"}
    assert {uid: row["sha256"] for uid, row in newest.items()} == before
    assert checks(corpus, deep=True) == []
    assert encode(corpus, tiny, run_id="latents-3", pack_bytes=BIG).up_to_date == 3


def test_what_is_not_as_committed_stays_where_it_is_and_is_counted(loose: Path) -> None:
    first, second, _ = (loose / row["path"] for row in rows_of(loose))
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(data)
    second.unlink()
    tally = pack_all(loose)
    assert (tally.files, tally.packed) == (3, 1)
    assert tally.left_out == {"differs from the catalog": 1, "missing": 1}
    assert sorted(checks(loose)) == ["latents_changed", "latents_missing"]


def test_a_file_that_comes_back_moves_nothing_that_an_older_snapshot_names(loose: Path) -> None:
    """Its pack is made anew, with other offsets, under another name."""
    missing = loose / rows_of(loose)[0]["path"]
    held = missing.read_bytes()
    missing.unlink()
    pack_all(loose)
    older = [row for row in rows_of(loose) if row["run_id"] == "pack-1"]
    before = [bytes_of_row(loose, row) for row in older]
    missing.write_bytes(held)
    assert pack_all(loose, run_id="pack-2").packed == 3
    assert [bytes_of_row(loose, row) for row in older] == before
    for row in older:
        assert hashlib.sha256(bytes_of_row(loose, row)).hexdigest() == row["sha256"]
    assert len(packs_of(loose)) == 2
    assert checks(loose, deep=True) == []
    after = tree(loose)
    pack_all(loose, run_id="pack-3")
    assert tree(loose) == after


@pytest.mark.parametrize("damage", ["missing", "cut", "one bit", "a folder"])
def test_a_run_that_leaves_the_same_file_out_again_changes_nothing(
    loose: Path, damage: str
) -> None:
    path = loose / rows_of(loose)[1]["path"]
    data = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[:-1])
    if damage == "one bit":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    if damage == "a folder":
        path.mkdir()
    assert (pack_all(loose).packed, pack_all(loose, run_id="pack-1").packed) == (2, 0)
    before = tree(loose)
    tally = pack_all(loose, run_id="pack-2")
    assert (tally.files, tally.packs, tally.left_out.total()) == (1, 0, 1)
    assert tree(loose) == before


def test_no_two_runs_give_a_pack_the_same_name(loose: Path) -> None:
    """A file may change between the look and the copy: then the pack holds less than its plan."""
    plan = plan_packs(open_corpus(loose), snapshot.load(loose), BIG)
    [pack] = plan.packs(PackTally(), reads=True)
    assert pack.path("pack-1") != pack.path("pack-2")


def test_packs_are_planned_one_at_a_time(loose: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more files are looked at, and no more rows are objects, than a pack needs: there may be 10^7."""
    look = packing_module._wrong
    looked: list[str] = []

    def watched(corpus: CorpusLayout, row: LatentRow) -> str:
        looked.append(row.uid)
        return look(corpus, row)

    monkeypatch.setattr(packing_module, "_wrong", watched)
    monkeypatch.setattr(packing_module, "_PIECE_ROWS", 1)
    packs = plan_packs(open_corpus(loose), snapshot.load(loose), 1).packs(PackTally(), reads=True)
    sizes = [(len(next(packs).rows), len(looked)) for _ in range(3)]
    assert sizes == [(1, 1), (1, 2), (1, 3)]


def test_what_is_expected_is_what_sizes_tell(loose: Path) -> None:
    (loose / rows_of(loose)[1]["path"]).unlink()
    tally = plan_packs(open_corpus(loose), snapshot.load(loose), BIG).expected()
    assert (tally.files, tally.packed, tally.packs) == (3, 0, 1)
    assert tally.left_out == {"missing": 1}
    done = pack_all(loose)
    assert (done.packs, done.num_bytes, done.left_out) == (1, tally.num_bytes, tally.left_out)


def test_many_bytes_are_committed_in_several_snapshots(
    loose: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing_module, "COMMIT_BYTES", 1)
    number = snapshot.load(loose).number
    assert pack_all(loose, pack_bytes=1).packs == 3
    assert snapshot.load(loose).number == number + 3


# --- verify ----------------------------------------------------------------------------------------------------------


def recommit(corpus: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """The rows of latents with something changed, as a new part would have them."""
    current, rows = snapshot.load(corpus), rows_of(corpus)
    change(rows)
    table = pa.Table.from_pylist(rows, schema=TABLES["latents"])
    disk = LocalStorage(corpus)
    part = snapshot.write_tables(disk, corpus, "latents", [table])
    tables = {name: list(current.parts(name)) for name in TABLES} | {"latents": [part]}
    publishing.publish_tables(disk, corpus, current, tables, "x")


def test_a_bit_of_a_pack_is_told_with_the_episode_that_has_it(packed: Path) -> None:
    row = by_uid(packed)[uid_of(packed, 1)]
    [pack] = packs_of(packed)
    data = bytearray(pack.read_bytes())
    data[row["pack_offset"] + row["num_bytes"] // 2] ^= 1
    pack.write_bytes(data)
    [found] = verify(packed)
    assert found.check.value == "latents_changed"
    assert row["uid"] in found.message


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda row: row.update(pack_offset=row["pack_offset"] + 512), "latents_changed"),
        (lambda row: row.update(pack_offset=1 << 60), "latents_changed"),
        (lambda row: row.update(num_bytes=1 << 60), "latents_changed"),
        (lambda row: row.update(pack_offset=None), "latents_differ"),
        (
            lambda row: row.update(path=row["path"].replace(row["encoder_id"], "other-0")),
            "latents_differ",
        ),
        (lambda row: row.update(path=row["path"].replace(".tar", ".zip")), "latents_differ"),
    ],
)
def test_a_row_that_lies_about_its_place(
    packed: Path, change: Callable[[dict[str, Any]], None], check: str
) -> None:
    recommit(packed, lambda rows: change(rows[0]))
    assert checks(packed) == [check]


def test_a_member_under_another_name_is_seen(packed: Path) -> None:
    """`forget` would not find it."""
    [pack] = packs_of(packed)
    with tarfile.open(pack) as opened:
        info = opened.getmembers()[0]
    info.name = "episode_000007.top_head.safetensors"
    data = bytearray(pack.read_bytes())
    data[:512] = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")
    pack.write_bytes(data)
    assert checks(packed) == ["latents_differ"]


@pytest.mark.parametrize("lie", [{"sha256": "0" * 64}, {"num_bytes": 512}])
@pytest.mark.parametrize("is_first", [True, False])
def test_rows_of_a_manifest_that_say_other_things_of_one_place_are_all_compared(
    packed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lie: dict[str, Any],
    is_first: bool,
) -> None:
    assert invoke("tier", str(packed), "--policy", policy(tmp_path)).exit_code == 0
    rows = load_rows(build_manifest(packed, "told", with_statistics=False)).to_pylist()
    [latent] = rows[0]["latents"]
    lied = rows[0] | {"latents": [latent | lie]}
    table = pa.Table.from_pylist([lied, *rows] if is_first else [*rows, lied], ROW_SCHEMA)
    monkeypatch.setattr("ingest.verify.manifest.load_rows", lambda folder: table)
    flaws = verify_manifest(open_corpus(packed), "corpus", "told").flaws
    [changed] = [each for each in flaws if each.fault is IssueKind.FILE_CHANGED]
    assert changed.what == latent["path"]
    assert str(next(iter(lie.values()))) in changed.message
