"""The whole ingest beside the bare libav loop, for sources of several codecs; see `benchmarks.ingest`.

    python -m benchmarks.codecs [--json] [--quick]

The bare loop decodes every picture of the source. Ingest leaves out packets that no timestep depends on, where the codec says which these are.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import result
from benchmarks.ingest import Bench, Case, Options, arguments, measure, quick

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "bare_fps_*": "Frames a second of the smallest PyAV loop: decode, scale every third frame, encode.",
    "ours_fps_*": "Frames a second of the whole ingest of the same file.",
    "ours_over_bare_time_ratio_*": "Time of `ours` over `bare`, median of the rounds. Aim: at most 1.05, and 0.85 for H.264 with B pictures.",
    "ours_over_bare_cpu_ratio_*": "The same with CPU time.",
    "rounds": "Rounds, of which medians are reported.",
}

VGA: dict[str, int] = {"width": 640, "height": 480, "short_side_px": 256, "num_source_frames": 450}
HD: dict[str, int] = {"width": 1920, "height": 1080, "short_side_px": 256, "num_source_frames": 150}
HEVC: Options = (("preset", "fast"), ("x265-params", "log-level=none:pools=1"))
VP9: Options = (("deadline", "realtime"), ("cpu-used", "8"), ("g", "30"), ("b", "4000000"))
CASES = (
    Case(name="h264_b_640x480", **VGA, options=(("preset", "medium"),)),
    Case(name="h264_b_1080p", **HD, options=(("preset", "medium"),)),
    Case(name="h264_no_b_640x480", **VGA, options=(("preset", "medium"), ("g", "30"), ("bf", "0"))),
    Case(name="hevc_640x480", **VGA, codec="libx265", options=HEVC),
    Case(name="hevc_1080p", **HD, codec="libx265", options=HEVC),
    Case(name="av1_g2_640x480", **VGA, codec="libsvtav1", options=(("preset", "10"), ("crf", "30"), ("g", "2"))),
    Case(name="av1_640x480", **VGA, codec="libsvtav1", options=(("preset", "10"), ("crf", "30"))),
    Case(name="vp9_640x480", **VGA, codec="libvpx-vp9", options=VP9),
    Case(name="mpeg4_640x480", **VGA, codec="mpeg4", options=(("g", "12"), ("bf", "2"), ("b", "4000000"))),
    Case(name="mjpeg_640x480", **VGA, codec="mjpeg", options=(("qmin", "3"), ("qmax", "3")), suffix=".avi"),
)  # fmt: skip


def main() -> None:
    """Measure every case with one worker and print one object."""
    args = arguments(__doc__)
    num_rounds = 1 if args.quick else 3
    measured_on = result.machine()
    figures: dict[str, Any] = {"rounds": num_rounds}
    with tempfile.TemporaryDirectory(prefix="eicorpus-bench-") as folder:
        bench = Bench(Path(folder))
        for case in map(quick, CASES) if args.quick else CASES:
            values = measure(bench, case, 1, num_rounds)
            figures |= {f"{key}_{case.name}": value for key, value in values.items()}
    if args.json:
        print(result.as_json("codecs", measured_on, figures))
    else:
        print("\n".join(f"{key:48} {value}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
