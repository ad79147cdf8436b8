"""An export as a whole: what is planned and left out, that it resumes to the same files, and what is refused before anything is written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.executors.inline import InlineExecutor
from ingest.executors.local import LocalExecutor
from ingest.export.datasets import format as units
from ingest.export.datasets import run
from ingest.export.datasets.format import Finishing, Format
from ingest.export.datasets.formats import FORMATS
from ingest.export.datasets.lerobot_shared_files import LeRobotV3
from ingest.export.datasets.lingbot_va import LingBotVa
from ingest.export.datasets.plan import UnfitRows
from ingest.export.datasets.run import check_files, run_export
from ingest.export.format_names import ExportFormat
from ingest.models.wan_encoders import WanWeights
from ingest.recipe import Limits
from schemas.errors import ConfigError, SourceError, TransientError
from schemas.manifest import Manifest
from tests.faults.runs import tree
from tests.ingest.export_cases import manifest_of, numbered_corpus, page_of, plan_of
from tests.ingest.video_files import numbered, write_source

ROOT = Path(__file__).parents[2]
SEGMENTS = [("a", 0, 37), ("a", 3, 12), ("b", 0, 24), ("c", 0, 12)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_corpus(tmp_path_factory.mktemp("numbered"))


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit for each segment."""
    monkeypatch.setattr(units, "UNIT_BYTES", 1)


def export(corpus: Path, out: Path, chosen: Manifest | None = None) -> dict[str, Any]:
    chosen = chosen or manifest_of(corpus, SEGMENTS)
    run_export(plan_of(corpus, chosen, LeRobotV3()), LeRobotV3(), out, InlineExecutor())
    return page_of(out)


class StoppedError(Exception):
    """The process ends here."""


class StoppingExecutor(InlineExecutor):
    """Ends after so many units."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def run(self, next_work: Callable[[], Any], body: Callable[..., Any]) -> Iterator[Any]:
        for number, done in enumerate(super().run(next_work, body)):
            if number == self.after:
                raise StoppedError
            yield done


@pytest.mark.usefixtures("small_units")
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_stopped_export_goes_on_to_the_same_files(
    after: int, corpus: Path, tmp_path: Path
) -> None:
    wanted = export(corpus, tmp_path / "wanted")
    plan, out = plan_of(corpus, manifest_of(corpus, SEGMENTS), LeRobotV3()), tmp_path / "out"
    with pytest.raises(StoppedError):
        run_export(plan, LeRobotV3(), out, StoppingExecutor(after))
    assert not (out / run.PAGE).exists()
    done = run_export(plan, LeRobotV3(), out, InlineExecutor())
    assert (done.num_units, done.num_written) == (4, 4 - after - 1)
    assert page_of(out) == wanted
    assert tree(out) == tree(tmp_path / "wanted")


@pytest.mark.usefixtures("small_units")
@pytest.mark.parametrize("at", ["tasks.parquet", "info.json", run.SEGMENTS])
def test_an_export_that_is_stopped_at_its_end_goes_on(
    at: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are in their places by then, and records still name them where they were."""
    wanted = export(corpus, tmp_path / "wanted")
    with monkeypatch.context() as patched:

        def stop(plan: Any, path: Path) -> None:
            raise StoppedError

        if at == run.SEGMENTS:
            patched.setattr(run, "_write_mapping", stop)
        else:
            finish = LeRobotV3.finish

            def finish_half(self: LeRobotV3, finishing: Finishing) -> Any:
                def write(name: str, data: bytes) -> None:
                    if name.endswith(at):
                        raise StoppedError
                    finishing.write(name, data)

                return finish(self, replace(finishing, write=write))

            patched.setattr(LeRobotV3, "finish", finish_half)
        with pytest.raises(StoppedError):
            export(corpus, tmp_path / "out")
    assert export(corpus, tmp_path / "out") == wanted
    assert tree(tmp_path / "out") == tree(tmp_path / "wanted")


