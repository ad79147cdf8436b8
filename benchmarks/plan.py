"""What planning costs and brings: latency and success against the number of candidate chunks, in one table and one figure.

    python -m benchmarks.plan [--json] [--recipe tiny] [--chunks 1,2,4,8,16] [--rounds 5]
    python -m benchmarks.plan --run RUN [--weights FOLDER] --rollouts 10 --figure plan.svg [--json]

Without --run the network of a recipe has random weights: latency alone. A run needs a value head (`eicorpus train-value RUN`); success needs the extra `sim`.
The numbers of chunks take turns in every round, so that what else the machine does falls on all of them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer
from matplotlib.figure import Figure

from benchmarks import result
from benchmarks.routing.settings import Scenes
from benchmarks.routing.trained import Asked, policy_of
from schemas.errors import ConfigError
from training.conditioning.hashed_words import WordsConditioner, WordsReader
from training.data.action_layout import ACTION_WIDTH, slots_of
from training.data.normalise import Normaliser
from training.learner import Learner
from training.model.network import Network
from training.model.settings import ModelSettings
from training.policy.observation import Observation
from training.policy.policy import Policy
from training.recipe import TrainRecipe, WordsText, load_recipe
from training.value.head import ValueHead
from training.value.settings import ValueSettings, ValueShape

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "sampling_steps": "Euler steps of a chunk, and of an image.",
    "tokens": "Image tokens of an observation.",
    "latency_ms_*": "One observation to one chunk, of so many candidates. Latents are given: no image encoder.",
    "latency_ratio_*": "The same over one chunk without planning, median of the rounds.",
    "latency_ms_per_chunk_*": "Latency over candidates.",
}
BODY, PARTS = "umi", ("left.delta_position_m", "left.delta_rotvec_rad", "left.gripper_opening")
EXECUTE = 4  # timesteps of a chunk that are carried out
PATCHES, LATENT_WIDTH = 64, 112  # of `efficientnet_lite0`
Figures = dict[str, Any]


def untrained_policy(recipe: TrainRecipe, *, num_chunks: int) -> Policy:
    """Of a recipe's network with random weights and one gripper arm: for latency."""
    words = recipe.text if isinstance(recipe.text, WordsText) else WordsText()
    data = recipe.data
    settings = ModelSettings(
        **recipe.architecture.model_dump(),
        latent_width=LATENT_WIDTH,
        num_patches=PATCHES,
        num_views=len(data.cameras),
        num_past=len(data.past_s),
        text_width=words.width,
        action_width=ACTION_WIDTH,
        num_history=data.num_history,
        num_actions=data.num_actions,
        num_embodiments=1,
    )
    torch.manual_seed(0)
    conditioner = WordsConditioner(words.num_buckets, words.num_words, words.width)
    learner = Learner(Network(settings), conditioner)
    reader = WordsReader(num_buckets=words.num_buckets, num_words=words.num_words)
    shape = ValueShape(
        latent_width=LATENT_WIDTH,
        num_patches=PATCHES,
        num_views=settings.num_views,
        text_width=words.width,
        state_width=0,
    )
    head = ValueHead(shape, ValueSettings()).eval()
    return Policy(
        learner,
        lambda seen: reader.of([each.text for each in seen]),
        arm(),
        recipe,
        num_chunks=num_chunks,
        value=head.value,
    )


def arm() -> Normaliser:
    """One arm with a gripper, whose elements are as they are."""
    names = [f"{part}.{axis}" for part in PARTS[:2] for axis in "xyz"] + [PARTS[2]]
    is_known = np.zeros(ACTION_WIDTH, dtype=bool)
    is_known[slots_of(names, where="benchmark")] = True
    ones = torch.ones(1, ACTION_WIDTH)
    return Normaliser(
        embodiments=(BODY,),
        centre=torch.zeros_like(ones),
        scale=ones * 0.01,
        is_known=torch.from_numpy(is_known)[None],
    )


def observations_of(policy: Policy, count: int = 4) -> list[Observation]:
    """Random latents of its first embodiment and first camera."""
    settings = policy.learner.network.settings
    shape = (settings.num_past, settings.num_patches, settings.latent_width)
    rng = np.random.default_rng(0)
    camera = policy.recipe.data.cameras[0].replace("*", "camera")
    body = policy.embodiments[0]
    width = policy.spec(body).width
    return [
        Observation(
            text="push the button",
            embodiment=body,
            latents={camera: rng.normal(size=shape).astype(np.float32)},
            state=np.zeros(width) if policy.recipe.data.with_state else None,
        )
        for _ in range(count)
    ]


