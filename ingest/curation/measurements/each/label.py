"""What the source itself says of success, and how far that is to be trusted. Unknown is never made into a yes.

quality_signals.md §1: folders, attributes, ratings, rewards; a recorder's flag and the simulator's predicate can disagree, so
whether the rule is settled and whether two sources of one episode disagree stand beside the value. `rating` is the source's own
number (RH20T: 0 emergency stop, 1 failed, 2 to 9 a grade), whatever its scale.
"""

from __future__ import annotations

from collections.abc import Iterator

from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView
from schemas.fact import Certainty
from schemas.measurement import Measurement

SUCCESS = OutputField(
    name="success", unit="bool", about="1 or 0 as the source states; null if unknown"
)
SETTLED = OutputField(
    name="success_settled",
    unit="bool",
    about="0 if the rule behind it is only inferred, or its two sources disagree",
)
CONFLICT = OutputField(
    name="success_conflict", unit="bool", about="the two sources of the success label disagree"
)
RATING = OutputField(
    name="rating", unit="grade", about="the source's own grade, on the source's scale"
)
RECOVERY = OutputField(
    name="recovery_marked", unit="bool", about="the source marks a failed attempt and its recovery"
)


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """From the episode's row and its facts."""
    facts = {fact["name"]: fact for fact in view.row["facts"] or ()}
    success = view.row["success"]
    yield CONFLICT.row("success_conflict" in facts, 1)
    if success is not None:
        rule = facts.get("success_rule")
        is_ruled = rule is None or Certainty(rule["certainty"]).is_settled
        yield SUCCESS.row(success, 1)
        yield SETTLED.row(is_ruled and "success_conflict" not in facts, 1)
    rating = _number(facts["rating"]["value"]) if "rating" in facts else None
    if rating is not None:
        yield RATING.row(rating, 1)
    if "key_frame" in facts:  # AgiBot alpha: issues 33 and 76 there
        text = facts["key_frame"]["value"].lower()
        yield RECOVERY.row("recover" in text, 1)


def _number(text: str) -> float | None:
    return float(text) if text.replace(".", "", 1).isdecimal() else None


MEASURE = Measure(
    name="label", version=1, outputs=(SUCCESS, SETTLED, CONFLICT, RATING, RECOVERY), compute=compute
)