@pytest.mark.parametrize("after", [0, 2])
def test_an_export_that_a_release_with_other_units_began_is_written_again(
    after: int, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record 0 is of fewer segments than unit 0 has now."""
    wanted, out = export(corpus, tmp_path / "wanted"), tmp_path / "out"
    plan = plan_of(corpus, manifest_of(corpus, SEGMENTS), LeRobotV3())
    with monkeypatch.context() as patched:
        patched.setattr(units, "UNIT_BYTES", 1)
        with pytest.raises(StoppedError):
            run_export(plan, LeRobotV3(), out, StoppingExecutor(after))
    done = run_export(plan, LeRobotV3(), out, InlineExecutor())
    assert (done.num_units, done.num_written) == (1, 1)
    assert page_of(out) == wanted
    assert tree(out) == tree(tmp_path / "wanted")


def test_units_of_another_release_are_not_mixed_in_at_the_end(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their files have names that the new units would not replace."""

    def stop(*_: Any) -> None:
        raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(units, "UNIT_BYTES", 1)
        patched.setattr(run, "_write_mapping", stop)
        with pytest.raises(StoppedError):
            export(corpus, tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(ConfigError, match="another version of eicorpus began this export"):
        export(corpus, tmp_path / "out")
    assert tree(tmp_path / "out") == before


@pytest.mark.slow
@pytest.mark.usefixtures("small_units")
def test_worker_processes_write_the_same(corpus: Path, tmp_path: Path) -> None:
    wanted = export(corpus, tmp_path / "wanted")
    plan = plan_of(corpus, manifest_of(corpus, SEGMENTS), LeRobotV3())
    executor = LocalExecutor(2, Limits(time_limit_s=60, memory_limit_mib=2048))
    done = run_export(plan, LeRobotV3(), tmp_path / "out", executor)
    assert dict(done.page) == wanted


SLOWLY = """
import sys, time
from pathlib import Path
from ingest.executors.inline import InlineExecutor
from ingest.export.datasets import format as units
from ingest.export.datasets.lerobot_shared_files import LeRobotV3
from ingest.export.datasets.run import run_export
from tests.ingest.export_cases import manifest_of, plan_of
units.UNIT_BYTES = 1
corpus, out = map(Path, sys.argv[1:])
write = LeRobotV3.write
def slow(self, unit, folder):
    facts = write(self, unit, folder)
    print("unit", flush=True)
    time.sleep(0.3)
    return facts
LeRobotV3.write = slow
chosen = manifest_of(corpus, [("a", 0, 37), ("a", 3, 12), ("b", 0, 24), ("c", 0, 12)])
run_export(plan_of(corpus, chosen, LeRobotV3()), LeRobotV3(), out, InlineExecutor())
"""


@pytest.mark.slow
@pytest.mark.usefixtures("small_units")
def test_a_killed_export_resumes_to_the_same_digest(corpus: Path, tmp_path: Path) -> None:
    wanted, out = export(corpus, tmp_path / "wanted"), tmp_path / "out"
    command = [sys.executable, "-c", SLOWLY, str(corpus), str(out)]
    for _ in range(2):
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (out / run.PAGE).exists()
    assert export(corpus, out) == wanted
    assert tree(out) == tree(tmp_path / "wanted")


def test_a_finished_export_is_left_as_it_is(corpus: Path, tmp_path: Path) -> None:
    export(corpus, tmp_path / "out")
    plan = plan_of(corpus, manifest_of(corpus, SEGMENTS), LeRobotV3())
    done = run_export(plan, LeRobotV3(), tmp_path / "out", InlineExecutor())
    assert (done.num_units, done.num_written) == (0, 0)


@pytest.mark.parametrize("is_finished", [True, False])
def test_another_export_is_not_mixed_in(is_finished: bool, corpus: Path, tmp_path: Path) -> None:
    plan = plan_of(corpus, manifest_of(corpus, SEGMENTS[:2]), LeRobotV3())
    if is_finished:
        run_export(plan, LeRobotV3(), tmp_path / "out", InlineExecutor())
    else:
        with pytest.raises(StoppedError):
            run_export(plan, LeRobotV3(), tmp_path / "out", StoppingExecutor(0))
    before = tree(tmp_path / "out")
    with pytest.raises(ConfigError, match="another export"):
        export(corpus, tmp_path / "out")
    assert tree(tmp_path / "out") == before


def test_a_folder_with_other_files_is_refused(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        export(corpus, tmp_path)
    assert tree(tmp_path) == tree(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_licences_that_are_not_free_need_a_word(corpus: Path) -> None:
    licences = ["permissive", "non_commercial", "no_redistribution", "unknown"]
    chosen = manifest_of(corpus, SEGMENTS, licence_class=licences)
    with pytest.raises(ConfigError) as refused:
        plan_of(corpus, chosen, LeRobotV3(), ["non_commercial"])
    assert refused.value.message == (
        "licence: 1 segments are no_redistribution, 1 segments are unknown"
    )
    assert "--allow-licence no_redistribution --allow-licence unknown" in refused.value.remedy
    assert plan_of(corpus, chosen, LeRobotV3(), licences).num_segments == 4


class Choosy(LeRobotV3):
    """Holds no segment that begins late."""

    def left_out(self, rows: Any) -> Iterator[UnfitRows]:
        late = np.array(rows["start"].to_pylist()) > 0
        yield UnfitRows(code="late", text="begin late", rows=late)


def test_what_is_left_out_is_counted(corpus: Path, tmp_path: Path) -> None:
    chosen = replace(manifest_of(corpus, SEGMENTS), num_erased=2)
    plan = plan_of(corpus, chosen, Choosy())
    run_export(plan, Choosy(), tmp_path / "out", InlineExecutor())
    page = page_of(tmp_path / "out")
    assert page["left_out"] == [
        {"code": "erased", "text": "erased since", "segments": 2},
        {"code": "late", "text": "begin late", "segments": 1},
    ]
    assert page["segments"] == 3
    assert pq.read_table(tmp_path / "out" / page["mapping"]).num_rows == 3


def test_an_export_of_nothing_is_refused(corpus: Path) -> None:
    with pytest.raises(ConfigError, match=r"no segment of the manifest .*\(1 begin late\)"):
        plan_of(corpus, manifest_of(corpus, SEGMENTS[1:2]), Choosy())


def test_the_plan_says_about_how_many_bytes(corpus: Path) -> None:
    whole = plan_of(corpus, manifest_of(corpus, SEGMENTS[:1]), LeRobotV3())
    videos = [path.stat().st_size for path in corpus.glob("datasets/*/*/*/*/*/episode_000000.mp4")]
    data = [
        path.stat().st_size for path in corpus.glob("datasets/*/*/data/*/episode_000000.parquet")
    ]
    assert whole.num_bytes == sum(videos) + sum(data)
    part = plan_of(corpus, manifest_of(corpus, SEGMENTS[1:2]), LeRobotV3())
    assert part.num_bytes == pytest.approx(whole.num_bytes * 9 / 37, abs=1)


def test_verify_names_every_file_that_is_not_as_it_was(corpus: Path, tmp_path: Path) -> None:
    page = export(corpus, tmp_path / "out")
    assert list(check_files(tmp_path / "out", page)) == []
    info, *_ = (tmp_path / "out").glob("*/meta/info.json")
    info.write_text(info.read_text() + " ")
    (info.parent / "stats.json").unlink()
    (tmp_path / "out" / "extra").touch()
    folder = info.parent.parent.name
    assert list(check_files(tmp_path / "out", page)) == [
        f"{folder}/meta/stats.json: missing",
        "extra: not part of the export",
        f"{folder}/meta/info.json: changed",
    ]


def test_verify_names_links_and_pipes(corpus: Path, tmp_path: Path) -> None:
    """A reader would follow them; a copy would not have them."""
    out = tmp_path / "out"
    page = export(corpus, out)
    (out / "elsewhere").symlink_to(tmp_path)
    (out / "broken").symlink_to("nowhere")
    os.mkfifo(out / "pipe")
    (info,) = out.glob("*/meta/info.json")
    info.rename(tmp_path / "info.json")
    info.symlink_to(tmp_path / "info.json")
    name, told = info.relative_to(out).as_posix(), "a link or another special file"
    assert list(check_files(out, page)) == [
        f"{name}: missing",
        f"broken: {told}",
        f"elsewhere: {told}",
        f"pipe: {told}",
        f"{name}: {told}",
    ]


def test_a_damaged_video_ends_the_export_and_is_named(corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "corpus")
    video, *_ = sorted((tmp_path / "corpus").glob("datasets/*/*/*/*/*/episode_000001.mp4"))
    video.write_bytes(video.read_bytes()[:400])
    chosen = manifest_of(tmp_path / "corpus", SEGMENTS)
    plan = plan_of(tmp_path / "corpus", chosen, LeRobotV3())
    with pytest.raises(Exception, match=r"episode_000001\.mp4"):
        run_export(plan, LeRobotV3(), tmp_path / "out", InlineExecutor())
    assert not (tmp_path / "out" / run.PAGE).exists()


def test_a_full_disk_says_so_and_is_no_end(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("ingest.export.datasets.lerobot_shared_files.pq.write_table", full)
        with pytest.raises(TransientError, match="No space left"):
            export(corpus, tmp_path / "out")
    assert export(corpus, tmp_path / "out")["segments"] == len(SEGMENTS)


def test_every_format_has_a_name_on_the_command_line() -> None:
    assert {*FORMATS, ExportFormat.ICEBERG} == set(ExportFormat)


def test_the_page_is_json_that_names_the_manifest(corpus: Path, tmp_path: Path) -> None:
    page = json.loads(json.dumps(export(corpus, tmp_path / "out")))
    chosen = manifest_of(corpus, SEGMENTS)
    assert page["manifest"]["rows_sha256"] == chosen.facts.rows_sha256
    assert sum(each["episodes"] for each in page["datasets"]) == page["segments"]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("dataset_path", "datasets/.."),
        ("dataset_path", "datasets/a/../.."),
        ("dataset_path", "elsewhere/a"),
        ("dataset_path", 'datasets/a"\nimport os'),
        ("split", "../x"),
    ],
)
def test_names_that_would_lead_out_of_the_folder_are_refused(
    column: str, value: str, corpus: Path
) -> None:
    """Configs are programs and names are paths; a manifest of others says what it likes."""
    chosen = manifest_of(corpus, [("a", 0, 37)], **{column: value})
    with pytest.raises(ConfigError, match=column):
        plan_of(corpus, chosen, LeRobotV3())


@pytest.mark.parametrize(
    ("segment", "columns", "told"),
    [
        (("a", 0, 50), {}, "1 segments begin or end outside of their episode"),
        (("a", 5, 5), {}, "1 segments have no timestep"),
        (("a", 8, 5), {}, "1 segments have no timestep"),
        (("a", 0, 37), {"content_sha256": "0" * 64}, "replaced since"),
        (("a", 0, 37), {"episode_index": 2}, "replaced since"),
    ],
)
def test_a_manifest_that_does_not_fit_the_corpus_is_refused_in_the_plan(
    segment: tuple[str, int, int], columns: dict[str, Any], told: str, corpus: Path
) -> None:
    with pytest.raises(ConfigError, match=told) as refused:
        plan_of(corpus, manifest_of(corpus, [segment], **columns), LeRobotV3())
    assert refused.value.remedy == "build the manifest again"


def test_a_camera_without_videos_is_refused_in_the_plan(corpus: Path, tmp_path: Path) -> None:
    own = tmp_path / "corpus"
    shutil.copytree(corpus, own)
    (path,) = own.glob("datasets/*/*/meta/info.json")
    info = json.loads(path.read_text())
    info["features"]["observation.images.third"] = info["features"]["observation.images.front"]
    path.write_text(json.dumps(info))
    with pytest.raises(
        ConfigError, match=r"4 segments lack the video of observation\.images\.third"
    ):
        plan_of(own, manifest_of(own, SEGMENTS), LeRobotV3())


def _fast(info: dict[str, Any]) -> None:
    info["fps"] = 30


def _large(info: dict[str, Any]) -> None:
    info["features"]["observation.images.wrist"]["shape"] = [480, 640, 3]


def _fast_camera(info: dict[str, Any]) -> None:
    info["features"]["observation.images.wrist"]["info"]["video.fps"] = 30


def _blind(info: dict[str, Any]) -> None:
    info["features"] = {n: f for n, f in info["features"].items() if f["dtype"] != "video"}
    info["fps"] = 11


def _hostile(corpus: Path, own: Path, change: Callable[[dict[str, Any]], None]) -> None:
    shutil.copytree(corpus, own)
    (path,) = own.glob("datasets/*/*/meta/info.json")
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def _of_name(name: str) -> Format:
    if name == LingBotVa.name:
        return LingBotVa(weights=WanWeights(folder="", untrained_seed=1), height_px=64, width_px=64)
    return FORMATS[name]()


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_fast, r"fps 30; timestep 1 is at 0\.100 s"),
        (
            _large,
            r"shape \[480, 640, 3\] for observation.images.wrist; the video has \[64, 96, 3\]",
        ),
        (_fast_camera, r"video.fps 30 for observation.images.wrist; the video has 10"),
    ],
)
def test_another_rate_or_size_than_that_of_the_files_is_refused(
    change: Callable[[dict[str, Any]], None], told: str, name: str, corpus: Path, tmp_path: Path
) -> None:
    own, chosen = tmp_path / "corpus", _of_name(name)
    _hostile(corpus, own, change)
    plan = plan_of(own, manifest_of(own, SEGMENTS), chosen)
    with pytest.raises(ConfigError, match=f"info.json has {told}"):
        run_export(plan, chosen, tmp_path / "out", InlineExecutor())
    assert not (tmp_path / "out").exists()


