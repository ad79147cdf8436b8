"""UMI: hand-held grippers with a GoPro, tracked by SLAM; all episodes of a set in one Zarr v2 replay buffer.

    [<any>/]<name>.zarr.zip  or  <name>.zarr/        rows, episodes and pictures: buffer.py
The rate is not stored: GoPro video at 60000/1001 Hz, one row a picture. Poses are in the frame of the table's ArUco tag, which is
no robot base, but gravity-aligned and still. Source: `real-stanford/universal_manipulation_interface:scripts_slam_pipeline/
{06_generate_dataset_plan,07_generate_replay_buffer}.py, diffusion_policy/config/task/umi.yaml`.
Not read: demo_start_pose, demo_end_pose. Latencies are those of deployment; nothing is shifted here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.umi.buffer import (
    RATE_HZ,
    BufferRows,
    cameras_of,
    episode_ends,
    facts_of,
    is_umi,
    motion_streams,
    raw_file_of_store,
    sides_of,
    store_at,
    store_id,
    store_names,
)
from schemas.episode import Episode, EpisodeRef, Instruction, Licence
from schemas.errors import ConfigError, SourceError
from schemas.rate import instants_ns, rate_from

LICENCE = Licence(name="unknown")  # the code is MIT; the recordings have no stated terms here
OPTIONS = ("instruction", "rate_hz")


class Umi:
    """Adapter for `umi`."""

    name: ClassVar[str] = "umi"
    version: ClassVar[int] = 1
    container: ClassVar[str] = "zarr v2 (folder or zip)"
    about: ClassVar[str] = "UMI: hand-held grippers with a camera, poses by SLAM"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Options: `instruction` (the task's text), `rate_hz` (59.94)."""
        if unknown := sorted(set(options) - set(OPTIONS)):
            raise ConfigError(f"unknown options {unknown}; expected {list(OPTIONS)}")
        stores = [store_at(root, name) for name in store_names(root)]
        if not stores:
            raise ConfigError(f"{root}: not UMI: expected a .zarr.zip file or a .zarr folder")
        if not any(is_umi(store) for store in stores):
            raise ConfigError(f"{root}: not UMI: {stores[0].where} has no data/robot0_eef_pos")
        try:
            rate_from(options.get("rate_hz", RATE_HZ))
        except ValueError as error:
            raise ConfigError(f"rate_hz: {error}") from error
        return SourceInfo(
            source=self.name,
            dataset=self.name,
            licence=LICENCE,
            notes=("the action is the achieved next pose: nothing was commanded",),
            details=dict(options),
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """By store, then by number; a store that does not open is one broken episode."""
        for name in store_names(root):
            store = store_at(root, name)
            try:
                ends = episode_ends(store).tolist()
                problem = None
            except SourceError as error:
                ends, problem = [0], (error.code.value, str(error))
            for number, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
                yield EpisodeRef(
                    source=self.name,
                    dataset=self.name,
                    episode_id=f"{store_id(root, name)}/{number}"
                    if problem is None
                    else store_id(root, name),
                    root=str(root),
                    locator=(
                        ("store", name),
                        ("start", start),
                        ("stop", stop),
                        *info.details.items(),
                    ),
                    duration_hint_s=(stop - start) / float(RATE_HZ),
                    problem=problem,
                )

    def load(self, ref: EpisodeRef) -> Episode:
        locator = dict(ref.locator)
        store = store_at(Path(ref.root), locator["store"])
        rate_hz = rate_from(locator.get("rate_hz", RATE_HZ))
        start, stop = int(locator["start"]), int(locator["stop"])
        t_ns = instants_ns(stop - start, rate_hz)
        rows = BufferRows(store=store, start=start, stop=stop, t_ns=t_ns)
        sides = sides_of(store)
        text = str(locator.get("instruction", "")).strip()
        return Episode(
            ref=ref,
            embodiment="umi" if len(sides) == 1 else "umi_bimanual",
            rate_hz=rate_hz,
            streams=tuple(motion_streams(rows, sides)),
            cameras=tuple(cameras_of(rows)),
            instructions=(Instruction(text=text),) if text else (),
            facts=(*ref.facts, *facts_of(store, sides, locator)),
            licence=LICENCE,
            raw_files=(raw_file_of_store(store, Path(ref.root)),),
        )
