"""What the attributes of a robomimic or LIBERO file say about all its demonstrations: robots, controller, rate, language.

    data@env_args       JSON {env_name, env_kwargs: {robots, controller_configs, control_freq, ...}}   both
    data@problem_info   JSON {language_instruction}         LIBERO as published
    data@macros_image_convention   "opengl" or "opencv"     LIBERO as published
Sources: `ARISE-Initiative/robomimic:docs/datasets/overview.md`, `Lifelong-Robot-Learning/LIBERO:scripts/create_dataset.py`.
A LIBERO file that was rendered again (256 x 256, idle actions removed) has none of these: then its name is the task.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from adapters.containers.hdf5 import Hdf5File
from schemas.errors import Code, SourceError
from schemas.invalid import reason
from schemas.json_text import parse_json
from schemas.rate import rate_from

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
