"""From hands as sources tell them to the canonical ones: a wrist pose in the world and 21 points in its frame.

The way of a hand: MANO parameters (if there is nothing better) -> joints -> 21 points in the source's frame -> wrist frame (the
source's own axes, else by the palm) -> into the world with the camera's pose -> the points in the wrist frame -> eight tests.
Everything happens on the source's clock; resampling comes after, and only where all eight hold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ingest.recipe import HandSettings, Recipe
from ingest.transforms import camera as cameras
from ingest.transforms.hand_model import HandModel, mano_angles
from ingest.transforms.hand_validity import (
    BITS,
    Validity,
    gathered,
    has_plausible_angles,
    has_plausible_bones,
    is_confident,
    is_in_view,
    is_palm,
    is_slow_enough,
)
from ingest.transforms.resample import Mask, Samples
from ingest.transforms.time_grid import Instants
from schemas.episode import (
    Camera,
    ChannelSpec,
    Episode,
    Interpolation,
    Stream,
    Unit,
    pose_channel,
)
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact
from schemas.geometry import Array, geodesic_rad
from schemas.hand import (
    NUM_JOINTS,
    THUMB_CMC,
    WRIST,
    PalmFit,
    filled_thumb_cmc,
    fit_palm,
    in_wrist_frame,
    keypoints21,
    layout,
    wrist_axes,
)
from schemas.hand_track import WORLD, HandTrack


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CanonicalHand:
    """One hand of an episode after this stage, on the source's clock."""

    side: str
    t_ns: Instants  # [N]
    validity: Validity
    believed: Mask  # [N] what may be read: all eight tests, or all but `camera` for a hand that stays in its camera
    has_motion_removed: bool  # False: the poses are in a moving camera, and teach no action
    measured: dict[str, float]  # name -> value, for the catalog


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Points:
    """[N, 21, 3] in the track's frame, which joints there are [21], and the source's wrist [N, 4, 4] if it has one."""

    points: Array
    has: Mask
    T_native: Array | None


def canonical_hands(
    episode: Episode, recipe: Recipe, model: HandModel | None
) -> tuple[Episode, tuple[CanonicalHand, ...]]:
    """The episode with `<side>.T_base_eef` and `<side>.hand_keypoints_m` streams in place of its hands.

    Raises:
        SourceError: a hand is stored as MANO parameters only and there is no model to read them with.
    """
    T_up = cameras.T_upright_world(episode.world_up)
    episode = replace(episode, streams=cameras.upright_streams(episode.streams, T_up))
    if not episode.hands:
        return episode, ()
    streams, hands, facts = list(episode.streams), [], list(episode.facts)
    for track in episode.hands:
        hand_streams, hand, hand_facts = _canonical_hand(track, episode, T_up, recipe, model)
        streams += hand_streams
        hands.append(hand)
        facts += hand_facts
    removed = all(hand.has_motion_removed for hand in hands)
    if not any(f.name == "camera_motion_removed" for f in facts):
        facts.append(_motion_fact(episode, is_removed=removed))
    return replace(episode, streams=tuple(streams), hands=(), facts=tuple(facts)), tuple(hands)


def _canonical_hand(
    track: HandTrack, episode: Episode, T_up: Array, recipe: Recipe, model: HandModel | None
) -> tuple[list[Stream], CanonicalHand, list[Fact]]:
    settings = recipe.hands
    raw = _points_of(track, model)
    fit = fit_palm(raw.points, raw.has, track.side, settings.palm_template)
    T_frame_wrist = fit.T_ref_wrist if raw.T_native is None else raw.T_native
    raw = _with_thumb(raw, T_frame_wrist, track.side)
    seen_by = _camera(episode, track.view)
    pose_of = {
        name: cameras.camera_pose_at(
            episode.stream(f"T_world_cam.{name}"),
            track.t_ns,
            gap_periods=recipe.gap_periods,
            gap_ms=recipe.gap_ms,
        )
        for name in {track.frame, track.view} - {WORLD, None}
        if name is not None
    }
    T_world_wrist, is_in_world = cameras.in_world(
        T_frame_wrist, track.frame, pose_of.get(track.frame)
    )
    if track.frame == WORLD:
        T_world_wrist = T_up @ T_world_wrist
    validity = _validity(
        track, raw, fit, T_world_wrist, is_in_world, seen_by, pose_of, T_up, settings
    )
    has_pose = track.frame == WORLD or pose_of.get(track.frame) is not None
    believed = validity.valid if has_pose else _but_for_the_camera(validity)
    streams = _streams(track, raw, T_frame_wrist, T_world_wrist, believed)
    measured = _measured(raw, fit, track, validity)
    if settings.fit_mano and raw.has.sum() >= NUM_JOINTS - 1:
        angles, residuals = mano_angles(track, raw.points, raw.has, fit.ok & believed, model)
        streams.append(angles)
        measured |= residuals
    # A camera whose poses cover none of this hand's samples removes nothing.
    has_motion_removed = has_pose and bool(is_in_world.any())
    hand = CanonicalHand(
        side=track.side,
        t_ns=track.t_ns,
        validity=validity,
        believed=believed,
        has_motion_removed=has_motion_removed,
        measured=measured,
    )
    facts = _facts(track, raw, fit, validity, settings)
    if not has_motion_removed:
        facts.append(_left_in_camera(track))
    return streams, hand, facts


