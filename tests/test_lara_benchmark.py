"""The fair test of LARA: its arms differ in nothing but LARA, and its figures are those of the evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.lara import ARMS, LAMS, LaraRun, LaraTest, probes, tables
from benchmarks.routing.settings import Places
from training.lara.settings import JointStage, NoLara
from training.recipe import TrainRecipe, load_recipe


@pytest.fixture
def run(tmp_path: Path) -> LaraRun:
    return LaraRun(LaraTest(), Places(out=tmp_path), workers=1, num_seeds=2)


def recipe(run: LaraRun, name: str, seed: int = 0) -> TrainRecipe:
    path = run.places.out / f"{name}.yaml"
    path.write_text(yaml.safe_dump(run.recipe_of(name, seed)))
    return load_recipe(str(path))


def test_arms_differ_in_lara_alone(run: LaraRun) -> None:
    arms = {name: recipe(run, name) for name in ARMS}
    kept = [each.model_dump(exclude={"name", "lara"}) for each in arms.values()]
    assert all(each == kept[0] for each in kept)
    assert isinstance(arms["policy"].lara, NoLara)
    joint = {name: each.lara for name, each in arms.items() if isinstance(each.lara, JointStage)}
    assert joint.keys() == ARMS.keys() - {"policy"}
    assert {name: (each.weight_align, each.freeze_lam) for name, each in joint.items()} == {
        "lara": (0.01, False),
        "frozen": (0.01, True),
        "strong": (1.0, False),
    }


def test_video_teaches_the_policy_nothing_but_by_lara(run: LaraRun) -> None:
    arm = recipe(run, "lara")
    assert [task.value for task in arm.routing.trained] == ["policy", "visual_forecasting"]
    weights = {task.value: weight for task, weight in arm.run.loss_weights.items()}
    assert (weights["policy"], weights["visual_forecasting"]) == (1.0, 0.0)


def test_a_longer_latent_action_model_has_the_steps_of_both(run: LaraRun) -> None:
    short, longer = (recipe(run, name) for name in LAMS)
    assert longer.run.num_steps == short.run.num_steps + recipe(run, "lara").run.num_steps
    assert short.lara == longer.lara
    assert recipe(run, "lara", 1).seed == 1


def test_nothing_is_trained_on_what_is_measured(run: LaraRun) -> None:
    demos, held_out = run.experts()
    videos = run.videos()
    test = run.test
    assert (len(demos), len(held_out)) == (4 * test.num_demos, 4 * test.num_held_out)
    assert len(videos) == 4 * test.num_videos
    assert len({*demos, *held_out, *videos}) == len(demos) + len(held_out) + len(videos)


def evaluated(r2: float) -> dict[str, Any]:
    features = {"latent_action": r2, "code": r2 - 0.1, "random_code": 0.0, "picture_of_now": 0.2, "nothing_moves": -0.3}  # fmt: skip
    return {
        "latent_actions": {
            "r2": {k: {"value": v, "low": v - 0.05, "high": v + 0.05} for k, v in features.items()},
            "reconstruction": 0.3,
            "reconstruction_with_other": 1.5,
            "perplexity": 90.0,
        }
    }


def test_differences_are_by_seed() -> None:
    answers = {
        "lam": {0: evaluated(0.5), 1: evaluated(0.6)},
        "lam_longer": {0: evaluated(0.6), 1: evaluated(0.8)},
        "policy": {0: {}, 1: {}},
        "lara": {0: evaluated(0.7), 1: evaluated(0.7)},
    }
    probe = probes(answers, 0)
    assert probe["by_run"].keys() == {"lam", "lam_longer", "lara"}
    difference = probe["difference"]
    assert difference["lam: latent_action - picture_of_now"]["value"] == pytest.approx(0.35)
    assert difference["lam: code - random_code"]["value"] == pytest.approx(0.45)
    of_lara = difference["lara - lam_longer"]
    assert of_lara["value"] == pytest.approx(0.0)
    assert (of_lara["low"], of_lara["high"], of_lara["count"]) == pytest.approx((-0.1, 0.1, 2))


def test_tables_hold_every_arm_and_seed() -> None:
    answers = {name: {0: evaluated(0.5), 1: evaluated(0.6)} for name in (*LAMS, *ARMS) if name != "policy"}  # fmt: skip
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6, "count": 80}
    pairs = [f"{name} - policy" for name in ARMS if name != "policy"]
    compare = {
        "success": dict.fromkeys(ARMS, estimate),
        "by_seed": {name: {"0": 0.5, "1": 0.25} for name in ARMS},
        "error": {name: {"position_l1_m": {"0": 0.0012, "1": 0.002}} for name in ARMS},
        "difference": dict.fromkeys(pairs, estimate),
        "error_difference": dict.fromkeys((f"{p}, position_l1_m" for p in pairs), estimate),
    }
    made = tables({"num_seeds": 2, "probe": probes(answers, 0), "compare": compare})
    for each in made.values():
        assert {len(row) for row in each["rows"]} == {len(each["columns"])}
    assert [row[0] for row in made["policies"]["rows"]] == [f"`{name}`" for name in ARMS]
    assert made["policies"]["rows"][0][-1] == "1.20 / 2.00"
    assert made["motion"]["rows"][0] == ["`lam`, latent action", "0.500 (0.450 to 0.550)", "0.600 (0.550 to 0.650)"]  # fmt: skip
    assert len(made["differences"]["rows"]) == 3 + 6 + 3
