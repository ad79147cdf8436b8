"""What a manifest holds, on a corpus that is only a catalog: rows, texts, splits, weights, and a WHERE that is only an expression."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ingest.catalog.catalog import Catalog
from ingest.catalog.query_process import QueryLimits
from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.curation.captions.select import TextPolicy
from ingest.curation.manifests.manifest import Built, ManifestRequest, build
from ingest.curation.manifests.mixture_text import mixture_from
from ingest.curation.manifests.sql import chosen
from ingest.curation.manifests.tier_rows import tier_rows
from ingest.curation.tiers.tier import commit as commit_tiers
from ingest.storage.local import LocalStorage
from schemas.catalog import TABLES
from schemas.errors import ConfigError
from schemas.manifest import ROW_SCHEMA
from tests.curation.caption.chosen_text import choose_text, covering
from tests.curation.tier_corpus import ALL_TASKS, Given, judged, policy_of, write_corpus
from tests.generators.corpus import commit, uid_of

POLICY = """
policy: simple
version: 1
about: a test
segments: {min_length_s: 2.0, origin: ours, edges: [{segments: subtask}]}
rules:
  - {code: long, tier: high, text: long, when: {fact: duration_s, above: 15, origin: ours}}
  - {code: tiny, tier: excluded, text: tiny, when: {fact: duration_s, below: 5, origin: ours}}
otherwise: {code: rest, tier: low, text: rest}
"""
LIMITS = QueryLimits(threads=2, timeout_s=60)
GIVEN = [
    Given(length=200, row={"split": "train"}),
    Given(length=100, subtasks=[(0, 40), (40, 100)], row={"split": "train"}),
    Given(length=100, row={"split": "val"}),
    Given(length=40, row={"split": "train"}),  # excluded
    Given(length=300, row={"split": "train", "embodiment": "ur5"}),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("manifest") / "c", GIVEN)


@pytest.fixture(scope="module")
def asked(root: Path) -> Iterator[tuple[Catalog, pa.Table]]:
    """The open catalog and its tiers: what a WHERE is asked of."""
    with Catalog.open(root, limits=LIMITS) as catalog:
        yield catalog, tier_rows(catalog, (policy_of(POLICY), POLICY)).rows


def built(root: Path, **request: Any) -> Built:
    asked = ManifestRequest(name="m", policy=(policy_of(POLICY), POLICY))
    with Catalog.open(root, limits=LIMITS) as catalog:
        return build(catalog, replace(asked, **request), "synthetic")


def rows_of(found: Built) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = found.rows.to_pylist()
    return rows


def by_episode(found: Built) -> dict[int, list[dict[str, Any]]]:
    number = {uid_of(k): k for k in range(20)}
    rows = sorted(rows_of(found), key=lambda r: (number[r["uid"]], r["start"]))
    return {k: list(g) for k, g in itertools.groupby(rows, lambda r: number[r["uid"]])}


def test_rows_are_the_segments_that_teach_something_sorted(root: Path) -> None:
    found = built(root)
    assert found.rows.schema == ROW_SCHEMA
    keys = [(row["uid"], row["start"]) for row in rows_of(found)]
    assert keys == sorted(keys)
    spans = {
        k: [(r["start"], r["end"], r["tier"], r["reasons"]) for r in rows]
        for k, rows in by_episode(found).items()
    }
    assert spans == {
        0: [(0, 200, "high", ["long"])],
        1: [(0, 40, "low", ["rest"]), (40, 100, "low", ["rest"])],
        2: [(0, 100, "low", ["rest"])],
        4: [(0, 300, "high", ["long"])],
    }  # fmt: skip
    first = by_episode(found)[0][0]
    assert set(first["tasks"]) == set(ALL_TASKS)
    assert first["content_sha256"] == f"{0:064x}"
    assert (first["caption_id"], first["latents"]) == (None, [])


def test_hours_and_weights_by_hand(root: Path) -> None:
    """Train: 20 s, 4 s, 6 s and 30 s. Each split's weights add up to 1."""
    found = built(root)
    rows = by_episode(found)
    weights = [r["weight"] for k in (0, 1, 4) for r in rows[k]]
    assert weights == pytest.approx([20 / 60, 4 / 60, 6 / 60, 30 / 60], rel=1e-15)
    assert rows[2][0]["weight"] == 1.0
    hours = found.facts.hours
    assert hours["all"] == {"all": 70 / 3600}
    assert hours["tier"] == {"high": 50 / 3600, "low": 20 / 3600}
    assert hours["split"] == {"train": 60 / 3600, "val": 10 / 3600}
    assert hours["task"] == {
        "forward_dynamics": 70 / 3600,
        "inverse_dynamics": 70 / 3600,
        "policy": 50 / 3600,
        "visual_forecasting": 70 / 3600,
    }
    assert hours["embodiment"]["ur5"] == 30 / 3600


