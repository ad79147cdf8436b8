"""A corpus gets its latents: the numbers, the grid, the catalog; and whatever stops a run, the next one ends in the same files."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.executors.inline import InlineExecutor
from ingest.latents import backends, encode_file, run
from ingest.latents.cost_estimate import bytes_of, estimate_cost
from ingest.latents.encode_file import Decoded, FrameChunk, decode_chunk, frame_chunks_of
from ingest.latents.plan import todo_of
from ingest.models import token_storage
from ingest.models.encoder import ImageEncoder
from ingest.models.encoder_weights import load_network
from ingest.models.token_storage import StoredTokens, cosine_errors, read
from ingest.storage.local import LocalStorage
from schemas.errors import Code, ConfigError, InvariantError
from schemas.latents import facts_of
from schemas.outcome import WorkerFailure
from tests.faults.disks import CuttingDisk, PowerCut
from tests.faults.runs import tree
from tests.latents.corpora import (
    TINY,
    all_pictures,
    alone,
    encode,
    paired,
    planned_file,
    rows_of,
    videos_of,
)


def file_of(corpus: Path, row: dict[str, Any]) -> Path:
    return corpus / str(row["path"])


def files_of(corpus: Path) -> dict[str, str]:
    """sha256 of everything below a folder of latents."""
    return {
        path: digest for path, digest in tree(corpus / "datasets").items() if "/latents/" in path
    }


def opened(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    with safe_open(str(path), "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
        return tensors, facts_of(file.metadata(), where=str(path))


def own_pixels(picture: np.ndarray[Any, Any]) -> Any:
    """Letterbox of 160 x 96 into 64 x 64, written out: 64 x 38 (38.4), 13 rows of the mean colour before, 13 after."""
    out = np.tile(np.array([124, 116, 104], np.uint8), (64, 64, 1))
    out[13:51] = cv2.resize(picture, (64, 38), interpolation=cv2.INTER_AREA)
    return (out / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])


def own_tokens(path: Path, timesteps: range) -> Any:
    """By PyAV, numpy and the library's own model in float32."""
    network, _ = load_network(TINY.spec, TINY.source)
    x = np.stack([own_pixels(picture) for picture in all_pictures(path)[timesteps]])
    with torch.no_grad():
        given = torch.from_numpy(x.transpose(0, 3, 1, 2)).float()
        return network(pixel_values=given).last_hidden_state[:, 2:]


# --- what is written -------------------------------------------------------------------------------------------------


def test_tokens_are_those_of_the_pictures_on_the_grid(corpus: Path, tiny: ImageEncoder) -> None:
    tally = encode(corpus, tiny)
    assert (tally.discovered, tally.encoded, tally.up_to_date, tally.failed) == (3, 3, 0, 0)
    assert tally.num_pictures == 14 + 7 + 5
    rows = rows_of(corpus)
    assert [row["num_frames"] for row in rows] == [14, 7, 5]
    for row, video, length in zip(rows, videos_of(corpus), (41, 21, 13), strict=True):
        tensors, facts = opened(file_of(corpus, row))
        assert tensors["frame_index"].tolist() == list(range(0, length, 3))
        assert tensors["latents"].dtype is torch.bfloat16
        wanted = own_tokens(video, range(0, length, 3))
        assert tensors["latents"].shape == wanted.shape
        assert float(cosine_errors(tensors["latents"], wanted).max()) < 5e-4
        late = own_tokens(video, range(1, length, 3))  # a grid off by one would be told
        num = len(late)
        assert float(cosine_errors(tensors["latents"][:num], late).max()) > 5e-3
        assert (facts.uid, facts.camera, facts.length) == (row["uid"], row["camera"], length)


def test_the_catalog_names_what_lies_there(corpus: Path, tiny: ImageEncoder) -> None:
    encode(corpus, tiny)
    digests = tree(corpus)
    videos = {r["uid"]: r["sha256"] for r in rows_of(corpus, "artifacts") if r["kind"] == "video"}
    for row in rows_of(corpus):
        assert digests[row["path"]] == row["sha256"]
        assert row["video_sha256"] == videos[row["uid"]]
        assert file_of(corpus, row).stat().st_size == row["num_bytes"]
        assert (row["encoder_id"], row["dtype"]) == (tiny.id, "bf16")
    assert f"/latents/{tiny.id}/chunk-000/top_head/episode_000000.safetensors" in row_paths(corpus)


def row_paths(corpus: Path) -> str:
    return " ".join(row["path"] for row in rows_of(corpus))


