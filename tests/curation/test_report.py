"""The numbers on the page of `eicorpus report` are what SQL says of the corpus, or what can be counted by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ingest.catalog.catalog import Catalog
from ingest.corpus import snapshot
from ingest.curation.tiers.policy import load_policy, policy_from
from ingest.curation.tiers.policy_loader import parse_policy_text
from ingest.report import queries
from ingest.report.queries import BINS
from ingest.report.segments import why
from ingest.report.svg import ThresholdLine, histogram
from ingest.report.thresholds import Bad, bad_ends, thresholds
from tests.curation.lifecycle_corpus import build, filled, publish_manifest
from tests.curation.report_cases import Page, assert_inert, html_of, idle, page_of, tiers_of
from tests.generators import corpus as synthetic


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report") / "corpus"
    root.mkdir()
    (root / "corpus.json").write_text('{"format_version": 1, "uid": "synthetic"}')
    synthetic.commit(root, idle(tiers_of(synthetic.rows_of(16, 5))))
    return root


@pytest.fixture(scope="module")
def page(corpus: Path) -> Page:
    return page_of(corpus)


def test_funnel_and_hours_are_what_sql_says(corpus: Path, page: Page) -> None:
    """By hand too: 16 committed, 5 quarantined; lengths 40 + 7k at 10 Hz."""
    assert [row[:2] for row in page.rows("funnel")] == [
        ["discovered", 21],
        ["committed", 16],
        ["filtered", 0],
        ["quarantined", 5],
        ["failed", 0],
    ]
    total = sum(40 + 7 * k for k in range(16)) / 36000
    left = {name: hours for name, hours, _ in page.rows("hours_left")}
    assert left["committed"] == pytest.approx(total)
    with Catalog.open(corpus) as catalog:
        assert "hours_by_source split" not in page.tables, "no source publishes any"
        for title, key in queries.GROUPS.items():
            if key == "source_split":
                continue
            sql = f"SELECT {key}, count(*), sum(hours) FROM episodes GROUP BY 1"
            wanted = {row[0]: row[1:] for row in catalog.sql(sql).rows()}
            found = {name: (n, h) for name, n, h, _ in page.rows(f"hours_by_{title}")}
            assert found.keys() == wanted.keys()
            for name, (n, h) in wanted.items():
                assert found[name] == (n, pytest.approx(h)), (title, name)
        sql = """SELECT tier, sum((t."end" - t."start") / e.length * e.hours) FROM tiers t JOIN episodes e USING (uid) GROUP BY 1"""
        tiers = dict(catalog.sql(sql).rows())
    found_tiers = {name: hours for name, _, hours, _ in page.rows("hours_by_tier")}
    assert found_tiers == {name: pytest.approx(hours) for name, hours in tiers.items()}
    assert list(found_tiers) == ["high", "low", "actionless", "excluded"]
    assert left["usable for the policy task"] == pytest.approx(tiers["high"])
    assert left["have actions"] == pytest.approx(tiers["high"] + tiers["low"])


def test_what_was_set_aside(corpus: Path, page: Page) -> None:
    with Catalog.open(corpus) as catalog:
        wanted = catalog.sql("SELECT code, source, count(*) FROM quarantine GROUP BY ALL").rows()
    found = [(code, source, n) for _, code, source, n, _ in page.rows("aside")]
    assert sorted(found) == sorted(wanted)
    assert any("[bold]episode" in row[4] for row in page.rows("aside"))


def test_facts_that_bar_the_policy(corpus: Path, page: Page) -> None:
    with Catalog.open(corpus) as catalog:
        sql = "SELECT w, source, count(*) FROM (SELECT unnest(supervision_limits) AS w, source FROM episodes) GROUP BY ALL"
        wanted = catalog.sql(sql).rows()
    assert wanted
    assert sorted((w, s, n) for w, s, n, _ in page.rows("barred")) == sorted(wanted)


def test_reasons_and_captions(page: Page) -> None:
    codes = {(tier, code): n for tier, code, n, _, _ in page.rows("reasons")}
    assert codes == {(t, f"because_{t}"): 8 for t in ("high", "low", "actionless", "excluded")}
    hours = {tier: hours for tier, _, _, hours, _ in page.rows("reasons")}
    by_tier = {name: hours for name, _, hours, _ in page.rows("hours_by_tier")}
    assert hours == {name: pytest.approx(each, abs=1e-3) for name, each in by_tier.items()}
    assert page.rows("captions") == [["synthetic", "ok", 16, 0]]


def test_histograms_count_every_value_and_show_the_thresholds(page: Page) -> None:
    figures = {
        a["data-histogram"]: a["data-counts"] or "" for _, a in page.tags if "data-histogram" in a
    }
    assert list(figures) == ["idle_share"]  # the others of the generator are of stretches
    counts = [int(word) for word in figures["idle_share"].split()]
    values = np.arange(16) / 20
    low, high = np.quantile(values, [0.005, 0.995])
    clipped = np.clip(values, low, high)
    wanted, _ = np.histogram(clipped, bins=BINS, range=(low, high))
    assert (len(counts), sum(counts)) == (BINS, 16)
    assert counts == wanted.tolist()
    [figure] = [a for _, a in page.tags if "data-histogram" in a]
    assert figure["data-looked-at"] == "16"
    assert float(figure["data-low"] or "nan") == pytest.approx(low)
    assert float(figure["data-high"] or "nan") == pytest.approx(high)
    assert "constants" not in page.tables
    drawn = {float(a["data-threshold"] or "nan") for _, a in page.tags if "data-threshold" in a}
    policy, _ = load_policy("ei30k")
    assert drawn == {t.value for t in thresholds(policy) if t.measurement == "idle_share"}
    assert drawn


def test_what_is_the_same_in_all_episodes_is_listed_and_has_no_axis(
    corpus: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(corpus, tmp_path / "copy")
    uids = [row["uid"] for row in synthetic.rows_of(16, 0)["episodes"]]
    row = {"name": "black_share", "unit": "share", "denominator": 1, "version": 1, "value": 0.0}
    rows = [filled("measurements", row | {"uid": uid}) for uid in uids]
    synthetic.commit(copy, {"measurements": rows})
    page = page_of(copy)
    assert [a["data-histogram"] for _, a in page.tags if "data-histogram" in a] == ["idle_share"]
    assert page.rows("constants") == [["black_share", 0, "share", 16, 16, ""]]
    assert "-0.5" not in "".join(page.texts)


def test_the_key_figures_are_the_headline(page: Page) -> None:
    """By hand: 16 of 21 committed, 5 quarantined; a quarter of two segments an episode is high."""
    at = page.texts.index("What is in this corpus")
    said = " ".join("".join(page.texts[at : at + 16]).split())
    for figure in (
        "16 episodes",
        "hours",
        "data sets",
        "of the hours are usable for the policy task",
    ):
        assert figure in said, said
    assert "5 episodes quarantined or failed" in said


def test_no_number_is_both_drawn_and_tabulated(page: Page) -> None:
    """Bars lie in the cells of their table; a histogram has no table of its own."""
    assert "measurements" not in page.tables
    inside = [a for tag_, a in page.tags if tag_ == "svg"]
    cells = sum(a.get("class") == "cell" for a in inside)
    assert cells == 5 + 4 + sum(len(page.rows(t)) for t in page.tables if t.startswith("hours_by"))
    assert len(inside) - cells == 1


def test_worst_and_best_are_ordered_by_the_bad_end(corpus: Path) -> None:
    """`idle_share` is bad when high, and rises with the episode's number: best is episode 0, worst a late one of each tier."""
    ends = bad_ends(thresholds(load_policy("ei30k")[0]))
    assert ends["idle_share"] is Bad.HIGH
    with Catalog.open(corpus) as catalog:
        found = queries.ranges(catalog, 1)
        worst, best = queries.extremes(catalog, found, ends, 8)
    assert [row["tier"] for row in worst] == ["excluded", "actionless", "low"]
    assert [row["episode_id"][-4:] for row in worst] == ["0015", "0014", "0013"]
    scores = [row["score"] for row in best]
    assert best[0]["episode_id"].endswith("0000")
    assert scores[0] == 0
    assert {row["tier"] for row in best} == {"high"}
    assert len({row["source"] for row in best[:3]}) == 3  # by body in turn


