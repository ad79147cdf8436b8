"""The HTML report of a corpus: key figures, distributions, quarantine, segments with their reasons."""

__all__ = ["html", "overview", "page", "pictures", "style"]
