"""Rows of LeRobot episodes and their clock: known values worked out by hand, and one test per known defect."""

from __future__ import annotations

import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adapters.containers import lerobot_table
from adapters.containers.lerobot_table import TableRows, read_rows
from adapters.lerobot.episode_rows import length_facts, row_clock
from schemas.errors import Code, SourceError

HZ_30 = Fraction(30)


def _rows(**columns: object) -> TableRows:
    return TableRows(where="t.parquet", table=pa.table(columns))


def _saved(tmp_path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def _code(call: object, *args: object, **kwargs: object) -> Code:
    with pytest.raises(SourceError) as caught:
        call(*args, **kwargs)  # type: ignore[operator]
    return caught.value.code


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1, 2], [3, 4]], pa.list_(pa.float64())),
        pa.array([[1, 2], [3, 4]], pa.list_(pa.float32(), 2)),
        pa.array([[1, 2], [3, 4]], pa.large_list(pa.int64())),
        pa.array([[[1], [2]], [[3], [4]]], pa.list_(pa.list_(pa.float32()))),
    ],
)
def test_every_column_form_gives_one_matrix(column: pa.Array) -> None:
    np.testing.assert_array_equal(_rows(a=column).matrix("a"), [[1, 2], [3, 4]])


def test_lists_survive_slicing_and_chunks() -> None:
    column = pa.chunked_array([pa.array([[0, 0], [1, 2]], pa.list_(pa.float32(), 2))[1:], [[3, 4]]])
    np.testing.assert_array_equal(_rows(a=column).matrix("a"), [[1, 2], [3, 4]])
    plain = pa.chunked_array([pa.array([[9], [1]], pa.list_(pa.float64()))[1:], [[3.0]]])
    np.testing.assert_array_equal(_rows(a=plain).matrix("a"), [[1], [3]])


def test_scalars_and_booleans() -> None:
    assert _rows(a=[1.5, 2.5]).matrix("a").tolist() == [[1.5], [2.5]]
    assert _rows(a=[True, False]).matrix("a").tolist() == [[1.0], [0.0]]
    assert _rows(a=[[7], [8]]).integers("a").tolist() == [7, 8]


@pytest.mark.parametrize(
    ("column", "code"),
    [
        ([[1.0, 2.0], [3.0]], Code.SHAPE_MISMATCH),
        ([[1.0], None], Code.NOT_FINITE),
        ([1.0, None], Code.NOT_FINITE),
        ([pickle.dumps(1), pickle.dumps(2)], Code.UNSAFE_CONTENT),
        ([[b"\x80\x04"], [b"\x80\x04"]], Code.UNSAFE_CONTENT),
        (["1", "2"], Code.SHAPE_MISMATCH),
    ],
)
def test_what_is_no_matrix_is_refused(column: list[object], code: Code) -> None:
    assert _code(_rows(a=column).matrix, "a") == code


def test_integers_must_be_whole() -> None:
    assert _code(_rows(a=[1.5]).integers, "a") == Code.SHAPE_MISMATCH
    assert _code(_rows(a=[[1, 2]]).integers, "a") == Code.SHAPE_MISMATCH
    assert _code(_rows(a=[1]).matrix, "b") == Code.MISSING_CHANNEL


def test_shared_file_is_filtered_by_episode_and_not_by_position(tmp_path: Path) -> None:
    path = _saved(tmp_path, episode_index=[2, 0, 2, 1], a=[1.0, 2.0, 3.0, 4.0])
    rows = read_rows(path, ["a", "absent"], where="t", episode=2)
    assert rows.matrix("a")[:, 0].tolist() == [1.0, 3.0]
    assert not rows.has("absent")
    assert _code(read_rows, path, ["a"], where="t", episode=7) == Code.EMPTY_EPISODE


