"""The tier of an episode, which has tiers by segment: the tier of most of its timesteps; of several with as many the best.

Pages, `eicorpus.Corpus.episodes` and the choice among duplicates ask here. Manifests, reports and `eicorpus query` speak of segments.
"""

from __future__ import annotations

from schemas.review import TIERS  # best first

_TIMESTEPS = ", ".join(
    f"""coalesce(sum("end" - "start") FILTER (tier = '{tier}'), 0) AS {tier}""" for tier in TIERS
)
_BEST_OF_MOST = " ".join(
    f"WHEN {tier} = greatest({', '.join(TIERS)}) THEN '{tier}'" for tier in TIERS
)
# `uid`, the timesteps of each tier by its name, and `tier`, of the episodes that have tiers.
EPISODE_TIERS = f"""(SELECT *, CASE {_BEST_OF_MOST} END AS tier
    FROM (SELECT uid, {_TIMESTEPS} FROM tiers GROUP BY uid))"""
