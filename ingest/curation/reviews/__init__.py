"""Reviews as files, which segments to review next, and how far a policy agrees with the reviewers."""

__all__ = ["agreement", "files", "sample"]