@pytest.mark.parametrize("storage", ["fp8", "int8"])
def test_eight_bits_with_prefix_and_another_grid(
    corpus: Path, storage: Any, tiny: ImageEncoder
) -> None:
    choice = replace(TINY, storage=storage, keeps_prefix=True, grid_stride=5)
    encode(corpus, ImageEncoder.open(choice))
    tensors, facts = opened(file_of(corpus, rows_of(corpus)[0]))
    assert tensors["frame_index"].tolist() == list(range(0, 41, 5))
    assert tensors["latents"].shape == (9, 2 + 16, 64)
    assert (facts.num_prefix, facts.grid_stride, facts.dtype) == (2, 5, storage)
    kept = read(StoredTokens(latents=tensors["latents"], scale=tensors["scale"]))
    wanted = own_tokens(videos_of(corpus)[0], range(0, 41, 5))
    assert float(cosine_errors(kept[:, 2:], wanted).max()) < 3e-3


def test_encoders_lie_side_by_side(corpus: Path, tiny: ImageEncoder) -> None:
    encode(corpus, tiny)
    before = tree(corpus)
    other = ImageEncoder.open(replace(TINY, fit="crop"))
    assert encode(corpus, other, run_id="latents-2").encoded == 3
    assert {row["encoder_id"] for row in rows_of(corpus)} == {tiny.id, other.id}
    after = tree(corpus)
    assert before.items() <= after.items()


