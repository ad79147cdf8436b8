"""Fetches pictures of later steps into the cache of this machine: which ones is known, for the order is a pure function of (seed, step)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from schemas.errors import PipelineError
from schemas.manifest import Latent, ManifestRow
from training.data.prefetch import BatchSource
from training.data.stored_latents import StoredLatentFile


class ReadAhead:
    """`num_steps` beyond the step that is being made, `max_requests` at a time; each holds the pictures of one sample in memory.

    What cannot be fetched is left to the reader of the sample, which tries again and names it in its error.
    """

    def __init__(self, source: BatchSource, *, num_steps: int, max_requests: int) -> None:
        self._source, self._num_steps = source, num_steps
        self._next = -1
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(max_requests, thread_name_prefix="read-ahead")

    def reached(self, step: int) -> None:
        """Begin to fetch what the steps after this one need. Threads may come in any order."""
        with self._lock:
            first = max(self._next, step + 1)
            self._next = max(first, step + 1 + self._num_steps)
            steps = range(first, self._next)
        for each in steps:
            for reads in self._source.reads(each):
                self._pool.submit(self._warm, *reads)

    def close(self) -> None:
        """Leave what has not begun, and wait for the rest."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _warm(self, latent: Latent, row: ManifestRow, timesteps: list[int]) -> None:
        try:
            file = self._source.assembler.latents.open(latent, row.uid, row.end)
            if isinstance(file, StoredLatentFile):
                file.warm(timesteps)
        except (PipelineError, OSError):
            return
