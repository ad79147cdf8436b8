"""What became of every episode of a run: discovered = committed + filtered + quarantined + failed, and whether that is within the allowance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ingest.pipeline.plan import Plan
from ingest.recipe import Limits
from schemas.errors import Code
from schemas.outcome import Outcome, State

ABSENT = (Code.MISSING_FILE.value, Code.MISSING_SHARD.value, Code.MISSING_VIDEO.value)


@dataclass(kw_only=True)
class Tally:
    """Counts of one run; `adds_up` is rule 2 of the house."""

    discovered: int
    committed: int = 0
    filtered: int = 0
    quarantined: int = 0
    failed: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)  # of `codes`, no quarantine
    timesteps: int = 0
    video_s: float = 0.0
    committed_before: int = 0
    stale: int = 0
    suspect_nodes: dict[str, str] = field(default_factory=dict)  # node -> why
    lacks_cameras: int = (
        0  # of `committed` by this run: kept without a camera whose file is not there
    )

    @property
    def absent(self) -> int:
        """Quarantined because the data is not on the disk at all."""
        return sum(self.codes[code] for code in ABSENT)

    @property
    def ended(self) -> int:
        return self.committed + self.filtered + self.quarantined + self.failed

    @property
    def not_reached(self) -> int:
        """What an interrupted run leaves to the next one; 0 after a run that ended by itself."""
        return self.discovered - self.ended

    @property
    def adds_up(self) -> bool:
        return self.not_reached == 0

    def count(self, outcome: Outcome, state: State, episodes: int) -> None:
        setattr(self, state.value, getattr(self, state.value) + episodes)
        if outcome.code:
            self.codes[outcome.code] += episodes
            self.failures[outcome.code] += episodes if state is State.FAILED else 0
        if state is State.COMMITTED:
            self.timesteps += outcome.num_frames
            self.video_s += outcome.video_s
            staged = outcome.staged
            self.lacks_cameras += bool(staged is not None and staged.episode.absent_cameras)


def tally_of(plan: Plan, ends: Mapping[str, int]) -> Tally:
    """What earlier runs did of a plan, and `ends` of this one: state -> episodes."""
    tally = Tally(
        discovered=plan.discovered,
        committed=plan.done + plan.stale,
        committed_before=plan.done + plan.stale,
        stale=plan.stale,
    )
    for ref, code, _ in plan.poisoned:
        tally.quarantined += ref.stands_for
        tally.codes[code] += ref.stands_for
    for state, episodes in ends.items():
        setattr(tally, state, getattr(tally, state) + episodes)
    return tally


def beyond_allowance(tally: Tally, limits: Limits) -> list[str]:
    """Why a run has lost more than the caller allows; nothing where it has not.

    The allowance is for data that is THERE: a partial download is reported, and is no failure, unless nothing came in.
    """
    present = tally.discovered - tally.absent
    lost = (
        ("quarantined", tally.quarantined - tally.absent, limits.max_quarantined_ratio),
        ("failed", tally.failed, limits.max_failed_ratio),
    )
    reasons = [
        f"{what}: {count:,} of {present:,} available episodes ({100 * count / present:.3g} %), "
        f"--max-{what} allows {100 * ratio:.3g} %"
        for what, count, ratio in lost
        if count / max(present, 1) > ratio
    ]
    if tally.discovered and not tally.committed + tally.filtered:
        reasons.append(
            f"none of {tally.discovered:,} episodes was committed; the files of {tally.absent:,} are missing"
        )
    return reasons
