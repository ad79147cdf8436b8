"""`eicorpus verify DIR --as FORMAT` checks the rules of the format's loader, not the digests of the files alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ingest.corpus.manifest_folders import page_bytes, rows_bytes
from ingest.export.datasets.run import PAGE, export_digest, file_facts
from schemas.manifest import FACTS_FILE, FOLDER, ROWS_FILE
from tests.ingest import test_export_groot as groot
from tests.ingest import test_export_lda as lda
from tests.ingest import test_export_lerobot_v3 as v3
from tests.ingest import test_export_lingbot_va as lingbot
from tests.ingest.export_cases import NumberedWrists, manifest_of, numbered_corpus, page_of
from tests.ingest.test_export_rules import MISTAKES, dataset_of
from tests.jobs.build_cases import invoke

SEGMENTS = [("a", 0, 37), ("b", 0, 24)]
OPTIONS = {
    "lerobot-v3": [],
    "groot": [],
    "lda": [],
    "openpi": [],
    "lingbot-va": ["--untrained", "7", "--size", "64x128", "--frame-stride", "2"],
}
# One mistake of each format, by what the command says of it.
TOLD = {
    "lerobot-v3": "episode 0: index is not contiguous",
    "groot": "action has not exactly the six",
    "lda": "left_eef_rotation is no roll, pitch and yaw",
    "openpi": "q01 of state is outside of the data",
    "lingbot-va": "no constant stride (rule 6)",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = numbered_corpus(tmp_path_factory.mktemp("numbered"), NumberedWrists)
    chosen = manifest_of(corpus, SEGMENTS)
    folder = corpus / FOLDER / "chosen"
    folder.mkdir(parents=True)
    (folder / ROWS_FILE).write_bytes(rows_bytes(chosen.rows))
    (folder / FACTS_FILE).write_bytes(page_bytes(chosen.facts))
    return corpus


@pytest.fixture(scope="module")
def exports(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an export in each format, by the command."""
    root = tmp_path_factory.mktemp("exports")
    for name, options in OPTIONS.items():
        words = ["export", str(corpus), "--manifest", "chosen", "--to", name, "--workers", "0"]
        assert invoke(*words, *options, "--out", str(root / name)).exit_code == 0
    return root


def verified(out: Path, name: str) -> tuple[int, list[str]]:
    done = invoke("verify", str(out), "--as", name, "--json")
    return done.exit_code, json.loads(done.stdout)["result"]["findings"]


def seal(out: Path) -> None:
    """Write the digests of the files as they are now, as another exporter with a mistake would."""
    page = page_of(out)
    files = {place: file_facts(out / place) for place in page["files"] if (out / place).is_file()}
    files |= {
        path.relative_to(out).as_posix(): file_facts(path)
        for path in out.rglob("*")
        if path.is_file() and path.name not in (PAGE, ".corpus")
    }
    page["files"] = {place: {"num_bytes": n, "sha256": sha} for place, (n, sha) in files.items()}
    page["sha256"] = export_digest(files)
    (out / PAGE).write_text(json.dumps(page))


@pytest.mark.parametrize("name", OPTIONS)
def test_an_export_of_the_command_passes(name: str, exports: Path) -> None:
    assert verified(exports / name, name) == (0, [])


@pytest.mark.parametrize("name", OPTIONS)
def test_a_mistake_is_named_where_every_digest_is_right(
    name: str, exports: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(exports / name, out)
    plant = next(plant for of, plant, told in MISTAKES if (of, told) == (name, TOLD[name]))
    plant(dataset_of(out, name))
    seal(out)
    code, findings = verified(out, name)
    assert code == 1
    assert any(TOLD[name] in each for each in findings), findings
    assert not any(each.endswith(": changed") for each in findings)
    shown = invoke("verify", str(out), "--as", name)
    assert shown.exit_code == 1
    assert TOLD[name] in " ".join(shown.output.split())


def test_o_a_lingbot_export_passes_our_checker_and_the_contract(exports: Path) -> None:
    """Test (o) of the list (a) to (s) in the plan of models: an export passes the contract of LingBot-VA's loader, by two checkers.

    The command's rules, and the contract as the tests write it from the page of the loader, which also makes the samples that the model takes.
    """
    out = exports / "lingbot-va"
    assert verified(out, "lingbot-va") == (0, [])
    assert list(lingbot.problems(out)) == []
    cfg = lingbot.config_of(out)
    assert cfg.env_type == "robotwin_tshape"
    clips = 0
    for number, episode in enumerate(lingbot.lines(Path(cfg.dataset_path) / "meta/episodes.jsonl")):
        for clip in episode["action_config"]:
            latents, actions, mask = lingbot.sample(cfg, number, clip)
            frames = latents.shape[1]
            assert latents.shape == (48, frames, 6, 8)  # wrists of 2 x 4 above a scene of 4 x 8
            assert actions.shape == (30, frames, cfg.action_per_frame, 1)
            assert mask.sum() == len(cfg.used_action_channel_ids) == 16
            clips += 1
    assert clips == page_of(out)["clips"][page_of(out)["datasets"][0]["folder"]] == 2


def test_the_other_checkers_of_the_tests_agree(exports: Path) -> None:
    for name, problems, dataset in (
        ("lerobot-v3", v3.problems, v3.datasets(exports / "lerobot-v3")[0]),
        ("groot", groot.problems, groot.dataset_of(exports / "groot")),
        ("lda", lda.problems, lda.folder(exports / "lda")),
    ):
        found: Any = list(problems(dataset))
        assert found == [], name
