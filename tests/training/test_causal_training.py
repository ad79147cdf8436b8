"""`eicorpus train --recipe causal_tiny` as a person runs it: to the end, interrupted and resumed, evaluated, refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from jobs.cli import app
from schemas.errors import ConfigError
from schemas.manifest import Manifest
from schemas.supervision import Task
from tests.training.corpus import Trainable, body_of, poses_of, tokens_of
from tests.training.test_train_cli import words
from tests.training.tiny import chosen
from training.causal.learner import CausalLearner
from training.causal.network import CausalNetwork
from training.causal.policy import CausalPolicy
from training.causal.sampler import CausalSampler, ChunkNoise, KnownFrames
from training.causal.settings import CausalArchitecture, CausalModelSettings
from training.conditioning.hashed_words import NoTextReader
from training.conditioning.open import open_conditioner
from training.data.loader import Loader
from training.data.sequences import sequences_of
from training.evaluation.draws import SampleNoise
from training.evaluation.last_frame import LastFrameSampler, sequences_to_the_last
from training.model.text import padded
from training.policy.policy import Policy
from training.recipe import load_recipe
from training.run.architecture import causal_settings
from training.run.checkpoint import checkpoint_of
from training.run.micro_batch import moved

pytestmark = pytest.mark.slow

SMALL = (
    "architecture.width=24", "architecture.num_layers=1", "architecture.num_heads=2", "architecture.ff_width=32",
    "text.width=8", "run.batch_size=10", "run.log_every=1", "run.checkpoint_every=2", "data.encoder=tiny_vit",
    "run.num_steps=6", "optimiser.warmup_steps=2",
)  # fmt: skip


def train(manifest: Path, out: Path, *more: str) -> dict[str, Any]:
    """What `--json` says."""
    asked = words(manifest, out, "--recipe", "causal_tiny", *more, small=SMALL)
    done = CliRunner().invoke(app, asked, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return dict(json.loads(done.stdout)["result"])


def test_a_resumed_run_is_the_run_in_one(trainable: Trainable, tmp_path: Path) -> None:
    """Bit by bit: weights, averages and optimiser."""
    whole = train(trainable.manifest, tmp_path / "one")
    assert whole["step"] == 6
    train(trainable.manifest, tmp_path / "two", "--until", "3")
    rest = train(trainable.manifest, tmp_path / "two")
    assert (rest["step"], rest["resumed_from"]) == (6, 3)
    for path in sorted(checkpoint_of(tmp_path / "one").folder.iterdir()):
        other = checkpoint_of(tmp_path / "two").folder / path.name
        assert path.read_bytes() == other.read_bytes(), path.name
    state = checkpoint_of(tmp_path / "one").state
    assert isinstance(state.model, CausalModelSettings)
    assert (state.model.num_frames, state.model.actions_per_frame) == (7, 3)


def test_parts_of_a_batch_make_the_same_step(trainable: Trainable, tmp_path: Path) -> None:
    one = train(trainable.manifest, tmp_path / "one", "--until", "2")
    five = train(trainable.manifest, tmp_path / "five", "--until", "2", "--set", "run.accumulate=5")
    assert five["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert five["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-4)
    assert five["loss_by_task"] == pytest.approx(one["loss_by_task"], rel=1e-5)


def test_a_run_is_evaluated_served_and_not_taken_for_another(
    trainable: Trainable, tmp_path: Path
) -> None:
    """Held-out losses in the log; `serve-policy` loads it; what asks a four-task network says that it is none."""
    result = train(trainable.manifest, tmp_path / "run", "--until", "2", "--set", "run.eval_every=2", "--set", "run.eval_samples=8")  # fmt: skip
    by_task = result["val_loss_by_task"]
    assert set(by_task) == {"policy", "forward_dynamics", "visual_forecasting"}
    frames = (by_task["forward_dynamics"], by_task["visual_forecasting"])
    assert min(frames) - 1e-6 <= result["val_loss"] - by_task["policy"] <= max(frames) + 1e-6
    made = CausalPolicy.load(tmp_path / "run", device="cpu")
    assert made.embodiments == ("umi", "umi_bimanual")
    talk = made.conversation()
    talk.reset("trace circle 1", "umi")
    actions = talk.infer({"front": np.zeros((6, 8), np.float32)})
    assert actions.shape == (7, 2, 3)
    assert np.isfinite(actions).all()
    with pytest.raises(ConfigError, match="block-causal network, which is asked chunk by chunk"):
        Policy.load(tmp_path / "run", device="cpu")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("data.past_s=[-0.6,0.0]", "frames at -0.6, 0, 0.3 s do not follow each other"),
        ("data.num_history=3", "3 rows of history and 3 of actions"),
        ("architecture.patch=2", "2 x 3 are not divisible into patches of 2"),
        (
            "routing.shares.inverse_dynamics=1",
            "block_causal takes no routing.shares.inverse_dynamics",
        ),
        ("run.num_draws=2", "block_causal takes no run.num_draws"),
        ("data.with_state=true", "block_causal takes no data.with_state"),
        ("architecture.objective.chunk=[3,1]", "expected 1 <= low <= high"),
        ("architecture.num_heads=5", "must be 5 (heads) times an even number"),
    ],
)
def test_what_is_no_sequence_is_refused_before_anything_is_written(
    trainable: Trainable, tmp_path: Path, change: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        train(trainable.manifest, tmp_path / "run", "--set", change)
    assert not (tmp_path / "run").exists()


def test_frames_and_actions_are_those_of_the_episode(
    manifest: Manifest, trainable: Trainable
) -> None:
    """Against the episode that the corpus was made from: frame f has the picture of its time and the motions that end there."""
    recipe = load_recipe("causal_tiny", {"data": {"encoder": "tiny_vit", "cameras": ["front"]}})
    made = Loader(manifest, recipe, reader=NoTextReader())
    numbers = {uid: number for number, uid in trainable.uids.items()}
    num_absent = num_compared = 0
    for task in (Task.POLICY, Task.VISUAL_FORECASTING):
        for batch in made.at(made.places(task, 60), batch_size=20):
            like = sequences_of(batch)
            stored = made.normaliser.decode(like.action.flatten(1, 2), like.embodiment)
            stored = stored.view(like.action.shape)
            for b, (index, now) in enumerate(zip(batch.origin.row, batch.origin.timestep, strict=True)):  # fmt: skip
                row = manifest.row(int(index))
                number = numbers[row.uid]
                at = [int(now) + step for step in range(-15, 4, 3)]
                inside = [row.start <= t < row.end for t in at]
                first = inside.index(True)
                assert (like.index.sample[b] == 0).tolist() == inside
                num_absent += not all(inside)
                for f, t in enumerate(at):
                    if not inside[f]:
                        assert not like.has_action[b, f].any()
                        continue
                    assert like.index.frame[b, f] == f - first
                    expected = torch.from_numpy(tokens_of(number, "front")[t, 1:]).bfloat16()
                    assert torch.equal(like.latents[b, f], expected)
                    if task is Task.VISUAL_FORECASTING:
                        assert not like.has_action[b, f].any()
                    elif body_of(number) == "umi" and number != 2:
                        poses = poses_of(number)
                        for j, k in enumerate(range(t - 3, t)):
                            has = bool(like.has_action[b, f, j, 0])
                            assert has is (row.start <= k < row.end)
                            if has:
                                x, y, z = (np.linalg.inv(poses[k]) @ poses[k + 1])[:3, 3]
                                motion = (z, -x, -y)  # seen in `hand_xfz`, which turns umi's axes
                                np.testing.assert_allclose(stored[b, f, j, :3], motion, atol=1e-5)  # fmt: skip
                                num_compared += 1
    assert num_absent > 10
    assert num_compared > 100


def test_a_short_training_forecasts_better_than_copying(
    trainable: Trainable, tmp_path: Path
) -> None:
    """The whole way: 160 steps of a small network say the next frame and the motions to it better than who looks at neither text nor motion."""
    changes = (
        "architecture.width=64", "architecture.num_layers=2", "architecture.ff_width=128", "run.batch_size=16", "run.num_steps=160",
        "run.log_every=40", "run.checkpoint_every=160", "text.width=64", "optimiser.lr=0.006", "optimiser.ema=null", "optimiser.warmup_steps=20",
        "architecture.objective.chunk=[1,1]", "architecture.objective.noisy_history=0.2",
    )  # fmt: skip
    train(trainable.manifest, tmp_path / "run", *(w for each in changes for w in ("--set", each)))
    done = evaluated(tmp_path / "run", "--split", "train", "--max-samples", "96")
    assert all(done["comparisons"][name]["is_better"] for name in ("copy_last_frame", "zero_action", "mean_action"))  # fmt: skip
    by_metric = {(line["task"], line["metric"]): line for line in done["lines"] if line["embodiment"] == line["tier"] == "all"}  # fmt: skip
    forecast = by_metric["visual_forecasting", "latent_l2"]
    assert forecast["model"]["value"] < 0.85 * forecast["baselines"]["copy"]
    # the measure can fail: an untrained network that says velocities says no picture
    (tmp_path / "new").mkdir()
    changes = (*changes, "architecture.video_head=velocity")
    train(trainable.manifest, tmp_path / "new" / "run", "--until", "1", *(w for each in changes for w in ("--set", each)))  # fmt: skip
    untrained = evaluated(tmp_path / "new" / "run", "--split", "train", "--max-samples", "96")
    assert not untrained["comparisons"]["copy_last_frame"]["is_better"]


def evaluated(run: Path, *words: str) -> dict[str, Any]:
    answer = CliRunner().invoke(app, ["eval", str(run), "--device", "cpu", "--json", *words], standalone_mode=False)  # fmt: skip
    if answer.exception is not None:
        raise answer.exception
    result: dict[str, Any] = json.loads(answer.stdout)["result"]
    return result


def test_a_run_is_evaluated_as_others_are(trainable: Trainable, tmp_path: Path) -> None:
    train(trainable.manifest, tmp_path / "run", "--until", "2")
    words = ("--max-samples", "12", "--sampling-steps", "2")
    done = evaluated(tmp_path / "run", *words)
    assert {line["task"] for line in done["lines"]} == {"policy", "forward_dynamics", "visual_forecasting"}  # fmt: skip
    assert {"copy_last_frame", "zero_action", "repeat_action", "mean_action"} <= set(done["comparisons"])  # fmt: skip
    again = evaluated(tmp_path / "run", *words, "--batch", "5")
    for one, other in zip(done["lines"], again["lines"], strict=True):
        assert one["model"]["value"] == pytest.approx(other["model"]["value"], rel=1e-4)
        assert one["baselines"] == pytest.approx(other["baselines"])
    other_seed = evaluated(tmp_path / "run", *words, "--seed", "1")
    assert done["lines"][0]["model"]["value"] != other_seed["lines"][0]["model"]["value"]
    assert done["lines"][0]["baselines"] == other_seed["lines"][0]["baselines"]


def test_a_head_of_changes_begins_as_a_copy(manifest: Manifest) -> None:
    """Whoever says nothing says that nothing changes: so training begins at the baseline, not at noise."""
    recipe = load_recipe("causal_tiny", {"data": {"encoder": "tiny_vit"}})
    reader, conditioner = open_conditioner(recipe.text, manifest)
    made = Loader(manifest, recipe, reader=reader)
    assert isinstance(recipe.architecture, CausalArchitecture)
    learner = CausalLearner(CausalNetwork(causal_settings(recipe.architecture, made, conditioner.width)), conditioner).eval()  # fmt: skip
    batch = moved(next(made.at(made.places(Task.VISUAL_FORECASTING, 12), batch_size=12)), torch.device("cpu"))  # fmt: skip
    scored = LastFrameSampler(learner=learner, precision="fp32", video_steps=5, action_steps=5)
    text = scored.encode_text(batch.text_inputs)
    noise = SampleNoise(batch=batch, seed=5)
    for task in (Task.VISUAL_FORECASTING, Task.FORWARD_DYNAMICS):
        forecast = scored.picture(batch, text, task, noise)
        torch.testing.assert_close(forecast, batch.known.past[:, -1].float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 1.7])
def test_many_samples_at_once_are_told_what_one_conversation_is(
    guidance: float, manifest: Manifest
) -> None:
    """Beside `CausalSampler`, frame by frame with its cache: what is scored is what acts."""
    changes = {"data": {"encoder": "tiny_vit", "cameras": ["front", "wrist"]}, "architecture": {"width": 32, "num_layers": 2, "sampling": {"chunk": 1, "window": 9, "video_guidance": guidance, "action_guidance": guidance}}}  # fmt: skip
    recipe = load_recipe("causal_tiny", changes)
    reader, conditioner = open_conditioner(recipe.text, manifest)
    made = Loader(manifest, recipe, reader=reader)
    torch.manual_seed(3)
    assert isinstance(recipe.architecture, CausalArchitecture)
    learner = CausalLearner(CausalNetwork(causal_settings(recipe.architecture, made, conditioner.width)), conditioner).eval()  # fmt: skip
    for parameter in learner.network.parameters():  # heads that begin with zeros say nothing
        torch.nn.init.normal_(parameter, std=0.08)
    batch = moved(next(made.at(made.places(Task.POLICY, 12), batch_size=12)), torch.device("cpu"))
    scored = LastFrameSampler(learner=learner, precision="fp32", video_steps=3, action_steps=4)
    noise, text = SampleNoise(batch=batch, seed=5), scored.encode_text(batch.text_inputs)
    action = scored.chunk(batch, text, Task.POLICY, noise)
    picture = scored.picture(batch, text, Task.POLICY, noise)
    like = sequences_to_the_last(batch, Task.POLICY)
    settings = learner.network.settings
    sampling = settings.sampling.model_copy(update={"video_steps": 3, "action_steps": 4})
    starts = set()
    for b in range(12):
        conversation = CausalSampler(
            learner.network,
            padded(chosen(text, [b])),
            int(like.embodiment[b]),
            like.asked[b],
            sampling,
            settings.objective.video_shift,
            settings.objective.action_shift,
        )
        first = int((like.index.sample[b] == 0).float().argmax())
        starts.add(first)
        for f in range(first, 6):
            conversation.observe(
                KnownFrames(
                    latents=like.latents[b, f][None].float(),
                    has_video=like.has_video[b, f][None],
                    action=like.action[b, f][None],
                    has_action=like.has_action[b, f][None],
                )
            )
        said = conversation.predict(ChunkNoise(video=noise.picture[b][None], action=noise.action[b][None]))  # fmt: skip
        has = like.has_video[b, -1].repeat_interleave(6)
        torch.testing.assert_close(picture[b][has], said.latents[0][has], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(action[b], said.action[0], rtol=1e-3, atol=1e-4)
    assert len(starts) > 1
    assert len(set(like.has_video[:, -1].all(dim=1).tolist())) > 1  # one body has no wrist camera
