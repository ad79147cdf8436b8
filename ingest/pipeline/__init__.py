"""One ingestion run: plan the episodes of a source, process each one, commit them in plan order, account for all of them.

`process.process` is the worker body: one episode reference in, one staged episode or an outcome with a code
out."""

__all__ = [
    "assets",
    "cost",
    "plan",
    "process",
    "run",
    "tally",
]
