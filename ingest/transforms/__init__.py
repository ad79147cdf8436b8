"""From an episode as its source has it to the canonical one: time grid, frames, hands, state and action vectors.

Pure functions of arrays. No file is read except a robot's URDF and camera poses, and nothing is written."""

__all__ = [
    "action_vector",
    "camera_poses",
    "channel_account",
    "forward_kinematics",
    "hand_model",
    "hand_poses",
    "hand_validity",
    "hands",
    "resample",
    "time_grid",
]
