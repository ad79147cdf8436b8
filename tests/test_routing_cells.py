"""Cells of the study: what each is trained on, that the methods differ in what they should and in nothing else, and the contrasts against sums made by hand."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.routing import cells, steps
from benchmarks.routing.__main__ import main
from benchmarks.routing.cells import (
    METHODS,
    Cell,
    Store,
    combined,
    episodes_of,
    is_low,
    recipe_of,
    stages,
)
from benchmarks.routing.contrasts import PRIMARY, compared_cells, succeeded, two_level
from benchmarks.routing.figures import draw
from benchmarks.routing.page import page
from benchmarks.routing.plan import Budget, Play, takes
from benchmarks.routing.publish import RESULTS, STUDIES, published
from benchmarks.routing.scenes import TRAINED
from benchmarks.routing.settings import Places, Settings
from benchmarks.routing.statistics import t_interval
from schemas.errors import ConfigError
from schemas.supervision import Task
from training.data.routing import counts_of_batch
from training.recipe import load_recipe

SETTINGS = Settings()


def cell(
    method: str, scale: int = 8, *, num_experts: int = 20, seed: int = 0, num_chunks: int = 1
) -> Cell:
    return Cell(
        seed=seed, num_experts=num_experts, scale=scale, method=method, num_chunks=num_chunks
    )


def recipes_of(one: Cell, tmp_path: Path) -> list[Any]:
    out = []
    for stage in stages(one, SETTINGS.policy_batch):
        path = tmp_path / f"{stage.name}.yaml"
        path.write_text(yaml.safe_dump(recipe_of(stage, one, SETTINGS)))
        out.append(load_recipe(str(path)))
    return out


@pytest.mark.parametrize("method", METHODS)
def test_every_way_takes_as_many_policy_samples_and_steps_for_its_policy(
    method: str, tmp_path: Path
) -> None:
    *first, last = recipes_of(cell(method), tmp_path)
    counts = counts_of_batch(last.routing.of_tasks(), last.run.batch_size, 1)
    assert counts[list(Task).index(Task.POLICY)] == SETTINGS.policy_batch
    assert last.run.num_steps == SETTINGS.num_steps
    assert [Task.POLICY in each.routing.trained for each in first] == [False] * (
        method == "pretrained"
    )
    assert all(each.run.num_steps == SETTINGS.num_steps for each in first)


def test_only_cloning_imitates_what_was_played_badly(tmp_path: Path) -> None:
    shares = {
        method: [each.routing.low_policy_share for each in recipes_of(cell(method), tmp_path)]
        for method in METHODS
    }
    assert shares == {"clone": [1.0], "routed": [0.0], "pretrained": [0.0, 0.0]}
    first, second = stages(cell("pretrained"), 32)
    assert (first.data.manifest, second.data.manifest) == ("experts-20-x8", "experts-20-x0"), (
        "the last stage sees experts alone"
    )


def test_data_is_nested_and_even() -> None:
    kind_of = {t.name: t for t in takes(SETTINGS.budget, SETTINGS.seed)}
    before: set[str] = set()
    for num, scale in ((10, 0), (20, 0), (20, 1), (20, 8), (40, 8)):
        chosen = set(episodes_of(SETTINGS, num, scale))
        assert before < chosen
        before = chosen
        of = [kind_of[name] for name in chosen]
        assert {t.task for t in of} == set(TRAINED)
        by_kind = [sum(map(is_low, of)), sum(not t.has_actions for t in of)]
        assert by_kind == [4 * 20 * scale] * 2
        assert sum(t.has_actions and t.play is Play.EXPERT for t in of) == 4 * num
    low = [kind_of[n].play for n in episodes_of(SETTINGS, 20, 4) if is_low(kind_of[n])]
    assert 0.4 < low.count(Play.NOISY) / len(low) < 0.6, "kinds are dealt evenly over the scales"


def test_held_out_experts_train_nothing() -> None:
    every = cells.experts(SETTINGS)
    held_out = {t.name for of in every.values() for t in of[SETTINGS.budget.expert :]}
    assert len(held_out) == 4 * SETTINGS.budget.held_out
    assert not held_out & set(episodes_of(SETTINGS, SETTINGS.budget.expert, 8))
    with pytest.raises(ConfigError, match="41 episodes of reach-v3 are asked for; 40"):
        episodes_of(SETTINGS, 41, 0)


def test_forecasting_alone_takes_the_place_of_the_other_tasks(tmp_path: Path) -> None:
    both = [
        Cell(seed=0, num_experts=5, scale=8, method="routed", others=others)
        for others in ("all", "forecasting")
    ]
    counts = []
    for one in both:
        (recipe,) = recipes_of(one, tmp_path)
        counts.append(counts_of_batch(recipe.routing.of_tasks(), recipe.run.batch_size, 1))
    forecasting = list(Task).index(Task.VISUAL_FORECASTING)
    assert sum(counts[0]) == sum(counts[1]) == 2 * SETTINGS.policy_batch
    assert [each[forecasting] for each in counts] in ([10, 32], [11, 32])
    assert both[0].data(8) == both[1].data(8)
    assert both[0].training != both[1].training
    for method, chunks in (("clone", 1), ("routed", 8)):
        with pytest.raises(ConfigError, match="'forecasting' with"):
            Cell(
                seed=0,
                num_experts=5,
                scale=8,
                method=method,
                num_chunks=chunks,
                others="forecasting",
            )


def test_forecasting_alone_is_compared_with_itself_and_with_all_tasks() -> None:
    rng = np.random.default_rng(6)
    done = [
        (
            Cell(seed=0, num_experts=5, scale=scale, method="routed", others=others),
            answer(rng, 0.5),
        )
        for scale, others in product((0, 8), ("all", "forecasting"))
    ]
    done += [
        (
            Cell(seed=0, num_experts=5, scale=scale, method="pretrained", others="forecasting"),
            answer(rng, 0.5),
        )
        for scale in (0, 8)
    ]
    compared = compared_cells(done, seed=0)["5"]
    value = {
        (r["scale"], r["others"] if r["method"] == "routed" else "T"): r["success"]["value"]
        for r in compared["success"]
    }
    found = {name: of["value"] for name, of in compared["contrasts"].items()}
    assert found == pytest.approx(
        {
            "L2 - L1": value[8, "all"] - value[0, "all"],
            "F2 - F1": value[8, "forecasting"] - value[0, "forecasting"],
            "F2 - L2": value[8, "forecasting"] - value[8, "all"],
            "FT1 - FT2": value[8, "T"] - value[0, "T"],
        }
    )
    assert "| `routed x8, forecasting alone` |" in page({"study": {"5": compared}})


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ConfigError, match="no method 'best'"):
        cell("best")


# --- what is stored -------------------------------------------------------------------------------------------------------


def answer(rng: np.random.Generator, chance: float) -> dict[str, Any]:
    return {
        "success_at": {
            task: [int(k) if x else None for k, x in enumerate(rng.random(5) < chance)]
            for task in ("a", "b")
        },
        "start_error_m": {"a": 0.01, "b": 0.03},
        "core_minutes": 2.0,
    }


def test_a_cell_is_run_once_and_other_settings_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    store = Store(tmp_path / "cells", SETTINGS)
    for method, scale in product(METHODS, (0, 8)):
        store.put(cell(method, scale), answer(rng, 0.5))
    monkeypatch.setattr(
        steps, "prepare", lambda *args, **options: pytest.fail("nothing is missing")
    )
    asked = [cell(method, scale) for method, scale in product(METHODS, (0, 8))]
    compared = steps.run(
        asked,
        SETTINGS,
        Places(out=tmp_path),
        store,
        workers=1,
        with_checks=False,
        say=pytest.fail,
    )
    assert compared["study"]["20"]["core_minutes"] == 12.0
    assert all(path.stat().st_size < 4_000 for path in (tmp_path / "cells").iterdir())
    with pytest.raises(ConfigError, match="made with other num_steps"):
        Store(tmp_path / "cells", Settings(num_steps=9)).find(asked[0])


def test_a_recipe_that_changed_is_another_setting(tmp_path: Path) -> None:
    recipe = tmp_path / "own.yaml"
    recipe.write_text("extends: tiny\n")
    settings, one = Settings(recipe=str(recipe)), cell("clone")
    Store(tmp_path / "cells", settings).put(one, answer(np.random.default_rng(0), 0.5))
    assert Store(tmp_path / "cells", settings).find(one) is not None
    recipe.write_text("extends: tiny\ndata: {with_state: true}\n")
    with pytest.raises(ConfigError, match="made with other recipe_sha256"):
        Store(tmp_path / "cells", settings).find(one)


def test_a_cell_that_was_cut_off_is_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path, SETTINGS)
    (tmp_path / f".{cell('clone').name}.part").write_text("{")
    assert store.find(cell("clone")) is None
    assert list(store.all()) == []


# --- contrasts ------------------------------------------------------------------------------------------------------------


def test_contrasts_are_sums_of_cells_scene_by_scene() -> None:
    """Against means made by hand; a seed without all of its cells is left out of the contrasts that need them."""
    rng = np.random.default_rng(1)
    done = [
        (cell(method, scale, seed=seed), answer(rng, 0.3 + 0.05 * scale * (method == "routed")))
        for seed, method, scale in product((0, 1), METHODS, (0, 8))
    ]
    done.append((cell("clone", 0, seed=2), answer(rng, 0.5)))
    compared = compared_cells(done, seed=0)["20"]

    def mean(method: str, scale: int) -> float:
        of = [
            at is not None
            for c, a in done
            for tries in a["success_at"].values()
            for at in tries
            if (c.method, c.scale) == (method, scale) and c.seed < 2
        ]
        return float(np.mean(of))

    by_hand = {
        PRIMARY[0]: mean("routed", 8) - mean("routed", 0) - mean("clone", 8) + mean("clone", 0),
        PRIMARY[1]: mean("pretrained", 8) - mean("pretrained", 0),
        "L2 - B1": mean("routed", 8) - mean("clone", 0),
    }
    for name, value in by_hand.items():
        assert compared["contrasts"][name]["value"] == pytest.approx(value), name
        assert len(compared["contrasts"][name]["by_seed"]) == 2
    (cloned,) = (
        row for row in compared["success"] if (row["method"], row["scale"]) == ("clone", 0)
    )
    assert cloned["success"]["count"] == 30
    assert cloned["start_error_m"] == pytest.approx(0.02)


def test_an_interval_stays_when_other_cells_come() -> None:
    rng = np.random.default_rng(7)
    done = [
        (cell(method, scale, seed=seed), answer(rng, 0.5))
        for method, scale, seed in product(("clone", "routed"), (0, 8), (0, 1))
    ]
    more = [(cell("clone", 1, seed=seed), answer(rng, 0.5)) for seed in (0, 1)]
    before, after = (compared_cells(of, seed=0)["20"] for of in (done, done + more))
    assert before["contrasts"] == after["contrasts"]
    assert all(row in after["success"] for row in before["success"])


def test_nothing_to_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cloning has no other tasks."""
    asked = ["--out", str(tmp_path / "run"), "--methods", "clone", "--others", "forecasting"]
    monkeypatch.setattr("sys.argv", ["routing", *asked])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "'forecasting' with clone and 1 chunks" in capsys.readouterr().err