def _without_a_dot(names: list[str]) -> list[str]:
    return [f"j{place}" for place in range(len(names))]


def _of_another_part(names: list[str]) -> list[str]:
    return [*names[:-1], "left.torque"]


def _in_another_order(names: list[str]) -> list[str]:
    return [names[1], names[0], *names[2:]]


def _without_names(names: list[str]) -> None:
    return None


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("feature", ["action", "observation.state"])
@pytest.mark.parametrize(
    ("rename", "told"),
    [
        (_without_a_dot, "the element 'j0'"),
        (_of_another_part, "the element 'left.torque'"),
        (_in_another_order, "the element 'left.position_m.y'"),
        (_without_names, "no names"),
    ],
)
def test_elements_that_no_corpus_has_are_refused(
    rename: Callable[[list[str]], Any],
    told: str,
    feature: str,
    name: str,
    corpus: Path,
    tmp_path: Path,
) -> None:
    """They select columns; GR00T's configs would name others than those that are there."""
    own = tmp_path / "corpus"

    def change(info: dict[str, Any]) -> None:
        chosen = info["features"][feature]
        chosen["names"] = rename(chosen["names"])

    _hostile(corpus, own, change)
    plan = plan_of(own, manifest_of(own, SEGMENTS), _of_name(name))
    with pytest.raises(ConfigError, match=f"{feature} has {told}|needs .* pose of a hand"):
        run_export(plan, _of_name(name), tmp_path / "out", InlineExecutor())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_mask_that_lacks_a_part_is_refused(name: str, corpus: Path, tmp_path: Path) -> None:
    own = tmp_path / "corpus"

    def change(info: dict[str, Any]) -> None:
        info["features"]["action.valid"]["names"] = ["a", "b", "c"]

    _hostile(corpus, own, change)
    plan = plan_of(own, manifest_of(own, SEGMENTS), _of_name(name))
    with pytest.raises(ConfigError, match=r"action\.valid lacks left\.gripper_opening"):
        run_export(plan, _of_name(name), tmp_path / "out", InlineExecutor())
    assert not (tmp_path / "out").exists()


