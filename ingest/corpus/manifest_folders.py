"""Manifests on disk: `CORPUS/manifests/<name>/`, written as a whole and never again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.storage.local import LocalStorage, within
from schemas.errors import ConfigError
from schemas.manifest import FACTS_FILE, FOLDER, ROWS_FILE, ManifestFacts, load_facts, page_of

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
ROW_GROUP = 128 * 1024
# Columns whose values come again and again; a dictionary of digests would only cost time.
_REPEATED = ["source", "embodiment", "dataset_path", "tier", "split", "text", "licence_class"]
_REPEATED += ["tasks.list.element", "reasons.list.element"]
_REPEATED += ["latents.list.element.camera", "latents.list.element.encoder_id"]


def manifest_folder(corpus: Path, name: str) -> Path:
    """Where the manifest `name` is, or would be.

    Raises:
        ConfigError: no name for a folder.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"manifest name {name!r}: lower case letters, digits, dots, dashes, underscores; a letter or digit first"
        )
    return within(corpus, f"{FOLDER}/{name}")


def manifest_names(corpus: Path) -> list[str]:
    """Every published manifest."""
    return sorted(path.parent.name for path in (corpus / FOLDER).glob(f"[a-z0-9]*/{FACTS_FILE}"))


def existing(corpus: Path, facts: ManifestFacts) -> ManifestFacts | None:
    """The manifest of this name if it was published before, statistics apart the same as `facts`; None for a free name.

    Raises:
        ConfigError: the name belongs to another manifest; the message says what differs.
    """
    folder = manifest_folder(corpus, facts.name)
    if not folder.exists():
        return None
    existing_facts = load_facts(folder)
    ours, theirs = _asked(facts), _asked(existing_facts)
    if ours == theirs:
        return existing_facts
    names = [name for name in ours if ours[name] != theirs[name]]
    raise ConfigError(
        f"there is another manifest of this name (it differs in {', '.join(names)}); "
        "a manifest is never overwritten: choose another name",
        where=str(folder),
    )


def _asked(facts: ManifestFacts) -> dict[str, Any]:
    """What makes a manifest another one: policy and mixture by their digests, for which a comment is no content."""
    comments = {"policy": {"text"}, "mixture": {"text"}}
    return facts.model_dump(mode="json", exclude={"statistics": True, **comments})


def publish(corpus: Path, facts: ManifestFacts, rows: pa.Table, disk: LocalStorage) -> Path:
    """Write a manifest whole or not at all.

    Raises:
        ConfigError: someone published another one of this name in the meantime.
    """
    folder = manifest_folder(corpus, facts.name)
    disk.make_dir(folder.parent)
    files = {ROWS_FILE: rows_bytes(rows), FACTS_FILE: page_bytes(facts)}
    if not disk.put_dir_if_absent(folder, files):
        existing(corpus, facts)
    return folder


def rows_bytes(rows: pa.Table) -> bytes:
    """`manifest.parquet`."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows, sink, compression="zstd", row_group_size=ROW_GROUP, use_dictionary=_REPEATED
    )
    return bytes(sink.getvalue().to_pybytes())


def page_bytes(facts: ManifestFacts) -> bytes:
    """`manifest.json`."""
    page = json.dumps(page_of(facts), indent=1, ensure_ascii=False, allow_nan=False)
    return f"{page}\n".encode()
