"""One full HOT3D sequence from its tables, on the clock of the episode: its zero is the earliest hand pose or picture."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import Field

from adapters.containers.json_rows import Broken, JsonRow, parse
from adapters.containers.safe_path import inside
from adapters.containers.sidecar import json_object
from adapters.hot3d import sequence as tables
from adapters.hot3d.hands import HandProfile, hand_profile
from adapters.hot3d.pictures import ARIA, Views, add_images, aria_models
from schemas.episode import Stream, pose_channel
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.hand_track import HandTrack
from schemas.regular_file import path_exists

# Objects on the table share z in the Aria sample and y in the Quest 3 one (verified); the same in hot3d:Hot3DVisualizer.py.
WORLD_UP = {"Aria": "+z", "Quest3": "+y"}
VIEWS = (
    "rgb",
    "slam_left",
    "slam_right",
)  # the first of these whose pictures are there sees the hands
FIRST_STREAM = {"Aria": "214-1", "Quest3": "1201-1"}


class About(JsonRow):
    """`metadata.json`."""

    headset: str = Field(max_length=100)
    participant_id: str | None = Field(default=None, max_length=100)


@dataclass(slots=True, kw_only=True)
class Sequence:
    about: About
    views: Views
    hands: tuple[HandTrack, ...] = ()
    streams: tuple[Stream, ...] = ()
    facts: list[Fact] = field(default_factory=list)


def read_sequence(root: Path, folder: Path, video: Path | None) -> Sequence:
    """Everything of a sequence; `video` is the folder of the option of that name.

    Raises:
        SourceError: a table that is not there or does not hold; EMPTY_EPISODE (neither hands nor pictures).
    """
    views = Views()
    about = _about(folder, root, views)
    masks = _masks(folder, root, views)
    if about.headset == ARIA:
        aria_models(folder, root, views)
    elif text := _optional(folder / tables.CAMERA_MODELS, root, views):
        models = tables.camera_models(text, tables.CAMERA_MODELS)
        known = {s: m for s, m in models.items() if s in tables.CAMERA_OF}
        views.models = {tables.CAMERA_OF[stream]: model for stream, model in known.items()}
    beside = inside(video, folder.name) if video is not None else folder
    add_images(folder, beside, root, about.headset, masks, views)
    out = Sequence(about=about, views=views)
    _read_hands(folder, root, masks, out)
    _read_headset(folder, root, masks, out)
    _count_from_zero(out, folder.name)
    return out


def _read_hands(folder: Path, root: Path, masks: tables.Masks, out: Sequence) -> None:
    names = (tables.UMETRACK, tables.MANO)
    umetrack, mano = ((_optional(folder / n, root, out.views), n) for n in names)
    table = tables.hand_rows(umetrack, mano)
    t_ns = table.t_ns
    if len(t_ns) == 0:
        out.facts.append(fact("hands", "none published", Certainty.VERIFIED, "no pose tables"))
        return
    cameras = [camera.name for camera in out.views.cameras]
    view = next((name for name in VIEWS if name in cameras), None)
    stream = _stream_of(view, out.about.headset, masks)
    usable = masks.usable(stream, t_ns)
    profile = _profile(folder, root, out)
    for hand in table.rows.values():
        track, facts = hand.track(t_ns, usable, profile, table.betas, view)
        out.hands += (track,) if track else ()
        out.facts += facts
    value = f"{int((~usable).sum())} of {len(t_ns)} hand samples by {', '.join(masks.names) or 'no mask'} of {stream}"
    out.facts.append(fact("masked_out", value, Certainty.VERIFIED, "masks/"))
    if second := table.num_read - len(t_ns):
        value = f"{second} of {table.num_read} rows, within 1 ms of the row before, are left out"
        out.facts.append(fact("second_exposures", value, Certainty.VERIFIED, "this sequence"))


def _stream_of(view: str | None, headset: str, masks: tables.Masks) -> str:
    """The stream whose masks count: that of the pictures, else the headset's first."""
    if view is None:
        return FIRST_STREAM.get(headset, masks.streams[0] if masks.streams else "")
    return next(s for s, name in tables.CAMERA_OF.items() if name == view)


