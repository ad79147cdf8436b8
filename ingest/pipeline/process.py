"""The worker body: one episode reference in, one staged episode and one small outcome out. Every exception becomes an outcome."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from adapters.base import Adapter
from adapters.registry import adapter_for
from ingest.corpus.remote_staging import RemoteStaging, StagingStore
from ingest.corpus.staging import staged_before, write_staged
from ingest.pipeline.assets import NO_ASSETS, Assets, hand_model_for, robot_for
from ingest.pipeline.episode_record import ProcessedEpisode, describe, staged_rows
from ingest.raw_data.bucket_source import BucketSource, reading
from ingest.recipe import Recipe
from ingest.storage.local import LocalStorage
from ingest.storage.process_folder import process_folder
from ingest.transforms import time_grid
from ingest.transforms.action_vector import canonical_vectors
from ingest.transforms.camera_poses import with_camera_poses
from ingest.transforms.channel_account import accounted, with_present_cameras
from ingest.transforms.forward_kinematics import with_forward_kinematics
from ingest.transforms.hands import canonical_hands
from ingest.video.camera_video import VideoFacts, frame_clock, write_video
from schemas.embodiment import embodiment_for
from schemas.episode import Episode, EpisodeRef
from schemas.errors import (
    Code,
    ConfigError,
    PipelineError,
    SourceError,
    TransientError,
    system_error_text,
)
from schemas.fact import Certainty, fact
from schemas.outcome import Outcome, State
from schemas.rate import instants_ns

TOO_SHORT = "too_short"  # the one verdict of the spine itself; curation adds its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Everything a worker needs for one episode."""

    ref: EpisodeRef
    adapter: str  # name in the registry, or an import string `module:Class`
    recipe: Recipe
    staging: str  # the episode's own staging folder
    options_digest: str = ""
    assets: Assets = NO_ASSETS
    num_threads: int = 1
    bucket: BucketSource | None = None  # of which the raw data is fetched
    upload_to: str = ""  # URI of the corpus, where workers and driver share no file system

    @property
    def remote_staging(self) -> RemoteStaging:
        """Where the episode is handed over in the bucket of the corpus."""
        return RemoteStaging(_store_of(self.upload_to), Path(self.staging).name)


@cache
def _store_of(uri: str) -> StagingStore:
    from ingest.corpus.publishing import store_of  # workers that do not upload start without it

    return store_of(uri)


def process(work: Work, disk: LocalStorage) -> Outcome:
    """Bring one raw episode to staging.

    Returns:
        STAGED with the staged episode, FILTERED, or QUARANTINED with the code of the `SourceError`.

    Raises:
        TransientError, OSError: the machine's trouble, for the executor to judge.
    """
    folder = Path(work.staging)
    if not work.upload_to:
        return _staged(work, folder, disk.at(folder.parent))
    remote = work.remote_staging
    if (outcome := remote.before()) is not None:
        return outcome
    own = process_folder(folder.parent)
    outcome = _staged(work, own / folder.name, disk.at(own))
    return remote.upload(own / folder.name, outcome) if outcome.staged is not None else outcome


def _staged(work: Work, folder: Path, disk: LocalStorage) -> Outcome:
    ref = work.ref
    if (outcome := staged_before(folder)) is not None:
        return outcome
    disk.remove_tree(folder)  # a half-written attempt
    disk.make_dir(folder)
    try:
        with reading(work.bucket):
            outcome = _stage(work, folder, disk)
    except SourceError as error:
        outcome = Outcome(
            uid=ref.uid, state=State.QUARANTINED, code=error.code.value, message=str(error)
        )
    if outcome.state is not State.STAGED:
        disk.remove_tree(folder)
    return outcome


def _stage(work: Work, folder: Path, disk: LocalStorage) -> Outcome:
    ref, recipe = work.ref, work.recipe
    if ref.problem is not None:
        raise SourceError(Code(ref.problem[0]), ref.problem[1])
    adapter = adapter_for(work.adapter)
    episode = _load(adapter, ref)
    episode = _with_poses_of_urdf(episode, work.assets)
    if work.assets.camera_poses is not None:
        episode = with_camera_poses(episode, Path(work.assets.camera_poses))
    episode, absent_cameras = with_present_cameras(episode, recipe.missing_cameras)
    episode, hands = canonical_hands(episode, recipe, hand_model_for(work.assets, recipe.hands))
    clocks = {camera.name: frame_clock(camera) for camera in episode.cameras}
    _bounded(clocks, recipe)
    required = [*clocks.values(), *(s.t_ns for s in episode.streams if is_required(s.name))]
    at = time_grid.grid(required, recipe.rate_hz, recipe.max_episode_s)
    if len(at) < recipe.min_timesteps:
        message = f"{len(at)} timesteps; the recipe requires at least {recipe.min_timesteps}"
        return Outcome(uid=ref.uid, state=State.FILTERED, code=TOO_SHORT, message=message)
    following = instants_ns(len(at) + 1, recipe.rate_hz, int(at[0]))[1:]
    body = embodiment_for(episode.embodiment)
    canonical = ProcessedEpisode(
        episode=episode,
        adapter_version=adapter.version,
        options_digest=work.options_digest,
        absent_cameras=absent_cameras,
        recipe=recipe,
        at=at,
        clocks=clocks,
        vectors=accounted(episode, canonical_vectors(episode, body, at, following, recipe, hands)),
        hands=hands,
        videos=_write_videos(episode, clocks, at, work, folder),
    )
    table = staged_rows(canonical)
    outcome = Outcome(
        uid=ref.uid,
        state=State.STAGED,
        num_frames=len(at),
        video_s=len(at) * len(canonical.videos) / float(recipe.rate_hz),
        staged=describe(canonical, table),
    )
    write_staged(folder, table, outcome, disk)
    return outcome


