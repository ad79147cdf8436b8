"""An episode as a Rerun recording: `eicorpus view`. Rerun is imported inside the functions, because it is an extra.

world/cameras/NAME          pose and frustum of a camera, in the frame of the state
world/cameras/NAME/video    its video (`videos/NAME` where pose or intrinsics are unknown)
world/SIDE/eef, path, hand  end-effector frame, the path it takes, points and bones of a human hand
series/SLICE/state, action  numbers over time, an action at the time it aims at
segments/tier, task, ...    states over time, reasons and captions as text
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ingest.corpus.layout import CorpusLayout
from ingest.stored_episode import StoredEpisode
from jobs.ui.tier_colours import TIER_COLOURS
from schemas.episode import SIDES
from schemas.errors import Code, SourceError
from schemas.geometry import Array
from schemas.hand import joint_names, joint_parents
from schemas.regular_file import read_regular

if TYPE_CHECKING:
    import rerun as rr
    import rerun.blueprint as rrb

APPLICATION = "eicorpus"
STATE, ACTION = "observation.state", "action"
MOST_VIDEO_BYTES = 1 << 30  # a recording is in memory before it is a file
MOST_ELEMENTS = 12  # of one plot; keypoints are points
AXIS_LENGTH_M, FRUSTUM_DEPTH_M, POINT_RADIUS_M, LINE_RADIUS_M = 0.08, 0.15, 0.004, 0.0015
SIDE_COLOURS = {"left": (60, 200, 235), "right": (245, 180, 60)}
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """What a recording does not show, and why."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoView:
    """A camera's view: what lies below `entity`, and the hands where a pinhole projects them."""

    camera: str
    entity: str
    shows_hands: bool


@dataclass(kw_only=True)
class EpisodeRecording:
    """A recording that is being written. `views` are the parts of its blueprint."""

    episode: StoredEpisode
    stream: rr.RecordingStream
    left_out: list[LeftOut] = field(default_factory=list)
    videos: list[VideoView] = field(default_factory=list)
    series: list[str] = field(default_factory=list)

    def columns(self, entity: str, timesteps: npt.ArrayLike, columns: Any) -> None:
        """Send columns of one row a timestep, with both clocks."""
        import rerun as rr

        k = np.asarray(timesteps, dtype=np.int64)
        clocks = [
            rr.TimeColumn("time", duration=k / self.episode.rate_hz),
            rr.TimeColumn("timestep", sequence=k),
        ]
        rr.send_columns(entity, clocks, columns, recording=self.stream, strict=True)

    def static(self, entity: str, *archetypes: Any) -> None:
        self.stream.log(entity, *archetypes, static=True, strict=True)

    def leave_out(self, what: str, reason: str) -> None:
        self.left_out.append(LeftOut(what=what, reason=reason))


def recording_bytes(episode: StoredEpisode) -> tuple[bytes, list[LeftOut]]:
    """The content of an .rrd file, and what the episode lacks.

    Raises:
        ModuleNotFoundError: rerun is not installed.
        SourceError: a video is missing or damaged.
    """
    import rerun as rr

    rr.set_strict_mode(True)  # else a value that Rerun refuses is a warning, and is not there
    stream = rr.RecordingStream(APPLICATION, recording_id=f"{episode.row['uid']}")
    stream.set_log_time_enabled(False)
    stream.set_log_tick_enabled(False)
    memory = stream.memory_recording()
    recording = EpisodeRecording(episode=episode, stream=stream)
    try:
        _write(recording)
        stream.send_blueprint(blueprint(recording))
        stream.flush()
    finally:
        data = memory.drain_as_bytes()
        stream.disconnect()
    return data, recording.left_out