def test_a_mixture_moves_the_weights_of_train_only(root: Path) -> None:
    """Half of the draws to the low tier: its 10 s of 60 are read three times."""
    text = "by: [tier]\nrules: [{groups: {tier: low}, share: 0.5}]"
    found = built(root, mixture=mixture_from(text, "m.yaml"))
    rows = by_episode(found)
    assert [r["weight"] for r in rows[1]] == pytest.approx([0.2, 0.3])
    assert [rows[k][0]["weight"] for k in (0, 4)] == pytest.approx([0.2, 0.3])
    assert rows[2][0]["weight"] == 1.0
    groups = {g.group["tier"]: (round(g.epochs, 9), g.share) for g in found.facts.mixture.groups}
    assert groups == {"high": (0.6, 0.5), "low": (3.0, 0.5)}


@pytest.mark.slow
def test_the_digest_is_of_the_question_not_of_the_machine(root: Path, tmp_path: Path) -> None:
    """Other threads, another order of parts, tiers stored or judged anew: the same rows."""
    asked = ManifestRequest(name="m", policy=(policy_of(POLICY), POLICY))
    digests = set()
    for threads in (1, 4):
        with Catalog.open(root, limits=QueryLimits(threads=threads)) as catalog:
            digests.add(build(catalog, asked, "synthetic").facts.rows_sha256)
    other = write_corpus(tmp_path / "c", GIVEN)
    current = snapshot.load(other)
    found = judged(other, policy_of(POLICY))
    commit_tiers(CorpusLayout(other), current, found, POLICY, run_id="r", disk=LocalStorage())
    for policy in (asked.policy, None):
        with Catalog.open(other, limits=LIMITS) as catalog:
            digests.add(build(catalog, replace(asked, policy=policy), "x").facts.rows_sha256)
    assert len(digests) == 1


def test_without_any_policy_it_says_what_to_do(root: Path) -> None:
    with pytest.raises(ConfigError, match="eicorpus tier"):
        built(root, policy=None)


