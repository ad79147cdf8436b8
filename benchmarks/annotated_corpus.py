"""What a committed corpus needs before it can train: tiers by hand, files of latents, and a manifest with statistics.

For benchmarks and tests that know what every row must be; `eicorpus tier`, `latents` and `manifest build` do the same for data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.synthetic import write_part
from ingest.catalog.catalog import Catalog
from ingest.corpus import publishing, snapshot
from ingest.corpus.manifest_folders import manifest_folder, publish
from ingest.curation.manifests.action_stats import selection, statistics
from ingest.curation.manifests.manifest import ManifestRequest, build
from ingest.executors.inline import InlineExecutor
from ingest.storage.local import LocalStorage
from schemas.catalog import TABLES
from schemas.latent_header import picture_crc
from schemas.latents import (
    FRAME_INDEX,
    LATENTS,
    PICTURE_CRC,
    WITH_CHECKSUMS,
    LatentFacts,
    Preprocessing,
    latent_file,
)
from schemas.split import Shares

# Of ViT-S/16 on pictures of 224 px, as `eicorpus latents images` stores them.
ENCODER = "vit_s16-0123456789ab"
GRID, WIDTH, STRIDE = 14, 384, 3
SHARES = Shares(val=0.2, test=0.1)
TASKS_OF_TIER = {
    "high": ["forward_dynamics", "inverse_dynamics", "policy", "visual_forecasting"],
    "low": ["forward_dynamics", "inverse_dynamics", "visual_forecasting"],
    "actionless": ["visual_forecasting"],
}
POLICY_TEXT = "policy: by_hand\n"
_POLICY = {"policy": "by_hand", "policy_digest": "d" * 64, "run_id": "tiers", "snapshot": 2}


def tier_row(uid: str, index: int, start: int, end: int, tier: str) -> dict[str, Any]:
    """One segment of the catalog's table."""
    reason = {"code": "by_hand", "text": "", "value": None, "threshold": None}
    row = {
        "uid": uid,
        "segment_index": index,
        "start": start,
        "end": end,
        "tier": tier,
        "tasks": TASKS_OF_TIER[tier],
        "reasons": [reason],
    }
    return _filled("tiers", row | _POLICY)


def annotate(corpus: Path, tiers: list[dict[str, Any]], latents: list[dict[str, Any]]) -> None:
    """Publish these rows, and the policy that they are of."""
    policy = _filled("policies", {**_POLICY, "version": 1, "text": POLICY_TEXT})
    rows = {"tiers": tiers, "latents": latents, "policies": [policy]}
    disk = LocalStorage()
    parts = {name: write_part(disk, corpus, name, each) for name, each in rows.items() if each}
    publishing.publish(disk, corpus, snapshot.load(corpus), parts, "tiers")


def _filled(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in TABLES[table].names}


def write_latent_file(
    corpus: Path, episode: Mapping[str, Any], facts: LatentFacts, tensors: dict[str, torch.Tensor]
) -> dict[str, Any]:
    """The file where it belongs, and its row of the catalog."""
    inner = latent_file(facts.encoder_id, facts.camera, episode["episode_index"])
    relative = f"{episode['dataset_path']}/{inner}"
    path = corpus / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=facts.metadata())
    row = {
        "uid": facts.uid,
        "camera": facts.camera,
        "encoder_id": facts.encoder_id,
        "path": relative,
        "num_frames": facts.num_frames,
        "dtype": facts.dtype,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "video_sha256": facts.video_sha256,
        "run_id": "tiers",
    }
    return _filled("latents", row)


def checksums(latents: torch.Tensor) -> torch.Tensor:
    """[N, 4] of pictures [N, T, D] in bfloat16, as files from version 2 on have them (`PICTURE_CRC`)."""
    crc = [picture_crc(each.view(torch.uint8).numpy()) for each in latents]
    return torch.from_numpy(np.array(crc, "<u4").view(np.uint8).reshape(-1, 4))


def vit_tensors(length: int, seed: int) -> dict[str, torch.Tensor]:
    """Random latents of an episode of `length` timesteps."""
    frames = torch.arange(0, length, STRIDE)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(len(frames), GRID * GRID, WIDTH, generator=generator).to(torch.bfloat16)
    return {LATENTS: values, FRAME_INDEX: frames, PICTURE_CRC: checksums(values)}


def vit_facts(uid: str, length: int) -> LatentFacts:
    """Of `vit_tensors`."""
    return LatentFacts(
        latents_version=WITH_CHECKSUMS,
        encoder_id=ENCODER,
        model="vit_s16",
        weights_sha256="0" * 64,
        preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        dtype="bf16",
        width=WIDTH,
        num_prefix=0,
        grid_height=GRID,
        grid_width=GRID,
        grid_stride=STRIDE,
        rate_hz=10.0,
        uid=uid,
        camera="front",
        length=length,
        video_sha256="0" * 64,
    )


def build_manifest(
    corpus: Path, name: str, *, where: str = "", with_statistics: bool = True
) -> Path:
    """As `eicorpus manifest build` does it."""
    disk = LocalStorage()
    with Catalog.open(corpus) as catalog:
        built = build(catalog, ManifestRequest(name=name, where=where, shares=SHARES), "corpus")
    facts = built.facts
    if with_statistics:
        chosen = selection(corpus, snapshot.load(corpus), built.rows)
        facts = facts.model_copy(update={"statistics": statistics(chosen, InlineExecutor(disk), disk)})  # fmt: skip
    publish(corpus, facts, built.rows, disk)
    return manifest_folder(corpus, name)
