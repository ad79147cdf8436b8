"""Texts of strangers (servers, models, sources) as what they may be in a table, a terminal and a prompt."""

from __future__ import annotations

import re
import unicodedata

# Controls, format marks (among them those that turn the writing direction) and halves of surrogate pairs, which are no UTF-8.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_KEPT = "\n\t"
_MARK = re.compile(r"<(?=[|/A-Za-z])")


def plain_text(text: str) -> str:
    """Without characters that are not seen; each becomes a blank, so that what stood on its two sides stays apart."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in _KEPT or unicodedata.category(c) not in _UNSEEN else " " for c in text)


def one_line_of(text: str) -> str:
    """`plain_text` in one line."""
    return " ".join(plain_text(text).split())


def unmarked(text: str) -> str:
    """Without marks of a chat's own format: servers read "<|im_end|>", "</s>" or "<image>" anywhere in a message."""
    return _MARK.sub("< ", text)
