"""Whole ingests of real folders, as far as the samples are whole: what is missing has to be counted, and the corpus verified.

`expected` is worked out from what SOURCE.md or the source's own metadata say. Timesteps are of the 10 Hz grid: a source of
N samples at f Hz has floor((N - 1) 10 / f) + 1.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ingest.pipeline.tally import Tally
from ingest.verify.corpus import verify
from schemas.errors import ConfigError
from tests.faults.runs import run
from tests.real.rows import Measure, Row

LAVILA = "3c0dffd0-e38e-4643-bc48-d513943dc20b_012_014.mp4"


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder below the samples, or one laid out from them, and what ingesting it has to give."""

    source: str
    path: str
    expected: str  # as `told` says it
    because: str
    lay_out: Callable[[Path, Path], None] | None = (
        None  # into an empty folder, as the source expects it
    )


def _clip_as_a_download(samples: Path, root: Path) -> None:
    (root / "v2" / "video_540ss").mkdir(parents=True)
    shutil.copy(samples / "ego4d_lavila" / LAVILA, root / "v2" / "video_540ss")


def _goalstep_as_a_download(samples: Path, root: Path) -> None:
    shutil.copytree(samples / "ego4d_annotations" / "goalstep", root / "v2" / "annotations")


FOLDERS = (
    Folder(
        source="robocasa_gr1",
        path="lerobot_v20_gr1_picknplace",
        expected="5 committed, 1,048 timesteps",
        because="416, 470, 470, 412, 328 rows at 20 Hz",
    ),
    Folder(
        source="lerobot",
        path="lerobot_v21_galaxea_r1lite",
        expected="0 committed; 1 missing_meta",
        because="one Parquet file without meta/",
    ),
    Folder(
        source="lerobot",
        path="lerobot_v30_so101",
        expected="0 committed; 50 missing_file",
        because="meta/ of 50 episodes without data/",
    ),
    Folder(
        source="robocoin",
        path="lerobot_v21_robocoin_meta/examples/example_datas/example_dataset_1",
        expected="0 committed; 498 missing_file",
        because="meta/ of 498 episodes without data/",
    ),
    Folder(
        source="oxe",
        path="oxe_bridge_rlds",
        expected="25 committed, 475 timesteps; 25 missing_shard",
        because="25 x 10 steps at 5 Hz; the val shard is not there",
    ),
    Folder(
        source="aloha",
        path="aloha_sim_hdf5",
        expected="1 committed, 80 timesteps",
        because="400 steps at 50 Hz",
    ),
    Folder(
        source="robomimic",
        path="robomimic_playback",
        expected="10 committed, 2,082 timesteps",
        because="10 demonstrations at 20 Hz",
    ),
    Folder(
        source="umi",
        path="zarr_pusht",
        expected="refused: not UMI",
        because="the same store, another robot's arrays",
    ),
    Folder(
        source="ego4d",
        path="ego4d_lavila",
        expected="1 committed, 20 timesteps",
        because="60 frames at 30 Hz",
        lay_out=_clip_as_a_download,
    ),
    Folder(
        source="ego4d",
        path="ego4d_annotations",
        expected="0 committed; 8,801 missing_video",
        because="8,667 segments of 134 videos, 134 untimed ones",
        lay_out=_goalstep_as_a_download,
    ),
    Folder(
        source="epic_kitchens",
        path="epic_kitchens",
        expected="0 committed; 22,760 missing_video",
        because="9,668 + 13,092 rows without videos",
    ),
    Folder(
        source="hot3d",
        path="hot3d/data_sample",
        expected="2 committed, 17 timesteps",
        because="34 and 15 instants at 30 Hz, no recordings",
    ),
)


def told(tally: Tally) -> str:
    """Committed episodes and their timesteps, then what was not, by code."""
    done = f"{tally.committed:,} committed"
    done += f", {tally.timesteps:,} timesteps" if tally.committed else ""
    codes = [f"{count:,} {code}" for code, count in sorted(tally.codes.items())]
    return "; ".join([done, *codes])


def ingested(folder: Folder, samples: Path, scratch: Path) -> Row:
    """One row; findings of `eicorpus verify` are told after the counts, and are never expected."""
    root = samples / folder.path
    if folder.lay_out is not None:
        root = scratch / "raw"
        folder.lay_out(samples, root)
    try:
        tally = run(root, scratch / "corpus", source=folder.source)
        assert tally.adds_up
        value = told(tally)
        findings = verify(scratch / "corpus")
        value += f"; {len(findings)} findings of verify" if findings else ""
    except ConfigError as error:
        value = f"refused: {str(error).split(': ')[1]}"  # after the folder
    return Row(
        what=f"as `{folder.source}`",
        value=value,
        expected=f"{folder.expected} ({folder.because})",
        holds=value == folder.expected,
    )


def _measure_of(folder: Folder) -> Measure:
    def measure(samples: Path, scratch: Path) -> Iterator[Row]:
        yield ingested(folder, samples, scratch)

    return measure


MEASURES = {f"{f.path.split('/')[0]}, ingested": _measure_of(f) for f in FOLDERS}
