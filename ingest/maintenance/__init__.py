"""Keeping a corpus small and lawful: compaction, garbage collection, differences between snapshots, erasure of episodes."""

__all__ = [
    "compact",
    "erase",
    "erase_bucket",
    "erasure_plan",
    "gc",
    "pack_latents",
    "snapshot_diff",
    "sweep",
]
