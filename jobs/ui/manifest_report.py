"""Text output of manifests and of the difference between two, with a warning for manifests that were built before `eicorpus latents`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ingest.catalog.next_command import next_command
from ingest.corpus import snapshot
from ingest.curation.manifests.diff import ManifestDiff
from ingest.latents.plan import encoder_states
from jobs.ui.output import stdout, table, warn
from schemas.errors import ConfigError
from schemas.manifest import ManifestFacts, Statistics, has_latents, load_facts, load_rows
from schemas.manifest_rebuild import MIXTURE_FILE, rebuild_command
from schemas.source_split import HELD_OUT


def warn_of_no_latents(facts: ManifestFacts, corpus: Path) -> None:
    """On standard error, when the manifest is built."""
    problem = "no segment has latents, so `eicorpus train` refuses this manifest"
    warn(f"{problem}; to train, {_repair(facts, corpus)}")


def refuse_without_latents(folder: Path) -> None:
    """Before anything heavy is imported or read.

    Raises:
        ConfigError: no row has image latents, or the folder is not a manifest.
    """
    facts = load_facts(folder)
    if not has_latents(load_rows(folder, ["latents"])):
        problem = "no segment has image latents: the manifest was built before they existed, and manifests are immutable"
        repair = _repair(facts, folder.absolute().parent.parent)
        raise ConfigError(problem, remedy=repair, where=f"manifest {facts.name}")


def _repair(facts: ManifestFacts, corpus: Path) -> str:
    """What to run: nothing but the manifest where the corpus has latents of every video by now."""
    name = f"{facts.name}_with_latents"
    rebuild = f"`{rebuild_command(facts, corpus, name=name)}`"
    if facts.mixture.text:
        rebuild += f" ({MIXTURE_FILE}: the text at `mixture.text` of {facts.name}'s manifest.json)"
    states = encoder_states(corpus, snapshot.load(corpus))
    encoders = [each.encoder_id for each in states if not (each.missing or each.other_video)]
    if encoders:
        return f"run {rebuild}: the corpus now has latents of {' and '.join(encoders)}"
    encode = next_command("latents images --encoder dinov3_vits16 --weights FOLDER", corpus)
    others = "FOLDER holds the downloaded model; `eicorpus list encoders` lists other encoders"
    return f"run `{encode}` ({others}), then {rebuild}"


SHOWN_GROUPS = 50


def as_object(facts: ManifestFacts) -> dict[str, Any]:
    """A manifest's page without its longest parts."""
    whole = facts.model_dump(mode="json", exclude={"statistics", "policy"})
    statistics = facts.statistics
    return whole | {
        "policy": {"name": facts.policy.name, "digest": facts.policy.digest},
        "statistics": statistics
        and {
            body: {"segments": normalisation.segments, "elements": len(normalisation.names)}
            for body, normalisation in statistics.embodiments.items()
        },
    }


def show_facts(facts: ManifestFacts, corpus: Path) -> None:
    """Hours of everything, the table of effective epochs, and what statistics there are."""
    lines = [
        f"{facts.name}: {facts.num_rows:,} segments of {facts.num_episodes:,} episodes, snapshot {facts.snapshot}",
        f"policy {facts.policy.name} ({facts.policy.digest}), split by {facts.split.by}, text {facts.text_policy}",
    ]
    lines += [f"where {facts.where}"] if facts.where else []
    if facts.num_serving_nothing:
        lines.append(f"left out: {facts.num_serving_nothing:,} segments that supervise no task")
    for line in lines:
        stdout.print(line, markup=False, highlight=False)
    _show_source_splits(facts)
    rows = [[by, key, hours] for by, by_key in facts.hours.items() for key, hours in by_key.items()]
    stdout.print(table("", ["by", "group", "hours"], rows))
    groups = sorted(facts.mixture.groups, key=lambda g: -g.share)
    shown = [
        [", ".join(g.group.values()) or "all", g.hours, g.share, g.epochs, g.rule]
        for g in groups[:SHOWN_GROUPS]
    ]
    title = f"\nmixture: {facts.mixture.draw_hours:,.3f} h sampled from train"
    stdout.print(table(title, ["group", "hours", "share", "epochs", "limited by"], shown))
    if len(groups) > SHOWN_GROUPS:
        stdout.print(f"and {len(groups) - SHOWN_GROUPS} more groups; --json lists all")
    if facts.statistics is not None:
        _count_statistics(
            facts.statistics, next_command(f"manifest show {facts.name} --statistics", corpus)
        )


def _show_source_splits(facts: ManifestFacts) -> None:
    """Where each split that a source publishes went, and what the options did with it."""
    if not facts.source_splits:
        return
    rows = [
        [c.source_split or "(none)", c.split, c.episodes, c.segments, c.hours]
        for c in facts.source_splits
    ]
    columns = ["source split", "split", "episodes", "segments", "hours"]
    stdout.print(table("\nsource splits", columns, rows))
    trained = sum(
        c.episodes for c in facts.source_splits if c.source_split in HELD_OUT and c.split == "train"
    )
    if trained:
        note = f"{trained:,} episodes of a source's val or test split are in train (--ignore-source-splits)"
        stdout.print(note, markup=False, highlight=False)


def _count_statistics(statistics: Statistics, more: str) -> None:
    title = f"\nnormalisation of {statistics.representation}: {more}"
    rows = [
        [
            body,
            normalisation.segments,
            max(normalisation.count, default=0),
            len(normalisation.names),
        ]
        for body, normalisation in statistics.embodiments.items()
    ]
    stdout.print(table(title, ["embodiment", "segments", "timesteps", "elements"], rows))


def show_statistics(statistics: Statistics) -> None:
    """Every element of every embodiment, but those of hand keypoints."""
    for embodiment, normalisation in statistics.embodiments.items():
        title = f"\n{embodiment}: {statistics.representation}, {normalisation.segments:,} segments"
        values = zip(
            normalisation.names,
            normalisation.count,
            normalisation.mean,
            normalisation.std,
            normalisation.q01,
            normalisation.q99,
            strict=True,
        )
        cells = [[name, n, *map(_short, rest)] for name, n, *rest in values]
        kept = [row for row in cells if "hand_" not in row[0]]  # 63 numbers a hand are not readable
        stdout.print(table(title, ["element", "count", "mean", "std", "q01", "q99"], kept))


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def difference_as_object(difference: ManifestDiff, limit_rows: int) -> dict[str, Any]:
    return {
        "same": difference.same,
        "built_from": {name: list(pair) for name, pair in difference.facts.items()},
        "summary": difference.summary().to_dicts(),
        "num_rows": len(difference.rows),
        "rows": difference.rows.head(limit_rows).to_dicts(),
    }


def show_difference(difference: ManifestDiff, limit_rows: int) -> None:
    for name, (before, after) in difference.facts.items():
        stdout.print(
            f"{name}: {before or '(none)'} -> {after or '(none)'}", markup=False, highlight=False
        )
    if not len(difference.rows):
        stdout.print(f"no difference: {difference.same:,} segments")
        return
    summary = difference.summary()
    stdout.print(table("", summary.columns, [list(row) for row in summary.iter_rows()]))
    rows = [
        [cell if cell is not None else "" for cell in row]
        for row in difference.rows.head(limit_rows).iter_rows()
    ]
    stdout.print(table("", difference.rows.columns, rows))
    stdout.print(
        f"{len(rows)} of {len(difference.rows):,} rows shown; {difference.same:,} segments are equal"
    )
