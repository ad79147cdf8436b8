"""What other commands do beside the jobs: they merge parts, add latents and publish manifests, as `jobs/commands` and `jobs/stages` call it."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa

from ingest.corpus import publishing, shared_manifests, snapshot
from ingest.corpus.latent_packs import PackWriter
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.manifest_folders import existing, manifest_folder, publish
from ingest.corpus.shared_manifests import fetch_manifests
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.working_copy import WorkingCopy
from ingest.corpus.writer import writing
from ingest.maintenance.compact import compact, plan_merges
from ingest.storage.local import LocalStorage
from schemas.committed_rows import LatentRow
from schemas.latent_pack import member_name, pack_file
from schemas.latents import latent_file
from schemas.manifest import (
    ROW_SCHEMA,
    ManifestFacts,
    MixtureFacts,
    MixtureGroup,
    PolicyFacts,
    SplitFacts,
    rows_sha256,
)

ENCODER, CAMERA = "enc", "front"


def curate(copy: WorkingCopy, random: Random, run_id: str) -> None:
    """One command. Raises what it raises."""
    copy.refresh()
    fetch_manifests(copy)
    act = random.choice((merge, merge, add_latents, publish_manifest))
    act(copy, random, run_id)


def merge(copy: WorkingCopy, random: Random, run_id: str) -> None:
    corpus, disk = CorpusLayout(copy.root), LocalStorage(copy.root)
    with writing(corpus, disk, always_recovers=True):
        before = snapshot.load(copy.root)
        compact(corpus, disk, before, plan_merges(copy.root, before), run_id)


def add_latents(copy: WorkingCopy, random: Random, run_id: str) -> None:
    """Of episodes that have none: in files of their own, or in a pack whose name is of the run."""
    corpus, disk = CorpusLayout(copy.root), LocalStorage(copy.root)
    with writing(corpus, disk):
        current = snapshot.load(copy.root)
        done = set(current.read(copy.root, "latents", ["uid"])["uid"].to_pylist())
        columns = ["uid", "dataset_path", "episode_index"]
        todo = [
            row
            for row in current.read(copy.root, "episodes", columns).to_pylist()
            if row["uid"] not in done
        ]
        rows = (_packed if random.random() < 0.5 else _loose)(disk, todo[:3], run_id)
        if rows:
            part = snapshot.write_part(disk, copy.root, LatentRow, rows)
            publishing.publish(disk, copy.root, current, {"latents": part}, run_id)


def _loose(disk: LocalStorage, episodes: list[dict[str, Any]], run_id: str) -> list[LatentRow]:
    rows = []
    for each in episodes:
        data = _latents_of(each["uid"])
        path = f"{each['dataset_path']}/{latent_file(ENCODER, CAMERA, each['episode_index'])}"
        disk.put(path, data)
        rows.append(_row(each["uid"], path, data, run_id, None))
    return rows


def _packed(disk: LocalStorage, episodes: list[dict[str, Any]], run_id: str) -> list[LatentRow]:
    rows: list[LatentRow] = []
    for dataset in sorted({each["dataset_path"] for each in episodes}):
        path = f"{dataset}/{pack_file(ENCODER, hashlib.sha256(run_id.encode()).hexdigest())}"
        pack = BytesIO()
        writer = PackWriter(pack)
        for each in (each for each in episodes if each["dataset_path"] == dataset):
            data = _latents_of(each["uid"])
            start = writer.begin(member_name(each["episode_index"], CAMERA), len(data))
            pack.write(data)
            writer.keep(len(data))
            rows.append(_row(each["uid"], path, data, run_id, start))
        writer.finish()
        disk.put(path, pack.getvalue())
    return rows


def _latents_of(uid: str) -> bytes:
    return f"latents of {uid}".encode()


def _row(uid: str, path: str, data: bytes, run_id: str, pack_offset: int | None) -> LatentRow:
    return LatentRow(
        uid=uid,
        camera=CAMERA,
        encoder_id=ENCODER,
        path=path,
        num_frames=1,
        dtype="float16",
        sha256=hashlib.sha256(data).hexdigest(),
        video_sha256="",
        run_id=run_id,
        num_bytes=len(data),
        pack_offset=pack_offset,
    )


def publish_manifest(copy: WorkingCopy, random: Random, run_id: str) -> None:
    """Of all episodes. Two machines may choose one name."""
    current = snapshot.load(copy.root)
    if not current.parts("episodes"):
        return
    name = random.choice(("shared", run_id))
    facts, rows = _manifest(copy.root, current, name)
    folder = manifest_folder(copy.root, name)
    published = existing(copy.root, facts)
    if published is None:
        publish(copy.root, facts, rows, LocalStorage(copy.root))
    shared_manifests.share_manifest(copy, folder, (published or facts).snapshot)


def _manifest(root: Path, current: Snapshot, name: str) -> tuple[ManifestFacts, pa.Table]:
    columns = ["uid", "dataset_path", "episode_index", "content_sha256"]
    rows = current.read(root, "episodes", columns).sort_by("uid").to_pylist()
    empty = ROW_SCHEMA.empty_table().schema
    table = pa.Table.from_pylist([dict.fromkeys(empty.names) | row for row in rows], schema=empty)
    group = MixtureGroup(group={"text": ""}, hours=1.0, share=1.0, epochs=1.0, rule="")
    facts = ManifestFacts(
        manifest_version=1,
        name=name,
        corpus_uid="corpus",
        snapshot=current.number,
        where="",
        text_policy="best",
        policy=PolicyFacts(name="p", digest="d", text=""),
        split=SplitFacts(by="auto", val=0.0, test=0.0),
        mixture=MixtureFacts(text="", digest="", by=(), draw_hours=0.0, groups=(group,)),
        num_rows=table.num_rows,
        num_episodes=table.num_rows,
        hours={},
        rows_sha256=rows_sha256(table),
        statistics=None,
    )
    return facts, table
