"""A value head learns of a corpus whose images show how far an episode is, and a policy plans with it, from end to end."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from jobs.cli import app
from jobs.commands.serve_policy import policy_text
from jobs.commands.train_value import labels_of, result_lines
from schemas.errors import ConfigError
from schemas.manifest import load
from tests.training import corpus as corpora
from tests.training.corpus import Play, Trainable, length_of, tokens_of
from training.policy.observation import Observation
from training.policy.policy import Policy, PolicySettings
from training.run.checkpoint import Checkpoint, checkpoint_of
from training.server.answers import checked_facts
from training.server.messages import answer_of
from training.value.fit import ValueRequest, fit
from training.value.outcomes import EpisodeLabel
from training.value.settings import ValueSettings
from training.value.stored import KEY, load_value, value_file

SETS = (
    "architecture.width=16", "architecture.num_layers=1", "architecture.num_heads=2", "text.width=8", "run.batch_size=8",
    "data.encoder=tiny_vit", "run.num_steps=2", "optimiser.warmup_steps=0", "data.future_s=0.3", "data.num_actions=4",
    "data.cameras=[front, wrist]", "run.checkpoint_every=1",
)  # fmt: skip
pytestmark = pytest.mark.slow
CPU = torch.device("cpu")


def invoke(*words: str) -> Any:
    """A command in this process; our errors come out as they are."""
    done = CliRunner().invoke(app, list(words), standalone_mode=False)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


# --- a corpus whose images show how far an episode is -------------------------------------------------------------------


def succeeds(number: int) -> bool | None:
    return None if number >= 16 else number % 4 != 3


def shown(number: int, camera: str, encoder_id: str = corpora.ENCODER) -> np.ndarray:
    """As in every test corpus, and in one channel how far the episode is; in the other direction where it fails."""
    tokens = tokens_of(number, camera, encoder_id).copy()
    progress = np.arange(length_of(number)) / (length_of(number) - 1)
    tokens[..., 0] = progress[:, None] * (1 if succeeds(number) else -1)
    return tokens


class LabelledPlay(Play):
    """With the source's own label of success."""

    def load(self, ref: Any) -> Any:
        return replace(super().load(ref), success=succeeds(ref.at("number")))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Trainable:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpora, "SOURCE", f"{__name__}:LabelledPlay")
        patch.setattr(corpora, "tokens_of", shown)
        return corpora.make(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="module")
