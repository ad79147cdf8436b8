"""How much of an episode may be believed, from its masks alone; nothing is judged twice.

State and action: every slice at once, as `action_coverage` of the catalog. Hands: the eight tests of hands.md 11
(ingest/transforms/hand_validity.py), where a test that could not be made has passed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView, Mask
from ingest.transforms.hand_validity import BITS
from ingest.transforms.resample import runs
from schemas.episode import SIDES
from schemas.measurement import Measurement

STATE = OutputField(
    name="state_valid_share", unit="share", about="timesteps with a fully valid state"
)
ACTION = OutputField(
    name="action_valid_share", unit="share", about="timesteps with a fully valid action"
)
GAP = OutputField(name="gap_max_s", unit="s", about="longest interval without a fully valid state")
HAND = OutputField(
    name="hand_valid_share", unit="share", about="timesteps with at least one valid hand"
)
HAND_WORST = OutputField(
    name="hand_valid_share_worst", unit="share", about="the same for the worse hand"
)
BIT = OutputField(
    name="hand_worst_bit_share",
    unit="share",
    about="failures of the most failing test while the hand is present, worse hand",
)


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """State and action when the episode has them; hands when it has hands."""
    whole = whole_valid(view, "observation.valid")
    if whole is not None:
        yield STATE.row(whole.mean(), view.length)
        longest = max((end - start for start, end in runs(~whole)), default=0)
        yield GAP.row(longest / view.rate_hz, view.length)
    action = whole_valid(view, "action.valid")
    if action is not None:
        yield ACTION.row(action.mean(), view.length)
    yield from _hands(view)


def whole_valid(view: EpisodeView, masks: str) -> Mask | None:
    """[K] all slices of the state or of the action at once, without what stands beside them; None without slices.

    A slice that is commanded and not measured is no part of the state.
    """
    unmeasured = view.command_only if masks == "observation.valid" else ()
    sides = tuple(f"{side}." for side in SIDES)
    names = [n for n in view.names.get(masks, ()) if n.startswith(sides) and n not in unmeasured]
    parts = [part for name in names if (part := view.part(masks, name)) is not None]
    return np.asarray(np.concatenate(parts, axis=1).all(axis=1)) if parts else None


def _hands(view: EpisodeView) -> Iterator[Measurement]:
    bits_by_hand = [view.part("observation.hand_validity", side) for side in SIDES]
    hands = [bits.astype(bool) for bits in bits_by_hand if bits is not None]
    if not hands:
        return
    valid = np.stack([bits.all(axis=1) for bits in hands])
    yield HAND.row(valid.any(axis=0).mean(), view.length)
    yield HAND_WORST.row(valid.mean(axis=1).min(), view.length)
    seen = [bits[bits[:, BITS.index("present")]] for bits in hands]
    ratios = [(float(bits.mean(axis=0).min()), len(bits)) for bits in seen if len(bits)]
    if ratios:
        yield BIT.row(*min(ratios))


MEASURE = Measure(
    name="validity", version=1, outputs=(STATE, ACTION, GAP, HAND, HAND_WORST, BIT), compute=compute
)
