"""Features computed once and read by training: image latents of every camera, and text features of every instruction."""

__all__ = [
    "arrays",
    "backends",
    "cost_estimate",
    "encode_file",
    "frame_grid",
    "plan",
    "resize",
    "run",
    "stale",
    "text_encoding",
    "text_plan",
]
