"""Checkpoints: all that a run needs to go on as if it had not stopped, in `RUN/checkpoints/step_00001000/`.

Gathered, by one process or `run.parallel` ddp:

    weights.safetensors     what is trained, and all of LARA's parts, by name, fp32, whole: as one process has it, however many there were
    averages.safetensors    the same of the averaged weights, where the recipe has them
    optimiser.safetensors   exp_avg.<name>, exp_avg_sq.<name>, step.<name>
    normaliser.safetensors  tensors of the normaliser, the rest of which is in state.json
    state.json              CheckpointState: where the loader is, the recipe, the manifest, the embodiments

Rank 0 holds all of it in memory while a thread writes: 12 bytes a parameter, 16 with averages (28 GB for 1.77 B), and never two of them.

Sharded, where ranks share the weights (fsdp2, hsdp): in place of the first three files each rank writes its part (`shards.py`), and holds only that.
Any number of ranks, one as well, reads either.

Chance is a function of (seed, step), so the generators' state is these two numbers. All tensors are opened by any safetensors reader; nothing is a pickle.
A folder is written beside its name, made durable and renamed: what is listed is whole.
"""

from __future__ import annotations

import json
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch.distributed as dist
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import AdamW

from schemas.errors import ConfigError, SourceError, system_error_text
from schemas.invalid import invalid
from schemas.json_text import DOCUMENT, read_json
from schemas.stored_size import SHORT_SIDE_PX
from schemas.text_features import FeatureSettings
from training.causal.settings import AnySettings
from training.durable import make_durable, make_folder
from training.recipe import TrainRecipe, stored_recipe
from training.run.best import Best, load_best, write_best
from training.run.optimiser import EMA, MOMENTS, kept, trained
from training.run.parallel import Ranks, full_tensor
from training.run.shards import Shards, begin_write, number_of, open_shards, written

VERSION = 3  # a reader refuses a higher one; 2: sharded ones, `world_size`; 3: `model` has spreads by channel
FOLDER = "checkpoints"  # in a run
WEIGHTS, AVERAGES, OPTIMISER, NORMALISER = (
    f"{name}.safetensors" for name in ("weights", "averages", "optimiser", "normaliser")
)
STATE = "state.json"
SHARD_NUMBERS = {WEIGHTS: 1, OPTIMISER: 2, AVERAGES: 3}
_NAME = re.compile(r"step_(\d{8,})")


