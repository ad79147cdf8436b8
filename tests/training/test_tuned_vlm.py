"""The last layers of a language model in the step are trained: which, how fast, and that they are part of the run. The model is tiny."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from schemas.errors import ConfigError
from schemas.text_features import FeatureSettings
from tests.curation.caption.tiny_qwen import write_tiny_qwen
from tests.training.corpus import Trainable
from tests.training.image_text_file import write_pairs
from tests.training.running import free_port
from tests.training.test_policy_vlm import run_of
from tests.training.test_train_cli import train, words
from training.conditioning.online import OnlineConditioner, OnlineReader
from training.conditioning.text_model import text_id_of
from training.policy.observation import Observation
from training.policy.policy import Policy, PolicySettings
from training.recipe import OnlineText, TrainRecipe
from training.run.checkpoint import AVERAGES, OPTIMISER, WEIGHTS, Checkpoint, checkpoint_of
from training.run.resume import check_text

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
SMALL = (
    "architecture.width=16", "architecture.num_layers=1", "architecture.num_heads=2", "run.batch_size=4",
    "run.log_every=1", "run.checkpoint_every=2", "data.encoder=tiny_vit", "run.num_steps=4",
    "optimiser.warmup_steps=1", "architecture.dropout=0.1",
)  # fmt: skip
LAYER = "conditioner.layers.1."  # the second and last one of the model
PROJECTION = f"{LAYER}mlp.up_proj.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="NOT RUN: the vlm extra is not installed")
    return write_tiny_qwen(tmp_path_factory.mktemp("tiny_qwen"))


def sets(*settings: str) -> list[str]:
    return [word for each in (*SMALL, *settings) for word in ("--set", each)]


def online(folder: Path, **more: Any) -> str:
    text = {"kind": "online", "model": str(folder), "with_pictures": False, "train_last": 1}
    return "text=" + json.dumps(text | more)


def beside(folder: Path, **more: Any) -> str:
    settings = {"data": str(write_pairs(folder)), "batch_size": 4, "every": 2, "weight": 0.5}
    return "image_text=" + json.dumps(settings | more)


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def tensors(run: Path, file: str = WEIGHTS) -> dict[str, torch.Tensor]:
    return checkpoint_of(run).tensors(file)


@pytest.fixture(scope="module")
def tuned(trainable: Trainable, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with averages and pairs."""
    root = tmp_path_factory.mktemp("tuned")
    train(trainable.manifest, root / "run", *sets(online(folder), beside(root / "pairs")))
    return root / "run"


def test_only_the_last_layers_are_trained(folder: Path, tmp_path: Path) -> None:
    """Of the last one every matrix has a gradient, of what lies before it nothing is kept; what it says is what the frozen model says."""
    frozen, tuned = OnlineConditioner(folder, -1), OnlineConditioner(folder, -1, 1)
    assert sorted({name.split(".")[1] for name, _ in tuned.named_parameters()}) == ["1"]
    reader = OnlineReader(corpus=tmp_path, folder=folder, settings=OnlineText(model="unused"))
    picture = np.random.default_rng(0).integers(0, 255, (96, 160, 3), dtype=np.uint8)
    inputs = reader.of(["go", "put it there"], [picture, None])
    output = tuned._run(inputs.by_text, output_hidden_states=True)
    assert [x.requires_grad for x in output.hidden_states] == [False, False, True]
    text = tuned(inputs)
    torch.testing.assert_close(text.values, frozen(inputs).values, rtol=2**-8, atol=1e-4)
    text.values.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in tuned.parameters())
    (model,) = tuned._frozen
    ours = {id(p) for p in tuned.parameters()}
    assert all(p.grad is None and not p.requires_grad for p in model.parameters() if id(p) not in ours)  # fmt: skip
    assert not frozen(inputs).values.requires_grad


def test_layers_are_counted_from_the_hidden_state_that_is_read(folder: Path) -> None:
    assert list(OnlineConditioner(folder, 1, 1).layers) == ["0"]
    with pytest.raises(ConfigError, match=r"2 layers; the hidden state 1 .* has 1 layers before"):
        OnlineConditioner(folder, 1, 2)


