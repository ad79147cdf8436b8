"""TASTE-Rob: clips with captions out of a spreadsheet, and a precise failure where the layout is not as inferred."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from adapters.containers import xlsx
from adapters.containers.xlsx import sheet_rows
from adapters.taste_rob import TasteRob
from jobs.demo.raw import Written
from schemas.errors import ConfigError
from tests.adapters.video_clips import assert_healthy, by_id, problems, refs_of
from tests.generators import taste_rob as generator
from tests.generators.taste_rob import SHEETS, write_xlsx

ADAPTER = TasteRob()


def captions(root: Path, rows: list[list[object]]) -> None:
    sheets = SHEETS | {"Single-Hand": [*SHEETS["Single-Hand"], *rows]}
    write_xlsx(root / "TASTE_Rob" / "captions.xlsx", sheets)


def test_a_healthy_download(pristine: Written) -> None:
    """Single and double hand both have a clip 2: the key is hand, scene and id. "Dressing Table" is DressingTable."""
    episodes = assert_healthy(ADAPTER, pristine)
    texts = {name: [i.text for i in e.instructions] for name, e in episodes.items()}
    assert texts == {name: [text] for name, text in generator.CLIPS.items()}
    assert {e.scene_id for e in episodes.values()} == {"Dinning", "DressingTable"}
    first = episodes["SingleHand/Dinning/2"]
    assert first.licence.licence_class == "non_commercial"
    assert {f.name: f.certainty.value for f in first.facts}["caption_key"] == "unverified"
    assert ADAPTER.survey(pristine.root, {}).details == {
        "clips": "3",
        "captions": "3",
        "scenes_still_packed": "0",
    }


def test_what_is_missing_packed_or_double(root: Path) -> None:
    base = root / "TASTE_Rob"
    captions(
        root,
        [
            [3, "Kitchen", "gone"],
            [4, "Kitchen", "gone"],
            [2, "Dinning", "another"],
            [5, "Bedroom", "packed"],
        ],
    )
    with zipfile.ZipFile(base / "SingleHand" / "Bedroom.zip", "w") as archive:
        archive.writestr("5.mp4", b"")
    (base / "SingleHand" / "Dinning.zip").write_bytes(b"kept after unpacking")
    inner = base / "DoubleHand" / "DressingTable" / "DressingTable"
    inner.mkdir()
    shutil.copy(base / "DoubleHand" / "DressingTable" / "2.mp4", inner / "2.mp4")
    shutil.copy(base / "DoubleHand" / "DressingTable" / "2.mp4", inner / "7.mp4")
    refs = refs_of(ADAPTER, root)
    assert problems(refs) == {
        "SingleHand/Dinning/2": "bad_annotation",
        "SingleHand/Bedroom.zip": "unknown_layout",
        "SingleHand/kitchen/clips": "missing_video",
        "DoubleHand/DressingTable/DressingTable/2.mp4": "unknown_layout",
    }
    assert "2 captions" in by_id(refs)["SingleHand/kitchen/clips"].problem[1]
    assert by_id(refs)["SingleHand/kitchen/clips"].stands_for == 2
    assert ADAPTER.load(by_id(refs)["DoubleHand/DressingTable/7"]).instructions == ()


def test_without_the_spreadsheet_clips_have_no_text(root: Path) -> None:
    (root / "TASTE_Rob" / "captions.xlsx").unlink()
    refs = refs_of(ADAPTER, root / "TASTE_Rob")
    assert not problems(refs)
    assert all(ADAPTER.load(ref).instructions == () for ref in refs)


@pytest.mark.parametrize(
    "sheets",
    [
        {"Single-Hand": SHEETS["Single-Hand"]},
        SHEETS | {"Single-Hand": [["number", "scene", "caption"]]},
        SHEETS | {"Double-Hand": []},
        SHEETS | {"Double-Hand": [*SHEETS["Double-Hand"], ["../../x", "Kitchen", "text"]]},
        SHEETS | {"Double-Hand": [*SHEETS["Double-Hand"], [7, "Kitchen", "t" * 3000]]},
    ],
)
def test_another_layout_of_the_spreadsheet_stops_the_run(
    root: Path, sheets: dict[str, list[list[object]]]
) -> None:
    write_xlsx(root / "TASTE_Rob" / "captions.xlsx", sheets)
    with pytest.raises(ConfigError):
        ADAPTER.survey(root, {})


def test_hostile_spreadsheets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laughs = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'
    path = write_xlsx(tmp_path / "a.xlsx", SHEETS, head=laughs)
    with pytest.raises(ConfigError, match="document type"):
        list(sheet_rows(path, "Single-Hand"))
    path.write_bytes(b"PK but no zip")
    with pytest.raises(ConfigError):
        list(sheet_rows(path, "Single-Hand"))
    write_xlsx(path, SHEETS)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ConfigError):
        list(sheet_rows(path, "Single-Hand"))
    write_xlsx(path, SHEETS | {"Single-Hand": [["x" * 5000]]})
    monkeypatch.setattr(xlsx, "MAX_PART_BYTES", 4000)
    with pytest.raises(ConfigError, match="decompresses"):
        list(sheet_rows(path, "Single-Hand"))


def test_cells(tmp_path: Path) -> None:
    """Empty cells are left out, so columns keep their letters; runs of one text are joined; entities of XML itself hold."""
    rows = [["a & <b>", None, 3.5], [], [None, "  "], [None, None, "ende"]]
    path = write_xlsx(tmp_path / "a.xlsx", {"S": rows})
    assert list(sheet_rows(path, "S")) == [{"A": "a & <b>", "C": "3.5"}, {"C": "ende"}]


def test_a_cut_member_of_the_captions_refuses_the_set(tmp_path: Path) -> None:
    """`zipfile` says EOFError where the bytes end within a member that its index still has (found by tests/fuzz)."""
    path = tmp_path / "captions.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("xl/sharedStrings.xml", b"<sst></sst>")
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02")
    data[at + 20 : at + 28] = (1 << 20).to_bytes(4, "little") * 2  # its sizes, beyond the file
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="spreadsheet"):
        list(sheet_rows(path, "Single-Hand"))


def test_captions_of_an_unknown_zip_version_refuse_the_set(tmp_path: Path) -> None:
    """`zipfile` raises NotImplementedError for a damaged version number (found by tests/fuzz)."""
    path = write_xlsx(tmp_path / "captions.xlsx", SHEETS)
    data = bytearray(path.read_bytes())
    data[data.find(b"PK\x01\x02") + 6] = 84  # version needed to extract
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="spreadsheet"):
        list(sheet_rows(path, "Single-Hand"))