def test_combinations_that_are_no_cell_are_named_once() -> None:
    asked = {"seed": [0, 1], "num_experts": [5], "scale": [8], "num_chunks": [1, 8]}
    made, left_out = combined(**asked, method=["clone", "routed"], others=["all", "forecasting"])
    assert [each.name for each in made] == [
        f"{name}-s{seed}{plan}"
        for seed in (0, 1)
        for name, plan in (
            ("clone-5-x8", ""),
            ("routed-5-x8", ""),
            ("routed-5-x8-forecasting", ""),
            ("routed-5-x8", "-plan8"),
        )
    ]
    assert [error.where for error in left_out] == ["--others", "--chunks", "--others"]
    assert combined(seed=[0], num_experts=[5], scale=[8], method=[]) == ([], [])


def test_planning_is_compared_with_the_same_network_that_does_not() -> None:
    rng = np.random.default_rng(4)
    done = [
        (cell("routed", scale, num_chunks=chunks), answer(rng, 0.2 + 0.3 * (chunks == 8)))
        for scale, chunks in product((0, 8), (1, 8))
    ]
    compared = compared_cells(done, seed=0)["20"]
    value = {(r["scale"], r["num_chunks"]): r["success"]["value"] for r in compared["success"]}
    by_hand = {
        "P2 - L2": value[8, 8] - value[8, 1],
        "P1 - L1": value[0, 8] - value[0, 1],
        "P2 - P1": value[8, 8] - value[0, 8],
        "L2 - L1": value[8, 1] - value[0, 1],
    }
    assert {name: of["value"] for name, of in compared["contrasts"].items()} == pytest.approx(
        by_hand
    )
    assert "| `routed x8, best of 8 chunks` |" in page({"study": {"20": compared}})


