"""What can be said of an RLDS set before any episode is translated: its registry entry, its facts, its probe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from adapters.base import SourceInfo
from adapters.containers.rlds_dir import RldsDir, Shard, records_of, shards_of, undeclared_files
from adapters.containers.rlds_steps import STEPS, Steps, steps_of
from adapters.containers.safe_path import inside
from adapters.containers.tf_example import parse_example
from adapters.containers.tfrecord import read_record
from adapters.oxe.facts import claims, rate_of, told_rate
from adapters.oxe.probe import probe
from adapters.oxe.registry import OxeSet, oxe_set
from schemas.episode import Licence
from schemas.errors import ConfigError, SourceError

OPTIONS = ("set", "rate_hz")
PROBE_EPISODES = 32
PROBE_BYTES = 1 << 30  # a probe reads no more than this, whatever the size of an episode


def survey_dir(directory: RldsDir, options: Mapping[str, str]) -> SourceInfo:
    """The set at a version directory, its conventions probed on its first readable episodes.

    Raises:
        ConfigError: an unknown option or set, or a rate that is none.
    """
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ConfigError(f"oxe has no option {', '.join(unknown)}; expected {', '.join(OPTIONS)}")
    name = options.get("set") or directory.info.name
    entry = oxe_set(name)
    keys = [key.removeprefix(STEPS) for key in directory.leaves if key.startswith(STEPS)]
    facts = claims(entry, keys)
    if "rate_hz" in options:
        facts = tuple(told_rate(f, options["rate_hz"]) if f.name == "rate_hz" else f for f in facts)
    return SourceInfo(
        source="oxe",
        dataset=name,
        licence=Licence(name="unknown"),
        facts=probe(entry, facts, _probed(directory), rate_of(facts)),
        notes=_notes(directory, entry),
        details={"set": entry.name, "robot": entry.robot, "version": directory.info.version},
    )


def _probed(directory: RldsDir) -> Iterator[Steps]:
    """The first readable episodes of the first shard that has any, one in memory at a time."""
    for shard in shards_of(directory.info):
        count = 0
        for steps in _readable(directory, shard):
            count += 1
            yield steps
            if count == PROBE_EPISODES:
                return
        if count:
            return


def _readable(directory: RldsDir, shard: Shard) -> Iterator[Steps]:
    budget = PROBE_BYTES
    for _, record in records_of(directory.path, shard):
        budget -= record.num_bytes
        if record.is_rest or budget < 0:
            return
        if record.problem is not None:
            continue
        try:
            path = inside(directory.path, shard.name)
            data = read_record(path, record.offset, record.num_bytes)
            steps = steps_of(parse_example(data), directory.leaves)
        except (
            SourceError
        ):  # not lost: the same record is discovered, and quarantined when it is loaded
            continue
        yield steps


def _notes(directory: RldsDir, entry: OxeSet) -> tuple[str, ...]:
    notes = list(entry.notes)
    stale = undeclared_files(directory)
    if stale:
        notes.append(f"{len(stale)} undeclared tfrecord files are not read, e.g. {stale[0]}")
    version = directory.info.version
    if entry.version not in (None, version):
        notes.append(f"version {version} found, the registry describes {entry.version}")
    return tuple(notes)
