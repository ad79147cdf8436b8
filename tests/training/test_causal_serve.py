"""LingBot-VA's conversation with a trained network: a client that follows `wan_va_server.py`, and refusals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from websockets.asyncio.client import ClientConnection, connect

from schemas.errors import ConfigError
from schemas.stored_picture import as_stored
from tests.training.causal_cases import network
from training.causal.learner import CausalLearner
from training.causal.policy import CausalPolicy
from training.causal.settings import CausalSampling
from training.conditioning.hashed_words import WordsConditioner, WordsReader
from training.data.action_layout import ACTION_WIDTH, slot_names
from training.data.normalise import Normaliser
from training.recipe import load_recipe
from training.server.lingbot import ChunkServer
from training.server.server import ServerSettings
from training.server.wire import packed, unpacked

CHUNK, ROWS, ELEMENTS = 2, 2, 7
Floats = npt.NDArray[np.float32]


def policy(**changed: Any) -> CausalPolicy:
    """One body with a left hand of 7 elements, scaled by 0.01 around 0.002; another that never acts."""
    sampling = CausalSampling(
        chunk=CHUNK,
        window=6,
        video_steps=2,
        action_steps=2,
        video_guidance=2.0,
        action_guidance=1.0,
    )
    model = network(
        **{
            "sampling": sampling,
            "action_width": ACTION_WIDTH,
            "num_embodiments": 2,
            "text_width": 5,
        }
        | changed
    )
    is_known = torch.zeros(2, ACTION_WIDTH, dtype=torch.bool)
    is_known[0, :ELEMENTS] = True
    normaliser = Normaliser(
        embodiments=("umi", "human_video"),
        centre=torch.full((2, ACTION_WIDTH), 0.002),
        scale=torch.full((2, ACTION_WIDTH), 0.01),
        is_known=is_known,
    )
    torch.manual_seed(1)
    words, conditioner = WordsReader(num_buckets=16, num_words=4), WordsConditioner(16, 4, 5)
    return CausalPolicy(
        CausalLearner(model, conditioner),
        lambda seen: words.of([each.text for each in seen]),
        normaliser,
        load_recipe("causal_tiny"),
    )


def frame(number: int) -> dict[str, Floats]:
    g = np.random.default_rng(number)
    return {"front": g.normal(size=(4, 3)).astype(np.float32)}


def converse(
    talk: Callable[[ClientConnection, ChunkServer], Awaitable[None]], clients: int = 1
) -> None:
    async def run() -> None:
        made = ChunkServer(policy(), ServerSettings(port=0), monotonic_s=time.monotonic)
        server = await made.start()
        try:
            address = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            for _ in range(clients):
                async with connect(address, compression=None) as client:
                    await talk(client, made)
        finally:
            server.close()
            await server.wait_closed()

    asyncio.run(run())


async def ask(client: ClientConnection, **message: Any) -> Any:
    await client.send(packed(message))
    answer = await client.recv()
    return answer if isinstance(answer, str) else unpacked(answer)


def test_a_conversation_of_lingbot_va() -> None:
    """As its clients go: reset, the first observation, the chunk executed and shown, the next chunk; twice the same."""
    answers: list[Floats] = []

    async def talk(client: ClientConnection, server: ChunkServer) -> None:
        facts = unpacked(await client.recv())
        assert facts["frame_chunk_size"] == CHUNK
        assert facts["action_per_frame"] == ROWS
        assert facts["embodiments"] == {"umi": {"action_names": list(slot_names()[:ELEMENTS])}}
        for _ in range(2):
            reset = await ask(client, reset=True, prompt="trace circle 1")
            assert set(reset) == {"server_timing"}
            first = await ask(client, obs=frame(0), prompt="trace circle 1")
            assert first["action"].shape == (ELEMENTS, CHUNK, ROWS)
            assert not first["action"][:, 0].any()  # what led to the first frame
            assert first["action"][:, 1].any()
            kept = await ask(client, obs=[frame(1)], compute_kv_cache=True, imagine=False, state=first["action"])  # fmt: skip
            assert set(kept) == {"server_timing"}
            second = await ask(client, obs=frame(1), prompt="trace circle 1")
            assert second["action"].all()
            await ask(client, obs=[frame(2), frame(3)], compute_kv_cache=True, imagine=False, state=second["action"])  # fmt: skip
            answers.extend([first["action"], second["action"]])
        assert server.num_refused == 0

    converse(talk)
    np.testing.assert_array_equal(answers[0], answers[2])  # nothing of the episode before is left
    np.testing.assert_array_equal(answers[1], answers[3])


def test_what_was_seen_and_done_changes_what_comes_next() -> None:
    def after(seen: int, factor: float, text: str = "go") -> Floats:
        talk = policy().conversation()
        talk.reset(text, "umi")
        actions = talk.infer(frame(0))
        talk.observe([frame(seen)], actions * np.float32(factor))
        return talk.infer(frame(seen))

    base = after(1, 1.0)
    np.testing.assert_array_equal(base, after(1, 1.0))
    assert not np.array_equal(base, after(2, 1.0))
    assert not np.array_equal(base, after(1, 0.5))
    assert not np.array_equal(base, after(1, 1.0, "stop"))


def test_the_encoder_gets_frames_as_a_corpus_stores_them() -> None:
    shown: list[np.ndarray] = []

    def encode(pictures: np.ndarray) -> Floats:
        shown.append(pictures)
        return np.zeros((1, 4, 3), np.float32)

    made = policy()
    made.encode, made.short_side_px = encode, 32
    talk = made.conversation()
    talk.reset("go", "umi")
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    talk.infer({"front": picture})
    np.testing.assert_array_equal(shown[0], as_stored(picture, 32)[None])


def test_actions_travel_in_their_units_and_come_back_as_they_were() -> None:
    """The answer is the network's own times 0.01 plus 0.002; shown again as executed, it is the network's own again."""
    made = policy()
    talk = made.conversation()
    talk.reset("go", "umi")
    actions = talk.infer(frame(0))
    sampler = talk._begun()
    _, has = talk._encoded(actions, is_first=True)
    assert not has[0].any()
    assert torch.equal(has[1], made.normaliser.is_known[0].expand(ROWS, -1))
    g = torch.Generator().manual_seed(0)
    own = torch.randn(CHUNK, ROWS, ACTION_WIDTH, generator=g)
    decoded = talk._decoded(own, is_first=False)
    np.testing.assert_allclose(decoded[3, 1, 0], 0.002 + 0.01 * float(own[1, 0, 3]), rtol=1e-5)
    again, _ = talk._encoded(decoded, is_first=False)
    known = made.normaliser.is_known[0]
    torch.testing.assert_close(again[..., known], own[..., known], atol=1e-4, rtol=1e-4)
    assert sampler.num_observed == 0


@pytest.mark.parametrize(
    ("messages", "refusal"),
    [
        ([{"obs": frame(0)}], "no episode"),
        ([{"reset": True, "embodiment": "human_video"}], "unknown embodiment 'human_video'"),
        ([{"reset": True, "prompt": 3}], "prompt is no text"),
        ([{"reset": True}, {"obs": {"front": np.zeros((3, 3), np.float32)}}], r"expected \[4, 3\]"),
        ([{"reset": True}, {"obs": {"front": np.full((4, 3), np.nan, np.float32)}}], "non-finite"),
        ([{"reset": True}, {"obs": {"front": np.zeros((8, 8, 3), np.uint8)}}], "no encoder"),
        ([{"reset": True}, {"obs": frame(0)}, {"obs": frame(0)}], "not observed"),
        ([{"reset": True}, {"obs": [frame(0)], "compute_kv_cache": True}], "state is no array"),
        ([{"reset": True}, {"obs": 3}], "a frame is no map"),
        ([{"reset": True, "speed": 3}], "'speed' is not an expected field"),
        ([{"reset": True}, {"obs": [], "compute_kv_cache": True, "imagine": True}], "imagine is not supported"),
        (
            [{"reset": True}, {"obs": frame(0)}, {"obs": [frame(1), frame(2)], "compute_kv_cache": True, "state": np.zeros((7, 2, 2), np.float32)}],
            "2 frames; expected 1",
        ),
        (
            [{"reset": True}, {"obs": frame(0)}, {"obs": [frame(1)], "compute_kv_cache": True, "state": np.zeros((7, 2, 1), np.float32)}],
            r"expected finite numbers \[7, 2, 2\]",
        ),
        (
            [{"reset": True}, {"obs": [frame(1)], "compute_kv_cache": True, "state": np.zeros((7, 2, 2), np.float32)}],
            "nothing was inferred yet",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_and_the_connection_goes_on(
    messages: list[dict[str, Any]], refusal: str
) -> None:
    async def talk(client: ClientConnection, server: ChunkServer) -> None:
        await client.recv()
        *before, last = messages
        for message in before:
            assert isinstance(await ask(client, **message), dict)
        answer = await ask(client, **last)
        assert isinstance(answer, str)
        with pytest.raises(AssertionError, match=refusal):
            raise AssertionError(answer)
        assert server.num_refused == 1
        assert isinstance(await ask(client, reset=True, prompt="again"), dict)

    converse(talk)


def test_connections_have_episodes_of_their_own() -> None:
    """The second client did not reset: what the first began is not its episode."""
    turns: list[int] = []

    async def talk(client: ClientConnection, server: ChunkServer) -> None:
        await client.recv()
        if not turns:
            await ask(client, reset=True)
            assert "action" in await ask(client, obs=frame(0))
        else:
            assert "no episode" in await ask(client, obs=frame(0))
        turns.append(1)

    converse(talk, clients=2)


def test_a_chunk_of_one_frame_cannot_be_served() -> None:
    with pytest.raises(ConfigError, match="chunk of 1 frame"):
        policy(sampling=CausalSampling(chunk=1))
