"""`eicorpus verify` on files of latents: what is whole is all well, and each kind of damage is said by its name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ingest.corpus import snapshot
from ingest.models.encoder import ImageEncoder
from ingest.verify.corpus import verify
from schemas.catalog import TABLES
from schemas.errors import ConfigError
from schemas.latent_header import read_header
from tests.ingest.verify_corpus import replace_part
from tests.latents.corpora import TINY, encode, rows_of, videos_of


@pytest.fixture(params=["bf16", "int8"])
def encoded(corpus: Path, request: pytest.FixtureRequest) -> Path:
    encode(corpus, ImageEncoder.open(replace(TINY, storage=request.param)))
    return corpus


def checks(corpus: Path, *, deep: bool = False) -> list[tuple[str, str]]:
    """(check, file's name) of every finding."""
    return [(found.check.value, Path(found.path).name) for found in verify(corpus, deep=deep)]


def first_file(corpus: Path) -> Path:
    return corpus / str(rows_of(corpus)[0]["path"])


def recommit(corpus: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The catalog as a writer with a bug would leave it: digests fit the files that are there."""
    rows = rows_of(corpus)
    for row in rows:
        data = (corpus / row["path"]).read_bytes()
        row["sha256"], row["num_bytes"] = hashlib.sha256(data).hexdigest(), len(data)
    change(rows[0])
    replace_part(corpus, "latents", pa.Table.from_pylist(rows, schema=TABLES["latents"]), part=0)


def with_header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The file with another head and the same tensors."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    facts = json.loads(header["__metadata__"]["eicorpus"])
    change(facts)
    header["__metadata__"]["eicorpus"] = json.dumps(facts)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def test_what_was_written_is_all_well(encoded: Path) -> None:
    assert checks(encoded, deep=True) == []


def test_a_file_that_is_gone_or_changed(encoded: Path) -> None:
    first, second, third = (encoded / row["path"] for row in rows_of(encoded))
    first.unlink()
    data = bytearray(second.read_bytes())
    data[-5] ^= 1
    second.write_bytes(data)
    third.write_bytes(third.read_bytes()[:-1])
    assert checks(encoded) == [
        ("latents_missing", first.name),
        ("latents_changed", second.name),
        ("latents_changed", third.name),
    ]
    for path in (second, third):
        path.unlink()
    encode(encoded, ImageEncoder.open(replace(TINY, storage=dtype_of(encoded))), run_id="latents-2")
    assert checks(encoded, deep=True) == []


def dtype_of(corpus: Path) -> Any:
    return rows_of(corpus)[0]["dtype"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("uid", "another"), ("camera", "wrist"), ("length", 40), ("video_sha256", "0" * 64)],
)
def test_a_page_that_says_something_else(encoded: Path, key: str, value: Any) -> None:
    with_header(first_file(encoded), lambda facts: facts.update({key: value}))
    recommit(encoded, lambda row: None)
    assert ("latents_differ", "episode_000000.safetensors") in checks(encoded)


@pytest.mark.parametrize(("key", "value"), [("width", 32), ("grid_height", 8), ("num_prefix", 2)])
def test_tensors_that_are_not_of_the_page(encoded: Path, key: str, value: int) -> None:
    with_header(first_file(encoded), lambda facts: facts.update({key: value}))
    recommit(encoded, lambda row: None)
    assert checks(encoded) == [("latents_differ", "episode_000000.safetensors")]


def test_latents_of_a_video_that_is_not_the_one_there(encoded: Path) -> None:
    def other(facts: dict[str, Any]) -> None:
        facts["video_sha256"] = "1" * 64

    with_header(first_file(encoded), other)
    recommit(encoded, other)
    [found] = verify(encoded)
    assert found.check.value == "latents_differ"
    assert "latents of the stored video" in found.message


def test_a_row_that_points_elsewhere(encoded: Path) -> None:
    second = rows_of(encoded)[1]["path"]
    recommit(encoded, lambda row: row.update(path=second))
    assert checks(encoded)[0][0] == "latents_differ"


def test_a_link_out_of_the_corpus_is_not_followed(encoded: Path, tmp_path: Path) -> None:
    path = first_file(encoded)
    (tmp_path / "elsewhere").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert checks(encoded) == [("unsafe_path", path.name)]


def test_a_grid_off_by_one_and_numbers_that_are_none_are_seen_by_deep(encoded: Path) -> None:
    path = first_file(encoded)
    header, data = read_header(path), bytearray(path.read_bytes())
    at = header.tensors["frame_index"].start
    index = np.frombuffer(data, "<i8", count=14, offset=at) + 1
    data[at : at + 8 * 14] = index.tobytes()
    name = "latents" if dtype_of(encoded) == "bf16" else "scale"
    held = header.tensors[name]
    nan = b"\xc0\x7f" if name == "latents" else np.float32(np.inf).tobytes()
    data[held.end - len(nan) : held.end] = nan
    path.write_bytes(data)
    recommit(encoded, lambda row: None)
    assert checks(encoded) == []
    assert checks(encoded, deep=True) == [
        ("latents_differ", path.name),
        ("latents_differ", path.name),  # nor the picture's checksum
        ("latents_not_finite", path.name),
    ]


def test_only_the_newest_row_of_a_file_counts(encoded: Path) -> None:
    first_file(encoded).unlink()
    encoder = ImageEncoder.open(replace(TINY, storage=dtype_of(encoded)))
    assert encode(encoded, encoder, run_id="latents-2").encoded == 1
    assert len(rows_of(encoded)) == 4
    assert checks(encoded) == []
    assert snapshot.load(encoded).parts("latents")[1].rows == 1


def test_a_changed_video_is_one_finding_of_the_video(encoded: Path) -> None:
    video = videos_of(encoded)[0]
    video.write_bytes(video.read_bytes() + b"x")
    assert {name for name, _ in checks(encoded)} == {"file_changed"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        b"\xff" * 8 + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{}",
        (9).to_bytes(8, "little") + b'{"a": {}}',
        (4).to_bytes(8, "little") + b"{}  " + b"trailing",
    ],
)
def test_a_file_that_is_none_is_refused_and_not_believed(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(ConfigError):
        read_header(path)


def test_tensors_with_a_gap_an_overlap_or_a_false_size_are_refused(encoded: Path) -> None:
    path = first_file(encoded)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])

    def changed(name: str, **values: Any) -> bytes:
        text = json.dumps({**header, name: {**header[name], **values}}).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + length :]

    a, b = header["latents"]["data_offsets"]
    shape = header["latents"]["shape"]
    c, d = header["frame_index"]["data_offsets"]
    aside = 8 if c == 0 else -8  # into its neighbour, so that the last byte is still the last
    for bad in (
        changed("frame_index", data_offsets=[c + aside, d + aside]),
        changed("latents", data_offsets=[a + 8, b + 8]),
        changed("latents", shape=[shape[0] + 1, *shape[1:]]),
        changed("latents", shape=[-1, -1, *shape]),
        changed("latents", dtype="F99"),
    ):
        path.write_bytes(bad)
        with pytest.raises(ConfigError):
            read_header(path)