def _write(recording: EpisodeRecording) -> None:
    import rerun as rr

    row = recording.episode.row
    recording.stream.send_recording_name(f"{row['source']}/{row['episode_id']}")
    recording.static("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP)
    for camera in row["cameras"]:
        _write_camera(recording, camera)
    for side in SIDES:
        _write_side(recording, side)
    _write_series(recording)
    _write_segments(recording)
    _write_about(recording)


def _write_camera(recording: EpisodeRecording, camera: Mapping[str, Any]) -> None:
    """The video, and where its pose and intrinsics are known the frustum."""
    import rerun as rr

    episode, name = recording.episode, str(camera["name"])
    T = episode.camera_poses(name)
    K = camera["K_cam"]
    place = rr.new_entity_path(["world", "cameras", name])
    lens = camera["lens_model"] or "pinhole"
    if T is not None:
        pose = f"camera_pose.{name}"
        _write_poses(recording, place, T, episode.valid(f"observation.{pose}", pose))
    if T is None:
        recording.leave_out(f"frustum of camera {name}", "the source has no pose of it")
    elif K is None:
        recording.leave_out(f"frustum of camera {name}", "the source has no intrinsics of it")
        recording.static(place, rr.TransformAxes3D(AXIS_LENGTH_M))
    else:
        if lens != "pinhole":
            reason = f"Rerun has no {lens} lens, so its view shows no hands over the picture"
            recording.leave_out(f"distortion of camera {name}", reason)
        pinhole = rr.Pinhole(
            image_from_camera=np.array(K).reshape(3, 3),
            resolution=[camera["width"], camera["height"]],
            camera_xyz=rr.ViewCoordinates.RDF,
            image_plane_distance=FRUSTUM_DEPTH_M,
        )
        recording.static(place, pinhole)
    is_placed = T is not None and K is not None
    entity = f"{place}/video" if is_placed else rr.new_entity_path(["videos", name])
    _write_video(recording, entity, name)
    recording.videos.append(
        VideoView(
            camera=name,
            entity=place if is_placed else entity,
            shows_hands=is_placed and lens == "pinhole",
        )
    )


def _write_video(recording: EpisodeRecording, entity: str, camera: str) -> None:
    import rerun as rr

    episode = recording.episode
    path = CorpusLayout(episode.corpus).path(
        episode.view.videos[camera].relative_to(episode.corpus).as_posix()
    )
    if path.is_file() and path.stat().st_size > MOST_VIDEO_BYTES:
        recording.leave_out(f"video of camera {camera}", "it is larger than 1 GiB")
        return
    contents = read_regular(path, max_bytes=MOST_VIDEO_BYTES, where=str(path))
    try:
        video = rr.AssetVideo(contents=contents, media_type="video/mp4")
        shown_ns = video.read_frame_timestamps_nanos()
    except (RuntimeError, ValueError) as error:
        problem = f"{error}; run `eicorpus verify`"
        raise SourceError(Code.CORRUPT_VIDEO, problem, where=str(path)) from error
    if len(shown_ns) != episode.length:
        problem = f"{len(shown_ns)} frames for {episode.length} timesteps; run `eicorpus verify`"
        raise SourceError(Code.FRAME_COUNT, problem, where=str(path))
    recording.static(entity, video)
    references = rr.VideoFrameReference.columns_nanos(shown_ns)
    recording.columns(entity, np.arange(episode.length), references)


def _write_poses(recording: EpisodeRecording, entity: str, T: Array, valid: Mask) -> None:
    """[K, 4, 4]. A timestep that is not valid clears the pose of the one before."""
    import rerun as rr

    columns = rr.Transform3D.columns(translation=T[valid, :3, 3], mat3x3=T[valid, :3, :3])
    recording.columns(entity, np.arange(len(T)), columns.partition(valid.astype(int)))


def _write_side(recording: EpisodeRecording, side: str) -> None:
    """The end-effector's frame and path, and points and bones of a human hand."""
    import rerun as rr

    episode, place = recording.episode, f"world/{side}"
    T = episode.eef_poses(side)
    if T is None:
        recording.leave_out(f"{side} end-effector", "the episode has no pose of it")
        return
    colour = SIDE_COLOURS[side]
    valid = episode.valid(STATE, f"{side}.position_m")
    _write_poses(recording, f"{place}/eef", T, valid)
    recording.static(f"{place}/eef", rr.TransformAxes3D(AXIS_LENGTH_M))
    runs = [T[start:end, :3, 3] for start, end in _runs(valid)]
    if not runs:
        recording.leave_out(f"{side} end-effector", "its pose is valid at no timestep")
    recording.static(f"{place}/path", rr.LineStrips3D(runs, colors=[colour], radii=[LINE_RADIUS_M]))
    points = episode.hand_points_m(side)
    if points is None:
        recording.leave_out(f"{side} hand", "the episode has no keypoints of it")
        return
    valid = valid & episode.valid(STATE, f"{side}.hand_keypoints_m")
    _write_hand(recording, f"{place}/hand", points, valid, colour)


def _write_hand(
    recording: EpisodeRecording, place: str, points: Array, valid: Mask, colour: tuple[int, ...]
) -> None:
    """[K, 21, 3] points. Nothing is shown at timesteps that are not valid."""
    import rerun as rr

    shown, timesteps = points[valid].astype(np.float32), np.arange(len(points))
    joints = rr.Points3D.columns(positions=shown.reshape(-1, 3))
    recording.columns(place, timesteps, joints.partition(valid * points.shape[1]))
    recording.static(
        place,
        rr.Points3D.from_fields(
            colors=[colour], radii=[POINT_RADIUS_M], labels=joint_names(), show_labels=False
        ),
    )
    fingers = _fingers()
    strips = [hand[finger] for hand in shown for finger in fingers]
    bones = rr.LineStrips3D.columns(strips=strips)
    recording.columns(f"{place}/bones", timesteps, bones.partition(valid * len(fingers)))
    recording.static(
        f"{place}/bones", rr.LineStrips3D.from_fields(colors=[colour], radii=[LINE_RADIUS_M])
    )


def _fingers() -> list[list[int]]:
    """The joints from the wrist to each tip."""
    parents = joint_parents()
    chains = [[joint] for joint in range(len(parents)) if joint not in parents]
    for chain in chains:
        while (parent := parents[chain[0]]) >= 0:
            chain.insert(0, parent)
    return chains


def _runs(valid: Mask) -> Iterator[tuple[int, int]]:
    """[start, end) of every stretch that is valid."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], valid, [False]])))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _write_series(recording: EpisodeRecording) -> None:
    """Slices of state and action. What is not valid is a gap. Joint angles and raw commands as they are."""
    episode = recording.episode
    for name, width in episode.slices.items():
        if width > MOST_ELEMENTS:
            recording.leave_out(f"series of {name}", f"{width} lines are no plot; see 3D")
            continue
        for feature, last, steps_ahead in ((STATE, "state", 0), (ACTION, "action", 1)):
            part = episode.view.part(feature, name)
            if part is not None:
                values = np.where(episode.valid(feature, name)[:, None], part, np.nan)
                names = [e for e in episode.features[feature] if f"{e}.".startswith(f"{name}.")]
                _write_lines(recording, ["series", name, last], values, names, steps_ahead)
        recording.series.append(name)
    for feature in ("observation.joint_position_rad", "observation.source_state", "action.raw"):
        if feature in episode.features:
            values = episode.values(feature)
            _write_lines(recording, ["series", feature], values, episode.features[feature], 0)
            recording.series.append(feature)
    if not recording.series:
        recording.leave_out("series", "the episode has neither state nor action")


def _write_lines(
    recording: EpisodeRecording,
    path: list[str],
    values: npt.NDArray[Any],
    names: Sequence[str],
    steps_ahead: int,
) -> None:
    import rerun as rr

    entity = rr.new_entity_path(path)
    scalars = rr.Scalars.columns(scalars=values.ravel())
    rows = scalars.partition([values.shape[1]] * len(values))
    recording.columns(entity, np.arange(len(values)) + steps_ahead, rows)
    recording.static(entity, rr.SeriesLines(names=[f"{path[-1]} {name}" for name in names]))


def _write_segments(recording: EpisodeRecording) -> None:
    """Tiers with their reasons, tasks and other stretches as states over time, captions as text."""
    import rerun as rr

    episode = recording.episode
    tiers = episode.tiers.to_dicts()
    if tiers:
        _write_states(
            recording, "segments/tier", [(t["start"], t["end"], t["tier"]) for t in tiers]
        )
        colours = np.array([int(f"{c[1:]}ff", 16) for c in TIER_COLOURS.values()], np.uint32)
        recording.static(
            "segments/tier", rr.StateConfiguration(values=list(TIER_COLOURS), colors=colours)
        )
        reasons = [f"{t['tier']}: {'; '.join(r['text'] for r in t['reasons'])}" for t in tiers]
        texts = rr.TextLog.columns(text=reasons)
        recording.columns("text/reasons", [t["start"] for t in tiers], texts)
    else:
        recording.leave_out("tiers", "`eicorpus tier` has not run")
    for (kind,), rows in episode.segments.group_by("kind", maintain_order=True):
        label = "text" if rows["text"].str.len_chars().sum() else "kind"
        spans = list(rows.select("start", "end", label).iter_rows())
        _write_states(recording, rr.new_entity_path(["segments", str(kind)]), spans)
    captions = episode.captions.filter(outcome="ok")
    if captions.height:
        texts = rr.TextLog.columns(
            text=[f"{b}: {t}" for b, t in captions.select("backend", "text").iter_rows()]
        )
        recording.columns("text/captions", captions["start"].to_list(), texts)
    else:
        recording.leave_out("captions", "the catalog has none of this episode")


def _write_states(
    recording: EpisodeRecording, entity: str, spans: Sequence[tuple[int, int, str]]
) -> None:
    """[start, end) and what holds there. Nothing holds between."""
    import rerun as rr

    changes: dict[int, str | None] = {end: None for _, end, _ in spans}
    changes |= {start: text for start, _, text in spans}
    ordered = sorted(changes.items())
    states = rr.StateChange.columns(state=[text for _, text in ordered if text is not None])
    is_state = [int(text is not None) for _, text in ordered]
    recording.columns(entity, [k for k, _ in ordered], states.partition(is_state))


def _write_about(recording: EpisodeRecording) -> None:
    """Plain text: what is in it are the words of strangers."""
    import rerun as rr

    row = recording.episode.row
    lines = [
        f"{row['source']}/{row['episode_id']}",
        f"uid {row['uid']}, snapshot {recording.episode.snapshot}",
        f"embodiment {row['embodiment']}",
        f"{recording.episode.length} timesteps at {recording.episode.rate_hz:g} Hz",
        *(f"task: {text}" for text in row["tasks"]),
        *(f"not shown: {each.what}: {each.reason}" for each in recording.left_out),
    ]
    recording.static("about", rr.TextDocument("\n".join(lines), media_type="text/plain"))


def blueprint(recording: EpisodeRecording) -> rrb.Blueprint:
    """3D beside the videos, and series, states and text below. Time in seconds."""
    import rerun as rr
    import rerun.blueprint as rrb

    hands = [f"/world/{side}/{part}" for side in SIDES for part in ("eef", "hand/**")]
    videos = [
        rrb.Spatial2DView(
            origin=video.entity,
            contents=["$origin/**", *(hands if video.shows_hands else ())],
            name=video.camera,
        )
        for video in recording.videos
    ]
    series = [
        rrb.TimeSeriesView(origin=rr.new_entity_path(["series", name]), name=name)
        for name in recording.series
    ]
    pictures = rrb.Horizontal(rrb.Spatial3DView(origin="/world", name="3D"), rrb.Grid(*videos))
    texts = rrb.Tabs(
        rrb.TextDocumentView(origin="/about", name="about"),
        rrb.TextLogView(origin="/text", name="text"),
    )
    below = rrb.Horizontal(rrb.Tabs(*series), texts, column_shares=[2, 1])
    return rrb.Blueprint(
        rrb.Vertical(
            pictures,
            rrb.StateTimelineView(origin="/segments", name="segments"),
            below,
            row_shares=[4, 2, 2],
        ),
        rrb.TimePanel(timeline="time", state="collapsed"),
        auto_views=False,
    )