def test_row_groups_without_the_episode_are_skipped(tmp_path: Path) -> None:
    table = pa.table({"episode_index": np.repeat(np.arange(4), 5), "a": np.arange(20.0)})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=5)
    rows = read_rows(tmp_path / "t.parquet", ["a"], where="t", episode=3)
    assert rows.matrix("a")[:, 0].tolist() == [15.0, 16.0, 17.0, 18.0, 19.0]


def test_columns_that_share_a_prefix_are_not_mixed_up(tmp_path: Path) -> None:
    path = _saved(tmp_path, **{"s.arm": [1.0], "s.arm.velocities": [2.0]})
    assert read_rows(path, ["s.arm"], where="t", episode=None).table.column_names == ["s.arm"]


def test_several_episodes_in_a_file_of_one(tmp_path: Path) -> None:
    path = _saved(tmp_path, episode_index=[0, 1], a=[1.0, 2.0])
    assert _code(read_rows, path, ["a"], where="t", episode=None) == Code.CORRUPT_RECORD


def test_shared_file_without_episode_index(tmp_path: Path) -> None:
    path = _saved(tmp_path, a=[1.0])
    assert _code(read_rows, path, ["a"], where="t", episode=0) == Code.MISSING_CHANNEL


def test_broken_files(tmp_path: Path) -> None:
    path = _saved(tmp_path, a=np.arange(10_000.0))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert _code(read_rows, path, ["a"], where="t", episode=None) == Code.TRUNCATED
    path.write_bytes(b"")
    assert _code(read_rows, path, ["a"], where="t", episode=None) == Code.TRUNCATED
    path.write_bytes(whole[:8] + b"\xff" * 4000 + whole[4008:])
    assert _code(read_rows, path, ["a"], where="t", episode=None) == Code.UNREADABLE
    path.unlink()
    assert _code(read_rows, path, ["a"], where="t", episode=None) == Code.MISSING_FILE
    empty = _saved(tmp_path, a=pa.array([], pa.float64()))
    assert _code(read_rows, empty, ["a"], where="t", episode=None) == Code.EMPTY_EPISODE


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _saved(tmp_path, a=np.zeros(5000))
    monkeypatch.setattr(lerobot_table, "MAX_ROWS", 4999)
    assert _code(read_rows, path, ["a"], where="t", episode=None) == Code.TOO_LONG
    monkeypatch.setattr(lerobot_table, "MAX_BYTES", 1000)
    assert _code(read_rows, path, ["a"], where="t", episode=None) == Code.TOO_LARGE
    monkeypatch.setattr(lerobot_table, "MAX_VALUES", 4999)
    with pytest.raises(SourceError, match="5000 values of a in one row group"):
        read_rows(path, ["a"], where="t", episode=None)


def test_clock_is_recomputed_from_the_frame_index() -> None:
    stored = np.array([0.05, 0.0833, 0.1167], dtype=np.float32)  # GR00T's demo set starts at 0.05
    t_ns, due_ns, fact = row_clock(_rows(frame_index=[0, 1, 2], timestamp=stored), HZ_30)
    assert t_ns.tolist() == [0, 33_333_333, 66_666_667]
    assert due_ns.tolist() == [33_333_333, 66_666_667, 100_000_000]
    assert (fact.name, fact.value) == ("clock", "frame_index / 30 Hz")


def test_clock_without_frame_index_or_timestamp() -> None:
    assert row_clock(_rows(a=[1.0, 2.0]), HZ_30)[0].tolist() == [0, 33_333_333]


def test_frame_index_may_start_late_and_skip() -> None:
    rows = _rows(frame_index=[5, 6, 8], timestamp=[5 / 30, 6 / 30, 8 / 30])
    t_ns, due_ns, _ = row_clock(rows, HZ_30)
    assert t_ns.tolist() == [0, 33_333_333, 100_000_000]
    assert due_ns.tolist() == [33_333_333, 66_666_667, 133_333_333]


def test_real_gap_keeps_the_stored_timestamps() -> None:
    rows = _rows(frame_index=[0, 1, 2], timestamp=[10.0, 10.1, 10.5])
    t_ns, due_ns, fact = row_clock(rows, Fraction(10))
    assert t_ns.tolist() == [0, 100_000_000, 500_000_000]
    assert due_ns.tolist() == [100_000_000, 200_000_000, 600_000_000]
    assert fact.value == "stored timestamps"


