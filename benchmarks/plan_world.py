"""Does planning pay where the demonstrations are poor? A table top of two dimensions, with the network, the value head and the loop of the project.

    python -m benchmarks.plan_world [--json] [--chunks 1,2,4,8,16] [--rollouts 100] [--seeds 3] [--quick] [--figure plan_world.svg]

A hand has to reach a goal. Every demonstration keeps a direction for 8 timesteps that is wrong by `WRONG_RAD` (standard deviation), so a policy that imitates
them wanders; most of the episodes fail. All four tasks and the value head are trained on these episodes alone. It is no robot: it shows that the parts fit and
which sign they have, and what a value of images is worth when nothing else is known.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks import result
from benchmarks.plan import arm, chunks_of, figure_of, latencies, save_figure
from benchmarks.routing.statistics import wilson
from schemas.action import ActionSpec, action_spec
from schemas.geometry import Array
from training.batch import Batch, Origin
from training.conditioning.hashed_words import WordsConditioner, WordsReader
from training.data.action_layout import ACTION_WIDTH
from training.flow import times_from
from training.learner import Learner
from training.loss import weighted
from training.model.network import KnownInputs, Network
from training.model.settings import ModelSettings
from training.policy.observation import Pixels
from training.policy.policy import Policy
from training.recipe import TrainRecipe, load_recipe
from training.rollout.loop import Horizon, closed_loop, scene_seed
from training.tasks import TASKS
from training.value.fit import LabelledSamples, scores_of, train_head
from training.value.head import ValueHead, mean_of
from training.value.outcomes import targets_of
from training.value.settings import OutcomeCounts, ValueSettings, ValueShape

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "demonstrations": "Episodes that everything is trained on.",
    "demonstrations_success": "Share of them that succeed.",
    "rollouts": "Rollouts of a number of chunks: all seeds, the same scenes for each number.",
    "value_rank_correlation": "Of the value head with its targets, on other episodes; mean of the seeds.",
    "success_*": "Share of rollouts that succeed, by number of chunks.",
    "success_low_*": "Lower end of its 95 % interval.",
    "success_high_*": "Upper end.",
    "timesteps_*": "Mean timesteps of those that succeed.",
    "latency_ms_*": "One observation to one chunk.",
}
TEXT, NUM_ACTIONS, FUTURE, PAST = "reach the goal", 8, 6, 3
STEP_M, NEAR_M, WRONG_RAD, LIMIT = 0.005, 0.01, 1.2, 40
PATCHES, WIDTH = 9, 16
# Of `latencies`: what it is on a robot's network, and values of random images.
DROPPED = ("latency_ratio_", "latency_ms_per_chunk_", "value_std_")
Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is trained and played."""

    episodes: int = 400
    steps: int = 1500
    batch: int = 64
    value_steps: int = 600
    rollouts: int = 100
    seeds: int = 3

    @classmethod
    def quick(cls) -> Size:
        """Shows that everything runs; do not quote it."""
        return cls(episodes=30, steps=10, batch=16, value_steps=10, rollouts=2, seeds=1)


def tokens_of(at: Floats) -> Floats:
    """[..., PATCHES, WIDTH] the image of hand and goal [..., 4] in metres: bumps around the places of a grid, so that neighbours look alike."""
    grid = np.linspace(-0.1, 0.1, 3)
    centres = np.array([(x, y) for x in grid for y in grid])
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, WIDTH))
    hand, goal = at[..., None, :2] - centres, at[..., None, 2:] - centres
    features = [
        np.exp(-np.square(hand).sum(-1) / 0.005),
        np.exp(-np.square(goal).sum(-1) / 0.005),
        *(hand[..., i] * 10 for i in range(2)),
        *(goal[..., i] * 10 for i in range(2)),
    ]
    return np.asarray(np.tanh(np.stack(features, axis=-1) @ mixing))


def starts_of(rng: np.random.Generator, count: int) -> Floats:
    """[count, 4] hand and goal."""
    return rng.uniform(-0.1, 0.1, size=(count, 4))


