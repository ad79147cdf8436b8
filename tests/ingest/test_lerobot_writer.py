"""LeRobot files to the letter, and statistics against plain NumPy on hard numbers."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ingest.corpus.lerobot_writer import (
    arrow_column,
    arrow_schema,
    column_stats,
    data_schema,
    default_stats,
    numbered,
    parquet_bytes,
    staged_table,
)
from schemas.lerobot import DEFAULT_FEATURES, vector_feature, video_feature

FEATURES = {
    "action": vector_feature("float32", ("x", "y", "z")),
    "action.valid": vector_feature("bool", ("p", "r")),
    "gripper": vector_feature("float32", ("g",)),
    "observation.images.head": video_feature(width=4, height=2, codec="h264", fps=10),
}
K = 7
COLUMNS = {
    "action": np.arange(3 * K, dtype=np.float32).reshape(K, 3),
    "action.valid": np.arange(2 * K).reshape(K, 2) % 3 == 0,
    "gripper": np.linspace(0, 1, K, dtype=np.float32)[:, None],
}


def episode(number: int = 3, index_from: int = 40) -> pa.Table:
    staged = staged_table(COLUMNS, np.array([0, 0, 0, 1, 1, 0, 1]))
    return numbered(
        staged,
        data_schema(FEATURES),
        fps=10,
        episode_index=number,
        index_from=index_from,
        task_indices=[5, 2],
    )


def test_the_hugging_face_metadata_says_sequence() -> None:
    """`List`, which datasets 4 writes, is refused by the datasets 3 of lerobot 0.3.3."""
    declared = json.loads(episode().schema.metadata[b"huggingface"])["info"]["features"]
    assert declared["action"] == {
        "feature": {"dtype": "float32", "_type": "Value"},
        "length": 3,
        "_type": "Sequence",
    }
    assert declared["action.valid"]["feature"]["dtype"] == "bool"
    assert declared["gripper"] == {"dtype": "float32", "_type": "Value"}
    assert declared["timestamp"] == {"dtype": "float32", "_type": "Value"}
    assert declared["task_index"] == {"dtype": "int64", "_type": "Value"}
    assert list(declared) == ["action", "action.valid", "gripper", *DEFAULT_FEATURES]
    assert "List" not in episode().schema.metadata[b"huggingface"].decode()


def test_vectors_are_fixed_lists_and_single_values_plain() -> None:
    schema = data_schema(FEATURES)
    assert schema == arrow_schema({**FEATURES, **DEFAULT_FEATURES})
    assert schema.field("action").type == pa.list_(pa.float32(), 3)
    assert schema.field("action.valid").type == pa.list_(pa.bool_(), 2)
    assert schema.field("gripper").type == pa.float32()
    assert schema.field("index").type == pa.int64()
    assert "observation.images.head" not in schema.names  # pictures live in files of their own


def test_numbering_by_hand() -> None:
    table = episode()
    assert table.column("frame_index").to_pylist() == list(range(K))
    assert table.column("index").to_pylist() == list(range(40, 40 + K))
    assert table.column("episode_index").to_pylist() == [3] * K
    assert table.column("task_index").to_pylist() == [5, 5, 5, 2, 2, 5, 2]
    assert table.column("gripper").to_pylist() == COLUMNS["gripper"][:, 0].tolist()
    assert table.column("action").to_pylist() == COLUMNS["action"].tolist()


def test_timestamps_are_rounded_once() -> None:
    """frame / fps in float64, then float32: adding up 0.1 in float32 would be off by milliseconds."""
    count = 10_000
    staged = staged_table({}, np.zeros(count, np.int64))
    table = numbered(
        staged, data_schema({}), fps=10, episode_index=0, index_from=0, task_indices=[0]
    )
    found = table.column("timestamp").to_numpy()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, (np.arange(count) / 10).astype(np.float32))
    drifted = np.cumsum(np.full(count, 0.1, np.float32)) - np.float32(0.1)
    assert abs(drifted[-1] - found[-1]) > 1e-3


def test_one_row_group_and_the_same_bytes_again() -> None:
    data = parquet_bytes(episode())
    file = pq.ParquetFile(pa.BufferReader(data))
    assert file.num_row_groups == 1
    assert file.metadata.num_rows == K
    assert file.metadata.row_group(0).column(0).compression == "SNAPPY"
    assert parquet_bytes(episode()) == data
    assert file.read().equals(episode())
    long = pa.table({"index": np.arange(2_000_000)})
    assert pq.ParquetFile(pa.BufferReader(parquet_bytes(long))).num_row_groups == 1


def test_columns_that_are_not_contiguous() -> None:
    turned = np.asfortranarray(COLUMNS["action"])
    assert arrow_column(turned).to_pylist() == COLUMNS["action"].tolist()
    assert arrow_column(COLUMNS["action"][:, ::-1]).to_pylist()[1] == [5.0, 4.0, 3.0]


# --- statistics ---------------------------------------------------------------------------------------------------------


def test_statistics_by_hand() -> None:
    found = column_stats(np.array([[1.0, -2.0], [3.0, -2.0]], dtype=np.float32))
    assert found == {
        "min": [1.0, -2.0],
        "max": [3.0, -2.0],
        "mean": [2.0, -2.0],
        "std": [1.0, 0.0],  # population: n, not n - 1
        "count": [2],
    }


def test_statistics_of_masks() -> None:
    found = column_stats(np.array([[True, False], [True, True], [True, False], [True, False]]))
    assert found["min"] == [True, False]
    assert found["max"] == [True, True]
    assert found["mean"] == [1.0, 0.25]
    assert found["std"] == [0.0, pytest.approx(np.sqrt(3) / 4)]
    json.dumps(found, allow_nan=False)


def test_a_small_spread_on_a_large_mean_survives() -> None:
    """E[x^2] - E[x]^2 in float32 gives zero or a negative variance here."""
    rng = np.random.default_rng(0)
    x = (1000 + 0.01 * rng.standard_normal((5000, 1))).astype(np.float32)
    naive = float((x**2).mean(dtype=np.float32) - x.mean(dtype=np.float32) ** 2)
    assert not abs(naive**0.5 - 0.01 if naive > 0 else 1) < 1e-3
    found = column_stats(x)
    assert found["mean"][0] == pytest.approx(x.astype(np.longdouble).mean(), abs=1e-9)
    assert found["std"][0] == pytest.approx(float(x.astype(np.longdouble).std()), rel=1e-9)


def test_a_single_row() -> None:
    assert column_stats(np.array([[4.0]], np.float32)) == {
        "min": [4.0],
        "max": [4.0],
        "mean": [4.0],
        "std": [0.0],
        "count": [1],
    }


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 40), st.integers(1, 3)),
        elements=st.floats(-1e6, 1e6, width=32),
    )
)
def test_statistics_against_numpy(values: np.ndarray) -> None:
    wide = values.astype(np.longdouble)
    found = column_stats(values)
    scale = float(np.abs(wide).max()) + 1e-30
    np.testing.assert_array_equal(found["min"], values.min(axis=0))
    np.testing.assert_array_equal(found["max"], values.max(axis=0))
    np.testing.assert_allclose(found["mean"], wide.mean(axis=0).astype(float), atol=1e-12 * scale)
    centred = wide - wide.mean(axis=0)
    std = np.sqrt((centred**2).mean(axis=0)).astype(float)
    np.testing.assert_allclose(found["std"], std, atol=1e-12 * scale)
    assert found["count"] == [len(values)]


@pytest.mark.parametrize("tasks", [[5, 2], [0, 9]])
@pytest.mark.parametrize("index_from", [0, 40, 10**9])
def test_statistics_of_the_default_columns_follow_from_the_numbers(
    tasks: list[int], index_from: int
) -> None:
    """`meta/` is rebuilt from catalog rows without reading a data file: both ways must agree."""
    staged = staged_table(COLUMNS, np.array([0, 0, 0, 1, 1, 0, 1]))
    table = numbered(
        staged,
        data_schema(FEATURES),
        fps=10,
        episode_index=3,
        index_from=index_from,
        task_indices=tasks,
    )
    counts = [(tasks[0], 4), (tasks[1], 3)]
    found = default_stats(
        length=K, fps=10, episode_index=3, index_from=index_from, task_index_counts=counts
    )
    assert list(found) == list(DEFAULT_FEATURES)
    for name, stats in found.items():
        wanted = column_stats(table.column(name).to_numpy())
        assert stats["count"] == wanted["count"] == [K]
        assert (stats["min"], stats["max"]) == (wanted["min"], wanted["max"])
        assert [type(v) for v in stats["min"]] == [type(v) for v in wanted["min"]]
        for key in ("mean", "std"):
            np.testing.assert_allclose(stats[key], wanted[key], rtol=1e-12, err_msg=f"{name} {key}")


def test_statistics_of_a_single_timestep() -> None:
    found = default_stats(
        length=1, fps=10, episode_index=0, index_from=7, task_index_counts=[(2, 1)]
    )
    assert all(stats["std"] == [0.0] for stats in found.values())
    assert found["index"]["min"] == found["index"]["max"] == [7]
    assert found["timestamp"]["max"] == [0.0]