def test_jitter_below_a_period_and_a_half_is_no_gap() -> None:
    near = row_clock(_rows(timestamp=[0.0, 0.1, 0.349]), Fraction(10))
    assert near[0].tolist() == [0, 100_000_000, 200_000_000]
    far = row_clock(_rows(timestamp=[0.0, 0.1, 0.351]), Fraction(10))
    assert far[0].tolist() == [0, 100_000_000, 351_000_000]


def test_float32_timestamps_of_long_episodes_do_not_matter() -> None:
    stored = (np.arange(60_000) / 30).astype(np.float32)  # 33 min: float32 steps are 0.12 ms there
    t_ns, _, _ = row_clock(_rows(frame_index=np.arange(60_000), timestamp=stored), HZ_30)
    assert t_ns[-1] == 1_999_966_666_667  # 59999 / 30 s


@pytest.mark.parametrize("column", ["timestamp", "frame_index"])
def test_clock_that_stands_still(column: str) -> None:
    assert _code(row_clock, _rows(**{column: [0, 1, 1]}), HZ_30) == Code.CLOCK_NOT_INCREASING
    assert _code(row_clock, _rows(**{column: [0, 2, 1]}), HZ_30) == Code.CLOCK_NOT_INCREASING


def test_senseless_clocks() -> None:
    nan = _rows(timestamp=[0.0, float("nan")])
    assert _code(row_clock, nan, HZ_30) == Code.NOT_FINITE
    assert _code(row_clock, _rows(frame_index=[0, 10**12]), HZ_30) == Code.TOO_LONG


def test_declared_length_is_only_a_claim() -> None:
    rows = _rows(a=[1.0, 2.0])
    assert length_facts(rows, 2) == length_facts(rows, 0) == ()
    assert length_facts(rows, 7)[0].value == "2 rows, 7 declared; the rows are used"


def test_pictures_need_their_bytes() -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    good = pa.array([{"bytes": b"png", "path": None}], kind)
    assert _rows(a=good).pictures("a") == (b"png",)
    only_path = pa.array([{"bytes": None, "path": "/etc/passwd"}], kind)
    assert _code(_rows(a=only_path).pictures, "a") == Code.CORRUPT_IMAGE
    assert _code(_rows(a=[1.0]).pictures, "a") == Code.UNKNOWN_LAYOUT


@pytest.mark.real
def test_real_galaxea_rows(samples: Path) -> None:
    path = samples / "lerobot_v21_galaxea_r1lite/episode_000000.parquet"
    columns = [
        "observation.state.left_arm",
        "observation.state.left_gripper",
        "timestamp",
        "frame_index",
    ]
    rows = read_rows(path, columns, where="e", episode=None)
    assert rows.matrix("observation.state.left_arm").shape == (868, 6)
    t_ns, _, fact = row_clock(rows, Fraction(15))
    assert (t_ns[-1], fact.value) == (57_800_000_000, "frame_index / 15 Hz")
    assert rows.matrix("observation.state.left_gripper").max() == pytest.approx(100.295, abs=1e-3)


@pytest.mark.real
def test_real_gr1_rows(samples: Path) -> None:
    data = samples / "lerobot_v20_gr1_picknplace/data/chunk-000"
    counts = []
    for path in sorted(data.glob("*.parquet")):
        rows = read_rows(
            path, ["observation.state", "timestamp", "frame_index"], where="e", episode=None
        )
        t_ns, _, fact = row_clock(rows, Fraction(20))
        assert not rows.has("frame_index")
        assert t_ns[1] == 50_000_000
        assert fact.value == "frame_index / 20 Hz"
        counts.append(rows.matrix("observation.state").shape)
    assert counts == [(416, 44), (470, 44), (470, 44), (412, 44), (328, 44)]
