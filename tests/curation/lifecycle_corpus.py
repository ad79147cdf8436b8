"""A toy corpus with rows in every table that curation writes, for the tests of its later life."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.synthetic import write_part
from ingest.corpus import publishing, snapshot
from ingest.corpus.commit import datasets_of
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.manifest_folders import page_bytes
from ingest.corpus.writer import recover
from ingest.maintenance.compact import compact, plan_merges
from ingest.storage.local import LocalStorage
from schemas import manifest
from schemas.catalog import TABLES
from schemas.latents import LatentFacts, Preprocessing, latent_file
from tests.faults.runs import run
from tests.faults.toy import write_toy
from tests.ingest.verify_corpus import TOY_EPISODES

Row = dict[str, Any]
ENCODER = "dino-0123456789ab"  # of the latents
LATENT = b"l?t?n?%d?"  # four bfloat16 near 1


def build(root: Path, episodes: dict[str, str] = TOY_EPISODES) -> Path:
    """Four committed toy episodes `a c e f`, each with its own task, in four snapshots, then one of curation."""
    corpus = root / "corpus"
    run(write_toy(root / "raw", episodes), corpus, run_id="first")
    by_id = uids(corpus)
    annotate(corpus, by_id, "curation-1")
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
        "tiers": [
            {
                "policy": "p",
                "snapshot": 1,
                "segment_index": 0,
                "tier": "high",
                "tasks": [],
                "reasons": [],
            }
        ],
        "captions": [{"caption_id": "c", "text": "secret words of {}", "outcome": "ok"}],
    }
    full = {
        table: [
            filled(table, {**worded(row, name), "uid": uid, "start": 0, "end": 8, "run_id": run_id})
            for row in of_each
            for name, uid in by_id.items()
        ]
        for table, of_each in rows.items()
    }
    full["latents"] = [
        filled("latents", written_latents(corpus, episode, run_id))
        for episode in rows_of(corpus, "episodes")
        if episode["uid"] in by_id.values()
    ]
    copies = {"cluster": by_id["a"], "kept_uid": by_id["a"], "run_id": run_id}
    full["duplicates"] = [filled("duplicates", {"uid": by_id[n], **copies}) for n in "ac"]
    disk = LocalStorage()
    parts = {name: write_part(disk, corpus, name, given) for name, given in full.items()}
    publishing.publish(disk, corpus, current, parts, run_id)


def latents_path(episode: Row) -> str:
    """Where the latents of an episode lie."""
    return f"{episode['dataset_path']}/{latent_file(ENCODER, 'front', episode['episode_index'])}"


def latents_of(corpus: Path, episode: Row) -> bytes:
    """A true file of latents whose every token reads LATENT with the number of the episode, by the format's description."""
    facts_ = LatentFacts(
        encoder_id=ENCODER,
        model="dino",
        weights_sha256="0" * 64,
        preprocessing=Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3),
        dtype="bf16",
        width=4,
        num_prefix=0,
        grid_height=1,
        grid_width=1,
        grid_stride=3,
        rate_hz=10.0,
        uid=episode["uid"],
        camera="front",
        length=episode["length"],
        video_sha256=video_sha256(corpus, episode["uid"]),
    )
    N = facts_.num_frames
    tokens = LATENT % episode["episode_index"] * N
    index = np.arange(0, 3 * N, 3, dtype="<i8").tobytes()
    header = {
        "__metadata__": facts_.metadata(),
        "frame_index": {"dtype": "I64", "shape": [N], "data_offsets": [0, 8 * N]},
        "latents": {"dtype": "BF16", "shape": [N, 1, 4], "data_offsets": [8 * N, 16 * N]},
    }
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + index + tokens


def written_latents(corpus: Path, episode: Row, run_id: str) -> Row:
    """Write that file; what the catalog says of it."""
    data = latents_of(corpus, episode)
    path = corpus / latents_path(episode)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {
        "uid": episode["uid"],
        "camera": "front",
        "encoder_id": ENCODER,
        "path": latents_path(episode),
        "num_frames": -(-episode["length"] // 3),
        "dtype": "bf16",
        "sha256": hashlib.sha256(data).hexdigest(),
        "video_sha256": video_sha256(corpus, episode["uid"]),
        "run_id": run_id,
        "num_bytes": len(data),
    }


def video_sha256(corpus: Path, uid: str) -> str:
    """Of the episode's one video."""
    rows = rows_of(corpus, "artifacts")
    return str(next(r["sha256"] for r in rows if r["uid"] == uid and r["kind"] == "video"))


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


def merge(corpus: Path, disk: LocalStorage, run_id: str) -> None:
    """Compact, as the command does."""
    current = snapshot.load(corpus)
    recover(CorpusLayout(corpus), disk, current, datasets_of(corpus, current))
    compact(CorpusLayout(corpus), disk, current, plan_merges(corpus, current), run_id)


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
