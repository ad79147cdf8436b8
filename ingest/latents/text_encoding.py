"""Texts of episodes are encoded one after the other; files are written as they come and committed in batches, so a stopped run keeps what it has.

What an episode's file holds depends on nothing but the episode: texts are encoded one at a time, images in batches of the episode's own.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ingest.corpus import publishing, snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Snapshot
from ingest.latents.text_plan import EpisodeTexts
from ingest.models.text_feature_file import file_bytes, is_finite
from ingest.storage.local import LocalStorage
from ingest.storage.rooted import item_within
from ingest.video.timestep_pictures import pictures_at
from schemas.committed_rows import LatentRow
from schemas.errors import Code, SourceError
from schemas.text_features import NO_CAMERA, NO_PICTURE, FeatureSettings, TextFacts, text_encoder_id
from schemas.vlm import Message, Picture

BATCH_EPISODES = (
    100  # to a snapshot, until a run has done twenty times that: a snapshot names every part
)
KEPT_TEXTS = 1024  # features of as many texts stay in memory: most are of many episodes
Bits = npt.NDArray[np.uint16]  # of bfloat16


class Vlm(Protocol):
    """What is needed of `ingest.models.vlm.LocalVlm`."""

    @property
    def width(self) -> int: ...

    def instruction(
        self, prompt: str, text: str, picture: Picture | None, max_tokens: int
    ) -> tuple[Message, ...]: ...

    def features(
        self,
        chats: Sequence[Sequence[Message]],
        *,
        layer: int,
        max_picture_tokens: int | None = None,
    ) -> list[Bits]: ...


@dataclass(kw_only=True, eq=False)
class TextEncoder:
    """A model with its settings: `eicorpus latents text --vlm`. `batch`: pictures at once."""

    vlm: Vlm
    model: str  # text_<family>
    model_sha256: str
    settings: FeatureSettings
    batch: int = 8
    _known: OrderedDict[str, Bits] = field(default_factory=OrderedDict)

    @property
    def encoder_id(self) -> str:
        return text_encoder_id(self.model, self.model_sha256, self.settings)

    def messages(self, text: str, picture: Picture | None = None) -> tuple[Message, ...]:
        s = self.settings
        return self.vlm.instruction(s.prompt, text, picture, s.max_text_tokens)

    def of_text(self, text: str) -> Bits:
        """[T, width] features of a text alone."""
        if text not in self._known:
            (self._known[text],) = self.vlm.features(
                [self.messages(text)], layer=self.settings.layer
            )
            while len(self._known) > KEPT_TEXTS:
                self._known.popitem(last=False)
        self._known.move_to_end(text)
        return self._known[text]

    def of_pictures(self, pairs: Sequence[tuple[str, Picture]]) -> list[Bits]:
        """[T, width] features of each text with its picture."""
        return self.vlm.features(
            [self.messages(*each) for each in pairs],
            layer=self.settings.layer,
            max_picture_tokens=self.settings.max_picture_tokens,
        )


@dataclass(kw_only=True)
class TextTally:
    """discovered = encoded + up_to_date + failed."""

    discovered: int
    up_to_date: int
    encoded: int = 0
    failed: int = 0
    moments: int = 0
    num_bytes: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)  # uid and why


def encode_texts(
    corpus: CorpusLayout,
    current: Snapshot,
    works: Iterable[EpisodeTexts],
    encoder: TextEncoder,
    tally: TextTally,
    *,
    run_id: str,
    disk: LocalStorage,
    progress: Callable[[TextTally], None] = lambda tally: None,
) -> Snapshot:
    """Make the files of `works` and commit them; `tally` counts. The caller holds the writer lock.

    Raises:
        ConfigError: the device's memory does not hold a batch.
        TransientError: another writer was first; what is committed stays, run again.
    """
    rows: list[LatentRow] = []

    def commit(parent: Snapshot) -> Snapshot:
        nonlocal rows
        if not rows:
            return parent
        part = snapshot.write_part(disk, corpus.root, LatentRow, rows)
        rows = []
        return publishing.publish(disk, corpus.root, parent, {"latents": part}, run_id)

    try:
        for work in works:
            try:
                rows.append(_encoded(corpus, work, encoder, disk, run_id))
            except SourceError as error:
                tally.failed += 1
                tally.errors[error.code.value] += 1
                tally.failures.append(f"{work.uid}: {error}")
            else:
                tally.encoded += 1
                tally.moments += rows[-1].num_frames
                tally.num_bytes += rows[-1].num_bytes
            if len(rows) >= max(BATCH_EPISODES, tally.encoded // 20):
                current = commit(current)
            progress(tally)
    finally:
        current = commit(current)
    return current


def _encoded(
    corpus: CorpusLayout,
    work: EpisodeTexts,
    encoder: TextEncoder,
    disk: LocalStorage,
    run_id: str,
) -> LatentRow:
    """Write the file of one episode; its row of `latents`."""
    moments = work.moments(encoder.settings)
    bits_of = _features(corpus, work, encoder, moments)
    features = [bits_of[moment] for moment in moments]
    if not all(is_finite(each) for each in features):
        raise SourceError(
            Code.NOT_FINITE, "the model returned NaN or infinity", where=work.target("")
        )
    facts = TextFacts(
        encoder_id=encoder.encoder_id,
        model_sha256=encoder.model_sha256,
        settings=encoder.settings,
        width=encoder.vlm.width,
        uid=work.uid,
        camera=work.camera,
        length=work.length,
        rate_hz=work.rate_hz,
        texts=tuple(work.spans),
        source_sha256=work.source_sha256,
    )
    data = file_bytes(moments, features, facts)
    path = work.target(encoder.encoder_id)
    full = item_within(corpus.root, path)
    disk.make_dir(full.parent)
    disk.write(full, data)
    return LatentRow(
        uid=work.uid,
        camera=NO_CAMERA,
        encoder_id=encoder.encoder_id,
        path=path,
        num_frames=len(moments),
        num_bytes=len(data),
        dtype="bf16",
        sha256=hashlib.sha256(data).hexdigest(),
        video_sha256=work.source_sha256,
        run_id=run_id,
        pack_offset=None,
    )


def _features(
    corpus: CorpusLayout,
    work: EpisodeTexts,
    encoder: TextEncoder,
    moments: Sequence[tuple[int, int]],
) -> Mapping[tuple[int, int], Bits]:
    texts = list(work.spans)
    bits_by_moment = {
        (text, t): encoder.of_text(texts[text]) for text, t in moments if t == NO_PICTURE
    }
    shown = _shown(corpus, work, moments)
    while some := list(islice(shown, encoder.batch)):
        encoded = encoder.of_pictures([(texts[text], picture) for (text, _), picture in some])
        bits_by_moment |= {moment: bits for (moment, _), bits in zip(some, encoded, strict=True)}
    return bits_by_moment


def _shown(
    corpus: CorpusLayout, work: EpisodeTexts, moments: Sequence[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], Picture]]:
    """Every moment that has a picture, by time: the video is gone through once."""
    asked = sorted((t, text) for text, t in moments if t != NO_PICTURE)
    if not asked:
        return
    timesteps = sorted({t for t, _ in asked})
    pictures = pictures_at(item_within(corpus.root, work.video), timesteps, work.rate_hz)
    texts_at: dict[int, list[int]] = {}
    for t, text in asked:
        texts_at.setdefault(t, []).append(text)
    for t, picture in zip(timesteps, pictures, strict=True):
        for text in texts_at[t]:
            yield (text, t), picture
