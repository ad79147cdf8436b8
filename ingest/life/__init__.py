"""The life of a catalog: its history, compaction, collection of what nobody needs, and erasure."""
