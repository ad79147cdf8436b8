"""The text of a corpus spec for folders of raw data: which source reads each, how sure that is, and what to decide."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from adapters.detect import GENERAL, Match, matches
from adapters.registry import adapter_for
from jobs.build.spec import VERSION
from schemas.errors import ConfigError
from schemas.remedies import doc_page

SCHEMA, KEYS = "reference/corpus.schema.json", "reference/corpus.md"
MAX_CHILDREN = 200
VIDEOS = "video_folder"  # it matches the videos inside of any other source
YAML_WORDS = frozenset(["null", "true", "false", "yes", "no", "on", "off", "y", "n"])
NEEDS_MANO = "needs MANO_LEFT.pkl and MANO_RIGHT.pkl (https://mano.is.tue.mpg.de)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """A folder and the sources that can read it, the best first."""

    folder: Path
    candidates: tuple[Match, ...]


def probe(folders: Sequence[Path]) -> list[Probed]:
    """Each folder, or the folders in it where it is no source itself.

    Raises:
        ConfigError: a folder is not there, or nothing in it is known.
    """
    out: list[Probed] = []
    for folder in folders:
        if not folder.exists():
            raise ConfigError("no such file or folder", where=str(folder))
        probed = list(_probed(folder))
        if not probed:
            message = "no source matches this data or a folder in it; `eicorpus doctor SOURCE PATH` says why one does not"
            raise ConfigError(message, where=str(folder))
        out += probed
    return out


def _probed(folder: Path) -> Iterator[Probed]:
    """The folder, or the folders in it where they are of other sources: some adapters find their files at any depth."""
    root = folder.absolute()
    candidates = tuple(matches(root, {}))
    inside = sorted(each for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []
    each_inside = ((child, tuple(matches(child.absolute(), {}))) for child in inside[:MAX_CHILDREN])
    children = [Probed(folder=child, candidates=some) for child, some in each_inside if some]
    outer = {match.source for match in candidates}
    kinds = [{match.source for match in each.candidates} - {VIDEOS} for each in children]
    inner = set().union(*kinds)
    # Read as one, a folder of another source would be lost.
    are_apart = any(one and other and not one & other for one, other in combinations(kinds, 2))
    has_others, is_collection = bool(inner - outer) or are_apart, bool(inner & outer)
    if has_others and not is_collection:
        # The whole looks like one source and its folders like another, one of them by chance: the episodes decide.
        candidates = tuple(matches(root, {}, must_load=True))
        is_collection = all(match.source in GENERAL for match in candidates)
    if children and (not candidates or (has_others and is_collection)):
        yield from children
    elif candidates:
        yield Probed(folder=folder, candidates=candidates)


def spec_text(probed: Sequence[Probed], base: Path) -> str:
    """A commented spec whose paths start at `base`. What it writes is outside of the raw data, also where `base` is inside.

    Raises:
        ConfigError: the name of a folder cannot be written as YAML.
    """
    names: set[str] = set()
    beside = _beside(base, [each.folder for each in probed])
    sources = [_source(each, base, names) for each in probed]
    return "\n".join(
        [
            f"# yaml-language-server: $schema={doc_page(SCHEMA)}",
            "# A corpus: `eicorpus plan FILE` shows what there is to do, `eicorpus build FILE` does it.",
            f"# Paths start at the folder of this file. Every key: {doc_page(KEYS)}",
            f"version: {VERSION}",
            f"corpus: {beside}corpus   # created by the first build",
            "",
            "sources:",
            *sources,
            _REST.replace("./report.html", f"{beside}report.html"),
        ]
    )


def _beside(base: Path, folders: Sequence[Path]) -> str:
    """The way from `base` to the nearest folder that is not inside of any of these."""
    base, roots = base.resolve(), {folder.resolve() for folder in folders}
    ups = next(n for n, at in enumerate((base, *base.parents)) if not roots & {at, *at.parents})
    return "../" * ups or "./"


def _source(each: Probed, base: Path, names: set[str]) -> str:
    best = each.candidates[0]
    path = os.path.relpath(each.folder.absolute(), base.absolute())
    if not _is_unicode(path):
        problem = "the name of this folder is not UTF-8, so that no YAML file can have it"
        remedy = "rename it, or pass a link to it that has another name"
        raise ConfigError(problem, remedy=remedy, where=ascii(path))
    lines = [f"  {_name(each.folder, names)}:", f"    path: {_quoted(path)}"]
    if len(each.candidates) > 1:
        lines.append("    # UNSURE: these sources match; keep one:")
        lines += [f"    #   {m.source}: {_comment(m.container)}" for m in each.candidates]
        lines.append(f"    adapter: {best.source}")
    elif best.source in GENERAL:
        lines.append(f"    # UNSURE: any {_comment(best.container)} matches this source")
        lines.append(f"    adapter: {best.source}")
    else:
        kind = f"dataset {_comment(best.dataset)}, {_comment(best.container)}"
        lines.append(f"    adapter: {best.source}   # sure: no other source matches ({kind})")
    adapter = adapter_for(best.source)
    if "mano" in getattr(adapter, "needs", ()):
        lines += [f"    # TO DO: {NEEDS_MANO}", "    # assets: {mano: FOLDER}"]
    return "\n".join(lines)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _comment(text: str) -> str:
    """Names from data stay on one line."""
    return " ".join(re.sub(r"[^\x20-\x7e]", "?", text).split())[:80]


def _quoted(path: str) -> str:
    """A YAML scalar."""
    if re.fullmatch(r"[A-Za-z0-9._/-]*[A-Za-z_][A-Za-z0-9._-]*", path) and "/" in path:
        return path
    escaped = "".join(
        f"\\u{ord(c):04x}" if ord(c) < 0x20 or c in "\x7f\x85\u2028\u2029" else c
        for c in path.replace("\\", "\\\\").replace('"', '\\"')
    )
    return f'"{escaped}"'


def _name(folder: Path, names: set[str]) -> str:
    """A name for a source that is free."""
    plain = re.sub(r"[^a-z0-9_-]+", "_", folder.absolute().name.lower()).strip("_-")[:40]
    is_text = re.match(r"[a-z]", plain) and plain not in YAML_WORDS
    stem = plain if is_text else f"source_{plain}".rstrip("_")
    name = next(
        n for i in range(1, len(names) + 2) if (n := stem if i == 1 else f"{stem}_{i}") not in names
    )
    names.add(name)
    return name


_REST = """
# Measurements of every episode, and the quality policy that makes tiers of them.
# People in videos: `eicorpus models get hand-landmarker`, then measures: {hand_landmarker: FILE}
measures: {}
tiers:
  policy: ei30k   # a name from `eicorpus list policies`, or a YAML file

duplicates: {}

# `rules` rewrites the texts of the sources. Models: `eicorpus caption --help`
captions:
  backend: rules

# Image tokens, which training reads. TO DO: download weights, then remove the # of these lines.
# latents:
#   dinov3:
#     encoder: dinov3_vits16
#     weights: ./models/dinov3-vits16

# What to train on. Each content is a version: corpus/manifests/train opens the newest.
manifests:
  train:
    where: uid NOT IN (SELECT uid FROM redundant)
    split: {val: 0.02, test: 0.02}

reports:
  overview:
    html: ./report.html
"""
