"""Text features that `eicorpus latents text` stored, read where samples are loaded. Nothing of them is trained.

A file is opened once and checked then: what it says of itself against the manifest's row, its sizes, and its digest where it is small or
`with_digest` asks for it. `eicorpus manifest verify` reads all of all files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from schemas.errors import ConfigError, system_error_text
from schemas.latent_header import MAX_TEXT_HEADER_BYTES, Held, read_tensors, span_of
from schemas.manifest import Latent, Manifest, ManifestRow
from schemas.paths import within
from schemas.text_features import (
    FEATURES,
    NO_PICTURE,
    OFFSETS,
    TEXT_INDEX,
    TIMESTEP,
    FeatureSettings,
    Int64,
    TextFacts,
    is_of_text,
    moment_of,
    text_facts_of,
)
from training.conditioning.inputs import TextInputs, distinct, end_to_end
from training.conditioning.protocol import Conditioner
from training.data.broken import broken_sample, patiently
from training.data.file_check import VerifiedFiles, refuse_absent
from training.data.recording import PositionalFile
from training.model.text import Text

MAX_OPEN = 256  # files of a worker
SMALL_BYTES = 4 << 20  # a file whose digest is always checked before it is used


def _again(corpus: Path) -> str:
    return (
        f"run `eicorpus latents text {corpus} --vlm FOLDER`, then build a new manifest with them: "
        f"`eicorpus manifest build {corpus} NEW_NAME`"
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _OpenFile:
    facts: TextFacts
    file: PositionalFile
    start: int  # byte of the first token
    offsets: Int64
    text_index: Int64
    timestep: Int64

    def tokens(self, text: int, now: int) -> Tensor:
        """[T, C] of the prompt of a text at `now`.

        Raises:
            ConfigError: the file is shorter than it was.
            OSError: it cannot be read now.
        """
        moment = moment_of(self.text_index, self.timestep, text, now)
        first, last = self.offsets[moment : moment + 2].tolist()
        out = np.empty((last - first, self.facts.width), "<i2")
        self.file.fill(out, self.start + first * self.facts.width * out.itemsize)
        return torch.from_numpy(out).view(torch.bfloat16)


@dataclass(kw_only=True, eq=False)
class CachedReader:
    """Of the one encoder `encoder_id`, which every row has. `with_digest`: read each file whole once and compare its sha256."""

    corpus: Path
    encoder_id: str
    with_digest: bool = False

    def __post_init__(self) -> None:
        self._compared = VerifiedFiles()
        self._open = lru_cache(maxsize=MAX_OPEN)(
            self._opened
        )  # threads share it, which a dict of ours would not bear

    def __reduce__(self) -> tuple[Any, ...]:
        opener = partial(
            CachedReader,
            corpus=self.corpus,
            encoder_id=self.encoder_id,
            with_digest=self.with_digest,
        )
        return opener, ()

    def read(self, rows: Sequence[ManifestRow], timesteps: npt.NDArray[np.int64]) -> TextInputs:
        """features [N, C] bfloat16. Texts are equal where their features are, whatever files they are in: of the same text they are mostly,
        but the encoder may have rounded them differently in another batch.

        Raises:
            SourceError: a sample's file is not what the manifest says; the message has its file, episode and timestep.
        """
        return features_of(
            [self._of(row, int(now)) for row, now in zip(rows, timesteps, strict=True)],
            [row.text for row in rows],
        )

    def facts_of(self, row: ManifestRow) -> TextFacts:
        """What the file of a row says of itself."""
        return self._file(row, self._named(row)).facts

    def _of(self, row: ManifestRow, now: int) -> Tensor:
        latent = self._named(row)
        try:
            return self._tokens(row, now, latent)
        except ConfigError as error:
            raise broken_sample(row, now, latent.path, error) from error

    def _tokens(self, row: ManifestRow, now: int, latent: Latent) -> Tensor:
        file = self._file(row, latent)
        if row.text not in file.facts.texts:
            problem = f"no text features for {row.text[:80]!r}, the instruction of {row.uid} from timestep {row.start}"
            raise ConfigError(problem, remedy=_again(self.corpus), where=latent.path)
        try:
            return file.tokens(file.facts.texts.index(row.text), now)
        except OSError as error:
            raise file.file.damaged(system_error_text(error)) from error

    def _named(self, row: ManifestRow) -> Latent:
        for latent in row.latents:
            if latent.encoder_id == self.encoder_id:
                return latent
        problem = f"{row.uid} has no text features from {self.encoder_id}"
        raise ConfigError(problem, remedy=_again(self.corpus), where="manifest")

    def _file(self, row: ManifestRow, latent: Latent) -> _OpenFile:
        return self._open(row.uid, latent)

    def _opened(self, uid: str, latent: Latent) -> _OpenFile:
        try:
            return patiently(partial(self._opened_now, uid, latent))
        except OSError as error:
            problem = f"cannot be read ({system_error_text(error)})"
            raise ConfigError(problem, remedy=_again(self.corpus), where=latent.path) from error

    def _opened_now(self, uid: str, latent: Latent) -> _OpenFile:
        """Raises OSError where the machine cannot read now."""
        path = within(self.corpus, latent.path)
        size = path.stat().st_size
        span = span_of(latent.pack_offset, latent.num_bytes)
        if span is not None and not span.fits(size):  # a manifest is a stranger's
            place = f"bytes {span.start} to {span.start + span.num_bytes}"
            problem = f"{place} of a pack of {size} bytes"
            raise ConfigError(problem, remedy=_again(self.corpus), where=latent.path)
        if self.with_digest or (size if span is None else span.num_bytes) <= SMALL_BYTES:
            self._check_digest(path, latent)
        return _opened(self.corpus, path, uid, latent)

    def _check_digest(self, path: Path, latent: Latent) -> None:
        span = span_of(latent.pack_offset, latent.num_bytes)
        if digest := self._compared.other_digest(path, latent.sha256, span):
            problem = f"sha256 is {digest}; the manifest records {latent.sha256}"
            raise ConfigError(problem, remedy=_again(self.corpus), where=latent.path)


def _opened(corpus: Path, path: Path, uid: str, latent: Latent) -> _OpenFile:
    file = PositionalFile(path, where=latent.path, repair=_again(corpus))
    try:
        span = span_of(latent.pack_offset, latent.num_bytes)
        tensors, metadata = read_tensors(path, span, max_bytes=MAX_TEXT_HEADER_BYTES)
        facts = text_facts_of(metadata, where=latent.path)
    except ConfigError as error:
        raise file.damaged(str(error)) from error
    if (facts.uid, facts.encoder_id) != (uid, latent.encoder_id):
        raise file.damaged(f"its metadata names {(facts.uid, facts.encoder_id)}")
    offsets, text_index, timestep = (
        _numbers(file, tensors, name) for name in (OFFSETS, TEXT_INDEX, TIMESTEP)
    )
    features = tensors.get(FEATURES)
    if features is None or features.dtype != "BF16":
        raise file.damaged(f"no tensor {FEATURES} of type bfloat16")
    if features.shape != (offsets[-1:].sum(), facts.width) or not _are_moments(
        len(facts.texts), offsets, text_index, timestep
    ):
        raise file.damaged(
            f"the shape {list(features.shape)} of {FEATURES} does not match the prompts of the file"
        )
    return _OpenFile(
        facts=facts,
        file=file,
        start=features.start,
        offsets=offsets,
        text_index=text_index,
        timestep=timestep,
    )


def _numbers(file: PositionalFile, tensors: Mapping[str, Held], name: str) -> Int64:
    """A tensor of one axis; it is no larger than the file."""
    held = tensors.get(name)
    if held is None or held.dtype != "I64" or len(held.shape) != 1:
        raise file.damaged(f"no one-dimensional tensor {name} of type int64")
    out = np.empty(held.shape, "<i8")
    file.fill(out, held.start)
    return out


def _are_moments(num_texts: int, offsets: Int64, text_index: Int64, timestep: Int64) -> bool:
    """Whether a moment can be looked up: in order, and each text has one without a picture, which is its first."""
    if len(offsets) != len(timestep) + 1 or len(text_index) != len(timestep):
        return False
    falls = ((each[1:] < each[:-1]).any() for each in (offsets, text_index))
    if offsets[0] != 0 or any(falls):
        return False
    first = np.searchsorted(text_index, np.arange(num_texts))
    if (first == len(text_index)).any():
        return False
    return bool(
        (text_index[first] == np.arange(num_texts)).all() and (timestep[first] == NO_PICTURE).all()
    )


def features_of(tokens: Sequence[Tensor], texts: Sequence[str]) -> TextInputs:
    """Inputs of `CachedConditioner` of B samples [T, C] with their texts: only features of the same text are compared."""
    kept: dict[str, list[int]] = {}
    first: list[int] = []
    for b, (own, text) in enumerate(zip(tokens, texts, strict=True)):
        others = kept.setdefault(text, [])
        same = next((other for other in others if torch.equal(own, tokens[other])), b)
        if same == b:
            others.append(b)
        first.append(same)
    places, text_of = distinct(first)
    features, layout = end_to_end([tokens[b] for b in places], text_of)
    return TextInputs(layout=layout, by_token={"features": features})


class CachedConditioner(Conditioner):
    """What was read, as float32."""

    def __init__(
        self, width: int, text_id: str = "", text_settings: FeatureSettings | None = None
    ) -> None:
        super().__init__()
        self.width, self.text_id, self.text_settings = width, text_id, text_settings

    def forward(self, inputs: TextInputs) -> Text:
        return Text(values=inputs.by_token["features"].float(), layout=inputs.layout)


def chosen_encoder(manifest: Manifest, encoder: str) -> str:
    """The one id of text features that `encoder`, an id or the name before its dash, means; every row has features of it.

    Raises:
        ConfigError: there is none, there are several, or segments lack them.
    """
    where = f"manifest {manifest.facts.name}"
    lists = manifest.rows["latents"].combine_chunks()
    ids = lists.flatten().field("encoder_id")
    encoders: list[str] = sorted(id_ for id_ in pc.unique(ids).to_pylist() if is_of_text(id_))
    matches: list[str] = [id_ for id_ in encoders if encoder in (id_, id_.partition("-")[0])]
    if len(matches) != 1:
        have = ", ".join(encoders) or "none"
        problem = (
            f"{len(matches) or 'no'} text encoders of the manifest match {encoder!r}; it has {have}"
        )
        raise ConfigError(
            problem, remedy=f"name one of them, or {_again(manifest.corpus)}", where=where
        )
    row_of_match = pc.list_parent_indices(lists).filter(pc.equal(ids, matches[0]))
    has = pc.is_in(
        pa.array(np.arange(len(manifest))), value_set=pc.unique(row_of_match).cast(pa.int64())
    )
    if num_missing := len(manifest) - (pc.sum(has).as_py() or 0):
        uid = manifest.rows["uid"].filter(pc.invert(has))[0].as_py()
        problem = f"{num_missing} of {len(manifest)} segments have no text features from {matches[0]}, for example {uid}"
        raise ConfigError(problem, remedy=_again(manifest.corpus), where=where)
    return matches[0]


def refuse_absent_features(manifest: Manifest, encoder_id: str) -> None:
    """
    Raises:
        ConfigError: files that rows of the manifest name are not there.
    """
    named = manifest.rows["latents"].combine_chunks().flatten()
    paths = named.field("path").filter(pc.equal(named.field("encoder_id"), encoder_id))
    repair = f"copy the files, or {_again(manifest.corpus)}"
    refuse_absent(manifest.corpus, paths, what="text features", repair=repair)
