"""LingBot-VA's conversation on the same wire: reset, infer, compute_kv_cache (`wan_va/wan_va_server.py`, facts in the how-to).

| client says | server answers |
|---|---|
| {reset: true, prompt} | {} |
| {obs: {camera: [H, W, 3]}, prompt} | {action: [C, F, n]} |
| {obs: [frames], compute_kv_cache: true, imagine: false, state: [C, F, n]} | {} |

Every answer has `server_timing`. `embodiment` may stand beside `prompt`, where the policy knows several. Here an episode belongs to its
connection; there a server has one. A frame may hold latents [N, D] in place of a picture. A refusal is a text frame, as openpi's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError
from training.server.messages import MAX_PROMPT
from training.server.server import Reply, ServerSettings, WireServer
from training.server.wire import packed, unpacked

_WHERE = "message"
_KNOWN = ("reset", "prompt", "embodiment", "obs", "compute_kv_cache", "imagine", "state")
Arrays = dict[str, npt.NDArray[Any]]


class Talk(Protocol):
    """One connection's episode: `training.causal.policy.CausalConversation` is one. All raise ConfigError for what they cannot use."""

    def reset(self, text: str, embodiment: str) -> None: ...

    def infer(self, frame: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]: ...

    def observe(self, frames: list[Arrays], executed: npt.NDArray[Any]) -> None: ...


class ChunkServable(Protocol):
    """What is served: `training.causal.policy.CausalPolicy` is one."""

    embodiments: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """Sent to every client first."""
        ...

    def conversation(self) -> Talk: ...


class ChunkServer(WireServer):
    """Each connection has an episode of its own."""

    def __init__(
        self, policy: ChunkServable, settings: ServerSettings, *, monotonic_s: Callable[[], float]
    ) -> None:
        super().__init__(policy.facts, settings, monotonic_s=monotonic_s)
        self.policy = policy

    def reply_of_connection(self) -> Reply:
        return partial(self._reply, self.policy.conversation())

    async def _reply(
        self, talk: Talk, data: bytes | str, took_before_s: float | None
    ) -> bytes | str:
        try:
            work = self._work(talk, unpacked(data))
            answer, timing = await self.timed(work, took_before_s)
        except ConfigError as error:
            self.num_refused += 1
            return str(error)
        return packed({**answer, "server_timing": timing})

    def _work(self, talk: Talk, message: dict[str, Any]) -> Callable[[], dict[str, Any]]:
        """What a message asks for.

        Raises:
            ConfigError: it asks for nothing that there is.
        """
        if odd := sorted(message.keys() - set(_KNOWN)):
            problem = f"{odd[0]!r:.80} is not an expected field; expected {', '.join(_KNOWN)}"
            raise ConfigError(problem, where=_WHERE)
        if message.get("imagine"):
            raise ConfigError("imagine is not supported", remedy="send false", where=_WHERE)
        if message.get("reset"):
            text, embodiment = _prompt(message), self._embodiment(message)
            return partial(_nothing, partial(talk.reset, text, embodiment))
        if message.get("compute_kv_cache"):
            frames = message.get("obs")
            if not isinstance(frames, list):
                raise ConfigError("obs is no list of frames", where=_WHERE)
            state = message.get("state")
            if not isinstance(state, np.ndarray):
                raise ConfigError("state is no array of actions", where=_WHERE)
            seen = [_frame(each) for each in frames]
            return partial(_nothing, partial(talk.observe, seen, state))
        frame = _frame(message.get("obs"))

        def infer() -> dict[str, Any]:
            return {"action": talk.infer(frame)}

        return infer

    def _embodiment(self, message: dict[str, Any]) -> str:
        known = self.policy.embodiments
        name = message.get("embodiment", known[0] if len(known) == 1 else None)
        if not isinstance(name, str):
            problem = f"embodiment {name!r:.80}; expected one of {', '.join(known)}"
            raise ConfigError(problem, where=_WHERE)
        return name


def _nothing(work: Callable[[], None]) -> dict[str, Any]:
    work()
    return {}


def _prompt(message: dict[str, Any]) -> str:
    text = message.get("prompt", "")
    if not isinstance(text, str) or len(text) > MAX_PROMPT:
        problem = f"prompt is no text of at most {MAX_PROMPT} characters"
        raise ConfigError(problem, where=_WHERE)
    return text


def _frame(value: Any) -> Arrays:
    is_map = isinstance(value, dict) and bool(value)
    if not is_map or not all(isinstance(each, np.ndarray) for each in value.values()):
        raise ConfigError("a frame is no map of cameras and arrays", where=_WHERE)
    return dict(value)