def is_near(at: Floats) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.asarray(np.linalg.norm(at[..., :2] - at[..., 2:], axis=-1) < NEAR_M)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Demonstrations:
    """at: [M, LIMIT + 1, 4] hand and goal; end: [M] last timestep of each; succeeds: [M]."""

    at: Floats
    end: Ints
    succeeds: np.ndarray[Any, np.dtype[np.bool_]]

    def places(self) -> tuple[Ints, Ints]:
        """[S] episode and timestep of every image that has a future one."""
        pairs = [(m, t) for m, end in enumerate(self.end) for t in range(int(end) - FUTURE + 1)]
        both = np.array(pairs, dtype=np.int64)
        return both[:, 0], both[:, 1]


def demonstrations(count: int, seed: int) -> Demonstrations:
    """Episodes that end where they succeed, or at LIMIT."""
    rng = np.random.default_rng([seed, 1])
    at = np.empty((count, LIMIT + 1, 4))
    at[:, 0] = starts_of(rng, count)
    angle = np.zeros(count)
    for t in range(LIMIT):
        if t % NUM_ACTIONS == 0:
            towards = at[:, t, 2:] - at[:, t, :2]
            angle = np.arctan2(towards[:, 1], towards[:, 0]) + rng.normal(size=count) * WRONG_RAD
        move = STEP_M * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        at[:, t + 1] = at[:, t]
        at[:, t + 1, :2] += move
    near = is_near(at)
    succeeds = np.asarray(near.any(axis=1))
    end = np.where(succeeds, near.argmax(axis=1), LIMIT)
    return Demonstrations(at=at, end=end, succeeds=succeeds)


class Samples:
    """Batches of demonstrations."""

    def __init__(self, of: Demonstrations, reader: WordsReader) -> None:
        self.of, self.reader = of, reader
        self.episode, self.timestep = of.places()
        self.normaliser = arm()
        self.is_known = self.normaliser.is_known[0]

    def batch(self, which: np.ndarray[Any, Any], task: np.ndarray[Any, Any]) -> Batch:
        """Samples, each with its task."""
        m, t, end = self.episode[which], self.timestep[which], self.of.end[self.episode[which]]
        size = len(which)
        past = np.maximum(t[:, None] + np.array([-PAST, 0]), 0)
        images = tokens_of(self.of.at[m[:, None], np.column_stack([past, t + FUTURE])])
        step = t[:, None] + np.arange(NUM_ACTIONS)
        inside = step < end[:, None]
        after = np.minimum(step + 1, LIMIT)
        moves = self.of.at[m[:, None], after, :2] - self.of.at[m[:, None], after - 1, :2]
        action = torch.zeros(size, NUM_ACTIONS, ACTION_WIDTH)
        action[..., 0:2] = torch.from_numpy(moves * inside[..., None]).float()
        embodiment = torch.zeros(size, dtype=torch.long)
        has = torch.from_numpy(inside)[..., None] & self.is_known
        has_past = torch.ones(size, 2, 1, dtype=torch.bool)
        has_past[:, 0, 0] = torch.from_numpy(t >= PAST)
        none = torch.zeros(size, 0, ACTION_WIDTH)
        known = KnownInputs(
            past=torch.from_numpy(images[:, :2]).float(),
            has_past=has_past,
            history=none,
            has_history=none.bool(),
            embodiment=embodiment,
            task=torch.from_numpy(task),
        )
        return Batch(
            known=known,
            action=torch.where(has, self.normaliser.encode(action, embodiment), 0.0),
            has_action=has,
            asked=self.is_known.expand(size, -1),
            future=torch.from_numpy(images[:, 2]).float(),
            has_future=torch.ones(size, 1, dtype=torch.bool),
            action_t_s=0.1 * torch.arange(1, NUM_ACTIONS + 1),
            future_t_s=0.1 * FUTURE,
            text_inputs=self.reader.of([TEXT] * size),
            origin=Origin(row=m, timestep=t),
        )

    def labelled(self, learner: Learner, settings: ValueSettings) -> LabelledSamples:
        """Every sample, for a value head."""
        batch = self.batch(np.arange(len(self.episode)), np.zeros(len(self.episode), dtype=int))
        succeeds = self.of.succeeds[self.episode]
        target = targets_of(self.of.end[self.episode], succeeds, self.timestep + FUTURE, settings)
        with torch.no_grad():
            instruction = mean_of(learner.conditioner(batch.text_inputs))
        return LabelledSamples(
            future=batch.future,
            has_future=batch.has_future,
            instruction=instruction,
            state=None,
            target=torch.from_numpy(target),
            succeeds=succeeds,
            uid=self.episode.astype(object),
            counts=OutcomeCounts(samples=len(target)),
        )


