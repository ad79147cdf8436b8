"""The policy sees what training saw, and what it answers is where the hands of the corpus went."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from schemas import manifest as manifests
from schemas.embodiment import embodiment_for
from schemas.errors import ConfigError
from schemas.geometry import rot6d_cols_from_rotmat
from schemas.stored_picture import as_stored
from schemas.stored_size import SHORT_SIDE_PX
from schemas.supervision import Task
from tests.ingest.verify_corpus import rewrite_column
from tests.training.corpus import (
    NUM_PREFIX,
    Trainable,
    body_of,
    cameras_of,
    opening_of,
    poses_of,
    tokens_of,
)
from tests.training.tiny import ScriptedNetwork
from training.batch import Batch
from training.conditioning.hashed_words import NoTextConditioner, NoTextReader
from training.conditioning.inputs import TextInputs
from training.data.loader import Loader
from training.learner import Learner
from training.model.network import KnownInputs
from training.model.settings import ModelSettings
from training.policy.embodiments import embodiments_of
from training.policy.observation import Observation
from training.policy.policy import Policy
from training.recipe import TrainRecipe

NUM_HISTORY = 3


class Answering(ScriptedNetwork):
    """Says `chunk` whatever the noise, and keeps what it was told."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.place = nn.Parameter(torch.zeros(1))
        self.chunk = torch.zeros(0)
        self.known: KnownInputs | None = None

    def velocities(
        self, known: KnownInputs, action: Tensor, future: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        self.known = known
        return (self.chunk - action) / (1 - t)[:, None, None], future


@pytest.fixture(scope="module")
def loader(trainable: Trainable) -> Loader:
    data = {
        "encoder": "tiny_vit",
        "cameras": ["front", "wrist"],
        "num_history": NUM_HISTORY,
        "num_actions": 6,
        "future_s": 0.3,
    }
    recipe = TrainRecipe.model_validate({"name": "test", "data": data})
    return Loader(manifests.load(trainable.manifest), recipe, reader=NoTextReader())


def policy_of(loader: Loader, **changed: Any) -> tuple[Policy, Answering]:
    settings = ModelSettings(**loader.shapes().settings(), text_width=1)
    network = Answering(settings)
    network.chunk = torch.zeros(1, settings.num_actions, settings.action_width)
    learner = Learner(network, NoTextConditioner())  # type: ignore[arg-type]

    def tell(seen: Sequence[Observation]) -> TextInputs:
        return NoTextReader().of(len(seen))

    return Policy(learner, tell, loader.normaliser, loader.recipe, **changed), network


def vectors_of(number: int) -> np.ndarray:
    """[K, A] where the hands are at each timestep: position, two columns, opening, of each hand."""
    out = []
    arms = embodiment_for(body_of(number)).arms
    for side, arm in enumerate(arms[name] for name in ("left", "right") if name in arms):
        T = poses_of(number, side) @ arm.T_src_hand  # `hand_xfz`, as the corpus has it
        turn = rot6d_cols_from_rotmat(T[:, :3, :3])
        out += [T[:, :3, 3], turn, opening_of(number, side)]
    return np.concatenate(out, axis=1)


def targets_of(number: int) -> np.ndarray:
    """[K, A] the target for each timestep: where the hand is, or where it was told to be."""
    targets = vectors_of(number)
    if body_of(number) == "umi_bimanual":  # told to be 2 mm further on every axis
        for first in (0, 10):
            targets[:, first : first + 3] += 0.002
    return targets


def number_of(trainable: Trainable, uid: str) -> int:
    return next(number for number, each in trainable.uids.items() if each == uid)


def whole(loader: Loader) -> list[tuple[Batch, int]]:
    """Samples with all of their past and history, far enough from where a segment begins that the target of before is of it, too."""
    batch = next(loader.every(Task.POLICY, batch_size=500))
    starts = [loader.manifest.row(int(r)).start for r in batch.origin.row]
    far = batch.origin.timestep - np.array(starts) > NUM_HISTORY
    return [(batch, int(b)) for b in np.flatnonzero(far)]


def observation_of(trainable: Trainable, loader: Loader, batch: Batch, b: int) -> Observation:
    row, t = loader.manifest.row(int(batch.origin.row[b])), int(batch.origin.timestep[b])
    number = number_of(trainable, row.uid)
    latents = {
        name: tokens_of(number, name)[[t - 3, t]].astype(np.float32) for name in cameras_of(number)
    }
    return Observation(
        text="",
        embodiment=row.embodiment,
        latents=latents,
        history=targets_of(number)[t - NUM_HISTORY : t + 1],
    )


def test_it_is_told_what_the_loader_tells_in_training(trainable: Trainable, loader: Loader) -> None:
    policy, network = policy_of(loader)
    seen = set()
    for batch, b in whole(loader)[::7]:
        row = loader.manifest.row(int(batch.origin.row[b]))
        if row.uid == trainable.uids[2]:  # a pose is lost there, which a policy is not told of
            continue
        policy.act(observation_of(trainable, loader, batch, b))
        found, want = network.known, batch.known
        assert found is not None
        torch.testing.assert_close(found.past[0], want.past[b].float(), atol=0.01, rtol=0.01)
        for name in ("has_past", "has_history", "embodiment"):
            assert getattr(found, name)[0].equal(getattr(want, name)[b]), name
        raw = [
            loader.normaliser.decode(x.history[[i]], x.embodiment[[i]])
            for x, i in ((found, 0), (want, b))
        ]
        torch.testing.assert_close(
            raw[0], raw[1], atol=1e-5, rtol=0
        )  # metres and radians: float32 poses are in the corpus
        seen.add(row.embodiment)
    assert seen == {"umi", "umi_bimanual"}


def test_what_it_answers_is_where_the_hands_went(trainable: Trainable, loader: Loader) -> None:
    """The normalised chunk of training comes back as the corpus's own targets, metres and rotations."""
    policy, network = policy_of(loader)
    seen = set()
    for batch, b in whole(loader)[::5]:
        row, t = loader.manifest.row(int(batch.origin.row[b])), int(batch.origin.timestep[b])
        number = number_of(trainable, row.uid)
        valid = batch.has_action[b].any(dim=1)
        if number == 2 or not valid.all():
            continue
        network.chunk = batch.action[b : b + 1]
        chunk = policy.act(observation_of(trainable, loader, batch, b))
        want = targets_of(number)[t + 1 : t + 7]
        np.testing.assert_allclose(chunk.targets, want, atol=2e-5)
        np.testing.assert_allclose(chunk.t_s, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
        np.testing.assert_allclose(chunk.T_ref_hand("left")[:, :3, 3], want[:, :3], atol=2e-5)
        seen.add(row.embodiment)
    assert seen == {"umi", "umi_bimanual"}


def test_without_a_history_poses_are_seen_from_the_hand(loader: Loader) -> None:
    policy, network = policy_of(loader)
    network.chunk = loader.normaliser.encode(
        torch.zeros(1, 6, network.settings.action_width), torch.tensor([loader.embodiments.index("umi")])
    )  # no motion  # fmt: skip
    latents = {"front": np.zeros((1, 7, 8), np.float32)}
    chunk = policy.act(Observation(text="", embodiment="umi", latents=latents))
    np.testing.assert_allclose(chunk.T_ref_hand("left"), np.tile(np.eye(4), (6, 1, 1)), atol=1e-6)
    known = network.known
    assert known is not None
    assert not known.has_history.any()
    assert known.has_past[0].tolist() == [[False, False], [True, False]]


def test_a_short_history_is_the_last_part(loader: Loader) -> None:
    policy, network = policy_of(loader)
    latents = {"front": np.zeros((2, 7, 8), np.float32)}
    targets = vectors_of(0)[10:14]
    told = []
    for history in (targets, targets[1:], targets[-1:], np.concatenate([vectors_of(1)[:5], targets])):  # fmt: skip
        policy.act(Observation(text="", embodiment="umi", latents=latents, history=history))
        assert network.known is not None
        told.append(network.known)
    torch.testing.assert_close(told[1].history[0, 1:], told[0].history[0, 1:])
    assert told[1].has_history[0].any(dim=1).tolist() == [False, True, True]
    assert not told[2].has_history.any()
    torch.testing.assert_close(told[3].history, told[0].history)


def test_several_at_once_are_as_one_by_one(trainable: Trainable, loader: Loader) -> None:
    policy, network = policy_of(loader)
    torch.manual_seed(0)
    network.chunk = torch.randn(1, 6, network.settings.action_width)
    many = [observation_of(trainable, loader, batch, b) for batch, b in whole(loader)[::9]]
    assert {each.embodiment for each in many} == {"umi", "umi_bimanual"}
    for found, each in zip(policy.act_many(many), many, strict=True):
        np.testing.assert_allclose(found.targets, policy.act(each).targets, atol=1e-9)


def test_pictures_go_through_the_encoder(trainable: Trainable, loader: Loader) -> None:
    seen: list[np.ndarray] = []

    def encode(pictures: np.ndarray) -> np.ndarray:
        seen.append(pictures)
        means = pictures.reshape(len(pictures), -1).mean(axis=1)
        return np.tile(means[:, None, None], (1, NUM_PREFIX + 6, 8)) + np.arange(7)[:, None]

    policy, network = policy_of(loader, encode=encode)
    pictures = np.stack([np.full((5, 4, 3), value, np.uint8) for value in (1, 20, 40)])
    policy.act(Observation(text="", embodiment="umi", pictures={"wrist": pictures}))
    assert len(seen[0]) == 2  # as many as the recipe looks at, the last ones
    assert network.known is not None
    past = network.known.past[0].view(2, 2, 6, 8)[:, 1, :, 0]  # the second view is the wrist
    stored = [as_stored(each, SHORT_SIDE_PX) for each in pictures[1:]]
    np.testing.assert_array_equal(seen[0], stored)
    want = [[float(each.mean()) + i for i in range(1, 7)] for each in stored]
    np.testing.assert_allclose(past, want, rtol=1e-6)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"embodiment": "human_video"}, "unknown embodiment"),
        ({"embodiment": "nobody"}, "trained for umi, umi_bimanual"),
        ({"latents": {}}, "expected a camera matching front or wrist"),
        ({"latents": {"top": np.zeros((1, 7, 8))}}, "expected a camera matching front or wrist"),
        ({"latents": {"front": np.zeros((1, 7, 9))}}, "latents"),
        ({"latents": {"front": np.zeros((1, 5, 8))}}, "5 tokens"),
        ({"latents": {"front": np.zeros((0, 7, 8))}}, "latents"),
        ({"latents": {"front": np.array(0.5)}}, "latents"),
        ({"latents": {"front": np.full((1, 7, 8), np.nan)}}, "non-finite"),
        ({"latents": {}, "pictures": {"front": np.zeros((1, 4, 4, 3), np.uint8)}}, "no encoder"),
        ({"history": np.zeros((2, 9))}, "history"),
        ({"history": np.full((2, 10), np.nan)}, "values out of range"),
        ({"history": np.zeros((2, 10))}, "is not a rotation"),
        ({"history": np.array([["a"] * 10])}, "history"),
    ],
)
def test_what_it_cannot_use_is_said(loader: Loader, changed: dict[str, Any], said: str) -> None:
    policy, _ = policy_of(loader)
    usual: dict[str, Any] = {"text": "", "embodiment": "umi", "latents": {"front": np.zeros((1, 7, 8))}}  # fmt: skip
    policy.act(Observation(**usual))
    with pytest.raises(ConfigError, match=said):
        policy.act(Observation(**(usual | changed)))


