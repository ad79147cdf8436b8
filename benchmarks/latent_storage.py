"""What eight bits cost: the forecasting error of a policy that was trained on `fp8` and `int8` latents, against `bf16`.

    python -m benchmarks.latent_storage --out DIR [--json] [--seeds 3] [--steps 150]

One corpus (the simulated plays of the demo), one encoder with ImageNet weights, three storages of its tokens, and for each storage and seed the recipe `tiny`:
same first weights, samples, order and steps. Each is evaluated on the held-out episodes by its own latents, which is what training and serving with that storage
means; the error of copying the present image, on the same latents, is beside it. Stop it at any time; the same command goes on. Needs the extras train and eyes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from benchmarks.result import as_json, machine
from benchmarks.routing.commands import eicorpus
from benchmarks.routing.settings import Places
from benchmarks.routing.state import State
from ingest.corpus import snapshot
from ingest.latents.token_file import read_latents
from jobs.demo.raw import metaworld_hdf5
from schemas.latent_header import span_of

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "episodes": "Simulated plays, a fifth of them held out.",
    "seeds": "Trainings for each storage.",
    "forecast_l2_*": "Forecasting error (L2 of tokens) on held-out episodes, mean over the seeds.",
    "spread_*": "Its standard deviation over the seeds.",
    "over_bf16_ratio_*": "The same over that of bf16, paired by seed. 1 means that eight bits cost nothing.",
    "over_copy_ratio_*": "The same over the error of copying the present image.",
    "token_error_*": "Relative L2 error of the stored tokens against bf16, all tokens of all episodes.",
    "bytes_over_bf16_ratio_*": "Size of the latents over that of bf16.",
}
STORAGES = ("bf16", "fp8", "int8")
ENCODER = "efficientnet_lite0_coarse"
NUM_PLAYS = 48
BATCH_SIZE = 32
Answer = dict[str, Any]


class StorageRun:
    """The steps of a run, each done once."""

    def __init__(self, out: Path, num_seeds: int, num_steps: int) -> None:
        self.places, self.num_seeds, self.num_steps = Places(out=out), num_seeds, num_steps
        self.state = State(out, {"num_steps": num_steps, "num_plays": NUM_PLAYS})

    def once(self, step: str, work: Callable[[], Answer]) -> Answer:
        print(step, file=sys.stderr, flush=True)
        return self.state.once(step, work)

    def run(self) -> Answer:
        """All figures."""
        corpus = str(self.places.corpus)
        self.once("record", self.record)
        where = (str(self.places.raw), "--out", corpus, "--workers", "1")
        self.once("ingest", self.command("ingest", "ingest", "metaworld_hdf5", *where))
        self.once("measure", self.command("measure", "measure", corpus, "--workers", "1"))
        self.once("tier", self.command("tier", "tier", corpus))
        encoders = {}
        for storage in STORAGES:
            how = ("--encoder", ENCODER, "--dtype", storage, "--workers", "0")
            step = f"latents-{storage}"
            answer = self.once(step, self.command(step, "latents", "images", corpus, *how))
            encoders[storage] = str(answer["encoder_id"])
        shares = ("--split-by", "episode", "--val", "0.2", "--test", "0")
        self.once("manifest", self.command("manifest", "manifest", "build", corpus, "m", *shares))
        errors: dict[str, list[Answer]] = {storage: [] for storage in STORAGES}
        for seed in self.seeds:
            for storage in STORAGES:
                errors[storage].append(self.errors_of(storage, encoders[storage], seed))
        return self.figures(errors, encoders)

    @property
    def seeds(self) -> range:
        return range(self.num_seeds)

    def command(self, step: str, *words: str) -> Callable[[], Answer]:
        return partial(eicorpus, self.places, step, *words)

    def record(self) -> Answer:
        self.places.raw.mkdir(parents=True, exist_ok=True)
        metaworld_hdf5.write_many(self.places.raw, NUM_PLAYS)
        return {"plays": NUM_PLAYS}

    def errors_of(self, storage: str, encoder_id: str, seed: int) -> Answer:
        """Train, evaluate; the forecasting error and that of copying."""
        name = f"{storage}-{seed}"
        run = str(self.places.out / "runs" / name)
        manifest = str(self.places.corpus / "manifests" / "m")
        changed = {
            "data.encoder": encoder_id,
            "seed": seed,
            "run.num_steps": self.num_steps,
            "run.checkpoint_every": self.num_steps,
            "run.batch_size": BATCH_SIZE,
        }
        sets = [word for key, value in changed.items() for word in ("--set", f"{key}={value}")]
        train = self.command(
            f"train-{name}", "train", manifest, "--recipe", "tiny", "--out", run, *sets
        )
        self.once(f"train-{name}", train)
        answer = self.once(
            f"eval-{name}", self.command(f"eval-{name}", "eval", run, "--ema", "--split", "val")
        )
        [line] = [
            line
            for line in answer["lines"]
            if (line["task"], line["metric"]) == ("visual_forecasting", "latent_l2")
            and (line["embodiment"], line["tier"]) == ("all", "all")
        ]
        [copied] = [v for k, v in line["baselines"].items() if "copy" in k]
        return {"error": line["model"]["value"], "copy": copied}

    def figures(self, errors: dict[str, list[Answer]], encoders: dict[str, str]) -> Answer:
        out: Answer = {
            "encoder": ENCODER,
            "episodes": NUM_PLAYS,
            "seeds": self.num_seeds,
            "steps": self.num_steps,
        }
        stored = self.stored(encoders)
        for storage, each in errors.items():
            values = [answer["error"] for answer in each]
            ratios = [
                answer["error"] / base["error"]
                for answer, base in zip(each, errors["bf16"], strict=True)
            ]
            out[f"forecast_l2_{storage}"] = round(mean(values), 5)
            out[f"spread_{storage}"] = round(stdev(values), 5)
            out[f"over_copy_ratio_{storage}"] = round(mean(a["error"] / a["copy"] for a in each), 4)
            if storage != "bf16":
                out[f"over_bf16_ratio_{storage}"] = round(mean(ratios), 4)
                out[f"by_seed_over_bf16_{storage}"] = ", ".join(f"{ratio:.4f}" for ratio in ratios)
                out[f"token_error_{storage}"] = round(stored[storage]["token_error"], 5)
                out[f"bytes_over_bf16_ratio_{storage}"] = round(
                    stored[storage]["num_bytes"] / stored["bf16"]["num_bytes"], 3
                )
        return out

    def stored(self, encoders: dict[str, str]) -> dict[str, Answer]:
        """Of each storage its bytes and what its tokens lose against bf16."""
        corpus = self.places.corpus
        rows = snapshot.load(corpus).read(corpus, "latents").to_pylist()
        of = {
            name: {r["uid"]: r for r in rows if r["encoder_id"] == id_}
            for name, id_ in encoders.items()
        }
        squares = dict.fromkeys(of, 0.0)
        whole = 0.0
        for uid in of["bf16"]:
            tokens = {name: self.tokens(of_uid[uid]) for name, of_uid in of.items()}
            whole += float((tokens["bf16"].astype(np.float64) ** 2).sum())
            for name in of:
                off = tokens[name].astype(np.float64) - tokens["bf16"]
                squares[name] += float((off**2).sum())
        return {
            name: {
                "num_bytes": sum(row["num_bytes"] for row in of_uid.values()),
                "token_error": (squares[name] / whole) ** 0.5,
            }
            for name, of_uid in of.items()
        }

    def tokens(self, row: dict[str, Any]) -> Any:
        span = span_of(row["pack_offset"], row["num_bytes"])
        return read_latents(self.places.corpus / row["path"], span).tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    measured_on = machine()
    figures = StorageRun(asked.out, asked.seeds, asked.steps).run()
    if asked.json:
        sys.stdout.write(as_json("latent_storage", measured_on, figures) + "\n")
    else:
        sys.stdout.write(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
