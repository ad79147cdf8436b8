"""Open X-Embodiment: robot sets as RLDS (TFDS TFRecord), read without TensorFlow.

Layout `<set>/[<config>/]<version>/`: `dataset_info.json`, `features.json` and the shards they declare; one record is one
episode. There are no time stamps: step k is at k / rate, the rate being a claim of `oxe_registry.yaml`, like every other
convention (each with its certainty and source). A numeric probe of the first episodes settles or contradicts the claims;
`load` emits only what they carry. Step leaves used: images, eef pose, gripper, joints, action, instruction, `is_last`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.raw_file import raw_record
from adapters.containers.rlds import Leaf
from adapters.containers.rlds_dir import (
    RldsDir,
    Shard,
    find_version_dir,
    open_dir,
    records_of,
    shards_of,
)
from adapters.containers.rlds_steps import steps_of
from adapters.containers.safe_path import inside
from adapters.containers.tf_example import TfFeature, parse_example
from adapters.containers.tfrecord import Record, read_record
from adapters.oxe.cameras import cameras_of
from adapters.oxe.facts import book, rate_of
from adapters.oxe.registry import OxeSet, oxe_set
from adapters.oxe.streams import instructions_of, streams_of
from adapters.oxe.survey import declared_of, survey_dir
from schemas.episode import Episode, EpisodeRef
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Certainty, Fact
from schemas.rate import instants_ns
from schemas.source_split import source_split_of

NO_RATE = "no control rate is stated anywhere; give one with the option rate_hz"


@dataclass(frozen=True, slots=True)
class OpenXEmbodiment:
    """Adapter `oxe`. Options: `set` names the set, `rate_hz` gives a rate where none is documented."""

    name: ClassVar[str] = "oxe"
    version: ClassVar[int] = 3
    container: ClassVar[str] = "RLDS / TFDS TFRecord"
    about: ClassVar[str] = (
        "Open X-Embodiment: 87 robot sets; conventions per set, probed numerically"
    )

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Find the version directory, look the set up and probe its first readable episodes. Raises ConfigError."""
        return survey_dir(open_dir(find_version_dir(root)), options)

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """One ref per record, shard after shard; a missing shard or a lost rest is one ref with its problem."""
        directory = open_dir(find_version_dir(root))
        for shard in shards_of(directory.info):
            for number, record in records_of(directory.path, shard):
                yield _ref(directory, info, shard, number, record)

    def load(self, ref: EpisodeRef) -> Episode:
        """Read one record with both checksums and translate it. Raises SourceError."""
        directory, entry, rate_hz = _reopened(ref), oxe_set(ref.at("set")), rate_of(ref.facts)
        if rate_hz is None:
            raise SourceError(Code.UNKNOWN_LAYOUT, NO_RATE, where=ref.episode_id)
        path = inside(directory.path, ref.at("shard"))
        data = read_record(path, ref.at("offset"), ref.at("num_bytes"))
        features = parse_example(data)
        steps = steps_of(features, directory.leaves)
        t_ns = instants_ns(steps.num_steps, rate_hz)
        cameras, left_out = cameras_of(steps, entry, t_ns)
        return Episode(
            ref=ref,
            embodiment=entry.embodiment,
            rate_hz=rate_hz,
            streams=streams_of(steps, entry, book(ref.facts), rate_hz),
            cameras=cameras,
            instructions=instructions_of(steps, entry, t_ns),
            facts=(*ref.facts, *left_out),
            raw_files=(raw_record(f"{ref.at('shard')}@{ref.at('offset')}", data),),
            success=_success(features, directory.leaves, entry),
            declared=declared_of(steps, entry),
        )


def _ref(
    directory: RldsDir, info: SourceInfo, shard: Shard, number: int, record: Record
) -> EpisodeRef:
    meta, facts, problem = directory.info, info.facts, record.problem
    parts = [meta.name, meta.config, meta.version, f"{shard.split}-{shard.index:05d}"]
    last = f"{number:06d}-rest" if record.is_rest else f"{number:06d}"
    if problem is None and rate_of(facts) is None:
        problem = Code.UNKNOWN_LAYOUT, NO_RATE
    if number >= shard.num_declared and not record.is_rest:
        facts = (*facts, _undeclared(shard))
    return EpisodeRef(
        source=info.source,
        dataset=info.dataset,
        episode_id="/".join([*(part for part in parts if part), last]),
        root=str(directory.path),
        locator=(
            ("set", info.details["set"]),
            ("shard", shard.name),
            ("offset", record.offset),
            ("num_bytes", record.num_bytes),
        ),
        facts=facts,
        bytes_hint=record.num_bytes,
        problem=None if problem is None else (problem[0].value, problem[1]),
        stands_for=max(shard.num_declared - number, 1) if record.is_rest else 1,
        source_split=source_split_of(shard.split),
    )


def _undeclared(shard: Shard) -> Fact:
    return Fact(
        name="undeclared_record",
        value=f"{shard.name} declares {shard.num_declared} records",
        certainty=Certainty.VERIFIED,
        source="counted in the file",
        is_for_actions=False,
    )


def _reopened(ref: EpisodeRef) -> RldsDir:
    try:
        return open_dir(Path(ref.root))
    except ConfigError as error:  # it was fine at discovery: the caller is not to blame
        raise SourceError(Code.MISSING_META, error.message, where=ref.root) from error


def _success(
    features: Mapping[str, TfFeature], leaves: Mapping[str, Leaf], entry: OxeSet
) -> bool | None:
    key = entry.success_key
    if key is None or key not in leaves or key not in features:
        return None
    values = features[key].ints()
    return bool(values[0]) if len(values) else None
