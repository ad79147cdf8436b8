"""LeRobot v2.0, v2.1 and v3.0, with or without GR00T's modality.json.

    meta/info.json, modality.json                            what there is        containers/lerobot_meta.py
    meta/tasks.*, episodes.*                                 texts and episodes   containers/lerobot_episodes.py
    data/...parquet                                          rows and their clock episode_rows.py
    videos/...mp4                                            frame k is row k     containers/lerobot_paths.py
LeRobot fixes names of files and not the meaning of numbers. What they mean is declared in mappings.yaml or in a
file of the user's; without it states and actions are handed on in the source's own words and supervise nothing.
Source: huggingface/lerobot `src/lerobot/datasets`, NVIDIA/Isaac-GR00T `LeRobot_compatible_data_schema.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.lerobot_cameras import camera_of
from adapters.containers.lerobot_listing import Listed, check_video_folder, list_episodes, set_root
from adapters.containers.lerobot_paths import SplitRanges, annotation_path, split_ranges
from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import exists_inside, inside
from adapters.lerobot.channels import motion_of
from adapters.lerobot.episode_rows import (
    length_facts,
    places_of,
    row_clock,
    rows_of,
    unopened_facts,
)
from adapters.lerobot.identity import body_of, meta_for, notes_of, required_mapping, slug
from adapters.lerobot.mapping import mapping_for, read_mappings
from adapters.lerobot.places import SetMeta, with_intrinsics
from adapters.lerobot.texts import texts_of
from schemas.episode import Episode, EpisodeRef, Licence
from schemas.errors import ConfigError


class LeRobot:
    """Adapter for `lerobot`; a named set of it (named.py) declares the lower five."""

    name: ClassVar[str] = "lerobot"
    version: ClassVar[int] = 5
    container: ClassVar[str] = "parquet + mp4"
    about: ClassVar[str] = (
        "LeRobot v2.0, v2.1, v3.0 and GR00T sets; meaning of columns by declared mapping"
    )
    options: ClassVar[tuple[str, ...]] = ("licence", "mapping", "name")
    path_options: ClassVar[tuple[str, ...]] = ("mapping",)
    mappings: ClassVar[tuple[str, ...]] = ()  # the shipped ones of which one must fit; () for any
    licence: ClassVar[Licence] = Licence(name="unknown")
    set_name: ClassVar[str] = ""  # where the source is one set; else the folder's name is used

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Options: `name` of the set (else the folder's), `mapping` (a YAML file), `licence` (a name).

        Raises:
            ConfigError: as `set_root`; an unknown option; a mapping that does not fit.
        """
        if unknown := sorted(set(options) - set(self.options)):
            raise ConfigError(f"unknown options {unknown}; expected {sorted(self.options)}")
        root = set_root(root)
        check_video_folder(root)
        if "mapping" in options:
            read_mappings(Path(options["mapping"]))
        facts = required_mapping(root, self.name, self.mappings).facts if self.mappings else ()
        name = self.set_name or root.resolve().name
        return SourceInfo(
            source=self.name,
            dataset=slug(options.get("name", name)),
            licence=Licence(name=options["licence"]) if "licence" in options else self.licence,
            facts=facts,
            notes=notes_of(root, options.get("mapping", ""), self.mappings)
            + split_ranges(root).notes,
            details={"name": name, "mapping": "", **options},
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """By episode index, then unusable entries of the metadata, then data files that nothing mentions."""
        root = set_root(root)
        splits = split_ranges(root)
        for listed in list_episodes(root):
            yield self._ref(root, info, listed, splits)

    def load(self, ref: EpisodeRef) -> Episode:
        root = Path(ref.root)
        info, modality = meta_for(root, ref.at("robot_type"))
        mapping = mapping_for(info, modality, ref.at("mapping"), self.mappings)
        meta = SetMeta(info=info, modality=modality, mapping=mapping)
        places = places_of(ref)
        rows = rows_of(root, ref, meta, places)
        t_ns, due_ns, clock = row_clock(rows, info.rate_hz)
        motion = motion_of(rows, t_ns, due_ns, meta)
        skills = annotation_path(info, ref.at("index")) if mapping and mapping.skills else None
        instructions, text_facts = texts_of(rows, t_ns, root, meta, ref.at("tasks"), skills)
        cameras = [
            with_intrinsics(camera_of(c, rows, t_ns, root), c.key, rows, info, mapping)
            for c in places
        ]
        videos = (c.path for c in places if c.path and exists_inside(root, c.path))
        files = [ref.at("data"), *videos]
        if skills and exists_inside(root, skills):
            files.append(skills)
        own = (
            clock,
            *length_facts(rows, ref.at("length")),
            *unopened_facts(rows),
            *motion.facts,
            *text_facts,
            *(fact for _, of_camera in cameras for fact in of_camera),
        )
        return Episode(
            ref=ref,
            embodiment=body_of(info, mapping),
            rate_hz=info.rate_hz,
            streams=motion.streams,
            cameras=tuple(camera for camera, _ in cameras),
            instructions=instructions,
            facts=(*ref.facts, *own),
            licence=Licence(**dict(ref.at("licence"))),
            raw_files=tuple(raw_file_of(inside(root, f), root) for f in dict.fromkeys(files)),
            declared=motion.declared,
        )

    def _ref(self, root: Path, info: SourceInfo, listed: Listed, splits: SplitRanges) -> EpisodeRef:
        meta = listed.meta
        licence = {n: getattr(info.licence, n) for n in Licence.__slots__}
        locator = {
            "index": meta.index if meta else -1,
            "length": meta.length if meta else 0,
            "tasks": meta.tasks if meta else (),
            "robot_type": meta.robot_type if meta else None,
            "data": listed.data,
            "cameras": tuple((c.name, c.key, c.path, c.first_frame) for c in listed.cameras),
            "mapping": info.details["mapping"],
            "licence": tuple(licence.items()),
        }
        return EpisodeRef(
            source=self.name,
            dataset=info.dataset,
            episode_id=f"{info.details['name']}/{listed.name}",
            root=str(root),
            locator=tuple(locator.items()),
            facts=listed.facts,
            duration_hint_s=listed.duration_s,
            bytes_hint=listed.num_bytes,
            problem=listed.problem,
            source_split=splits.split_of(meta.index) if meta else "",
        )
