"""What hands cost: a hand source ingested whole, against the same video alone.

Both go through the whole worker (load, decode, scale, encode, rows). The baseline never opens a file of hands or camera poses. Rounds
are interleaved. The budget (issue 3): at least 0.9 of the throughput.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Annotated, ClassVar

import typer

from adapters.base import SourceInfo
from adapters.containers.video_probe import probe_video
from adapters.registry import adapter_for
from benchmarks import result
from benchmarks.ingest import write_source
from benchmarks.raw import mano_model, taco_sequence
from ingest.pipeline.assets import Assets
from ingest.pipeline.process import Work, process
from ingest.recipe import Recipe
from ingest.storage.local import LocalStorage
from jobs.demo.raw import egodex
from jobs.demo.raw.hand_scene import HandScene
from schemas.episode import Camera, Episode, EpisodeRef, Licence, VideoSpan
from schemas.outcome import State
from schemas.rate import instants_ns

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "hands_throughput_ratio_*": "Seconds without hands over seconds with them. Budget: at least 0.9.",
    "with_hands_s_*": "Seconds for the source with its hands, through the whole worker.",
    "without_hands_s_*": "Seconds for the same video alone.",
    "rounds": "Rounds, of which medians are reported.",
    "seconds": "Length of the recording.",
}

SOURCES = ("egodex", "taco")
RATE_HZ = Fraction(30)


class VideoOnly:
    """The first video below the root, whole, and nothing else of its source."""

    name: ClassVar[str] = "video_only"
    version: ClassVar[int] = 1
    container: ClassVar[str] = "mp4"
    about: ClassVar[str] = "for this benchmark"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        return SourceInfo(source=self.name, dataset=self.name, licence=Licence(name="CC0"))

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        yield EpisodeRef(source=self.name, dataset=self.name, episode_id="0", root=str(root))

    def load(self, ref: EpisodeRef) -> Episode:
        path = next(Path(ref.root).rglob("*.mp4"))
        count = probe_video(path).num_frames
        span = VideoSpan(path=str(path), first_frame=0, num_frames=count)
        camera = Camera(name="ego", frames=span, t_ns=instants_ns(count, RATE_HZ))
        return Episode(ref=ref, embodiment="human_video", rate_hz=RATE_HZ, cameras=(camera,))


def written(source: str, root: Path, seconds: float) -> Path:
    """One recording of `seconds` at 1920 x 1080, 30 Hz, as both sources have them."""
    scene = HandScene(duration_s=seconds, width=1920, height=1080, focal_px=1680.0)
    if source == "egodex":
        egodex.write_episode(root / "part1/task/0", scene)
    else:
        taco_sequence.write_sequence(root, "(stir, spoon, bowl)/20230917_004", scene)
    # Over the drawn scene, which decodes several times faster than anything a camera records: texture with sensor noise.
    video = next(root.rglob("*.mp4"))
    write_source(video, scene.width, scene.height, probe_video(video).num_frames)
    return root


def timed(ref: EpisodeRef, adapter: str, staging: Path, assets: Assets) -> float:
    """Seconds of the whole worker on one episode."""
    work = Work(ref=ref, adapter=adapter, recipe=Recipe(), staging=str(staging), assets=assets)
    started = time.perf_counter()
    outcome = process(work, LocalStorage())
    elapsed_s = time.perf_counter() - started
    if outcome.state is not State.STAGED:
        raise typer.BadParameter(f"{adapter}: {outcome.message}")
    return elapsed_s


def main(
    as_json: Annotated[bool, typer.Option("--json")] = False,
    seconds: Annotated[float, typer.Option(help="Length of each recording.")] = 20.0,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
) -> None:
    """Print throughput with hands over throughput without, for a source of keypoints and one of MANO parameters."""
    measured_on = result.machine()
    out: dict[str, object] = {"rounds": rounds, "seconds": seconds}
    with tempfile.TemporaryDirectory() as folder:
        assets = Assets(mano_dir=str(mano_model.write(Path(folder) / "mano")))
        for source in SOURCES:
            root = written(source, Path(folder) / source, seconds)
            adapter = adapter_for(source)
            (ref,) = adapter.discover(root, adapter.survey(root, {}))
            (video,) = VideoOnly().discover(root, VideoOnly().survey(root, {}))
            ratios, with_s, without_s = [], [], []
            for turn in range(rounds + 1):
                staging = Path(folder) / f"{source}{turn}"
                a = timed(video, "benchmarks.hands:VideoOnly", staging / "without", assets)
                b = timed(ref, source, staging / "with", assets)
                if turn:  # the first warms up: imports, caches, the model
                    ratios.append(a / b)
                    without_s.append(a)
                    with_s.append(b)
            out[f"hands_throughput_ratio_{source}"] = round(median(ratios), 3)
            out[f"with_hands_s_{source}"] = round(median(with_s), 3)
            out[f"without_hands_s_{source}"] = round(median(without_s), 3)
    if as_json:
        sys.stdout.write(result.as_json("hands", measured_on, out) + "\n")
    else:
        for key, value in out.items():
            typer.echo(f"{key}: {value}")


if __name__ == "__main__":
    typer.run(main)
