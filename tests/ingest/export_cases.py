"""A small corpus whose pictures say which frame they are, and manifests of it, for the tests of exports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from adapters.base import SourceInfo
from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus, uid_of
from ingest.export.datasets.format import Format
from ingest.export.datasets.plan import ExportPlan, plan_export
from schemas import manifest
from schemas.episode import (
    Camera,
    EncodedImages,
    Episode,
    EpisodeRef,
    Stream,
    gripper_channel,
    pose_channel,
)
from schemas.rate import instants_ns
from tests.faults.runs import run
from tests.faults.toy import Toy, write_toy
from tests.ingest.video_files import numbered

LENGTHS = {"a": 37, "b": 24, "c": 12}  # timesteps; a keyframe every ten pictures
CAMERAS = ("front", "wrist")


class Numbered(Toy):
    """Episodes whose picture k of episode i and camera c shows 1000 c + 100 i + k."""

    name = "numbered"
    camera_names = CAMERAS

    def survey(self, root: Path, options: Any) -> SourceInfo:
        return replace(super().survey(root, options), source="numbered", dataset="numbered")

    def load(self, ref: EpisodeRef) -> Episode:
        count = LENGTHS[ref.episode_id]
        episode = super().load(ref)
        t_ns = instants_ns(count, Fraction(10))
        rng = np.random.default_rng(ord(ref.episode_id))
        T = np.tile(np.eye(4), (count, 1, 1))
        T[:, :3, 3] = rng.normal(size=(count, 3))
        T[:, :3, :3] = _rotations(rng, count)
        grip = gripper_channel("left.gripper_opening", binary=False)
        streams = (
            Stream(spec=pose_channel("left.T_base_eef"), t_ns=t_ns, values=T),
            Stream(spec=grip, t_ns=t_ns, values=rng.random((count, 1))),
        )
        cameras = tuple(
            Camera(name=name, frames=EncodedImages(images=_pictures(ref, c, count)), t_ns=t_ns)
            for c, name in enumerate(self.camera_names)
        )
        return replace(episode, streams=streams, cameras=cameras)


class NumberedWrists(Numbered):
    """The same with a camera on each wrist."""

    camera_names = ("wrist_right", "front", "wrist_left")


def _rotations(rng: np.random.Generator, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[count, 3, 3] none of them symmetric."""
    rotmat, _ = np.linalg.qr(rng.normal(size=(count, 3, 3)))
    rotmat[np.linalg.det(rotmat) < 0, :, 2] *= -1
    return rotmat


def _pictures(ref: EpisodeRef, camera: int, count: int) -> tuple[bytes, ...]:
    first = 1000 * camera + 100 * "abc".index(ref.episode_id)
    return tuple(
        cv2.imencode(".png", numbered(first + k, 96, 64))[1].tobytes() for k in range(count)
    )


def numbered_corpus(folder: Path, source: type[Numbered] = Numbered) -> Path:
    """Three episodes with two cameras."""
    write_toy(folder / "raw", dict.fromkeys(LENGTHS, "good"))
    name = f"tests.ingest.export_cases:{source.__name__}"
    run(folder / "raw", folder / "corpus", source=name)
    return folder / "corpus"


def manifest_of(
    corpus: Path, segments: Sequence[tuple[str, int, int]], **columns: Any
) -> manifest.Manifest:
    """A manifest of segments (episode id, start, end). `columns`: values of all rows, or a list of them."""
    current = snapshot.load(corpus)
    episodes = {row["episode_id"]: row for row in current.read(corpus, "episodes").to_pylist()}
    rows = []
    for number, (name, start, end) in enumerate(segments):
        episode = episodes[name]
        row = {
            key: episode[key]
            for key in ("uid", "source", "embodiment", "dataset_path", "episode_index")
        }
        row |= {"start": start, "end": end, "tier": "high", "tasks": ["policy"], "reasons": []}
        row |= {"split": "train", "weight": 1.0, "text": f"do {name}", "latents": []}
        row |= {"caption_id": None, "licence_class": "permissive"}
        row |= {"content_sha256": episode["content_sha256"]}
        own = {n: v[number] if isinstance(v, list) else v for n, v in columns.items()}
        rows.append(row | own)
    table = pa.Table.from_pylist(rows, schema=manifest.ROW_SCHEMA)
    facts = manifest.ManifestFacts(
        manifest_version=1,
        name="chosen",
        corpus_uid=uid_of(open_corpus(corpus)),
        snapshot=current.number,
        where="",
        text_policy="best",
        policy=manifest.PolicyFacts(name="p", digest="d", text=""),
        split=manifest.SplitFacts(by="auto", val=0.0, test=0.0),
        mixture=manifest.MixtureFacts(text="", digest="", by=(), draw_hours=0.0, groups=()),
        num_rows=table.num_rows,
        num_episodes=len({row["uid"] for row in rows}),
        hours={},
        rows_sha256=manifest.rows_sha256(table),
        statistics=None,
    )
    return manifest.Manifest(corpus=corpus, facts=facts, rows=table)


def plan_of(
    corpus: Path, chosen: manifest.Manifest, to: Format, allowed: Sequence[str] = ()
) -> ExportPlan:
    """The plan of an export."""
    return plan_export(
        corpus,
        chosen,
        format_name=to.name,
        settings=to.settings(),
        left_out=to.left_out,
        divide=to.divide,
        allowed_licences=allowed,
    )


def page_of(out: Path) -> dict[str, Any]:
    """`eicorpus_export.json`, read as anyone would."""
    page: dict[str, Any] = json.loads((out / "eicorpus_export.json").read_text())
    return page
