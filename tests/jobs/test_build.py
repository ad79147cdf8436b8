"""`eicorpus plan` and `eicorpus build`: what is built, what is left alone, and why."""

from __future__ import annotations

import json
import os
import resource
import shutil
from pathlib import Path

import pytest

from adapters.containers.raw_file import raw_file_of
from ingest.catalog.catalog import Catalog
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.reviews import submit
from ingest.corpus.snapshot import load as load_snapshot
from jobs.build.records import one_build
from jobs.build.stage import BuildContext
from jobs.demo.raw import egodex
from jobs.stages.report import run_report
from jobs.stages.resources import Resources
from schemas.episode import RawFile
from schemas.errors import ConfigError
from tests.faults.toy import write_toy
from tests.ingest.test_reviews import review
from tests.jobs.build_cases import (
    POLICY,
    SPEC,
    build,
    inodes,
    invoke,
    newest,
    plan,
    refused,
    state,
    write_spec,
)

KINDS = {"a": "good", "b": "good", "c": "good", "d": "quarantine"}
AFTER_POLICY = ["tiers", "duplicates", "manifests.train", "reports.overview", "verify"]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once")
    build(write_spec(folder, KINDS))
    return folder


@pytest.fixture
def built(once: Path, tmp_path: Path) -> Path:
    """The spec of a corpus that is up to date, in a folder of its own; times are kept."""
    folder = tmp_path / "copy"
    shutil.copytree(once, folder, symlinks=True)
    return folder / "corpus.yaml"


def test_a_plan_touches_nothing_and_a_build_makes_everything(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, KINDS)
    before = inodes(tmp_path)
    first = plan(spec)
    assert inodes(tmp_path) == before
    assert {line["state"] for line in first.values()} == {"missing"}
    assert (first["sources.toy"]["to_do"], first["measures"]["to_do"]) == (4, 4)
    assert first["sources.toy"]["estimated_s"] is None
    done = build(spec)
    assert done["built"] == list(first)
    assert done["adds_up"]
    source = done["targets"][0]
    assert (source["total"], source["done"], source["left_out"]) == (4, 3, 1)
    for line in done["targets"]:
        parts = ("up_to_date", "done", "left_out", "failed", "left")
        assert line["total"] == sum(line[part] for part in parts), line
    assert set(state(spec).values()) == {"up to date"}


def test_a_second_build_writes_nothing(built: Path) -> None:
    before = inodes(built.parent)
    done = build(built)
    assert done["built"] == []
    changed = {path for path, each in inodes(built.parent).items() if before.get(path) != each}
    assert changed <= {"corpus/build/.builder"}
    assert [line["outcome"] for line in done["targets"]] == ["up to date"] * len(done["targets"])
    assert {line["done"] for line in done["targets"]} == {0}
    assert done["targets"][0]["total"] == 4


def test_a_changed_threshold_makes_tiers_and_what_follows_and_no_video(built: Path) -> None:
    version, corpus = newest(built), built.parent / "corpus"
    before = inodes(corpus / "datasets")
    (built.parent / "policy.yaml").write_text(POLICY % 10.5)
    lines = plan(built)
    assert lines["tiers"]["why"] == "changed policy toy v1"
    assert [name for name, line in lines.items() if line["state"] != "up to date"] == AFTER_POLICY
    assert build(built)["built"] == AFTER_POLICY
    assert inodes(corpus / "datasets") == before
    assert newest(built) != version
    assert (corpus / "manifests/train" / version / "manifest.parquet").is_file()
    # The old threshold gives the old version again, and nothing of it is written a second time.
    kept = inodes(corpus / "manifests/train" / version)
    (built.parent / "policy.yaml").write_text(POLICY % 0.5)
    assert build(built)["built"] == AFTER_POLICY
    assert newest(built) == version
    assert inodes(corpus / "manifests/train" / version) == kept


def test_a_comment_in_a_policy_changes_nothing(built: Path) -> None:
    policy = built.parent / "policy.yaml"
    policy.write_text(f"# as before\n{policy.read_text()}")
    assert build(built)["built"] == []


