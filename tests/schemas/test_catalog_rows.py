"""Row types and tables have the same columns, of the same types; rows go through Arrow unchanged."""

from __future__ import annotations

import types
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from schemas.catalog import ADDED_COLUMNS, TABLES
from schemas.catalog_rows import (
    PLACE,
    CatalogRow,
    EpisodeFacts,
    as_dict,
    columns_of,
    rows_of,
    table_of,
)
from schemas.committed_rows import ROWS, ArtifactRow, VerdictRow
from schemas.review import Review

HINTS = {"np": np, "npt": npt}
SCALARS = {
    str: pa.types.is_string,
    int: pa.types.is_integer,
    float: pa.types.is_floating,
    bool: pa.types.is_boolean,
}


def hints_of(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind, localns=HINTS)
    return {name: hint for name, hint in hints.items() if get_origin(hint) is not ClassVar}


def is_of(hint: Any, column: pa.DataType) -> bool:
    """Whether values of an Arrow type, as Python has them, are of a type hint."""
    options = [each for each in get_args(hint) if each is not type(None)]
    if get_origin(hint) in (types.UnionType, Union):
        return all(is_of(each, column) for each in options)
    if is_typeddict(hint):
        return pa.types.is_struct(column) and hints_match(
            hints_of(hint), {field.name: field.type for field in column}
        )
    if get_origin(hint) is list:
        return pa.types.is_list(column) and is_of(options[0], column.value_type)
    if get_origin(hint) is np.ndarray:
        return pa.types.is_list(column) and column.value_type == pa.float32()
    if hint.__name__ == "datetime":
        return pa.types.is_timestamp(column)
    return SCALARS[hint](column)


def hints_match(hints: dict[str, Any], columns: dict[str, pa.DataType]) -> bool:
    return hints.keys() == columns.keys() and all(
        is_of(hint, columns[name]) for name, hint in hints.items()
    )


# A row whose type has rules.
REVIEW = Review(
    review_id="00000000-0000-0000-0000-000000000001",
    uid="u",
    start=None,
    end=None,
    kind="accept",
    value="",
    author="Ada",
    at=datetime(2026, 1, 2, tzinfo=UTC),
    snapshot=1,
    supersedes=None,
)


def test_every_table_has_one_row_type() -> None:
    assert ROWS.keys() == TABLES.keys()


@pytest.mark.parametrize("table", TABLES)
def test_a_row_type_has_the_columns_of_its_table(table: str) -> None:
    columns = {column.name: column.type for column in TABLES[table]}
    hints = hints_of(ROWS[table])
    assert sorted(columns_of(ROWS[table])) == sorted(columns)
    assert [name for name in columns if not is_of(hints[name], columns[name])] == []


def test_a_wrong_type_is_seen() -> None:
    columns = {column.name: column.type for column in TABLES["verdicts"]}
    assert hints_match(hints_of(VerdictRow), columns)
    assert not hints_match(hints_of(VerdictRow) | {"attempts": str}, columns)
    assert not hints_match(hints_of(VerdictRow) | {"colour": str}, columns)
    facts = TABLES["sources"].field("facts").type
    assert not is_of(list[str], facts)


def test_columns_that_came_later_may_be_none() -> None:
    """NULL in older parts."""
    hints = hints_of(ROWS["episodes"])
    assert all(type(None) in get_args(hints[name]) for name in ADDED_COLUMNS["episodes"])


def test_only_the_place_is_unknown_to_a_worker() -> None:
    assert set(columns_of(ROWS["episodes"])) - set(columns_of(EpisodeFacts)) == PLACE


@pytest.mark.parametrize("table", TABLES)
def test_rows_of_nothing_have_the_schema(table: str) -> None:
    assert table_of(ROWS[table], []).schema == TABLES[table]
    assert rows_of(ROWS[table], TABLES[table].empty_table()) == []


def artifact(path: str) -> ArtifactRow:
    return ArtifactRow(
        uid="u",
        kind="data",
        camera=None,
        path=path,
        num_bytes=2**40,
        sha256="0" * 64,
        num_frames=None,
        detail_json="{}",
    )


def test_rows_come_back_as_they_went_in() -> None:
    rows = [artifact("a"), artifact("b")]
    assert rows_of(ArtifactRow, table_of(ArtifactRow, rows)) == rows
    assert table_of(ArtifactRow, rows).to_pylist() == [as_dict(row) for row in rows]


def test_a_row_type_may_have_some_columns() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Lying(CatalogRow):
        TABLE: ClassVar[str] = "artifacts"
        path: str

    table = table_of(ArtifactRow, [artifact("a"), artifact("b")])
    assert rows_of(Lying, table) == [Lying(path="a"), Lying(path="b")]
    assert table_of(Lying, [Lying(path="a")]).to_pylist() == [{"path": "a"}]


@pytest.mark.parametrize("table", TABLES)
def test_a_missing_or_an_extra_column_is_refused(table: str) -> None:
    """A bug of ours, never a silent NULL."""
    kind = ROWS[table]
    good = as_dict(REVIEW) if kind is Review else dict.fromkeys(columns_of(kind))
    assert table_of(kind, [kind(**good)]).num_rows == 1
    name = columns_of(kind)[-1]
    with pytest.raises(TypeError, match=name):
        kind(**{key: value for key, value in good.items() if key != name})
    with pytest.raises(TypeError, match="colour"):
        kind(**good, colour="red")


def test_a_value_of_another_type_is_refused() -> None:
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        table_of(
            VerdictRow, [VerdictRow(**dict.fromkeys(columns_of(VerdictRow)) | {"snapshot": "now"})]
        )


def test_a_column_that_a_part_does_not_have_is_none() -> None:
    table = table_of(ArtifactRow, [artifact("a")]).drop_columns(["detail_json"])
    (row,) = rows_of(ArtifactRow, table)
    assert row.detail_json is None
    assert row.path == "a"


def test_nested_values_come_back_as_they_went_in() -> None:
    facts = [{"name": "n", "value": "v", "certainty": "code", "source": "s"}]
    camera = {"name": "head", "width": 4, "height": 2, "codec": "h264", "source_codec": "av1"}
    camera |= {"was_copied": False, "K_cam": None, "lens_model": None, "lens_params": [0.5]}
    kind = ROWS["episodes"]
    given = dict.fromkeys(columns_of(kind)) | {"tasks": ["a", ""], "facts": facts}
    row = kind(**given | {"cameras": [camera]})
    assert rows_of(kind, table_of(kind, [row])) == [row]
