"""Everything that one snapshot has on one episode, from the cache; its series come from its own file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import polars as pl

from ingest.curation.measurements.runner import latest
from ingest.curation.measurements.view import open_view
from ingest.stored_episode import StoredEpisode
from jobs.service.errors import ApiError, not_here
from jobs.service.keeper import Keeper
from jobs.service.media import known_rate, named_cameras
from jobs.service.snapshot_cache import SnapshotCache
from jobs.ui.query_result import json_value
from schemas.catalog import TABLES
from schemas.errors import Code, ConfigError, SourceError

MAX_COPIES = 200
_RUN = "SELECT * FROM runs WHERE run_id = ? LIMIT 1"
_SOURCE = "SELECT * FROM sources WHERE source = ? AND dataset = ? LIMIT 1"
_COPIES = f"""SELECT e.uid, e.source, e.episode_id, d.kind, d.evidence, d.reason FROM duplicates d
    JOIN episodes e USING (episode) WHERE d.cluster = ? AND e.uid <> ? ORDER BY e.uid LIMIT {MAX_COPIES}"""
PROVENANCE = (
    "source",
    "dataset",
    "episode_id",
    "licence",
    "licence_class",
    "allows_redistribution",
    "adapter_version",
    "recipe_digest",
    "options_digest",
    "content_sha256",
    "run_id",
    "raw_files",
    "facts",
)


def row_of(cache: SnapshotCache, uid: str) -> int:
    """The row of an episode.

    Raises:
        ApiError: 410 for one that was erased, 404 for one that was never committed.
    """
    row = cache.row_of(uid)
    if row is not None:
        return row
    if cache.ask("SELECT 1 FROM tombstones WHERE uid = ? LIMIT 1", [uid]):
        raise ApiError(410, "forgotten", f"episode {uid[:200]!r} was erased")
    verdicts = cache.ask("SELECT state, code FROM verdicts WHERE uid = ? LIMIT 1", [uid])
    if verdicts:
        (verdict,) = verdicts
        code = f" [{verdict['code']}]" if verdict["code"] else ""
        raise ApiError(
            404,
            "not_committed",
            f"episode {uid[:200]!r} was not committed: {verdict['state']}{code}",
        )
    raise not_here(f"no episode {uid[:200]!r} in snapshot {cache.snapshot}")


def detail(cache: SnapshotCache, uid: str, prefix: str) -> dict[str, Any]:
    """The fields of `models.EpisodeAnswer` but for the snapshots.

    Raises:
        ApiError: as `row_of`.
    """
    row = row_of(cache, uid)
    episode = cache.episode(row)
    rate_hz = known_rate(episode)
    duplicates = cache.rows_of("duplicates", row)
    cluster = duplicates[0]["cluster"] if duplicates else None
    run = cache.ask(_RUN, [episode["run_id"]])
    source = cache.ask(_SOURCE, [episode["source"], episode["dataset"]])
    tier = cache.columns["tier"].value(row)
    answer: dict[str, Any] = json_value(
        {
            "episode": episode,
            "spans": cache.rows_of("segments", row),
            "captions": cache.rows_of("captions", row),
            "duplicate": duplicates[0] if duplicates else None,
            "copies": cache.ask(_COPIES, [cluster, uid]) if cluster else [],
            "latents": cache.rows_of("latents", row),
            "artifacts": cache.rows_of("artifacts", row),
            "segments": [_segment(each, rate_hz) for each in cache.rows_of("tiers", row)],
            "measurements": _measurements(cache, row),
            "provenance": {
                **{name: episode[name] for name in PROVENANCE},
                "run": run[0] if run else None,
                "source_info": source[0] if source else None,
            },
        }
    )
    return {
        **answer,
        "uid": uid,
        "rate_hz": rate_hz,
        "tier": tier,
        "videos": [_video(uid, camera, prefix) for camera in named_cameras(episode)],
    }


def _segment(row: Mapping[str, Any], rate_hz: float | None) -> dict[str, Any]:
    def seconds(timestep: int | None) -> float | None:
        return None if timestep is None or rate_hz is None else timestep / rate_hz

    return {
        **{name: row[name] for name in ("segment_index", "start", "end", "tier")},
        "start_s": seconds(row["start"]),
        "end_s": seconds(row["end"]),
        "tasks": row["tasks"] or [],
        "reasons": row["reasons"] or [],
    }


def _measurements(cache: SnapshotCache, row: int) -> list[dict[str, Any]]:
    """The newest rows, by name and time."""
    rows = cache.rows_of("measurements", row)
    schema = pl.DataFrame(TABLES["measurements"].empty_table()).schema
    frame = pl.DataFrame([{"uid": "", **each} for each in rows], schema=schema)
    return latest(frame).sort("name", "start", "end").drop("uid").to_dicts()


def _video(uid: str, camera: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {
        "camera": camera["name"],
        "href": f"{prefix}/episodes/{quote(uid, safe='')}/videos/{quote(camera['name'], safe='')}",
        "width": camera["width"],
        "height": camera["height"],
    }


def stored_episode(keeper: Keeper, cache: SnapshotCache, uid: str) -> StoredEpisode:
    """The arrays of an episode, read from its file now.

    Raises:
        ApiError: as `row_of`; 404 where its file has gone, 409 where it is not what the snapshot says.
    """
    corpus, number = keeper.corpus, row_of(cache, uid)
    row = cache.episode(number)
    if row["episode_index"] is None or not row["dataset_path"] or not row["length"]:
        raise not_here("the episode has no place in a dataset")
    keeper.fetch(each for each in cache.rows_of("artifacts", number) if each["kind"] == "data")
    row["cameras"] = named_cameras(row)
    try:
        info = keeper.info(row["dataset_path"], cache.snapshot)
        view = open_view(corpus, row, (), info.features, float(info.fps))
    except SourceError as error:
        status = 409 if error.code == Code.SHAPE_MISMATCH else 404
        raise ApiError(status, error.code, error.message, where=error.where) from error
    except ConfigError as error:
        raise ApiError(
            404, Code.UNREADABLE, error.message, where=error.where, remedy=error.remedy
        ) from error
    return StoredEpisode(
        corpus=corpus,
        snapshot=cache.snapshot,
        row=row,
        latent_rows=(),
        view=view,
        masks=frozenset(n for n, f in info.features.items() if f["dtype"] == "bool"),
    )