class TableTop:
    """`training.rollout.loop.Steered`: an image holds hand and goal in its numbers."""

    embodiment, instruction, is_over = "umi", TEXT, False

    def __init__(self, spec: ActionSpec) -> None:
        self.spec, self.at, self.is_success = spec, np.zeros(4), False

    def reset(self, seed: int) -> None:
        self.at = starts_of(np.random.default_rng(seed), 1)[0]
        self.is_success = bool(is_near(self.at))

    def shown(self) -> Mapping[str, Pixels]:
        # Four numbers of 16 bits: places to 6 micrometres.
        numbers = np.clip((self.at + 0.2) / 0.4, 0, 1) * 65535
        high_and_low = np.divmod(numbers.round().astype(np.int64), 256)
        picture = np.zeros((2, 4, 3), dtype=np.uint8)
        picture[0, :, 0], picture[1, :, 0] = high_and_low
        return {"camera": picture}

    def state(self) -> Array:
        return self.in_force()

    def in_force(self) -> Array:
        target = np.zeros(self.spec.width)
        target[self.spec.slice("left.position_m")] = [*self.at[:2], 0.0]
        target[self.spec.slice("left.rot6d_cols")] = [1, 0, 0, 0, 1, 0]
        return target

    def carry_out(self, target: Array) -> None:
        move = target[self.spec.slice("left.position_m")][:2] - self.at[:2]
        length = max(float(np.linalg.norm(move)), 1e-12)
        self.at[:2] += move * min(1.0, STEP_M / length)
        self.is_success = self.is_success or bool(is_near(self.at))


def spec_of_arm() -> ActionSpec:
    """The layout of a target."""
    parts = [("left.position_m", 3), ("left.rot6d_cols", 6), ("left.gripper_opening", 1)]
    spec = action_spec(parts)
    assert spec is not None  # it has parts
    return spec


def encode(pictures: Pixels) -> Floats:
    """[n, PATCHES, WIDTH] what `TableTop.shown` shows."""
    numbers = pictures[:, 0, :, 0].astype(np.float64) * 256 + pictures[:, 1, :, 0]
    return tokens_of(numbers / 65535 * 0.4 - 0.2)


def recipe_of_world() -> TrainRecipe:
    """`tiny` with four Euler steps, so that chunks are samples and not the mean."""
    data = {"num_actions": NUM_ACTIONS, "num_history": 0, "past_s": [-0.3, 0.0], "future_s": 0.6}
    return load_recipe("tiny", {"data": data, "run": {"sampling_steps": 4}})


def trained(size: Size, seed: int) -> tuple[Learner, Samples]:
    """A network of all four tasks, equally many samples of each."""
    recipe = recipe_of_world()
    assert recipe.text.kind == "words"
    words = recipe.text
    torch.manual_seed(seed)
    settings = ModelSettings(
        **recipe.architecture.model_dump(),
        latent_width=WIDTH,
        num_patches=PATCHES,
        num_past=2,
        text_width=words.width,
        action_width=ACTION_WIDTH,
        num_history=0,
        num_actions=NUM_ACTIONS,
        num_embodiments=1,
        change_std=0.2,
    )
    conditioner = WordsConditioner(words.num_buckets, words.num_words, words.width)
    learner = Learner(Network(settings), conditioner)
    reader = WordsReader(num_buckets=words.num_buckets, num_words=words.num_words)
    samples = Samples(demonstrations(size.episodes, seed), reader)
    optimiser = torch.optim.AdamW(learner.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, size.steps)
    rng = np.random.default_rng([seed, 2])
    task = np.resize(np.arange(len(TASKS)), size.batch)
    weights = dict.fromkeys(TASKS, 1.0)
    for _ in range(size.steps):
        batch = samples.batch(rng.integers(len(samples.episode), size=size.batch), task)
        t = times_from(torch.rand(1, size.batch))
        noise = torch.randn(1, *batch.action.shape), torch.randn(1, *batch.future.shape)
        terms = learner(batch, t, *noise)
        optimiser.zero_grad(set_to_none=True)
        weighted(terms.sums, terms.counts, weights).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return learner.eval(), samples


