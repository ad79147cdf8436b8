"""How well the episode's conventions are known: the facts of its source by certainty (schemas/fact.py).

Facts that touch actions are those behind `supervision_limits` (schemas/supervision.py): one unsettled bars the policy, one unknown all actions.
"""

from __future__ import annotations

from collections.abc import Iterator

from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView
from schemas.fact import Certainty
from schemas.measurement import Measurement

UNSETTLED = OutputField(
    name="unsettled_action_facts",
    unit="count",
    about="facts about actions that are inferred, unverified or unknown",
)
UNKNOWN = OutputField(
    name="unknown_action_facts", unit="count", about="facts about actions that are unknown"
)
SHARE = OutputField(
    name="settled_fact_share",
    unit="share",
    about="share of facts that are verified, documented or in public code",
)
_UNSETTLED = tuple(f" is {c.value}" for c in Certainty if not c.is_settled)


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """Counts of limits and of facts."""
    limits = view.row["supervision_limits"] or ()
    facts = view.row["facts"] or ()
    asked = max(len(facts), 1)
    yield UNSETTLED.row(sum(limit.endswith(_UNSETTLED) for limit in limits), asked)
    unknown = f" is {Certainty.UNKNOWN.value}"
    yield UNKNOWN.row(sum(limit.endswith(unknown) for limit in limits), asked)
    if facts:
        settled = sum(Certainty(fact["certainty"]).is_settled for fact in facts)
        yield SHARE.row(settled / len(facts), len(facts))


MEASURE = Measure(name="facts", version=1, outputs=(UNSETTLED, UNKNOWN, SHARE), compute=compute)
