"""SQL over the catalog of one snapshot, and the lookups that commands share.

`catalog.Catalog` is the reader. A user's SQL is checked by `sql_guard` and runs in a process of its own (`query_process`) with
limits on time and memory."""

__all__ = [
    "catalog",
    "episode_lookup",
    "episode_tier",
    "next_command",
    "query_process",
    "segmentation",
    "sql_guard",
    "tables",
    "uid_index",
    "views",
]