def test_a_picture_gives_the_same_bytes_wherever_pieces_are_cut(
    corpus: Path, tiny: ImageEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(corpus, tiny)
    wanted = [row["sha256"] for row in rows_of(corpus)]
    for row in rows_of(corpus):
        file_of(corpus, row).unlink()
    monkeypatch.setattr(encode_file, "PIECE_PICTURES", 4)
    encode(corpus, tiny, run_id="latents-2")
    rows = [row for row in rows_of(corpus) if row["run_id"] == "latents-2"]
    assert [row["sha256"] for row in rows] == wanted


def test_pieces_are_whole_batches_and_cover_the_grid() -> None:
    file = planned_file(3000)
    pieces = frame_chunks_of(file, TINY, batch=48)
    assert [p.count for p in pieces[:-1]] == [96] * 10
    assert [t for p in pieces for t in p.timesteps] == list(range(0, 3000, 3))


def test_a_file_is_never_in_memory_as_a_whole(
    corpus: Path, tiny: ImageEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever pictures are asked for, tokens of two pieces at most are held: one that was encoded, and one that is written."""
    monkeypatch.setattr(encode_file, "PIECE_PICTURES", 4)
    good = token_storage.bytes_of
    alive: list[weakref.ref[Any]] = []
    held: list[int] = []

    def watched(given: StoredTokens) -> dict[str, memoryview]:
        found = good(given)
        alive.extend(weakref.ref(each.obj) for each in found.values())
        return found

    monkeypatch.setattr(token_storage, "bytes_of", watched)
    file = next(todo_of(open_corpus(corpus), snapshot.load(corpus), tiny.id).files())

    def pieces() -> Iterator[Decoded]:
        for piece in frame_chunks_of(file, TINY, 4):
            held.append(sum(each() is not None for each in alive))
            yield decode_chunk(piece, LocalStorage())

    made = encode_file.LatentMaker(encoder=tiny, monotonic_s=float).make(
        alone(file), paired(alone(file), pieces())
    )
    assert made.files[0].num_pictures == 14
    assert len(held) == 4
    assert max(held) <= 2


def test_what_breaks_half_way_leaves_no_half_file(
    corpus: Path, tiny: ImageEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_file, "PIECE_PICTURES", 4)
    file = next(todo_of(open_corpus(corpus), snapshot.load(corpus), tiny.id).files())
    whole = [decode_chunk(piece, LocalStorage()) for piece in frame_chunks_of(file, TINY, 4)]
    maker = encode_file.LatentMaker(encoder=tiny, monotonic_s=float)
    made = maker.make(
        alone(file), paired(alone(file), [*whole[:2], Decoded(error="corrupt_video: x")])
    )
    assert (made.files[0].row, made.files[0].error) == (None, "corrupt_video: x")
    with pytest.raises(InvariantError):
        maker.make(alone(file), paired(alone(file), whole[:2]))
    assert not files_of(corpus)
    assert maker.make(alone(file), paired(alone(file), whole)).files[0].row is not None


# --- what is there already -------------------------------------------------------------------------------------------


def test_a_second_run_changes_nothing(corpus: Path, tiny: ImageEncoder) -> None:
    encode(corpus, tiny)
    before = tree(corpus)
    tally = encode(corpus, tiny, run_id="latents-2")
    assert (tally.discovered, tally.up_to_date, tally.encoded) == (3, 3, 0)
    assert tree(corpus) == before


def test_a_file_that_is_cut_or_gone_or_of_another_video_is_made_anew(
    corpus: Path, tiny: ImageEncoder
) -> None:
    encode(corpus, tiny)
    before = files_of(corpus)
    cut, gone, _ = (file_of(corpus, row) for row in rows_of(corpus))
    cut.write_bytes(cut.read_bytes()[:-1])
    gone.unlink()
    tally = encode(corpus, tiny, run_id="latents-2")
    assert (tally.encoded, tally.up_to_date) == (2, 1)
    assert files_of(corpus) == before
    assert len(rows_of(corpus)) == 5


def test_only_what_is_asked_for(corpus: Path, tiny: ImageEncoder) -> None:
    tally = encode(corpus, tiny, where="length > 20", cameras=("top_head",))
    assert (tally.discovered, tally.encoded) == (2, 2)
    assert encode(corpus, tiny, run_id="latents-2").encoded == 1


@pytest.mark.parametrize(
    ("only", "said"),
    [
        ({"cameras": ("wrist",)}, "no episode has wrist; available: top_head"),
        ({"where": "lenght > 3"}, "lenght"),
        ({"where": "true; DROP TABLE episodes"}, "--where"),
    ],
)
def test_what_makes_no_sense_is_refused(
    corpus: Path, tiny: ImageEncoder, only: dict[str, Any], said: str
) -> None:
    before = tree(corpus)
    with pytest.raises(ConfigError) as caught:
        encode(corpus, tiny, **only)
    assert said in str(caught.value)
    assert tree(corpus) == before


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_broken_video_fails_alone_with_its_address(corpus: Path, tiny: ImageEncoder) -> None:
    first, second, _ = videos_of(corpus)
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 255
    first.write_bytes(data)
    second.unlink()
    tally = encode(corpus, tiny)
    assert (tally.discovered, tally.encoded, tally.failed) == (3, 1, 2)
    assert tally.errors == {"corrupt_video": 1, "missing_video": 1}
    assert "episode_000000.mp4: sha256" in tally.failures[0]
    assert "run `eicorpus verify`" in tally.failures[0]
    assert [row["num_frames"] for row in rows_of(corpus)] == [5]
    second.write_bytes(b"")
    assert encode(corpus, tiny, run_id="latents-2").up_to_date == 1


def test_an_encoder_that_gives_no_numbers_fails_and_writes_nothing(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = ImageEncoder.open(TINY)
    good = encoder.encode

    def bad(pictures: Any, **how: bool) -> Any:
        tokens = good(pictures, **how).clone()
        tokens[-1, 3, 5] = float("nan")
        return tokens

    monkeypatch.setattr(encoder, "encode", bad)
    tally = encode(corpus, encoder)
    assert (tally.failed, tally.errors) == (3, {"not_finite": 3})
    assert not list(corpus.rglob("latents"))[1:]


class _Shuffling(InlineExecutor):
    """Answers the last asked first, four at a time; the body of one piece dies."""

    def __init__(self, dies: int | None = None) -> None:
        super().__init__()
        self.dies = dies

    def run(self, next_work: Any, body: Any) -> Any:
        count = 0
        while True:
            taken = [w for _ in range(4) if (w := next_work()) is not None]
            if not taken:
                return
            for work in reversed(taken):
                count += 1
                is_dead = count == self.dies
                death = WorkerFailure(code=Code.WORKER_DIED, how="killed by SIGKILL")
                yield work, death if is_dead else body(work, self.disk)


def test_answers_in_any_order_make_the_same_files(
    corpus: Path, tiny: ImageEncoder, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Path(shutil.copytree(built, tmp_path / "plain"))
    monkeypatch.setattr(encode_file, "PIECE_PICTURES", 4)
    encode(plain, tiny)
    encode(corpus, tiny, executor=_Shuffling())
    assert tree(corpus) == tree(plain)


def test_a_dead_decoder_fails_its_file_only(
    corpus: Path, tiny: ImageEncoder, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pieces of it that others decoded go nowhere else."""
    plain = Path(shutil.copytree(built, tmp_path / "plain"))
    encode(plain, tiny)
    monkeypatch.setattr(encode_file, "PIECE_PICTURES", 4)
    tally = encode(corpus, tiny, executor=_Shuffling(dies=2))
    assert (tally.encoded, tally.failed, tally.errors) == (2, 1, {"worker_died": 1})
    assert "episode_000000.mp4" in tally.failures[0]
    wanted = {path: sha for path, sha in files_of(plain).items() if "episode_000000" not in path}
    assert files_of(corpus) == wanted


def test_no_more_than_a_few_wait_for_one_that_takes_long(tiny: ImageEncoder) -> None:
    asked: list[FrameChunk] = []

    class Stuck(InlineExecutor):
        def run(self, next_work: Any, body: Any) -> Any:
            first = next_work()
            while (work := next_work()) is not None:
                asked.append(work)
                yield work, Decoded(error="early")
            yield first, Decoded(error="at last")

    local = backends.LocalBackend(encode_file.LatentMaker(encoder=tiny, monotonic_s=float), Stuck())
    file = planned_file(30_000)
    found = list(local._in_order(iter(frame_chunks_of(file, TINY, 4))))
    assert len(asked) == backends.MAX_EARLY
    assert [each.error for _, each in found] == ["at last"] + ["early"] * backends.MAX_EARLY


@pytest.mark.slow
def test_the_power_goes_after_any_write(
    built: Path, tiny: ImageEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every number of operations: the next run ends in the files and the rows of an undisturbed one."""
    monkeypatch.setattr(run, "BATCH_FILES", 2)
    whole = Path(shutil.copytree(built, tmp_path / "whole"))
    disk = CuttingDisk(10**6)
    encode(whole, tiny, disk=disk)
    wanted = files_of(whole)
    assert len(wanted) == 3
    rows = [{k: v for k, v in row.items() if k != "run_id"} for row in rows_of(whole)]
    for allowed in range(disk.done):
        corpus = Path(shutil.copytree(built, tmp_path / f"cut-{allowed}"))
        with pytest.raises(PowerCut):
            encode(corpus, tiny, disk=CuttingDisk(allowed))
        for row in rows_of(corpus):  # whatever is committed is whole
            assert tree(corpus)[row["path"]] == row["sha256"]
        encode(corpus, tiny, run_id="latents-2")
        assert files_of(corpus) == wanted, allowed
        kept = [{k: v for k, v in row.items() if k != "run_id"} for row in rows_of(corpus)]
        assert kept == rows


# --- the plan --------------------------------------------------------------------------------------------------------


def test_the_plan_counts_bytes_as_they_will_be(corpus: Path, tiny: ImageEncoder) -> None:
    todo = todo_of(open_corpus(corpus), snapshot.load(corpus), tiny.id)
    assert (len(todo), todo.num_episodes, todo.num_pictures(3)) == (3, 3, 26)
    # 16 tokens of 64: two bytes each, or one and a scale for each token; eight bytes of index
    assert bytes_of(TINY, 26, "bf16") == 26 * (16 * 128 + 8)
    assert bytes_of(TINY, 26, "fp8") == bytes_of(TINY, 26, "int8") == 26 * (16 * 68 + 8)
    tally = encode(corpus, tiny)
    assert 0 < tally.num_bytes - bytes_of(TINY, 26, "bf16") < 3 * 1200  # headers


def test_the_probe_measures_what_storage_loses(corpus: Path) -> None:
    ticks = iter(range(1000))
    errors = {}
    for storage in ("bf16", "fp8", "int8"):
        encoder = ImageEncoder.open(replace(TINY, storage=storage))
        todo = todo_of(open_corpus(corpus), snapshot.load(corpus), encoder.id)
        found = estimate_cost(todo, encoder, lambda: float(next(ticks)))
        assert found is not None
        errors[storage] = found
        assert found.num_pictures == 4 + 4 + 4
        assert (found.encode_per_s, found.decode_per_s) == (4.0, 14 + 7 + 5)  # the clock's ticks
        assert 0 <= found.stored_error[0] <= found.stored_error[1] < 5e-3
    assert errors["bf16"].storage_error[1] < 1e-12  # the encoder's own numbers
    assert 0 < errors["int8"].storage_error[0] < errors["fp8"].storage_error[0]
    # 26 pictures at the slower of 2 x 4 and 1 x 26 a second
    assert errors["bf16"].hours(26, workers=1, num_encoders=2) == pytest.approx(26 / 8 / 3600)


def test_nothing_to_decode_gives_no_estimate(corpus: Path, tiny: ImageEncoder) -> None:
    for video in videos_of(corpus):
        video.unlink()
    todo = todo_of(open_corpus(corpus), snapshot.load(corpus), tiny.id)
    assert estimate_cost(todo, tiny, float) is None


def test_a_piece_of_an_unknown_video_is_an_error_and_no_exception(corpus: Path) -> None:
    todo = todo_of(open_corpus(corpus), snapshot.load(corpus), TINY.model)
    file = replace(next(todo.files()), dataset_path="../..")
    [piece] = frame_chunks_of(file, TINY, 4)
    assert decode_chunk(piece, LocalStorage()).error.startswith("unsafe_path: ")
