"""A backend out of anything that continues a chat: prompt, cache, one answer that may be twice as long, one correction, outcome."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal, Protocol

from ingest.curation.captions import prompts
from ingest.curation.captions.answers import (
    AnswerError,
    AnswerModel,
    Description,
    Instruction,
    Refusal,
    json_schema,
    one_line_of,
    parsed,
    plain_text,
    unmarked,
)
from ingest.curation.captions.cache import Cache, cache_key
from ingest.curation.captions.protocol import (
    CaptionOutcome,
    DescribeRequest,
    InstructRequest,
    Reply,
    Segment,
)
from ingest.curation.captions.settings import AskSettings
from ingest.curation.captions.sheet import Sheet
from schemas.json_text import parse_json

Pass = Literal["describe", "instruct"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message; `jpeg` is a picture that goes before its text."""

    role: Literal["system", "user", "assistant"]
    text: str
    jpeg: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """What a model is asked. `segment`, `which` and `sample` say what about; only a replay goes by them."""

    turns: tuple[Turn, ...]
    schema_name: str
    schema: Mapping[str, Any]
    max_tokens: int
    temperature: float
    seed: int
    segment: Segment
    which: Pass
    sample: int
    part: int = 0


class Finish(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    text: str
    finish: Finish = Finish.STOP


class TransportFailed(Exception):
    """No completion, after all tries: the message says why, without any key."""


class NothingRecorded(Exception):
    """A replay has no answer to this."""


class Chat(Protocol):
    """Something that continues a chat. `id` is the backend's name, `model` what answers, with its revision where it has one."""

    id: str
    model: str

    def complete(self, request: ChatRequest) -> Completion:
        """Continue.

        Raises:
            TransportFailed, NothingRecorded: no completion of this request.
            EndpointDown, ConfigError: nor of any other.
        """
        ...

    def stop(self) -> None:
        """The run was interrupted: stop waiting for a completion."""
        ...


class ChatBackend:
    """Captions by a chat. Safe for threads when the chat is."""

    needs_pictures = True
    prompt_version = prompts.VERSION

    def __init__(
        self,
        chat: Chat,
        settings: AskSettings,
        cache: Cache | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """`extra`: what else is sent to the model and decides its answers (`extra_body` of an endpoint)."""
        self.chat, self.settings, self.cache = chat, settings, cache
        self.id, self.model = chat.id, chat.model
        self.prompt_sha256 = prompts.digest()
        params = settings.model_dump() | ({"extra": dict(extra)} if extra else {})
        self.params_json = json.dumps(params, sort_keys=True)
        self._monotonic_s = monotonic_s

    def describe(self, request: DescribeRequest) -> Reply[Description]:
        sheet = request.sheet
        text = prompts.describe_text(request.segment.duration_s, sheet.times_s if sheet else ())
        asked = self._request(request.segment, "describe", text, sheet, Description, 0)
        asked = replace(asked, part=request.part)
        return self._ask(asked, sheet.sha256 if sheet else "", Description)

    def instruct(self, request: InstructRequest) -> Reply[Instruction]:
        """The pictures are not shown again, but they belong to the cache key: the description came from them."""
        assert request.description is not None
        segment = request.segment
        text = prompts.instruct_text(segment.duration_s, request.description, segment.texts)
        asked = self._request(segment, "instruct", text, None, Instruction, request.sample)
        return self._ask(asked, request.sheet_sha256, Instruction)

    def stop(self) -> None:
        self.chat.stop()

    def _request(
        self,
        segment: Segment,
        which: Pass,
        text: str,
        sheet: Sheet | None,
        model: type[Description] | type[Instruction],
        sample: int,
    ) -> ChatRequest:
        temperature = {
            "describe": self.settings.describe_temperature,
            "instruct": self.settings.instruct_temperature,
        }[which]
        return ChatRequest(
            turns=(
                Turn(role="system", text=prompts.SYSTEM),
                Turn(role="user", text=text, jpeg=sheet.jpeg if sheet else None),
            ),
            schema_name=model.__name__.lower(),
            schema=json_schema(model),
            max_tokens=self.settings.max_tokens,
            temperature=self.settings.sample_temperature if sample else temperature,
            seed=self.settings.seed + sample,
            segment=segment,
            which=which,
            sample=sample,
        )

    def _ask(
        self, request: ChatRequest, sheet_sha256: str, model: type[AnswerModel]
    ) -> Reply[AnswerModel]:
        key = self._key(request, sheet_sha256)
        if (kept := self._kept(key, model)) is not None:
            return Reply(outcome=CaptionOutcome.OK, value=kept, cache_key=key, was_cached=True)
        began_s = self._monotonic_s()
        try:
            reply = self._answered(request, model, key, sheet_sha256)
        except TransportFailed as error:
            reply = Reply(outcome=CaptionOutcome.TRANSPORT_ERROR, detail=one_line_of(str(error)))
        except NothingRecorded as error:
            reply = Reply(outcome=CaptionOutcome.SKIPPED, detail=one_line_of(str(error)))
        return replace(reply, cache_key=key, latency_s=self._monotonic_s() - began_s)

    def _answered(
        self, request: ChatRequest, model: type[AnswerModel], key: str, sheet_sha256: str
    ) -> Reply[AnswerModel]:
        """Ask; when what comes is no answer, say why and ask once more."""
        why = ""
        for _ in range(2):
            completion = self._whole(request)
            if completion.finish is Finish.BLOCKED:
                return Reply(
                    outcome=CaptionOutcome.BLOCKED, detail=one_line_of(completion.text)[:200]
                )
            if completion.finish is Finish.LENGTH:
                detail = f"no end within {2 * request.max_tokens} tokens"
                return Reply(outcome=CaptionOutcome.TRUNCATED, detail=detail)
            try:
                value = parsed(completion.text, model)
            except Refusal as error:
                return Reply(outcome=CaptionOutcome.BLOCKED, detail=one_line_of(str(error)))
            except AnswerError as error:
                why = one_line_of(str(error))
                request = _corrected(request, completion.text, why)
                continue
            self._keep(key, completion.text, request, sheet_sha256)
            return Reply(outcome=CaptionOutcome.OK, value=value)
        return Reply(outcome=CaptionOutcome.PARSE_ERROR, detail=why)

    def _whole(self, request: ChatRequest) -> Completion:
        """A completion; one that was cut off is asked for once more with twice the room."""
        completion = self.chat.complete(request)
        if completion.finish is Finish.LENGTH:
            return self.chat.complete(replace(request, max_tokens=2 * request.max_tokens))
        return completion

    def _key(self, request: ChatRequest, sheet_sha256: str) -> str:
        return cache_key(
            prompt_version=self.prompt_version,
            backend=self.id,
            model=self.model,
            params=parse_json(self.params_json),
            sheet=sheet_sha256,
            which=request.which,
            sample=request.sample,
            turns=[[turn.role, turn.text] for turn in request.turns],
        )

    def _kept(self, key: str, model: type[AnswerModel]) -> AnswerModel | None:
        text = self.cache.get(key) if self.cache else None
        if text is None:
            return None
        try:
            return parsed(text, model)
        except (AnswerError, Refusal):  # of another format, or damaged: ask
            return None

    def _keep(self, key: str, text: str, request: ChatRequest, sheet_sha256: str) -> None:
        if self.cache is None:
            return
        about = {
            "uid": request.segment.uid,
            "start": request.segment.start,
            "end": request.segment.end,
            "pass": request.which,
            "sample": request.sample,
            "part": request.part,
            "sheet_sha256": sheet_sha256,
            "model": self.model,
            "prompt_version": self.prompt_version,
        }
        self.cache.put(key, text, about)


def _corrected(request: ChatRequest, answer: str, why: str) -> ChatRequest:
    turns = (
        *request.turns,
        Turn(role="assistant", text=unmarked(plain_text(answer[:4000]))),
        Turn(role="user", text=prompts.correction_text(why)),
    )
    return replace(request, turns=turns)
