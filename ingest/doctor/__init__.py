"""A look at a source before it is ingested: a few episodes go through the real pipeline, and the results are checked."""

__all__ = ["doctor"]