def test_a_new_episode_is_the_only_one_that_is_ingested(built: Path) -> None:
    corpus = built.parent / "corpus"
    before = inodes(corpus / "datasets")
    videos = {path for path in before if path.endswith(".mp4")}
    write_toy(built.parent / "raw", {**KINDS, "e": "good"})
    lines = plan(built)
    assert lines["sources.toy"]["state"] == "stale"
    assert "new data" in lines["sources.toy"]["why"]
    # Episodes that were quarantined are tried again with new data.
    assert lines["sources.toy"]["to_do"] == 2
    assert lines["measures"]["why"] == "after sources.toy"
    assert lines["sources.toy"]["estimated_s"] is not None
    done = {line["target"]: line for line in build(built)["targets"]}
    assert (done["sources.toy"]["done"], done["sources.toy"]["up_to_date"]) == (1, 3)
    assert (done["measures"]["done"], done["measures"]["up_to_date"]) == (1, 3)
    assert done["captions"]["done"] == 1
    after = inodes(corpus / "datasets")
    assert {path: after[path] for path in videos} == {path: before[path] for path in videos}
    assert len([path for path in after if path.endswith(".mp4")]) == len(videos) + 1


def test_a_touched_file_is_looked_at_and_nothing_is_ingested_again(built: Path) -> None:
    os.utime(built.parent / "raw/episodes.json", ns=(1, 1))
    assert plan(built)["sources.toy"]["state"] == "stale"
    done = {line["target"]: line for line in build(built)["targets"]}
    assert (done["sources.toy"]["outcome"], done["sources.toy"]["done"]) == ("built", 0)
    assert build(built)["built"] == []


@pytest.mark.parametrize(
    ("text", "replacement", "why"),
    [
        ("max_quarantined_ratio: 0.5}", "max_quarantined_ratio: 0.5}\n    limit: 9", "limit"),
        (
            "adapter: tests.faults.toy:Toy",
            "adapter: tests.faults.toy:Toy\n    options: {a: b}",
            "options",
        ),
        (
            "adapter: tests.faults.toy:Toy",
            "adapter: tests.faults.toy:Toy\n    recipe: {min_timesteps: 3}",
            "recipe",
        ),
    ],
)
def test_another_recipe_option_or_selection_is_why_a_source_is_stale(
    built: Path, text: str, replacement: str, why: str
) -> None:
    built.write_text(built.read_text().replace(text, replacement))
    line = plan(built)["sources.toy"]
    assert line["state"] == "stale"
    assert why in line["why"]


def test_another_set_of_the_same_name_is_refused_and_not_taken_for_the_first(built: Path) -> None:
    other = "  other:\n    path: raw2\n    adapter: tests.faults.toy:Toy\nmeasures:"
    built.write_text(SPEC.replace("measures:", other))
    write_toy(built.parent / "raw2", {"a": "good", "z": "good"})
    done = invoke("build", str(built), "--workers", "0", "--json")
    assert done.exit_code == 1, done.output
    outcomes = {line["target"]: line for line in json.loads(done.stdout)["result"]["targets"]}
    assert outcomes["sources.toy"]["outcome"] == "up to date"
    assert outcomes["sources.other"]["outcome"] == "failed"
    assert "--moved" in outcomes["sources.other"]["failure"]


@pytest.mark.slow
def test_compact_and_gc_make_nothing_stale(built: Path) -> None:
    """Twice: what is merged is merged again."""
    corpus = str(built.parent / "corpus")
    for name in ("e", "f"):
        write_toy(built.parent / "raw", {**KINDS, name: "good"})
        build(built)
        parts = len(load_snapshot(built.parent / "corpus").parts("episodes"))
        assert invoke("compact", corpus).exit_code == 0
        assert len(load_snapshot(built.parent / "corpus").parts("episodes")) == 1 < parts
        assert invoke("gc", corpus, "--keep", "1", "--older-than", "0").exit_code == 0
        assert set(state(built).values()) == {"up to date"}
    before = load_snapshot(built.parent / "corpus")
    (built.parent / "policy.yaml").write_text(POLICY % 10.5)
    assert build(built)["built"] == AFTER_POLICY
    after = load_snapshot(built.parent / "corpus")
    assert after.content("tiers") != before.content("tiers")
    assert after.content("episodes") == before.content("episodes")


