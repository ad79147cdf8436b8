"""Ranks begin with the same weights, or none of them begins."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from schemas.errors import ConfigError
from tests.training.running import recipe, snapshot_of, trainer
from tests.training.test_run_folder import facts
from training.run import parallel, resume
from training.run.checkpoint import (
    FOLDER,
    STATE,
    WEIGHTS,
    Checkpoint,
    checkpoint_of,
    checkpoints,
    write,
)
from training.run.parallel import Ranks
from training.run.resume import ResumePoint, resume_on_all_ranks
from training.run.session import TrainRequest

WORLD = 2


class Wire:
    """Stands for the exchange between ranks, which are threads here; where one does not come, the others are told."""

    def __init__(self) -> None:
        self._barrier, self._said = threading.Barrier(WORLD, timeout=300), [""] * WORLD

    def texts_of_all(self, text: str, ranks: Ranks) -> list[str]:
        self._said[ranks.rank] = text
        self._barrier.wait()
        told = list(self._said)
        self._barrier.wait()
        return told


def run_with(folder: Path, *steps: int) -> Path:
    made = trainer(recipe())
    for step in steps:
        kept = snapshot_of(made, step)
        assert kept is not None
        write(folder / FOLDER, kept, keep=9)
    return folder


def begun_with(
    monkeypatch: pytest.MonkeyPatch, *outs: Path, base: Path | None = None, manifests: str = "mm"
) -> list[ResumePoint | ConfigError]:
    """What each rank begins with, or why it does not. `outs`: what the one --out is on each machine; `manifests`: a letter for each."""
    wire = Wire()
    for module in (parallel, resume):
        monkeypatch.setattr(module, "all_gather_str", wire.texts_of_all)

    def of(rank: int) -> ResumePoint | ConfigError:
        request = TrainRequest(manifest=Path("m"), recipe=recipe(), out=outs[rank], init_from=base)
        try:
            return resume_on_all_ranks(
                request, facts(manifest=manifests[rank]), Ranks(rank=rank, world_size=WORLD)
            )
        except ConfigError as error:
            return error

    with ThreadPoolExecutor(WORLD) as pool:
        return list(pool.map(of, range(WORLD)))


def test_all_ranks_open_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, base, new = run_with(tmp_path / "run", 2, 4), run_with(tmp_path / "base", 7), tmp_path
    ours, theirs = checkpoint_of(out, 4), checkpoint_of(base, 7)
    assert (
        begun_with(monkeypatch, out, out, base=base) == [ResumePoint(resumed=ours, base=None)] * 2
    )
    assert (
        begun_with(monkeypatch, new, new, base=base) == [ResumePoint(resumed=None, base=theirs)] * 2
    )
    assert begun_with(monkeypatch, new, new) == [ResumePoint(resumed=None, base=None)] * 2


def test_a_rank_whose_listing_is_older_opens_what_the_first_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, late = run_with(tmp_path / "run", 2, 4), tmp_path / "late"
    late.symlink_to(out)

    def seen(run: Path) -> list[Checkpoint]:
        return checkpoints(run)[:1] if run == late else checkpoints(run)

    monkeypatch.setattr(resume, "checkpoints", seen)
    found = begun_with(monkeypatch, out, late)
    assert [each.resumed.state.step for each in found if isinstance(each, ResumePoint) and each.resumed] == [4, 4]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([2, 4], [], "no checkpoint of step 4; available steps: none"),
        ([2, 4], [2], "no checkpoint of step 4; available steps: 2"),
        ([2], [2, 4], "the latest step is 4 on this rank and 2 on rank 0"),
        ([], [4], "the latest step is 4 on this rank and 0 on rank 0"),
    ],
)
def test_ranks_that_see_other_checkpoints_are_all_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: list[int],
    second: list[int],
    message: str,
) -> None:
    """Also where --out is a folder of each machine's own, and only the first ever writes."""
    outs = run_with(tmp_path / "a", *first), run_with(tmp_path / "b", *second)
    told = begun_with(monkeypatch, *outs)
    assert all(isinstance(each, ConfigError) and message in str(each) for each in told)
    assert str(told[0]).startswith("rank 1 of 2: ")


@pytest.mark.parametrize("odd", ["checkpoint", "manifest", "damaged"])
def test_ranks_that_see_the_same_step_of_something_else_are_all_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    outs = run_with(tmp_path / "a", 2), run_with(tmp_path / "b", 2)
    theirs = outs[1] / FOLDER / "step_00000002"
    if odd == "checkpoint":
        text = (theirs / STATE).read_text()
        assert '"umi"' in text
        (theirs / STATE).write_text(text.replace('"umi"', '"droid"'))
    elif odd == "damaged":
        (theirs / WEIGHTS).unlink()
    told = begun_with(monkeypatch, *outs, manifests="mn" if odd == "manifest" else "mm")
    message = "damaged: step_00000002" if odd == "damaged" else f"{odd} differs from rank 0"
    assert all(isinstance(each, ConfigError) and message in str(each) for each in told)
