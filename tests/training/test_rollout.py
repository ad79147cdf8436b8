"""`eicorpus rollout`: the loop, environments by a mapping file, the client of a served policy, and what is left on the disk.

A hand-written environment stands for gymnasium; Meta-World itself is at the end, and reported as not run without the extra `sim`.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from ingest.curation.captions.checks import wilson
from jobs.cli import app
from jobs.commands import rollout
from schemas.action import ActionSpec, action_spec
from schemas.av_options import open_video
from schemas.errors import ConfigError, TransientError
from training.durable import make_folder
from training.policy.observation import ActionChunk, Observation
from training.rollout.action_names import spec_from_names
from training.rollout.episodes import check_settings, play_all
from training.rollout.gym_environment import GymEnvironment
from training.rollout.gym_mapping import GymMapping, read_mapping
from training.rollout.loop import Horizon, closed_loop
from training.server.client import ServedPolicy
from training.server.server import PolicyServer, ServerSettings
from training.server.wire import packed

HALF = 0.5**0.5
# The environment's frame in the base: x of it is y of the base, 0.3 m ahead and 0.1 m up.
BASE_M = np.array([0.3, 0.0, 0.1])
TOOL_M = 0.1  # of hand_xfz along z of the tool
MAPPING: dict[str, Any] = {
    "embodiment": "metaworld_sawyer",
    "instruction": "go there",
    "control_hz": 20,
    "base": {"position_m": BASE_M.tolist(), "quat_wxyz": [HALF, 0, 0, HALF]},
    "cameras": {"front": {"key": "pixels.front", "is_upside_down": True}},
    "hands": {
        "left": {
            "tool": {"position_m": [0, 0, TOOL_M], "quat_wxyz": [1, 0, 0, 0]},
            "state": {
                "position_m": {"key": "place_mm", "unit": "mm"},
                "rotation": {"key": "turn", "form": "rotvec_rad"},
                "gripper_opening": {"key": "jaw", "at": [1, 2], "shut": 0.0, "open": 0.04},
            },
            "action": {
                "position_m": {"at": [0, 3], "form": "delta", "unit_m": 0.05},
                "rotation": {"at": [4, 7], "form": "delta_rotvec", "unit_rad": 0.5},
                "gripper_opening": {"at": [3, 4], "shut": 1, "open": -1},
            },
        }
    },
    "constant": {7: 0.25},
    "success": {"info": "is_done"},
}
SPEC = action_spec([("left.position_m", 3), ("left.rot6d_cols", 6), ("left.gripper_opening", 1)])
assert SPEC is not None


def in_base(place_m: np.ndarray) -> np.ndarray:
    """Written out: a quarter turn about z, then the shift."""
    x, y, z = place_m
    return np.array([BASE_M[0] - y, BASE_M[1] + x, BASE_M[2] + z])


class Reach:
    """A tool that moves by at most 5 cm and turns by at most half a radian a step; done within 5 mm of its goal."""

    def __init__(self) -> None:
        self.action_space = SimpleNamespace(shape=(8,), low=-np.ones(8), high=np.ones(8))
        self.num_resets = self.num_steps = 0
        self.actions: list[np.ndarray] = []
        self.is_closed = False

    def _observed(self) -> dict[str, Any]:
        image = np.zeros((16, 24, 3), np.uint8)
        image[0] = self.num_steps
        return {
            "place_mm": self.place_m * 1e3,
            "turn": np.array([0.0, 0.0, self.yaw]),
            "jaw": np.array([9.0, 0.04 * self.opening]),
            "pixels": {"front": image},
        }

    def reset(self, *, seed: int | None = None) -> tuple[Any, dict[str, Any]]:
        rng = np.random.default_rng(seed)
        self.place_m, self.goal_m = np.zeros(3), rng.uniform(-0.2, 0.2, 3)
        self.yaw, self.opening = 0.0, 1.0
        self.num_resets += 1
        self.num_steps = 0
        return self._observed(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert np.abs(action).max() <= 1
        self.actions.append(action)
        self.place_m = self.place_m + 0.05 * action[:3].astype(float)
        self.yaw += 0.5 * float(action[6])
        self.opening = (1 - float(action[3])) / 2
        self.num_steps += 1
        is_done = bool(np.linalg.norm(self.place_m - self.goal_m) < 0.005)
        return self._observed(), 0.0, False, self.num_steps >= 60, {"is_done": is_done}

    def render(self) -> Any:
        return np.zeros((4, 4, 3), np.uint8)

    def close(self) -> None:
        self.is_closed = True


class Seeing:
    """Wants the tool of `env` at its goal, turned by 0.4 rad and its jaws shut; `is_wrong` keeps it in place."""

    embodiments = ("metaworld_sawyer",)

    def __init__(self, env: Reach, *, is_wrong: bool = False) -> None:
        self.env, self.is_wrong = env, is_wrong
        self.seen: list[Observation] = []

    def facts(self) -> dict[str, Any]:
        assert SPEC is not None
        return {
            "recipe": "toy",
            "step": 3,
            "embodiments": {"metaworld_sawyer": {"action_names": list(SPEC.names)}},
            "cameras": ["front"],
            "past_s": [-0.2, 0.0],
            "num_actions": 8,
            "rate_hz": 10.0,
        }

    def act(self, observation: Observation) -> ActionChunk:
        self.seen.append(observation)
        place_m = np.zeros(3) if self.is_wrong else self.env.goal_m
        yaw = 0.4 + np.pi / 2  # of the tool in the base
        turn = [np.cos(yaw), np.sin(yaw), 0, -np.sin(yaw), np.cos(yaw), 0]
        hand_m = in_base(place_m) + np.array([0, 0, TOOL_M])
        target = np.concatenate([hand_m, turn, [0.0]])
        assert SPEC is not None
        return ActionChunk(spec=SPEC, targets=np.tile(target, (8, 1)), t_s=np.arange(1, 9) / 10)


def environment(env: Reach, spec: ActionSpec | None = SPEC, **changed: Any) -> GymEnvironment:
    assert spec is not None
    mapping = GymMapping.model_validate(MAPPING | changed)
    return GymEnvironment(env, mapping, spec, rate_hz=10.0)


def test_a_policy_reaches_its_goal_through_the_mapping() -> None:
    """Frames, units, tool, box and gripper: with any of them wrong the tool ends elsewhere."""
    env = Reach()
    policy, steered = Seeing(env), environment(env)
    outcome = closed_loop(policy, steered, 5, Horizon(execute=3, past_steps=(-2, 0)), task="toy")
    assert outcome.is_success
    assert outcome.length * 2 - 1 <= env.num_steps <= outcome.length * 2
    np.testing.assert_allclose(env.place_m, env.goal_m, atol=5e-3)
    assert env.yaw == pytest.approx(0.4, abs=1e-6)
    assert env.opening == 0.0
    assert all(action[7] == pytest.approx(0.25) for action in env.actions)
    assert outcome.num_asked == -(-outcome.length // 3)
    first = policy.seen[0]
    assert first.state is not None
    np.testing.assert_allclose(first.state[:3], BASE_M + np.array([0, 0, TOOL_M]))
    np.testing.assert_allclose(first.state[3:], [0, 1, 0, -1, 0, 0, 1], atol=1e-12)
    assert first.history is not None
    np.testing.assert_allclose(first.history, first.state[None])


def test_a_camera_is_turned_upright_and_shown_at_its_times() -> None:
    env = Reach()
    policy, steered = Seeing(env, is_wrong=True), environment(env)
    horizon = Horizon(execute=2, past_steps=(-2, 0), limit=5)
    assert not closed_loop(policy, steered, 5, horizon, task="toy").is_success
    rows = [list(each.pictures["front"][:, -1, 0, 0]) for each in policy.seen]
    assert rows == [[0], [0, 4], [4, 8]]  # two steps of the environment in each timestep
    assert all(not each.pictures["front"][:, 0].any() for each in policy.seen)


def test_an_environment_that_ends_is_asked_no_further() -> None:
    env = Reach()
    outcome = closed_loop(Seeing(env, is_wrong=True), environment(env), 5, Horizon(), task="toy")
    assert (outcome.length, env.num_steps, outcome.success_at) == (30, 60, None)


@pytest.mark.parametrize("form", ["quat_wxyz", "quat_xyzw", "rotvec"])
def test_absolute_poses_are_in_the_frame_of_the_environment(form: str) -> None:
    env, hand = Reach(), MAPPING["hands"]["left"]
    width = 3 if form == "rotvec" else 4
    env.action_space = SimpleNamespace(shape=(4 + width,), low=-9.0, high=9.0)
    action = {
        "position_m": {"at": [0, 3], "form": "absolute", "unit_m": 0.001},
        "rotation": {"at": [4, 4 + width], "form": form},
        "gripper_opening": hand["action"]["gripper_opening"],
    }
    steered = environment(env, hands={"left": hand | {"action": action}}, constant={})
    steered.reset(5)
    written = steered.action_of(Seeing(env).act(Observation(text="", embodiment="")).targets[0])
    np.testing.assert_allclose(written[:3], env.goal_m * 1e3, atol=1e-9)
    s, c = np.sin(0.2), np.cos(0.2)
    turns = {"quat_wxyz": [c, 0, 0, s], "quat_xyzw": [0, 0, s, c], "rotvec": [0, 0, 0.4]}
    np.testing.assert_allclose(written[4:], turns[form], atol=1e-9)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The mapping with one value changed, or taken out by None."""
    mapping: dict[str, Any] = json.loads(json.dumps(MAPPING))
    mapping["constant"] = {int(k): v for k, v in mapping["constant"].items()}
    *inner, last = path.split(".")
    place = mapping
    for key in inner:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return mapping


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("hands.left.state.position_m.unit", None, "state.position_m.unit"),
        ("base", None, "base"),
        ("success", None, "success"),
        ("hands.left.state.gripper_opening", None, r"lacks: hands.left.state.gripper_opening"),
        ("hands.left.action.rotation", None, r"lacks: hands.left.action.rotation"),
        ("control_hz", 25, "no multiple"),
        ("constant", {}, r"\[7\] are not in the mapping"),
        ("constant", {3: 0.0, 7: 0.0}, r"\[3\] of the action are written twice"),
        ("base.quat_wxyz", [1, 1, 0, 0], "expected 1"),
        ("hands.left.action.position_m.at", [3, 0], "no range"),
        ("hands.left.state.gripper_opening.open", 0.0, "same number"),
        ("hands.left.action.rotation.form", "fixed", "needed by every form"),
        ("cameras", {}, "cameras"),
        ("colour", "red", "colour"),
        ("constant", {1_000_000: 0.0}, "less than 10000"),
        ("hands.left.action.position_m.at", [0, 1_000_000], "no range"),
    ],
)
def test_what_a_mapping_lacks_is_named(path: str, value: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mapping.yaml"
    file.write_text(yaml.safe_dump(changed(path, value)))
    assert SPEC is not None
    with pytest.raises(ConfigError, match=message):
        GymEnvironment(Reach(), read_mapping(file), SPEC, rate_hz=10.0)


def test_a_wrong_key_names_those_that_there_are() -> None:
    steered = environment(Reach(), cameras={"front": {"key": "pixels.back"}})
    steered.reset(0)
    with pytest.raises(ConfigError, match=r"no key 'back'; the environment gives front"):
        steered.shown()


def test_the_layout_comes_back_from_its_names() -> None:
    parts = [("right.hand_joints_rad", 6), ("left.position_m", 3), ("left.rot6d_cols", 6)]
    for each in (SPEC, action_spec([*parts, ("right.gripper_opening", 1)])):
        assert each is not None
        assert spec_from_names(each.names) == each
    assert SPEC is not None
    for odd in (SPEC.names[::-1], SPEC.names[1:], ("left.position_m.a",) * 3, ()):
        with pytest.raises(ConfigError):
            spec_from_names(odd)


# --- a served policy ------------------------------------------------------------------------------------------------------


@contextmanager
def serving(policy: Any, token: str | None = None) -> Iterator[str]:
    """The address of a server in a thread."""
    address: list[str] = []
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        settings = ServerSettings(port=0, token=token)
        server = await PolicyServer(policy, settings, monotonic_s=time.monotonic).start()
        host, port = next(iter(server.sockets)).getsockname()[:2]
        address.append(f"ws://{host}:{port}")
        ready.set()
        await stop.wait()
        server.close()
        await server.wait_closed()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield address[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()


def test_a_served_policy_is_asked_as_one_in_this_process() -> None:
    here, there = Reach(), Reach()
    horizon = Horizon(execute=3, past_steps=(-2, 0))
    one = closed_loop(Seeing(here), environment(here), 7, horizon, task="toy")
    served = Seeing(there)
    with serving(served, "secret") as url, ServedPolicy(url, token="secret") as policy:
        assert policy.facts() == served.facts()
        two = closed_loop(policy, environment(there), 7, horizon, task="toy")
    assert one == two
    assert one.is_success
    np.testing.assert_allclose(here.actions, there.actions, atol=1e-6)
    assert served.seen[0].pictures["front"].shape == (1, 16, 24, 3)
    assert served.seen[0].text == "go there"


def test_refusals_of_a_server_are_ours() -> None:
    with serving(Seeing(Reach()), "secret") as url:
        with pytest.raises(ConfigError, match="401"), ServedPolicy(url):
            pass
        with (
            ServedPolicy(url, token="secret") as policy,
            pytest.raises(ConfigError, match="embodiment 'nobody'"),
        ):
            policy.act(Observation(text="", embodiment="nobody"))
    with pytest.raises(ConfigError, match="no policy answers"), ServedPolicy(url, token="secret"):
        pass


def test_a_server_that_goes_is_another_try() -> None:
    with ExitStack() as stack:
        with serving(Seeing(Reach())) as url:
            policy = stack.enter_context(ServedPolicy(url))
        with pytest.raises(TransientError, match="no answer"):
            policy.act(Observation(text="", embodiment="metaworld_sawyer"))


@contextmanager
def speaking(first: bytes | str, second: bytes | str = b"") -> Iterator[str]:
    """The address of a server that says the two, whatever it is told."""

    def converse(connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            connection.send(first)
            connection.recv()
            connection.send(second)
            connection.recv()

    with serve(converse, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join(30)


@pytest.mark.parametrize(
    "change",
    [
        {"num_actions": "many"},
        {"num_actions": 0},
        {"past_s": []},
        {"past_s": [0.1]},
        {"past_s": [-1e300]},
        {"past_s": [float("nan")]},
        {"rate_hz": 0.0},
        {"rate_hz": float("nan")},
        {"embodiments": ["metaworld_sawyer"]},
        {"embodiments": {"metaworld_sawyer": {}}},
        {"embodiments": {"metaworld_sawyer": {"action_names": [1]}}},
        {"cameras": None},
    ],
    ids=str,
)
def test_facts_that_no_policy_says_are_refused(change: dict[str, Any]) -> None:
    facts = Seeing(Reach()).facts() | change
    refused = pytest.raises(ConfigError, match="facts of a policy: " + next(iter(change)))
    with speaking(packed(facts)) as url, refused, ServedPolicy(url):
        pass


CHUNK: dict[str, Any] = {"actions": np.zeros((8, 10), np.float32), "t_s": np.arange(1, 9) / 10}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({}, "actions is a NoneType"),
        (CHUNK | {"actions": "go"}, "actions is a str"),
        (
            CHUNK | {"actions": np.full((8, 10), np.nan)},
            "actions holds numbers that are not finite",
        ),
        (CHUNK | {"t_s": np.full(8, np.inf)}, "t_s holds numbers that are not finite"),
        (CHUNK | {"actions": np.zeros((0, 10)), "t_s": np.zeros(0)}, r"shape \[0, 10\]"),
        (CHUNK | {"actions": np.zeros(10)}, r"shape \[10\]"),
        (CHUNK | {"actions": np.zeros((8, 12))}, r"expected \[K, 10\]"),
        (CHUNK | {"actions": np.zeros((8, 7))}, r"expected \[K, 10\]"),
        (CHUNK | {"t_s": np.zeros(3)}, r"t_s of shape \[3\]"),
    ],
)
def test_an_answer_that_is_no_chunk_moves_nothing(answer: dict[str, Any], message: str) -> None:
    with (
        speaking(packed(Seeing(Reach()).facts()), packed(answer)) as url,
        ServedPolicy(url) as policy,
        pytest.raises(ConfigError, match=message),
    ):
        policy.act(Observation(text="", embodiment="metaworld_sawyer"))


@pytest.mark.parametrize("url", ["ws://127.0.0.1:99999", "ws://127.0.0.1:abc", "ws://[::1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no policy answers"), ServedPolicy(url):
        pass


# --- episodes on the disk -------------------------------------------------------------------------------------------------


def test_a_finished_episode_is_not_played_again(tmp_path: Path) -> None:
    played: list[tuple[int, int]] = []

    def play(number: int, seed: int) -> dict[str, Any]:
        played.append((number, seed))
        if len(played) == 3:
            raise KeyboardInterrupt
        path = f"videos/{number:06d}_front.mp4"
        (tmp_path / path).write_bytes(b"abc")
        video = {"front": {"path": path, "num_bytes": 3}}
        success_at = 4 if number == 1 else None
        outcome = {"episode": number, "seed": seed, "success_at": success_at, "length": 4}
        return outcome | {"num_asked": 1, "videos": video}

    with pytest.raises(KeyboardInterrupt):
        play_all(tmp_path, 4, 0, play)
    result = play_all(tmp_path, 4, 0, play)
    assert [number for number, _ in played] == [0, 1, 2, 2, 3]
    assert (result.num_new, result.num_successes) == (2, 1)
    assert played[2] == played[3]
    assert len({seed for _, seed in played}) == 4
    (tmp_path / "videos/000001_front.mp4").unlink()
    assert play_all(tmp_path, 4, 0, play).num_new == 1  # its video is gone
    of_first, of_second = (tmp_path / f"episodes/00000{number}.json" for number in (0, 1))
    kept = of_first.read_text()
    of_first.write_text(of_second.read_text())
    with pytest.raises(ConfigError, match="is of episode 1 and scene"):  # would count twice
        play_all(tmp_path, 4, 0, play)
    of_first.write_text(kept)
    with pytest.raises(ConfigError, match="is of episode 0 and scene"):
        play_all(tmp_path, 4, 1, play)
    of_first.write_text('{"episode": 0}')
    with pytest.raises(ConfigError, match="damaged: seed"):
        play_all(tmp_path, 4, 0, play)


def test_other_settings_and_other_folders_are_refused(tmp_path: Path) -> None:
    make_folder(tmp_path / "a")
    check_settings(tmp_path / "a", {"seed": 0, "env": "x"})
    check_settings(tmp_path / "a", {"seed": 0, "env": "x"})
    with pytest.raises(ConfigError, match="another seed"):
        check_settings(tmp_path / "a", {"seed": 1, "env": "x"})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        check_settings(tmp_path / "b", {"seed": 0})


# --- the command ----------------------------------------------------------------------------------------------------------


class Stage:
    """The command with a toy policy and a toy environment."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.env = Reach()
        self.is_wrong = False
        self.mapping = tmp_path / "mapping.yaml"
        self.mapping.write_text(yaml.safe_dump(MAPPING))
        self.out = tmp_path / "out"
        monkeypatch.setattr("training.rollout.gym_environment.make_gym", lambda _: self.env)
        monkeypatch.setattr(
            rollout, "_opened", lambda *_, **__: Seeing(self.env, is_wrong=self.is_wrong)
        )

    def words(self, *more: str) -> list[str]:
        where = ["--env", "gym:Reach-v0", "--out", str(self.out), "--json"]
        return ["rollout", "run", *where, "--mapping", str(self.mapping), *more]

    def run(self, *more: str) -> Any:
        return CliRunner().invoke(app, self.words(*more))

    def result(self, *more: str) -> Any:
        done = self.run(*more)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)["result"]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


def test_episodes_are_played_recorded_and_resumed(stage: Stage) -> None:
    result = stage.result("--episodes", "2")
    assert result["num_new"] == 2
    before = {p: p.stat().st_mtime_ns for p in stage.out.glob("*/*")}
    resumed = stage.result("--episodes", "3")
    assert resumed["num_new"] == 1
    assert resumed["episodes"][:2] == result["episodes"]
    assert {p: p.stat().st_mtime_ns for p in before} == before
    low, high = wilson(3, 3)
    assert resumed["success"] == {
        "value": 1.0, "low": low, "high": high, "num_successes": 3, "count": 3,
    }  # fmt: skip
    assert json.loads((stage.out / "result.json").read_text()) == resumed
    assert stage.env.is_closed
    for each in resumed["episodes"]:
        video = each["videos"]["front"]
        with open_video(stage.out / video["path"]) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, float(stream.average_rate or 0)) == ("h264", 10.0)
            assert sum(1 for _ in container.decode(stream)) == each["length"] + 1
    assert [p.name for p in (stage.out / "videos").glob(".*")] == []


def test_the_same_seed_gives_the_same_bytes(stage: Stage, tmp_path: Path) -> None:
    one = stage.result("--episodes", "2")
    stage.out = tmp_path / "again"
    assert stage.result("--episodes", "2")["episodes"] == one["episodes"]
    stage.out = tmp_path / "other"
    other = stage.result("--episodes", "2", "--seed", "1")["episodes"]
    assert {each["seed"] for each in other}.isdisjoint(each["seed"] for each in one["episodes"])


def test_too_few_successes_end_with_1(stage: Stage) -> None:
    stage.is_wrong = True
    done = stage.run("--episodes", "2", "--min-success", "0.5")
    assert done.exit_code == 1
    answer = json.loads(done.stdout)
    assert answer["error"]["code"] == "check_failed"
    assert answer["result"]["success"]["value"] == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--server", "ws://127.0.0.1:1"), "either RUN or --server"),
        (("--env", "atari:Pong"), "expected metaworld:TASK or gym:ID"),
        (("--env", "metaworld:reach-v3"), "--mapping FILE"),
        (("--execute", "9"), "a chunk of this policy has 8 timesteps"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    stage: Stage, more: tuple[str, ...], message: str
) -> None:
    done = stage.run(*more)
    assert isinstance(done.exception, ConfigError)
    assert message in str(done.exception)
    assert not stage.out.exists()


def test_a_camera_that_the_policy_never_saw_is_refused(stage: Stage) -> None:
    stage.mapping.write_text(yaml.safe_dump(changed("cameras", {"top": {"key": "render"}})))
    done = stage.run()
    assert "cameras top; the policy looks at front" in str(done.exception)
    assert not stage.out.exists()


def test_a_folder_of_other_episodes_is_refused(stage: Stage) -> None:
    stage.result("--episodes", "1")
    done = stage.run("--episodes", "1", "--seed", "1")
    assert "another seed" in str(done.exception)


def test_without_gymnasium_the_extra_is_named(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(__import__("sys").modules, "gymnasium", None)
    monkeypatch.setattr(rollout, "_opened", lambda *_, **__: Seeing(stage.env))
    done = stage.run()
    assert isinstance(done.exception, ConfigError)
    assert "eicorpus[sim]" in str(done.exception)


@pytest.mark.skipif(
    find_spec("metaworld") is None, reason="NOT RUN: metaworld is not installed (extra sim)"
)
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_metaworld_is_driven(stage: Stage) -> None:
    """One episode in the simulator itself: a video of every timestep, and of the end."""
    stage.is_wrong = True
    words = [
        w for w in stage.words("--episodes", "1") if w not in ("--mapping", str(stage.mapping))
    ]
    words[words.index("gym:Reach-v0")] = "metaworld:reach-v3"
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    episode = json.loads(done.stdout)["result"]["episodes"][0]
    assert episode["videos"]["front"]["num_pictures"] == episode["length"] + 1
