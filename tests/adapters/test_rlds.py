"""TFDS metadata in both styles, and every encoding a step leaf may have."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from adapters.containers import rlds_steps
from adapters.containers.images import image_header
from adapters.containers.rlds import Leaf, read_info, read_leaves
from adapters.containers.rlds_dir import find_version_dir, open_dir, records_of, shards_of
from adapters.containers.rlds_steps import Steps, steps_of
from adapters.containers.tf_example import parse_example
from jobs.demo.raw import oxe
from jobs.demo.raw.oxe import BRIDGE, example_bytes, features_json, jpeg
from schemas.errors import Code, ConfigError, SourceError

T = 3


def png(picture: np.ndarray) -> bytes:
    """An array as OpenCV orders its channels."""
    return bytes(cv2.imencode(".png", picture)[1])


def steps(leaves: list[Leaf], features: Mapping[str, Any], num_steps: int = T) -> Steps:
    """The steps of a record with these leaves and stored features, and `is_first`."""
    flag = Leaf(key="steps/is_first", kind="tensor", dtype="bool", rank=1)
    data = {"steps/is_first": np.arange(num_steps) == 0, **features}
    data["steps/is_first"] = data["steps/is_first"].astype(np.int64)
    return steps_of(
        parse_example(example_bytes(data)), {leaf.key: leaf for leaf in (flag, *leaves)}
    )


def tensor(key: str, shape: tuple[int | None, ...], dtype: str, **more: Any) -> Leaf:
    return Leaf(key=f"steps/{key}", kind="tensor", shape=shape, dtype=dtype, **{"rank": 1, **more})


def failing(call: Any) -> Code:
    with pytest.raises(SourceError) as caught:
        call()
    return caught.value.code


# --- metadata -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old_style", [False, True])
def test_both_styles_of_features_json(tmp_path: Path, *, old_style: bool) -> None:
    spec = {**BRIDGE, ("observation", "in/put/pose"): ("tensor", (7,), "float32")}
    (tmp_path / "features.json").write_text(json.dumps(features_json(spec, old_style=old_style)))
    leaves = read_leaves(tmp_path)
    action = leaves["steps/action"]
    assert (action.kind, action.shape, action.dtype, action.rank) == ("tensor", (7,), "float32", 1)
    assert leaves["steps/observation/image_1"].kind == "image"
    assert leaves["steps/language_instruction"].kind == "text"
    assert leaves["steps/observation/in/put/pose"].shape == (7,)  # names may hold "/"
    assert leaves["episode_metadata/file_path"].rank == 0


def test_encodings_lengths_and_sequences_are_read(tmp_path: Path) -> None:
    tree = {
        "steps": (
            "dataset",
            {
                "blob": ("tensor", (7,), "float32", "zlib"),
                "loose": ("tensor", (None, 3), "float32"),
                "points": ("sequence", ("tensor", (2,), "float32")),
            },
        )
    }
    node = oxe._new_node(tree)  # the generator's own JSON
    node["featuresDict"]["features"]["label"] = {"classLabel": {"numClasses": "3"}}
    node["featuresDict"]["features"]["odd"] = {"pythonClassName": "somebody.Own"}
    (tmp_path / "features.json").write_text(json.dumps(node))
    leaves = read_leaves(tmp_path)
    assert leaves["steps/blob"].encoding == "zlib"
    assert leaves["steps/loose"].shape == (None, 3)
    assert (leaves["steps/points"].rank, leaves["steps/points"].shape) == (2, (2,))
    assert leaves["label"].dtype == "int64"
    assert leaves["odd"].kind == "unknown"


@pytest.mark.real
def test_real_metadata(samples: Path) -> None:
    directory = open_dir(find_version_dir(samples / "oxe_bridge_rlds"))
    assert (directory.info.name, directory.info.version) == ("bridge_dataset", "1.0.0")
    assert [(s.split, s.num_declared) for s in shards_of(directory.info)] == [
        ("train", 25),
        ("val", 25),
    ]
    assert directory.leaves["steps/observation/state"].shape == (7,)


@pytest.mark.parametrize(
    "text",
    ["", "[1]", "{", '{"name": "x"}', '{"name": "x", "version": "1", "splits": [{"name": "t"}]}'],
)
def test_broken_dataset_info_is_the_callers_to_fix(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset_info.json").write_text(text)
    with pytest.raises(ConfigError):
        read_info(tmp_path)


def test_other_file_formats_are_named(tmp_path: Path) -> None:
    info = {"name": "x", "version": "1.0.0", "fileFormat": "array_record", "splits": []}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(ConfigError, match="array_record"):
        read_info(tmp_path)


def test_deeply_nested_features_are_refused(tmp_path: Path) -> None:
    node: dict[str, Any] = {"tensor": {"dtype": "float32", "shape": {}}}
    for _ in range(200):
        node = {"featuresDict": {"features": {"a": node}}}
    (tmp_path / "features.json").write_text(json.dumps(node))
    with pytest.raises(ConfigError, match=r"levels of nesting; expected at most"):
        read_leaves(tmp_path)


def test_a_template_of_its_own_and_a_hostile_one(tmp_path: Path) -> None:
    info = oxe.dataset_info("set", "1.0.0", {"train": [2]})
    info["splits"][0]["filepathTemplate"] = (
        "{SPLIT}/{DATASET}_{SHARD_INDEX}_{NUM_SHARDS}.{FILEFORMAT}"
    )
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    assert [s.name for s in shards_of(read_info(tmp_path))] == ["train/set_00000_00001.tfrecord"]
    info["splits"][0]["filepathTemplate"] = "../../{DATASET}{0.__class__}"
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    (shard,) = shards_of(read_info(tmp_path))
    ((_, record),) = records_of(tmp_path, shard)
    assert record.problem is not None
    assert record.problem[0] is Code.UNSAFE_PATH


# --- encodings ----------------------------------------------------------------------------------------------------------


def test_flat_lists_take_their_shape() -> None:
    stored = np.arange(12, dtype=np.float32)
    found = steps([tensor("a", (2, 2), "float32")], {"steps/a": stored}).numbers("a")
    assert found.shape == (T, 2, 2)
    assert found[1].tolist() == [[4, 5], [6, 7]]


@pytest.mark.parametrize(
    ("dtype", "stored", "wanted"),
    [
        ("bool", [0, 1, 2], [False, True, True]),
        ("uint8", [0, 200, 255], [0, 200, 255]),
        ("int32", [-5, 0, 2**31 - 1], [-5, 0, 2**31 - 1]),
        ("uint64", [-1, 0, 1], [2**64 - 1, 0, 1]),  # bit-cast, not clipped
    ],
)
def test_integers_and_flags(dtype: str, stored: list[int], wanted: list[int]) -> None:
    found = steps([tensor("a", (), dtype)], {"steps/a": np.array(stored)}).numbers("a")
    assert found.tolist() == wanted
    assert found.dtype == np.dtype(dtype)


def test_float64_comes_back_as_the_float32_that_was_stored() -> None:
    found = steps([tensor("a", (), "float64")], {"steps/a": np.full(T, 0.1, np.float32)}).numbers(
        "a"
    )
    assert found.dtype == np.float64
    assert found[0] == float(np.float32(0.1))
    assert found[0] != 0.1


def test_ragged_leaf_of_two_levels() -> None:
    leaf = tensor("p", (2,), "float32", rank=2)
    data = {
        "steps/p/ragged_flat_values": np.arange(8, dtype=np.float32),
        "steps/p/ragged_row_lengths_0": np.array([1, 0, 3]),
    }
    found = steps([leaf], data)
    assert [part.tolist() for part in found.lists("p")] == [[[0, 1]], [], [[2, 3], [4, 5], [6, 7]]]
    assert failing(lambda: found.numbers("p")) is Code.SHAPE_MISMATCH
    data["steps/p/ragged_row_lengths_0"] = np.array([1, 1, 1])
    assert failing(lambda: steps([leaf], data).lists("p")) is Code.SHAPE_MISMATCH


def test_ragged_leaf_of_three_levels() -> None:
    leaf = tensor("p", (), "int64", rank=3)
    data = {
        "steps/p/ragged_flat_values": np.arange(6),
        "steps/p/ragged_row_lengths_0": np.array([2, 0, 1]),  # groups per step
        "steps/p/ragged_row_lengths_1": np.array([1, 2, 3]),  # values per group
    }
    assert [p.tolist() for p in steps([leaf], data).lists("p")] == [[0, 1, 2], [], [3, 4, 5]]


@pytest.mark.parametrize("rows", [[2**62, 2**62, 2**63 - 1], [-1, 2, 2], [1, 2], [3, 3, 3]])
def test_hostile_ragged_lengths(rows: list[int]) -> None:
    data = {
        "steps/p/ragged_flat_values": np.arange(3),
        "steps/p/ragged_row_lengths_0": np.array(rows),
    }
    bad = steps([tensor("p", (), "int64", rank=2)], data)
    assert failing(lambda: bad.lists("p")) is Code.SHAPE_MISMATCH


def test_dynamic_shapes_as_numbers_and_as_bytes() -> None:
    leaf = tensor("d", (None, None), "float32")
    shapes = np.array([1, 2, 2, 2, 0, 5])
    numbers = np.arange(6, dtype=np.float32)
    found = steps([leaf], {"steps/d/shape": shapes, "steps/d/value": numbers}).lists("d")
    assert [f.shape for f in found] == [(1, 2), (2, 2), (0, 5)]
    assert found[1].tolist() == [[2, 3], [4, 5]]
    blobs = [numbers[:2].tobytes(), numbers[2:].tobytes(), b""]
    packed = tensor("d", (None, None), "float32", encoding="bytes")
    found = steps([packed], {"steps/d/shape": shapes, "steps/d/value": blobs}).lists("d")
    assert found[1].tolist() == [[2, 3], [4, 5]]


@pytest.mark.parametrize("encoding", ["bytes", "zlib"])
def test_blobs_of_raw_bytes(encoding: str) -> None:
    leaf = tensor("b", (7,), "float32", encoding=encoding)
    values = np.arange(T * 7, dtype="<f4").reshape(T, 7)
    pack = zlib.compress if encoding == "zlib" else bytes
    found = steps([leaf], {"steps/b": [pack(row.tobytes()) for row in values]})
    assert found.numbers("b").tolist() == values.tolist()
    assert found.numbers("b").dtype == np.float32
    short = steps([leaf], {"steps/b": [pack(row.tobytes()[:-4]) for row in values]})
    assert failing(lambda: short.numbers("b")) is Code.SHAPE_MISMATCH


def test_zlib_bomb_is_stopped_at_the_expected_size() -> None:
    leaf = tensor("b", (7,), "float32", encoding="zlib")
    found = steps([leaf], {"steps/b": [zlib.compress(bytes(50_000_000))] * T})
    tracemalloc.start()
    assert failing(lambda: found.numbers("b")) is Code.TOO_LARGE
    assert tracemalloc.get_traced_memory()[1] < 1_000_000  # nothing was inflated beyond 28 bytes
    tracemalloc.stop()
    cut = zlib.compress(bytes(28))[:-6]
    found = steps([leaf], {"steps/b": [cut] * T})
    assert failing(lambda: found.numbers("b")) is Code.CORRUPT_RECORD
    found = steps([leaf], {"steps/b": [b"no zlib at all"] * T})
    assert failing(lambda: found.numbers("b")) is Code.CORRUPT_RECORD


def test_a_declared_tensor_too_large_is_refused_before_inflating() -> None:
    leaf = tensor("b", (rlds_steps.MAX_TENSOR_BYTES,), "float32", encoding="zlib")
    found = steps([leaf], {"steps/b": [zlib.compress(b"")] * T})
    assert failing(lambda: found.numbers("b")) is Code.TOO_LARGE


def test_depth_hidden_in_the_four_channels_of_a_png() -> None:
    depth = np.array([[0.5, 1.25], [3.0, 1e-3]], dtype="<f4")
    rgba = depth.view(np.uint8).reshape(2, 2, 4)
    stored = png(rgba[..., [2, 1, 0, 3]])  # OpenCV writes blue first
    leaf = Leaf(key="steps/z", kind="image", shape=(2, 2, 1), dtype="float32", rank=1)
    found = steps([leaf], {"steps/z": [stored] * T}).depth("z")
    assert found.tolist() == [depth.tolist()] * T


def test_uint16_depth_and_what_is_no_depth() -> None:
    depth = np.array([[0, 1024], [65535, 7]], np.uint16)
    leaf = Leaf(key="steps/z", kind="image", shape=(2, 2, 1), dtype="uint16", rank=1)
    assert steps([leaf], {"steps/z": [png(depth)] * T}).depth("z")[0].tolist() == depth.tolist()
    colour = steps([leaf], {"steps/z": [jpeg(np.zeros((2, 2, 3), np.uint8))] * T})
    assert failing(lambda: colour.depth("z")) is Code.CORRUPT_IMAGE


def test_picture_format_is_sniffed_not_believed() -> None:
    leaf = Leaf(key="steps/i", kind="image", shape=(4, 6, 3), dtype="uint8", rank=1)
    picture = np.zeros((4, 6, 3), np.uint8)
    stored = [jpeg(picture), png(picture), jpeg(picture)]
    assert steps([leaf], {"steps/i": stored}).images("i") == tuple(stored)
    for bad in (b"", b"GIF89a....", b"\xff\xd8\xff\xe0\x00", png(picture)[:20]):
        found = steps([leaf], {"steps/i": [stored[0], bad, stored[0]]})
        assert failing(lambda found=found: found.images("i")) is Code.CORRUPT_IMAGE


@pytest.mark.parametrize("encode", [jpeg, png])
def test_picture_size_without_decoding(encode: Any) -> None:
    header = image_header(encode(np.zeros((48, 64, 3), np.uint8)))
    assert (header.width_px, header.height_px) == (64, 48)


def test_decompression_bomb_is_too_large() -> None:
    data = bytearray(png(np.zeros((4, 4, 3), np.uint8)))
    data[16:24] = (50_000).to_bytes(4, "big") * 2
    assert failing(lambda: image_header(bytes(data))) is Code.TOO_LARGE


def test_wrong_counts_have_their_own_codes() -> None:
    text = Leaf(key="steps/t", kind="text", dtype="string", rank=1)
    found = steps(
        [text, tensor("a", (2,), "float32")], {"steps/t": [b"x"], "steps/a": np.ones(5, np.float32)}
    )
    assert failing(lambda: found.texts("t")) is Code.FRAME_COUNT
    assert failing(lambda: found.numbers("a")) is Code.SHAPE_MISMATCH
    assert failing(lambda: found.numbers("nowhere")) is Code.MISSING_CHANNEL


def test_text_is_utf8_or_a_bad_annotation() -> None:
    leaf = Leaf(key="steps/t", kind="text", dtype="string", rank=1)
    assert steps([leaf], {"steps/t": ["größer".encode()] * T}).texts("t") == ["größer"] * T
    bad = steps([leaf], {"steps/t": [b"\xff\xfe"] * T})
    assert failing(lambda: bad.texts("t")) is Code.BAD_ANNOTATION


def test_declared_but_absent_leaf() -> None:
    found = steps([tensor("a", (), "float32")], {})
    assert not found.has("a")
    assert failing(lambda: found.numbers("a")) is Code.MISSING_CHANNEL


def test_an_episode_without_steps_or_with_two_lengths() -> None:
    assert failing(lambda: steps([], {}, num_steps=0)) is Code.EMPTY_EPISODE
    last = tensor("is_last", (), "bool")
    assert (
        failing(lambda: steps([last], {"steps/is_last": np.zeros(T + 1, int)}))
        is Code.SHAPE_MISMATCH
    )
    assert failing(lambda: steps_of({}, {})) is Code.UNKNOWN_LAYOUT