class CheckpointState(BaseModel):
    """What is not tensors. `step`: the next one to do, which is also how many were done; `manifest_sha256`: of its rows.

    `world_size`: ranks that trained, for which `recipe` has `run.accumulate` as it was chosen; 0 where an older version wrote it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    checkpoint_version: int = VERSION
    step: int
    recipe: dict[str, Any]
    recipe_sha256: str
    manifest_name: str
    manifest_sha256: str
    model: AnySettings
    embodiments: tuple[str, ...]  # in the order of the banks
    normaliser: dict[str, Any] = {}  # what of it is not tensors
    # By embodiment, the slices of the state that recordings measured, where the network is shown a state; all of them where one is absent.
    measured_state: dict[str, tuple[str, ...]] = {}
    encoder_id: str = ""
    text_id: str = ""  # of the frozen model that told it, and how it was asked; "" for none
    text_settings: FeatureSettings | None = None
    rate_hz: float = (
        10.0  # timesteps a second of what it was trained on: how far apart the actions it says are
    )
    # Of the largest stored picture of the corpus; None where it had no video, or an older version wrote this.
    short_side_px: int | None = None
    num_bytes: dict[str, int] = {}  # of each file
    world_size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckpointSnapshot:
    """Tensors ready to be written: on the CPU, changed by nothing else. Or, to be written by all ranks, those of the run itself."""

    state: CheckpointState
    files: dict[str, dict[str, Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A whole one on disk."""

    folder: Path
    state: CheckpointState

    @property
    def short_side_px(self) -> int:
        """Of the pictures that it learned from; the default of `eicorpus ingest` where it does not say."""
        return self.state.short_side_px or SHORT_SIDE_PX

    @property
    def is_sharded(self) -> bool:
        return bool(self._shard_files())

    @property
    def has_averages(self) -> bool:
        files = {number_of(name) for name in self.state.num_bytes}
        return AVERAGES in self.state.num_bytes or SHARD_NUMBERS[AVERAGES] in files

    def shards(self, *files: str) -> Shards:
        """Of a sharded one: all that was written in place of `files`, or all there is. Raises ConfigError as `tensors` does."""
        return open_shards(self.folder, self._shard_files(*files))

    def _shard_files(self, *files: str) -> list[str]:
        numbers = {SHARD_NUMBERS[file] for file in files or SHARD_NUMBERS}
        return [name for name in self.state.num_bytes if number_of(name) in numbers]

    def normaliser_state(self) -> dict[str, Any]:
        """For `training.data.normalise.from_state`. Raises ConfigError as `tensors` does."""
        return {**self.state.normaliser, **self.tensors(NORMALISER)}

    def tensors(self, file: str = WEIGHTS) -> dict[str, Tensor]:
        """All of one file: mapped, not read, so that the processes of a machine share the memory. Of a sharded one it is read.

        Raises:
            ConfigError: it is not what was written.
        """
        if file in SHARD_NUMBERS and self.is_sharded:
            return self.shards(file).whole(SHARD_NUMBERS[file])
        path = self.folder / file
        try:
            with safe_open(path, "pt") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            problem = f"cannot be read ({system_error_text(error)})"
            raise ConfigError(
                problem, remedy="remove this checkpoint to use the one before it", where=str(path)
            ) from error


def snapshot(
    learner: nn.Module,
    optimiser: AdamW,
    averages: EMA | None,
    state: CheckpointState,
    ranks: Ranks,
    normaliser: Mapping[str, Any],
    *,
    is_gathered: bool = True,
) -> CheckpointSnapshot | None:
    """A copy of everything, gathered from all ranks: every rank must call this, and only the first gets it.

    Args:
        normaliser: its state: tensors, and what JSON can say.
        is_gathered: else nothing is copied, and every rank gets what it has.
    """
    parameters = trained(learner)

    def copied(tensors: Iterator[tuple[str, Tensor]]) -> dict[str, Tensor]:
        if not is_gathered:
            return {name: x.detach() for name, x in tensors}
        gathered = ((name, full_tensor(tensor)) for name, tensor in tensors)  # one after the other
        return {name: x.to("cpu", copy=True).contiguous() for name, x in gathered if ranks.is_first}

    moments = (
        (f"{what}.{name}", optimiser.state[p][what])
        for name, p in parameters.items()
        for what in (*MOMENTS, "step")
        if p in optimiser.state
    )
    files = {WEIGHTS: copied(iter(kept(learner).items())), OPTIMISER: copied(moments)}
    if averages is not None:
        files[AVERAGES] = copied(iter(averages.values.items()))
    files[NORMALISER] = copied((k, v) for k, v in normaliser.items() if isinstance(v, Tensor))
    values = {k: v for k, v in normaliser.items() if not isinstance(v, Tensor)}
    state = state.model_copy(update={"normaliser": values})
    has_tensors = ranks.is_first or not is_gathered
    return CheckpointSnapshot(state=state, files=files) if has_tensors else None


