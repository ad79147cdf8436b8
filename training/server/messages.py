"""From a message to an observation, and from a chunk to an answer: openpi's flat maps, and starVLA's envelope around the same.

openpi (`src/openpi/serving/websocket_policy_server.py`): on connect the server sends its metadata; a request is a flat map with names
like `observation/image` and `prompt`, the answer a map with `actions` and `server_timing`; an error is a text frame. starVLA
(`deployment/model_server/tools/websocket_policy_server.py`): {"type": "ping" | "infer", "request_id", ...} and {"status", "ok", "type",
"request_id", "data" | "error"}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from schemas.errors import ConfigError
from training.policy.observation import ActionChunk, Observation

OBSERVATION, LATENTS, HISTORY, STATE = "observation/", "latents/", "history", "state"
STORED = "is_stored"  # see `Observation`
INFER = ("infer", "predict_action")
_ENVELOPE = ("type", "request_id", "payload")
MAX_PROMPT = 10_000  # letters: whoever reads it cuts it at some hundred tokens
_WHERE = "message"


def is_enveloped(message: Mapping[str, Any]) -> bool:
    """Whether it is one of starVLA's."""
    return "type" in message


def kind_of(message: Mapping[str, Any]) -> str:
    """What is asked: openpi's flat maps ask to infer."""
    return str(message.get("type", INFER[0]))


def observation_of(message: Mapping[str, Any], embodiments: tuple[str, ...]) -> Observation:
    """The observation of a message.

    Raises:
        ConfigError: a name that is not known, or a value that is not what its name says.
    """
    content = _content(message)
    text = content.pop("prompt", "")
    if not isinstance(text, str) or len(text) > MAX_PROMPT:
        problem = f"{len(text)} letters" if isinstance(text, str) else f"a {type(text).__name__}"
        expected = f"expected text of at most {MAX_PROMPT} characters"
        raise ConfigError(f"prompt is {problem}; {expected}", where=_WHERE)
    body = content.pop("embodiment", embodiments[0] if len(embodiments) == 1 else None)
    if not isinstance(body, str) or body not in embodiments:
        problem = f"embodiment {body!r:.80}; expected one of {', '.join(embodiments)}"
        raise ConfigError(problem, where=_WHERE)
    is_stored = content.pop(STORED, False)
    if not isinstance(is_stored, bool):
        problem = f"{STORED} is a {type(is_stored).__name__}; expected true or false"
        raise ConfigError(problem, where=_WHERE)
    pictures, latents = {}, {}
    vectors: dict[str, Any] = {}
    for name, value in content.items():
        key = name.removeprefix(OBSERVATION)
        if key == name or not isinstance(value, np.ndarray):
            raise ConfigError(f"{name!r:.80} is not an expected field; {_known()}", where=_WHERE)
        if key in (HISTORY, STATE):
            vectors[key] = _numbers(name, value)
        elif key.startswith(LATENTS):
            with np.errstate(over="ignore"):  # what becomes infinite, the policy refuses
                latents[key.removeprefix(LATENTS)] = _numbers(name, value).astype(np.float32)
        else:
            pictures[key.removeprefix("images/")] = _picture(name, value)
    return Observation(
        text=text,
        embodiment=body,
        pictures=pictures,
        latents=latents,
        history=vectors.get(HISTORY),
        state=vectors.get(STATE),
        is_stored=is_stored,
    )


def answer_of(chunk: ActionChunk) -> dict[str, Any]:
    """What travels back."""
    values = {} if chunk.plan_values is None else {"plan_values": chunk.plan_values}
    return {
        "actions": chunk.targets.astype(np.float32),
        "t_s": chunk.t_s.astype(np.float32),
        **values,
    }


def enveloped(request: Mapping[str, Any], kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """starVLA's answer around what went well."""
    return {"status": "ok", "ok": True, "type": kind, "request_id": _id_of(request), **content}


def refused(request: Mapping[str, Any], error: str) -> dict[str, Any]:
    """starVLA's answer to what did not."""
    about = {"type": "inference_result", "request_id": _id_of(request)}
    return {"status": "error", "ok": False, **about, "error": {"message": error}}


def _id_of(request: Mapping[str, Any]) -> str | int:
    request_id = request.get("request_id", "default")
    return request_id if isinstance(request_id, str | int) else "default"


def _content(message: Mapping[str, Any]) -> dict[str, Any]:
    if not is_enveloped(message):
        return dict(message)
    payload = message.get("payload", {})
    if not isinstance(payload, dict) or not all(isinstance(key, str) for key in payload):
        problem = f"payload is a {type(payload).__name__}"
        raise ConfigError(f"{problem}; expected a map with string keys", where=_WHERE)
    return {k: v for k, v in message.items() if k not in _ENVELOPE} | payload


def _known() -> str:
    names = ("<camera>", f"{LATENTS}<camera>", HISTORY, STATE)
    known = ", ".join(OBSERVATION + name for name in names)
    return f"expected prompt, embodiment, and arrays {known}"


def _picture(name: str, value: np.ndarray[Any, Any]) -> Any:
    if value.dtype != np.uint8 or value.ndim not in (3, 4) or value.shape[-1] != 3:
        problem = f"{name:.80} is {value.dtype} {list(value.shape)}"
        raise ConfigError(
            f"{problem}; expected uint8 [height, width, 3] or [n, height, width, 3]", where=_WHERE
        )
    return value[None] if value.ndim == 3 else value


def _numbers(name: str, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if value.dtype.kind != "f" or not np.isfinite(value).all():
        problem = f"{name:.80} is {value.dtype} {list(value.shape)}"
        raise ConfigError(f"{problem}; expected finite floating-point numbers", where=_WHERE)
    return value
