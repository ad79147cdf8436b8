"""What a run goes on as: only what it began as, unless it is told otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from jobs.commands.train import _of_run, _recipe
from schemas.errors import ConfigError
from schemas.manifest import FACTS_FILE
from schemas.supervision import Task
from tests.training.running import recipe
from training.data.routing import RoutingSettings
from training.recipe import TrainRecipe, stored_recipe
from training.run.run_folder import (
    LOG_FILE,
    RECIPE_FILE,
    RunFacts,
    append_log,
    check_same,
    cut_log,
    going_on,
    held,
    load_run,
    logged,
    write_run,
)


def facts(init_from: str = "", manifest: str = "m") -> RunFacts:
    return RunFacts(
        manifest=manifest,
        manifest_name=manifest,
        manifest_sha256=manifest * 64,
        recipe_sha256="r" * 64,
        init_from=init_from,
    )


def begun(tmp_path: Path, init_from: str = "") -> Path:
    (tmp_path / FACTS_FILE).write_text("{}")
    write_run(tmp_path / "run", facts(init_from), recipe(), tmp_path)
    return tmp_path / "run"


def test_a_resumed_run_stays_with_its_version_of_a_manifest(tmp_path: Path) -> None:
    manifest = tmp_path / "corpus/manifests/m"
    version = manifest / "0123456789abcdef"
    version.mkdir(parents=True)
    (version / FACTS_FILE).write_text("{}")
    write_run(tmp_path / "run", facts(manifest=str(version)), recipe(), version)
    assert _of_run(tmp_path / "run", manifest) == version
    assert _of_run(tmp_path / "run", manifest.with_name("other")) is None
    assert _of_run(tmp_path / "new", manifest) is None


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        ("a", "b", r"started from the weights of a, not from the weights of b; add --init-from a; choose another --out"),
        ("a", "", r"started from the weights of a, not from new weights; add --init-from a; .*--allow-other-recipe"),
        ("", "b", r"started from new weights, not from the weights of b; remove --init-from"),
    ],
)  # fmt: skip
def test_other_weights_to_begin_with_are_refused(
    tmp_path: Path, was: str, now: str, message: str
) -> None:
    out = begun(tmp_path, was)
    with pytest.raises(ConfigError, match=message):
        check_same(out, facts(now), recipe())
    with pytest.raises(ConfigError, match=message):  # that is another thing to allow
        check_same(out, facts(now), recipe(), may_change_manifest=True)
    check_same(out, facts(now), recipe(), may_change_recipe=True)
    assert going_on(out, facts(now, "n")) == facts(was, "n")  # its weights are still those


def test_a_run_goes_on_from_the_averages_it_began_with(tmp_path: Path) -> None:
    out = begun(tmp_path, "a")
    other = facts("a").model_copy(update={"init_averages": True})
    with pytest.raises(ConfigError, match=r"other weights of --init-from; remove --init-averages"):
        check_same(out, other, recipe())
    check_same(out, other, recipe(), may_change_recipe=True)
    assert going_on(out, other) == facts("a")


@pytest.mark.parametrize("again", ["a", "./a", "b/../a"])
def test_the_same_folder_is_the_same_however_it_is_said(tmp_path: Path, again: str) -> None:
    check_same(begun(tmp_path, "a"), facts(again), recipe())


def test_by_which_means_may_change_and_what_is_computed_may_not(tmp_path: Path) -> None:
    out = begun(tmp_path)
    check_same(out, facts(), recipe(checkpoint_minutes=None, checkpoint_every=7, accumulate=2))
    with pytest.raises(ConfigError, match=r"another recipe: run\.num_draws 1 -> 2; .*--allow-other-recipe"):  # fmt: skip
        check_same(out, facts(), recipe(num_draws=2), may_change_manifest=True)
    with pytest.raises(ConfigError, match=r"manifest m .*, not n .*--allow-other-manifest"):
        check_same(out, facts(manifest="n"), recipe(), may_change_recipe=True)
    assert going_on(tmp_path / "none", facts("a")) == facts("a")


def test_one_process_at_a_time_trains_into_a_folder(tmp_path: Path) -> None:
    message = r"another process .*touch"
    with held(tmp_path), pytest.raises(ConfigError, match=message), held(tmp_path):
        pass
    with held(tmp_path):
        pass


def test_the_line_of_a_step_is_found_beside_one_that_was_cut(tmp_path: Path) -> None:
    assert logged(tmp_path, 3) == {}
    for step in (3, 6):
        append_log(tmp_path, {"step": step, "loss": step / 10})
    with (tmp_path / LOG_FILE).open("ab") as file:
        file.write(b'{"step": 5, "loss": "\xff"}\n{"step": 4, "lo')
    assert logged(tmp_path, 3) == {"step": 3, "loss": 0.3}
    assert logged(tmp_path, 4) == {}
    cut_log(tmp_path, 5)
    assert (tmp_path / LOG_FILE).read_bytes() == b'{"step": 3, "loss": 0.3}\n'


def test_a_run_goes_on_though_what_it_began_with_is_gone(tmp_path: Path) -> None:
    out = begun(tmp_path, "gone")
    found = _recipe("tiny", {}, tmp_path / "gone", out)
    assert found.seed == recipe().seed  # what `tiny` does not say is as the run has it
    with pytest.raises(ConfigError, match="no whole checkpoint"):
        _recipe("tiny", {}, tmp_path / "gone", tmp_path / "new")


def test_a_run_from_before_tasks_were_drawn_first_goes_on_as_it_was_drawn(tmp_path: Path) -> None:
    """Its recipe has no `routing.draw`, which now means tasks first; with the key that the message names it goes on."""
    out = begun(tmp_path)
    kept = yaml.safe_load((out / RECIPE_FILE).read_text())
    del kept["routing"]["draw"], kept["routing"]["shares"]
    (out / RECIPE_FILE).write_text(yaml.safe_dump(kept))
    message = r"routing.draw segment -> task; add --set routing.draw=segment to keep its sampling"
    with pytest.raises(ConfigError, match=message):
        check_same(out, facts(), recipe())
    old = recipe().model_copy(update={"routing": RoutingSettings(draw="segment")})
    check_same(out, facts(), old)


def test_a_checkpoint_from_before_tasks_were_drawn_first_keeps_its_weights() -> None:
    kept = recipe().model_dump(mode="json")
    kept["routing"] = {"weights": {"policy": 8.0}, "min_per_batch": 1, "low_policy_share": 0.0}
    found = TrainRecipe.model_validate(stored_recipe(kept))
    assert found.routing == RoutingSettings(draw="segment", weights={Task.POLICY: 8.0})
    assert stored_recipe(found.model_dump(mode="json")) == found.model_dump(mode="json")


@pytest.mark.parametrize("content", ["", "- a", "routing: 3"])
def test_a_recipe_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    out = begun(tmp_path)
    (out / RECIPE_FILE).write_text(content)
    with pytest.raises(ConfigError, match="not a complete run"):
        load_run(out)
