"""Bytes that last. The only room that creates, replaces, links or removes files of a corpus.

`local.LocalStorage` is the door to local disks: it walks from the root of the corpus without following a link, writes atomically, and makes a change
durable before another change relies on it. Objects are read and written by key (`store.Store`), on a local disk or in a bucket
(`object_store.ObjectStore`); `open_store.open_store` takes a path or a URI. `docs/concepts/durability.md` and `docs/results/corpus-safety.md` say what it guarantees."""

__all__ = [
    "file_tree",
    "local",
    "lock_file",
    "object_store",
    "open_store",
    "process_folder",
    "rooted",
    "store",
    "store_uri",
    "write_refusal",
]
