"""Bytes that last. The only room that creates, replaces, links or removes files of a corpus.

`local.LocalStorage` is the door: it walks from the root of the corpus without following a link, writes atomically, and makes a change
durable before another change relies on it. Small objects are read and written by key (`store.Store`). `docs/concepts/durability.md` and `docs/results/corpus-safety.md` say what it guarantees."""

__all__ = ["file_tree", "local", "lock_file", "rooted", "store", "write_refusal"]
