"""A small committed corpus that training tests read: real ingest, tiers by hand, known latents, one manifest with statistics.

Three bodies: `umi` (one hand, achieved actions, cameras front and wrist), `umi_bimanual` (two hands, commanded actions, camera
front) and `human_video` (no action). A picture's latents follow from where the hands are, so there is something to learn.
Everything is a function of the episode's number: a test can say what it must find.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation

from adapters.base import SourceInfo
from benchmarks.annotated_corpus import annotate, build_manifest, tier_row, write_latent_file
from ingest.corpus import snapshot
from schemas.episode import (
    Camera,
    EncodedImages,
    Episode,
    EpisodeRef,
    Instruction,
    Licence,
    Stream,
    gripper_channel,
    pose_channel,
)
from schemas.latents import (
    FRAME_INDEX,
    LATENTS,
    SCALE,
    LatentFacts,
    Preprocessing,
    Storage,
)
from schemas.rate import instants_ns
from tests.faults.runs import run

SOURCE = "tests.training.corpus:Play"
ENCODER = "tiny_vit-0123456789ab"
OTHER_ENCODER = "other_vit-ba9876543210"
GRID_HEIGHT, GRID_WIDTH, WIDTH, NUM_PREFIX = 2, 3, 8, 1
NUM_PATCHES = GRID_HEIGHT * GRID_WIDTH
GRID_STRIDE = 3  # timesteps: 0.3 s at 10 Hz
NUM_ROBOT, NUM_PAIR, NUM_VIDEO = 10, 6, 4  # episodes 0-9, 10-15, 16-19
NUM_EPISODES = NUM_ROBOT + NUM_PAIR + NUM_VIDEO
STILL = (9, 15)  # timesteps of episode 1 in which nothing moves: true zero actions
UNSEEN = (20, 23)  # timesteps of episode 2 whose pose nobody believes
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """Where it is. Do not change it: `copied` gives one to spoil."""

    corpus: Path
    manifest: Path  # folder; with latents of ENCODER and OTHER_ENCODER for every episode
    uids: Mapping[int, str]

    def copied(self, to: Path) -> Trainable:
        root = Path(shutil.copytree(self.corpus, to))
        return Trainable(
            corpus=root, manifest=root / self.manifest.relative_to(self.corpus), uids=self.uids
        )


def length_of(number: int) -> int:
    return 34 + 3 * (number % 4) + number % 2


def body_of(number: int) -> str:
    if number < NUM_ROBOT:
        return "umi"
    return "umi_bimanual" if number < NUM_ROBOT + NUM_PAIR else "human_video"


def cameras_of(number: int) -> tuple[str, ...]:
    return ("front", "wrist") if body_of(number) == "umi" else ("front",)


def text_of(number: int) -> str:
    return f"trace circle {number % 3}"


def clock_of(number: int) -> Array:
    """[K] how far along its circle the hand is at each timestep, in rounds of 40."""
    steps = np.ones(length_of(number))
    if number == 1:
        steps[STILL[0] : STILL[1]] = 0
    return np.concatenate([[0], np.cumsum(steps)[:-1]]) + 7.0 * number


def poses_of(number: int, side: int = 0) -> Array:
    """[K, 4, 4] the hand on a circle, turning with it."""
    angle = 2 * np.pi / 40 * clock_of(number) * (-1 if side else 1)
    radius_m = 0.1 + 0.02 * (number % 3)
    T = np.tile(np.eye(4), (len(angle), 1, 1))
    T[:, :3, 3] = (
        np.stack([np.cos(angle), np.sin(angle), 0.3 * np.sin(2 * angle)], axis=1) * radius_m
    )
    T[:, :3, :3] = Rotation.from_rotvec(
        np.stack([0 * angle, 0.4 * np.sin(angle), angle], axis=1)
    ).as_matrix()
    return T


def opening_of(number: int, side: int = 0) -> Array:
    """[K, 1] in [0, 1]."""
    return (0.5 + 0.5 * np.sin(2 * np.pi / 20 * clock_of(number) + side))[:, None]


def tokens_of(number: int, camera: str, encoder_id: str = ENCODER) -> Array:
    """[K, 1 + NUM_PATCHES, WIDTH] what the encoder says of every timestep, float64."""
    kind = ["front", "wrist"].index(camera) + (10 if encoder_id == OTHER_ENCODER else 0)
    rng = np.random.default_rng([kind])
    weights = rng.normal(size=(3, NUM_PREFIX + NUM_PATCHES, WIDTH))
    offset = rng.normal(size=(NUM_PREFIX + NUM_PATCHES, WIDTH)) * 0.3
    return np.asarray(np.tanh(np.einsum("kc,ctd->ktd", poses_of(number)[:, :3, 3] * 8, weights) + offset))  # fmt: skip


class Play:
    """Episodes `e00` ... of hands that go round in circles."""

    name: ClassVar[str] = "play"
    version: ClassVar[int] = 1
    container: ClassVar[str] = "none"
    about: ClassVar[str] = "hands on circles"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        licence = Licence(name="CC0", allows_commercial=True, allows_redistribution=True)
        return SourceInfo(source="play", dataset="play", licence=licence)

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        for number in range(NUM_EPISODES):
            yield EpisodeRef(
                source="play",
                dataset="play",
                episode_id=f"e{number:02d}",
                root=str(root),
                locator=(("number", number),),
                duration_hint_s=3.0,
            )

    def load(self, ref: EpisodeRef) -> Episode:
        number = ref.at("number")
        t_ns = instants_ns(length_of(number), Fraction(10))
        return Episode(
            ref=ref,
            embodiment=body_of(number),
            rate_hz=Fraction(10),
            streams=_streams(number, t_ns),
            cameras=tuple(_camera(name, number, t_ns) for name in cameras_of(number)),
            instructions=(Instruction(text=text_of(number)),),
        )


def _camera(name: str, number: int, t_ns: npt.NDArray[np.int64]) -> Camera:
    """A disc where the hand is."""
    images = []
    for at in poses_of(number)[:, :2, 3]:
        picture = np.full((32, 48, 3), 60 if name == "front" else 120, np.uint8)
        centre = (24 + int(at[0] * 120), 16 + int(at[1] * 80))
        cv2.circle(picture, centre, 5, (40, 200, 250), -1)
        images.append(cv2.imencode(".png", picture)[1].tobytes())
    return Camera(name=name, frames=EncodedImages(images=tuple(images)), t_ns=t_ns)


def _streams(number: int, t_ns: npt.NDArray[np.int64]) -> tuple[Stream, ...]:
    body = body_of(number)
    if body == "human_video":
        return ()
    valid = np.ones(len(t_ns), dtype=bool)
    if number == 2:
        valid[UNSEEN[0] : UNSEEN[1]] = False
    out = []
    for index, side in enumerate(("left", "right")[: 2 if body == "umi_bimanual" else 1]):
        T, opening = poses_of(number, index), opening_of(number, index)
        gripper = gripper_channel(f"{side}.gripper_opening", binary=False)
        out += [
            Stream(spec=pose_channel(f"{side}.T_base_eef"), t_ns=t_ns, values=T, valid=valid),
            Stream(spec=gripper, t_ns=t_ns, values=opening),
        ]
        if body == "umi_bimanual":  # it is told to be a little further than it is
            ahead = T.copy()
            ahead[:, :3, 3] += 0.002
            told = gripper_channel(f"command.{side}.gripper_opening", binary=False)
            out += [
                Stream(spec=pose_channel(f"command.{side}.T_base_eef"), t_ns=t_ns, values=ahead),
                Stream(spec=told, t_ns=t_ns, values=opening),
            ]
    return tuple(out)


def segments_of(number: int) -> list[tuple[int, int, str]]:
    """(start, end, tier) of each: cuts on and off the grid of latents, and one at each end shorter than a window."""
    length = length_of(number)
    if body_of(number) == "human_video":
        return [(0, length, "actionless")]
    if number % 3 == 0:
        return [(0, 20, "high"), (20, length, "low")]
    return [(0, length, "low" if number % 3 == 1 and number > 1 else "high")]


def make(root: Path) -> Trainable:
    """Ingest, annotate, and build the manifest `m`. A few seconds."""
    corpus = root / "corpus"
    (root / "raw").mkdir(parents=True)
    run(root / "raw", corpus, source=SOURCE, run_id="first")
    episodes = {
        int(row["episode_id"][1:]): row
        for row in snapshot.load(corpus).read(corpus, "episodes").to_pylist()
    }
    videos = snapshot.load(corpus).read(corpus, "artifacts").to_pylist()
    digests = {(v["uid"], v["camera"]): v["sha256"] for v in videos if v["kind"] == "video"}
    tiers: list[dict[str, Any]] = []
    latents: list[dict[str, Any]] = []
    for number, row in sorted(episodes.items()):
        for index, span in enumerate(segments_of(number)):
            tiers.append(tier_row(row["uid"], index, *span))
        for encoder_id in (ENCODER, OTHER_ENCODER):
            latents += [
                write_latents(
                    corpus,
                    row,
                    camera,
                    encoder_id=encoder_id,
                    video_sha256=digests[row["uid"], camera],
                )
                for camera in cameras_of(number)
            ]
    annotate(corpus, tiers, latents)
    folder = build_manifest(corpus, "m")
    uids = {number: row["uid"] for number, row in episodes.items()}
    return Trainable(corpus=corpus, manifest=folder, uids=uids)


def write_latents(
    corpus: Path,
    episode: Mapping[str, Any],
    camera: str,
    *,
    encoder_id: str = ENCODER,
    dtype: Storage = "bf16",
    video_sha256: str = "0" * 64,
) -> dict[str, Any]:
    """One file of known latents, and its row of the catalog."""
    number, length = int(episode["episode_id"][1:]), int(episode["length"])
    facts = LatentFacts(
        encoder_id=encoder_id,
        model=encoder_id.partition("-")[0],
        weights_sha256="0" * 64,
        preprocessing=Preprocessing(size_px=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        dtype=dtype,
        width=WIDTH,
        num_prefix=NUM_PREFIX,
        grid_height=GRID_HEIGHT,
        grid_width=GRID_WIDTH,
        grid_stride=GRID_STRIDE,
        rate_hz=10.0,
        uid=episode["uid"],
        camera=camera,
        length=length,
        video_sha256=video_sha256,
    )
    values = torch.from_numpy(tokens_of(number, camera, encoder_id)[:length:GRID_STRIDE])
    tensors = stored(values, dtype) | {FRAME_INDEX: torch.arange(0, length, GRID_STRIDE)}
    return write_latent_file(corpus, episode, facts, tensors)


def stored(values: torch.Tensor, dtype: Storage) -> dict[str, torch.Tensor]:
    """[N, T, D] as a file of that storage holds them."""
    if dtype == "bf16":
        return {LATENTS: values.to(torch.bfloat16)}
    top = 448.0 if dtype == "fp8" else 127.0
    scale = values.abs().amax(dim=-1).clamp(min=1e-12) / top
    scaled = values / scale[..., None]
    kept = scaled.to(torch.float8_e4m3fn) if dtype == "fp8" else scaled.round().to(torch.int8)
    return {LATENTS: kept, SCALE: scale.float()}
