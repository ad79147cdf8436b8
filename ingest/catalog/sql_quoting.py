"""Texts and names inside SQL: quoted, so that nothing in them is more than a value or a name. What can be a parameter is one instead."""

from __future__ import annotations

from collections.abc import Iterable


def literal(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def literals(texts: Iterable[str]) -> str:
    """Texts as a list in SQL has them, without its brackets."""
    return ", ".join(map(literal, texts))


def identifier(text: str) -> str:
    """The name of a column or view, whatever characters are in it."""
    return '"' + text.replace('"', '""') + '"'
