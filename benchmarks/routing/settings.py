"""What one run of the study is: fixed when its folder is made, checked when it is resumed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.routing.plan import Budget
from schemas.errors import ConfigError
from training.recipe import load_recipe

RECIPE = Path(__file__).parent / "recipes" / "study.yaml"
Scenes = Literal["validation", "final"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that decides the figures of a cell, but for the cell itself (`benchmarks/routing/cells.py`)."""

    seed: int = 0  # of what is recorded, and of the scenes that policies are tried in
    budget: Budget = field(default_factory=Budget)
    unit: int = 20  # imperfect episodes, and videos, of each task at scale 1
    num_steps: int = 1000  # optimiser steps of every stage of every cell
    policy_batch: int = 32  # samples of a step that train the policy, in every cell
    # Rollouts of each task in a cell: the same scenes for all cells of a seed.
    num_rollouts: int = 25
    execute: int = 4  # timesteps of a chunk of 16 that are carried out
    sampling_steps: int | None = None  # of Euler when a policy acts; None is the recipe's
    scenes: Scenes = "final"  # settings are chosen on "validation"; no scene is in both
    encoder: str = "efficientnet_lite0_coarse"
    recipe: str = "study"  # what the cells' recipes extend: `recipes/study.yaml`, one that comes with eicorpus, or a file

    def __post_init__(self) -> None:
        if self.num_rollouts < 1 or self.num_steps < 1 or self.policy_batch < 1:
            raise ConfigError("rollouts, steps and batch are at least 1", where=str(self))

    @property
    def recipe_file(self) -> str:
        return str(RECIPE) if self.recipe == "study" else self.recipe

    def as_dict(self) -> dict[str, Any]:
        """What every figure depends on, and the digest of the recipe with all that it extends, as a run of it would state.

        Raises:
            ConfigError: there is no such recipe.
        """
        return asdict(self) | {"recipe_sha256": load_recipe(self.recipe_file).digest()}

    def of_data(self) -> dict[str, Any]:
        """What is recorded and encoded: the part of a run that cells share, whatever they train."""
        return {"seed": self.seed, "budget": asdict(self.budget), "encoder": self.encoder}


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where everything of a run lies."""

    out: Path

    @property
    def raw(self) -> Path:
        return self.out / "raw"

    @property
    def corpus(self) -> Path:
        return self.out / "corpus"

    @property
    def cells(self) -> Path:
        return self.out / "cells"

    def manifest(self, name: str) -> Path:
        return self.corpus / "manifests" / name

    def recipe(self, name: str) -> Path:
        return self.out / "recipes" / f"{name}.yaml"

    def run(self, name: str) -> Path:
        return self.out / "runs" / name