def latencies(policies: Mapping[int, Policy], rounds: int) -> Figures:
    """Milliseconds of one observation, by number of chunks; rounds are interleaved and the first is thrown away."""
    shown = observations_of(policies[min(policies)])
    times: dict[int, list[float]] = {num: [] for num in policies}
    spreads: dict[int, list[float]] = {num: [] for num in policies}
    for turn in range(rounds + 1):
        for num, policy in policies.items():
            started = time.perf_counter()
            chunks = [policy.act(each) for each in shown]
            if turn:
                times[num].append((time.perf_counter() - started) / len(shown) * 1e3)
            spreads[num] = [float(c.plan_values.std()) for c in chunks if c.plan_values is not None]
    first = times[min(policies)]
    figures: Figures = {}
    for num, of in times.items():
        figures[f"latency_ms_{num}"] = median(of)
        ratios = [a / b for a, b in zip(of, first, strict=True)]
        figures[f"latency_ratio_{num}"] = median(ratios)
        figures[f"latency_ms_per_chunk_{num}"] = median(of) / num
        if spreads[num]:
            figures[f"value_std_{num}"] = float(np.mean(spreads[num]))
    return figures


def successes(policies: Mapping[int, Policy], run: Path, *, seed: int, rollouts: int) -> Figures:
    """Reports of `benchmarks.routing.trained` by number of chunks, over the same scenes."""
    from benchmarks.routing.trained import horizon_of, rolled_out, rollout_report

    horizon = horizon_of(run, EXECUTE)
    key: tuple[Scenes, int] = ("validation", seed)
    return {
        str(num): rollout_report(rolled_out(policy, key=key, count=rollouts, horizon=horizon))
        for num, policy in policies.items()
    }


def figure_of(chunks: Sequence[int], figures: Mapping[str, Any]) -> Figure:
    """Latency, and success where it was measured, against the number of candidates."""
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    left = figure.add_subplot()
    left.plot(chunks, [figures[f"latency_ms_{n}"] for n in chunks], "o-", color="#22313f")
    left.set_xscale("log", base=2)
    left.set_xticks(list(chunks), [str(n) for n in chunks])
    left.set_xlabel("candidate chunks N")
    left.set_ylabel("latency, ms")
    left.set_ylim(bottom=0)
    measured = [n for n in chunks if f"success_{n}" in figures]
    if measured:
        right = left.twinx()
        value = [figures[f"success_{n}"] for n in measured]
        ends = [
            [figures[f"success_{n}"] - figures[f"success_low_{n}"] for n in measured],
            [figures[f"success_high_{n}"] - figures[f"success_{n}"] for n in measured],
        ]
        right.errorbar(measured, value, yerr=ends, fmt="s--", color="#2a7f62", capsize=4)
        right.set_ylabel("success in the simulator", color="#2a7f62")
        right.set_ylim(0, 1)
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """As SVG; the same figures give the same bytes."""
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "eicorpus", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
    return path


def chunks_of(text: str) -> list[int]:
    """Numbers of "1,4,16", ascending, with 1 among them: it is what the others are compared with.

    Raises:
        ConfigError: no such list.
    """
    words = text.split(",")
    if not all(word.strip().isdigit() and int(word) for word in words):
        raise ConfigError(f"{text!r}; expected numbers from 1, as 1,4,16", where="--chunks")
    return sorted({1, *map(int, words)})


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    run: Annotated[Path | None, typer.Option(help="A run with a value head.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of its image encoder.")] = None,
    recipe: Annotated[str, typer.Option(help="Without --run: the network.")] = "tiny",
    chunks: Annotated[str, typer.Option(help="Numbers of candidates.")] = "1,2,4,8,16",
    sampling_steps: Annotated[int, typer.Option(help="Euler steps; 0: the recipe's.")] = 0,
    rounds: Annotated[int, typer.Option(help="Rounds of latency.")] = 5,
    rollouts: Annotated[int, typer.Option(help="With --run: of each task.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the scenes.")] = 0,
    figure: Annotated[Path | None, typer.Option(help="SVG file.")] = None,
) -> None:
    """Measure latency, and success where it is wanted."""
    measured_on = result.machine()
    numbers, steps = chunks_of(chunks), sampling_steps or None
    if run is None:
        changes = {} if steps is None else {"run": {"sampling_steps": steps}}
        settings = load_recipe(recipe, changes)
        policies = {n: untrained_policy(settings, num_chunks=n) for n in numbers}
    else:
        policies = {
            n: policy_of(run, Asked(num_chunks=n, sampling_steps=steps), weights=weights)
            for n in numbers
        }
    one = policies[1]
    figures: Figures = {
        "sampling_steps": one.sampler.num_steps,
        "tokens": one.learner.network.settings.num_image_tokens,
        **latencies(policies, rounds),
    }
    if run is None:  # a network that learned nothing predicts one image for all chunks
        figures = {k: v for k, v in figures.items() if not k.startswith("value_std_")}
    elif rollouts:
        for number, report in successes(policies, run, seed=seed, rollouts=rollouts).items():
            for key, name in (("value", ""), ("low", "low_"), ("high", "high_")):
                figures[f"success_{name}{number}"] = report["success"][key]
    if figure is not None:
        save_figure(figure_of(numbers, figures), figure)
    if as_json:
        print(result.as_json("plan", measured_on, figures))
    else:
        for key, value in figures.items():
            print(f"{key:28} {value:.4g}")


if __name__ == "__main__":
    typer.run(main)
