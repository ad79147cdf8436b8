"""Where a training run reads latents: out of the bucket of a working copy, or in the folder of the corpus."""

from __future__ import annotations

from pathlib import Path

from ingest.corpus.remote_link import read_link
from ingest.storage.object_store import ObjectStore
from jobs.ui.options import cache_folder
from schemas.manifest import FOLDER as MANIFESTS
from training.data.stored_latents import LatentPlace

ROOM = "latents"  # of the cache


def latent_place(manifest: Path) -> LatentPlace:
    """Of the corpus that a manifest lies in.

    Raises:
        ConfigError: its link to a bucket cannot be read.
    """
    folder = cache_folder() / ROOM
    corpus = next((above.parent for above in manifest.absolute().parents if above.name == MANIFESTS), None)  # fmt: skip
    link = None if corpus is None else read_link(corpus)
    if corpus is None or link is None:
        return LatentPlace(folder=folder)
    return LatentPlace(store=ObjectStore(link.uri), name=link.uri, folder=folder, copies=corpus)
