"""What a robomimic or LIBERO file says about all its demonstrations, and the facts about their conventions.

What the attributes of a robomimic or LIBERO file say about all its demonstrations: robots, controller, rate, language.

    data@env_args       JSON {env_name, env_kwargs: {robots, controller_configs, control_freq, ...}}   both
    data@problem_info   JSON {language_instruction}         LIBERO as published
    data@macros_image_convention   "opengl" or "opencv"     LIBERO as published
Sources: `ARISE-Initiative/robomimic:docs/datasets/overview.md`, `Lifelong-Robot-Learning/LIBERO:scripts/create_dataset.py`.
A LIBERO file that was rendered again (256 x 256, idle actions removed) has none of these: then its name is the task.

How sure each convention of a robosuite demonstration is, and whether it succeeded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from adapters.containers.hdf5 import Hdf5File
from adapters.containers.safe_path import inside
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.invalid import reason
from schemas.json_text import parse_json
from schemas.rate import rate_from
from schemas.source_split import strictest

# -- environment ---------------------------------------------------------------------------------------------------

PANDAS = ("Panda", "MountedPanda", "OnTheGroundPanda")
_T = TypeVar("_T", bound="_Checked")
_SCENE = re.compile(r"^[A-Z_]+_SCENE[0-9]+_")


class _Checked(BaseModel):
    """Fields we name are checked; the many that we do not are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class _Kwargs(_Checked):
    robots: str | tuple[str, ...] = ()
    control_freq: float | None = Field(default=None, gt=0)
    controller_configs: Any = None
    reward_shaping: bool = False


class _EnvArgs(_Checked):
    env_name: str = ""
    env_version: str | None = None
    env_kwargs: _Kwargs = _Kwargs()


class _ProblemInfo(_Checked):
    language_instruction: str | tuple[str, ...] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """One file's world. `is_libero_original`: published by LIBERO, so its rows were recorded AFTER the action."""

    name: str
    version: str
    robots: tuple[str, ...]
    controller: str
    rate_hz: Fraction
    is_rate_stated: bool
    has_shaped_reward: bool
    is_libero: bool
    is_libero_original: bool
    image_convention: str  # opengl | opencv | "" when nothing is said
    language: str

    @property
    def is_panda(self) -> bool:
        return bool(self.robots) and set(self.robots) <= set(PANDAS)


def read_environment(file: Hdf5File, *, is_libero: bool) -> Environment:
    """Raises SourceError BAD_ANNOTATION when an attribute is there but is not what it should be."""
    args = _parsed(file, "env_args", _EnvArgs)
    kwargs = args.env_kwargs
    robots = (kwargs.robots,) if isinstance(kwargs.robots, str) else kwargs.robots
    config = kwargs.controller_configs
    config = config[0] if isinstance(config, list) and config else config
    return Environment(
        name=args.env_name,
        version=args.env_version or "not stated",
        robots=robots or (("Panda",) if is_libero else ()),
        controller=str(config.get("type", "")) if isinstance(config, dict) else "",
        rate_hz=rate_from(kwargs.control_freq or 20),
        is_rate_stated=kwargs.control_freq is not None,
        has_shaped_reward=kwargs.reward_shaping,
        is_libero=is_libero,
        is_libero_original=is_libero and file.has_attribute("data", "problem_info"),
        image_convention=_text(file, "macros_image_convention"),
        language=_language(file, args.env_name, is_libero=is_libero),
    )


def _language(file: Hdf5File, env_name: str, *, is_libero: bool) -> str:
    if not is_libero:
        return env_name
    language = _parsed(file, "problem_info", _ProblemInfo).language_instruction
    text = language if isinstance(language, str) else " ".join(language)
    if text.strip(' "'):
        return text.strip(' "')
    name = file.path.stem.removesuffix("_demo")
    return _SCENE.sub("", name).replace("_", " ").strip()


def _text(file: Hdf5File, name: str) -> str:
    return str(file.attribute("data", name)) if file.has_attribute("data", name) else ""


def _parsed(file: Hdf5File, name: str, kind: type[_T]) -> _T:
    text = _text(file, name)
    where = f"{file.where}:data@{name}"
    try:
        return kind.model_validate(parse_json(text, allow_nan=True)) if text else kind()
    except ValueError as error:
        raise SourceError(Code.BAD_ANNOTATION, reason(error), where=where) from error


# -- facts ---------------------------------------------------------------------------------------------------------

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
