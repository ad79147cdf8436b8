"""What a manifest asks the catalog: which segments, their texts, their latents. Rows come with the number of their segment.

`candidates` is what `--where` chooses from: every column of `episodes`, and of the segment `start`, `"end"`, `tier`, `serves` (what the tier lets
it supervise) and `reasons`.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ingest.catalog.catalog import Catalog
from ingest.corpus.column_checks import check_numbers
from ingest.curation.captions.offline_backends import RulesBackend
from ingest.curation.captions.select import ADVISORY, MIN_OVERLAP, TextPolicy
from schemas.catalog import TABLES
from schemas.errors import ConfigError
from schemas.manifest import LATENT

SEGMENT_COLUMNS = ("start", "end", "tier", "serves", "reasons")
_CANDIDATES = """(SELECT e.*, t."start", t."end", t.tier, s.list AS serves, r.list AS reasons, t.tasks AS "task code",
        t.reasons AS "reason code"
    FROM tier_rows t JOIN episodes e ON e.uid = t.uid JOIN tier_tasks s ON s.code = t.tasks
        JOIN tier_reasons r ON r.code = t.reasons) AS candidates"""
_CHOSEN = """SELECT uid, "start", "end", source, dataset, embodiment, dataset_path, episode_index, tier, "task code" AS tasks,
    "reason code" AS reasons, split, coalesce(source_split, '') AS source_split, licence_class, content_sha256, length, duration_s, len(tasks) AS num_texts,
    coalesce(list_filter(tasks, lambda x: trim(x) <> '')[1], '') AS first_text
    FROM {candidates} WHERE ({where})"""
# The text that holds longest: of a sub-task if sub-tasks hold for half of the segment, else of the whole task.
# `steps`: of the union of the rows of one text, `new`: what a row adds to those before it; rows may overlap.
_SOURCE_TEXT = """SELECT n, text FROM (
    SELECT n, kind, text, "start", segment_index, size, sum(new) OVER (PARTITION BY n, kind, text) AS steps FROM (
        SELECT *, greatest(b - greatest(a, coalesce(max(b) OVER (PARTITION BY n, kind, text ORDER BY a, b
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), a)), 0) AS new
        FROM (SELECT k.n, s.kind, s.text, s."start", s.segment_index, k."end" - k."start" AS size,
                greatest(s."start", k."start") AS a, least(s."end", k."end") AS b
            FROM keys k JOIN segments s ON s.uid = k.uid AND s."start" < k."end" AND s."end" > k."start"
            WHERE s.kind IN ('task', 'subtask') AND trim(s.text) <> '' AND k.num_texts > 1)))
    QUALIFY row_number() OVER (PARTITION BY n ORDER BY
        CASE WHEN kind = 'subtask' THEN CASE WHEN 2 * steps >= size THEN 0 ELSE 2 END ELSE 1 END,
        steps DESC, "start" DESC, segment_index DESC) = 1"""
# The captions that `captions.select.is_usable` lets through, best covering first; tests/curation/caption/chosen_text.py is the reference.
_CAPTION = """SELECT n, text, caption_id FROM (
    SELECT k.n, c.text, c.caption_id, c.run_id, c.backend = $rules AS is_rule, c."end" - c."start" AS size,
        least(c."end", k."end") - greatest(c."start", k."start") AS steps
    FROM keys k JOIN captions c ON c.uid = k.uid
        AND least(c."end", k."end") - greatest(c."start", k."start") >= $share * (k."end" - k."start")
    WHERE c.outcome = 'ok' AND trim(c.text) <> ''
        AND len(list_filter(coalesce(c.checks_failed, []), lambda x: NOT list_contains($advisory, x))) = 0)
    QUALIFY row_number() OVER (PARTITION BY n ORDER BY is_rule = $rules_first DESC, steps DESC, size, run_id DESC, caption_id DESC) = 1"""
# The newest correction by a person that covers enough of the segment.
_FIXED = """SELECT k.n, f.value AS text, f.review_id AS caption_id
    FROM keys k JOIN fixes f ON f.uid = k.uid AND (f."start" IS NULL
        OR least(f."end", k."end") - greatest(f."start", k."start") >= $share * (k."end" - k."start"))
    QUALIFY row_number() OVER (PARTITION BY k.n ORDER BY f.at DESC, f.review_id DESC) = 1"""
_LATENTS = """SELECT uid, camera, encoder_id, run_id, path, sha256, pack_offset,
    CASE WHEN pack_offset IS NULL THEN NULL ELSE num_bytes END AS num_bytes FROM latents WHERE uid IN (SELECT uid FROM keys)"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chosen:
    """[S] segments with what is known of their episodes. Their `tasks` and `reasons` are places in `lists`, of which there are few."""

    rows: pa.Table
    lists: Mapping[str, pa.Array]  # "tasks", "reasons" -> the different lists
    num_serving_nothing: int  # left out: the expression holds, but they may supervise no task


