"""A mistake in a corpus spec is told with file, line and column, before any work; `eicorpus init` writes one that is right."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from ingest.curation.manifests.sql import SEGMENT_COLUMNS
from jobs.build.init_spec import SCHEMA, probe, spec_text
from jobs.build.listing import listing_of
from jobs.build.plan import stages_of
from jobs.build.sources import SourceStage
from jobs.build.spec import Spec, json_schema
from jobs.build.spec_file import read_spec
from jobs.build.targets import READS
from jobs.build.where_check import _no_segments
from jobs.demo.command import raw_of
from jobs.demo.raw import egodex
from schemas.catalog import TABLES
from schemas.errors import ConfigError
from schemas.remedies import doc_page
from tests.generators import video_folder
from tests.jobs.build_cases import SPEC, invoke, refused, write_spec

HEAD = "version: 1\nsources:\n  toy: {path: raw, adapter: tests.faults.toy:Toy}\n"
TRAIN = f"{HEAD}manifests:\n  train: {{}}\n"
MISTAKES = {
    # what is written -> (line, column, what is told)
    f"{HEAD}measurs: {{}}\n": (4, 1, "did you mean measures?"),
    f"{HEAD}tiers: {{polcy: ei30k}}\n": (4, 9, "did you mean policy?"),
    f"{HEAD}manifests:\n  a:\n    split: {{vall: 0.1}}\n": (6, 13, "did you mean val?"),
    f"{HEAD}captions: {{endpoint: {{ulr: x}}}}\n": (4, 23, "did you mean url?"),
    f"{HEAD}latents:\n  A B: {{}}\n": (5, 3, "text that matches"),
    f"{HEAD}tiers: {{policy: nothing}}\n": (4, 9, "nothing"),
    f"{HEAD}measures: {{only: [jerkk]}}\n": (4, 12, "jerkk"),
    f"{HEAD}measures: {{hand_landmarker: no.task}}\n": (4, 12, "no such file or folder"),
    f"{HEAD}latents:\n  x: {{encoder: dinov9}}\n": (5, 7, "dinov9"),
    f"{HEAD}text_features:\n  x: {{vlm: nowhere}}\n": (5, 7, "no such file or folder"),
    f"{HEAD}manifests:\n  x: {{split: {{val: 0.6, test: 0.6}}}}\n": (5, 7, "split"),
    f"{HEAD}manifests:\n  x: {{mixture_file: no.yaml}}\n": (5, 7, "no such file or folder"),
    f"{HEAD}manifests:\n  x: {{where: uid IN (}}\n": (5, 7, "syntax error"),
    f"{HEAD}manifests:\n  x: {{where: random() < 0.5}}\n": (5, 7, "different results"),
    f"{HEAD}latents:\n  x: {{encoder: dinov3_tiny, untrained: 0, where: tier = 'high'}}\n": (
        5,
        43,
        '"tier" not found',
    ),
    f"{HEAD}reports:\n  x: {{html: corpus/x.html}}\n": (5, 7, "inside the corpus"),
    f"{HEAD}reports:\n  x: {{html: raw/x.html}}\n": (5, 7, "inside the raw data of sources.toy"),
    f"{HEAD}exports:\n  x: {{to: iceberg, warehouse: raw/w}}\n": (5, 20, "inside the raw data"),
    f"{HEAD}exports:\n  x: {{to: iceberg}}\n": (5, 3, "set warehouse or catalog"),
    f"{HEAD}latents:\n  x: {{encoder: dinov3_vits16}}\n": (
        5,
        7,
        "needs weights, hub_id or untrained",
    ),
    f"{HEAD}reports:\n  x: {{html: no/x.html}}\n": (5, 7, "no such folder"),
    f"{HEAD}exports:\n  x: {{to: iceberg, warehouse: corpus/w}}\n": (5, 20, "inside the corpus"),
    f"{HEAD}exports:\n  x: {{to: lerobot-v4}}\n": (5, 7, "lerobot-v4"),
    f"{HEAD}exports:\n  x: {{to: lerobot-v3, out: o}}\n": (5, 3, "needs manifest and out"),
    f"{TRAIN}exports:\n  x: {{to: lerobot-v3, manifest: tran, out: o}}\n": (
        7,
        23,
        "no manifest 'tran' in this spec; did you mean train?",
    ),
    f"{TRAIN}exports:\n  x: {{to: groot, manifest: train, out: o, size: 64x64}}\n": (
        7,
        43,
        "does not go with to: groot",
    ),
    f"{TRAIN}exports:\n  x: {{to: iceberg, warehouse: w, manifest: train}}\n": (
        7,
        34,
        "does not go with to: iceberg",
    ),
    f"{TRAIN}exports:\n  x: {{to: lda, manifest: train, out: o, low_tier: all}}\n": (
        7,
        41,
        "forecasting",
    ),
    f"{TRAIN}exports:\n  x: {{to: lingbot-va, manifest: train, out: o}}\n": (
        7,
        3,
        "needs one of weights and untrained",
    ),
    f"{TRAIN}exports:\n  x: {{to: lingbot-va, manifest: train, out: o, weights: wan}}\n": (
        7,
        48,
        "wan: no such file or folder",
    ),
    f"{TRAIN}exports:\n  x: {{to: lingbot-va, manifest: train, out: o, untrained: 0, size: 64}}\n": (
        7,
        62,
        "size",
    ),
    f"{TRAIN}exports:\n  x: {{to: lda, manifest: train, out: corpus/o}}\n": (
        7,
        33,
        "inside the corpus",
    ),
    f"{TRAIN}exports:\n  x: {{to: lda, manifest: train, out: raw/o}}\n": (
        7,
        33,
        "inside the raw data of sources.toy",
    ),
    f"{TRAIN}exports:\n  x: {{to: lda, manifest: train, out: o}}\n  y: {{to: groot, manifest: train, out: ./o}}\n": (
        8,
        35,
        "exports.x writes to the same place",
    ),
    f"{HEAD}tiers: {{after: [manifest]}}\n": (4, 17, "no target 'manifest'"),
    f"{HEAD}measures: {{after: [tiers]}}\ntiers: {{}}\n": (4, 12, "wait for each other"),
    f"{HEAD}measures: {{after: [measures]}}\n": (4, 20, "wait for each other"),
    HEAD.replace("path: raw", "path: rax"): (3, 9, "rax: no such file or folder"),
    HEAD.replace("tests.faults.toy:Toy", "droit"): (3, 20, "did you mean droid?"),
    f"{HEAD}corpus: raw/corpus\n": (3, 9, "inside the raw data"),
    f"{HEAD}corpus: .\n": (3, 9, "inside the raw data"),
    f"{HEAD}corpus: policy.yaml\n": (4, 1, "policy.yaml is no folder"),
    f"{HEAD}  again: {{path: ./raw/, adapter: tests.faults.toy:Toy}}\n": (
        4,
        3,
        "sources.toy once more",
    ),
    "version: 2\nsources: {}\n": (1, 1, "2; expected 1"),
    "version: 1\nsources: {}\n": (2, 1, "at least 1"),
    "version: 1\nversion: 1\n": (2, 1, "duplicate key"),
    "version: 1\nsources: [\n": (3, 1, "not valid YAML"),
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_told_with_its_place_before_any_work(tmp_path: Path, text: str) -> None:
    spec = write_spec(tmp_path, {"a": "good"}, text)
    line, column, words = MISTAKES[text]
    for command in ("plan", "build"):
        lines = refused(command, str(spec)).splitlines()
        place = f"{spec}:{line}:{column}: "
        assert any(place in each and words in each for each in lines), lines
    assert not (tmp_path / "corpus").exists()


def test_the_columns_that_a_manifest_chooses_by_can_be_named(tmp_path: Path) -> None:
    where = "tier = 'high' AND list_contains(serves, 'policy') AND start < \"end\" AND len(reasons) > 0 -- all"
    text = f"{HEAD}manifests:\n  x:\n    where: >-\n      {where}\n"
    assert invoke("plan", str(write_spec(tmp_path, {"a": "good"}, text))).exit_code == 0


def test_the_columns_that_are_checked_are_those_that_a_manifest_chooses_from() -> None:
    wanted = {*TABLES["episodes"].names, *SEGMENT_COLUMNS}
    assert set(_no_segments().column_names) == wanted


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    text = SPEC.replace("path: raw", "path: rax").replace("policy.yaml", "no.yaml")
    message = refused("plan", str(write_spec(tmp_path, {"a": "good"}, text)))
    assert "corpus.yaml:4:5: rax" in message
    assert "corpus.yaml:8:9: " in message


def test_the_published_schema_is_that_of_the_model_and_editors_find_it() -> None:
    stored = json.loads(Path(doc_page(SCHEMA)).read_text())
    assert set(stored["properties"]) == set(Spec.model_fields)
    assert stored["$defs"].keys() == json_schema()["$defs"].keys()
    assert stored["additionalProperties"] is False
    assert stored["$defs"]["SourceSpec"]["properties"]["path"]["description"]


def test_every_section_has_an_order() -> None:
    assert READS.keys() == Spec.model_fields.keys() - {"version", "corpus"}


def test_init_writes_a_spec_that_can_be_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw_of("metaworld_hdf5", tmp_path / "raw" / "metaworld_hdf5")
    video_folder.write(tmp_path / "raw" / "video_folder")
    done = invoke("init", "raw")
    assert done.exit_code == 0, done.output
    (tmp_path / "corpus.yaml").write_text(done.stdout)
    file = read_spec(tmp_path / "corpus.yaml")
    assert {name: each.adapter for name, each in file.spec.sources.items()} == {
        "metaworld_hdf5": "metaworld_hdf5",
        "video_folder": "video_folder",
    }
    assert "adapter: metaworld_hdf5   # sure" in done.stdout
    assert re.search(r"# UNSURE: any .*\n    adapter: video_folder", done.stdout)
    assert done.stdout.splitlines()[0] == f"# yaml-language-server: $schema={doc_page(SCHEMA)}"
    assert invoke("plan", "corpus.yaml", "--json").exit_code == 0


def test_init_names_every_lerobot_dataset_of_a_folder(tmp_path: Path) -> None:
    """Their videos alone would match too: as one source without actions."""
    for name in ("one", "two"):
        raw_of("lerobot", tmp_path / "raw" / name)
    done = invoke("init", str(tmp_path / "raw"))
    assert re.findall(r"adapter: (\w+)", done.stdout) == ["lerobot", "lerobot"]
    assert re.findall(r"path: .*/raw/(\w+)", done.stdout) == ["one", "two"]


@pytest.mark.parametrize(
    "pair", [("lerobot", "oxe"), ("egodex", "lerobot"), ("egodex", "oxe"), ("droid", "oxe")]
)
def test_init_names_every_source_of_a_folder(tmp_path: Path, pair: tuple[str, str]) -> None:
    """Some adapters find their files at any depth, and would read the whole as theirs."""
    for name in pair:
        raw_of(name, tmp_path / "raw" / name)
    done = invoke("init", str(tmp_path / "raw"))
    assert re.findall(r"adapter: (\w+)", done.stdout) == list(pair)


def test_init_says_what_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    assert "no source matches" in refused("init", str(tmp_path))
    assert "no such file or folder" in refused("init", str(tmp_path / "no"))


HOSTILE = ["a: b", "x\ny", '"quoted"', "#", "{a}", "é\u2028", "-", "123", "null", "a\tb", "~"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_of_a_folder_stays_a_value_of_the_spec(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    raw_of("metaworld_hdf5", folder)
    page = yaml.safe_load(spec_text(probe([folder]), tmp_path))
    Spec.model_validate(page)
    (source,) = page["sources"].values()
    assert (tmp_path / source["path"]).samefile(folder)


def test_a_listing_sees_every_change_of_name_size_or_time(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for path in ("x", "a/y", "a/b/z"):
        (tmp_path / path).write_text(path)
    seen = [listing_of([tmp_path])]
    assert (seen[0].num_files, seen[0].num_bytes) == (3, 9)
    assert listing_of([tmp_path]) == seen[0]

    def changed() -> None:
        now = listing_of([tmp_path])
        assert now not in seen
        seen.append(now)

    (tmp_path / "a/b/z").rename(tmp_path / "a/b/w")
    changed()
    (tmp_path / "a/b/w").write_text("longer")
    changed()
    (tmp_path / "a/new").touch()
    changed()
    (tmp_path / "a/nothing").symlink_to("missing")
    changed()
    (tmp_path / "a/b/round").symlink_to(tmp_path)
    assert listing_of([tmp_path]).num_files == 5  # a link that leads in a circle is not entered
    (tmp_path / "a/linked").symlink_to(tmp_path / "x")
    changed()
    (tmp_path / "x").write_text("through the link")
    changed()


def test_a_listing_is_of_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be listed"):
        listing_of([tmp_path / "no"])
    (tmp_path / "file").write_text("12345")
    assert listing_of([tmp_path / "file"]).num_bytes == 5


@pytest.mark.parametrize("below", ["", "more"])
def test_a_spec_inside_the_raw_data_writes_outside_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    """`cd RAW && eicorpus init . > corpus.yaml`"""
    egodex.write(tmp_path / "raw")
    folder = tmp_path / "raw" / below
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    (folder / "corpus.yaml").write_text(invoke("init", str(tmp_path / "raw")).stdout)
    file = read_spec(folder / "corpus.yaml")
    assert file.corpus.resolve() == tmp_path / "corpus"
    stage = stages_of(file)["sources.raw"]
    assert isinstance(stage, SourceStage)
    before = stage.listing.sha256
    (folder / "corpus.yaml").write_text(f"# edited\n{(folder / 'corpus.yaml').read_text()}")
    again = stages_of(read_spec(folder / "corpus.yaml"))["sources.raw"]
    assert isinstance(again, SourceStage)
    assert again.listing.sha256 == before


def test_init_writes_a_new_file_whose_paths_start_at_its_folder(tmp_path: Path) -> None:
    egodex.write(tmp_path / "raw")
    (tmp_path / "specs").mkdir()
    spec = tmp_path / "specs/corpus.yaml"
    done = invoke("init", str(tmp_path / "raw"), "--out", str(spec))
    assert (done.exit_code, done.stdout) == (0, ""), done.output
    assert read_spec(spec).spec.sources["raw"].path == "../raw"
    content = spec.read_bytes()
    assert "the file exists" in refused("init", str(tmp_path / "raw"), "--out", str(spec))
    assert spec.read_bytes() == content
    nowhere = str(tmp_path / "no/corpus.yaml")
    assert "cannot be written" in refused("init", str(tmp_path / "raw"), "--out", nowhere)


def test_init_refuses_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"raw-\xff")
    egodex.write(folder)
    assert "not UTF-8" in refused("init", str(folder))


def test_init_names_both_sources_of_annotations_without_videos(tmp_path: Path) -> None:
    """What has episodes comes first."""
    (tmp_path / "annotations").mkdir()
    head = "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
    row = "P01_01_0,P01,P01_01,00:00:01.00,00:00:00.14,00:00:03.37,8,202,open door,open,3,door,3,['door'],[3]"
    (tmp_path / "annotations/EPIC_100_train.csv").write_text(f"{head}\n{row}\n")
    (each,) = probe([tmp_path])
    assert [match.source for match in each.candidates] == ["epic_kitchens", "ego4d"]
    assert "UNSURE" in spec_text([each], tmp_path)
