"""Does aligning a policy with latent actions of video pay? The fair test of LARA in Meta-World: docs/results/lara.md.

`python -m benchmarks.lara --out RUN [--quick] [--json]`. Stop it at any time; the same command goes on. Needs the extras train, sim and eyes.

Every arm has the same first weights, samples, order and steps; a batch is three quarters policy samples of a few demonstrations and one quarter pictures of
any episode, video without actions included, whose forecasting loss has no weight: without LARA they teach nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.result import as_json, machine
from benchmarks.routing import commands
from benchmarks.routing.compare import compared
from benchmarks.routing.plan import Budget, Play, takes
from benchmarks.routing.record import record_all
from benchmarks.routing.scenes import TRAINED
from benchmarks.routing.settings import Places, Scenes
from benchmarks.routing.state import State, timed
from benchmarks.routing.statistics import paired_difference
from benchmarks.routing.trained import Asked, outcomes_of, rollout_report
from schemas.errors import PipelineError
from training.evaluation.motion_probe import FEATURES

EXECUTE = 8  # timesteps of a chunk of 16 that are carried out
RECIPE = Path(__file__).parent / "routing" / "recipes" / "sanity.yaml"
LAM = {"width": 96, "num_heads": 4, "num_layers": 2, "decoder_layers": 2}
JOINT = {"kind": "joint", "after_block": 2, "lam": LAM}  # of the three blocks of `tiny`
ARMS: dict[str, dict[str, Any]] = {
    "policy": {"kind": "none"},
    "lara": JOINT,
    "frozen": JOINT | {"freeze_lam": True},
    "strong": JOINT | {"weight_align": 1.0},
}
# What of a probe says whether a latent action model works.
BOOK = {
    "reconstruction": "error, parts of that of copying",
    "reconstruction_with_other": "with another sample's latent action",
    "perplexity": "codes in use (perplexity)",
}
LAMS = ("lam", "lam_longer")  # the second has as many steps as the first and an arm together
Answer = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaraTest:
    """Everything that decides the figures. Counts of episodes are those of one task."""

    seed: int = 0
    num_demos: int = 20
    num_held_out: int = 30  # experts, half of them to fit the probe
    num_videos: int = 60
    lam_steps: int = 1000
    num_steps: int = 1000
    num_rollouts: int = 10
    encoder: str = "efficientnet_lite0_coarse"

    @classmethod
    def quick(cls) -> LaraTest:
        """Shows that everything runs; do not quote it."""
        return cls(
            num_demos=3, num_held_out=6, num_videos=3, lam_steps=20, num_steps=20, num_rollouts=1
        )

    @property
    def budget(self) -> Budget:
        num_experts = self.num_demos + self.num_held_out
        return Budget(
            expert=num_experts, held_out=0, noisy=0, failed=0, video=self.num_videos, replays=0
        )


class LaraRun:
    """The steps of a run, each done once."""

    def __init__(self, test: LaraTest, places: Places, workers: int, num_seeds: int) -> None:
        self.test, self.places, self.workers, self.num_seeds = test, places, workers, num_seeds
        self.state = State(places.out, asdict(test))

    def once(self, step: str, work: Callable[[], Answer]) -> Answer:
        answer = self.state.once(step, partial(timed, work))
        print(f"{step}: {answer['elapsed_s']:.0f} s", file=sys.stderr, flush=True)
        return answer

    def run(self) -> Answer:
        """All of it; the answers of all steps and the comparison.

        Raises:
            ConfigError: a command did not end well, or the folder holds a run with other settings.
        """
        self.once("record", self.record)
        self.once("ingest", lambda: commands.ingest(self.places, self.workers))
        self.once("latents", self.latents)
        demos, held_out = self.experts()
        self.once("manifest trained", lambda: self.manifest("trained", demos, video=True))
        self.once(
            "manifest held_out", lambda: self.manifest("held_out", held_out, video=False, val=0.5)
        )
        for names in (LAMS, tuple(ARMS)):  # an arm starts from the first latent action model
            pairs = [(name, seed) for seed in range(self.num_seeds) for name in names]
            self.train_all(pairs)
        rollouts: dict[str, dict[int, Answer]] = {name: {} for name in ARMS}
        errors: dict[str, dict[int, Answer]] = {name: {} for name in (*LAMS, *ARMS)}
        for seed in range(self.num_seeds):
            for name in (*LAMS, *ARMS):
                errors[name][seed] = self.once(
                    f"eval {name} {seed}", partial(self.evaluate, name, seed)
                )
            for name in ARMS:
                rollouts[name][seed] = self.once(
                    f"rollout {name} {seed}", partial(self.rolled, name, seed)
                )
        policies = {name: errors[name] for name in ARMS}
        return {
            "test": asdict(self.test),
            "num_seeds": self.num_seeds,
            "elapsed_s": {step: answer["elapsed_s"] for step, answer in self.state.done.items()},
            "compare": compared(rollouts, policies, seed=self.test.seed),
            "probe": probes(errors, self.test.seed),
        }

    def record(self) -> Answer:
        planned = [t for t in takes(self.test.budget, self.test.seed) if t.task in TRAINED]
        counts = {}
        for task, group in groupby(planned, key=lambda take: take.task):
            counts[task] = record_all(
                self.places.raw, list(group), progress=lambda done, whole: None
            )
        return {"episodes": counts}

    def latents(self) -> Answer:
        return commands.eicorpus(
            self.places,
            "latents",
            *("latents", "images", str(self.places.corpus), "--encoder", self.test.encoder),
        )

    def experts(self) -> tuple[list[str], list[str]]:
        """Episodes with actions: those that are trained on, and those that errors and probes are measured on."""
        demos, held_out = [], []
        for task in TRAINED:
            names = [
                take.name
                for take in takes(self.test.budget, self.test.seed)
                if take.task == task and take.play is Play.EXPERT and take.has_actions
            ]
            demos += names[: self.test.num_demos]
            held_out += names[self.test.num_demos :]
        return demos, held_out

    def videos(self) -> list[str]:
        budgeted = takes(self.test.budget, self.test.seed)
        return [t.name for t in budgeted if t.task in TRAINED and not t.has_actions]

    def manifest(self, name: str, episodes: list[str], *, video: bool, val: float = 0.0) -> Answer:
        chosen = [*episodes, *(self.videos() if video else ())]
        return commands.manifest(
            self.places, name, episodes=chosen, workers=self.workers, val_share=val
        )

    def train_all(self, pairs: list[tuple[str, int]]) -> None:
        """As many at a time as there are workers, each on a core of its own."""
        missing = [pair for pair in pairs if "train {} {}".format(*pair) not in self.state.done]
        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            results = pool.map(lambda pair: timed(lambda: self.train(*pair)), missing)
            for (name, seed), answer in zip(missing, results, strict=True):
                self.state.once(f"train {name} {seed}", partial(dict, answer))

    def train(self, name: str, seed: int) -> Answer:
        recipe = self.places.recipe(f"{name}-{seed}")
        recipe.parent.mkdir(parents=True, exist_ok=True)
        recipe.write_text(yaml.safe_dump(self.recipe_of(name, seed), sort_keys=False))
        first = ()
        if self.lara_of(name)["kind"] == "joint":
            first = ("--init-lam", str(self.places.run(f"lam-{seed}")))
        return commands.train(
            self.places, f"{name}-{seed}", self.places.manifest("trained"), recipe, *first
        )

    def lara_of(self, name: str) -> dict[str, Any]:
        return {"kind": "lam", "lam": LAM} if name in LAMS else ARMS[name]

    def recipe_of(self, name: str, seed: int) -> dict[str, Any]:
        test = self.test
        data: dict[str, Any] = {"encoder": test.encoder}
        if name in LAMS:
            num_steps = test.lam_steps + (test.num_steps if name == "lam_longer" else 0)
            # The picture that an arm aligns with, as the time that is said to come.
            data |= {"past_s": [0.0], "future_s": 1.5}
            shares, loss_weights = {"visual_forecasting": 1}, {}
        else:
            num_steps, shares = test.num_steps, {"policy": 3, "visual_forecasting": 1}
            loss_weights = {"visual_forecasting": 0.0}
        return {
            "extends": str(RECIPE),
            "name": f"lara-{name.replace('_', '-')}-{seed}",
            "seed": seed,
            "data": data,
            "routing": {"shares": _of_all_tasks(shares)},
            "text": {"kind": "none" if name in LAMS else "words"},
            "run": {"num_steps": num_steps, "loss_weights": loss_weights},
            "lara": self.lara_of(name),
        }

    def evaluate(self, name: str, seed: int) -> Answer:
        averages = () if name in LAMS else ("--ema",)  # as it is rolled out
        return commands.eicorpus(
            self.places,
            f"eval-{name}-{seed}",
            *("eval", str(self.places.run(f"{name}-{seed}")), "--allow-other-manifest", *averages),
            *("--manifest", str(self.places.corpus / "manifests" / "held_out"), "--split", "val"),
        )

    def rolled(self, name: str, seed: int) -> Answer:
        run, test = self.places.run(f"{name}-{seed}"), self.test
        key: tuple[Scenes, int] = ("final", test.seed)
        return rollout_report(
            outcome
            for task in TRAINED
            for outcome in outcomes_of(run, key, test.num_rollouts, EXECUTE, task, Asked())
        )


def _of_all_tasks(shares: Mapping[str, float]) -> dict[str, float]:
    tasks = ("policy", "inverse_dynamics", "forward_dynamics", "visual_forecasting")
    return dict.fromkeys(tasks, 0.0) | dict(shares)


def probes(errors: Mapping[str, Mapping[int, Answer]], seed: int) -> Answer:
    """R2 of every feature by run and seed, and the paired differences that the test is about."""
    by_run = {
        name: {str(s): a["latent_actions"] for s, a in of.items() if a.get("latent_actions")}
        for name, of in errors.items()
    }
    by_run = {name: of for name, of in by_run.items() if of}

    def r2(name: str, feature: str = "latent_action") -> list[float]:
        return [each["r2"][feature]["value"] for each in by_run[name].values()]

    rng = np.random.default_rng([seed, 4])
    differences = {
        f"lam: {feature} - {floor}": (r2("lam", feature), r2("lam", floor))
        for feature in ("latent_action", "code")
        for floor in ("random_code", "picture_of_now", "nothing_moves")
    } | {f"{name} - lam_longer": (r2(name), r2("lam_longer")) for name in by_run if name in ARMS}
    return {
        "by_run": by_run,
        "difference": {
            name: paired_difference(one, other, rng).as_dict()
            for name, (one, other) in differences.items()
        },
    }


def tables(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Of the answer, for docs/results/."""
    by_run, compare = answer["probe"]["by_run"], answer["compare"]
    seeds = [str(seed) for seed in range(answer["num_seeds"])]
    motion = [
        [f"`{name}`, {feature.replace('_', ' ')}", *(_cell(by_run[name][s]["r2"][feature]) for s in seeds)]
        for name, features in (("lam", FEATURES), *((n, FEATURES[:2]) for n in list(by_run)[1:]))
        for feature in features
    ]  # fmt: skip
    books = [
        [f"`{name}`", *(" / ".join(f"{of[s][key]:.3g}" for s in seeds) for key in BOOK)]
        for name, of in by_run.items()
    ]
    policies = [
        [
            f"`{name}`",
            _cell(compare["success"][name]),
            *(f"{compare['by_seed'][name][s]:.3f}" for s in seeds),
            " / ".join(f"{1e3 * compare['error'][name]['position_l1_m'][s]:.2f}" for s in seeds),
        ]
        for name in ARMS
    ]
    against = [name for name in compare["difference"] if name.endswith("- policy")]
    differences = [
        [
            name,
            _cell(compare["difference"][name], sign="+"),
            _cell(compare["error_difference"][f"{name}, position_l1_m"], sign="+", scale=1e3),
        ]
        for name in against
    ] + [
        [f"R2, {name}", _cell(each, sign="+"), ""]
        for name, each in answer["probe"]["difference"].items()
    ]
    of_seeds = [f"seed {s}" for s in seeds]
    return {
        "motion": {"columns": ["held-out R2 of the displacement", *of_seeds], "rows": motion},
        "books": {"columns": ["latent action model", *BOOK.values()], "rows": books},
        "policies": {
            "columns": ["arm", "success", *of_seeds, "held-out position error, mm"],
            "rows": policies,
        },
        "differences": {
            "columns": ["by seed, mean (95 %)", "difference", "position error, mm"],
            "rows": differences,
        },
    }


def _cell(estimate: Mapping[str, Any], *, sign: str = "", scale: float = 1.0) -> str:
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    if value is None:
        return "–"
    text = f"{scale * value:{sign}.3f}"
    return text if low is None else f"{text} ({scale * low:{sign}.3f} to {scale * high:{sign}.3f})"


def main() -> None:
    defaults = LaraTest()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lara", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--quick", action="store_true", help="few episodes, one seed: no figures")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each arm")
    parser.add_argument("--steps", type=int, default=defaults.num_steps, help="of each arm")
    parser.add_argument("--demos", type=int, default=defaults.num_demos, help="of each task")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    os.environ.setdefault("MUJOCO_GL", "osmesa")  # draws without a display and without a GPU
    test = LaraTest.quick() if args.quick else LaraTest(num_steps=args.steps, num_demos=args.demos)
    places, measured_on = Places(out=args.out.absolute()), machine()
    try:
        answer = LaraRun(test, places, args.workers, 1 if args.quick else args.seeds).run()
    except PipelineError as error:
        print(f"error {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    if args.json:
        print(as_json("lara", measured_on, tables=tables(answer)))
    else:
        print(json.dumps(answer, indent=1))


if __name__ == "__main__":
    main()
