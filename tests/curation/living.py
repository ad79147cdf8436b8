"""A toy corpus with rows in every table that curation writes, for the tests of its later life."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingest import snapshot
from ingest.curation.manifest.store import page_bytes
from ingest.disk import Disk
from schemas import manifest
from schemas.catalog import TABLES
from tests.faults.runs import run
from tests.faults.toy import write_toy
from tests.ingest.verify_corpus import TOY_EPISODES, dataset

Row = dict[str, Any]


def build(root: Path, episodes: dict[str, str] = TOY_EPISODES) -> Path:
    """Four committed toy episodes `a c e f`, each with its own task, in four snapshots, then one of curation."""
    corpus = root / "corpus"
    run(write_toy(root / "raw", episodes), corpus, run_id="first")
    by_id = uids(corpus)
    annotate(corpus, by_id, "curation-1")
    folder = dataset(corpus) / "latents/dino/chunk-000/front"
    folder.mkdir(parents=True)
    for number in range(len(by_id)):
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
        "captions": [{"caption_id": "c", "text": "secret words of {}", "outcome": "ok"}],
        "latents": [{"camera": "front", "encoder_id": "dino", "path": "latents/x"}],
    }
    full = {
        table: [
            filled(table, {**worded(row, name), "uid": uid, "start": 0, "end": 8, "run_id": run_id})
            for row in of_each
            for name, uid in by_id.items()
        ]
        for table, of_each in rows.items()
    }
    copies = {"cluster": by_id["a"], "kept_uid": by_id["a"], "run_id": run_id}
    full["duplicates"] = [filled("duplicates", {"uid": by_id[n], **copies}) for n in "ac"]
    disk = Disk()
    parts = {name: snapshot.write_part(disk, corpus, name, given) for name, given in full.items()}
    snapshot.publish(disk, corpus, current, parts, run_id)


def worded(row: Row, name: str) -> Row:
    """With the episode's id in its text."""
    return {**row, "text": row["text"].format(name)} if "text" in row else row


def filled(table: str, row: Row) -> Row:
    """A whole row: what is not given is NULL, what is no column is left out."""
    return {name: row.get(name) for name in TABLES[table].names}


def uids(corpus: Path) -> dict[str, str]:
    """uid by episode id."""
    rows = snapshot.load(corpus).read(corpus, "verdicts", ["uid", "episode_id"]).to_pylist()
    return {row["episode_id"]: row["uid"] for row in rows if row["episode_id"] in "acefg"}


def rows_of(corpus: Path, table: str, number: int | None = None) -> list[Row]:
    return list(snapshot.load(corpus, number).read(corpus, table).to_pylist())


def publish_manifest(corpus: Path) -> Path:
    """A manifest of every episode, its task as text, two of them named in the mixture."""
    empty = manifest.ROW_SCHEMA.empty_table()
    rows = [
        dict.fromkeys(manifest.ROW_SCHEMA.names)
        | {k: row[k] for k in ("uid", "dataset_path", "episode_index")}
        | {"text": row["tasks"][0], "content_sha256": row["content_sha256"]}
        for row in sorted(rows_of(corpus, "episodes"), key=lambda row: row["uid"])
    ]
    groups = tuple(
        manifest.MixtureGroup(group={"text": text}, hours=1.0, share=0.5, epochs=1.0, rule="")
        for text in ("do a", "do e")
    )
    table = pa.Table.from_pylist(rows, schema=empty.schema)
    folder = corpus / manifest.FOLDER / "m"
    folder.mkdir(parents=True)
    pq.write_table(table, folder / manifest.ROWS_FILE)
    facts_ = manifest.ManifestFacts(
        manifest_version=1,
        name="m",
        corpus_uid="corpus",
        snapshot=snapshot.load(corpus).number,
        where="",
        text_policy="best",
        policy=manifest.PolicyFacts(name="p", digest="d", text=""),
        split=manifest.SplitFacts(by="auto", val=0.0, test=0.0),
        mixture=manifest.MixtureFacts(text="", digest="", by=(), draw_hours=0.0, groups=groups),
        num_rows=table.num_rows,
        num_episodes=table.num_rows,
        hours={},
        rows_sha256=manifest.rows_sha256(table),
        statistics=None,
    )
    (folder / manifest.FACTS_FILE).write_bytes(page_bytes(facts_))
    return folder
