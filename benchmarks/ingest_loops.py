"""The programs that `benchmarks.ingest` times: the bare libav loop and the whole ingest, same file, same settings.

    python -m benchmarks.ingest_loops bare|ours SOURCE OUT SHORT_SIDE_PX

SOURCE is a video, or a folder of them, each an episode. Protocol: prints "ready", waits for a line on standard input, prints one JSON object (see `lerobot_writer.py`).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import Interpolation, VideoReformatter

from adapters.base import SourceInfo
from benchmarks.context import run_context
from benchmarks.own_process import peak_rss_mib
from ingest.corpus import snapshot
from ingest.corpus.layout import open_or_create
from ingest.executors.inline import InlineExecutor
from ingest.pipeline.plan import Request, make_plan
from ingest.pipeline.run import ingest
from ingest.recipe import Limits, Recipe, VideoSettings
from ingest.storage.local import LocalStorage
from ingest.video.encode import x264_options
from schemas.episode import Camera, Episode, EpisodeRef, Licence, Stream, VideoWindow, pose_channel
from schemas.rate import instants_ns
from schemas.stored_size import output_size

RATE_HZ = Fraction(10)
STRIDE = 3  # a 30 Hz source


def bare(source: Path, out: Path, short_side_px: int) -> int:
    """Decode everything, scale and encode every third picture: nothing else. Returns the number written."""
    if source.is_dir():
        out.mkdir()
    return sum(
        _bare(video, out / f"{k}.mp4" if source.is_dir() else out, short_side_px)
        for k, video in enumerate(_videos(source))
    )


def _videos(source: Path) -> list[Path]:
    return sorted(source.iterdir()) if source.is_dir() else [source]


def _bare(source: Path, out: Path, short_side_px: int) -> int:
    recipe = VideoSettings(short_side_px=short_side_px)
    options = x264_options(crf=recipe.crf, preset=recipe.preset, gop=recipe.gop)
    how = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
    scaler, step = VideoReformatter(), 0
    with av.open(str(source)) as reader, av.open(str(out), "w", format="mp4") as writer:
        read, write = reader.streams.video[0], writer.add_stream("libx264", RATE_HZ, options)
        read.codec_context.thread_count = write.codec_context.thread_count = 1
        width, height = output_size(read.width, read.height, short_side_px)
        write.width, write.height, write.pix_fmt = width, height, "yuv420p"
        for i, frame in enumerate(reader.decode(read)):
            if i % STRIDE:
                continue
            scaled = scaler.reformat(frame, width, height, "yuv420p", interpolation=how, threads=1)
            scaled.pts, scaled.time_base, scaled.pict_type = step, 1 / RATE_HZ, PictureType.NONE
            writer.mux(write.encode(scaled))
            step += 1
        writer.mux(write.encode(None))
    return step


class OneVideo:
    """A source of one episode a video, at the root or in it, and a pose beside every picture."""

    name: ClassVar[str] = "one_video"
    version: ClassVar[int] = 1
    container: ClassVar[str] = "mp4"
    about: ClassVar[str] = "for this benchmark"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        return SourceInfo(source="one_video", dataset="one_video", licence=Licence(name="none"))

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        for video in _videos(root):
            yield EpisodeRef(
                source="one_video", dataset="one_video", episode_id=video.stem, root=str(video)
            )

    def load(self, ref: EpisodeRef) -> Episode:
        frames = VideoWindow(path=ref.root, start_s=0.0, end_s=1000.0)
        with av.open(ref.root) as container:
            seconds = container.streams.video[0].frames / 30
        t_ns = instants_ns(round(seconds * 30), Fraction(30))
        T_base_eef = np.tile(np.eye(4), (len(t_ns), 1, 1))
        return Episode(
            ref=ref,
            embodiment="umi",
            rate_hz=Fraction(30),
            streams=(Stream(spec=pose_channel("left.T_base_eef"), t_ns=t_ns, values=T_base_eef),),
            cameras=(Camera(name="cam", frames=frames),),
        )


def ours(source: Path, out: Path, short_side_px: int) -> int:
    """The whole ingest of the same file: plan, process, commit, with digests, statistics, catalog and `meta/`."""
    disk = LocalStorage()
    request = Request(
        source="benchmarks.ingest_loops:OneVideo",
        root=source,
        options={},
        recipe=Recipe(video=VideoSettings(short_side_px=short_side_px)),
    )
    corpus = open_or_create(out, uid="benchmark", recipe_digest="", disk=disk)
    current = snapshot.load(corpus.root)
    tally = ingest(
        request,
        make_plan(request, corpus, current),
        corpus=corpus,
        current=current,
        executor=InlineExecutor(disk),
        limits=Limits(),
        context=run_context(),
        disk=disk,
    )
    assert tally.committed == len(_videos(source))
    return tally.timesteps


def warm_up(loop: Callable[[Path, Path, int], int], out: Path) -> None:
    """One tiny video first: what a worker loads once in its life is not part of an episode's time."""
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        tiny = Path(folder) / "tiny.mp4"
        with av.open(str(tiny), "w") as writer:
            stream = writer.add_stream("libx264", 30)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            for _ in range(30):
                grey = np.full((64, 64, 3), 128, np.uint8)
                writer.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
            writer.mux(stream.encode(None))
        loop(tiny, Path(folder) / "out", 64)


def main() -> None:
    """Wait for the start signal, run one loop once, report."""
    loop = {"bare": bare, "ours": ours}[sys.argv[1]]
    source, out, short_side_px = Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    warm_up(loop, out)
    print("ready", flush=True)
    sys.stdin.readline()
    start_s, start_cpu_s = time.monotonic(), time.process_time()
    num_frames = loop(source, out, short_side_px)
    report = {
        "start_s": start_s,
        "end_s": time.monotonic(),
        "cpu_s": time.process_time() - start_cpu_s,
        "num_frames": num_frames,
        "peak_rss_mib": peak_rss_mib(),
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