def _with_poses_of_urdf(episode: Episode, assets: Assets) -> Episode:
    """Forward kinematics where a URDF was named. A set of several bodies has one whose URDF it is; the others keep their joints.

    That the URDF is of some body of the set was found out when the run was planned.
    """
    try:
        robot = robot_for(assets, episode.embodiment)
    except ConfigError as error:
        source = fact(
            "eef_pose_source", "none", Certainty.UNKNOWN, f"not this body's URDF: {error}"
        )
        return replace(episode, facts=(*episode.facts, source))
    return episode if robot is None else with_forward_kinematics(episode, robot)


# Reading may work in a moment: network storage, a busy or restarting server.
_HICCUPS = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ECONNRESET})


def _load(adapter: Adapter, ref: EpisodeRef) -> Episode:
    """Load an episode; what the file system refuses is this episode's trouble, unless it is a passing hiccup.

    Adapters only read, so an OSError here can never be about what we write.
    """
    try:
        return adapter.load(ref)
    except OSError as error:
        if error.errno in _HICCUPS:
            raise TransientError(
                system_error_text(error, ref.episode_id), where=ref.episode_id
            ) from error
        problem = f"{system_error_text(error, ref.episode_id)}; check that the file is there and may be read"
        raise SourceError(Code.UNREADABLE, problem, where=ref.episode_id) from error


def is_required(channel: str) -> bool:
    """Commands and camera poses may end early; what was observed defines the episode's span."""
    return not channel.startswith(("command.", "raw_command", "T_base_cam.", "T_world_cam."))


def _bounded(clocks: Mapping[str, time_grid.Instants], recipe: Recipe) -> None:
    for camera, instants in clocks.items():
        if len(instants) > recipe.max_source_frames:
            problem = f"{len(instants)} frames; expected at most {recipe.max_source_frames}"
            raise SourceError(Code.TOO_LONG, problem, where=f"camera {camera}")


def _write_videos(
    episode: Episode,
    clocks: Mapping[str, time_grid.Instants],
    at: time_grid.Instants,
    work: Work,
    folder: Path,
) -> dict[str, VideoFacts]:
    return {
        camera.name: write_video(
            camera,
            clocks[camera.name],
            at,
            folder / f"{camera.name}.mp4",
            work.recipe.video,
            num_threads=work.num_threads,
            rate_hz=work.recipe.rate_hz,
        )
        for camera in episode.cameras
    }


DISK_FULL, IO_ERROR, INTERNAL_ERROR = "disk_full", "io_error", "internal_error"
TRIES = 3  # of one attempt at an episode, when storage hiccups


def guarded(work: Work, disk: LocalStorage) -> Outcome:
    """The worker body with every ending turned into an outcome. Of an episode that is handed over elsewhere nothing stays here."""
    try:
        return _guarded(work, disk)
    finally:
        if work.upload_to:
            with suppress(OSError, PipelineError):  # a full disk: the next process on it does it
                own = process_folder(Path(work.staging).parent)
                disk.at(own).remove_tree(own / Path(work.staging).name)


def _guarded(work: Work, disk: LocalStorage) -> Outcome:
    retrying = Retrying(
        retry=retry_if_exception_type(TransientError),
        stop=stop_after_attempt(TRIES),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        reraise=True,
    )
    uid = work.ref.uid
    try:
        return retrying(process, work, disk)
    except MemoryError as error:
        message = f"out of memory: {error}; raise --memory-limit-mb or cut the recording"
        return Outcome(
            uid=uid, state=State.QUARANTINED, code=Code.OUT_OF_MEMORY.value, message=message
        )
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        code = DISK_FULL if is_full else IO_ERROR
        return Outcome(uid=uid, state=State.FAILED, code=code, message=system_error_text(error))
    except PipelineError as error:
        return Outcome(uid=uid, state=State.FAILED, code=type(error).__name__, message=str(error))
    except Exception as error:  # noqa: BLE001  an unknown crash is counted with its address, not lost
        at = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{error!r} at {os.path.basename(at.filename)}:{at.lineno} in {at.name}"
        return Outcome(uid=uid, state=State.FAILED, code=INTERNAL_ERROR, message=message)


def _names(kind: type[PipelineError]) -> set[str]:
    """What `guarded` calls errors of a kind: each has the name of its own class."""
    return {kind.__name__}.union(*map(_names, kind.__subclasses__()))


# What a node says that does not see the raw data, the assets or the corpus as the driver does.
_ABSENCES = frozenset(
    {
        *(Code.MISSING_FILE, Code.MISSING_SHARD, Code.MISSING_VIDEO, Code.MISSING_META),
        *(Code.UNREADABLE, IO_ERROR),
    }
)


def is_doubtful(work: Work, outcome: Outcome) -> bool:
    """Whether an outcome says that something is absent which was there when the run was planned, or that a machine has failed on its own."""
    if work.upload_to and outcome.code in {DISK_FULL, *_names(TransientError)}:
        return True  # the disk and the network of the node
    return work.ref.problem is None and (
        outcome.code in _ABSENCES or outcome.code in _names(ConfigError)
    )
