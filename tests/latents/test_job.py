"""`eicorpus latents` as it is typed: the plan, the report that adds up, exit codes, and refusals before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ingest.corpus import Corpus, writer_lock
from ingest.latents.run import LatentTally
from jobs.cli import app
from jobs.latents_report import shares_of
from schemas.errors import ConfigError
from tests.faults.runs import tree
from tests.latents.corpora import rows_of, videos_of

TINY = ("--encoder", "dinov3_tiny", "--untrained", "0", "--device", "cpu", "--workers", "0")


def typed(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["latents", *map(str, words)])


def told(found: Result) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(found.stdout)
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
    assert "26 pictures of 3 videos in 3 episodes" in found.stderr
    assert "an estimate from 12 pictures" in found.stderr
    assert "1 - cosine of a token" in found.stderr
    assert "encoder_busy_share" in found.stdout


def test_a_dry_run_touches_nothing(corpus: Path) -> None:
    before = tree(corpus)
    found = typed(corpus, *TINY, "--dry-run", "--json")
    assert (found.exit_code, told(found)["plan"]["pictures"]) == (0, 26)
    assert "bf16 is written" in typed(corpus, *TINY, "--dry-run").stdout
    assert tree(corpus) == before


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
        (["--encoder", "dinov3"], "there are dinov3_vits16"),
        (["--encoder", "dinov3_vits16"], "--hub-id facebook/dinov3-vits16-pretrain-lvd1689m"),
        (["--encoder", "dinov3_tiny"], "give --untrained SEED"),
        (["--untrained", "0", "--hub-id", "a/b"], "only one of"),
        (["--weights", "nowhere"], "no config.json"),
        ([*TINY, "--camera", "wrist"], "there are top_head"),
        ([*TINY, "--where", "lenght > 1"], "lenght"),
    ],
)
def test_mistakes_are_refused_before_any_work(corpus: Path, words: list[str], said: str) -> None:
    before = tree(corpus)
    found = typed(corpus, *words)
    assert isinstance(found.exception, ConfigError)
    assert said in str(found.exception)
    assert tree(corpus) == before


def test_one_writer_at_a_time(corpus: Path) -> None:
    with writer_lock(Corpus(corpus)):
        found = typed(corpus, *TINY)
    assert "another ingest is writing here" in str(found.exception)


def test_every_encoder_is_listed_with_its_licence() -> None:
    found = typed("--list", "--json")
    encoders = {row["encoder"]: row for row in told(found)["encoders"]}
    assert encoders["dinov3_vits16"]["patches"] == 196
    assert encoders["dinov3_vits16"]["gated"] == "yes"
    assert encoders["dinov2_vits14"]["patches"] == 256
    assert encoders["dinov3_tiny"]["hub_id"].startswith("none")
    assert "dinov3_vitl16" in typed("--list").stdout


def test_shares_are_of_the_time_of_all_encoders() -> None:
    tally = LatentTally(discovered=9, num_pictures=300, busy_s=30.0, wait_s=8.0, num_encoders=2)
    assert shares_of(tally, 20.0) == {
        "pictures_per_s": 15.0,
        "encoder_busy_share": 0.75,
        "decode_wait_share": 0.2,
    }