class CheckpointWriter:
    """Writes in a thread, one at a time. Training goes on meanwhile. The newest `keep` stay.

    `group`: of all ranks, for it alone: each writes its part. Without one, who has a snapshot writes all of it.
    """

    def __init__(self, run: Path, keep: int, group: dist.ProcessGroup | None = None) -> None:
        self.folder, self.keep, self._group = run / FOLDER, keep, group
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._last: Future[Any] | None = None

    @property
    def is_sharded(self) -> bool:
        return self._group is not None

    @property
    def has_failed(self) -> bool:
        """Whether what was begun is over and could not be written."""
        last = self._last
        return last is not None and last.done() and last.exception() is not None

    def save(self, make: Callable[[], CheckpointSnapshot | None], best: Best | None = None) -> None:
        """Wait for the one before, whose memory is free then, make the next and begin to write it; `make` gives None on other ranks.

        Args:
            best: where it is the best so far.

        Raises:
            OSError: the one before could not be written.
        """
        self.wait()
        snapshot = make()
        if snapshot is None:
            return
        if self._group is None:
            self._last = self._thread.submit(
                write, self.folder, snapshot, keep=self.keep, best=best
            )
        else:
            self._last = write_shards(self.folder, snapshot, self._group, keep=self.keep, best=best)

    def wait(self) -> None:
        """Until what was begun is on disk.

        Raises:
            OSError: it could not be written.
        """
        last, self._last = self._last, None
        if last is not None:
            written(last)

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()


def write(
    folder: Path, snapshot: CheckpointSnapshot, *, keep: int, best: Best | None = None
) -> Path:
    """Write one, whole or not at all, then remove all but the newest `keep` and the best.

    Raises:
        OSError: the disk is full, or refuses.
    """
    part = _begun(folder, snapshot.state.step)
    names = _save_files(part, snapshot.files)
    return _publish(part, snapshot.state, names, keep=keep, best=best)


def write_shards(
    folder: Path,
    snapshot: CheckpointSnapshot,
    group: dist.ProcessGroup,
    *,
    keep: int,
    best: Best | None = None,
) -> Future[Any]:
    """Begin to do as `write`, each rank what it has of the tensors: every rank must call this. They are copied before it returns."""
    state, part = snapshot.state, _part_of(folder, snapshot.state.step)
    files = {SHARD_NUMBERS[name]: x for name, x in snapshot.files.items() if name in SHARD_NUMBERS}
    rest = {name: x for name, x in snapshot.files.items() if name not in SHARD_NUMBERS}

    def publish() -> None:
        """By rank 0; the shards are durable."""
        shards = sorted(path.name for path in part.iterdir() if number_of(path.name) is not None)
        _publish(part, state, _save_files(part, rest), shards, keep=keep, best=best)

    begin = partial(_begun, folder, state.step)
    return begin_write(part, files, group=group, begin=begin, publish=publish)


def _part_of(folder: Path, step: int) -> Path:
    return folder / f".{_name(step)}.part"


def _begun(folder: Path, step: int) -> Path:
    """An empty folder beside its name."""
    part = _part_of(folder, step)
    shutil.rmtree(part, ignore_errors=True)
    make_folder(folder)
    part.mkdir()
    return part


def _save_files(part: Path, files: Mapping[str, dict[str, Tensor]]) -> list[str]:
    for name, tensors in files.items():
        try:
            save_file(tensors, part / name)
        except SafetensorError as error:  # in which safetensors hides what the disk says
            raise OSError(f"{part / name}: {error}") from error
    return list(files)


def _publish(
    part: Path,
    state: CheckpointState,
    names: list[str],
    shards: Sequence[str] = (),
    *,
    keep: int,
    best: Best | None,
) -> Path:
    """Give it its name.

    Args:
        names: files that are to be made durable. shards: those that are.
    """
    folder, target = part.parent, part.with_name(_name(state.step))
    sizes = {name: (part / name).stat().st_size for name in (*names, *shards)}
    state = state.model_copy(update={"num_bytes": sizes})
    (part / STATE).write_text(json.dumps(state.model_dump(mode="json"), indent=1, sort_keys=True))
    for name in names:
        shutil.copymode(part / STATE, part / name)  # safetensors lets only the owner read
    for path in (*(part / name for name in names), part / STATE, part):
        make_durable(path)
    if target.exists():  # of a run that went back to an older one
        _remove(target)
    part.rename(target)
    make_durable(folder)
    whole_ones = [path for _, path in _named(folder) if _opened(path) is not None]
    if best is not None:
        write_best(folder, best)
    known = load_best(folder)
    spared = {target} | ({folder / _name(known.step)} if known is not None else set())
    for old in whole_ones[:-keep]:
        if old not in spared:  # after going back, higher steps of before are there
            _remove(old)
    return target