def test_a_run_in_two_pieces_is_the_run_in_one(
    trainable: Trainable, folder: Path, tuned: Path, tmp_path: Path
) -> None:
    """Weights, averages and moments of the layers are in its checkpoints; they moved, and by a rate of their own."""
    settings = sets(online(folder), beside(tuned.parent / "pairs"))
    train(trainable.manifest, tmp_path / "two", "--until", "2", *settings)
    train(trainable.manifest, tmp_path / "two", *settings)
    for file in (WEIGHTS, AVERAGES, OPTIMISER):
        one, two = ((checkpoint_of(run).folder / file).read_bytes() for run in (tuned, tmp_path / "two"))  # fmt: skip
        assert one == two
    before = OnlineConditioner(folder, -1, 1).layers.state_dict()["1.mlp.up_proj.weight"]
    for file in (WEIGHTS, AVERAGES):
        after = tensors(tuned, file)[PROJECTION]
        assert after.dtype == torch.float32
        moved = (after - before).abs().max()
        assert 0 < moved < 5e-5  # Adam moves a weight by 1e-5 a step, where others go by 2e-3
    assert f"exp_avg.{PROJECTION}" in tensors(tuned, OPTIMISER)
    assert not [name for name in tensors(tuned) if "layers.0" in name and "conditioner" in name]


