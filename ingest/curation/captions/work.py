"""What there is to caption: segments of episodes that lack a caption of a backend, model and prompt.

A segment is every stretch that a source has a task or sub-task text for, and the rest of an episode in windows that fill one contact sheet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingest.corpus.dataset_info import read_info
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Snapshot
from ingest.curation.captions.checks import form
from ingest.curation.captions.describe_then_summarize import CaptionWork, look
from ingest.curation.captions.imperative import imperative
from ingest.curation.captions.protocol import Backend, CaptionOutcome, Segment
from ingest.curation.captions.settings import CaptionSettings
from ingest.curation.measurements.english import is_placeholder
from ingest.transforms.resample import runs
from schemas.errors import SourceError
from schemas.lerobot import Info

CHUNK_EPISODES = 5000
# More room or another temperature may end these well: they are asked again when the parameters are others.
MAY_CHANGE = (CaptionOutcome.TRUNCATED, CaptionOutcome.PARSE_ERROR, CaptionOutcome.BLOCKED)


def segments_of(
    row: Mapping[str, Any],
    segments: Sequence[Mapping[str, Any]],
    rate_hz: float,
    settings: CaptionSettings,
) -> list[Segment]:
    """What to caption of an episode, by time: stretches with a text of the source, and the rest in windows."""
    length, uid = int(row["length"]), row["uid"]
    texts: dict[tuple[int, int], list[str]] = {}
    is_told = np.zeros(length, dtype=bool)
    for segment in segments:
        span = max(segment["start"], 0), min(segment["end"], length)
        if segment["kind"] in ("task", "subtask") and span[0] < span[1]:
            is_told[slice(*span)] = True
            known = texts.setdefault(span, [])
            if not is_placeholder(segment["text"]):
                known.append(segment["text"])
    sheet = settings.sheet
    window = max(round(sheet.max_frames / sheet.rate_hz * rate_hz), 1)
    for start, end in runs(~is_told):
        if end - start >= settings.min_segment_s * rate_hz:
            count = -(-(end - start) // window)
            edges = np.linspace(start, end, count + 1).round().astype(int)
            texts |= {(int(a), int(b)): [] for a, b in pairwise(edges)}
    return [
        Segment(
            uid=uid,
            start=start,
            end=end,
            duration_s=(end - start) / rate_hz,
            texts=tuple(dict.fromkeys(known)),
        )
        for (start, end), known in sorted(texts.items())
    ]


def work_of(
    corpus: CorpusLayout, current: Snapshot, backend: Backend, settings: CaptionSettings
) -> Iterator[CaptionWork]:
    """Segments without a caption of this backend, model and prompt version, a few thousand episodes in memory at a time."""
    infos: dict[str, Info] = {}
    done = _captioned(corpus, current, backend)
    uids = current.read(corpus.root, "episodes", ["uid"]).column("uid").combine_chunks()
    for at in range(0, len(uids), CHUNK_EPISODES):
        chunk = uids[at : at + CHUNK_EPISODES]
        only = pc.field("uid").isin(chunk)
        segments_by_uid: dict[str, list[dict[str, Any]]] = {}
        for segment in current.read(corpus.root, "segments", only=only).to_pylist():
            segments_by_uid.setdefault(segment["uid"], []).append(segment)
        captioned = done.filter(pc.is_in(done["uid"], chunk)).to_pydict()
        have = set(zip(captioned["uid"], captioned["start"], captioned["end"], strict=True))
        for row in current.read(corpus.root, "episodes", only=only).to_pylist():
            path = row["dataset_path"]
            if path not in infos:
                infos[path] = read_info(corpus.root, path)
            rate_hz = float(infos[path].fps)
            for segment in segments_of(row, segments_by_uid.get(row["uid"], ()), rate_hz, settings):
                is_left_out = settings.only_missing and is_told(segment)
                if (segment.uid, segment.start, segment.end) not in have and not is_left_out:
                    yield CaptionWork(
                        corpus=str(corpus.root),
                        row=row,
                        features=infos[path].features,
                        rate_hz=rate_hz,
                        segment=segment,
                    )


def is_told(segment: Segment) -> bool:
    """The source says it well enough: the rules make a sound instruction of one of its texts."""
    commands = (imperative(text).text for text in segment.texts)
    return any(text and not form(text).has_failed for text in commands)


def _captioned(corpus: CorpusLayout, current: Snapshot, backend: Backend) -> pa.Table:
    """[N] uid, start, end of what is done; 80 bytes each."""
    columns = ["uid", "start", "end", "backend", "model", "prompt_version", "outcome"]
    # filtered here and not in the reading: an older part has no `model`
    rows = current.read(corpus.root, "captions", [*columns, "params_json"])
    is_captioned = pc.is_in(rows["outcome"], pa.array([one.value for one in CaptionOutcome]))
    names = {
        "backend": backend.id,
        "model": backend.model,
        "prompt_version": backend.prompt_version,
    }
    for name, value in names.items():
        is_captioned = pc.and_(is_captioned, pc.equal(rows[name], value))
    same = pc.equal(rows["params_json"], backend.params_json)
    may_change = pc.is_in(rows["outcome"], pa.array(MAY_CHANGE, pa.string()))
    is_captioned = pc.and_(is_captioned, pc.or_(pc.invert(may_change), same))
    return rows.filter(is_captioned).select(["uid", "start", "end"])


def sheets_of(
    corpus: CorpusLayout,
    current: Snapshot,
    captions: Sequence[Mapping[str, Any]],
    settings: CaptionSettings,
) -> Iterator[list[bytes]]:
    """The contact sheets of each caption's segment; none where its video cannot be shown."""
    only = pc.field("uid").isin(pa.array([row["uid"] for row in captions], pa.string()))
    rows = current.read(corpus.root, "episodes", only=only).to_pylist()
    episodes = {row["uid"]: row for row in rows}
    for caption in captions:
        row = episodes[caption["uid"]]
        info = read_info(corpus.root, row["dataset_path"])
        segment = Segment(
            uid=row["uid"], start=caption["start"], end=caption["end"], duration_s=0.0
        )
        work = CaptionWork(
            corpus=str(corpus.root), row=row, features={}, rate_hz=float(info.fps), segment=segment
        )
        try:
            seen = look(work, settings)
        except SourceError:  # the others are still worth an audit; verify tells of this one
            seen = None
        yield [sheet.jpeg for sheet in seen.sheets] if seen else []
