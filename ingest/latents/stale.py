"""Which files of latents are no longer those of their video, and which cameras have none, by encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow.compute as pc

from ingest.corpus.snapshot import Snapshot
from schemas.text_features import is_of_text

_KEY = ["uid", "camera"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderState:
    """In files, one for each camera of each episode. `missing`: videos without latents of this encoder."""

    encoder_id: str
    up_to_date: int
    other_video: int
    orphaned: int  # of an episode or a camera that is not in the corpus any more
    missing: int

    @property
    def stale(self) -> int:
        return self.other_video + self.orphaned

    @property
    def reason(self) -> str:
        counts = {
            "of another video than the one that is there": self.other_video,
            "of an episode that is gone": self.orphaned,
        }
        return "; ".join(f"{count} {what}" for what, count in counts.items() if count)


def encoder_states(corpus: Path, current: Snapshot) -> Iterator[EncoderState]:
    """By encoder id; text features are made of more than a video and not looked at."""
    only = pc.field("kind") == "video"
    videos = pl.DataFrame(current.read(corpus, "artifacts", [*_KEY, "sha256"], only=only))
    uids = pl.DataFrame(current.read(corpus, "episodes", ["uid"]))
    videos = videos.unique(_KEY, keep="last").join(uids, on="uid", how="semi")
    rows = pl.DataFrame(
        current.read(corpus, "latents", [*_KEY, "encoder_id", "video_sha256", "run_id"])
    ).sort("run_id", maintain_order=True)
    for encoder_id in sorted(set(rows["encoder_id"])):
        if is_of_text(encoder_id):
            continue
        of_encoder = rows.filter(pl.col("encoder_id") == encoder_id).unique(_KEY, keep="last")
        both = of_encoder.join(videos, on=_KEY, how="left")
        is_same = (both["video_sha256"] == both["sha256"]).fill_null(value=False)
        num_erased = both["sha256"].null_count()
        yield EncoderState(
            encoder_id=encoder_id,
            up_to_date=int(is_same.sum()),
            other_video=len(both) - int(is_same.sum()) - num_erased,
            orphaned=num_erased,
            missing=len(videos) - (len(both) - num_erased),
        )
