"""HTML of strangers' words: whatever is no `Markup` is escaped, so text can only ever be text.

Control characters and those that turn the reading direction are shown as their escapes: in a name they are an attack or damage.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MAX_TEXT = 600  # characters of one cell
_TURNING = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
)


class Markup(str):
    """Text that is HTML already. Made only by this module and from constants."""

    __slots__ = ()


def shown(value: Any) -> Markup:
    """A value as a reader may see it: numbers with separators, None as nothing, text escaped."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return Markup("")
    if isinstance(value, bool):
        return Markup("yes" if value else "no")
    if isinstance(value, int):
        return Markup(f"{value:,}")
    if isinstance(value, float):
        return Markup(number(value))
    if isinstance(value, list | tuple):
        return Markup(", ".join(shown(each) for each in value))
    text = str(value)
    text = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} … ({len(text):,} characters)"
    return Markup(html.escape(_plain(text)))


def _plain(text: str) -> str:
    return "".join(c if _is_plain(c) else c.encode("unicode_escape").decode() for c in text)


def _is_plain(character: str) -> bool:
    if character in _TURNING:
        return False
    return character.isprintable() or character in "\n\t "


def number(value: float) -> str:
    """Four significant digits, none of them exponents where people write none."""
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:.3g}"


def tag(name: str, *inside: Any, **attributes: Any) -> Markup:
    """An element. `class_` is class; an underscore in a name is a dash; None leaves an attribute out."""
    attributes_text = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_plain(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{attributes_text}>{''.join(shown(each) for each in inside)}</{name}>")


def image(content: str, label: str, *, kind: str = "jpeg") -> Markup:
    """A picture inside the page; `content` is its base64."""
    return Markup(f'<img alt="{shown(label)}" src="data:image/{kind};base64,{content}">')


def table(
    name: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    note: str = "",
    is_compact: bool = False,
) -> Markup:
    """`name` is for programs that read the page: `data-table`. Numbers are to the right, their exact value in `data-value`.

    `is_compact`: every row is one line of text.
    """
    cells = list(rows)
    kinds = ["number" if cells and _is_number(cell) else None for cell in (cells or [columns])[0]]
    head = tag("tr", *(tag("th", c, class_=kind) for c, kind in zip(columns, kinds, strict=True)))
    body = [tag("tr", *(_cell(cell) for cell in row)) for row in cells]
    if not body:
        body = [tag("tr", tag("td", "none", colspan=len(columns), class_="none"))]
    whole = tag(
        "table",
        tag("thead", head),
        tag("tbody", *body),
        data_table=name,
        class_="compact" if is_compact else None,
    )
    return Markup(whole + (tag("p", note, class_="note") if note else ""))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any) -> Markup:
    if _is_number(value):
        return tag("td", value, class_="number", data_value=repr(value))
    return tag("td", value)


def bar(value: float, most: float) -> Markup:
    """A bar for a cell, as long as its share of the cell's width; the number stands in a cell of its own."""
    share = 0.0 if most <= 0 else max(value, 0.0) / most * 100
    inside = tag("rect", x=0, y=0, width=f"{share:.1f}", height=10, class_="bar")
    box = {"viewBox": "0 0 100 10", "preserveAspectRatio": "none"}
    return tag("svg", inside, **box, class_="cell", aria_hidden="true")


def section(name: str, title: str, *inside: Any) -> Markup:
    return tag("section", tag("h2", title), *inside, id=name)


def listed(pairs: Mapping[str, Any]) -> Markup:
    """Names and values, one beside the other."""
    return tag("dl", *(Markup(tag("dt", key) + tag("dd", value)) for key, value in pairs.items()))