def chosen(catalog: Catalog, tiers: pa.Table, where: str) -> Chosen:
    """The segments that the expression `where` (of a stranger; empty for all) holds for, and that may supervise anything.

    Raises:
        ConfigError: it is no expression, or not one over these columns; the message is DuckDB's, and the columns follow.
        DamagedCatalog: a number of a row is out of range.
    """
    lists = {}
    for name in ("tasks", "reasons"):
        codes, lists[name] = _coded(tiers[name])
        tiers = tiers.set_column(tiers.column_names.index(name), name, codes)
        numbers = pa.array(np.arange(len(lists[name]), dtype=np.int32))
        table = pa.table([numbers, lists[name]], names=["code", "list"])
        catalog.register(f"tier_{name}", table)
    try:
        expression = catalog.expression(where, "candidates") if where.strip() else "TRUE"
        catalog.register("tier_rows", tiers)
        # Line breaks around it: a comment in it must not swallow the bracket.
        sql = _CHOSEN.format(candidates=_CANDIDATES, where=f"\n{expression}\n")
        rows = catalog.arrow_of_stranger(sql)
    except ConfigError as error:
        have = ", ".join((*TABLES["episodes"].names, *SEGMENT_COLUMNS))
        raise ConfigError(
            f"{error.message}\ncolumns: {have}", remedy=error.remedy, where="--where"
        ) from error
    finally:
        catalog.unregister("tier_rows")
    check_numbers("episodes", rows)
    serving = _serving(rows, lists["tasks"])
    return Chosen(rows=serving, lists=lists, num_serving_nothing=len(rows) - len(serving))


def _serving(rows: pa.Table, tasks: pa.Array) -> pa.Table:
    """Those whose list of tasks has something in it."""
    lengths = pc.fill_null(pc.list_value_length(tasks), 0)
    if pc.all(pc.greater(lengths, 0)).as_py():
        return rows
    return rows.filter(pc.greater(lengths, 0).take(rows["tasks"].combine_chunks()))


