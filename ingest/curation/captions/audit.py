"""A random sample of captions for people to judge: one HTML file with the pictures in it, one CSV to fill in, and what they found.

captioning.md §3, 9. The sample depends on the captions and the seed alone.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ingest.curation.captions.checks import CheckResult, audit_accuracy
from schemas.errors import ConfigError

COLUMNS = ("caption_id", "uid", "start", "end", "text", "source_text", "verdict")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
VERDICTS = {"yes": True, "no": False}

STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:1180px;margin:2em auto}img{max-width:100%}"
    "article{border-top:1px solid #999;padding:1em 0}small{color:#555}"
)


def sample(rows: Iterable[Mapping[str, Any]], count: int, seed: int) -> list[Mapping[str, Any]]:
    """`count` captions that are ok, drawn by hash: more captions later do not change who comes before whom."""

    def draw(row: Mapping[str, Any]) -> str:
        return hashlib.sha256(f"{seed}|{row['caption_id']}".encode()).hexdigest()

    return sorted((row for row in rows if row["outcome"] == "ok"), key=draw)[:count]


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line each, `verdict` empty: yes or no goes there."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_cell(row.get(name)) for name in COLUMNS[:-1]] + [""] for row in rows)
    return out.getvalue()


def _cell(value: object) -> object:
    """A stranger's text must not be a formula of the spreadsheet that people fill this in with."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def as_html(rows: Sequence[tuple[Mapping[str, Any], Sequence[bytes]]]) -> str:
    """A page without any reference outside itself; `bytes` are the contact sheets, JPEGs."""
    return "".join(
        (
            "<!doctype html><meta charset=utf-8><title>caption audit</title>",
            f"<style>{STYLE}</style><h1>{len(rows)} captions</h1>",
            *(_article(number, row, jpegs) for number, (row, jpegs) in enumerate(rows, start=1)),
        )
    )


def _article(number: int, row: Mapping[str, Any], jpegs: Sequence[bytes]) -> str:
    # every text is a stranger's
    text, source = html.escape(row["text"] or ""), html.escape(row["source_text"] or "(none)")
    by = html.escape(
        f"{row['backend']} {row['model'] or ''} {row['uid']} {row['start']}:{row['end']}"
    )
    failed = html.escape(", ".join(row["checks_failed"] or ()) or "none")
    shown = [base64.b64encode(jpeg).decode() for jpeg in jpegs]
    tags = [f'<img alt="" src="data:image/jpeg;base64,{data}">' for data in shown]
    picture = "".join(tags) or "<p>no picture</p>"
    return (
        f"<article><h2>{number}. {text}</h2><p>source: {source}<br>checks failed: {failed}<br>"
        f"<small>{by} · {html.escape(row['caption_id'])}</small></p>{picture}</article>"
    )


def result_of(text: str, where: str) -> CheckResult:
    """Check 9 on a completed CSV; lines without a verdict do not count.

    Raises:
        ConfigError: no such columns, or a verdict that is neither yes nor no.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows or "verdict" not in rows[0]:
        raise ConfigError(
            "expected the CSV file that --audit wrote, with its column `verdict`",
            remedy="pass the audit.csv that `eicorpus caption --audit` wrote",
            where=where,
        )
    verdicts = [(row["verdict"] or "").strip().lower() for row in rows]
    for line, verdict in enumerate(verdicts, start=2):
        if verdict not in (*VERDICTS, ""):
            raise ConfigError(
                f"line {line}: verdict {verdict[:20]!r}; expected yes or no", where=where
            )
    judged = [VERDICTS[verdict] for verdict in verdicts if verdict]
    return audit_accuracy(sum(judged), len(judged))