def test_what_a_command_did_beside_the_build_is_seen(built: Path) -> None:
    corpus = str(built.parent / "corpus")
    assert invoke("tier", corpus, "--policy", "ei30k").exit_code == 0
    assert plan(built)["tiers"]["why"] == "changed policy toy v1"
    assert "manifests.train" in build(built)["built"]


DAMAGED = (None, "", "{", '{"version": 9}', "[" * 99)


def damage(record: Path, content: str | None) -> None:
    if content is None:
        record.unlink()
    else:
        record.write_text(content)


@pytest.mark.parametrize("name", ["duplicates", "manifests.train", "verify"])
@pytest.mark.parametrize("content", DAMAGED)
def test_a_record_that_is_damaged_or_gone_costs_one_more_run(
    built: Path, name: str, content: str | None
) -> None:
    version, path = newest(built), built.parent / f"corpus/build/{name}.json"
    damage(path, content)
    assert plan(built)[name]["state"] != "up to date"
    assert name in build(built)["built"]
    assert newest(built) == version
    assert build(built)["built"] == []


@pytest.mark.slow
def test_a_source_without_its_record_is_read_again_where_it_was(tmp_path: Path) -> None:
    """A copy lies elsewhere: without the record its data may be another set of the same name."""
    here, record = write_spec(tmp_path / "here", {"a": "good"}), "corpus/build/sources.toy.json"
    build(here)
    elsewhere = shutil.copytree(here.parent, tmp_path / "elsewhere")
    for content in DAMAGED:
        damage(elsewhere / record, content)
        assert "were ingested from" in refused("plan", str(elsewhere / here.name))
        damage(here.parent / record, content)
        assert "sources.toy" in build(here)["built"]


def test_a_report_that_is_removed_or_changed_is_written_again(built: Path) -> None:
    html = built.parent / "report.html"
    for change in (html.unlink, lambda: html.write_text("other")):
        change()
        assert build(built)["built"] == ["reports.overview"]
        assert html.stat().st_size > 1000


def test_a_report_that_does_not_fit_leaves_the_old_one(built: Path) -> None:
    html, corpus = built.parent / "report.html", CorpusLayout(root=built.parent / "corpus")
    before, limits = inodes(built.parent), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # of each file
    try:
        with pytest.raises(ConfigError, match="cannot be written: File too large"):
            run_report(corpus, html)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert inodes(built.parent) == before
    run_report(corpus, html)
    assert inodes(built.parent).keys() == before.keys()


def test_a_manifest_that_is_removed_is_built_again_with_its_digest(built: Path) -> None:
    version, folder = newest(built), built.parent / "corpus/manifests/train"
    shutil.rmtree(folder)
    assert "manifests.train" in build(built)["built"]
    assert newest(built) == version


def test_raw_data_that_changed_without_a_new_episode_are_pointed_at(built: Path) -> None:
    raw = built.parent / "raw" / "episodes.json"
    raw.write_text(raw.read_text() + "\n")
    assert plan(built)["sources.toy"]["why"] == "new data (other sizes or times)"
    line, *_ = build(built)["targets"]
    assert (line["outcome"], line["done"]) == ("built", 0)
    assert "--check compares them" in line["note"]
    assert build(built)["built"] == []


def test_check_compares_contents(built: Path) -> None:
    rows = built.parent / f"corpus/manifests/train/{newest(built)}/manifest.json"
    rows.write_text(rows.read_text().replace('"toy"', '"tox"'))
    assert plan(built)["manifests.train"]["state"] == "up to date"
    assert plan(built, "--check")["manifests.train"]["state"] == "stale"


def test_targets_that_are_named_are_built_with_what_they_need(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, KINDS)
    assert build(spec, "tiers")["built"] == ["sources.toy", "measures", "tiers"]
    assert build(spec, "manifests.train")["built"] == ["duplicates", "captions", "manifests.train"]
    assert "did you mean manifests.train?" in refused("build", str(spec), "manifest.train")


