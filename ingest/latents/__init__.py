"""Features computed once and read by training: image latents of every camera, and text features of every instruction."""

__all__ = [
    "backends",
    "cost_estimate",
    "encode_file",
    "frame_grid",
    "plan",
    "run",
    "text_encoding",
    "text_plan",
    "token_file",
]