def test_a_cell_that_plans_uses_the_training_of_the_one_that_does_not() -> None:
    plans = cell("routed", num_chunks=8)
    assert plans.training == cell("routed").training != plans.name
    assert stages(plans, 32) == stages(cell("routed"), 32)
    for method in ("clone", "pretrained"):
        with pytest.raises(ConfigError, match="routed alone can plan"):
            cell(method, num_chunks=8)


def test_an_interval_knows_that_scenes_of_a_seed_share_a_network() -> None:
    """Seeds that differ by more than chance: resampling scenes alone would be far too sure."""
    rng = np.random.default_rng(2)
    apart = [np.full((4, 25), value) for value in (0.4, 0.0, -0.4, 0.0)]
    alike = [rng.permuted(np.repeat([[0.4, 0.0, -0.4, 0.0, 0.0] * 5], 4, axis=0), axis=1)] * 4
    wide, narrow = two_level(apart, rng), two_level(alike, rng)
    assert (wide.value, narrow.value) == pytest.approx((0.0, 0.0), abs=1e-9)
    # By hand: the mean of four draws of (.4, 0, -.4, 0) has the standard deviation .283 / 2.
    assert wide.high == pytest.approx(1.96 * 0.1414, abs=0.06)
    assert narrow.high < 0.05