def head_of(learner: Learner, samples: Samples, size: Size, seed: int) -> tuple[ValueHead, float]:
    """A value head, and its rank correlation on other episodes."""
    settings = ValueSettings(num_steps=size.value_steps, seed=seed)
    model = learner.network.settings
    shape = ValueShape(
        latent_width=WIDTH,
        num_patches=PATCHES,
        num_views=1,
        text_width=model.text_width,
        state_width=0,
    )
    torch.manual_seed(seed)
    head, device = ValueHead(shape, settings), torch.device("cpu")
    train_head(head, samples.labelled(learner, settings), settings, device, lambda _: None)
    other = Samples(demonstrations(max(20, size.episodes // 4), seed + 1000), samples.reader)
    scores = scores_of(
        head, other.labelled(learner, settings), mean=0.0, split="other", device=device
    )
    return head.eval(), scores.rank_correlation or 0.0


def policy_of_world(learner: Learner, head: ValueHead, samples: Samples, num_chunks: int, seed: int) -> Policy:  # fmt: skip
    """The policy that `eicorpus rollout --plan` would play."""
    return Policy(
        learner,
        lambda seen: samples.reader.of([each.text for each in seen]),
        samples.normaliser,
        recipe_of_world(),
        encode=encode,
        seed=seed,
        num_chunks=num_chunks,
        value=head.value,
    )


def played(policy: Policy, count: int, seed: int) -> list[int | None]:
    """Timestep of success of each rollout, None where there is none."""
    world = TableTop(spec_of_arm())
    horizon = Horizon(execute=FUTURE, past_steps=(-PAST, 0), limit=LIMIT)
    outcomes = [
        closed_loop(policy, world, scene_seed(seed, 7, k), horizon, task="reach")
        for k in range(count)
    ]
    return [each.success_at for each in outcomes]


def measured(size: Size, numbers: list[int]) -> dict[str, Any]:
    """All figures."""
    at: dict[int, list[int | None]] = {num: [] for num in numbers}
    ranks, shares, figures = [], [], {}
    for seed in range(size.seeds):
        learner, samples = trained(size, seed)
        head, rank = head_of(learner, samples, size, seed)
        ranks.append(rank)
        shares.append(float(samples.of.succeeds.mean()))
        policies = {n: policy_of_world(learner, head, samples, n, seed) for n in numbers}
        for num, policy in policies.items():
            at[num] += played(policy, size.rollouts, seed)
            print(f"seed {seed}, {num} chunks: {sum(x is not None for x in at[num])} of {len(at[num])}", file=sys.stderr)  # fmt: skip
        if seed == 0:
            figures = latencies(policies, 3)
    for num, outcomes in at.items():
        successes = [x for x in outcomes if x is not None]
        interval = wilson(len(successes), len(outcomes)).as_dict()
        figures[f"success_{num}"] = interval["value"]
        figures |= {f"success_{end}_{num}": interval[end] for end in ("low", "high")}
        figures[f"timesteps_{num}"] = float(np.mean(successes)) if successes else None
    return {
        "demonstrations": size.episodes,
        "demonstrations_success": float(np.mean(shares)),
        "rollouts": size.rollouts * size.seeds,
        "value_rank_correlation": float(np.mean(ranks)),
        **{k: v for k, v in figures.items() if not k.startswith(DROPPED)},
    }


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    chunks: Annotated[str, typer.Option(help="Numbers of candidates.")] = "1,2,4,8,16",
    rollouts: Annotated[int, typer.Option(help="Of each number of chunks and seed.")] = 100,
    seeds: Annotated[int, typer.Option(help="Trainings.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="Shows that everything runs.")] = False,
    figure: Annotated[Path | None, typer.Option(help="SVG file.")] = None,
) -> None:
    """Train, play, and compare."""
    torch.set_num_threads(1)
    measured_on, numbers = result.machine(), chunks_of(chunks)
    size = Size.quick() if quick else Size(rollouts=rollouts, seeds=seeds)
    figures = measured(size, numbers)
    if figure is not None:
        save_figure(figure_of(numbers, figures), figure)
    print(result.as_json("plan_world", measured_on, figures) if as_json else json.dumps(figures, indent=1))  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