@pytest.mark.parametrize(
    ("where", "episodes"),
    [
        ("", [0, 1, 2, 4]),
        ("length > 150", [0, 4]),
        ("tier = 'low' AND \"start\" = 0 -- and no more", [1, 2]),
        ("list_contains(serves, 'policy')", [0, 4]),
        ("list_contains(reasons, 'rest')", [1, 2]),
        ("uid IN (SELECT uid FROM segments WHERE kind = 'subtask')", [1]),
        ("EXISTS (FROM segments s WHERE s.uid = candidates.uid AND s.kind = 'subtask')", [1]),
        ("embodiment = 'ur5' OR (length = 100 AND split = 'val')", [2, 4]),
        ("list_filter(tasks, lambda t: t LIKE '%towel)%') = [] AND length > 250", [4]),
        ("age('2026-01-02'::TIMESTAMP, '2026-01-01'::TIMESTAMP) = INTERVAL 1 DAY", [0, 1, 2, 4]),
        ("uid = (SELECT first(uid ORDER BY length DESC, uid) FROM episodes)", [4]),
        ("uid IN (SELECT uid FROM episodes ORDER BY length DESC, uid LIMIT 2)", [0, 4]),
        ("uid IN (SELECT uid FROM episodes ORDER BY 1 LIMIT 0)", []),
        ("uid IN (SELECT DISTINCT ON (embodiment = 'ur5') uid FROM episodes ORDER BY length DESC, uid)", [0, 4]),
        ("uid IN (SELECT uid FROM episodes QUALIFY row_number() OVER (ORDER BY length DESC) = 1)", [4]),
        ("uid IN (SELECT uid FROM episodes QUALIFY sum(length) OVER (PARTITION BY embodiment) = 300)", [4]),
        ("list_aggregate([length, 7], 'sum') = 307 AND md5(uid) <> ''", [4]),
    ],
)  # fmt: skip
def test_where_chooses(asked: tuple[Catalog, pa.Table], where: str, episodes: list[int]) -> None:
    number = {uid_of(k): k for k in range(len(GIVEN))}
    found = chosen(*asked, where).rows["uid"].to_pylist()
    assert sorted({number[uid] for uid in found}) == episodes


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("lenght > 3", "columns: uid, source"),
        ("lenght > 3", 'Referenced column "lenght" not found'),
        ("true; DROP TABLE episodes", "Parser Error"),
        ("true) OR (true", "unmatched )"),
        ("true)\n-- \nUNION SELECT * FROM (SELECT 1", "unmatched )"),
        ("true) LIMIT (1", "unmatched )"),
        ("1 FROM episodes", "Parser Error"),
        ("length, uid", "Error"),
        ("sum(length) > 1", "aggregates"),
        ("uid IN (FROM read_text('/etc/passwd'))", "not part of a snapshot"),
        ("uid IN (FROM 'x.parquet')", "no table 'x.parquet'"),
        ("uid IN (FROM glob('*'))", "not allowed"),
        ("uid IN (WITH x AS (COPY (SELECT 1) TO 'f') FROM x)", "not allowed"),
        ("random() < 0.5", "different results on different runs"),
        ("now() > '2026-01-01'::TIMESTAMP", "different results on different runs"),
        ("current_date > '2026-01-01'", "different results on different runs"),
        ("current_user = 'x'", "different results on different runs"),
        ("uid IN (SELECT uid FROM episodes USING SAMPLE 1)", "sample"),
        ("getvariable('corpus') = 'x'", "different results on different runs"),
        ("length > $1", "parameter"),
        ("age('2026-01-01'::TIMESTAMP) > INTERVAL 1 DAY", "age() gives different results on different runs"),
        ("('2026-01-01'::TIMESTAMP).age() > INTERVAL 1 DAY", "age() gives different results"),
        ("current_localtimestamp() IS NULL", "current_localtimestamp() gives different results"),
        ("get_current_timestamp() IS NULL", "get_current_timestamp() gives different results"),
        ("version() = 'v2.0.0'", "version() gives different results on different runs"),
        ("hash(uid) % 2 = 0", "hash() gives different results on different runs"),
        ("(SELECT reservoir_quantile(length, 0.5) FROM episodes) > 1", "depend on chance"),
        ("(SELECT approx_quantile(length, 0.5) FROM episodes) > 1", "depend on chance"),
        ("list_aggregate([length], 'reservoir_quantile', 0.5) > 1", "depend on chance"),
        ("list_aggregate([length], 'approx' || '_top_k', 1) = [1]", "without the name of its aggregate"),
        ("(SELECT first(length) FROM episodes) > 1", "first() without ORDER BY"),
        ("(SELECT last(length ORDER BY 1) FROM episodes) > 1", "last() without ORDER BY"),
        ("(SELECT any_value(length) FROM episodes) > 1", "any_value() without ORDER BY"),
        ("(SELECT arbitrary(length) FROM episodes) > 1", "arbitrary() without ORDER BY"),
        ("(SELECT max_by(length, hours) FROM episodes) > 1", "max_by() without ORDER BY"),
        ("ARRAY(SELECT uid FROM episodes)[1] = uid", "array_agg() without ORDER BY"),
        ("uid IN (SELECT uid FROM episodes LIMIT 1)", "LIMIT or OFFSET without ORDER BY"),
        ("uid IN (SELECT uid FROM episodes LIMIT 10%)", "LIMIT or OFFSET without ORDER BY"),
        ("uid IN (SELECT uid FROM episodes OFFSET 1)", "LIMIT or OFFSET without ORDER BY"),
        ("uid IN (SELECT uid FROM episodes ORDER BY 'a' LIMIT 1)", "without ORDER BY"),
        ("uid IN (FROM (SELECT uid FROM episodes UNION SELECT 'a') LIMIT 2)", "without ORDER BY"),
        ("uid IN (WITH x AS (SELECT uid FROM episodes LIMIT 1) FROM x)", "without ORDER BY"),
        ("uid IN (SELECT DISTINCT ON (source) uid FROM episodes)", "DISTINCT ON without ORDER BY"),
        ("uid IN (SELECT uid FROM episodes QUALIFY row_number() OVER () = 1)", "row_number() OVER a window without"),
        ("uid IN (SELECT uid FROM episodes QUALIFY lag(uid) OVER (PARTITION BY source) = '')", "lag() OVER"),
        ("uid IN (SELECT uid FROM episodes QUALIFY first_value(uid) OVER () = uid)", "first_value() OVER"),
        ("uid IN (SELECT uid FROM episodes WINDOW w AS (PARTITION BY source) QUALIFY ntile(2) OVER w = 1)", "ntile() OVER"),
        ("uid IN (SELECT uid FROM episodes QUALIFY sum(length) OVER (ROWS 1 PRECEDING) > 1)", "sum() OVER"),
        ("uid IN (SELECT a.uid FROM episodes a POSITIONAL JOIN episodes b)", "POSITIONAL JOIN"),
        ("true /* ", "unterminated"),
        ("'", "unterminated"),
        ("length > 3\x00", "NUL"),
        ("(" * 300 + "true" + ")" * 300, "nested"),
    ],
)  # fmt: skip
def test_where_is_an_expression_and_nothing_else(
    asked: tuple[Catalog, pa.Table], where: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        chosen(*asked, where)
    assert said in str(caught.value)


def test_what_may_supervise_nothing_is_left_out_and_counted(tmp_path: Path) -> None:
    given = [Given(length=200), Given(length=100, row={"supervises": ["policy"]}), Given(length=60)]
    root = write_corpus(tmp_path / "c", given)
    found = built(root)
    assert sorted(by_episode(found)) == [0, 2]
    assert (found.facts.num_rows, found.facts.num_serving_nothing) == (2, 1)
    assert found.facts.hours["all"] == {"all": 26 / 3600}
    with pytest.raises(
        ConfigError, match="1 match --where 'length = 100', but are usable for no task"
    ):
        built(root, where="length = 100")


def test_nothing_left_is_told(root: Path) -> None:
    with pytest.raises(
        ConfigError, match="no segments to build from: 5 segments have a tier of policy simple v1"
    ):
        built(root, where="length > 1000")


# --- texts and latents -----------------------------------------------------------------------------------------------------


def filled(table: str, **row: Any) -> dict[str, Any]:
    return dict.fromkeys(TABLES[table].names) | row


def caption(uid: str, name: str, start: int, end: int, text: str, **row: Any) -> dict[str, Any]:
    usual = {"backend": "openai", "outcome": "ok", "run_id": "r1", "checks_failed": []}
    span = {"uid": uid, "caption_id": name, "start": start, "end": end, "text": text}
    return filled("captions", **span, **(usual | row))


def random_captions(rng: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for index in range(60):
        start = int(rng.integers(0, 60))
        row = {
            "backend": rng.choice(["openai", "rules"]),
            "outcome": rng.choice(["ok", "ok", "unclear"]),
            "run_id": rng.choice(["r1", "r2"]),
            "checks_failed": [[], [], ["hand_agreement"], ["too_long"], None][rng.integers(5)],
        }
        end = start + int(rng.integers(1, 100))
        text = str(rng.choice(["say a", "say b", " "]))
        rows.append(
            caption(uid_of(int(rng.integers(0, 3))), f"c{index:02d}", start, end, text, **row)
        )
    return rows


@pytest.mark.parametrize("policy", list(TextPolicy))
def test_sql_chooses_the_text_that_choose_text_would(tmp_path: Path, policy: TextPolicy) -> None:
    root = write_corpus(tmp_path / "c", [Given(length=100, subtasks=[(0, 40)]) for _ in range(3)])
    captions = random_captions(np.random.default_rng(11))
    commit(root, {"captions": captions})
    rows = rows_of(built(root, text_policy=policy))
    assert len(rows) == 6
    source = rows_of(built(root, text_policy=TextPolicy.SOURCE))
    for row in rows:
        mine = [c for c in captions if c["uid"] == row["uid"]]
        own = next(
            r["text"] for r in source if (r["uid"], r["start"]) == (row["uid"], row["start"])
        )
        want = choose_text(policy, own, covering(mine, row["start"], row["end"]))
        assert (row["text"], row["caption_id"]) == (want.text, want.caption_id)


def test_the_source_text_is_that_of_most_of_the_segment(tmp_path: Path) -> None:
    """One instruction: that. Several: the sub-task if sub-tasks hold for half of it, else the task that holds longest."""
    tasks = [["whole", "sub a"], ["one", "two", "sub a"], ["only"], ["", " "]]
    tasks += [["whole", "sub a"] for _ in range(3)]
    given = [Given(length=100, row={"tasks": texts}) for texts in tasks]
    root = write_corpus(tmp_path / "c", given)
    said = [
        [("subtask", 0, 90, "sub a"), ("task", 0, 100, "whole")],
        [("subtask", 0, 48, "sub a"), ("task", 0, 45, "one"), ("task", 45, 100, "two")],
        [("task", 0, 10, "only")],
        [("task", 0, 100, " ")],
        # 40 timesteps and not 80; 48 of three rows, one of them inside another; 50
        [("subtask", 0, 40, "sub a"), ("subtask", 0, 40, "sub a"), ("task", 0, 100, "whole")],
        [("subtask", 0, 40, "sub a"), ("subtask", 5, 9, "sub a"), ("subtask", 30, 48, "sub a"), ("task", 0, 100, "whole")],
        [("subtask", 0, 40, "sub a"), ("subtask", 38, 50, "sub a"), ("task", 0, 100, "whole")],
    ]  # fmt: skip
    rows = [
        filled("segments", uid=uid_of(k), segment_index=5 + i, kind=kind, start=a, end=b, text=text)
        for k, spans in enumerate(said)
        for i, (kind, a, b, text) in enumerate(spans)
    ]
    commit(root, {"segments": rows})
    plain = POLICY.replace("edges: [{segments: subtask}]", "edges: []")
    found = by_episode(built(root, policy=(policy_of(plain), plain), text_policy=TextPolicy.SOURCE))
    want = ["sub a", "two", "only", "", "whole", "whole", "sub a"]
    assert [found[k][0]["text"] for k in range(7)] == want


def test_latents_are_the_newest_of_each_camera_and_encoder(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "c", GIVEN)

    def latent(
        k: int, camera: str, path: str, run_id: str, encoder: str = "dino"
    ) -> dict[str, Any]:
        row = {"camera": camera, "encoder_id": encoder, "path": path, "sha256": path[::-1]}
        return filled("latents", uid=uid_of(k), run_id=run_id, **row)

    given = [
        latent(1, "wrist", "w", "r1"),
        latent(1, "head", "old", "r1"),
        latent(1, "head", "new", "r2"),
        latent(1, "head", "a", "r1", encoder="alpha"),
        latent(4, "head", "x", "r1"),
        latent(3, "head", "of the excluded one", "r1"),
    ]
    commit(root, {"latents": given})
    rows = by_episode(built(root))
    expected = [("alpha", "head", "a"), ("dino", "head", "new"), ("dino", "wrist", "w")]
    for row in rows[1]:
        found = [(x["encoder_id"], x["camera"], x["path"]) for x in row["latents"]]
        assert found == expected
        assert all(x["sha256"] == x["path"][::-1] for x in row["latents"])
    assert [x["path"] for x in rows[4][0]["latents"]] == ["x"]
    assert rows[0][0]["latents"] == rows[2][0]["latents"] == []


def test_excluded_rows_are_there_when_asked_for(root: Path) -> None:
    with Catalog.open(root, limits=LIMITS) as catalog:
        policy = (policy_of(POLICY), POLICY)
        every = tier_rows(catalog, policy, with_excluded=True).rows.to_pylist()
        taught = tier_rows(catalog, policy).rows.to_pylist()
    excluded = [row for row in every if row["tier"] == "excluded"]
    assert [(r["uid"], r["reasons"]) for r in excluded] == [(uid_of(3), ["tiny"])]
    assert len(taught) == len(every) - 1


def test_weights_of_many_segments_add_up(tmp_path: Path) -> None:
    given = [Given(length=60 + k, row={"split": "train"}) for k in range(97)]
    root = write_corpus(tmp_path / "c", given)
    text = "by: [text, source]\ntemperature: 0.3\nmax_epochs: 2\n"
    found = built(root, mixture=mixture_from(text, "m"))
    weights = found.rows["weight"].to_pylist()
    assert math.fsum(weights) == pytest.approx(1, abs=1e-12)
    assert min(weights) > 0