def _profile(folder: Path, root: Path, out: Sequence) -> HandProfile | None:
    text = _optional(folder / tables.PROFILE, root, out.views)
    if not text:
        value = f"none: {tables.PROFILE} is not there"
        out.facts.append(fact("landmarks", value, Certainty.VERIFIED, "this sequence"))
        return None
    model = json_object(text, tables.PROFILE).get("hand_model")
    if not isinstance(model, dict):
        raise SourceError(Code.BAD_ANNOTATION, "no JSON object hand_model", where=tables.PROFILE)
    return hand_profile(model, tables.PROFILE)


def _read_headset(folder: Path, root: Path, masks: tables.Masks, out: Sequence) -> None:
    """The pose of every known camera. Quest 3 and Aria state them in one device frame."""
    path = folder / tables.HEADSET
    if not path_exists(path):
        out.facts.append(
            fact("camera_pose", f"none: no {tables.HEADSET}", Certainty.VERIFIED, "this sequence")
        )
        return
    t_ns, T_world_device, raw = tables.headset(path, _where(path, root))
    out.views.raw_files.append(raw)
    stream = _stream_of(None, out.about.headset, masks)
    if not out.views.models:
        value = "none: no calibration of the cameras"
        out.facts.append(fact("camera_pose", value, Certainty.VERIFIED, "this sequence"))
    out.streams = tuple(
        Stream(
            spec=pose_channel(f"T_world_cam.{name}"),
            t_ns=t_ns,
            values=T_world_device @ model.T_device_cam,
            valid=masks.usable(stream, t_ns, tables.HEADSET_MASKS),
        )
        for name, model in sorted(out.views.models.items())
        if name in VIEWS
    )


def _count_from_zero(out: Sequence, where: str) -> None:
    clocks = [h.t_ns for h in out.hands] + [c.t_ns for c in out.views.cameras if c.t_ns is not None]
    if not clocks:
        raise SourceError(Code.EMPTY_EPISODE, "neither hands nor readable pictures", where=where)
    zero_ns = min(int(t[0]) for t in (*clocks, *(s.t_ns for s in out.streams)))
    out.hands = tuple(replace(h, t_ns=h.t_ns - zero_ns) for h in out.hands)
    out.streams = tuple(replace(s, t_ns=s.t_ns - zero_ns) for s in out.streams)
    out.views.cameras = [
        replace(c, t_ns=c.t_ns - zero_ns) for c in out.views.cameras if c.t_ns is not None
    ]


def _about(folder: Path, root: Path, views: Views) -> About:
    path = folder / tables.METADATA
    text, raw = tables.read_text(path, _where(path, root))
    views.raw_files.append(raw)
    about = parse(About, json_object(text, raw.path))
    if isinstance(about, Broken):
        raise SourceError(Code.BAD_ANNOTATION, about.why, where=raw.path)
    return about


def _masks(folder: Path, root: Path, views: Views) -> tables.Masks:
    names = [f"mask_{name}.csv" for name in tables.HAND_MASKS]
    texts = {n: _optional(folder / tables.MASKS / n, root, views) for n in names}
    return tables.Masks(
        {n.removeprefix("mask_").removesuffix(".csv"): t for n, t in texts.items() if t}
    )


def _optional(path: Path, root: Path, views: Views) -> str:
    """The text of a file that may be absent, and its fingerprint among the raw files."""
    if not path_exists(path):
        return ""
    text, raw = tables.read_text(inside(root, _where(path, root)), _where(path, root))
    if not text:
        raise SourceError(Code.TRUNCATED, "an empty file; download it again", where=raw.path)
    views.raw_files.append(raw)
    return text


def _where(path: Path, root: Path) -> str:
    return path.relative_to(root.resolve()).as_posix()
