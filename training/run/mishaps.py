"""Samples that could not be read and steps that were not finite: counted over all ranks, bounded, and the stop of a run that diverges."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from schemas.document import DocumentError
from schemas.errors import Code, ConfigError, PipelineError, SourceError
from schemas.invalid import each_problem
from schemas.json_text import DOCUMENT, parse_json
from schemas.regular_file import read_regular
from training.batch import Origin
from training.data.broken import BadSample
from training.durable import make_durable, make_folder
from training.recipe import RunSettings
from training.run.parallel import Ranks, all_gather_str
from training.tasks import TASKS

MAX_NAMED = 8


class Diverged(PipelineError):
    """A loss or a gradient is not finite. The weights are those before the step. Nothing was written."""

    exit_code = 1


def culprits(
    origin: Origin, task: Tensor, sample_sums: Tensor, ranks: Ranks
) -> list[tuple[int, int, int]]:
    """(row, timestep, task) of the samples of all ranks whose own loss is not finite. Every rank must call this."""
    is_bad = (~sample_sums.isfinite()).cpu().numpy()
    columns = origin.row, origin.timestep, task.cpu().numpy()
    own = list(zip(*(column[is_bad].tolist() for column in columns), strict=True))
    # as text: a rank with more policy samples has more rows where the network is block-causal
    texts = all_gather_str(json.dumps(own), ranks)
    return [(row, timestep, index) for text in texts for row, timestep, index in parse_json(text)]


def diverged(step: int, named: Sequence[tuple[str, int, int]]) -> Diverged:
    """
    Args:
        named: (uid, timestep, task) of each sample to blame.
    """
    if not named:
        problem = "a gradient is not finite, although the loss of every sample is"
        return Diverged(problem, remedy="use a smaller lr or clip_norm", where=f"step {step}")
    listed = "; ".join(
        f"{uid} at timestep {t}, {TASKS[i].value}" for uid, t, i in named[:MAX_NAMED]
    )
    more = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
    problem = f"the loss is not finite for {listed}{more}"
    remedy = "inspect these samples (`eicorpus explain CORPUS UID`), or use a smaller lr"
    return Diverged(problem, remedy=remedy, where=f"step {step}")


BAD_FILE, SKIPPED_FILE, UNMEASURED_FILE = "bad.jsonl", "skipped.jsonl", "unmeasured.jsonl"
Line = TypeVar("Line", bound=BaseModel)


class SkippedStep(BaseModel):
    """A step whose loss or gradient was not finite; `error` names the samples to blame."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    step: int
    error: str


