"""From an episode as its source has it to the canonical one: time grid, frames, hands, state and action vectors.

Pure functions of arrays. No file is read except a robot's URDF and camera poses, and nothing is written."""

__all__ = [
    "action_vector",
    "camera_poses",
    "camera_presence",
    "channel_account",
    "forward_kinematics",
    "hand_model",
    "hand_validity",
    "hands",
    "joint_poses",
    "resample",
    "segment",
    "time_grid",
]
