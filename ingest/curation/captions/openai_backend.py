"""Any server with OpenAI's chat completions (vLLM, SGLang, transformers serve): retries, structured output as far as it is understood.

Retry rules: captioning.md §2, and nvidia-cosmos/cosmos-curate: pipelines/common/api_caption_utils.py (no retry on 400, 401, 404; DOCUMENTED
there). `response_format` json_schema, then json_object, then none: servers that do not know one answer 400 or 422 (captioning.md §1).
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from typing import Any

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_any,
    stop_when_event_set,
    wait_random_exponential,
)

from ingest.curation.captions.answers import one_line_of
from ingest.curation.captions.chat import ChatRequest, Completion, Finish, TransportFailed, Turn
from ingest.curation.captions.endpoint import Endpoint, HttpAnswer, NoAnswer, Stop, post_json
from ingest.curation.captions.protocol import EndpointDown
from ingest.curation.captions.settings import EndpointSettings
from schemas.errors import ConfigError
from schemas.json_text import parse_json

FORMATS = ("json_schema", "json_object", "none")
NOT_UNDERSTOOD = (400, 422)
FOR_GOOD = (301, 302, 303, 307, 308, 401, 403, 404, 405)  # the same for every request
RETRY_AFTER_MAX_S = 60.0
_FINISH = {"stop": Finish.STOP, "length": Finish.LENGTH, "content_filter": Finish.BLOCKED}


class _Again(Exception):
    """Worth another try; the server may have said when."""

    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


class Breaker:
    """Counts failures in a row; at `limit` it stays open."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._failures, self._last = 0, ""
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raises EndpointDown when open."""
        with self._lock:
            if self._failures >= self.limit:
                raise EndpointDown(
                    f"{self._failures} requests in a row failed, the last with: {self._last[:200]}; finished captions are stored",
                    remedy="run the same command again when the server responds",
                    where="endpoint",
                )

    def success(self) -> None:
        with self._lock:
            if self._failures < self.limit:
                self._failures = 0

    def failure(self, why: str) -> None:
        with self._lock:
            self._failures, self._last = self._failures + 1, why


class OpenAiChat:
    """Chat completions. Safe for threads."""

    id = "openai"

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        settings: EndpointSettings,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        """`model` is its name at the server; `settings.revision`, if said, tells apart what the server had under that name."""
        self.endpoint, self.settings, self._served = endpoint, settings, model
        self.model = f"{model}@{settings.revision}" if settings.revision else model
        self._stop = Stop()
        self.breaker = Breaker(settings.failures_to_stop)
        self._sleep = sleep or self._wait_or_stop
        self._format = 0  # index of the best of FORMATS that the server was seen to take

    def stop(self) -> None:
        """Every request fails from here on, those on their way too."""
        self._stop.ask()

    def _wait_or_stop(self, seconds: float) -> None:
        self._stop.asked.wait(seconds)

    def complete(self, request: ChatRequest) -> Completion:
        self.breaker.check()
        retrying = Retrying(
            retry=retry_if_exception_type(_Again),
            stop=stop_any(
                stop_after_attempt(self.settings.tries), stop_when_event_set(self._stop.asked)
            ),
            wait=self._wait,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            completion = retrying(self._once, request)
        except _Again as error:
            self.breaker.failure(str(error))
            raise TransportFailed(str(error)) from error
        except TransportFailed as error:
            self.breaker.failure(str(error))
            raise
        self.breaker.success()
        return completion

    def _wait(self, state: RetryCallState) -> float:
        """Exponential with full jitter; longer when the server asks for it, within reason."""
        jitter = wait_random_exponential(multiplier=1, max=self.settings.wait_max_s)(state)
        error = state.outcome.exception() if state.outcome else None
        asked_s = error.after_s if isinstance(error, _Again) else None
        return max(jitter, min(asked_s or 0.0, RETRY_AFTER_MAX_S))

    def _once(self, request: ChatRequest) -> Completion:
        """One try, in the best format that the server takes."""
        level = self._format
        answer = self._post(request, FORMATS[level])
        while answer.status in NOT_UNDERSTOOD and level + 1 < len(FORMATS):
            level += 1
            answer = self._post(request, FORMATS[level])
        if answer.status == 200:  # else the refusal was about this request, not about the format
            self._format = max(self._format, level)
        return self._completion(answer)

    def _post(self, request: ChatRequest, response_format: str) -> HttpAnswer:
        body: dict[str, Any] = {
            "model": self._served,
            "messages": [_message(turn) for turn in request.turns],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
            **self.settings.extra_body,
        }
        if response_format == "json_schema":
            named = {"name": request.schema_name, "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        elif response_format == "json_object":
            body["response_format"] = {"type": "json_object"}
        try:
            return post_json(
                self.endpoint,
                "/chat/completions",
                body,
                timeout_s=self.settings.timeout_s,
                stop=self._stop,
            )
        except NoAnswer as error:
            raise _Again(str(error)) from error

    def _completion(self, answer: HttpAnswer) -> Completion:
        # scrubbed before anything is cut: the cut may go through the key
        body = self.endpoint.scrubbed(answer.body.decode(errors="replace"))
        if answer.status == 200:
            return _completion_in(body)
        problem = f"HTTP {answer.status}: {one_line_of(body[:300])[:200]}"
        if answer.status in FOR_GOOD:
            hint = "check the URL (it must end in /v1), the model name and the API key"
            raise ConfigError(problem, remedy=hint, where=repr(self.endpoint))
        if answer.status in (408, 409, 425, 429) or answer.status >= 500:
            raise _Again(problem, answer.retry_after_s)
        raise TransportFailed(problem)


def _completion_in(body: str) -> Completion:
    """The first choice of a chat completion. A 200 that is none may come from a proxy on its way: worth another try."""
    try:
        choice = parse_json(body)["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
        refusal = message.get("refusal") or ""
        finish = _FINISH.get(choice.get("finish_reason") or "stop", Finish.STOP)
        if not isinstance(text, str) or not isinstance(refusal, str):
            raise TypeError("the content is not text")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _Again(f"not a chat completion ({type(error).__name__}: {error})"[:200]) from error
    if refusal:
        return Completion(text=refusal, finish=Finish.BLOCKED)
    return Completion(text=text, finish=finish)


def _message(turn: Turn) -> dict[str, Any]:
    if turn.jpeg is None:
        return {"role": turn.role, "content": turn.text}
    url = f"data:image/jpeg;base64,{base64.b64encode(turn.jpeg).decode()}"
    return {
        "role": turn.role,
        "content": [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": turn.text},
        ],
    }
