"""What the built-in policy makes of real episodes: as they are, with faults put in, and where they fail by themselves."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from adapters.agibot_world.task_info import read_defects
from ingest.curation.tiers.policy import Tier, load_policy
from tests.curation.real_faults import FAULTS, REPLAYED, Real, broken, real_episodes
from tests.curation.scores import margin
from tests.curation.tier_corpus import Given, decisions, judged, of_view, write_corpus

HANDOVER = "robosuite_two_panda_body"
# What each class of AgiBot's public defect lists is to us without the list: (seen as, what is left unseen).
DEFECT_CLASSES = {
    "Inconsistent_frams_length.jsonl": (
        "`frame_count` at ingestion: pictures and rows are counted in every episode",
        "nothing",
    ),
    "camera_extrinsic.jsonl: eef_out_of_frame_ratio_too_high": (
        "`eef_in_image_share`, a number; no rule of `ei30k` asks for it, since actions are not in the camera's frame",
        "which of calibration and pose is wrong",
    ),
    "camera_extrinsic.jsonl: missing_files:extrinsic": (
        "fact `camera.<name>` and no calibration; the episode stays",
        "nothing",
    ),
    "still_frames.jsonl": (
        "`rest_dead_s`: the still head and tail are segments of their own, `low` by the rule `rest`",
        "stills below 1.5 s",
    ),
}


def real_report(samples: Path, scratch: Path, *, only_largest: bool = False) -> dict[str, Any]:
    """Everything that the samples can tell; of each fault all sizes or the largest one."""
    episodes = list(real_episodes(samples, scratch / "ingested"))
    given = [_given(one) for one in episodes]
    untouched = _codes(scratch / "untouched", given)
    return {
        "untouched": _untouched(episodes, untouched),
        "faults": _of_faults(scratch, episodes, given, untouched, only_largest),
        "handover": _handover(scratch / "handover", episodes, given),
        "defect_lists": defect_lists(samples / "agibot_defect_lists" / "filter_store"),
    }


def _given(one: Real) -> Given:
    return of_view(one.seen, source=one.source)


def _codes(root: Path, given: Sequence[Given]) -> list[list[dict[str, Any]]]:
    return decisions(judged(write_corpus(root, given), load_policy("ei30k")[0]))


def _reasons(segments: Sequence[dict[str, Any]]) -> set[str]:
    return {r["code"] for s in segments for r in s["reasons"] if s["tier"] != "high"}


def _untouched(
    episodes: Sequence[Real], segments: Sequence[Sequence[dict[str, Any]]]
) -> dict[str, Any]:
    """Rules that hold somewhere in episodes as they came, by source."""
    out: dict[str, Any] = {}
    for source in dict.fromkeys(one.source for one in episodes):
        mine = [s for one, s in zip(episodes, segments, strict=True) if one.source == source]
        rules = Counter(code for each in mine for code in _reasons(each))
        tiers = Counter(
            s["tier"] for each in mine for s in each for _ in range(s["end"] - s["start"])
        )
        out[source] = {"of": len(mine), "rules": dict(rules), "timesteps": dict(tiers)}
    return out


def _of_faults(
    scratch: Path,
    episodes: Sequence[Real],
    given: Sequence[Given],
    untouched: Sequence[Sequence[dict[str, Any]]],
    only_largest: bool,
) -> list[dict[str, Any]]:
    """By fault, size and source: found, of those in which its rules were silent before."""
    tried: list[tuple[str, float, int, Real]] = []
    rows: list[Given] = []
    for fault, size, number, one in broken(episodes, only_largest=only_largest):
        tried.append((fault, size, number, replace(one, lumas={})))
        # a task of its own, with the other episodes of the real one around it
        rows.append(_as_task(_given(one), f"{fault} {size} {number}"))
    around = [
        _as_task(each, f"truncation {size} {number}")
        for fault, size, number, _ in tried
        if fault == "truncation"
        for other, each in enumerate(given)
        if other != number and each.row["tasks"] == given[number].row["tasks"]
    ]
    segments = _codes(scratch / "broken", [*rows, *around])
    cells: dict[tuple[str, float, str], list[int]] = {}
    for (fault, size, number, one), found in zip(tried, segments, strict=False):
        codes = FAULTS.get(fault, REPLAYED).codes
        if _reasons(untouched[number]) & set(codes):
            continue
        cell = cells.setdefault((fault, size, one.source), [0, 0])
        cell[0] += _is_found(one, found, codes)
        cell[1] += 1
    return [
        {"fault": f, "size": size, "source": source, "found": hits, "of": of}
        for (f, size, source), (hits, of) in cells.items()
    ]


def _as_task(given: Given, task: str) -> Given:
    return replace(given, row={**given.row, "tasks": [task]})


def _is_found(one: Real, segments: Sequence[dict[str, Any]], codes: Sequence[str]) -> bool:
    start, end = one.wrong
    caught = sum(
        max(0, min(end, s["end"]) - max(start, s["start"]))
        for s in segments
        if any(reason["code"] in codes for reason in s["reasons"])
    )
    return caught >= 0.5 * (end - start)


def _handover(root: Path, episodes: Sequence[Real], given: Sequence[Given]) -> dict[str, Any]:
    """The failed handovers among the others: with their label, and by their motion alone."""
    mine = [i for i, one in enumerate(episodes) if one.view.row["embodiment"] == HANDOVER]
    chosen = [given[i] for i in mine]
    policy, _ = load_policy("ei30k")
    found = judged(write_corpus(root, chosen), policy)
    frame = found.frame.to_table().to_pydict()
    rules = [r for r in policy.rules if r.tier is Tier.LOW and r.code != "failed"]
    score = np.max([margin(policy, rule.when, frame) for rule in rules], axis=0)
    size = np.array(frame["end"]) - np.array(frame["start"])
    row = np.array(frame["row"])
    worth = np.array(
        [np.average(score[row == k], weights=size[row == k]) for k in range(len(mine))]
    )
    failed = np.array([episodes[i].view.row["success"] is False for i in mine])
    pairs = worth[failed][:, None] - worth[~failed][None, :]
    reasons = [_reasons(each) for each in decisions(found)]
    return {
        "failed": int(failed.sum()),
        "of": len(mine),
        "by_label": sum("failed" in r for r, bad in zip(reasons, failed, strict=True) if bad),
        "failed_by_motion": sum(
            bool(r - {"failed"}) for r, bad in zip(reasons, failed, strict=True) if bad
        ),
        "sound_by_motion": sum(bool(r) for r, bad in zip(reasons, failed, strict=True) if not bad),
        "auroc_without_label": float(((pairs > 0) + 0.5 * (pairs == 0)).mean()),
    }


def defect_lists(folder: Path) -> list[dict[str, Any]]:
    """AgiBot's public lists, class by class: how many, what the adapter's option `defects` makes of them, and what we see without."""
    kinds: Counter[str] = Counter()
    aside: Counter[str] = Counter()
    applied = read_defects(folder)
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.strip():
                continue
            said = json.loads(line)
            reason = said.get("reason", "")
            kind = f"{path.name}: {reason}" if reason else path.name
            kinds[kind] += 1
            aside[kind] += applied[said["task"], said["episode"]][0] is not None
    return [
        {
            "class": kind,
            "of": count,
            "known_defect": aside[kind],
            "seen_as": sees,
            "unseen": not_seen,
        }
        for kind, count in kinds.items()
        for sees, not_seen in [DEFECT_CLASSES.get(kind, ("not looked into", "all of it"))]
    ]
