"""The user's MANO file: its arrays come out as they are, and anything else is refused with a line that says what."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.raw import mano_model as generator
from benchmarks.raw.mano_model import Instance
from ingest.models.mano_file import read_mano
from schemas.errors import ConfigError

FIELDS = (
    "v_template",
    "shapedirs",
    "posedirs",
    "J_regressor",
    "weights",
    "hands_components",
    "hands_mean",
    "faces",
)


@pytest.mark.parametrize("side", ["left", "right"])
def test_arrays_come_out_of_chumpy_and_scipy_objects_unchanged(tmp_path: Path, side: str) -> None:
    path = generator.write(tmp_path, is_left_mended=True) / f"MANO_{side.upper()}.pkl"
    found, wanted = read_mano(path, side), generator.made_model(side)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.side == side
    with pytest.raises(ValueError, match="read-only"):
        found.v_template[0, 0] = 1


Change = Callable[[dict[str, Any]], object]

WRONG: dict[str, tuple[Change, str]] = {
    "missing key": (lambda c: c.pop("weights"), r"weights is a NoneType"),
    "shape": (
        lambda c: c.update(posedirs=np.zeros((778, 3, 207))),
        r"posedirs has shape \(778, 3, 207\); expected",
    ),
    "text": (lambda c: c.update(f="abc"), "f is a str"),
    "NaN": (lambda c: c.update(hands_mean=np.full(45, np.nan)), "hands_mean contains NaN"),
    "finger order": (
        lambda c: c.update(kintree_table=np.zeros((2, 16))),
        "kintree_table is not MANO's",
    ),
    "weights": (lambda c: c.update(weights=2 * c["weights"]), "weights do not sum to 1"),
    "regressor": (
        lambda c: c.update(J_regressor=np.zeros((16, 778))),
        "J_regressor does not sum to 1",
    ),
    "faces": (lambda c: c.update(f=np.full((1538, 3), 778)), "f refers to vertices outside"),
    "millimetres": (lambda c: c.update(v_template=1000 * c["v_template"]), "expected about 0.1"),
    "other class": (lambda c: c.update(J=Instance("os", "system", {})), "loads os.system"),
    "chumpy without x": (lambda c: c["shapedirs"].state["a"].state.pop("x"), "r is a NoneType"),
    "selection outside": (
        lambda c: c["shapedirs"].state["idxs"].__setitem__(0, 10**6),
        "a chumpy Select of",
    ),
    "selection shape": (
        lambda c: c["shapedirs"].state.update(preferred_shape=(1, 2)),
        "a chumpy Select of",
    ),
    "sparse rows": (
        lambda c: c["J_regressor"].state["indices"].__setitem__(0, 16),
        "inconsistent sparse matrix",
    ),
    "sparse ends": (
        lambda c: c["J_regressor"].state["indptr"].__setitem__(-1, 9),
        "inconsistent sparse matrix",
    ),
    "sparse size": (
        lambda c: c["J_regressor"].state.update(_shape=(10**5, 10**5)),
        "inconsistent sparse matrix",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_told_exactly(tmp_path: Path, name: str) -> None:
    change, message = WRONG[name]
    model = generator.made_model("right")
    content = generator.content(model, model.shapedirs)
    change(content)
    (tmp_path / "MANO_RIGHT.pkl").write_bytes(generator.pickled(content))
    with pytest.raises(ConfigError, match=message) as caught:
        read_mano(tmp_path / "MANO_RIGHT.pkl", "right")
    assert caught.value.where == "MANO_RIGHT.pkl"


def test_swapped_files_are_noticed(tmp_path: Path) -> None:
    generator.write(tmp_path)
    with pytest.raises(
        ConfigError, match="not the left hand; check whether the two files are swapped"
    ):
        read_mano(tmp_path / "MANO_RIGHT.pkl", "left")


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "ends inside"), (b"PK\x03\x04", "not a MANO model"), (b"K\x01.", "contains a int")],
)
def test_other_files(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "m.pkl").write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        read_mano(tmp_path / "m.pkl", "right")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_mano(tmp_path, "right")