def sweep(run: Path) -> None:
    """Remove what a run that was killed left half written."""
    for path in (run / FOLDER).glob(".*.part"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()  # of `best.json`, which a run that goes on may never write again


def checkpoints(run: Path) -> list[Checkpoint]:
    """The whole ones of a run, oldest first."""
    return [
        checkpoint for _, path in _named(run / FOLDER) if (checkpoint := _opened(path)) is not None
    ]


def refuse_broken(run: Path) -> None:
    """Resuming from an older step, or from the beginning, is never silent.

    Raises:
        ConfigError: something has the name of a checkpoint and is none; a run that was killed leaves no such thing.
    """
    broken = [path for _, path in _named(run / FOLDER) if _opened(path) is None]
    if broken:
        names = ", ".join(path.name for path in broken)
        steps = ", ".join(str(each.state.step) for each in checkpoints(run)) or "none"
        problem = f"damaged: {names}; valid steps: {steps}"
        raise ConfigError(problem, remedy="remove the damaged checkpoints to resume from the last valid one", where=str(run / FOLDER))  # fmt: skip


def checkpoint_of(run: Path, step: int | Literal["best"] | None = None) -> Checkpoint:
    """The newest whole checkpoint, or that of a step: by its name, because over a network a listing may be older. "best": `best.json` names it.

    Raises:
        ConfigError: there is none.
    """
    if step == "best":
        best = load_best(run / FOLDER)
        if best is None:
            problem = "no best checkpoint: the run was not evaluated during training"
            repair = "pass a step, or train with --set run.eval_every=N"
            raise ConfigError(problem, remedy=repair, where=str(run))
        step = best.step
    named = checkpoints(run) if step is None else [_opened(run / FOLDER / _name(step))]
    newest = next(reversed(named), None)
    if newest is None:
        steps = ", ".join(str(each.state.step) for each in checkpoints(run)) or "none"
        expected = "whole checkpoint" if step is None else f"checkpoint of step {step}"
        raise ConfigError(f"no {expected}; available steps: {steps}", where=str(run / FOLDER))
    return newest


def _name(step: int) -> str:
    return f"step_{step:08d}"


def _named(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    entries = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted((int(match[1]), path) for match, path in entries if match)


def _opened(folder: Path) -> Checkpoint | None:
    """None for a folder in which something is missing. That of a newer version raises ConfigError."""
    try:
        raw = read_json(folder / STATE, limits=DOCUMENT)
        version = int(raw["checkpoint_version"])
        if version > VERSION:
            problem = f"checkpoint version {version}; this eicorpus reads up to version {VERSION}"
            raise ConfigError(problem, remedy="install a newer eicorpus", where=str(folder))
        state = CheckpointState.model_validate(raw)
        sizes = {name: _size_of(folder / name) for name in state.num_bytes}
    except (SourceError, OSError, ValueError, KeyError, TypeError, ValidationError):
        return None
    return Checkpoint(folder=folder, state=state) if sizes == state.num_bytes else None


def _size_of(path: Path) -> int:
    """Raises ValueError where it is no file: opening a FIFO of a stranger never ends."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is no regular file")
    return status.st_size


def _remove(folder: Path) -> None:
    """Under a name that is not listed at first: an incomplete checkpoint does not count."""
    doomed = folder.with_name(f".{folder.name}.gone.part")  # beside that of one being written
    folder.rename(doomed)
    make_durable(folder.parent)  # or a power cut may leave half of it under its old name
    shutil.rmtree(doomed)


def recipe_of(checkpoint: Checkpoint) -> TrainRecipe:
    """The recipe of the run, as it was resolved.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        return TrainRecipe.model_validate(stored_recipe(checkpoint.state.recipe))
    except ValidationError as error:
        raise ConfigError(
            invalid(error, TrainRecipe), where=str(checkpoint.folder / STATE)
        ) from error