def run(labelled: Trainable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a value head for its last checkpoint, of the weights and not of their averages."""
    out = tmp_path_factory.mktemp("run") / "run"
    sets = [word for each in SETS for word in ("--set", each)]
    invoke("train", str(labelled.manifest), "--out", str(out), "--device", "cpu", "--json", *sets)
    words = ("--steps", "150", "--batch", "64", "--lr", "5e-3", "--device", "cpu", "--json")
    done = invoke("train-value", str(out), *words)
    (out / "value.json").write_text(done.stdout)
    return out


def test_it_learns_progress_better_than_the_mean(run: Path) -> None:
    result = json.loads((run / "value.json").read_text())["result"]
    counts, scores = result["counts"], result["scores"]
    assert (counts["unknown"] > 0, counts["failed_low"]) == (True, 0)  # videos
    assert counts["failed"] >= 1
    assert counts["succeeded"] >= 5
    assert counts["samples_left_out"] > 0
    assert scores["mse"] < 0.5 * scores["mse_of_mean"]
    assert scores["rank_correlation"] > 0.8
    assert scores["rank_correlation_succeeded"] > 0.8
    text = "\n".join(result_lines(result))
    assert "rank correlation 0." in text
    assert f"{counts['failed']} failed by label" in text


def test_the_labels_are_those_of_the_catalog(labelled: Trainable) -> None:
    labels = labels_of(labelled.corpus)
    for number, uid in labelled.uids.items():
        assert labels[uid] == EpisodeLabel(success=succeeds(number), length=length_of(number))


def test_the_same_seed_gives_the_same_head_and_without_labels_it_is_refused(
    run: Path, labelled: Trainable
) -> None:
    checkpoint, manifest = checkpoint_of(run), load(labelled.manifest)
    settings = ValueSettings(num_steps=3, max_samples=20)
    request = ValueRequest(settings=settings)
    labels = labels_of(labelled.corpus)
    one, two = (fit(manifest, checkpoint, labels, request, device=CPU) for _ in range(2))
    for name, tensor in one.head.state_dict().items():
        assert tensor.equal(two.head.state_dict()[name]), name
    assert one.facts.counts.samples == 20
    assert one.facts.counts.samples_beyond > 0
    failures = {uid: replace(label, success=False) for uid, label in labels.items()}
    with pytest.raises(ConfigError, match="known to succeed"):
        fit(manifest, checkpoint, failures, request, device=CPU)


# --- planning from end to end -------------------------------------------------------------------------------------------


def observation(number: int = 0, t: int = 12) -> Observation:
    latents = {"front": shown(number, "front")[[t - 3, t]].astype(np.float32)}
    return Observation(text="trace circle 0", embodiment="umi", latents=latents)


def opened(run: Path, **settings: Any) -> Policy:
    return Policy.load(run, settings=PolicySettings(**settings), device="cpu")


def test_one_chunk_is_as_without_planning_and_more_are_chosen_by_value(run: Path) -> None:
    plain = opened(run).act(observation())
    one = opened(run, num_chunks=1)
    assert one.planner is None
    assert one.act(observation()).targets.tobytes() == plain.targets.tobytes()
    assert "plan" not in one.facts()
    assert "plan_values" not in answer_of(plain)
    many = opened(run, num_chunks=6, num_steps=4)
    chunk = many.act(observation())
    assert chunk.plan_values is not None
    assert chunk.plan_values.shape == (6,)
    assert answer_of(chunk)["plan_values"].dtype == np.float32
    again = opened(run, num_chunks=6, num_steps=4).act(observation())
    assert again.targets.tobytes() == chunk.targets.tobytes()
    facts = checked_facts(many.facts(), "server")
    assert facts["plan"]["num_chunks"] == 6
    assert "plans with 6 chunks" in policy_text(many)
    both = many.act_many([observation(), observation(4, 15)])
    np.testing.assert_allclose(both[0].targets, chunk.targets, atol=1e-5)


def test_the_best_candidate_is_the_one_that_is_carried_out(run: Path) -> None:
    """Whatever the values are: the head is replaced by one that likes each candidate in turn."""
    policy = opened(run, num_chunks=3, num_steps=4)
    assert policy.planner is not None
    chunks = []
    for best in range(3):
        policy.planner.value = lambda future, has, text, state, best=best: -(torch.arange(3.0) - best).abs()  # fmt: skip
        chunks.append(policy.act(observation()).targets)
    assert len({chunk.tobytes() for chunk in chunks}) == 3  # the noise differs
    plain = opened(run, num_steps=4).act(observation())
    np.testing.assert_allclose(chunks[0], plain.targets, atol=1e-6)  # the first is its own


@pytest.mark.parametrize("steps", [1, 4])
def test_chunks_differ_with_one_euler_step_too(run: Path, steps: int) -> None:
    policy = opened(run, num_chunks=4, num_steps=steps)
    assert policy.planner is not None
    seen: list[torch.Tensor] = []
    chosen = policy.planner.chosen

    def watched(*words: Any, **more: Any) -> Any:
        planned = chosen(*words, **more)
        seen.append(planned.candidates)
        return planned

    policy.planner.chosen = watched  # type: ignore[method-assign]
    policy.act(observation())
    assert len({each.numpy().tobytes() for each in seen[0][0]}) == 4


def copied(run: Path, to: Path) -> tuple[Path, Checkpoint]:
    mine = Path(shutil.copytree(run, to))
    return mine, checkpoint_of(mine)


def rewritten(path: Path, **changed: Any) -> None:
    """With other facts in its header."""
    with safe_open(path, "pt") as file:
        page = json.loads(file.metadata()[KEY])
    save_file(load_file(path), path, metadata={KEY: json.dumps(page | changed)})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoder_id": "other-0"}, "of another run: encoder_id is other-0"),
        ({"recipe_sha256": "0" * 64}, "of another run: recipe_sha256"),
        ({"step": 7}, "of another run: step is 7; the checkpoint has 2"),
        ({"tensors_sha256": "0" * 64}, "damaged: the tensors have sha256"),
        ({"value_version": 2}, "version 2; expected 1"),
        ({"colour": 1}, "damaged"),
        ({"shape": None}, "damaged"),
    ],
)
def test_a_head_of_something_else_is_refused(
    run: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    mine, checkpoint = copied(run, tmp_path / "run")
    rewritten(value_file(checkpoint, is_averaged=False), **changed)
    with pytest.raises(ConfigError, match=message) as error:
        opened(mine, num_chunks=2)
    assert "eicorpus train-value" in str(error.value)


def test_a_missing_a_damaged_and_another_head_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no value head; run .*--checkpoint 2 --ema"):
        opened(run, num_chunks=2, use_averages=True)
    with pytest.raises(ConfigError, match="no value head"):
        opened(run, num_chunks=2, step=1)
    mine, checkpoint = copied(run, tmp_path / "run")
    path = value_file(checkpoint, is_averaged=False)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="cannot be read"):
        opened(mine, num_chunks=2)
    path.write_bytes(whole)
    head, facts = load_value(checkpoint, is_averaged=False, text_width=8, device=CPU)
    assert facts.settings.num_steps == 150
    assert not any(p.requires_grad for p in head.parameters())
    assert checkpoint_of(mine).state == checkpoint.state  # the checkpoint is whole with it


def test_options_that_do_not_go_together(run: Path, tmp_path: Path) -> None:
    where = ("--env", "metaworld:reach-v3", "--out", str(tmp_path / "out"))
    with pytest.raises(ConfigError, match="--plan are options of the server"):
        invoke("rollout", "--server", "ws://127.0.0.1:1", "--plan", "2", *where)


def test_facts_of_a_server_that_plans_are_checked(run: Path) -> None:
    facts = opened(run).facts()
    for plan in ({"num_chunks": 0, "value_sha256": "0" * 64}, {"num_chunks": 3}, "many"):
        with pytest.raises(ConfigError, match="facts of a policy: plan"):
            checked_facts(facts | {"plan": plan}, "server")


def test_a_study_plays_the_same_policy_with_one_chunk_and_a_chosen_one_with_more(
    run: Path, labelled: Trainable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`policy_of` of the study takes averaged weights where there are any."""
    from benchmarks.routing.trained import Asked, policy_of

    monkeypatch.setattr("jobs.commands.policy_encoder.encoder_for", lambda *_, **__: None)
    mine, _ = copied(run, tmp_path / "run")
    with pytest.raises(ConfigError, match="no value head"):  # `tiny` averages its weights
        policy_of(mine, Asked(num_chunks=4), device="cpu")
    invoke("train-value", str(mine), "--ema", "--steps", "2", "--device", "cpu", "--json")
    planned = policy_of(mine, Asked(num_chunks=4, sampling_steps=4), device="cpu")
    assert planned.act(observation()).plan_values is not None
    one = policy_of(mine, Asked(), device="cpu").act(observation())
    plain = opened(mine, use_averages=True).act(observation())
    assert one.targets.tobytes() == plain.targets.tobytes()
