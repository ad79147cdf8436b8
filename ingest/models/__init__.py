"""Wrappers of models whose weights are the user's: image encoders, VLMs, MANO, the hand detector. The only room here that may import torch."""

__all__ = [
    "clip_file",
    "encoder",
    "encoder_weights",
    "encoders",
    "hand_landmarker",
    "hand_landmarker_file",
    "mano",
    "text_feature_file",
    "token_storage",
    "vlm",
    "wan_encoders",
]
