"""Rows of erased episodes go from published manifests, with the texts in them; what a manifest is called by stays as it was.

`redaction.json` is written before the rows: whatever stops it, the rows that are there have one of the digests that it lists. A second
time changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ingest.corpus.layout import CorpusLayout
from ingest.corpus.manifest_folders import manifest_names, page_bytes, rows_bytes
from ingest.corpus.tombstones import ERASED_TASK
from ingest.storage.local import LocalStorage, within
from schemas.manifest import (
    FACTS_FILE,
    FOLDER,
    REDACTION_FILE,
    ROWS_FILE,
    ErasedRows,
    ManifestFacts,
    Redaction,
    load_facts,
    load_redaction,
    load_rows,
    rows_sha256,
)
from schemas.parquet_file import read_table

Place = tuple[str, int]  # dataset path, episode_index


def naming(corpus: Path, uids: pa.Array) -> tuple[str, ...]:
    """Manifests with a row of one of the uids.

    Raises:
        ConfigError: the rows of one cannot be read, or the page of one that names them is not as it was published.
    """
    return tuple(name for name in manifest_names(corpus) if _names_any(corpus, name, uids))


def _names_any(corpus: Path, name: str, uids: pa.Array) -> bool:
    folder = within(corpus, f"{FOLDER}/{name}")
    named = _columns(folder, ["uid"])["uid"]
    is_named = bool(pc.any(pc.is_in(named, value_set=uids)).as_py())
    if is_named:
        load_facts(folder)  # a changed page must not get a digest that fits it
    return is_named


def _columns(folder: Path, columns: Sequence[str]) -> pa.Table:
    return read_table(folder / ROWS_FILE, columns, remedy="build it again, or remove its folder")


def redact_manifests(
    corpus: CorpusLayout, disk: LocalStorage, places: Iterable[Place]
) -> list[str]:
    """Take the rows of these places out of every manifest; the names of those that had any.

    Raises:
        ConfigError: a manifest cannot be read; run again when it is mended or removed.
    """
    erased = set(places)
    done = []
    for name in manifest_names(corpus.root) if erased else ():
        folder = corpus.path(f"{FOLDER}/{name}")
        columns = _columns(folder, ["dataset_path", "episode_index"])
        pairs = zip(*(columns[column].to_pylist() for column in columns.column_names), strict=True)
        if counted := Counter(pair for pair in pairs if pair in erased):
            _redact(folder, disk, counted)
            done.append(name)
    return done


def _redact(folder: Path, disk: LocalStorage, counted: Counter[Place]) -> None:
    rows, facts = load_rows(folder), load_facts(folder)
    pairs = zip(rows["dataset_path"].to_pylist(), rows["episode_index"].to_pylist(), strict=True)
    is_left = pa.array([pair not in counted for pair in pairs], pa.bool_())
    left = rows.filter(is_left)
    redaction = _said(load_redaction(folder), counted, rows_sha256(left))
    page = f"{redaction.model_dump_json(indent=1)}\n".encode()
    disk.write(folder / REDACTION_FILE, page, is_durable=True)
    lost = set(rows["text"].to_pylist()) - set(left["text"].to_pylist())
    if (without := _without_texts(facts, lost)) != facts:
        disk.write(folder / FACTS_FILE, page_bytes(without), is_durable=True)
    disk.sync()  # once the rows have gone, nobody looks at the two above again
    disk.write(folder / ROWS_FILE, rows_bytes(left), is_durable=True)


def _said(before: Redaction, counted: Counter[Place], digest: str) -> Redaction:
    known = {(each.dataset_path, each.episode_index): each.num_rows for each in before.erased}
    erased = sorted({**known, **counted}.items())
    return Redaction(
        rows_sha256=tuple(dict.fromkeys([*before.rows_sha256, digest])),
        erased=tuple(
            ErasedRows(dataset_path=of, episode_index=index, num_rows=num)
            for (of, index), num in erased
        ),
    )


def _without_texts(facts: ManifestFacts, lost: set[str]) -> ManifestFacts:
    """Groups of a mixture may be named by the task text."""
    groups = tuple(
        each.model_copy(update={"group": {**each.group, "text": ERASED_TASK}})
        if each.group.get("text") in lost
        else each
        for each in facts.mixture.groups
    )
    return facts.model_copy(update={"mixture": facts.mixture.model_copy(update={"groups": groups})})
