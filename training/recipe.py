"""A training recipe: everything that decides what a run computes, but for the manifest. YAML under `training/recipes/` or the user's own.

A recipe may name another that it `extends`; what it says replaces what that one says, key by key. The resolved recipe is written
beside every run and into every checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.errors import ConfigError
from schemas.invalid import invalid
from schemas.supervision import Task
from schemas.yaml_text import YamlLimits, read_yaml
from training.causal.settings import AnyArchitecture, CausalArchitecture
from training.data.routing import RoutingSettings
from training.lara.settings import JointStage, LaraSettings, LatentActionStage, NoLara
from training.model.settings import LARGEST, Architecture
from training.tasks import TASKS

MAX_BYTES = 1 << 20  # of a recipe file
MAX_EXTENDS = 8


class _RecipeSection(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NormaliseSettings(_RecipeSection):
    """How an element is scaled, by the manifest's statistics of the trained representation.

    "q99": [q01, q99] to [-1, 1]; "min_max": [min, max] to [-1, 1]; "mean_std": (x - mean) / std. An element that never changes
    becomes 0 and comes back as its constant. Normalised values are cut to +-`clip`; None leaves them.
    """

    mode: Literal["q99", "mean_std", "min_max"] = "q99"
    clip: float | None = Field(None, ge=1)


class LatentActionTargets(_RecipeSection):
    """Latent actions that `eicorpus latents actions` wrote, as what the policy says of video without actions: an embodiment of their own, `latent_action`.

    `encoder`: their id, or `lam` where the manifest has those of one model. `share`: of the policy's samples; it is the cap of video, of which there is
    more than of anything.
    """

    encoder: str = Field("lam", pattern=r"^lam(-[0-9a-f]{12})?$")
    share: float = Field(gt=0, le=1)


class LatentCacheSettings(_RecipeSection):
    """Blocks of one image that are read from a bucket, kept on a disk of this machine. `folder`: null is `latents` below `EICORPUS_CACHE`; processes share
    it. `max_gb`: then the least recently used blocks are replaced. `ahead_steps`: whose images are fetched before they are needed. `max_requests`: of a rank
    at a time, for that.
    """

    folder: str | None = None
    max_gb: float = Field(100.0, gt=0)
    ahead_steps: int = Field(8, ge=0)
    max_requests: int = Field(16, ge=1)


class DataSettings(_RecipeSection):
    """What a sample is: pictures at `past_s` and `future_s`, actions before and after now. Seconds from now, on the grid of the latents.

    `encoder`: an encoder id or its model name; empty where the manifest has only one. `cameras`: one glob for each view; the first
    camera of the episode that matches and is not another view's is it; a view without one is masked.
    `latent_cache`: null for the defaults with a corpus in a bucket, and for none with a folder. Set it where the folder is on a network file system.
    """

    encoder: str = ""
    cameras: tuple[str, ...] = Field(("*",), min_length=1)
    past_s: tuple[float, ...] = Field((-0.3, 0.0), min_length=1)
    future_s: float = Field(0.6, gt=0)
    num_actions: int = Field(16, ge=1, le=LARGEST)
    num_history: int = Field(4, ge=0, le=LARGEST)
    with_state: bool = False
    without_missing: bool = False  # leave out rows without latents; else they are refused
    normalise: NormaliseSettings = NormaliseSettings()
    latent_actions: LatentActionTargets | None = None
    latent_cache: LatentCacheSettings | None = None

    @model_validator(mode="after")
    def _past_ends_now(self) -> DataSettings:
        if list(self.past_s) != sorted(set(self.past_s)) or self.past_s[-1] != 0.0:
            raise ValueError(f"past_s {self.past_s}: expected increasing times that end at 0.0")
        return self


class NoText(_RecipeSection):
    """No text input."""

    kind: Literal["none"] = "none"


class WordsText(_RecipeSection):
    """A table of hashed words, trained with the network: for small runs and tests, where no language model is at hand."""

    kind: Literal["words"] = "words"
    num_buckets: int = Field(4096, ge=2, le=1 << 24)
    width: int = Field(64, ge=1, le=LARGEST)
    num_words: int = Field(24, ge=1, le=LARGEST)  # a longer instruction is cut


class CachedText(_RecipeSection):
    """Features that `eicorpus latents text` stored. `encoder`: their id, or its part before the dash.

    `needs_pictures`: refuse features of the text alone, for which the language model saw no picture (`--vlm-frame-every-s`).
    """

    kind: Literal["cached"] = "cached"
    encoder: str
    needs_pictures: bool = False

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_trained(cls, values: Any) -> Any:
        if isinstance(values, dict) and "train_last" in values:
            raise ValueError(
                "train_last needs the language model in the step, and these features are stored; set text to {kind: online, model: FOLDER, train_last: N}"
            )
        return values


class OnlineText(_RecipeSection):
    """A Qwen3-VL in the step. `model`: a folder, or a hub id that was downloaded; `layer`: of its hidden states, -1 the last.

    `with_pictures`: it is shown the picture of now, which is decoded from the episode's video of the first camera that matches `camera`.
    `train_last`: layers before that hidden state that are trained. `lr`: their learning rate where the others have `optimiser.lr`; it follows
    the same schedule. All other layers are frozen.
    """

    kind: Literal["online"] = "online"
    model: str
    layer: int = -1
    with_pictures: bool = True
    camera: str = "*"
    max_tokens: int = Field(256, ge=8)  # of the instruction; a longer one is cut
    max_picture_tokens: int = Field(64, ge=4)  # a larger picture is shrunk
    prompt: str = Field("Instruction: {text}", pattern=r"\{text\}")
    train_last: int = Field(0, ge=0, le=LARGEST)
    lr: float = Field(1e-5, gt=0)


class ImageTextSettings(_RecipeSection):
    """Image-text pairs beside the robot's samples: the next-token loss of their answers trains `text.train_last` layers of the language model.

    `data`: a JSONL file, a pair in each line. `images`: the folder that its paths start from, null for the folder of the file.
    `batch_size`: pairs of all ranks together in every `every`-th step. `weight`: of their loss, a mean over tokens.
    `max_tokens`: a longer conversation is cut. `max_picture_tokens`: a larger image is shrunk.
    """

    data: str
    images: str | None = None
    batch_size: int = Field(64, ge=1)
    every: int = Field(1, ge=1)
    weight: float = Field(0.1, gt=0)
    max_tokens: int = Field(1024, ge=8)
    max_picture_tokens: int = Field(256, ge=4)

    def is_due(self, step: int) -> bool:
        """Whether step `step` has a batch of pairs."""
        return step % self.every == 0


TextSettings = Annotated[NoText | WordsText | CachedText | OnlineText, Field(discriminator="kind")]


class OptimiserSettings(_RecipeSection):
    """AdamW, linear warm-up, cosine to `min_lr` (values of the LDA-1B paper)."""

    lr: float = Field(1e-4, gt=0)
    min_lr: float = Field(5e-7, ge=0)
    warmup_steps: int = Field(5000, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(1e-5, ge=0)  # not of norms, biases and tables
    clip_norm: float = Field(1.0, gt=0)
    ema: float | None = Field(None, gt=0, lt=1)  # decay of averaged weights


class RunSettings(_RecipeSection):
    """How long, how much at once, and by which means. `batch_size` is of all ranks together."""

    num_steps: int = Field(400_000, ge=1)
    batch_size: int = Field(1536, ge=1)
    # Parts of a rank's batch, one after the other. "auto": the fewest that fit, on a GPU measured before the first step, on a CPU by an estimate;
    # a run that is resumed by as many ranks keeps its number.
    accumulate: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    num_draws: int = Field(
        1, ge=1
    )  # flow times of each sample in a step; text is encoded once for all
    precision: Literal["bf16", "fp32"] = "bf16"  # of compute; weights and optimiser are fp32
    compile: bool = False
    # Of each block: true computes all of it again in the backward pass, "selective" all but matrix products and attention.
    checkpoint_activations: bool | Literal["selective"] = False
    parallel: Literal["ddp", "fsdp2", "hsdp"] = "ddp"
    # Of "hsdp": ranks in a row that share one copy of the weights. null: those of a machine.
    shard_ranks: int | None = Field(None, ge=1)
    checkpoint_every: int = Field(2000, ge=1)  # steps
    checkpoint_minutes: float | None = Field(30.0, gt=0)  # since the last one, whatever the steps
    keep_checkpoints: int = Field(3, ge=1)
    log_every: int = Field(20, ge=1)
    # Steps between two measurements of the loss on held-out samples (split val); the checkpoint with the lowest is kept.
    eval_every: int | None = Field(None, ge=1)
    eval_samples: int = Field(512, ge=1)  # of each task
    keep_best: bool = True
    num_workers: int = Field(8, ge=0)  # threads of a rank that load
    # Where those threads run. "process": in one more process for each rank, which hands over the same batches in shared memory, so that reading takes no time
    # of the interpreter that launches kernels. It holds num_workers + 3 batches; 2 more are in pinned memory where there is a GPU.
    loader: Literal["threads", "process"] = "threads"
    # Of the whole run and all ranks: samples that cannot be read and are replaced by others of the same task, and steps whose numbers are not
    # finite and that change nothing. Each is written down; one more ends the run.
    max_bad_samples: int = Field(0, ge=0)
    max_skipped_steps: int = Field(0, ge=0)
    # 1 for a task that is not named.
    loss_weights: dict[Task, Annotated[float, Field(ge=0)]] = Field(
        default_factory=lambda: dict.fromkeys(TASKS, 1.0)
    )
    # What the policy and inverse losses are means over: `action_weights` in `training/loss.py`.
    loss_over: Literal["elements", "samples", "parts"] = "elements"
    sampling_steps: int = Field(4, ge=1)  # of Euler's method

    @property
    def num_parts(self) -> int:
        """Of a rank's batch; 1 while it is not decided."""
        return 1 if self.accumulate == "auto" else self.accumulate

    @field_validator("loss_weights")
    @classmethod
    def _of_all_tasks(cls, weights: dict[Task, float]) -> dict[Task, float]:
        return dict.fromkeys(TASKS, 1.0) | weights

    @model_validator(mode="after")
    def _parts_divide(self) -> RunSettings:
        if self.batch_size % self.num_parts:
            raise ValueError(f"batch_size {self.batch_size} is not divisible by {self.accumulate}")
        return self


