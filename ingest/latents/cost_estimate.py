"""What a run will take, before it begins: counts are exact, the time is an estimate from a few pictures of this corpus.

The same pictures are encoded in float32 too, so that what bfloat16 and the storage lose is measured and not believed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from ingest.latents.encode_file import Pictures, decode_chunk, frame_chunks_of
from ingest.latents.plan import LatentTodo
from ingest.models.encoder import EncoderChoice, ImageEncoder
from ingest.storage.local import LocalStorage
from schemas.latents import Storage

PROBE_FILES = 4  # whose beginning is looked at
DECODED_EACH, ENCODED_EACH = 32, 4  # pictures of each
STORAGES: tuple[Storage, ...] = ("bf16", "fp8", "int8")
_BYTES_PER_ELEMENT = {"bf16": 2, "fp8": 1, "int8": 1}
_SCALE_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CostEstimate:
    """Cosine errors are 1 - cosine of a token with that of the same network in float32; [0] the mean, [1] the worst token.

    `stored_error`: of what a reader gets, so of bfloat16 and the storage together. `storage_error`: of the storage alone.
    """

    num_pictures: int
    encode_per_s: float
    decode_per_s: float  # of one worker
    stored_error: tuple[float, float]
    storage_error: tuple[float, float]

    def hours(self, num_pictures: int, *, workers: int, num_encoders: float) -> float:
        """Of the slower of the two halves; an estimate. With infinitely many encoders, of decoding alone."""
        rate = min(self.encode_per_s * num_encoders, self.decode_per_s * max(workers, 1))
        return num_pictures / rate / 3600.0 if rate else 0.0


def bytes_of(choice: EncoderChoice, num_pictures: int, storage: Storage) -> int:
    """On disk, without the few hundred bytes of each file's header."""
    scale = 0 if storage == "bf16" else _SCALE_BYTES
    token = choice.spec.width * _BYTES_PER_ELEMENT[storage] + scale
    return num_pictures * (choice.num_tokens * token + 8)


def estimate_cost(
    todo: LatentTodo, encoder: ImageEncoder, monotonic_s: Callable[[], float]
) -> CostEstimate | None:
    """Encode the first pictures of the first files twice; None where nothing can be decoded."""
    began_s = monotonic_s()
    decoded = _decoded(todo, encoder)
    decoded_s = monotonic_s() - began_s
    if not decoded:
        return None
    from ingest.models import token_storage

    pictures = np.concatenate([each[:ENCODED_EACH] for each in decoded])
    full = np.resize(pictures, (encoder.batch, *pictures.shape[1:]))
    encoder.encode(full)  # warms up: memory, a compiled network
    tokens = encoder.encode(pictures).float().cpu()
    began_s = monotonic_s()
    encoder.encode(full).cpu()
    encoded_s = monotonic_s() - began_s
    exact = ImageEncoder.open(encoder.choice, is_exact=True).encode(pictures).float().cpu()
    kept = token_storage.read(token_storage.stored(tokens, encoder.choice.storage))
    return CostEstimate(
        num_pictures=len(pictures),
        encode_per_s=encoder.batch / encoded_s,
        decode_per_s=sum(map(len, decoded)) / decoded_s,
        stored_error=_mean_and_worst(token_storage.cosine_errors(kept, exact)),
        storage_error=_mean_and_worst(token_storage.cosine_errors(kept, tokens)),
    )


def _mean_and_worst(errors: Any) -> tuple[float, float]:
    values = np.asarray(errors)
    return float(values.mean()), float(values.max())


def _decoded(todo: LatentTodo, encoder: ImageEncoder) -> list[Pictures]:
    """The beginning of the first files, without those that cannot be decoded."""
    chunks = []
    for file in islice(todo.files(), PROBE_FILES):
        first = frame_chunks_of(file, encoder.choice, DECODED_EACH)[0]
        begun = replace(first, count=min(first.count, DECODED_EACH))
        chunks.append(decode_chunk(begun, LocalStorage()).pictures)
    return [each for each in chunks if each is not None]