def test_bad_ends_of_a_policy() -> None:
    text = """
policy: p
version: 1
about: test
segments: {min_length_s: 1.0, origin: ours}
rules:
  - {code: a, tier: low, text: t, when: {measurement: idle_share, above: 0.5, origin: ours}}
  - {code: b, tier: low, text: t, when: {not: {measurement: sal, below: -6, origin: ours}}}
  - {code: c, tier: low, text: t, when: {any: [{measurement: action_lag_s, above: 1, origin: o}, {measurement: action_lag_s, below: -1, origin: o}]}}
  - {code: d, tier: high, text: t, when: {measurement: action_coverage, at_least: 0.5, origin: ours}}
  - {code: e, tier: low, text: t, when: {measurement: pause_s, of: share, above: 0.5, origin: ours}}
otherwise: {code: rest, tier: high, text: t}
""".replace("sal", "ldlj_4s")
    found = thresholds(policy_from(parse_policy_text(text, "p.yaml")))
    assert [(t.measurement, t.rule, t.value) for t in found][:2] == [
        ("idle_share", "a", 0.5),
        ("ldlj_4s", "b", -6.0),
    ]
    assert bad_ends(found) == {
        "idle_share": Bad.HIGH,
        "ldlj_4s": Bad.HIGH,
        "action_lag_s": Bad.BOTH,
        "action_coverage": Bad.LOW,
    }