def test_the_rate_of_a_dataset_without_cameras_is_that_of_its_rows(
    corpus: Path, tmp_path: Path
) -> None:
    own = tmp_path / "corpus"
    _hostile(corpus, own, _blind)
    with pytest.raises(ConfigError, match=r"fps 11; timestep 3 is at 0\.300 s"):
        export(own, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("small_units")
def test_one_video_of_another_size_ends_the_export(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a corpus of others whose catalog agrees with it."""
    own = tmp_path / "corpus"
    shutil.copytree(corpus, own)
    for path in own.glob("datasets/*/*/videos/*/*/episode_000001.mp4"):
        write_source(path, [numbered(k, 48, 32) for k in range(24)], rate=Fraction(10))
    monkeypatch.setattr(run, "check_committed", lambda *_: None)
    with pytest.raises(ConfigError, match=r"shape \[64, 96, 3\] .* has \[32, 48, 3\]"):
        export(own, tmp_path / "out")


def _with_action(table: pa.Table, change: Callable[[Any], None]) -> pa.Table:
    field = table.schema.get_field_index("action")
    values = np.array(table["action"].to_pylist(), np.float32)
    change(values)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    return table.set_column(
        field, table.schema.field(field), flat.cast(table.schema.field(field).type)
    )


def _halve(values: Any) -> None:
    values *= 0.5


def test_actions_that_changed_since_they_were_committed_are_not_exported(
    corpus: Path, tmp_path: Path
) -> None:
    own = tmp_path / "corpus"
    shutil.copytree(corpus, own)
    path = sorted(own.glob("datasets/*/*/data/*/*.parquet"))[0]
    pq.write_table(_with_action(pq.read_table(path), _halve), path)
    with pytest.raises(ConfigError, match="not the file that was committed"):
        export(own, tmp_path / "out")


def _hole(values: Any) -> None:
    values[5, 0] = np.nan


def test_a_number_that_is_none_is_named_with_its_timestep(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A corpus of others whose catalog agrees with its file."""
    own = tmp_path / "corpus"
    shutil.copytree(corpus, own)
    path = sorted(own.glob("datasets/*/*/data/*/*.parquet"))[0]
    pq.write_table(_with_action(pq.read_table(path), _hole), path)
    monkeypatch.setattr("ingest.export.datasets.rows._sha256", lambda _: AnyDigest())
    with pytest.raises(ConfigError, match="action has no finite number at timestep 5"):
        export(own, tmp_path / "out")


class AnyDigest(str):
    """Equal to every digest."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


@pytest.mark.parametrize("name", ["groot", "webdataset"])
def test_a_missing_video_is_no_full_disk(name: str, corpus: Path, tmp_path: Path) -> None:
    own = tmp_path / "corpus"
    shutil.copytree(corpus, own)
    sorted(own.glob("datasets/*/*/videos/*/*/episode_000000.mp4"))[0].unlink()
    chosen = FORMATS[name]()
    plan = plan_of(own, manifest_of(own, SEGMENTS[:1]), chosen)
    with pytest.raises(SourceError, match="the file is missing"):
        run_export(plan, chosen, tmp_path / "out", InlineExecutor())


def test_two_processes_never_export_into_one_folder(corpus: Path, tmp_path: Path) -> None:
    """The second is refused while the first writes, changes nothing, and may go on once it has ended."""
    out, plan = tmp_path / "out", plan_of(corpus, manifest_of(corpus, SEGMENTS), LeRobotV3())

    class Second(InlineExecutor):
        def run(self, next_work: Any, body: Any) -> Iterator[Any]:
            before = tree(out)
            with pytest.raises(ConfigError, match="another process is exporting"):
                run_export(plan, LeRobotV3(), out, InlineExecutor())
            assert tree(out) == before
            yield from super().run(next_work, body)

    done = run_export(plan, LeRobotV3(), out, Second())
    assert list(check_files(out, done.page)) == []
    again = run_export(plan, LeRobotV3(), out, InlineExecutor())
    assert (again.page, again.num_units) == (done.page, 0)


@pytest.mark.parametrize("name", ["lerobot-v3", "groot", "webdataset", "rlds"])
def test_a_part_of_a_video_that_changed_since_it_was_committed_is_not_exported(
    name: str, corpus: Path, tmp_path: Path
) -> None:
    """A box that players skip: the pictures are all there, and could as well be others."""
    own = tmp_path / "corpus"
    shutil.copytree(corpus, own)
    video = sorted(own.glob("datasets/*/*/videos/*/*/episode_000000.mp4"))[0]
    video.write_bytes(video.read_bytes() + b"\0\0\0\x08free")
    chosen = FORMATS[name]()
    plan = plan_of(own, manifest_of(own, [("a", 3, 30)]), chosen)
    with pytest.raises(SourceError, match="not the file that was committed"):
        run_export(plan, chosen, tmp_path / "out", InlineExecutor())