@pytest.mark.parametrize("how", ["ddp", "fsdp2"])
def test_two_ranks_are_one(trainable: Trainable, folder: Path, tmp_path: Path, how: str) -> None:
    """With pairs beside the samples, in two parts; a checkpoint in parts has the layers."""
    settings = sets(
        online(folder, lr=1e-3), beside(tmp_path / "pairs", every=1), "run.accumulate=2",
        "run.batch_size=8", "architecture.dropout=0.0", "optimiser.eps=1.0e-3", f"run.parallel={how}",
    )  # fmt: skip
    train(trainable.manifest, tmp_path / "one", *settings)
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = words(trainable.manifest, tmp_path / "two", *settings, small=())
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "jobs", *command],
            cwd=Path(__file__).parents[2],
            env=environment | {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    told = [rank.communicate(timeout=400)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], told
    assert checkpoint_of(tmp_path / "two").is_sharded == (how == "fsdp2")
    one, two = (tensors(tmp_path / name) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, x in one.items():
        torch.testing.assert_close(x, two[name], rtol=1e-4, atol=2e-6, msg=name)
    logs = [
        [line["loss_image_text"] for line in log_of(tmp_path / name)] for name in ("one", "two")
    ]
    assert len(logs[0]) == 4
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)


def test_what_is_computed_again_is_the_same(
    trainable: Trainable, folder: Path, tuned: Path, tmp_path: Path
) -> None:
    settings = sets(online(folder), beside(tuned.parent / "pairs"))
    run = tmp_path / "again"
    train(trainable.manifest, run, *settings, "--set", "run.checkpoint_activations=true")
    assert torch.equal(tensors(run)[PROJECTION], tensors(tuned)[PROJECTION])


def test_a_policy_is_served_with_its_layers(tuned: Path) -> None:
    latents = {"front": np.ones((2, 7, 8), np.float32), "wrist": np.ones((2, 7, 8), np.float32)}
    seen = Observation(text="close the box", embodiment="umi", latents=latents)
    for is_averaged, file in ((False, WEIGHTS), (True, AVERAGES)):
        policy = Policy.load(tuned, settings=PolicySettings(use_averages=is_averaged), device="cpu")
        layers = policy.learner.conditioner.state_dict(prefix="conditioner.")
        assert torch.equal(layers[PROJECTION], tensors(tuned, file)[PROJECTION])
        said = policy.act(seen).targets
        with torch.no_grad():
            for p in policy.learner.conditioner.parameters():
                p.mul_(1.5)
        assert not np.array_equal(policy.act(seen).targets, said)


def test_it_begins_with_a_run_of_the_frozen_model_and_not_the_other_way(
    trainable: Trainable, folder: Path, tuned: Path, tmp_path: Path
) -> None:
    train(trainable.manifest, tmp_path / "frozen", *sets(online(folder, train_last=0)))
    base = ["--init-from", str(tmp_path / "frozen"), "--recipe", "finetune"]
    more = sets(online(folder, train_last=2))
    train(trainable.manifest, tmp_path / "tuned", *base, *more)
    assert PROJECTION in tensors(tmp_path / "tuned")
    assert PROJECTION.replace("1", "0", 1) in tensors(tmp_path / "tuned")
    with pytest.raises(ConfigError, match=r"trained layers of its language model.*train_last: 1}"):
        train(
            trainable.manifest, tmp_path / "back", "--init-from", str(tuned), "--recipe", "finetune",
            *sets(online(folder, train_last=0), "image_text=null"),
        )  # fmt: skip


def test_stored_features_of_some_images_are_continued_with_that_of_now(
    folder: Path, tmp_path: Path
) -> None:
    """The same model and prompt, and only how often it saw an image differs."""
    reader = OnlineText(model=str(folder))
    now = settings_with(0.1)
    conditioner: Any = SimpleNamespace(text_id=text_id_of(folder, now), text_settings=now)

    def stored(name: str, **changed: Any) -> Checkpoint:
        was = settings_with(0.5).model_copy(update=changed)
        cached = {"kind": "cached", "encoder": "text_qwen3_vl"}
        state = {"text_id": text_id_of(folder, was), "text_settings": was}
        return checkpoint_of(run_of(tmp_path / name, cached, **state))

    check_text(stored("same"), conditioner, online=reader)
    for begun, online_now in ((stored("same2"), None), (stored("other", prompt="{text}"), reader), (stored("blind", picture_every_s=None), reader)):  # fmt: skip
        with pytest.raises(ConfigError, match="the text encoder is"):
            check_text(begun, conditioner, online=online_now)
    another = write_tiny_qwen(tmp_path / "another")
    (another / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="the text encoder is"):
        check_text(stored("same3"), conditioner, online=OnlineText(model=str(another)))


def settings_with(every_s: float) -> FeatureSettings:
    return FeatureSettings(layer=2, picture_every_s=every_s)


def test_a_plan_counts_the_layers_and_says_what_the_model_sees(
    trainable: Trainable, folder: Path, tmp_path: Path
) -> None:
    def plan(*settings: str) -> dict[str, Any]:
        return train(trainable.manifest, tmp_path / "run", "--dry-run", *sets(*settings))

    frozen = plan(online(folder, train_last=0))
    tuned = plan(online(folder, with_pictures=True, lr=3e-5))
    both = plan(online(folder, with_pictures=True), beside(tmp_path / "pairs"))
    layer = sum(p.numel() for p in OnlineConditioner(folder, -1, 1).parameters())
    assert tuned["parameters"]["conditioner"] == layer
    assert frozen["parameters"]["conditioner"] == 0
    assert tuned["memory"]["state"] - frozen["memory"]["state"] == 20 * layer  # with averages
    whole = sum(p.nbytes for p in OnlineConditioner(folder, -1)._frozen[0].parameters())
    head = OnlineConditioner(folder, -1, 1, has_answers=True)._head[0].weight.nbytes
    assert frozen["memory"]["frozen"] == whole
    assert tuned["memory"]["frozen"] == whole - 4 * layer
    assert both["memory"]["frozen"] == whole + head - 4 * layer
    assert tuned["memory"]["total"] == sum(v for k, v in tuned["memory"].items() if k != "total")
    assert tuned["memory"]["activations"] > frozen["memory"]["activations"]
    assert both["memory"]["activations"] > tuned["memory"]["activations"]
    assert tuned["flops_per_sample"] > frozen["flops_per_sample"] + 6 * 20 * layer
    told = tuned["language_model"]
    assert (told["images"], told["image_every_s"], told["camera"]) == (True, 0.1, "*")
    assert (told["trained_layers"], told["lr"]) == ([1], 3e-5)
    assert frozen["language_model"]["images"] is False
    assert frozen["language_model"]["trained_layers"] == []
    assert (both["image_text"]["pairs"], tuned["image_text"]) == (12, {})


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        ({"text": {"kind": "cached", "encoder": "x", "train_last": 2}}, "these features are stored"),
        ({"text": {"kind": "online", "model": "x"}, "image_text": {"data": "x"}}, "none is trained"),
        ({"text": {"kind": "online", "model": "x", "train_last": 1}, "lara": {"kind": "lam"}}, "reads no text"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(recipe: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        TrainRecipe.model_validate({"name": "x"} | recipe)


def test_a_recipe_of_before_is_the_same_recipe() -> None:
    frozen = TrainRecipe.model_validate({"name": "x", "text": {"kind": "online", "model": "m"}})
    faster = frozen.model_copy(update={"text": frozen.text.model_copy(update={"lr": 1.0})})
    assert faster.digest() == frozen.digest()
    tuned = frozen.model_copy(update={"text": frozen.text.model_copy(update={"train_last": 1})})
    assert tuned.digest() != frozen.digest()
