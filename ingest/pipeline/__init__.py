"""One ingestion run: plan the episodes of a source, process each one, commit them in plan order, account for all of them.

`process.process` is the worker body: one episode reference in, one staged episode out. `guarded` turns every way in which it can
end into an outcome."""

__all__ = ["assets", "plan", "process", "run"]
