"""Quality tiers: a policy of rules over measurements decides the tier of every segment and keeps the reasons."""

__all__ = [
    "count",
    "explain",
    "frame",
    "last_run",
    "measurement_matrix",
    "policy",
    "policy_loader",
    "policy_sql",
    "reviewed",
    "tier",
]