def test_students_interval_of_a_textbook() -> None:
    """Mean 5, s 2.582 of four values: 5 ± 3.182 * 2.582 / 2."""
    assert t_interval([2, 4, 6, 8]) == pytest.approx((0.892, 9.108), abs=1e-3)
    assert all(math.isnan(end) for end in t_interval([0.3]))


def test_a_scene_counts_once() -> None:
    np.testing.assert_array_equal(
        succeeded({"b": [None, 3], "a": [0, None]}), [[1.0, 0.0], [0.0, 1.0]]
    )


def test_the_page_and_the_figure_show_every_cell(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    done = [
        (cell(method, scale, num_experts=num), answer(rng, 0.5))
        for num, method, scale in product((10, 20), METHODS, (0, 8))
    ]
    compared = {"study": compared_cells(done, seed=0)}
    text = page(compared)
    assert text.count("| `routed x8` |") == 2
    assert "| (L2 - L1) - (B2 - B1) |" in text
    (path,) = draw(json.loads(json.dumps(compared)), tmp_path)
    assert path.read_text().count("experts a task") >= 1
    routed_alone = [
        each for each in done if each[0].num_experts == 20 or each[0].method == "routed"
    ]
    (path,) = draw({"study": compared_cells(routed_alone, seed=0)}, tmp_path)
    assert [method for method in METHODS if f">{method}</text>" not in path.read_text()] == []


@pytest.mark.parametrize("name", STUDIES)
def test_what_is_published_is_made_of_the_cells(name: str) -> None:
    """`python -m benchmarks.routing.publish` writes it."""
    (stored,) = (
        run
        for run in json.loads((RESULTS / "data/routing.json").read_text())
        if name in run["tables"]
    )
    assert published(name) == stored


def test_a_plan_is_drawn_with_its_cost(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    done = [
        (
            cell("routed", scale, num_chunks=chunks),
            answer(rng, 0.5) | {"chunk_cpu_s": 0.01 * chunks},
        )
        for scale, chunks in product((0, 8), (1, 4, 16))
    ]
    compared = compared_cells(done, seed=0)
    cost = {row["num_chunks"]: row["chunk_cpu_s"] for row in compared["20"]["success"]}
    assert cost == pytest.approx({1: 0.01, 4: 0.04, 16: 0.16})
    assert "CPU time of a chunk, ms" in page({"study": compared})
    (path,) = draw({"plan": json.loads(json.dumps(compared))}, tmp_path)
    assert path.read_text().count("other data x") == 2


def test_quick_settings_have_enough() -> None:
    quick = Settings(budget=Budget.quick(), unit=1)
    assert len(episodes_of(quick, 2, 2)) == 4 * (2 + 2 + 2)
