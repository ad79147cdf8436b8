"""Small videos of the scene for the sources of plain human video: the picture at PTS p is `scene.picture(p)`."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av

from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.scene import Scene

CODECS = {
    "h264": ("libx264", {"preset": "ultrafast", "g": "30"}),
    "hevc": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none:pools=1:keyint=30"}),
    "vp9": ("libvpx-vp9", {"crf": "30", "b": "0", "deadline": "realtime", "cpu-used": "8"}),
}


def write_scene(
    path: Path,
    scene: Scene | HandScene,
    *,
    duration_s: float | None = None,
    rate_hz: Fraction | int = 30,
    codec: str = "h264",
    start_s: float = 0.0,
) -> Path:
    """`duration_s` of the scene from its second `start_s`, shown from PTS 0 on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name, options = CODECS[codec]
    rate = Fraction(rate_hz)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(name, rate=rate, options=options)
        assert isinstance(stream, av.VideoStream)  # both codecs are of videos
        stream.width, stream.height = scene.width, scene.height
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for k in range(round((duration_s or scene.duration_s) * rate)):
            picture = scene.picture(start_s + float(k / rate))
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = k, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
