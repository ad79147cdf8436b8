"""How sure each convention of a robosuite demonstration is, and whether it succeeded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adapters.containers.hdf5 import Hdf5File
from adapters.containers.safe_path import inside
from adapters.robomimic.environment import Environment
from schemas.errors import SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.source_split import strictest

REPLAY = "replayed in robosuite 1.4.1"
ROBOMIMIC = "ARISE-Initiative/robomimic:docs/datasets/overview.md, robomimic/envs/env_robosuite.py"
LIBERO = "Lifelong-Robot-Learning/LIBERO:scripts/create_dataset.py"
MAX_KEYS = 200
MAX_MASK_BYTES = 16 << 20
SPLIT_KEYS = {
    "train": "train",
    "valid": "val",
    "test": "test",
}  # "20_percent_train" is a part of train


def facts_of(file: Hdf5File, demo: str, env: Environment, num_robots: int) -> list[Fact]:
    """The facts of one demonstration; what touches actions is marked so."""
    code = LIBERO if env.is_libero else ROBOMIMIC
    rotation = "rotation vector" if env.is_libero else "quat_xyzw"
    frame = "position of the grip site, rotation of body right_hand, robosuite world"
    how = Certainty.VERIFIED if env.is_panda else Certainty.UNVERIFIED
    rate = Certainty.DOCUMENTED if env.is_rate_stated else Certainty.CODE
    kind = f"{env.controller or 'controller not stated'}; kept raw, the achieved pose is the action"
    facts = [
        fact(
            "rate", f"{env.rate_hz} Hz", rate, "env_args control_freq, default 20", for_actions=True
        ),
        fact("eef_rotation_form", rotation, Certainty.CODE, code, for_actions=True),
        fact("eef_frame", frame, how, REPLAY, for_actions=True),
        fact("action_kind", kind, Certainty.DOCUMENTED, f"env_args, robosuite {env.version}"),
        fact("success_rule", "some reward is positive", Certainty.INFERRED, REPLAY),
        _timing(env),
    ]
    if env.is_panda:
        scale = "(qpos0 - qpos1) / 0.08 m; command -1 opens, +1 closes, 0 leaves it"
        facts.append(fact("gripper_polarity", scale, Certainty.VERIFIED, REPLAY, for_actions=True))
    if num_robots == 2:
        order = "robot0 is left, robot1 right, by their order"
        facts.append(fact("sides", order, Certainty.INFERRED, "two robots face each other"))
    if keys := _filter_keys(file, demo):
        facts.append(fact("filter_keys", ",".join(keys), Certainty.DOCUMENTED, ROBOMIMIC))
    return facts


def source_splits(root: Path, name: str) -> dict[str, str]:
    """Demonstration -> split, by mask/train, mask/valid and mask/test; the strictest where several hold it.

    A mask that cannot be read publishes nothing here; `load` fails on the same file and says why.
    """
    splits: dict[str, str] = {}
    try:
        with Hdf5File(inside(root, name), where=name) as file:
            for key in sorted(SPLIT_KEYS.keys() & set(file.children("mask"))):
                for demo in file.texts(f"mask/{key}", max_bytes=MAX_MASK_BYTES):
                    splits[demo] = strictest((splits.get(demo, ""), SPLIT_KEYS[key]))
    except SourceError:
        return {}
    return splits


def success_of(file: Hdf5File, group: str, env: Environment) -> bool | None:
    """Whether the sparse reward was ever positive; None for shaped rewards or none at all."""
    key = f"{group}/rewards"
    if env.has_shaped_reward or key not in file:
        return None
    return bool(np.any(file.array(key) > 0))


def _timing(env: Environment) -> Fact:
    if env.is_libero_original:
        value, how, source = "rows were seen after their action", Certainty.CODE, LIBERO
    elif env.is_libero:
        value = "rows were seen before their action"
        how, source = Certainty.UNVERIFIED, "rendered again by an unknown script"
    else:
        value, how, source = "rows were seen before their action", Certainty.VERIFIED, REPLAY
    return fact("row_timing", value, how, source, for_actions=True)


def _filter_keys(file: Hdf5File, demo: str) -> list[str]:
    """Names of the mask/ lists that hold this demonstration: splits, and operator skill in the MH sets."""
    keys = file.children("mask")[:MAX_KEYS]
    return [key for key in keys if demo in file.texts(f"mask/{key}", max_bytes=MAX_MASK_BYTES)]