def _points_of(track: HandTrack, model: HandModel | None) -> _Points:
    """The 21 points and the native wrist pose, from whatever the source has."""
    T_native = None
    if track.T_frame_wrist is not None:
        T_native = track.T_frame_wrist @ wrist_axes(track.wrist_axes).T_src_wrist(track.side)
    if track.joints_m is not None:
        points, has = keypoints21(track.joints_m, track.layout)
        return _Points(points=points, has=has, T_native=T_native)
    if track.mano is not None and model is not None:
        points, T_mano = np.zeros((len(track.t_ns), NUM_JOINTS, 3)), _identities(len(track.t_ns))
        if track.present.any():
            present = track.present
            points[present], T_mano[present] = model.joints21_and_wrist(
                track.side, track.mano.only(present)
            )
        # The source's own wrist pose, where it has one, is not replaced by the model's.
        T_wrist = T_mano if T_native is None else T_native
        return _Points(points=points, has=np.ones(NUM_JOINTS, dtype=bool), T_native=T_wrist)
    if T_native is None:
        problem = "fingers and wrist are stored as MANO parameters, and no MANO model is available"
        raise SourceError(
            Code.MISSING_CHANNEL, f"{problem}; pass its folder with --mano-dir", where=track.side
        )
    points = np.zeros((len(track.t_ns), NUM_JOINTS, 3))
    points[:, WRIST] = T_native[:, :3, 3]
    return _Points(points=points, has=np.arange(NUM_JOINTS) == WRIST, T_native=T_native)


def _identities(count: int) -> Array:
    return np.tile(np.eye(4), (count, 1, 1))


def _with_thumb(raw: _Points, T_frame_wrist: Array, side: str) -> _Points:
    """A thumb CMC where the source tracks the fingers but not that joint."""
    if raw.has[THUMB_CMC] or raw.has.sum() < NUM_JOINTS - 1:
        return raw
    return replace(
        raw,
        points=filled_thumb_cmc(raw.points, T_frame_wrist, side),
        has=np.ones(NUM_JOINTS, dtype=bool),
    )


def _camera(episode: Episode, name: str | None) -> Camera | None:
    return next((c for c in episode.cameras if c.name == name), None)


def _validity(
    track: HandTrack,
    raw: _Points,
    fit: PalmFit,
    T_world_wrist: Array,
    is_in_world: Mask,
    seen_by: Camera | None,
    pose_of: dict[str, Samples | None],
    T_up: Array,
    settings: HandSettings,
) -> Validity:
    has_fingers = bool(raw.has.all())
    confidence = None
    if track.confidence is not None:
        order = [0 if i is None else i for i in layout(track.layout).to21]
        confidence = np.where(raw.has, track.confidence[:, order], 0.0)
    p_cam = None
    if seen_by is not None and has_fingers:
        world = raw.points
        if track.frame == WORLD:
            world = raw.points @ T_up[:3, :3].T + T_up[:3, 3]
        p_cam = cameras.points_in_camera(
            world, pose_of.get(seen_by.name), track.frame, seen_by.name
        )
    R_native = None if raw.T_native is None else raw.T_native[:, :3, :3]
    tests = {
        "confident": is_confident(confidence, WRIST, settings),
        "in_view": is_in_view(p_cam, raw.has, seen_by, settings),
        "palm": is_palm(fit, R_native, settings) if has_fingers else None,
        "bones": has_plausible_bones(raw.points, raw.has, track.present, settings)
        if has_fingers
        else None,
        "angles": has_plausible_angles(raw.points, raw.has, settings) if has_fingers else None,
        "speed": is_slow_enough(T_world_wrist, track.t_ns, track.present, settings),
        "camera": None if track.frame == WORLD else is_in_world,
    }
    return gathered(
        track.present, {k: v if v is None else v & track.present for k, v in tests.items()}
    )


