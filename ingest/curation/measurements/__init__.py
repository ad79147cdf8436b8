"""Numbers about every episode, computed once and stored in `measurements`: motion, video, text, hands, alignment.

`registry` lists them, `runner` computes and stores them, `each/` holds one module a measurement."""

__all__ = ["camera_track", "components", "each", "english", "registry", "runner", "view"]
