"""Something-Something V2 (20BN, Qualcomm): 220,847 short clips of a hand doing something to something. No actions.

    20bn-something-something-v2/<id>.webm       VP9, height 240, width often odd (427), ~12 fps, 2 to 6 s, no sound
    labels/{labels,train,validation,test}.json  or something-something-v2-{labels,train,validation,test}.json

(open-mmlab/mmaction2:tools/data/sthv2/README.md, code; both spellings of the names are met.) train and validation: [{"id",
"label", "template", "placeholders"}]; test: [{"id"}]; labels: {template without brackets: "0".."173"}. One clip is one
episode and its `label` the instruction, as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from adapters.base import SourceInfo
from adapters.containers.json_rows import Broken, JsonRow, Text, members, parse
from adapters.containers.video_clip import Clip, clip_ref, load_clip, no_camera_pose
from adapters.ssv2_splits import source_splits
from schemas.episode import Episode, EpisodeRef, Licence
from schemas.errors import Code, ConfigError
from schemas.fact import Certainty, Fact, fact
from schemas.regular_file import path_exists

LICENCE = Licence(
    name="Something-Something V2 research licence",
    allows_commercial=False,
    allows_redistribution=False,
)
FACTS = (no_camera_pose("the set has video and labels only"),)
VIDEO_FOLDERS = ("20bn-something-something-v2", "videos", "")
LABEL_FOLDERS = ("labels", "annotations", "")
SPLITS = ("train", "validation", "test")
REST = "unlabelled"  # the fourth word of option "splits": videos that no chosen file names
KINDS = ((r"pretending|failing|trying", "not_achieved"), (r".*\bcamera\b", "camera"))


class Ssv2Label(JsonRow):
    id: Annotated[str, Field(pattern=r"^\d{1,9}$")]
    label: Text = ""
    template: Text = ""


class SomethingSomethingV2:
    """Reads an unpacked download; options `splits`, `labels` (the folder of the JSON files)."""

    name: ClassVar[str] = "ssv2"
    path_options: ClassVar[tuple[str, ...]] = ("labels",)
    version: ClassVar[int] = 2
    container: ClassVar[str] = "webm + json"
    about: ClassVar[str] = "Something-Something V2: short labelled clips of hands; no actions"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Look for the files. ConfigError: neither videos nor labels, or an option that does not hold."""
        if unknown := sorted(set(options) - {"splits", "labels"}):
            raise ConfigError(f"unknown options {unknown}; expected splits, labels")
        asked = options.get("splits", ",".join((*SPLITS, REST))).split(",")
        if wrong := sorted(set(asked) - {*SPLITS, REST}):
            raise ConfigError(f"splits: {wrong}; expected one of {', '.join((*SPLITS, REST))}")
        files = {name: path for name in SPLITS if (path := _file(root, options, name))}
        missing = sorted(set(asked) - set(files) - {REST}) if "splits" in options else []
        if missing or ("labels" in options and not files):
            raise ConfigError(f"no JSON file for {missing or SPLITS}", where=str(root))
        videos = _videos(root)
        if not videos and not files:
            raise ConfigError("neither <id>.webm nor train.json below it", where=str(root))
        chosen = [s for s in (*SPLITS, REST) if s in asked and (s in files or s == REST)]
        details = {"splits": ",".join(chosen), "labels": options.get("labels", "")}
        return SourceInfo(
            source=self.name,
            dataset=self.name,
            licence=LICENCE,
            facts=FACTS,
            details=details | {"videos_on_disk": str(len(videos))},
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """Every row in file order, then every video without one by number."""
        options = {"labels": info.details["labels"]} if info.details["labels"] else {}
        splits = info.details["splits"].split(",")
        videos, classes = _videos(root), _classes(_file(root, options, "labels"))
        published = source_splits({s: p for s in SPLITS if (p := _file(root, options, s))})
        seen: set[str] = set()
        for split in splits:
            path = _file(root, options, split) if split != REST else None
            for where, raw in members(path, inside=()) if path else ():
                label = parse(Ssv2Label, raw)
                facts = FACTS if isinstance(label, Broken) else (*FACTS, *_facts(label, classes))
                clip = _clip(label, videos, f"{split}/{where[-1]}", seen)
                seen.add(clip.episode_id)
                clip = replace(clip, source_split=published.get(clip.episode_id, ""))
                yield clip_ref(self.name, self.name, root, clip, facts, {"split": split})
        for name in sorted(videos.keys() - seen, key=int) if REST in splits else ():
            clip = Clip(episode_id=name, path=videos[name], source_split=published.get(name, ""))
            yield clip_ref(self.name, self.name, root, clip, FACTS, {"split": REST})

    def load(self, ref: EpisodeRef) -> Episode:
        """The whole clip; `success` is False where the label itself says that it is pretended or fails.

        Raises:
            SourceError: as `load_clip`.
        """
        kind = next((f.value for f in ref.facts if f.name == "label_kind"), "")
        return replace(load_clip(ref, LICENCE), success=False if kind == "not_achieved" else None)


def _clip(label: Ssv2Label | Broken, videos: Mapping[str, str], where: str, seen: set[str]) -> Clip:
    if isinstance(label, Broken):
        return Clip(episode_id=where).broken(Code.BAD_ANNOTATION, label.why)
    if label.id in seen:
        return Clip(episode_id=where).broken(Code.BAD_ANNOTATION, f"a second entry of {label.id}")
    clip = Clip(episode_id=label.id, path=videos.get(label.id, ""), text=label.label)
    return clip if clip.path else clip.broken(Code.MISSING_VIDEO, f"no {label.id}.webm; unpack it")


def _facts(label: Ssv2Label, classes: Mapping[str, str]) -> Iterator[Fact]:
    """What kind of thing the label says, and its class: `labels.json` by the template without brackets, never by rank.

    A list sorted WITH brackets (category.txt, as handed around) mislabels more than half of the rows (verified, video.md §4).
    """
    if not label.label:
        return
    kind = next((k for p, k in KINDS if re.match(p, label.label, re.IGNORECASE)), "action")
    yield fact("label_kind", kind, Certainty.INFERRED, "the words of the label")
    if number := classes.get(re.sub(r"[\[\]]", "", label.template)):
        yield fact("class_id", number, Certainty.DOCUMENTED, "labels.json")


def _classes(path: Path | None) -> dict[str, str]:
    rows = members(path, inside=()) if path else ()
    return {where[0]: str(number) for where, number in rows if len(str(number)) <= 3}


def _file(root: Path, options: Mapping[str, str], split: str) -> Path | None:
    folders = (options["labels"],) if "labels" in options else LABEL_FOLDERS
    names = (f"{split}.json", f"something-something-v2-{split}.json")
    return next((p for f in folders for n in names if path_exists(p := root / f / n)), None)


def _videos(root: Path) -> dict[str, str]:
    """Looking an id up here never builds a path from it. Some keep the clips as mp4."""
    folder = next((f for f in VIDEO_FOLDERS if any((root / f).glob("[0-9]*.*"))), "")
    files = sorted(p for p in (root / folder).glob("*") if p.suffix.lower() in (".mp4", ".webm"))
    return {p.stem: p.relative_to(root).as_posix() for p in files if re.match(r"\d{1,9}\Z", p.stem)}
