"""The other end of `serve-policy`: a policy behind a WebSocket, asked as if it were in this process."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np
from websockets.exceptions import InvalidHandshake, InvalidURI, WebSocketException
from websockets.sync.client import connect

from schemas.errors import ConfigError, TransientError, system_error_text
from training.policy.observation import ActionChunk, Observation
from training.rollout.action_names import spec_of_embodiment
from training.server.answers import checked_chunk, checked_facts
from training.server.messages import HISTORY, LATENTS, OBSERVATION, STATE, STORED
from training.server.wire import packed, unpacked

TIMEOUT_S = 120.0  # of one answer: a large network on a CPU takes its time
MAX_MESSAGE_BYTES = 32 << 20


class ServedPolicy:
    """Use as a context manager: it connects when it is entered.

    Raises:
        ConfigError: no such server, it refuses the key, or says no facts of a policy.
        TransientError: the connection broke, or no answer came in `TIMEOUT_S`.
    """

    def __init__(self, url: str, *, token: str | None = None) -> None:
        self.url = url
        self._headers = {} if token is None else {"Authorization": f"Api-Key {token}"}
        self._facts: dict[str, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            connecting = connect(
                self.url,
                additional_headers=self._headers,
                compression=None,
                max_size=MAX_MESSAGE_BYTES,
                open_timeout=TIMEOUT_S,
                proxy=None,
            )
            self._connection = self._stack.enter_context(connecting)
        except (OSError, InvalidHandshake, InvalidURI, ValueError) as error:  # a port of 99999
            problem = system_error_text(error, self.url) if isinstance(error, OSError) else error
            raise ConfigError(
                f"no policy answers: {problem}",
                remedy="start `eicorpus serve-policy`, and pass its address",
                where=f"--server {self.url}",
            ) from error
        try:
            self._facts = checked_facts(unpacked(self._received()), f"--server {self.url}")
        except (
            BaseException
        ):  # without this the connection stays: `with` leaves only what it entered
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def facts(self) -> dict[str, Any]:
        """As `Policy.facts`."""
        return self._facts

    def act(self, observation: Observation) -> ActionChunk:
        """As `Policy.act`; numbers travel as float32.

        Raises:
            ConfigError: the server refuses the observation, or answers no targets.
            TransientError: the connection broke.
        """
        try:
            self._connection.send(packed(message_of(observation)))
        except WebSocketException as error:
            raise self._broken(error) from error
        reply = self._received()
        if isinstance(reply, str):  # openpi's way to say no
            raise ConfigError(reply, where=f"--server {self.url}")
        spec = spec_of_embodiment(self._facts, observation.embodiment)
        return checked_chunk(unpacked(reply), spec, f"--server {self.url}")

    def _received(self) -> bytes | str:
        try:
            return self._connection.recv(timeout=TIMEOUT_S)
        except (WebSocketException, TimeoutError) as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> TransientError:
        return TransientError(
            f"no answer: {error!r}"[:200],
            remedy="check the server, then run the same command again",
            where=f"--server {self.url}",
        )


def message_of(observation: Observation) -> dict[str, Any]:
    """The flat map that `training.server.messages.observation_of` reads."""
    message: dict[str, Any] = {"prompt": observation.text, "embodiment": observation.embodiment}
    for camera, pictures in observation.pictures.items():
        message[f"{OBSERVATION}images/{camera}"] = np.asarray(pictures)
    for camera, values in observation.latents.items():
        message[f"{OBSERVATION}{LATENTS}{camera}"] = np.asarray(values)
    for name, vector in ((HISTORY, observation.history), (STATE, observation.state)):
        if vector is not None:
            message[f"{OBSERVATION}{name}"] = np.asarray(vector, dtype=np.float64)
    if observation.is_stored:
        message[STORED] = True
    return message
