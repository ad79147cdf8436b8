"""Egocentric-10K (Build AI): factory work seen by a head camera, in WebDataset shards; no label, no action.

    factory_001/workers/worker_001/{factory001_worker001_part00.tar, ..., intrinsics.json}
    shard: factory001_worker001_00000.mp4 + factory001_worker001_00000.json (third party: two independent readers)

H.265 in MP4, 1920x1080, 30 fps, about 180 s each (data card). A shard is never unpacked: a video is read where it lies,
in equal windows of at most 60 s. The recipes that use this set caption it anew or use one constant sentence; none is made up
here. See docs/reference/sources/egocentric_10k.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from adapters.base import SourceInfo
from adapters.containers.sidecar import Sidecar, json_object, read_sidecar
from adapters.containers.tar_shard import Sample, samples
from adapters.containers.video_clip import Clip, clip_ref, load_clip, no_camera_pose, windowed
from schemas.episode import Episode, EpisodeRef, Licence
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.regular_file import bytes_hint, path_exists

# Apache-2.0 is what a third party's card says of the evaluation set; nobody states it of the whole.
LICENCE = Licence(name="unconfirmed (Apache-2.0 for the evaluation set, says Voxel51)")
FACTS = (no_camera_pose("data card: intrinsics only"),)
LENS = ("image_width", "image_height", "fx", "fy", "cx", "cy", "k1", "k2", "k3", "k4")


class Egocentric10K:
    """Reads the shards as they are downloaded, all of them or some."""

    name: ClassVar[str] = "egocentric_10k"
    version: ClassVar[int] = 1
    container: ClassVar[str] = "WebDataset tar of mp4 + json"
    about: ClassVar[str] = "Egocentric-10K: factory work from a head camera, no labels, no actions"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Count the shards; none is opened. ConfigError: there is none, or an option (it has none)."""
        if options:
            raise ConfigError(f"egocentric_10k has no option {sorted(options)}")
        shards = _shards(root)
        if not shards:
            raise ConfigError("no factory_*/workers/worker_*/*.tar below it", where=str(root))
        details = {
            "shards": str(len(shards)),
            "workers": str(len({shard.parent for shard in shards})),
            "gigabytes": f"{bytes_hint(*shards) / 1e9:.1f}",
        }
        return SourceInfo(
            source=self.name, dataset=self.name, licence=LICENCE, facts=FACTS, details=details
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """Windows of every video, shard after shard; headers of tar and mp4 are read, nothing else."""
        seen: set[str] = set()
        for clip, sidecar in _videos(root):
            one = clip
            if clip.episode_id in seen:
                again = replace(clip, episode_id=f"{clip.path}/{clip.episode_id}")
                one = again.broken(Code.UNSAFE_CONTENT, "another shard contains the same video")
            seen.add(one.episode_id)
            for part in windowed(root, one):
                yield clip_ref(self.name, self.name, root, part, FACTS, {"sidecar": sidecar})

    def load(self, ref: EpisodeRef) -> Episode:
        """One window, with worker and factory from the JSON beside the video.

        Raises:
            SourceError: as `load_clip` and `read_sidecar`; BAD_ANNOTATION when the JSON does not name them.
        """
        root, sidecar = Path(ref.root), ref.at("sidecar")
        episode = load_clip(ref, LICENCE)
        text, raw = read_sidecar(root, sidecar)
        stated = json_object(text, sidecar.name)
        factory, worker = (_word(stated, key, sidecar.name) for key in ("factory_id", "worker_id"))
        return replace(
            episode,
            subject_id=f"{factory}/{worker}",  # workers are numbered within their factory
            scene_id=factory,
            facts=(*episode.facts, *_lens(root, Path(sidecar.path).parent / "intrinsics.json")),
            raw_files=(*episode.raw_files, raw),
        )


def _videos(root: Path) -> Iterator[tuple[Clip, Sidecar | None]]:
    for shard in _shards(root):
        for sample in samples(shard):
            yield from _clips(shard.relative_to(root).as_posix(), sample)


def _clips(shard: str, sample: Sample) -> Iterator[tuple[Clip, Sidecar | None]]:
    """The video of a sample, whole; what is no video and belongs to none is passed over."""
    key = sample.key.rpartition("/")[2]
    video, about = sample.files.get("mp4"), sample.files.get("json")
    if sample.problem:
        name = f"{shard}/{sample.key}" if sample.key else shard
        yield Clip(episode_id=name, path=shard, problem=sample.problem), None
    elif video is None:
        if about is not None:
            clip = Clip(episode_id=key, path=shard)
            yield clip.broken(Code.MISSING_VIDEO, "a JSON without its mp4; download it"), None
    else:
        size = video.end - video.start
        clip = Clip(episode_id=key, path=shard, member=video.name, num_bytes=size)
        if about is None:
            yield clip.broken(Code.MISSING_META, "an mp4 without its JSON; download it"), None
        elif size == 0:
            yield clip.broken(Code.TRUNCATED, "the member is empty; download the shard again"), None
        else:
            sidecar = Sidecar(path=shard, member=about.name, byte_range=about.byte_range)
            yield replace(clip, byte_range=video.byte_range), sidecar


def _shards(root: Path) -> list[Path]:
    """ROOT may be the set, a factory, its workers, or one worker."""
    steps = ("factory_*", "workers", "worker_*", "*.tar")
    depths = ("/".join(steps[k:]) for k in range(len(steps)))
    shards = {path for depth in depths for path in root.glob(depth) if path_exists(path)}
    return sorted(shards)


def _word(stated: Mapping[str, Any], key: str, where: str) -> str:
    value = stated.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= 100:
        raise SourceError(Code.BAD_ANNOTATION, f"{key} is {str(value)[:60]!r}", where=where)
    return value


def _lens(root: Path, path: Path) -> tuple[Fact, ...]:
    """The worker's fisheye lens as a fact. It is no `K_cam`: that is a pinhole, which at 128 degrees it is not."""
    source = "intrinsics.json beside the shard: OpenCV fisheye (third party)"
    try:
        text, _ = read_sidecar(root, Sidecar(path=path.as_posix()))
        stated = json_object(text, path.name)
        lens = {key: float(stated[key]) for key in LENS}
    except (SourceError, KeyError, TypeError, ValueError) as error:
        return (fact("lens", f"not known: {error}"[:200], Certainty.UNKNOWN, source),)
    if stated.get("model") != "fisheye" or not all(map(math.isfinite, lens.values())):
        return (fact("lens", "not known: no finite fisheye model", Certainty.UNKNOWN, source),)
    return (fact("lens", json.dumps({"model": "fisheye"} | lens), Certainty.THIRD_PARTY, source),)
