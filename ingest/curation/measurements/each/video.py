"""What is wrong with the pictures: black, dark, burnt out, flat, blurred, standing still, cut.

Levels: black, mean luma below 10 (quality_signals.md §2); dark, below 50 and blurred, variance of the Laplacian below 20
(score_lerobot_episodes' darkness, Data_Filter: quality_signals.md §4, hoi_filter.md §3); burnt out, a quarter of the pixels at luma
250 or more; flat, luma deviation below 5 (both ours). Of several cameras the worst counts, and `worst_camera` says which.

Frozen: frozen.py, which needs evidence beyond a picture that stands still.

Cut: PySceneDetect's AdaptiveDetector (3 times the mean of the two steps before and after, at least 15; docs of scenedetect.com),
on luma thumbnails, and the two pictures correlate by less than 0.5 (ours): a hand that rushes past the camera is no cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ingest.curation.measurements.each.frozen import Frozen, frozen_runs
from ingest.curation.measurements.pictures import ImageFacts
from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView, Mask
from ingest.transforms.resample import runs
from schemas.measurement import Measurement

BLACK_LUMA, DARK_LUMA, FLAT_LUMA, BLURRED = 10.0, 50.0, 5.0, 20.0
BURNT_SHARE = 0.25
CUT_RATIO, CUT_LUMA, CUT_CORRELATION = 3.0, 15.0, 0.5


SOURCE_LUMA = "largest difference between source images in a frozen interval; 0 means bit-equal"


def _output(name: str, about: str, unit: str = "share", *, interval: bool = False) -> OutputField:
    return OutputField(name=name, unit=unit, about=about, is_interval=interval)


OUTPUTS = {
    output.name: output
    for output in (
        _output("black_share", "images with a mean luma below 10, worst camera"),
        _output("dark_share", "images with a mean luma below 50, worst camera"),
        _output("overexposed_share", "images with a quarter of the area overexposed, worst camera"),
        _output(
            "low_contrast_share", "images with a luma standard deviation below 5, worst camera"
        ),
        _output("blurred_share", "images with a Laplacian variance below 20, worst camera"),
        _output("luma_p10", "10th percentile of the mean luma, lowest camera", "luma"),
        _output(
            "contrast_p10", "10th percentile of the luma standard deviation, lowest camera", "luma"
        ),
        _output(
            "sharpness_p10", "10th percentile of the Laplacian variance, lowest camera", "luma2"
        ),
        _output("sharpness_p50", "median of the Laplacian variance, lowest camera", "luma2"),
        _output("repeated_picture_share", "steps without a visible change, worst camera"),
        _output("frozen_share", "timesteps in a frozen interval of 0.5 s or more, worst camera"),
        _output(
            "frozen_video", "every camera repeats its image while an arm moves", "s", interval=True
        ),
        _output(
            "frozen_camera",
            "at least one camera repeats its image while an arm moves",
            "s",
            interval=True,
        ),
        _output("frozen_source_luma", SOURCE_LUMA, "luma", interval=True),
        _output("scene_cuts", "number of cuts in any camera", "count"),
        _output("scene_cut", "first timestep of another scene, mean change", "luma", interval=True),
        _output("unusable_share", "images that are black, overexposed or frozen, worst camera"),
        _output("unusable_share.best", "the same for the best camera"),
        _output("worst_camera", "index of that camera in the episode", "index"),
    )
}


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """Shares over the pictures of the worst camera, percentiles of the worst camera, intervals of any."""
    cameras = view.pictures
    if not cameras:
        return
    runs_by_camera = {name: frozen_runs(name, seen, view) for name, seen in cameras.items()}
    frozen = {name: _mask(runs_, view.length) for name, runs_ in runs_by_camera.items()}
    yield from _levels(cameras)
    yield from _standing(cameras, frozen, view)
    yield from _evidence(runs_by_camera)
    yield from _cuts(cameras)
    unusable = {
        name: float((frozen[name] | (seen.mean < BLACK_LUMA) | (seen.bright > BURNT_SHARE)).mean())
        for name, seen in cameras.items()
    }
    order = [camera["name"] for camera in view.row["cameras"]]
    worst = max(unusable, key=lambda name: unusable[name])
    yield OUTPUTS["unusable_share"].row(unusable[worst], view.length)
    yield OUTPUTS["unusable_share.best"].row(min(unusable.values()), view.length)
    yield OUTPUTS["worst_camera"].row(float(order.index(worst)), view.length)


def _levels(cameras: Mapping[str, ImageFacts]) -> Iterator[Measurement]:
    every = list(cameras.values())
    length = len(every[0].mean)
    shares = {
        "black_share": [seen.mean < BLACK_LUMA for seen in every],
        "dark_share": [seen.mean < DARK_LUMA for seen in every],
        "overexposed_share": [seen.bright > BURNT_SHARE for seen in every],
        "low_contrast_share": [seen.contrast < FLAT_LUMA for seen in every],
    }
    for name, masks in shares.items():
        yield OUTPUTS[name].row(max(mask.mean() for mask in masks), length)
    lowest = {"luma_p10": [s.mean for s in every], "contrast_p10": [s.contrast for s in every]}
    for name, values in lowest.items():
        low = min(float(np.percentile(value, 10)) for value in values)
        yield OUTPUTS[name].row(low, length)
    lit = [seen.sharpness[seen.mean >= BLACK_LUMA] for seen in every]  # black is not blurred
    lit = [sharpness for sharpness in lit if len(sharpness)]
    if lit:
        samples = min(len(sharpness) for sharpness in lit)
        blurred = max(float((sharpness < BLURRED).mean()) for sharpness in lit)
        yield OUTPUTS["blurred_share"].row(blurred, samples)
        for percent in (10, 50):
            low = min(float(np.percentile(sharpness, percent)) for sharpness in lit)
            yield OUTPUTS[f"sharpness_p{percent}"].row(low, samples)


def _standing(
    cameras: Mapping[str, ImageFacts], frozen: Mapping[str, Mask], view: EpisodeView
) -> Iterator[Measurement]:
    if view.length < 2:
        return
    repeated = [float(s.repeated.mean()) for s in cameras.values()]
    yield OUTPUTS["repeated_picture_share"].row(max(repeated), view.length - 1)
    worst = max(float(mask.mean()) for mask in frozen.values())
    yield OUTPUTS["frozen_share"].row(worst, view.length)
    everywhere = np.logical_and.reduce(list(frozen.values()))
    anywhere = np.logical_or.reduce(list(frozen.values()))
    for name, mask in (("frozen_video", everywhere), ("frozen_camera", anywhere)):
        for start, end in runs(mask):
            yield OUTPUTS[name].row((end - start) / view.rate_hz, end - start, (start, end))


def _mask(frozen: Sequence[Frozen], length: int) -> Mask:
    out = np.zeros(length, dtype=bool)
    for run in frozen:
        out[run.start : run.end] = True
    return out


def _evidence(runs_by_camera: Mapping[str, Sequence[Frozen]]) -> Iterator[Measurement]:
    """How alike the source's pictures are in each frozen run, where ingestion compared them; of several cameras the least alike."""
    by_span: dict[tuple[int, int], float] = {}
    for run in (run for of_camera in runs_by_camera.values() for run in of_camera):
        if run.source_luma is not None:
            span = (run.start, run.end)
            by_span[span] = max(by_span.get(span, 0.0), run.source_luma)
    for span, luma in sorted(by_span.items()):
        yield OUTPUTS["frozen_source_luma"].row(luma, span[1] - span[0], span)


