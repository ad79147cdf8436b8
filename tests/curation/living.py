"""A toy corpus with rows in every table that curation writes, for the tests of its later life."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ingest import snapshot
from ingest.disk import Disk
from schemas.catalog import TABLES
from tests.ingest.verify_corpus import build_toy, dataset

Row = dict[str, Any]


def build(root: Path) -> Path:
    """Four committed toy episodes `a c e f`, each with its own task, in three snapshots, then one of curation."""
    corpus = build_toy(root / "raw", root / "corpus", run_id="first")
    by_id = uids(corpus)
    annotate(corpus, by_id, "curation-1")
    folder = dataset(corpus) / "latents/dino/chunk-000/front"
    folder.mkdir(parents=True)
    for number in range(4):
        (folder / f"episode_{number:06d}.safetensors").write_bytes(b"latent %d" % number)
    for name, uid in by_id.items():
        answer = corpus / "cache/captions/00" / f"{name}.json"
        answer.parent.mkdir(parents=True, exist_ok=True)
        answer.write_text(json.dumps({"key": name, "uid": uid, "text": f"secret {name}"}))
    return corpus


def annotate(corpus: Path, by_id: dict[str, str], run_id: str) -> None:
    """A measurement, a tier, a caption and a latent of every episode; `c` is a copy of `a`."""
    current = snapshot.load(corpus)
    version = int(run_id.partition("-")[2])
    rows: dict[str, list[Row]] = {
        "measurements": [
            {
                "name": "idle_share",
                "version": version,
                "value": 0.5,
                "unit": "ratio",
                "denominator": 8,
            }
        ],
        "tiers": [{"policy": "p", "segment_index": 0, "tier": "high", "tasks": [], "reasons": []}],
        "captions": [{"caption_id": "c", "text": "secret words", "outcome": "ok"}],
        "latents": [{"camera": "front", "encoder_id": "dino", "path": "latents/x"}],
    }
    full = {
        table: [
            filled(table, {**row, "uid": uid, "start": 0, "end": 8, "run_id": run_id})
            for row in of_each
            for uid in by_id.values()
        ]
        for table, of_each in rows.items()
    }
    copies = {"cluster": by_id["a"], "kept_uid": by_id["a"], "run_id": run_id}
    full["duplicates"] = [filled("duplicates", {"uid": by_id[n], **copies}) for n in "ac"]
    disk = Disk()
    parts = {name: snapshot.write_part(disk, corpus, name, given) for name, given in full.items()}
    snapshot.publish(disk, corpus, current, parts, run_id)


def filled(table: str, row: Row) -> Row:
    """A whole row: what is not given is NULL, what is no column is left out."""
    return {name: row.get(name) for name in TABLES[table].names}


def uids(corpus: Path) -> dict[str, str]:
    """uid by episode id."""
    rows = snapshot.load(corpus).read(corpus, "verdicts", ["uid", "episode_id"]).to_pylist()
    return {row["episode_id"]: row["uid"] for row in rows if row["episode_id"] in "acefg"}


def rows_of(corpus: Path, table: str, number: int | None = None) -> list[Row]:
    return list(snapshot.load(corpus, number).read(corpus, table).to_pylist())
