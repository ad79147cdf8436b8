"""Numbers of the catalog are bounded where rows are read."""

from __future__ import annotations

import pyarrow as pa
import pytest

from ingest.corpus.column_checks import DamagedCatalog, check_numbers
from schemas.catalog import MOST_FRAMES


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ({"length": [3, -1]}, "length contains -1"),
        ({"length": [3, MOST_FRAMES + 1]}, f"length contains {MOST_FRAMES + 1}"),
        ({"task_counts": [[1], [2, -5]]}, "task_counts contains -5"),
        ({"cameras": [[{"width": -640}]]}, "cameras.width contains -640"),
        ({"adapter_version": [-1]}, "adapter_version contains -1"),
        ({"duration_s": [1.0, -0.5]}, "duration_s contains -0.5"),
        ({"duration_s": [None, 1e300]}, "duration_s contains 1e.300"),
        ({"duration_s": [float("nan"), 1.0]}, "duration_s contains nan"),
    ],
)
def test_a_number_out_of_range_is_named(rows: dict[str, list[object]], named: str) -> None:
    with pytest.raises(DamagedCatalog, match=named):
        check_numbers("episodes", pa.table(rows))


def test_numbers_in_range_pass() -> None:
    rows = {
        "length": [0, MOST_FRAMES, None],
        "num_bytes": [1 << 50, 0, 1],
        "task_counts": [[], None, [3]],
        "cameras": [[{"width": 640, "name": "a"}], [], None],
        "duration_s": [0.0, 1.5, None],
        "value": [-1.0, 0.0, 1.0],
    }
    check_numbers("episodes", pa.table(rows))