def _cuts(cameras: Mapping[str, ImageFacts]) -> Iterator[Measurement]:
    strengths: dict[int, float] = {}
    length = 0
    for seen in cameras.values():
        length = len(seen.mean)
        for step in _cut_steps(seen):
            strengths[step] = max(strengths.get(step, 0.0), float(seen.change[step]))
    if length < 2:
        return
    yield OUTPUTS["scene_cuts"].row(float(len(strengths)), length - 1)
    for step, strength in sorted(strengths.items()):
        yield OUTPUTS["scene_cut"].row(strength, 1, (step + 1, step + 2))


def _cut_steps(seen: ImageFacts) -> list[int]:
    """Steps k -> k + 1 at which another scene begins."""
    change = seen.change
    candidates = np.flatnonzero(change >= CUT_LUMA)
    out = []
    for k in candidates.tolist():
        around = np.concatenate([change[max(0, k - 2) : k], change[k + 1 : k + 3]])
        is_peak = len(around) > 0 and change[k] >= CUT_RATIO * around.mean()
        if is_peak and _correlation(seen.thumbs[k], seen.thumbs[k + 1]) < CUT_CORRELATION:
            out.append(k)
    return out


def _correlation(before: np.ndarray, after: np.ndarray) -> float:
    a = before.astype(np.float64) - before.mean()
    b = after.astype(np.float64) - after.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale else 0.0


MEASURE = Measure(
    name="video", version=2, needs_video=True, outputs=tuple(OUTPUTS.values()), compute=compute
)