class TrainRecipe(_RecipeSection):
    """All of it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    about: str = ""
    seed: int = 0
    architecture: AnyArchitecture = Architecture()
    data: DataSettings = DataSettings()
    routing: RoutingSettings = RoutingSettings()
    text: TextSettings = NoText()
    optimiser: OptimiserSettings = OptimiserSettings()
    run: RunSettings = RunSettings()
    lara: LaraSettings = NoLara()
    image_text: ImageTextSettings | None = None

    @property
    def text_layers(self) -> int:
        """How many layers of a language model are trained."""
        return self.text.train_last if isinstance(self.text, OnlineText) else 0

    @model_validator(mode="after")
    def _something_learns(self) -> TrainRecipe:
        has_lam = isinstance(self.lara, LatentActionStage) or (
            isinstance(self.lara, JointStage) and self.lara.weight_lam > 0
        )
        weights = self.run.loss_weights
        if not has_lam and not any(weights[task] for task in self.routing.trained):
            names = ", ".join(self.routing.trained)
            raise ValueError(
                f"nothing is learnt: run.loss_weights is 0 for every task that is trained ({names})"
            )
        return self

    @model_validator(mode="after")
    def _language_model_learns(self) -> TrainRecipe:
        if self.text_layers and isinstance(self.lara, LatentActionStage):
            raise ValueError("text.train_last: a latent action model reads no text; set it to 0")
        if self.image_text is not None and not self.text_layers:
            raise ValueError(
                "image_text trains layers of the language model, and none is trained; set text to {kind: online, model: FOLDER, train_last: N}"
            )
        return self

    @model_validator(mode="after")
    def _latent_actions_are_drawn(self) -> TrainRecipe:
        if self.data.latent_actions is None:
            return self
        odd = {
            "routing.draw is not task": self.routing.draw != "task",
            "policy has no share": Task.POLICY not in self.routing.trained,
            "the network is block-causal": isinstance(self.architecture, CausalArchitecture),
        }
        if problems := [problem for problem, is_set in odd.items() if is_set]:
            raise ValueError(f"data.latent_actions cannot be trained: {', '.join(problems)}")
        return self

    @model_validator(mode="after")
    def _alignment_exists(self) -> TrainRecipe:
        lara, data = self.lara, self.data
        if isinstance(self.architecture, CausalArchitecture) and not isinstance(lara, NoLara):
            raise ValueError("lara needs the network of the four tasks, not a block-causal one")
        if not isinstance(lara, JointStage):
            return self
        if lara.after_block > self.architecture.num_layers:
            raise ValueError(
                f"lara.after_block is {lara.after_block}; the network has {self.architecture.num_layers} blocks (architecture.num_layers)"
            )
        if not -data.num_actions <= lara.action < data.num_actions:
            raise ValueError(
                f"lara.action is {lara.action}; a chunk has {data.num_actions} actions (data.num_actions)"
            )
        return self

    @model_validator(mode="after")
    def _block_causal_fits(self) -> TrainRecipe:
        """What a block-causal network has no place for."""
        if isinstance(self.architecture, CausalArchitecture):
            odd = {
                "routing.shares.inverse_dynamics (policy trains it: actions look at their frames)": (
                    Task.INVERSE_DYNAMICS in self.routing.trained
                ),
                "run.num_draws": self.run.num_draws != 1,
                "run.loss_over": self.run.loss_over != "elements",
                "data.with_state": self.data.with_state,
            }
            if names := [name for name, is_set in odd.items() if is_set]:
                raise ValueError(f"block_causal takes no {', '.join(names)}")
        return self

    def digest(self) -> str:
        """sha256 of what it decides; `name`, `about`, `run.loader` and `data.latent_cache` are not part of it, nor are keys that older runs do not have where they say
        nothing: `lara`, `image_text`, `text.train_last`, `data.latent_actions`, `run.shard_ranks`, `architecture.residual` and
        `architecture.image_readout`.
        """
        content = self.model_dump(mode="json", exclude={"name", "about"})
        del content["data"]["latent_cache"], content["run"]["loader"]
        if isinstance(self.lara, NoLara):
            del content["lara"]
        if self.image_text is None:
            del content["image_text"]
        if isinstance(self.text, OnlineText) and not self.text_layers:
            del content["text"]["train_last"], content["text"]["lr"]
        if self.data.latent_actions is None:
            del content["data"]["latent_actions"]
        if self.run.shard_ranks is None:
            del content["run"]["shard_ranks"]
        if content["architecture"].get("residual") == "fp32":
            del content["architecture"]["residual"]
        if content["architecture"].get("image_readout") == 0:
            del content["architecture"]["image_readout"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def stored_recipe(content: Any) -> Any:
    """A whole recipe as a run or a checkpoint keeps it. One from before `routing.draw` was drawn segment first, and says so from here on.

    What is no mapping stays as it is, for `TrainRecipe` to refuse.
    """
    if not isinstance(content, dict):
        return content
    routing = content.get("routing") or {}
    if not isinstance(routing, dict) or "draw" in routing:
        return content
    return content | {"routing": routing | {"draw": "segment"}}


def known_recipes() -> list[str]:
    """The names of the recipes that come with eicorpus."""
    folder = resources.files("training.recipes")
    return sorted(
        p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")
    )


def load_recipe(
    name: str | Path,
    changes: dict[str, Any] | None = None,
    *,
    base: dict[str, Any] | None = None,
) -> TrainRecipe:
    """A recipe by name, or from a file; `changes` replace keys, as a recipe that extends it would.

    Args:
        base: a whole recipe that it is laid over: what it does not say is as there.

    Raises:
        ConfigError: there is none of that name, it is no YAML of a recipe, or it extends itself.
    """
    content = _merged(_merged(base or {}, _resolved(str(name), ())), changes or {})
    try:
        return TrainRecipe.model_validate(content)
    except ValidationError as error:
        raise ConfigError(invalid(error, TrainRecipe), where=f"recipe {name}") from error


def _resolved(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    if name in seen or len(seen) >= MAX_EXTENDS:
        raise ConfigError(f"recipes extend each other: {' -> '.join([*seen, name])}", where=name)
    content = _read(name)
    base = content.pop("extends", None)
    return content if base is None else _merged(_resolved(str(base), (*seen, name)), content)


def _read(name: str) -> dict[str, Any]:
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in known_recipes():
            problem = (
                f"no recipe {name!r}; expected one of {', '.join(known_recipes())}, or a .yaml file"
            )
            raise ConfigError(problem, where="--recipe")
        path = Path(str(resources.files("training.recipes") / f"{name}.yaml"))
    content = read_yaml(path, limits=YamlLimits(max_bytes=MAX_BYTES))
    if not isinstance(content, dict):
        raise ConfigError("expected a mapping of recipe keys", where=name)
    return content


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Key by key. A mapping with another `kind` replaces the whole mapping: its keys mean something else."""
    out = dict(base)
    for key, value in changes.items():
        was = out.get(key)
        is_same_kind = (
            isinstance(value, dict)
            and isinstance(was, dict)
            and value.get("kind", was.get("kind")) == was.get("kind")
        )
        out[key] = _merged(was, value) if is_same_kind else value  # type: ignore[arg-type]
    return out
