"""Files of latents in packs: the same files as alone, found by offset, and nothing of a stopped run is taken for one."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.corpus.writer import writing
from ingest.latents import encode_file, run
from ingest.latents.encode_file import Decoded, LatentMaker
from ingest.latents.plan import LatentUnit, PlannedLatentFile, todo_of, units_of
from ingest.latents.token_file import read_latents, read_mean_patches
from ingest.models.encoder import ImageEncoder
from ingest.storage.local import LocalStorage
from schemas.errors import ConfigError
from schemas.latent_header import Span, span_of
from schemas.latent_pack import members_of
from schemas.manifest import Latent
from tests.faults.disks import CuttingDisk, PowerCut
from tests.faults.runs import tree
from tests.latents.corpora import TINY, encode, packing, planned_file, rows_of, videos_of
from training.data.block_cache import BlockCache
from training.data.latent_reader import LatentFile, LatentReader
from training.data.stored_latents import FolderStore, StoredLatents

BIG = 10**9  # all in one pack


def packs_of(corpus: Path) -> list[Path]:
    return sorted(corpus.rglob("*.tar"))


def bytes_of_row(corpus: Path, row: dict[str, Any]) -> bytes:
    data: bytes = (corpus / row["path"]).read_bytes()
    return data[row["pack_offset"] :][: row["num_bytes"]]


def by_uid(corpus: Path) -> dict[str, dict[str, Any]]:
    return {row["uid"]: row for row in rows_of(corpus)}


@pytest.fixture
def packed(corpus: Path, tiny: ImageEncoder) -> Path:
    encode(corpus, tiny, pack_bytes=BIG)
    return corpus


def test_members_are_byte_for_byte_the_files_of_their_own(
    packed: Path, built: Path, tmp_path: Path, tiny: ImageEncoder
) -> None:
    """Though batches of four go across episodes of 14, 7 and 5 pictures."""
    alone = Path(shutil.copytree(built, tmp_path / "alone"))
    encode(alone, tiny)
    [pack] = packs_of(packed)
    assert not list(packed.rglob("*.safetensors"))
    wanted = by_uid(alone)
    for uid, row in by_uid(packed).items():
        assert row["path"] == pack.relative_to(packed).as_posix()
        data = bytes_of_row(packed, row)
        assert data == (alone / wanted[uid]["path"]).read_bytes()
        same = ("sha256", "num_bytes", "num_frames", "dtype", "video_sha256")
        assert {key: row[key] for key in same} == {key: wanted[uid][key] for key in same}
        assert wanted[uid]["pack_offset"] is None


def test_a_stranger_opens_it_with_tar_and_safetensors(packed: Path) -> None:
    [pack] = packs_of(packed)
    with tarfile.open(pack) as opened:
        names = opened.getnames()
        assert names == [f"episode_{n:06d}.top_head.safetensors" for n in range(3)]
        member = opened.extractfile(names[1])
        assert member is not None
        tensors = load(member.read())
    assert tensors["latents"].shape == (7, 16, 64)
    assert tensors["picture_crc32c"].shape == (7, 4)


def test_no_picture_is_encoded_in_a_batch_that_is_not_full_but_the_last(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = ImageEncoder.open(TINY)
    sizes: list[int] = []
    good = encoder.encode

    def watched(pictures: Any, **how: bool) -> Any:
        assert how == {"has_whole_batches": True}
        sizes.append(len(pictures))
        return good(pictures, **how)

    monkeypatch.setattr(encoder, "encode", watched)
    encode(corpus, encoder, pack_bytes=BIG)
    assert sum(sizes) == 14 + 7 + 5
    assert [size % 4 for size in sizes[:-1]] == [0] * (len(sizes) - 1)


def size_in_pack(encoder: ImageEncoder, file: PlannedLatentFile) -> int:
    how = packing(encoder, 1)
    return file.num_pictures(how.grid_stride) * how.picture_bytes


def test_packs_are_closed_at_their_size_and_hold_one_dataset(tiny: ImageEncoder) -> None:
    files = [planned_file(30, episode_index=n) for n in range(5)]
    other = replace(planned_file(30, episode_index=0), dataset_path="e")
    size = size_in_pack(tiny, files[0])
    units = list(units_of(iter([*files, other]), packing(tiny, 2 * size), "a"))
    assert [[f.episode_index for f in unit.files] for unit in units] == [[0, 1], [2, 3], [4], [0]]
    assert units[3].pack.startswith("e/latents/")
    assert len({unit.pack for unit in units}) == 4
    again = list(units_of(iter(files), packing(tiny, 2 * size), "a"))
    assert [unit.pack for unit in again] == [unit.pack for unit in units[:3]]
    other_run = units_of(iter(files), packing(tiny, 2 * size), "b")
    assert not {unit.pack for unit in other_run} & {unit.pack for unit in units}


def test_readers_find_a_member(
    packed: Path, built: Path, tmp_path: Path, tiny: ImageEncoder
) -> None:
    alone = Path(shutil.copytree(built, tmp_path / "alone"))
    encode(alone, tiny)
    wanted = by_uid(alone)
    for uid, row in by_uid(packed).items():
        path, span = packed / row["path"], span_of(row["pack_offset"], row["num_bytes"])
        other = alone / wanted[uid]["path"]
        assert np.array_equal(read_latents(path, span).tokens, read_latents(other).tokens)
        means, at = read_mean_patches(path, 3, span)
        assert np.array_equal(means, read_mean_patches(other, 3)[0])
        assert len(at) == 3
        file = LatentFile(path, "x", span)
        out, expected = np.empty((16, 64), np.uint16), np.empty((16, 64), np.uint16)
        file.read(12, out)
        LatentFile(other, "x").read(12, expected)
        assert np.array_equal(out, expected)


@pytest.mark.parametrize("storage", ["bf16", "int8", "fp8"])
def test_ranges_of_a_store_are_the_pictures_of_the_pack(
    corpus: Path, tmp_path: Path, storage: Any
) -> None:
    """With CLS and registers, fetched and from the cache; a flipped bit is fetched again, and then told."""
    choice = replace(TINY, storage=storage, keeps_prefix=True)
    encode(corpus, ImageEncoder.open(choice), pack_bytes=BIG)
    row = next(row for row in rows_of(corpus) if row["num_frames"] == 7)
    latent = latent_of(row)
    span = span_of(row["pack_offset"], row["num_bytes"])
    here = LatentFile(corpus / row["path"], "x", span)
    dtype = np.uint16 if storage == "bf16" else np.uint32
    at = [3, 6, 12, 0]
    wanted = [np.empty((16, 64), dtype) for _ in at]
    here.read_all(at, wanted)
    flips = {"left": 0}

    class Store(FolderStore):
        def range(self, key: str, start: int, length: int) -> bytes:
            data = bytearray(super().range(key, start, length))
            if flips["left"] and start > here._latents:
                flips["left"] -= 1
                data[length // 2] ^= 1
            return bytes(data)

    cache = BlockCache(tmp_path / "cache", max_bytes=10**6, block_bytes=16384)
    for each in (None, cache, cache):
        file = StoredLatents(store=Store(corpus), name="b", cache=each).open(latent)
        found = [np.empty((16, 64), dtype) for _ in at]
        file.read_all(at, found)
        assert all(np.array_equal(a, b) for a, b in zip(wanted, found, strict=True))
    one = np.empty((16, 64), dtype)
    bare = StoredLatents(store=Store(corpus), name="b").open(latent)
    flips["left"] = 2
    bare.read(9, one)
    flips["left"] = 3
    with pytest.raises(ConfigError, match="picture 3 has the checksum"):
        bare.read(9, one)
    for key in ("pack_offset", "num_bytes"):
        for wrong in (-1, 512, 2**40):
            bad = latent_of(row, **{key: wrong})
            with pytest.raises(ConfigError):
                StoredLatents(store=Store(corpus), name="b", cache=cache).open(bad)


def latent_of(row: dict[str, Any], **changed: Any) -> Latent:
    names = ("camera", "encoder_id", "path", "sha256", "pack_offset", "num_bytes")
    return Latent(**{name: row[name] for name in names} | changed)


@pytest.mark.parametrize(
    ("offset", "num_bytes"),
    [(-512, 0), (0, -1), (0, 8), (1, 0), (512, 0), (10**15, 0), (2**62, 0), (0, 2**62)],
)
def test_a_place_that_is_none_of_a_member_is_refused(
    packed: Path, offset: int, num_bytes: int
) -> None:
    """Whatever a manifest says: before the pack, behind its end, at another member, of another length."""
    row = rows_of(packed)[0]
    changed = {
        "pack_offset": row["pack_offset"] + offset,
        "num_bytes": row["num_bytes"] + num_bytes,
    }
    reader = LatentReader(packed)
    assert reader.open(latent_of(row), row["uid"], 1).facts.uid == row["uid"]
    with pytest.raises(ConfigError):
        reader.open(latent_of(row, **changed), row["uid"], 1)


def test_the_member_of_another_episode_is_refused(packed: Path) -> None:
    first, second = rows_of(packed)[:2]
    with pytest.raises(ConfigError, match="episode"):
        LatentReader(packed).open(latent_of(second), first["uid"], 1)
    lied = latent_of(first, sha256="0" * 64)
    with pytest.raises(ConfigError, match="sha256"):
        LatentReader(packed, with_digest=True).open(lied, first["uid"], 1)


@pytest.mark.parametrize("storage", ["bf16", "int8", "fp8"])
def test_one_flipped_bit_is_told_by_the_picture_that_has_it(corpus: Path, storage: Any) -> None:
    """With CLS and registers before the patches, which a reader passes over."""
    choice = replace(TINY, storage=storage, keeps_prefix=True)
    encode(corpus, ImageEncoder.open(choice), pack_bytes=BIG)
    row = next(row for row in rows_of(corpus) if row["num_frames"] == 7)
    path, span = corpus / row["path"], span_of(row["pack_offset"], row["num_bytes"])
    width = 2 if storage == "bf16" else 1
    good = LatentFile(path, "x", span)
    at = good._latents + (3 * 18 + 5) * 64 * width  # in the third picture
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    file = LatentFile(path, "x", span)
    out = np.empty((16, 64), np.uint16 if storage == "bf16" else np.uint32)
    for picture in (0, 1, 2, 4, 5, 6):
        file.read(picture * 3, out)
    with pytest.raises(ConfigError, match="picture 3 has the checksum"):
        file.read(9, out)


def test_a_broken_video_leaves_the_others_of_its_pack(
    corpus: Path, built: Path, tmp_path: Path, tiny: ImageEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pictures came before it was known to be broken: what was written of it is written over."""
    monkeypatch.setattr(encode_file, "PIECE_PICTURES", 4)
    whole = Path(shutil.copytree(built, tmp_path / "whole"))
    encode(whole, tiny, pack_bytes=BIG)
    good = encode_file.decode_chunk

    def bad(piece: Any, disk: Any) -> Decoded:
        is_bad = piece.file.episode_index == 0 and piece.first == 8
        return Decoded(error="corrupt_video: x") if is_bad else good(piece, disk)

    monkeypatch.setattr("ingest.latents.backends.decode_chunk", bad)
    tally = encode(corpus, tiny, pack_bytes=BIG)
    assert (tally.encoded, tally.failed, tally.errors) == (2, 1, {"corrupt_video": 1})
    [pack] = packs_of(corpus)
    with pack.open("rb") as file:
        members = list(members_of(file, where="x"))
    assert [m.name[:14] for m in members] == ["episode_000001", "episode_000002"]
    assert pack.stat().st_size == members[-1].end + 1024
    data = pack.read_bytes()
    assert all(not any(data[m.start + m.num_bytes : m.end]) for m in members)
    wanted = by_uid(whole)
    for uid, row in by_uid(corpus).items():
        assert bytes_of_row(corpus, row) == bytes_of_row(whole, wanted[uid])
    monkeypatch.setattr("ingest.latents.backends.decode_chunk", good)
    assert encode(corpus, tiny, run_id="latents-2", pack_bytes=BIG).encoded == 1
    assert len(packs_of(corpus)) == 2
    assert {u: r["sha256"] for u, r in by_uid(corpus).items()} == {
        u: r["sha256"] for u, r in wanted.items()
    }