def _coded(lists: pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
    """[S] which list it is, and the different lists: a million lists of texts are three, or thirty."""
    whole = lists.combine_chunks()
    encoded = pc.binary_join(whole, "\x1f").dictionary_encode()
    codes = pc.fill_null(encoded.indices, 0)
    _, first = np.unique(codes.to_numpy(zero_copy_only=False), return_index=True)
    return codes, whole.take(pa.array(first))


def texts_of(
    catalog: Catalog, rows: pa.Table, policy: TextPolicy, fixes: pa.Table
) -> tuple[pa.Array, pa.Array]:
    """[S] the instruction of each segment ("" where nothing says any), and the caption it is from (NULL: the source's own).

    Args:
        fixes: reviews `caption_fix` in force; they win over captions, and have their review_id for a caption_id.
    """
    catalog.register("keys", _keys(rows))
    text, none = rows["first_text"].combine_chunks(), pa.nulls(len(rows), pa.string())
    if pc.any(pc.greater(rows["num_texts"], 1)).as_py():
        text = _placed(catalog.arrow(_SOURCE_TEXT), "text", text)
    if policy is TextPolicy.SOURCE:
        return text, none
    tables = {
        "rules": RulesBackend.id,
        "rules_first": policy is TextPolicy.BEST,
        "share": MIN_OVERLAP,
        "advisory": sorted(ADVISORY),
    }
    captions = catalog.arrow(_CAPTION, tables)
    text, caption_id = _placed(captions, "text", text), _placed(captions, "caption_id", none)
    if not fixes.num_rows:
        return text, caption_id
    catalog.register("fixes", fixes)
    fixed = catalog.arrow(_FIXED, {"share": MIN_OVERLAP})
    return _placed(fixed, "text", text), _placed(fixed, "caption_id", caption_id)


def latent_files(catalog: Catalog, rows: pa.Table) -> pa.Table:
    """Every file of latents of the episodes of `rows`, older ones too."""
    catalog.register("keys", _keys(rows))
    return catalog.arrow(_LATENTS)


def latents_of(rows: pa.Table, files: pa.Table) -> pa.Array:
    """[S] the latents of each segment's episode, by encoder and camera, the newest of each; `rows` are sorted by uid.

    By numbers, not by DuckDB's list(): a million lists of structs take that eighteen seconds of a core and three gigabytes.
    """
    uids = pl.Series("uid", rows["uid"])
    episode = (uids != uids.shift(1)).fill_null(value=True).cum_sum().to_numpy().astype(
        np.int64
    ) - 1
    places = pl.DataFrame({"uid": uids.filter(np.diff(episode, prepend=-1) > 0)})
    kind = pl.DataFrame(files.select(["uid", "camera", "encoder_id"])).join(
        places.with_row_index("episode"), on="uid", how="left", maintain_order="left"
    )
    ordered = _newest(kind.drop("uid"), files)
    counts = np.bincount(ordered["episode"].to_numpy(), minlength=len(places))
    first = np.concatenate([[0], np.cumsum(counts)])
    lengths = counts[episode]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    inside = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    at = ordered["row"].to_numpy()[np.repeat(first[episode], lengths) + inside]
    parts = taken(files.select([field.name for field in LATENT]), pa.array(at))
    structs = pa.StructArray.from_arrays([_one(c) for c in parts.columns], fields=list(LATENT))
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), structs)


def _newest(kind: pl.DataFrame, files: pa.Table) -> pl.DataFrame:
    """row and episode of the newest file of each (episode, encoder_id, camera), in this order."""
    key = ["episode", "encoder_id", "camera"]
    ranked = kind.with_row_index("row").with_columns(
        pl.col(name).replace_strict(_ranks(kind[name]), return_dtype=pl.UInt32) for name in key[1:]
    )
    is_first = pl.any_horizontal(pl.col(name) != pl.col(name).shift(1) for name in key)
    is_first = is_first.fill_null(value=True)
    ordered = ranked.sort(key)
    if not ordered.select(is_first.all()).item():
        files_made = pl.DataFrame(files.select(["run_id", "path"]))
        ordered = pl.concat([ranked, files_made], how="horizontal").sort(
            *key, "run_id", "path", descending=[False] * 3 + [True] * 2
        )
    return ordered.filter(is_first).select("row", "episode")


def _ranks(texts: pl.Series) -> dict[str, int]:
    """The place of each different text in the alphabet."""
    return {text: rank for rank, text in enumerate(texts.unique().sort().to_list())}


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def taken(table: pa.Table, order: pa.Array) -> pa.Table:
    """`table.take(order)`, the columns side by side: Arrow itself uses one core."""
    with ThreadPoolExecutor() as pool:
        columns = list(pool.map(lambda name: table[name].take(order), table.column_names))
    return pa.table(columns, names=table.column_names)


def _keys(rows: pa.Table) -> pa.Table:
    """What the queries join on: [S] with the number of each segment."""
    number = pa.array(np.arange(len(rows), dtype=np.int64))
    names = ("uid", "start", "end", "num_texts")
    return pa.table([number, *(rows[name] for name in names)], names=["n", *names])


def _placed(rows: pa.Table, column: str, default: pa.Array) -> pa.Array:
    """[S] `column` of the rows that were found where they belong, `default` elsewhere."""
    if not len(rows):
        return default
    at = np.full(len(default), -1, dtype=np.int64)
    at[rows["n"].to_numpy()] = np.arange(len(rows))
    values = rows[column].combine_chunks().cast(default.type)
    return pc.if_else(pa.array(at >= 0), values.take(pa.array(at, mask=at < 0)), default)
