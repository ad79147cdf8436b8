"""`eicorpus latents` as it is typed: the plan, the report that adds up, exit codes, and refusals before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout, open_corpus, writer_lock
from ingest.latents.cost_estimate import CostEstimate
from ingest.latents.plan import todo_of, units_of
from ingest.latents.run import LatentTally
from ingest.models.encoder import ImageEncoder
from jobs.cli import app
from jobs.ui.latents_plan import EncodePlace, LatentsPlan, plan_lines
from jobs.ui.latents_report import shares_of
from schemas.errors import ConfigError
from tests.faults.runs import tree
from tests.latents.corpora import packing, rows_of, videos_of

TINY = ("--encoder", "dinov3_tiny", "--untrained", "0", "--device", "cpu", "--workers", "0")


def typed(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["latents", "images", *map(str, words)])


def told(found: Result) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(found.stdout)["result"]
    return answer


def test_the_report_adds_up_and_a_second_run_has_nothing_to_do(corpus: Path) -> None:
    found = typed(corpus, *TINY, "--json")
    assert found.exit_code == 0, found.output
    first = told(found)
    assert first["discovered"] == first["encoded"] + first["up_to_date"] + first["failed"] == 3
    assert (first["pictures"], first["errors"], first["encoders"]) == (26, {}, 1)
    assert first["num_bytes"] == sum(row["num_bytes"] for row in rows_of(corpus))
    assert 0 < first["encoder_busy_share"] <= 1
    plan = first["plan"]
    assert (plan["files"], plan["episodes"], plan["pictures"]) == (3, 3, 26)
    assert plan["num_bytes"]["bf16"] == 26 * (16 * 64 * 2 + 8)
    assert plan["probe"]["cosine_error_mean"] <= plan["probe"]["cosine_error_worst"] < 1e-3
    second = told(typed(corpus, *TINY, "--json"))
    assert (second["up_to_date"], second["encoded"], second["pictures"]) == (3, 0, 0)
    assert second["snapshot"] == first["snapshot"]


def test_people_see_the_plan_first_and_then_the_report(corpus: Path) -> None:
    found = typed(corpus, *TINY)
    assert found.exit_code == 0
    assert "26 images of 3 videos in 3 episodes" in found.stderr
    assert "an estimate from 12 images" in found.stderr
    assert "on the cpu of this machine" in found.stderr
    assert "every camera (select some with --camera NAME): top_head 3" in found.stderr
    assert "1 - cosine of a token" in found.stderr
    assert "encoder_busy_share" in found.stdout


def test_a_dry_run_touches_nothing(corpus: Path) -> None:
    before = tree(corpus)
    found = typed(corpus, *TINY, "--dry-run", "--json")
    assert (found.exit_code, told(found)["plan"]["pictures"]) == (0, 26)
    said = typed(corpus, *TINY, "--dry-run", "--camera", "top_head").stdout
    assert "stored as bf16" in said
    assert "     cameras: top_head 3" in said
    assert tree(corpus) == before


@pytest.mark.parametrize(("free", "is_enough"), [(26 * (16 * 64 * 2 + 8), True), (53_455, False)])
def test_what_has_no_room_is_refused(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, free: int, is_enough: bool
) -> None:
    """To the byte, before any work, with what would be less."""
    monkeypatch.setattr("jobs.machine.free_bytes", lambda root: free)
    before = tree(corpus)
    found = typed(corpus, *TINY)
    assert (found.exit_code == 0) == is_enough
    if not is_enough:
        assert isinstance(found.exception, ConfigError)
        assert (
            "free another 1 byte, or encode less with --camera NAME, --where SQL or a larger --stride; --dtype int8 needs 28.5 kB"
            in str(found.exception)
        )
        assert found.exception.where == str(corpus)
        assert tree(corpus) == before


@pytest.mark.parametrize(("pack_mb", "objects"), [("0", 3), ("1", 1)])
def test_a_dry_run_counts_the_objects_that_a_run_writes(
    corpus: Path, pack_mb: str, objects: int
) -> None:
    cost = told(typed(corpus, *TINY, "--dry-run", "--pack-mb", pack_mb, "--json"))["plan"]["cost"]
    assert (cost["objects"], cost["puts"]) == (objects, objects)
    said = typed(corpus, *TINY, "--dry-run", "--pack-mb", pack_mb).stdout
    assert f"{objects} objects (PUTs)" in said


@pytest.mark.parametrize("pack_bytes", [1, 20_000, 30_000, 10**9])
def test_packs_are_counted_as_they_are_made(
    corpus: Path, tiny: ImageEncoder, pack_bytes: int
) -> None:
    todo = todo_of(open_corpus(corpus), snapshot.load(corpus), tiny.id)
    how = packing(tiny, pack_bytes)
    assert todo.num_units(how) == len(list(units_of(todo.files(), how, "a")))
    assert todo.num_units(None) == 3


def plan_on(corpus: Path, tiny: ImageEncoder, place: EncodePlace) -> LatentsPlan:
    """26 pictures; one encoder does 2 of them a second, one worker decodes 4."""
    found = CostEstimate(
        num_pictures=3,
        encode_per_s=2.0,
        decode_per_s=4.0,
        stored_error=(0.0, 0.0),
        storage_error=(0.0, 0.0),
    )
    todo = todo_of(open_corpus(corpus), snapshot.load(corpus), tiny.id)
    return LatentsPlan(todo=todo, encoder=tiny, probe=found, place=place)


def test_an_estimate_is_of_what_was_measured_only(corpus: Path, tiny: ImageEncoder) -> None:
    """Nobody measured the GPUs of a cluster; how long its CPUs decode at least is known."""
    gpus = plan_on(corpus, tiny, EncodePlace(name="Ray", workers=2, encoders=4, is_measured=False))
    assert gpus.estimated_s is None
    assert gpus.decoding_s == pytest.approx(26 / (2 * 4))
    said = "\n".join(plan_lines(gpus))
    assert (
        "the GPUs of the cluster are not measured; with 4 encoders and 2 decoder processes" in said
    )
    assert "3 images on the cpu of this machine (2.0 images/s per encoder, 4" in said
    cpus = plan_on(corpus, tiny, EncodePlace(name="Ray", workers=8, encoders=3))
    assert cpus.estimated_s == pytest.approx(26 / (3 * 2))
    here = plan_on(corpus, tiny, EncodePlace(name="cuda", workers=1, idle_gpus=7))
    assert here.estimated_s == pytest.approx(26 / 2)
    assert "7 of 8 GPUs of this machine stay idle; --ray" in "\n".join(plan_lines(here))


def test_the_cost_of_a_plan_by_hand(corpus: Path, tiny: ImageEncoder) -> None:
    """26 pictures: 13 s of an encoder, 6.5 s of a decoder process; a core does both where there is no GPU."""

    def cost(place: EncodePlace) -> dict[str, Any]:
        return plan_on(corpus, tiny, place).cost

    cpu = cost(EncodePlace(name="cpu", workers=1))
    assert (cpu["core_hours"], cpu["gpu_hours"]) == (pytest.approx(19.5 / 3600), 0.0)
    gpu = cost(EncodePlace(name="cuda", workers=4))
    assert gpu["core_hours"] == pytest.approx(6.5 / 3600)
    assert gpu["gpu_hours"] == pytest.approx(13 / 3600)
    cluster = cost(EncodePlace(name="Ray", workers=None, encoders=None, is_measured=False))
    assert (cluster["core_hours"], cluster["gpu_hours"]) == (pytest.approx(6.5 / 3600), None)
    assert (cpu["objects"], cpu["latents_tb"]) == (3, pytest.approx(26 * (16 * 64 * 2 + 8) / 1e12))
    unknown = EncodePlace(name="Ray", workers=None, encoders=None, is_measured=False)
    assert "unknown GPU-hours" in "\n".join(plan_lines(plan_on(corpus, tiny, unknown)))


def test_a_dry_run_for_ray_asks_no_cluster(corpus: Path) -> None:
    said = told(typed(corpus, *TINY, "--ray", "--dry-run", "--json"))["plan"]
    assert (said["device"], said["encoders"], said["estimated_s"]) == ("Ray", None, None)
    assert said["probe"]["measured_on"] == "cpu of this machine"
    assert "duration unknown" in typed(corpus, *TINY, "--address", "x:1", "--dry-run").stdout


def test_a_failure_is_exit_1_with_its_address(corpus: Path) -> None:
    videos_of(corpus)[0].unlink()
    found = typed(corpus, *TINY, "--json")
    assert found.exit_code == 1
    answer = told(found)
    assert (answer["encoded"], answer["failed"]) == (2, 1)
    assert answer["errors"] == {"missing_video": 1}
    assert "episode_000000.mp4" in answer["failures"][0]
    assert "failed missing_video" in typed(corpus, *TINY).stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--encoder", "dinov3"], "expected one of dinov3_vits16"),
        (["--encoder", "dinov3_vits16"], "--hub-id facebook/dinov3-vits16-pretrain-lvd1689m"),
        (["--encoder", "dinov3_tiny"], "add --untrained SEED"),
        (["--untrained", "0", "--hub-id", "a/b"], "only one of"),
        (["--weights", "nowhere"], "no config.json"),
        ([*TINY, "--camera", "wrist"], "available: top_head"),
        ([*TINY, "--where", "lenght > 1"], "lenght"),
        ([*TINY, "--gpus-per-encoder", "0.5"], "--gpus-per-encoder: has no effect without --ray"),
    ],
)
def test_mistakes_are_refused_before_any_work(corpus: Path, words: list[str], said: str) -> None:
    before = tree(corpus)
    found = typed(corpus, *words)
    assert isinstance(found.exception, ConfigError)
    assert said in str(found.exception)
    assert tree(corpus) == before


def test_one_writer_at_a_time(corpus: Path) -> None:
    with writer_lock(CorpusLayout(corpus)):
        found = typed(corpus, *TINY)
    assert "another eicorpus command is writing to this corpus" in str(found.exception)


def test_every_encoder_is_listed_with_its_licence() -> None:
    found = CliRunner().invoke(app, ["list", "encoders", "--json"])
    encoders = {row["encoder"]: row for row in told(found)["encoders"]}
    assert encoders["dinov3_vits16"]["patches"] == 196
    assert encoders["dinov3_vits16"]["gated"] == "yes"
    assert encoders["dinov2_vits14"]["patches"] == 256
    assert encoders["dinov3_tiny"]["hub_id"].startswith("none")
    assert "dinov3_vitl16" in CliRunner().invoke(app, ["list", "encoders"]).stdout


def test_shares_are_of_the_time_of_all_encoders() -> None:
    tally = LatentTally(
        discovered=9,
        num_pictures=300,
        busy_s=30.0,
        wait_s=8.0,
        write_wait_s=1.0,
        num_encoders=2,
    )
    assert shares_of(tally, 20.0) == {
        "pictures_per_s": 15.0,
        "encoder_busy_share": 0.75,
        "decode_wait_share": 0.2,
        "write_wait_share": 0.025,
    }