def test_nothing_is_left_of_a_pack_of_which_nothing_came(corpus: Path, tiny: ImageEncoder) -> None:
    for video in videos_of(corpus):
        video.unlink()
    assert encode(corpus, tiny, pack_bytes=BIG).errors == {"missing_video": 3}
    assert not packs_of(corpus)
    assert not list(corpus.rglob("*.part"))


def test_numbers_that_are_none_fail_their_file_only(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = ImageEncoder.open(TINY)
    good, seen = encoder.encode, 0

    def bad(pictures: Any, **how: bool) -> Any:
        nonlocal seen
        tokens = good(pictures, **how).clone()
        at = 14 + 2 - seen  # the third picture of the second file
        if 0 <= at < len(tokens):
            tokens[at, 3, 5] = float("nan")
        seen += len(tokens)
        return tokens

    monkeypatch.setattr(encoder, "encode", bad)
    tally = encode(corpus, encoder, pack_bytes=BIG)
    assert (tally.encoded, tally.errors) == (2, {"not_finite": 1})
    assert sorted(row["num_frames"] for row in rows_of(corpus)) == [5, 14]


def test_a_pack_that_was_cut_is_made_anew_from_where_it_was_cut(
    packed: Path, tiny: ImageEncoder
) -> None:
    """Members that are still in it stay."""
    [pack] = packs_of(packed)
    before = {uid: row["sha256"] for uid, row in by_uid(packed).items()}
    last = max(rows_of(packed), key=lambda row: row["pack_offset"])
    pack.write_bytes(pack.read_bytes()[: last["pack_offset"] + 10])
    assert encode(packed, tiny, run_id="latents-2", pack_bytes=BIG).encoded == 1
    assert len(packs_of(packed)) == 2
    newest = {row["uid"]: row for row in sorted(rows_of(packed), key=lambda r: r["run_id"])}
    assert {uid: row["sha256"] for uid, row in newest.items()} == before
    for row in newest.values():
        span = Span(start=row["pack_offset"], num_bytes=row["num_bytes"])
        assert read_latents(packed / row["path"], span).facts.uid == row["uid"]


def test_a_pack_that_was_never_committed_is_swept_and_others_stay(
    packed: Path, tiny: ImageEncoder
) -> None:
    [pack] = packs_of(packed)
    stray = pack.with_name("0123456789abcdef.tar")
    shutil.copy(pack, stray)
    corpus = open_corpus(packed)
    with writing(corpus, LocalStorage(packed), always_recovers=True) as done:
        assert any(stray.name in line for line in done)
    assert packs_of(packed) == [pack]


def test_a_pack_that_comes_again_whole_leaves_the_committed_one_as_it_was(
    corpus: Path, tiny: ImageEncoder
) -> None:
    """The first video is missing and comes back, and the files of the others are lost meanwhile: the plan of both runs is the same."""
    video = videos_of(corpus)[0]
    held = video.read_bytes()
    video.unlink()
    assert encode(corpus, tiny, pack_bytes=BIG).failed == 1
    [pack] = packs_of(corpus)
    data = pack.read_bytes()
    video.write_bytes(held)
    pack.write_bytes(data[:100])
    assert encode(corpus, tiny, run_id="latents-2", pack_bytes=BIG).encoded == 3
    assert len(packs_of(corpus)) == 2
    pack.write_bytes(data)  # it comes back from a copy
    for row in rows_of(corpus):
        assert hashlib.sha256(bytes_of_row(corpus, row)).hexdigest() == row["sha256"]


@pytest.mark.slow
def test_the_power_goes_after_any_write(
    built: Path, tiny: ImageEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every number of operations: what is committed is whole, and the next run ends in the rows of an undisturbed one."""
    monkeypatch.setattr(run, "BATCH_FILES", 1)
    size = size_in_pack(tiny, planned_file(21)) + 1
    whole = Path(shutil.copytree(built, tmp_path / "whole"))
    disk = CuttingDisk(10**6)
    encode(whole, tiny, disk=disk, pack_bytes=size)
    assert len(packs_of(whole)) == 2  # 14 pictures; 7 and 5
    wanted = by_uid(whole)
    for allowed in range(disk.done):
        corpus = Path(shutil.copytree(built, tmp_path / f"cut-{allowed}"))
        with pytest.raises(PowerCut):
            encode(corpus, tiny, disk=CuttingDisk(allowed), pack_bytes=size)
        for row in rows_of(corpus):
            assert torch.equal(
                load(bytes_of_row(corpus, row))["latents"],
                load(bytes_of_row(whole, wanted[row["uid"]]))["latents"],
            )
        encode(corpus, tiny, run_id="latents-2", pack_bytes=size)
        found = by_uid(corpus)
        assert {u: r["sha256"] for u, r in found.items()} == {
            u: r["sha256"] for u, r in wanted.items()
        }, allowed
        with writing(open_corpus(corpus), LocalStorage(corpus), always_recovers=True):
            pass
        files = {p for p in tree(corpus) if p.startswith("datasets/") and "/latents/" in p}
        assert files == {row["path"] for row in found.values()}, allowed


def test_a_unit_of_one_file_and_one_pack_of_it_have_the_same_bytes(
    corpus: Path, tiny: ImageEncoder, tmp_path: Path
) -> None:
    todo = todo_of(open_corpus(corpus), snapshot.load(corpus), tiny.id)
    file = next(todo.files())
    maker = LatentMaker(encoder=tiny, monotonic_s=float)
    unit = LatentUnit.packed((file,), tiny.id, "a")
    chunks = encode_file.unit_chunks_of(unit, TINY, 4)
    pieces = [(chunk, encode_file.decode_chunk(chunk, LocalStorage())) for chunk in chunks]
    [packed] = maker.make(unit, pieces).files
    [alone] = maker.make(LatentUnit(files=(file,)), pieces).files
    assert packed.row is not None
    assert alone.row is not None
    assert packed.row.sha256 == alone.row.sha256
