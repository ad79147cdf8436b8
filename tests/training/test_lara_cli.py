"""`eicorpus train` and `eval` with LARA's three stages, as a person runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from jobs.cli import app
from schemas.errors import ConfigError
from tests.training.corpus import Trainable
from tests.training.running import Told
from training.evaluation import motion_probe
from training.policy.restored import restored
from training.run.checkpoint import WEIGHTS, checkpoint_of

pytestmark = pytest.mark.slow

LAM = {"width": 16, "num_heads": 2, "num_layers": 1, "decoder_layers": 1, "num_queries": 2, "code_width": 4, "num_codes": 8}  # fmt: skip
RUN = {"num_steps": 6, "batch_size": 8, "precision": "fp32", "compile": False, "num_workers": 0, "log_every": 2, "checkpoint_every": 3, "eval_every": 3, "eval_samples": 8}  # fmt: skip
SMALL = {
    "architecture": {"width": 16, "num_layers": 2, "num_heads": 2},
    "optimiser": {"warmup_steps": 2, "ema": 0.5},
}


def command(*words: str) -> Any:
    done = CliRunner().invoke(app, [*words, "--device", "cpu", "--json"], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return json.loads(done.stdout)["result"]


def recipe(folder: Path, name: str, **content: Any) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": name, "run": RUN, **content}))
    return str(path)


def log_of(run: Path) -> dict[str, Any]:
    """Its last line."""
    return dict(json.loads((run / "log.jsonl").read_text().splitlines()[-1]))


def test_the_three_stages(
    trainable: Trainable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, encoder = str(trainable.manifest), ("--set", "data.encoder=tiny_vit")
    lam, joint, post, plain = (tmp_path / name for name in ("lam", "joint", "post", "plain"))
    first = recipe(tmp_path, "first", extends="lam", data={"future_s": 0.9}, optimiser={"warmup_steps": 2}, lara={"kind": "lam", "lam": LAM})  # fmt: skip
    command("train", manifest, "--out", str(lam), "--recipe", first, *encoder)
    line = log_of(lam)
    assert line["loss_by_task"] == {}
    assert 0 < line["lara"]["reconstruction"] < 2 * line["lara"]["copied"]
    assert line["val_loss"] > 0
    assert all(name.startswith("lara.lam.") for name in checkpoint_of(lam).tensors(WEIGHTS))

    aligned = {"kind": "joint", "future_s": 0.9, "after_block": 1, "lam": LAM}
    second = recipe(tmp_path, "second", extends="tiny", **SMALL, lara=aligned)
    command("train", manifest, "--out", str(joint), "--recipe", second, "--init-lam", str(lam), *encoder)  # fmt: skip
    line = log_of(joint)
    assert line["lara"]["num_aligned"] > 0
    assert -1 <= line["lara"]["cosine"] <= 1
    assert set(line["loss_by_task"]) == {"policy", "inverse_dynamics", "forward_dynamics", "visual_forecasting"}  # fmt: skip

    command("train", manifest, "--out", str(plain), "--recipe", recipe(tmp_path, "none", extends="tiny", **SMALL), *encoder)  # fmt: skip
    plug_in = recipe(tmp_path, "third", extends="lara_post", lara=aligned)
    for base, more in ((joint, ()), (plain, ("--init-lam", str(lam)))):
        out = post / base.name
        command("train", manifest, "--out", str(out), "--recipe", plug_in, "--init-from", str(base), *more, *encoder)  # fmt: skip
        assert log_of(out)["lara"]["num_aligned"] > 0
    with pytest.raises(ConfigError, match="no latent action model"):
        command("train", manifest, "--out", str(tmp_path / "bad"), "--recipe", second, "--init-lam", str(plain), *encoder)  # fmt: skip

    alone = command("eval", str(lam))["latent_actions"]
    assert set(alone["r2"]) == {"latent_action", "code", "random_code", "picture_of_now", "nothing_moves"}  # fmt: skip
    both = command("eval", str(joint), "--max-samples", "20")
    assert both["lines"]
    assert both["latent_actions"]["num_scored"] > 0
    assert "latent_actions" not in command("eval", str(plain), "--max-samples", "20")
    with monkeypatch.context() as patched:  # as where too few held-out episodes act
        patched.setattr(motion_probe, "LEAST_EPISODES", 1000)
        without = command("eval", str(joint), "--max-samples", "20")
        assert without["lines"] == both["lines"]
        assert "latent_actions" not in without
        assert "no body has 1000 episodes" in without["latent_actions_left_out"]
        with pytest.raises(ConfigError, match="no body has 1000 episodes"):  # there is nothing else
            command("eval", str(lam))
    with pytest.raises(ConfigError, match="has no errors of actions"):
        command("eval", str(lam), "--must-beat", "zero_action")
    with pytest.raises(ConfigError, match="cannot be scored on it"):
        command("eval", str(lam), "--split", "train")
    with pytest.raises(ConfigError, match="acts by itself on nothing"):
        restored(checkpoint_of(lam), Told(), use_averages=False, device=torch.device("cpu"))


def test_a_run_is_not_gone_on_with_from_another_latent_action_model(
    trainable: Trainable, tmp_path: Path
) -> None:
    lara = {"kind": "joint", "future_s": 0.9, "after_block": 1, "lam": LAM}
    page = recipe(tmp_path, "second", extends="tiny", **SMALL, lara=lara)
    words = ("train", str(trainable.manifest), "--recipe", page, "--set", "data.encoder=tiny_vit")
    command(*words, "--out", str(tmp_path / "one"), "--until", "3")
    with pytest.raises(ConfigError, match="--init-lam"):
        command(*words, "--out", str(tmp_path / "one"), "--init-lam", str(tmp_path / "other"))