GRIPPER = "left.gripper_opening"


@pytest.fixture(scope="module")
def unmeasured(trainable: Trainable, tmp_path_factory: pytest.TempPathFactory) -> Trainable:
    """The same corpus, where no episode of `umi` has a measured gripper (`episodes.command_only`)."""
    mine = trainable.copied(tmp_path_factory.mktemp("unmeasured") / "corpus")
    (dataset,) = {
        mine.corpus / row["dataset_path"]
        for row in manifests.load(mine.manifest).rows.to_pylist()
        if row["embodiment"] == "umi"
    }
    names = json.loads((dataset / "meta/info.json").read_text())["features"]["observation.valid"][
        "names"
    ]

    def masked(valid: np.ndarray) -> np.ndarray:
        valid[:, names.index(GRIPPER)] = False
        return valid

    for path in dataset.glob("data/*/*.parquet"):
        rewrite_column(path, "observation.valid", masked)
    return mine


def loader_with_state(mine: Trainable, cache: Path) -> Loader:
    data = {"encoder": "tiny_vit", "cameras": ["front", "wrist"], "with_state": True}
    recipe = TrainRecipe.model_validate({"name": "test", "data": data})
    return Loader(manifests.load(mine.manifest), recipe, reader=NoTextReader(), cache=cache)