def test_the_account_adds_up_or_the_page_says_so(
    corpus: Path, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "21 discovered = 16 committed + 0 filtered + 5 quarantined + 0 failed."
    assert said in page.texts
    wrong = queries.FUNNEL.replace("state = 'quarantined'", "state = 'elsewhere'")
    monkeypatch.setattr(queries, "FUNNEL", wrong.replace("FROM episodes)", "FROM tiers)"))
    [note] = [text for text in page_of(corpus).texts if "discovered =" in text]
    assert note.startswith("THE COUNTS ARE INCONSISTENT")
    assert "THE CATALOG HAS 32 EPISODES" in note


def test_reasons_of_one_rule_are_said_once() -> None:
    given = [
        {"code": "a", "text": "slow: idle above 1", "value": 2.0},
        {"code": "a", "text": "slow: pause above 3", "value": None},
        {"code": "b", "text": "odd", "value": None},
    ]
    assert why(given) == "a: slow: idle above 1 (measured 2), pause above 3; b: odd"


@pytest.mark.parametrize(
    ("low", "high", "near", "wanted"),
    [
        (0.0, 1.0, [], (0.0, 1.0)),
        (0.0, 1.0, [0.5, 1.5], (0.0, 1.5)),  # near: drawn at its place
        (0.0, 1.0, [2.5, -3.0], (0.0, 1.0)),  # far: an arrow at the edge
        (2.0, 2.0, [], (1.0, 3.0)),  # all the same: listed, not drawn
        (0.0, 0.0, [0.5], (0.0, 0.5)),
    ],
)
def test_where_the_bins_are(
    low: float, high: float, near: list[float], wanted: tuple[float, float]
) -> None:
    assert queries._span(low, high, near) == wanted


@pytest.mark.slow
def test_copies_and_manifests(tmp_path: Path) -> None:
    """By hand: `c` is a copy of `a`; the manifest draws from four episodes, two groups of its mixture named by their task."""
    corpus = build(tmp_path)
    folder = publish_manifest(corpus)
    page = page_of(corpus)
    assert [row[3] for row in page.rows("copies")] == [2]
    [row] = page.rows("manifests")
    assert row[:4] == ["m", 5, 4, 4]
    assert [row[:4] for row in page.rows("mixture")] == [
        ["do a", 1, 0.5, 1],
        ["do e", 1, 0.5, 1],
    ]
    facts = folder / "manifest.json"
    facts.write_text(facts.read_text().replace("do a", "<script>alert(1)</script>"))
    assert_inert(html_of(corpus))
    facts.write_text("{")
    page = page_of(corpus)
    assert page.rows("manifests") == [["none"]]
    assert any(
        "Damaged manifests (see `eicorpus manifest verify`): m." in text for text in page.texts
    )


def test_a_threshold_is_drawn_where_its_value_is() -> None:
    """By hand: 340 px from 0 to 2; 0.5 is a quarter, 3 is off to the right, -1 to the left."""
    marks = [
        ThresholdLine(at=0.5, label="a"),
        ThresholdLine(at=3.0, label="b"),
        ThresholdLine(at=-1.0, label="c"),
    ]
    page = Page(histogram([1, 2, 3], 0.0, 2.0, marks, "h"))
    drawn = [a["x1"] for tag_, a in page.tags if tag_ == "line" and a["class"] == "threshold"]
    assert drawn == ["85.0", "340.0", "0.0"]
    assert [text for text in page.texts if text[-1:] in "abc"] == ["a", "▸ b", "◂ c"]
    tall = [float(a["height"] or 0) for tag_, a in page.tags if tag_ == "rect"]
    assert tall == [pytest.approx(110 / 3, abs=0.1), pytest.approx(220 / 3, abs=0.1), 110.0]


def test_the_newest_version_of_a_value_counts(corpus: Path, tmp_path: Path) -> None:
    """The other one is 100 times larger, and came later; an unknown value at the newest version is unknown."""
    copy = shutil.copytree(corpus, tmp_path / "copy")
    uid, other = (row["uid"] for row in synthetic.rows_of(2, 0)["episodes"])
    row = {"name": "idle_share", "unit": "share", "denominator": 1}
    old = filled("measurements", row | {"uid": uid, "version": 1, "value": 100.0})
    unknown = filled("measurements", row | {"uid": other, "version": 3, "value": None})
    synthetic.commit(copy, {"measurements": [old, unknown]})
    with Catalog.open(copy) as catalog:
        [found] = queries.ranges(catalog, 1)
    assert (found["looked_at"], found["measured"]) == (16, 15)
    assert found["high"] < 1


# --- bounds ----------------------------------------------------------------------------------------------------------------------


def test_a_sample_is_stated(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MAX_SAMPLE", 5)
    page = page_of(corpus)
    assert any("A sample: one episode in 4" in text for text in page.texts)
    drawn = [int(a["data-looked-at"] or 0) for _, a in page.tags if "data-looked-at" in a]
    [looked_at] = drawn or [row[4] for row in page.rows("constants")]
    assert 0 < looked_at < 16
    assert page.rows("funnel")[1][:2] == ["committed", 16]  # counts and hours are of all


def test_an_empty_corpus_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "corpus.json").write_text('{"format_version": 1}')
    html = html_of(tmp_path)
    assert_inert(html)
    page = Page(html)
    assert page.rows("funnel")[0][:2] == ["discovered", 0]
    assert any("No measurements yet" in text for text in page.texts)


@pytest.mark.parametrize(
    "gone", ["verdicts", "tiers captions tombstones duplicates policies measurements"]
)
def test_a_snapshot_from_before_a_table_has_a_page(gone: str, corpus: Path, tmp_path: Path) -> None:
    old = shutil.copytree(corpus, tmp_path / "old")
    path = old / snapshot.FOLDER / "00000001.json"
    raw = json.loads(path.read_text())
    for name in gone.split():
        del raw["tables"][name]
    path.write_text(json.dumps(raw))
    page = page_of(old)
    assert page.rows("funnel")[0][1] == (0 if gone == "verdicts" else 21)