class UnmeasuredSample(BaseModel):
    """A sample that could not be read when spreads were measured. `what`: actions or pictures. It does not count towards `run.max_bad_samples`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    what: Literal["actions", "pictures"]
    uid: str
    timestep: int
    error: str


class Mishaps:
    """Of one run, the same on every rank."""

    def __init__(
        self,
        out: Path,
        settings: RunSettings,
        ranks: Ranks,
        bad: Sequence[BadSample] = (),
        skipped: Sequence[SkippedStep] = (),
        unmeasured: Sequence[UnmeasuredSample] = (),
    ) -> None:
        self._out, self._settings, self._ranks = out, settings, ranks
        self._was_bad = {_place_of(each) for each in bad}
        self._was_skipped = {each.step for each in skipped}
        self._to_write: list[UnmeasuredSample] = []
        self.was_unmeasured = {(each.what, each.uid, each.timestep) for each in unmeasured}

    @property
    def was_replaced(self) -> dict[tuple[int, int], int]:
        """How many draws of a step and place were bad."""
        return dict(Counter((step, place) for step, place, _ in self._was_bad))

    @property
    def counts(self) -> dict[str, int]:
        """For the log."""
        return {"bad_samples": len(self._was_bad), "skipped_steps": len(self._was_skipped)}

    def was_skipped(self, step: int) -> bool:
        return step in self._was_skipped

    def replaced(self, bad_samples: Sequence[BadSample]) -> None:
        """Every rank calls this with what it replaced in a batch, before the batch changes anything.

        Raises:
            SourceError: on every rank, where it is one too many.
        """
        if not self._settings.max_bad_samples:
            return
        texts = all_gather_str(json.dumps([each.model_dump() for each in bad_samples]), self._ranks)
        every = [BadSample.model_validate(each) for text in texts for each in parse_json(text)]
        by_place = {_place_of(each): each for each in every}  # the last ranks may repeat a sample
        fresh = [each for place, each in by_place.items() if place not in self._was_bad]
        if not fresh:
            return
        self._was_bad |= {_place_of(each) for each in fresh}
        self._write(BAD_FILE, fresh)
        if len(self._was_bad) > self._settings.max_bad_samples:
            problem = f"{len(self._was_bad)} samples cannot be read; run.max_bad_samples allows {self._settings.max_bad_samples}"
            repair = f"the last is {fresh[-1].error}; {self._out / BAD_FILE} lists all. Repair the files, or raise run.max_bad_samples"
            raise SourceError(
                Code.UNREADABLE, f"{problem}; {repair}", where=f"step {fresh[-1].step}"
            )

    def unmeasured(self, samples: Sequence[UnmeasuredSample]) -> None:
        """Every rank calls this with what it left out of its part of a measurement. `begin` writes it: a plan writes nothing."""
        texts = all_gather_str(json.dumps([each.model_dump() for each in samples]), self._ranks)
        self._to_write = [
            UnmeasuredSample.model_validate(x) for text in texts for x in parse_json(text)
        ]

    def begin(self) -> None:
        """The run begins. One that is given `UNMEASURED_FILE` leaves out the same."""
        if self._to_write:
            self._write(UNMEASURED_FILE, self._to_write)
            self._to_write = []

    def skipped(self, step: int, error: Diverged) -> None:
        """Every rank calls this for a step that was not finite, which all of them see.

        Raises:
            Diverged: it is one too many.
        """
        allowed = self._settings.max_skipped_steps
        if len(self._was_skipped) >= allowed:
            repair = f"{error.remedy}, or add --set run.max_skipped_steps=N to skip up to N such steps (now {allowed})"
            raise Diverged(error.message, remedy=repair, where=error.where) from error
        self._was_skipped.add(step)
        self._write(SKIPPED_FILE, [SkippedStep(step=step, error=str(error))])

    def _write(self, name: str, lines: Sequence[BaseModel]) -> None:
        """On disk before the step it tells of."""
        if not self._ranks.is_first:
            return
        make_folder(self._out)
        path = self._out / name
        with path.open("a") as file:
            file.truncate(len(_whole_lines(path)))  # of one that a power cut left
            file.writelines(f"{line.model_dump_json()}\n" for line in lines)
        for changed in (path, self._out):
            make_durable(changed)


def _place_of(bad: BadSample) -> tuple[int, int, int]:
    return bad.step, bad.place, bad.attempt


def open_mishaps(out: Path, settings: RunSettings, ranks: Ranks) -> Mishaps:
    """As the first rank finds them: another may see the folder later.

    Raises:
        ConfigError: a line is damaged.
    """
    pages = [_text(out / name) for name in (BAD_FILE, SKIPPED_FILE, UNMEASURED_FILE)]
    bad, skipped, unmeasured = parse_json(all_gather_str(json.dumps(pages), ranks)[0])
    return Mishaps(
        out,
        settings,
        ranks,
        bad=_lines(bad, BadSample, out / BAD_FILE),
        skipped=_lines(skipped, SkippedStep, out / SKIPPED_FILE),
        unmeasured=_lines(unmeasured, UnmeasuredSample, out / UNMEASURED_FILE),
    )


def _whole_lines(path: Path) -> bytes:
    """Without a last line that was cut, possibly inside a character: its step was not done."""
    data = read_regular(path, max_bytes=DOCUMENT.max_bytes) if path.exists() else b""
    return data[: data.rfind(b"\n") + 1]


def _text(path: Path) -> str:
    """
    Raises:
        ConfigError: a whole line is not UTF-8, or there is more of it than any run writes.
    """
    try:
        return _whole_lines(path).decode()
    except (UnicodeDecodeError, SourceError) as error:
        raise ConfigError(f"damaged ({error})", remedy="restore it", where=str(path)) from error


def _lines(text: str, kind: type[Line], path: Path) -> list[Line]:
    try:
        return [kind.model_validate(parse_json(line)) for line in text.splitlines()]
    except DocumentError as error:
        raise ConfigError(
            f"damaged ({error})", remedy="restore the file from a copy of the run", where=str(path)
        ) from error
    except ValidationError as error:
        key, problem = next(each_problem(error, kind))
        message = f"damaged ({key}: {problem})"
        repair = "restore it; without its lines the run would train on different samples"
        raise ConfigError(message, remedy=repair, where=str(path)) from error