def test_a_state_that_was_never_measured_is_masked_as_in_training(
    unmeasured: Trainable, tmp_path: Path
) -> None:
    loader = loader_with_state(unmeasured, tmp_path)
    policy, network = policy_of(loader, measured_state=loader.measured_state())
    bodies = set()
    for batch, b in whole(loader)[::7]:
        row, t = loader.manifest.row(int(batch.origin.row[b])), int(batch.origin.timestep[b])
        if row.uid == unmeasured.uids[2]:  # a pose is lost there, which a policy is not told of
            continue
        seen = observation_of(unmeasured, loader, batch, b)
        state = vectors_of(number_of(unmeasured, row.uid))[t].astype(np.float32)
        policy.act(replace(seen, state=state))
        assert network.known is not None
        assert network.known.state is not None
        assert batch.known.state is not None
        torch.testing.assert_close(network.known.state[0], batch.known.state[b], atol=1e-6, rtol=0)
        bodies.add(row.embodiment)
    assert bodies == {"umi", "umi_bimanual"}
    assert policy.facts()["embodiments"]["umi"]["not_measured"] == [GRIPPER]
    assert policy.facts()["embodiments"]["umi_bimanual"]["not_measured"] == []


def test_a_state_that_was_never_measured_may_be_anything(
    unmeasured: Trainable, tmp_path: Path
) -> None:
    """Not even a rotation; what was measured is checked as ever."""
    loader = loader_with_state(unmeasured, tmp_path)
    policy, network = policy_of(loader, measured_state={"umi": ("left.position_m", GRIPPER)})
    seen = Observation(
        text="",
        embodiment="umi",
        latents={"front": np.zeros((1, 7, 8), np.float32)},
        state=np.array([0.1, 0.2, 0.3, *[np.nan] * 6, 0.5]),
    )
    policy.act(seen)
    assert network.known is not None
    assert network.known.state is not None
    assert network.known.state[0, :10].tolist() == pytest.approx([0.1, 0.2, 0.3, *[0] * 6, 0.5])
    with pytest.raises(ConfigError, match="values out of range"):
        policy.act(replace(seen, state=np.array([np.nan, *[0.1] * 9])))
    with pytest.raises(ConfigError, match="is not a rotation"):
        policy_of(loader)[0].act(replace(seen, state=np.array([0.1, 0.2, 0.3, *[0] * 6, 0.5])))


def test_only_bodies_that_act_are_acted_for(loader: Loader) -> None:
    bodies = embodiments_of(loader.normaliser, {})
    assert list(bodies) == ["umi", "umi_bimanual"]
    names = [part.name for part in bodies["umi_bimanual"].spec.slices]
    parts = ("position_m", "rot6d_cols", "gripper_opening")
    assert names == [f"{side}.{part}" for side in ("left", "right") for part in parts]


def test_the_same_observation_gives_the_same_answer(loader: Loader) -> None:
    latents = {"front": np.zeros((1, 7, 8), np.float32)}
    seen = Observation(text="", embodiment="umi", latents=latents)
    noisy = []
    for seed in (0, 0, 1):
        policy, network = policy_of(loader, seed=seed)
        network.forward = lambda known, text, action, has_action, future, t, has_future: (
            action * 0,
            future,
        )  # type: ignore[method-assign]
        noisy.append(policy.act(seen).targets)
        np.testing.assert_array_equal(policy.act(seen).targets, noisy[-1])
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert (noisy[0] != noisy[2]).any()