def _but_for_the_camera(validity: Validity) -> Mask:
    """Of a hand that stays in its camera because the camera has no pose at all: the other seven tests."""
    return np.asarray(validity.bits[:, :-1].all(axis=1))


def _streams(
    track: HandTrack, raw: _Points, T_frame_wrist: Array, T_world_wrist: Array, believed: Mask
) -> list[Stream]:
    """What could not be composed into the world stays in the camera; its poses are then no action (`has_motion_removed`)."""
    out = [
        Stream(
            spec=pose_channel(f"{track.side}.T_base_eef"),
            t_ns=track.t_ns,
            values=np.where(believed[:, None, None], T_world_wrist, np.eye(4)),
            valid=believed,
        )
    ]
    if raw.has.all():
        spec = ChannelSpec(
            name=f"{track.side}.hand_keypoints_m",
            shape=(NUM_JOINTS, 3),
            unit=Unit.METRE,
            interpolation=Interpolation.LINEAR,
        )
        keypoints = in_wrist_frame(raw.points, T_frame_wrist)
        keypoints[~believed] = 0.0
        out.append(Stream(spec=spec, t_ns=track.t_ns, values=keypoints, valid=believed))
    return out


def _measured(raw: _Points, fit: PalmFit, track: HandTrack, validity: Validity) -> dict[str, float]:
    """Numbers about the hand that curation may want, over the samples where it is present."""
    side, usable = track.side, track.present & fit.ok
    out = {f"hand_valid_share.{side}": float(validity.valid.mean())}
    for bit, known, column in zip(
        BITS,
        validity.known,
        validity.bits.T,
        strict=True,
    ):
        if known:
            out[f"hand_pass_share.{side}.{bit}"] = float(column.mean())
    if usable.any():
        out[f"palm_fit_rms_mm.{side}"] = float(np.median(fit.rms_m[usable]) * 1000)
        out[f"palm_scale.{side}"] = float(np.median(fit.scale[usable]))
        if raw.T_native is not None:
            angle = geodesic_rad(fit.T_ref_wrist[usable, :3, :3], raw.T_native[usable, :3, :3])
            out[f"wrist_disagreement_deg.{side}"] = float(np.rad2deg(np.median(angle)))
    return out


def _facts(
    track: HandTrack, raw: _Points, fit: PalmFit, validity: Validity, settings: HandSettings
) -> list[Fact]:
    """How the wrist frame came about, and which tests could not be made."""
    side, axes = track.side, wrist_axes(track.wrist_axes)
    if raw.T_native is None:
        value, certainty = f"palm fit to the {settings.palm_template} template", Certainty.VERIFIED
        source = (
            "a constant 3 to 8 degrees from MANO's own frame on HOT3D and WebXR, spread below 0.5"
        )
    elif track.T_frame_wrist is None:
        value, certainty, source = "MANO", Certainty.VERIFIED, "the model's own wrist"
    else:
        value, certainty, source = f"native, {track.wrist_axes} axes", axes.certainty, axes.source
        agrees = validity.bits[track.present, 3]
        if not certainty.is_settled and raw.has.all() and agrees.size and agrees.mean() > 0.5:
            # The bit says: within the recipe's limit of the palm fit, which a wrong axis (90 degrees) never is.
            certainty, source = (
                Certainty.VERIFIED,
                f"{source}; agrees with the palm of this episode",
            )
    facts = [
        Fact(name=f"wrist_frame.{side}", value=value, certainty=certainty, source=source),
    ]
    if validity.unknown:
        facts.append(
            Fact(
                name=f"hand_tests_unknown.{side}",
                value=", ".join(validity.unknown),
                certainty=Certainty.VERIFIED,
                source="the source has nothing to make these tests with",
                is_for_actions=False,
            )
        )
    return facts


def _left_in_camera(track: HandTrack) -> Fact:
    return Fact(
        name=f"hand_frame.{track.side}",
        value=track.frame,
        certainty=Certainty.VERIFIED,
        source="no pose of that camera is known where this hand is seen",
        is_for_actions=False,
    )


def _motion_fact(episode: Episode, *, is_removed: bool) -> Fact:
    return Fact(
        name="camera_motion_removed",
        value="true" if is_removed else "false",
        certainty=Certainty.VERIFIED,
        source="hands are in the world, or were composed with the camera's pose"
        if is_removed
        else "hands are in a camera whose pose nobody gives",
        is_for_actions=False,
    )
