"""Pictures of the rooms of ingest: a box for each room, a line from a room to each that it imports.

The upper room imports the lower one. Lines that follow from others are left out, so that the picture can be read. Rooms that import each other in a
circle stand on one floor in a frame, with all their lines.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from html import escape

from docs.site.markdown import DOCS, ROOT

Rooms = Mapping[str, frozenset[str]]
BOX_W, BOX_H, GAP_X, GAP_Y, MARGIN = 156, 30, 14, 46, 16
BENT = 96  # how far every other room of a circle stands lower, so that its lines do not lie on each other
STYLE = (
    "text{font:12px sans-serif;text-anchor:middle;fill:#1f2933}"
    "rect.room{fill:#eef2f7;stroke:#52606d}rect.circle{fill:none;stroke:#c0392b;stroke-dasharray:5 3}"
    "path{fill:none;stroke:#7b8794}path.circle{stroke:#c0392b}"
)


def rooms_before() -> Rooms:
    """The folders of ingest before the rooms, from docs/results/data/rooms_before.json."""
    (run,) = json.loads((DOCS / "results/data/rooms_before.json").read_text())
    return {
        room: frozenset(imported.split(", ")) - {""}
        for room, _, imported in run["tables"]["arrows"]["rows"]
    }


def rooms_now() -> Rooms:
    """The table that tests/test_architecture.py holds the imports against."""
    for node in ast.parse((ROOT / "tests/test_architecture.py").read_text()).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "ROOMS":
            assert isinstance(node.value, ast.Dict)
            pairs = zip(node.value.keys, node.value.values, strict=True)
            return {ast.literal_eval(k): names_in(v) for k, v in pairs if k is not None}
    raise LookupError("tests/test_architecture.py has no ROOMS")


def names_in(value: ast.expr) -> frozenset[str]:
    """The strings of `{"a", "b"}`; `set()` has none."""
    return frozenset(n.value for n in ast.walk(value) if isinstance(n, ast.Constant))


def reached(rooms: Rooms) -> dict[str, frozenset[str]]:
    """Room -> every room that it imports, directly or by others."""
    closure = {room: set(imported) for room, imported in rooms.items()}
    for middle in rooms:
        for room in rooms:
            if middle in closure[room]:
                closure[room] |= closure[middle]
    return {room: frozenset(imported) for room, imported in closure.items()}


def floors(rooms: Rooms) -> list[list[str]]:
    """From the top: a room stands above every room that it imports, unless they import each other."""
    below = reached(rooms)

    def circle(room: str) -> frozenset[str]:
        return frozenset(other for other in below[room] if room in below[other]) | {room}

    def height(room: str) -> int:
        lower = {other for each in circle(room) for other in below[each]} - circle(room)
        return 1 + max(map(height, lower), default=-1)

    heights = {room: height(room) for room in rooms}
    return [
        sorted(room for room in rooms if heights[room] == level)
        for level in range(max(heights.values()), -1, -1)
    ]


def lines_of(rooms: Rooms) -> Iterator[tuple[str, str, bool]]:
    """Room, imported room, and whether they are in a circle."""
    below = reached(rooms)
    for room in sorted(rooms):
        for other in sorted(rooms[room]):
            in_circle = room in below[other]
            # A room of a circle with either end implies nothing: its own line would be left out for the same reason.
            between = (
                e for e in rooms[room] - {other} if room not in below[e] and e not in below[other]
            )
            implied = any(other in below[each] for each in between)
            if in_circle or not implied:
                yield room, other, in_circle


def picture(rooms: Rooms, title: str) -> str:
    """An SVG of the rooms."""
    levels = floors(rooms)
    width = 2 * MARGIN + max(map(len, levels)) * (BOX_W + GAP_X) - GAP_X
    at: dict[str, tuple[float, float]] = {}
    top = 44.0
    for level in levels:
        left = (width - len(level) * (BOX_W + GAP_X) + GAP_X) / 2
        bent = BENT if circles(rooms) & set(level) else 0
        for place, room in enumerate(level):
            at[room] = (left + place * (BOX_W + GAP_X), top + bent * (place % 2))
        top += BOX_H + GAP_Y + bent
    height = max(y for _, y in at.values()) + BOX_H + MARGIN
    return "\n".join(
        [*head(width, height, title), *lines(rooms, at), *boxes(rooms, at), "</svg>", ""]
    )


def circles(rooms: Rooms) -> set[str]:
    below = reached(rooms)
    return {room for room in rooms if room in below[room]}


def head(width: float, height: float, title: str) -> Iterator[str]:
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">'
    yield f"<title>{escape(title)}</title><style>{STYLE}</style>"
    yield '<rect width="100%" height="100%" fill="#fff"/>'
    yield f'<text x="{width / 2:.0f}" y="24">{escape(title)}</text>'


def lines(rooms: Rooms, at: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    for room, other, in_circle in lines_of(rooms):
        (x1, y1), (x2, y2) = at[room], at[other]
        kind = ' class="circle"' if in_circle else ""
        starts, ends = (y1 + BOX_H, y2) if y2 > y1 else (y1, y2 + BOX_H) if y2 < y1 else (y1, y2)
        # A line between two rooms of one height goes around those between them.
        aside = starts - 30 if y1 == y2 else (starts + ends) / 2
        middle = f"{(x1 + x2 + BOX_W) / 2:.0f},{aside:.0f}"
        yield (
            f'<path{kind} d="M{x1 + BOX_W / 2:.0f},{starts:.0f} Q{middle} {x2 + BOX_W / 2:.0f},{ends:.0f}"/>'
        )


def boxes(rooms: Rooms, at: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    for room, (x, y) in at.items():
        yield f'<rect class="room" x="{x:.0f}" y="{y:.0f}" width="{BOX_W}" height="{BOX_H}" rx="4"/>'
        yield f'<text x="{x + BOX_W / 2:.0f}" y="{y + BOX_H / 2 + 4:.0f}">{escape(room)}</text>'
    round_rooms = [at[room] for room in circles(rooms)]
    if round_rooms:
        left, top = min(x for x, _ in round_rooms) - 7, min(y for _, y in round_rooms) - 7
        right = max(x for x, _ in round_rooms) + BOX_W + 7
        bottom = max(y for _, y in round_rooms) + BOX_H + 7
        yield f'<rect class="circle" x="{left:.0f}" y="{top:.0f}" width="{right - left:.0f}" height="{bottom - top:.0f}" rx="6"/>'
