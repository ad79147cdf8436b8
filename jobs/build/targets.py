"""The targets of a corpus spec and their order: a target is built after those whose results it reads, and after those that its `after` names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from ingest.curation.tiers.policy_loader import Key, PolicyText
from ingest.export.format_names import ExportFormat
from jobs.build.spec import SECTIONS, ExportSpec, Spec
from schemas.errors import ConfigError
from schemas.invalid import did_you_mean

# Section -> the sections whose results its targets read.
READS: dict[str, tuple[str, ...]] = {
    "sources": (),
    "measures": ("sources",),
    "tiers": ("sources", "measures"),
    "duplicates": ("sources", "measures", "tiers"),  # of copies, the one of the better tier is kept
    "captions": ("sources",),
    "latents": ("sources",),
    "text_features": ("sources", "captions"),
    "manifests": (
        "sources",
        "measures",
        "tiers",
        "duplicates",
        "captions",
        "latents",
        "text_features",
    ),
    "exports": tuple(
        name for name in SECTIONS if name not in ("exports", "manifests", "reports", "verify")
    ),
    "reports": tuple(name for name in SECTIONS if name not in ("exports", "reports", "verify")),
    "verify": tuple(name for name in SECTIONS if name != "verify"),
}


def section_of(target: str) -> str:
    return target.partition(".")[0]


def key_of(target: str) -> Key:
    """The way to a target in the file."""
    return tuple(target.split("."))


def needs_of(parts: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Target -> the targets that are built before it."""
    names = list(parts)
    return {
        name: tuple(
            other
            for other in names
            if section_of(other) in READS[section_of(name)]
            or _is_exported(part, other, parts)
            or any(_means(word, other) for word in part.after)
        )
        for name, part in parts.items()
    }


def _is_exported(part: Any, other: str, parts: Mapping[str, Any]) -> bool:
    """Datasets are made of a manifest; the catalog is exported with the record of datasets."""
    if not isinstance(part, ExportSpec):
        return False
    if part.to is not ExportFormat.ICEBERG:
        return other == f"manifests.{part.manifest}"
    export = parts[other]
    return isinstance(export, ExportSpec) and export.to is not ExportFormat.ICEBERG


def ordered(spec: Spec, text: PolicyText) -> dict[str, tuple[str, ...]]:
    """Every target with what is built before it, in an order to build them in.

    Raises:
        ConfigError: `after` names no target, or a cycle; with line and column.
    """
    parts = spec.parts()
    if problems := list(_unknown(parts, text)):
        raise ConfigError("\n".join(problems))
    needs = needs_of(parts)
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        cycle = [*error.args[1]][::-1]
        first = next(name for name in cycle if parts[name].after)
        place = text.place((*key_of(first), "after"))
        raise ConfigError(
            f"{place}: targets wait for each other: {' after '.join(cycle)}"
        ) from error
    rank = {name: place for place, name in enumerate(parts)}
    return {name: needs[name] for name in _stable(order, needs, rank)}


def _stable(
    order: Sequence[str], needs: Mapping[str, Sequence[str]], rank: Mapping[str, int]
) -> list[str]:
    """The same order every time: of what may come next, the first in the file."""
    left, out = sorted(order, key=lambda name: rank[name]), list[str]()
    while left:
        following = next(name for name in left if set(needs[name]) <= set(out))
        left.remove(following)
        out.append(following)
    return out


def chosen(needs: Mapping[str, Sequence[str]], words: Iterable[str]) -> list[str]:
    """The targets that the words name, with what is built before them; all without any.

    Raises:
        ConfigError: a word names no target.
    """
    selected: set[str] = set()
    for word in words:
        named = [name for name in needs if _means(word, name)]
        if not named:
            raise ConfigError(f"no target {word!r}{_nearest(word, needs)}", where="TARGET")
        selected.update(named)
    if not selected:
        return list(needs)
    for name in reversed(list(needs)):
        if name in selected:
            selected.update(needs[name])
    return [name for name in needs if name in selected]


def _unknown(parts: Mapping[str, Any], text: PolicyText) -> Iterator[str]:
    for name, part in parts.items():
        for index, word in enumerate(part.after):
            place = text.place((*key_of(name), "after", index))
            if not any(_means(word, other) for other in parts):
                yield f"{place}: no target {word!r}{_nearest(word, parts)} (after)"
            elif word == name:
                yield f"{place}: targets wait for each other: {name} after {name}"


def _means(word: str, target: str) -> bool:
    return word in (target, section_of(target))


def _nearest(word: str, names: Iterable[str]) -> str:
    return did_you_mean(word, [*names, *map(section_of, names)])
