"""Pictures of a camera: opened, decoded once, scaled, encoded on the canonical time grid, or copied where they already are.

`camera_video.write_video` is what the pipeline calls. Every video is opened with the options of `schemas/av_options.py`."""

__all__ = [
    "camera_video",
    "cut",
    "encode",
    "h264_profile",
    "join",
    "scale",
    "source",
    "stats",
    "timestep_pictures",
]
