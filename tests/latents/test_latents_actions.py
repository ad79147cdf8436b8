"""`eicorpus latents actions`: what is written is what the model says of the stored latents, and it is kept as other latents are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from benchmarks.annotated_corpus import build_manifest
from ingest.corpus import snapshot
from ingest.latents.token_file import read_latents
from jobs.cli import app
from schemas.errors import ConfigError
from schemas.latent_header import read_header
from schemas.latents import LATENTS, is_of_actions
from tests.training.corpus import ENCODER, Trainable, make
from training.data.file_check import VerifiedFiles
from training.policy.restored import restored_latent_actions
from training.run.checkpoint import WEIGHTS, checkpoint_of

pytestmark = pytest.mark.slow

LAM = {"width": 16, "num_heads": 2, "num_layers": 1, "decoder_layers": 1, "num_queries": 2, "code_width": 4, "num_codes": 8}  # fmt: skip
STEP = 3  # pictures of 0.3 s to 0.9 s


def command(*words: str) -> Any:
    done = CliRunner().invoke(app, [*words, "--json"], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return json.loads(done.stdout)["result"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Trainable:
    return make(tmp_path_factory.mktemp("actions"))


def trained_lam(manifest: Path, folder: Path) -> Path:
    """A small latent action model, trained for four steps: its run."""
    recipe = {
        "name": "small-lam",
        "extends": "lam",
        "data": {"future_s": 0.9, "cameras": ["front", "wrist"], "encoder": "tiny_vit"},
        "optimiser": {"warmup_steps": 2},
        "run": {"num_steps": 4, "batch_size": 8, "precision": "fp32", "compile": False, "num_workers": 0},
        "lara": {"kind": "lam", "lam": LAM},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command("train", str(manifest), "--recipe", str(folder / "recipe.yaml"), "--out", str(folder / "lam"), "--device", "cpu")  # fmt: skip
    return folder / "lam"


@pytest.fixture(scope="module")
def run(made: Trainable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_lam(made.manifest, tmp_path_factory.mktemp("run"))


def rows_of(corpus: Path) -> dict[str, dict[str, Any]]:
    rows = snapshot.load(corpus).read(corpus, "latents").to_pylist()
    return {row["uid"]: row for row in rows if is_of_actions(row["encoder_id"])}


def test_codes_are_what_the_model_says_of_two_pictures(
    made: Trainable, run: Path, tmp_path: Path
) -> None:
    corpus = made.copied(tmp_path / "corpus").corpus
    planned = command("latents", "actions", str(corpus), "--lam", str(run), "--device", "cpu", "--dry-run")  # fmt: skip
    assert rows_of(corpus) == {}
    done = command("latents", "actions", str(corpus), "--lam", str(run), "--device", "cpu")
    rows = rows_of(corpus)
    assert done["encoded"] == planned["episodes"] == len(rows) == len(made.uids)
    assert done["left_out"] == {"no_latents": 0}
    lara = restored_latent_actions(checkpoint_of(run), device=torch.device("cpu"))
    assert lara is not None
    all_latents = snapshot.load(corpus).read(corpus, "latents").to_pylist()
    codes = set()
    for uid, row in rows.items():
        said = read_latents(corpus / row["path"])
        sources = {r["camera"]: read_latents(corpus / r["path"]) for r in all_latents if r["uid"] == uid and r["encoder_id"] == ENCODER}  # fmt: skip
        assert row["camera"] == "front"
        tokens = [sources[c].patches.reshape(len(said.tokens), -1, 8) if c in sources else None for c in ("front", "wrist")]  # fmt: skip
        assert said.code is not None
        for index in range(len(said.tokens)):
            if index + STEP >= len(said.tokens):
                assert (said.code[index] == -1).all()
                assert (said.tokens[index] == 0).all()
                continue
            both = [
                torch.cat([torch.zeros(6, 8) if t is None else torch.from_numpy(t[at]) for t in tokens])
                for at in (index, index + STEP)
            ]  # fmt: skip
            has = torch.cat([torch.full((6,), t is not None) for t in tokens])
            with torch.no_grad():
                pair = lara.lam(both[0][None], both[1][None], has[None])
            np.testing.assert_allclose(said.tokens[index], pair.z[0], rtol=1e-2, atol=1e-3)
            assert said.code[index].tolist() == pair.quantised.code[0].tolist()
            codes |= set(said.code[index].tolist())
    assert len(codes) > 1
    # The other latents of this corpus are annotated, with a digest of nothing.
    findings = CliRunner().invoke(app, ["verify", str(corpus), "--deep", "--json"]).stdout
    paths = [each["path"] for each in json.loads(findings)["result"]["findings"]]
    assert len(paths) > 0
    assert not [path for path in paths if "/lam-" in path]


def test_a_second_run_makes_only_what_is_missing(
    made: Trainable, run: Path, tmp_path: Path
) -> None:
    corpus = made.copied(tmp_path / "corpus").corpus
    words = ("latents", "actions", str(corpus), "--lam", str(run), "--device", "cpu")
    command(*words)
    (first, *_) = rows_of(corpus).values()
    before = (corpus / first["path"]).read_bytes()
    (corpus / first["path"]).unlink()
    again = command(*words)
    assert (again["encoded"], again["up_to_date"]) == (1, len(made.uids) - 1)
    assert (corpus / first["path"]).read_bytes() == before
    command("forget", str(corpus), first["uid"], "--reason", "asked")
    assert not (corpus / first["path"]).exists()
    assert first["uid"] not in rows_of(corpus)


def test_training_takes_no_latent_actions_for_pictures(
    made: Trainable, run: Path, tmp_path: Path
) -> None:
    corpus = made.copied(tmp_path / "corpus").corpus
    command("latents", "actions", str(corpus), "--lam", str(run), "--device", "cpu")
    manifest = build_manifest(corpus, "with_codes")
    small = ("--steps", "1", "--set", "run.batch_size=8", "--set", "architecture.width=16", "--set", "architecture.num_heads=2", "--device", "cpu")  # fmt: skip
    command("train", str(manifest), "--out", str(tmp_path / "ok"), "--set", "data.encoder=tiny_vit", *small)  # fmt: skip
    with pytest.raises(ConfigError, match="latents of another encoder"):
        command("train", str(manifest), "--out", str(tmp_path / "no"), "--set", "data.encoder=lam", *small)  # fmt: skip


def test_what_does_not_fit_is_refused(made: Trainable, run: Path, tmp_path: Path) -> None:
    corpus = made.copied(tmp_path / "corpus").corpus
    with pytest.raises(ConfigError, match=r"no whole checkpoint|available steps"):
        command("latents", "actions", str(corpus), "--lam", str(tmp_path / "nowhere"))
    plain = tmp_path / "plain"
    command("train", str(made.manifest), "--out", str(plain), "--steps", "1", "--set", "run.batch_size=8", "--set", "data.encoder=tiny_vit", "--device", "cpu")  # fmt: skip
    with pytest.raises(ConfigError, match="no latent action model"):
        command("latents", "actions", str(corpus), "--lam", str(plain), "--device", "cpu")
    other = Path(shutil.copytree(run, tmp_path / "other"))
    state = checkpoint_of(other).folder / "state.json"
    state.write_text(state.read_text().replace(ENCODER, "missing_vit-0123456789ab"))
    with pytest.raises(ConfigError, match="no episode has latents of missing_vit-0123456789ab"):
        command("latents", "actions", str(corpus), "--lam", str(other), "--device", "cpu")
    assert rows_of(corpus) == {}
    assert (checkpoint_of(run).folder / WEIGHTS).exists()


@pytest.mark.parametrize(
    ("is_compared", "named"), [(True, "as committed"), (False, "NaN or infinity in the picture")]
)
def test_latents_that_rotted_become_no_latent_actions(
    made: Trainable,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_compared: bool,
    named: str,
) -> None:
    """A picture of NaN, under the digest of before or one of its own: the episode fails by name, the others are made."""
    corpus = made.copied(tmp_path / "corpus").corpus
    latents = snapshot.load(corpus).read(corpus, "latents").to_pylist()
    spoilt = next(row for row in latents if row["encoder_id"] == ENCODER)
    path = corpus / spoilt["path"]
    start = read_header(path).tensors[LATENTS].start
    content = bytearray(path.read_bytes())
    content[start : start + 2 * 7 * 8] = b"\xc0\x7f" * 7 * 8  # bfloat16, one picture
    path.write_bytes(content)
    if not is_compared:
        monkeypatch.setattr(VerifiedFiles, "other_digest", lambda *_: "")
    words = ("latents", "actions", str(corpus), "--lam", str(run), "--device", "cpu", "--json")
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    result = json.loads(done.stdout)["result"]
    assert (result["failed"], result["encoded"]) == (1, len(made.uids) - 1)
    assert named in result["failures"][0]
    assert spoilt["path"] in result["failures"][0]
    assert spoilt["uid"] not in rows_of(corpus)
    assert not list(corpus.rglob(".*.part"))