def test_a_target_that_fails_stops_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    text = SPEC.replace("{max_quarantined_ratio: 0.5}", "{max_quarantined_ratio: 0.1}")
    spec = write_spec(tmp_path, KINDS, text)
    done = invoke("build", str(spec), "--workers", "0", "--json")
    assert done.exit_code == 1
    answer = json.loads(done.stdout)
    assert answer["error"]["message"].startswith("failed: sources.toy")
    outcomes = {line["target"]: line["outcome"] for line in answer["result"]["targets"]}
    assert outcomes.pop("sources.toy") == "failed"
    assert set(outcomes.values()) == {"not built"}
    spec.write_text(SPEC)  # what is allowed is no part of what was built
    assert build(spec)["targets"][0]["up_to_date"] == 3


def test_a_source_that_fails_stops_nothing_while_another_is_left(tmp_path: Path) -> None:
    other = "  other:\n    path: raw2\n    adapter: tests.jobs.build_cases:Other\nmeasures:"
    spec = write_spec(tmp_path, KINDS, SPEC.replace("measures:", other))
    write_toy(tmp_path / "raw2", {"x": "quarantine", "y": "quarantine"})
    done = invoke("build", str(spec), "--workers", "0", "--json")
    assert done.exit_code == 1
    answer = json.loads(done.stdout)
    assert answer["error"]["message"].startswith("failed: sources.other")
    lines = {line["target"]: line for line in answer["result"]["targets"]}
    assert (lines["sources.other"]["outcome"], lines["sources.other"]["left_out"]) == ("failed", 2)
    assert {line["outcome"] for line in lines.values()} == {"failed", "built"}
    again = json.loads(invoke("build", str(spec), "--workers", "0", "--json").stdout)["result"]
    assert again["built"] == ["reports.overview", "verify"]  # the failed attempts are counted
    write_toy(tmp_path / "raw2", {"x": "good", "y": "good"})
    assert "manifests.train" in build(spec)["built"]


def test_failed_episodes_within_the_limit_of_a_source_stop_nothing(tmp_path: Path) -> None:
    limits = "{max_quarantined_ratio: 0.5, max_failed_ratio: 0.5}"
    text = SPEC.replace("{max_quarantined_ratio: 0.5}", limits)
    done = invoke("build", str(write_spec(tmp_path, KINDS | {"x": "crash"}, text)), "--json")
    assert done.exit_code == 1
    lines = {line["target"]: line for line in json.loads(done.stdout)["result"]["targets"]}
    assert (lines["sources.toy"]["outcome"], lines["sources.toy"]["failed"]) == ("failed", 1)
    assert lines["manifests.train"]["outcome"] == "built"


def test_reviews_that_wait_are_published_and_decide_tiers(built: Path) -> None:
    corpus = built.parent / "corpus"
    current = load_snapshot(corpus)
    uid = current.read(corpus, "episodes", ["uid"])["uid"][0].as_py()
    submit(CorpusLayout(corpus), [review(1, uid, kind="tier_override", value="excluded")])
    assert (plan(built)["tiers"]["state"], plan(built)["tiers"]["why"]) == ("stale", "new reviews")
    assert {"tiers", "manifests.train"} <= set(build(built)["built"])
    with Catalog.open(corpus) as catalog:
        tiers = catalog.sql("SELECT DISTINCT tier FROM tiers WHERE uid = $uid", {"uid": uid})
    assert tiers["tier"].to_list() == ["excluded"]
    assert build(built)["built"] == []


