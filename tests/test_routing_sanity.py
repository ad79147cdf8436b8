"""The sanity arm without its simulator: what it records and trains on, that it goes on where it stopped, and when it says that the aim is reached."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.routing import sanity
from benchmarks.routing.cells import Cell, recipe_of, stages
from benchmarks.routing.plan import Budget, Play, takes
from benchmarks.routing.sanity import run, sanity_settings, takes_of
from benchmarks.routing.scenes import TRAINED
from benchmarks.routing.settings import Places
from benchmarks.routing.trained import Asked
from schemas.errors import ConfigError
from training.recipe import load_recipe
from training.rollout.loop import RolloutOutcome


def test_only_experts_are_recorded_and_in_the_same_scenes_whatever_else_is_played() -> None:
    settings = sanity_settings(num_experts=150)
    every, alone = takes_of(settings, TRAINED), takes_of(settings, ["reach-v3"])
    assert Counter(take.task for take in every) == dict.fromkeys(TRAINED, 150)
    assert {(take.play, take.has_actions) for take in every} == {(Play.EXPERT, True)}
    assert alone == [take for take in every if take.task == "reach-v3"]
    others = {take.seed for take in takes(Budget(), 1)}
    assert not others & {take.seed for take in every}


def test_its_recipe_sees_feels_and_clones(tmp_path: Path) -> None:
    settings = sanity_settings(num_experts=3, encoder="patch_dct", num_steps=7)
    cell = Cell(seed=5, num_experts=3, scale=0, method="clone")
    (stage,) = stages(cell, settings.policy_batch)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_of(stage, cell, settings)))
    recipe = load_recipe(str(path))
    assert recipe.data.with_state
    assert (recipe.data.num_history, recipe.data.past_s) == (0, (0.0,)), "it must look"
    assert recipe.data.encoder == "patch_dct"
    assert (recipe.seed, recipe.run.num_steps, recipe.run.batch_size) == (5, 7, 32)
    assert recipe.routing.trained == ("policy",)


class Pipeline:
    """Stands for the commands and the simulator: counts what is done; `num_successes` of 10 rollouts succeed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, num_successes: int) -> None:
        self.calls: list[str] = []
        self.num_successes = num_successes
        self.stops_at = ""
        for name in ("ingest", "latents", "train", "manifest"):
            monkeypatch.setattr(sanity.commands, name, self._counted(name))
        monkeypatch.setattr(sanity, "record_all", self._counted("record"))
        monkeypatch.setattr(sanity, "outcomes_of", self._outcomes)

    def _counted(self, name: str) -> Any:
        def work(*args: Any, **options: Any) -> dict[str, Any]:
            if name == self.stops_at:
                raise ConfigError("stopped")
            self.calls.append(name)
            return {}

        return work

    def _outcomes(
        self, run: Path, key: Any, count: int, execute: int, task: str, asked: Asked
    ) -> Any:
        self.calls.append(f"rollout {task}")
        return [
            RolloutOutcome(
                task=task,
                seed=k,
                success_at=9 if k < self.num_successes else None,
                length=9,
                num_asked=1,
            )
            for k in range(count)
        ]


@pytest.mark.parametrize(("num_successes", "is_reached"), [(7, True), (6, False)])
def test_seven_of_ten_is_the_aim(
    num_successes: int, is_reached: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pipeline(monkeypatch, num_successes)
    settings = sanity_settings(num_experts=2, num_rollouts=10)
    answer = run(settings, Places(out=tmp_path), ["reach-v3"], say=lambda line: None)
    assert answer["is_reached"] is is_reached
    success = answer["success"]["reach-v3"]
    assert success["value"] == pytest.approx(num_successes / 10)
    assert success["low"] < success["value"] < success["high"]


def test_what_was_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, settings = Pipeline(monkeypatch, 7), sanity_settings(num_experts=2, num_rollouts=10)
    tasks = ["reach-v3", "drawer-open-v3"]
    pipeline.stops_at = "train"
    with pytest.raises(ConfigError, match="stopped"):
        run(settings, Places(out=tmp_path), tasks, say=lambda line: None)
    before = ["record", "record", "ingest", "latents", "manifest"]
    assert pipeline.calls == before
    pipeline.stops_at = ""
    for _ in range(2):
        run(settings, Places(out=tmp_path), tasks, say=lambda line: None)
    after = ["train", "rollout reach-v3", "rollout drawer-open-v3"]
    assert pipeline.calls == before + after
    with pytest.raises(ConfigError, match="other tasks"):
        run(settings, Places(out=tmp_path), ["reach-v3"], say=lambda line: None)


def test_without_a_reach_there_is_nothing_to_reach(tmp_path: Path) -> None:
    for tasks in (["drawer-open-v3"], ["reach-v3", "pick-place-v3"]):
        with pytest.raises(ConfigError, match="expected reach-v3"):
            run(sanity_settings(num_experts=1), Places(out=tmp_path), tasks, say=lambda line: None)
