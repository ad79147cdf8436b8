"""Normalised numbers: known values, there and back, and what is left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.annotated_corpus import build_manifest
from schemas.errors import ConfigError
from schemas.manifest import Manifest, Normalisation, load
from tests.training.corpus import Trainable
from training.data.action_layout import ACTION_WIDTH, slot_names
from training.data.normalise import Normaliser, from_state, normaliser_of
from training.recipe import NormaliseSettings

NAMES = ("left.delta_position_m.x", "left.delta_position_m.y", "left.gripper_opening", "right.gripper_opening")  # fmt: skip
# A moving element, one that never changes, one whose quantiles meet (rarely used), and one without a sample.
MADE = Normalisation(
    names=NAMES,
    count=(10, 10, 10, 0),
    mean=(0.5, 0.25, 0.1, None),
    std=(0.2, 0.0, 0.3, None),
    q01=(-1.0, 0.25, 0.0, None),
    q99=(3.0, 0.25, 0.0, None),
    min=(-2.0, 0.25, 0.0, None),
    max=(4.0, 0.25, 1.0, None),
    segments=1,
)


def manifest_with(made: Manifest, **bodies: Normalisation) -> Manifest:
    statistics = made.facts.statistics
    assert statistics is not None
    found = statistics.model_copy(update={"embodiments": bodies})
    return replace(made, facts=made.facts.model_copy(update={"statistics": found}))


def normaliser(made: Manifest, **settings: Any) -> Normaliser:
    given = manifest_with(made, robot=MADE)
    return normaliser_of(given, ("blind", "robot"), NormaliseSettings(**settings))


@pytest.fixture(scope="module")
def manifest(trainable: Trainable) -> Manifest:
    return load(trainable.manifest)


def vector(**values: float) -> torch.Tensor:
    out = torch.zeros(1, 1, ACTION_WIDTH)
    for name, value in values.items():
        out[..., slot_names().index(name.replace("__", "."))] = value
    return out


ROBOT = torch.tensor([1])


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("q99", (3.0 - 1.0) / 2.0),
        ("min_max", (3.0 - 1.0) / 3.0),
        ("mean_std", (3.0 - 0.5) / 0.2),
    ],
)
def test_known_values(manifest: Manifest, mode: str, wanted: float) -> None:
    found = normaliser(manifest, mode=mode)
    encoded = found.encode(vector(left__delta_position_m__x=3.0), ROBOT)
    assert encoded[0, 0, 0].item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("mode", ["q99", "min_max", "mean_std"])
def test_there_and_back(manifest: Manifest, mode: str) -> None:
    found = normaliser(manifest, mode=mode)
    values = vector(left__delta_position_m__x=0.7, left__gripper_opening=0.3)
    values[..., 1] = 0.25
    assert torch.allclose(found.decode(found.encode(values, ROBOT), ROBOT), values, atol=1e-6)


@pytest.mark.parametrize("mode", ["q99", "min_max", "mean_std"])
def test_a_constant_is_zero_and_comes_back(manifest: Manifest, mode: str) -> None:
    found = normaliser(manifest, mode=mode)
    assert found.encode(vector(left__delta_position_m__y=0.25 + 1e-9), ROBOT)[0, 0, 1] == 0
    assert found.decode(torch.full((1, 1, ACTION_WIDTH), 5.0), ROBOT)[0, 0, 1] == 0.25


def test_quantiles_that_meet_give_way_to_the_extremes(manifest: Manifest) -> None:
    """A gripper that opens in one step of a hundred is no constant."""
    encoded = normaliser(manifest).encode(vector(left__gripper_opening=1.0), ROBOT)
    assert encoded[0, 0, 6] == 1.0


def one_element(made: Manifest, **statistics: float) -> Normaliser:
    """Of a body with nothing but left.delta_position_m.x."""
    said = {"mean": 0.0} | statistics
    found = Normalisation(
        names=NAMES[:1], count=(1,), segments=1, **{name: (x,) for name, x in said.items()}
    )
    return normaliser_of(manifest_with(made, robot=found), ("robot",), NormaliseSettings())


def encoded(found: Normaliser, values: Any) -> Any:
    array = np.zeros((1, len(values), ACTION_WIDTH), dtype=np.float32)
    array[0, :, 0] = values
    return found.encode_array(array, np.array([0]))[0, :, 0]


def test_quantiles_that_nearly_meet_do_not_blow_up_what_is_rare(manifest: Manifest) -> None:
    """A gripper that is open but for one step of two hundred, give or take 1e-5: closed was -200 000."""
    found = one_element(manifest, std=0.0705, q01=0.99999, q99=1.0, min=0.0, max=1.0)
    assert encoded(found, [0.0, 1.0]) == pytest.approx([-28.3686, 0.000142], abs=1e-4)
    closed = found.encode(vector(), torch.tensor([0]))
    assert found.decode(closed, torch.tensor([0]))[0, 0, 0].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("q01", "q99", "least", "most", "std"),
    [
        (-0.01, 0.01, -0.01, 5.0, 0.0166),  # moves of 1 cm and, once in 10^5, a jump of 5 m
        (0.0, 1.0, 0.0, 1.0, 0.5000000001),  # a gripper, as often open as closed
        (0.003, 0.997, 0.0, 1.0, 0.4999),  # and with quantiles from a histogram
    ],
)
def test_ordinary_elements_are_scaled_by_their_quantiles_to_the_bit(
    manifest: Manifest, q01: float, q99: float, least: float, most: float, std: float
) -> None:
    found = one_element(manifest, std=std, q01=q01, q99=q99, min=least, max=most)
    assert found.scale[0, 0] == torch.tensor((q99 - q01) / 2).float()
    assert found.centre[0, 0] == torch.tensor((q99 + q01) / 2).float()


@pytest.mark.parametrize("share", [0.0002, 0.004, 0.009, 0.05, 0.5])
@pytest.mark.parametrize("jitter", [0.0, 1e-6, 1e-4, 1e-2, 1.0])
def test_whatever_is_rare_the_mean_square_is_of_order_one(
    manifest: Manifest, share: float, jitter: float
) -> None:
    """And no value is beyond 2 sqrt(n) + 3. The bounds of `LEAST_STDS`."""
    rng = np.random.default_rng(1)
    num = 5000
    values = rng.normal(size=num) * jitter
    values[: int(share * num)] += 1.0
    q01, q99 = np.quantile(values, [0.01, 0.99], method="inverted_cdf")
    found = one_element(
        manifest, std=values.std(), q01=q01, q99=q99, min=values.min(), max=values.max()
    )
    square = np.square(encoded(found, values))
    assert np.sqrt(square.max()) <= 2 * num**0.5 + 3
    assert 0 < square.mean() <= 13


def test_without_samples_an_element_is_masked(manifest: Manifest) -> None:
    found = normaliser(manifest)
    assert found.is_known.sum(1).tolist() == [0, 3]
    assert not found.is_known[1, slot_names().index("right.gripper_opening")]
    assert found.encode(vector(right__gripper_opening=9.0), ROBOT).abs().sum() == pytest.approx(
        0.5 + 1.0, abs=1e-6
    )  # x is (0 - 1) / 2, the left gripper (0 - 0.5) / 0.5


def test_clip_cuts_and_none_leaves(manifest: Manifest) -> None:
    far = vector(left__delta_position_m__x=101.0)
    assert normaliser(manifest).encode(far, ROBOT)[0, 0, 0] == 50
    assert normaliser(manifest, clip=1.5).encode(far, ROBOT)[0, 0, 0] == 1.5


def test_each_sample_by_its_own_body(manifest: Manifest) -> None:
    """Bodies in another order than the batch."""
    other = MADE.model_copy(update={"q01": (0.0, 0.0, 0.0, None), "q99": (20.0, 1.0, 1.0, None)})
    given = manifest_with(manifest, robot=MADE, arm=other)
    found = normaliser_of(given, ("arm", "robot"), NormaliseSettings())
    values = torch.full((2, 3, ACTION_WIDTH), 3.0)
    encoded = found.encode(values, torch.tensor([1, 0]))
    assert encoded[:, 0, 0].tolist() == pytest.approx([1.0, -0.7])
    twin = found.encode_array(values.numpy(), np.array([1, 0]))
    assert torch.equal(torch.from_numpy(twin), encoded)


def test_a_checkpoint_keeps_it(manifest: Manifest) -> None:
    found = normaliser(manifest, clip=3.0)
    again = from_state(found.state())
    assert again.embodiments == found.embodiments
    assert again.clip == 3.0
    assert torch.equal(again.scale, found.scale)
    with pytest.raises(ConfigError, match="a different layout"):
        from_state(found.state() | {"slots": ["x"]})
    with pytest.raises(ConfigError, match="delta_body_quat"):
        from_state(found.state() | {"representation": "delta_body_quat"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"slots": 3}, "slots: 3; expected a list"),
        ({"clip": "wide"}, "clip"),
        ({"scale": torch.zeros(1, 2)}, r"no scale of torch.float32 \[2, 172\]"),
        ({"is_known": torch.zeros(2, ACTION_WIDTH)}, "no is_known of torch.bool"),
    ],
)
def test_a_damaged_normaliser_of_a_checkpoint_is_refused(
    manifest: Manifest, damage: dict[str, object], message: str
) -> None:
    state = normaliser(manifest).state()
    with pytest.raises(ConfigError, match=message):
        from_state(state | damage)
    key = next(iter(damage))
    with pytest.raises(ConfigError, match=key):
        from_state({name: value for name, value in state.items() if name != key})


def test_new_bodies_do_not_move_old_ones(manifest: Manifest) -> None:
    old = normaliser(manifest)
    wide = MADE.model_copy(update={"q99": (7.0, 0.25, 0.0, None)})
    later = normaliser_of(manifest_with(manifest, robot=wide, arm=wide), ("arm", "robot"), NormaliseSettings())  # fmt: skip
    both = old.joined(later)
    assert both.embodiments == ("blind", "robot", "arm")
    assert both.scale[:, 0].tolist() == [0, 2.0, 4.0]


def test_other_statistics_are_refused_with_the_command(manifest: Manifest) -> None:
    statistics = manifest.facts.statistics
    assert statistics is not None
    odd = statistics.model_copy(update={"representation": "absolute_1"})
    facts = manifest.facts.model_copy(update={"statistics": odd})
    with pytest.raises(ConfigError, match=r"another representation.*eicorpus manifest build"):
        normaliser_of(replace(manifest, facts=facts), ("umi",), NormaliseSettings())


def test_no_statistics_are_refused_with_the_command(trainable: Trainable, tmp_path: Any) -> None:
    mine = trainable.copied(tmp_path / "corpus")
    bare = load(build_manifest(mine.corpus, "bare", with_statistics=False))
    with pytest.raises(ConfigError, match=r"no statistics.*eicorpus manifest build"):
        normaliser_of(bare, ("umi",), NormaliseSettings())