def test_a_video_that_cannot_be_measured_fails_the_build_and_stops_nothing(
    tmp_path: Path,
) -> None:
    spec = write_spec(tmp_path, KINDS, SPEC.replace("verify: {}\n", ""))
    build(spec, "sources.toy")
    video = next((tmp_path / "corpus/datasets").rglob("*.mp4"))
    content = video.read_bytes()
    video.write_bytes(content[: len(content) // 3])
    done = invoke("build", str(spec), "--workers", "0", "--json")
    assert done.exit_code == 1
    lines = {line["target"]: line for line in json.loads(done.stdout)["result"]["targets"]}
    assert (lines["measures"]["outcome"], lines["measures"]["failed"]) == ("failed", 1)
    assert lines["manifests.train"]["outcome"] == "built"
    video.write_bytes(content)
    again = {line["target"]: line for line in build(spec)["targets"]}
    assert (again["measures"]["done"], again["measures"]["up_to_date"]) == (1, 2)


def test_a_source_that_cannot_be_used_is_refused_before_any_work(tmp_path: Path) -> None:
    text = SPEC.replace("measures:", "  other:\n    path: empty\n    adapter: droid\nmeasures:")
    spec = write_spec(tmp_path, KINDS, text)
    (tmp_path / "empty").mkdir()
    assert f"{spec}:7:3: " in refused("build", str(spec))
    assert not (tmp_path / "corpus").exists()


def test_a_second_build_at_once_is_refused_with_who_holds_it(built: Path) -> None:
    context = BuildContext.at(built.parent / "corpus", Resources())
    with one_build(context.layout):
        message = refused("build", str(built))
    assert f"another eicorpus build is running in this corpus (process {os.getpid()})" in message


def test_the_files_of_a_build_are_known_to_verify_and_gc_keeps_what_versions_need(
    built: Path,
) -> None:
    corpus = built.parent / "corpus"
    (built.parent / "policy.yaml").write_text(POLICY % 10.5)
    first = newest(built)
    build(built)
    gone = invoke("gc", str(corpus), "--keep", "1", "--older-than", "0")
    assert gone.exit_code == 0, gone.output
    assert invoke("verify", str(corpus)).exit_code == 0
    for version in (first, newest(built)):
        shown = invoke("manifest", "verify", str(corpus), f"train/{version}")
        assert shown.exit_code == 0, shown.output
    assert build(built)["built"] == []
    assert load_snapshot(corpus).number > 0


@pytest.mark.slow
def test_an_export_follows_the_catalog(tmp_path: Path) -> None:
    text = f"{SPEC}exports:\n  lake: {{to: iceberg, warehouse: lake}}\n"
    spec = write_spec(tmp_path, KINDS, text)
    assert "exports.lake" in build(spec)["built"]
    assert build(spec)["built"] == []
    (tmp_path / "policy.yaml").write_text(POLICY % 10.5)
    done = {line["target"]: line for line in build(spec)["targets"]}
    assert done["exports.lake"]["outcome"] == "built"
    assert done["exports.lake"]["up_to_date"] > done["exports.lake"]["done"] > 0
    shutil.rmtree(tmp_path / "lake")
    assert plan(spec)["exports.lake"]["state"] == "missing"
    assert build(spec)["built"] == ["exports.lake"]


@pytest.mark.slow
def test_check_compares_raw_files_with_what_was_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    egodex.write(tmp_path / "raw")
    spec = tmp_path / "corpus.yaml"
    spec.write_text("version: 1\nsources:\n  hands: {path: raw, adapter: egodex}\n")
    build(spec)
    raw = next(path for path in (tmp_path / "raw").rglob("*.hdf5"))
    before, content = raw.stat(), bytearray(raw.read_bytes())
    content[-1] ^= 1
    raw.write_bytes(content)
    os.utime(raw, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert plan(spec)["sources.hands"]["state"] == "up to date"
    line = plan(spec, "--check")["sources.hands"]
    assert line["state"] == "stale"
    changed = "1 raw files are not those that were committed (raw_changed): "
    changed += raw.relative_to(tmp_path / "raw").as_posix()
    assert changed in line["why"]
    # The committed episode stays; a build reports that once, and then until the file changes again.
    (line,) = build(spec, "--check")["targets"]
    assert (line["outcome"], line["done"], line["up_to_date"]) == ("built", 0, line["total"])
    assert changed in line["note"]
    assert plan(spec, "--check")["sources.hands"]["state"] == "up to date"
    reads: list[Path] = []

    def counted(path: Path, folder: Path) -> RawFile:
        reads.append(path)
        return raw_file_of(path, folder)

    monkeypatch.setattr(
        "jobs.build.sources.raw_file_of",
        counted,
    )
    (line,) = build(spec, "--check")["targets"]
    assert (line["outcome"], changed in line["note"]) == ("up to date", True)
    assert len(reads) == len(set(reads)) > 0
    content[-1] ^= 3
    raw.write_bytes(content)
    os.utime(raw, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert plan(spec, "--check")["sources.hands"]["state"] == "stale"
    # The folder may have another name by now.
    (tmp_path / "raw").rename(tmp_path / "moved")
    spec.write_text(spec.read_text().replace("path: raw", "path: moved"))
    (line,) = build(spec, "--check")["targets"]
    assert (line["done"], changed in line["note"]) == (0, True)
