"""Does a corpus hold what it says? Every file, row, count and digest is checked against the snapshot, and manifests against both."""

__all__ = [
    "corpus",
    "digest",
    "finding",
    "manifest",
    "peer",
]
