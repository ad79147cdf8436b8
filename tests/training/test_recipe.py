"""Recipes: what they extend and what is set, and how large a network each one makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.errors import ConfigError
from schemas.supervision import Task
from training.model.network import Network, num_parameters
from training.model.settings import Architecture, ModelSettings
from training.recipe import CachedText, NoText, WordsText, known_recipes, load_recipe
from training.run.compute import SampleFlops, flops_per_sample
from training.tasks import TASKS


def test_those_that_come_with_it_are_whole() -> None:
    assert {"finetune", "lda_0p5b", "lda_1b", "lda_1p8b", "tiny"} <= set(known_recipes())
    for name in known_recipes():
        made = load_recipe(name)
        assert made.name == name
        assert made.about
        assert set(made.run.loss_weights) == set(TASKS)


def test_a_task_without_a_loss_weight_weighs_one(tmp_path: Path) -> None:
    """It weighed nothing, in silence."""
    path = tmp_path / "r.yaml"
    path.write_text("extends: tiny\nname: r\nrun: {loss_weights: {visual_forecasting: 0}}\n")
    weights = load_recipe(str(path)).run.loss_weights
    assert weights == {task: float(task is not Task.VISUAL_FORECASTING) for task in TASKS}


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        ("{policy: -1}", "expected at least 0"),
        ("{policy: .inf}", "finite"),
        ("{policy: 0}", "nothing is learnt"),
    ],
)
def test_loss_weights_by_which_nothing_is_learnt_are_refused(
    weights: str, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "extends: tiny\nname: r\nrouting: {shares: {policy: 1, visual_forecasting: 0, forward_dynamics: 0, inverse_dynamics: 0}}\n"
        f"run: {{loss_weights: {weights}}}\n"
    )
    with pytest.raises(ConfigError, match=problem):
        load_recipe(str(path))


def test_what_a_recipe_does_not_say_is_of_the_one_it_extends() -> None:
    large, half = load_recipe("lda_1p8b"), load_recipe("lda_0p5b")
    assert half.architecture.width == 768
    assert half.architecture.num_layers == large.architecture.num_layers == 16
    assert half.optimiser == large.optimiser
    assert isinstance(half.text, CachedText)


def parts_of(name: str, **changed: Any) -> dict[str, int]:
    """With text of 2560, as of Qwen3-VL-4B, and LDA's 32 embodiments."""
    chosen = Architecture.model_validate(load_recipe(name).architecture.model_dump() | changed)
    settings = ModelSettings(**chosen.model_dump(), text_width=2560, num_embodiments=32)
    with torch.device("meta"):
        return num_parameters(Network(settings))


def test_lda_1b_is_one_billion() -> None:
    assert parts_of("lda_1b")["total"] == pytest.approx(1.0e9, rel=0.03)
    assert load_recipe("lda_1b").architecture.head_width == 48


@pytest.mark.parametrize(("name", "published"), [("lda_1p8b", 1.773e9), ("lda_0p5b", 0.508e9)])
def test_ldas_own_sizes_are_those_of_its_two_stream_part(name: str, published: float) -> None:
    """`models.md` 1.6 counts blocks, time embedding and two layers of output; of these ours are smaller, being without detour."""
    found = parts_of(name)
    width = load_recipe(name).architecture.width
    ours = found["blocks"] + found["time"]
    assert ours + 2 * width * 2560 == pytest.approx(published, rel=0.002)
    assert found["total"] == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize("num_heads", [24, 12])
def test_other_heads_are_as_large(num_heads: int) -> None:
    assert parts_of("lda_1b", num_heads=num_heads)["total"] == parts_of("lda_1b")["total"]


def test_arithmetic_of_a_sample_is_what_the_shapes_say() -> None:
    """`models.md` 4.3: 380 GF forward at 16 x 1536 with 200 tokens of text, which counts 253 tokens; ours are 248. Backward is twice that."""
    found = flops_per_sample(ModelSettings(text_width=2560), num_text=199) / 1e9
    text = (
        2 * 199 * 16 * 2560 * (2 * 2 * 1536) / 1e9
    )  # keys and values of frozen text for two streams: no gradient goes back into it
    assert found == pytest.approx(3 * 380 - text, rel=0.02)


def test_arithmetic_grows_with_the_text_by_hand() -> None:
    settings = ModelSettings(width=64, num_layers=1, num_heads=2, num_patches=4, text_width=32, num_registers=0)  # fmt: skip
    one, two = (flops_per_sample(settings, num) for num in (10, 11))
    keys = (
        2 * 2 * 32 * (2 * 64)
    )  # of a token, by both streams; a product is a multiplication and an addition
    attention = (
        2 * 2 * 64 * (4 + 20)
    )  # of each patch and action token with its key, and of its weight with its value
    # forward, and twice that backward; but into text that is not trained no gradient goes back
    assert two - one == 3 * (keys + attention) - keys
    draws = flops_per_sample(settings, 11, num_draws=5)
    linear = SampleFlops.of(lambda num: flops_per_sample(settings, num))
    assert linear.of_sample(11) == two
    # draws share them; that of no text is made once for the four samples of a count
    assert 5 * two - draws == (4 * 2 * 11 + 3) * keys


def test_a_set_key_replaces_one_key_and_another_kind_the_whole_mapping() -> None:
    made = load_recipe("tiny", {"run": {"batch_size": 8}, "text": {"kind": "none"}})
    assert made.run.batch_size == 8
    assert made.run.precision == "fp32"
    assert isinstance(made.text, NoText)
    wider = load_recipe("tiny", {"text": {"width": 9}})
    assert isinstance(wider.text, WordsText)
    assert wider.text.num_words == 16


def test_a_base_gives_what_the_recipe_does_not_say() -> None:
    base = load_recipe("tiny").model_dump(mode="json")
    made = load_recipe("finetune", {"run": {"num_steps": 7}}, base=base)
    assert made.architecture.width == 96
    assert isinstance(made.text, WordsText)
    assert made.run.batch_size == 96
    assert made.run.num_steps == 7
    assert made.name == "finetune"


def test_the_digest_is_of_what_is_decided() -> None:
    plain = load_recipe("tiny")
    assert plain.model_copy(update={"name": "other", "about": "x"}).digest() == plain.digest()
    assert load_recipe("tiny", {"seed": 1}).digest() != plain.digest()
    where = {"run": {"loader": "process"}}  # the batches are the same
    assert load_recipe("tiny", where).digest() == plain.digest()
    assert plain.run.loader == "threads"
    assert load_recipe("lara_joint").run.loader == load_recipe("lda_1b").run.loader == "process"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run: {batch_size: 0}", "run.batch_size"),
        ("architecture: {width: 30, num_heads: 4}", "width 30 must be 4 times"),
        ("run: {batch_size: 8, accumulate: 3}", "8 is not divisible by 3"),
        ("speed: 3", "speed"),
        ("extends: nothing", "no recipe 'nothing'; expected one of causal_tiny"),
        ("- a", "expected a mapping"),
        ("{", "not valid YAML"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text if text[0] in "{-" else f"name: mine\n{text}\n")
    with pytest.raises(ConfigError, match=message):
        load_recipe(path)


def test_recipes_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(f"extends: {two}\n")
    two.write_text(f"extends: {one}\n")
    with pytest.raises(ConfigError, match="extend each other"):
        load_recipe(one)
