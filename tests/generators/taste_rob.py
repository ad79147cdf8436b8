"""A corner of TASTE-Rob, unpacked, with its captions.xlsx written part by part as a spreadsheet program does.

Layout: GAP-LAB-CUHK-SZ/TASTE-Rob:README.md; headers and folder of an unpacked zip are UNVERIFIED (no real file was at hand).
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene
from jobs.demo.raw.video_files import write_scene

CLIPS = {
    "SingleHand/Dinning/2": "pick up the cup with the right hand",
    "SingleHand/Dinning/10": "close the box & the lid",
    "DoubleHand/DressingTable/2": "open the jar with both hands",
}
SCENES = {name: Scene(seed=k, duration_s=2.0) for k, name in enumerate(CLIPS, start=80)}
SHEETS = {
    "Single-Hand": [["id", "scene", "caption"], [2, "Dinning", CLIPS["SingleHand/Dinning/2"]], [10, "Dinning", CLIPS["SingleHand/Dinning/10"]]],
    "Double-Hand": [["id", "scene", "caption"], [2, "Dressing Table", CLIPS["DoubleHand/DressingTable/2"]]],
}  # fmt: skip
_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
_REL = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def write(root: Path) -> Written:
    """Three clips of 2 s in two scenes."""
    for name, scene in SCENES.items():
        write_scene(root / "TASTE_Rob" / f"{name}.mp4", scene)
    write_xlsx(root / "TASTE_Rob" / "captions.xlsx", SHEETS)
    order = list(CLIPS)
    return Written(
        root=root,
        scenes={name: SCENES[name] for name in [*order[2:], *order[:2]]},
        t0_s=dict.fromkeys(order, 0.0),
    )


def write_xlsx(path: Path, sheets: dict[str, list[list[object]]], head: str = _HEAD) -> Path:
    """Texts go to the shared strings, numbers into the cells; a text of several runs is two runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shared: list[str] = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        listed, related = "", ""
        for k, (name, rows) in enumerate(sheets.items(), start=1):
            listed += f'<sheet name="{name}" sheetId="{k}" r:id="rId{k}"/>'
            related += f'<Relationship Id="rId{k}" Target="worksheets/sheet{k}.xml"/>'
            body = "".join(_row(n, row, shared) for n, row in enumerate(rows, start=1))
            sheet = f"{head}<worksheet {_MAIN}><sheetData>{body}</sheetData></worksheet>"
            archive.writestr(f"xl/worksheets/sheet{k}.xml", sheet)
        book = f'{_HEAD}<workbook {_MAIN} xmlns:r="{_REL}"><sheets>{listed}</sheets></workbook>'
        archive.writestr("xl/workbook.xml", book)
        relations = f"{_HEAD}<Relationships>{related}</Relationships>"
        archive.writestr("xl/_rels/workbook.xml.rels", relations)
        archive.writestr("xl/sharedStrings.xml", f"{_HEAD}<sst {_MAIN}>{''.join(shared)}</sst>")
    return path


def _row(number: int, row: list[object], shared: list[str]) -> str:
    cells = ""
    for letter, value in zip("ABCDEF", row, strict=False):
        if isinstance(value, str):
            half = len(value) // 2
            runs = "".join(f"<r><t>{escape(part)}</t></r>" for part in (value[:half], value[half:]))
            shared.append(f"<si>{runs}</si>" if number % 2 else f"<si><t>{escape(value)}</t></si>")
            cells += f'<c r="{letter}{number}" t="s"><v>{len(shared) - 1}</v></c>'
        elif value is not None:
            cells += f'<c r="{letter}{number}"><v>{value}</v></c>'
    return f'<row r="{number}">{cells}</row>'
