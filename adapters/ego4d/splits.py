"""Which split Ego4D publishes a video in, over all its benchmarks.

ego4d.json gives one word per benchmark (`split_em`, `split_av`, `split_fho`), Goal-Step one file per split. An episode shows the
same pictures whichever benchmark its text is from, so a video takes the strictest of all of them.
"""

from __future__ import annotations

from typing import Any

from adapters.containers.json_rows import Broken
from adapters.ego4d.annotations import GoalStepVideo, video_entries
from adapters.ego4d.listing import Metadata
from adapters.ego4d.tree import Ego4dTree
from schemas.source_split import source_split_of, strictest

MULTI = "multi"  # clips of one video are in several splits; which, the metadata of the video do not say (UNVERIFIED)


def source_splits(tree: Ego4dTree, metadata: Metadata) -> dict[str, str]:
    """Split by video uid; a video that nothing lists is not in it."""
    splits = {
        uid: strictest(map(_split, (video.split_em, video.split_av, video.split_fho)))
        for uid, video in metadata.videos.items()
    }
    for path in tree.goalstep:
        split = source_split_of(path.stem.removeprefix("goalstep_"))
        for _, row in video_entries(path, GoalStepVideo):
            if not isinstance(row, Broken):
                splits[row.video_uid] = strictest((splits.get(row.video_uid, ""), split))
    return splits


def _split(word: Any) -> str:
    """`multi` is held out as test, because some of the video may be."""
    if not isinstance(word, str):
        return ""
    return "test" if word == MULTI else source_split_of(word)
