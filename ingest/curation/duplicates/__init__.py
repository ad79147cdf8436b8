"""Episodes that are copies of each other, exact and near, and pairs that would leak from one split into another."""

__all__ = [
    "array_parts",
    "cluster",
    "compare",
    "find",
    "leakage",
    "plane",
    "signatures",
    "similar",
]
