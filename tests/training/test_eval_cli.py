"""`eicorpus eval`, and a policy of the same run: what `eicorpus train` left is enough for both."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode
from typer.testing import CliRunner
from websockets.asyncio.client import connect

from benchmarks.annotated_corpus import build_manifest
from ingest.latents.frame_grid import fitted
from ingest.models.encoder import EncoderChoice, ImageEncoder
from ingest.models.encoder_weights import WeightSource
from jobs.cli import app
from jobs.commands.eval import not_beaten
from jobs.commands.policy_encoder import encoder_for, model_of
from jobs.commands.serve_policy import latency_text, policy_text
from jobs.ui.eval_page import comparison_rows
from schemas import manifest as manifests
from schemas.errors import ConfigError, PipelineError, SourceError
from schemas.manifest import Manifest
from tests.hostile.sweep import bounded_memory
from tests.training.corpus import Trainable
from training.evaluation.evaluate_checkpoint import NUM_SAMPLES, EvaluationRequest, held_out
from training.evaluation.examples import error_over_horizon
from training.evaluation.summary import BASELINES, Comparison, IntervalEstimate
from training.model.network import Network
from training.policy.observation import Observation
from training.policy.policy import Policy, PolicySettings
from training.run.checkpoint import Checkpoint, checkpoint_of
from training.server.server import PolicyServer, ServerSettings
from training.server.wire import packed, unpacked

SETS = (
    "architecture.width=16", "architecture.num_layers=1", "architecture.num_heads=2", "text.width=8", "run.batch_size=8",
    "data.encoder=tiny_vit", "run.num_steps=1", "optimiser.warmup_steps=0", "data.future_s=0.3", "data.num_actions=4",
    "data.cameras=[front, wrist]",
)  # fmt: skip
PNG = b"\x89PNG"


def invoke(*words: str) -> Any:
    """A command in this process; our errors come out as they are."""
    done = CliRunner().invoke(app, list(words), standalone_mode=False)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture(scope="module")
def run(trainable: Trainable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    sets = [word for each in SETS for word in ("--set", each)]
    invoke("train", str(trainable.manifest), "--out", str(out), "--device", "cpu", "--json", *sets)  # fmt: skip
    return out


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("model", {"width": 1 << 16}, "another network"),
        ("recipe", {"data": 3}, "data: 3; expected keys with values"),
    ],
)
def test_a_damaged_checkpoint_is_refused_before_it_takes_memory(
    run: Path, tmp_path: Path, part: str, change: dict[str, object], message: str
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    path = next(copy.glob("checkpoints/*/state.json"))
    state = json.loads(path.read_text())
    path.write_text(json.dumps(state | {part: state[part] | change}))
    with bounded_memory(), pytest.raises(ConfigError, match=message):
        invoke("eval", str(copy), "--device", "cpu")


class Page(HTMLParser):
    """Tags, and what they would load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]


def test_a_run_is_evaluated_and_shown(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "out" / "eval.html"
    done = invoke("eval", str(run), "--ema", "--html", str(page), "--max-samples", "9", "--json")
    said = json.loads(done.stdout)["result"]
    assert said["step"] == 1
    assert set(said["comparisons"]) == set(BASELINES)
    assert all(num <= 9 for num in said["num_samples"].values())
    assert said["max_samples"] == 9
    np.testing.assert_allclose(said["action_t_s"], [0.1, 0.2, 0.3, 0.4])
    assert {line["task"] for line in said["lines"]} == set(said["num_samples"])
    for line in said["lines"]:
        assert line["model"]["value"] >= 0
        assert line["num_episodes"] > 0
        if line["metric"] == "position_l1_m":
            assert [len(of) for of in line["by_step"].values()] == [4] * 4
    parsed = Page()
    parsed.feed(page.read_text())
    assert "script" not in parsed.tags
    assert parsed.tags.count("img") == 3
    assert all(source.startswith("data:image/png;base64,") for source in parsed.loaded)
    text = page.read_text()
    for name, each in said["comparisons"].items():
        assert name in text
        assert each["answer"] in text
    assert "half a turn about the approach" in text


def test_what_must_be_beaten_and_is_not_fails(run: Path) -> None:
    """One step of training: what it draws in many steps of sampling is as far apart as pictures are."""
    words = ("eval", str(run), "--max-samples", "4", "--sampling-steps", "8")
    done = CliRunner().invoke(app, [*words, "--must-beat", "copy_last_frame"])
    assert done.exit_code == 1
    assert "copy_last_frame" in done.stdout
    assert "not beaten: copy_last_frame (not better" in done.stderr
    with pytest.raises(ConfigError, match="no baseline 'luck'"):
        invoke(*words, "--must-beat", "luck")


def test_the_verdict_comes_first_and_details_on_request(run: Path) -> None:
    words = ("eval", str(run), "--max-samples", "4", "--sampling-steps", "2")
    done = CliRunner().invoke(app, [*words, "--must-beat", "copy_last_frame"])
    lines = done.stdout.splitlines()
    assert lines[0].startswith("step 1 of ")
    assert " of them with an interval above zero" in lines[0]
    assert lines[1].startswith("must beat copy_last_frame: ")
    rows = [line for line in lines if "position_l1_m" in line and line.startswith("policy")]
    assert len(rows) == 1, "all bodies and tiers"
    assert "forward_dynamics_without_action" not in "".join(lines[2:])
    whole = invoke(*words, "--details").stdout.splitlines()
    assert (
        len([line for line in whole if "position_l1_m" in line and line.startswith("policy")]) > 1
    )
    assert any(line.startswith("forward_dynamics_without_action") for line in whole)


def test_beaten_by_the_mean_or_clearly() -> None:
    """What is asked for decides; what is said is the same."""
    sure, unsure = (
        IntervalEstimate(value=0.4, low=0.3, high=0.5),
        IntervalEstimate(value=0.4, low=-0.1, high=0.9),
    )
    few = IntervalEstimate(value=0.4, low=None, high=None)
    worse = IntervalEstimate(value=-0.4, low=-0.5, high=-0.3)
    given = {"sure": sure, "unsure": unsure, "few": few, "worse": worse, "none": None}
    found = {name: Comparison(skill=skill, num_episodes=6) for name, skill in given.items()}
    assert not_beaten(["sure", "unsure", "few"], found, clearly=False) == ""
    assert not_beaten(["sure"], found, clearly=True) == ""
    for name in ("worse", "none"):
        assert name in not_beaten(["sure", name], found, clearly=False)
    for name in ("unsure", "few", "worse", "none"):
        assert name in not_beaten([name], found, clearly=True)
    message = "baselines not beaten: unsure (better, interval includes 0)"
    assert not_beaten(["sure", "unsure"], found, clearly=True) == message
    rows = {str(row[0]): row[1:] for row in comparison_rows(found)}
    assert rows["unsure"] == ["+40.0%", "-10.0% .. +90.0%", 6, "better, interval includes 0"]
    assert rows["few"] == ["+40.0%", "", 6, "better, too few episodes to be certain"]
    assert rows["none"] == ["", "", 6, "nothing to compare"]


def test_progress_has_an_end(trainable: Trainable, run: Path) -> None:
    told: list[tuple[str, int, int]] = []
    made = held_out(
        manifests.load(trainable.manifest),
        checkpoint_of(run),
        EvaluationRequest(max_samples=5, batch_size=2, num_shown=0, num_steps=1),
        device=torch.device("cpu"),
        progress=lambda *each: told.append(each),
    )
    policy = [(done, whole) for task, done, whole in told if task == "policy"]
    assert policy == [(0, 5), (2, 5), (4, 5), (5, 5)]
    assert set(made.num_samples.values()) == {5}


def test_a_large_split_is_not_asked_whole_unless_wished(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[EvaluationRequest] = []

    def noted(manifest: Manifest, found: Checkpoint, request: EvaluationRequest, **_: Any) -> None:
        asked.append(request)
        raise ConfigError("enough")

    monkeypatch.setattr("training.evaluation.evaluate_checkpoint.held_out", noted)
    for words in ((), ("--max-samples", "0"), ("--max-samples", "7")):
        with pytest.raises(ConfigError, match="enough"):
            invoke("eval", str(run), *words)
    assert [request.max_samples for request in asked] == [NUM_SAMPLES, None, 7]
    assert EvaluationRequest().max_samples == NUM_SAMPLES == 2000


def trained_in(run: Path, precision: str, out: Path) -> Path:
    """The same run, of a recipe of another precision."""
    copied = Path(shutil.copytree(run, out))
    for path in copied.glob("checkpoints/*/state.json"):
        state = json.loads(path.read_text())
        state["recipe"]["run"]["precision"] = precision
        path.write_text(json.dumps(state))
    return copied


@contextmanager
def noted_types() -> Iterator[tuple[set[torch.dtype], set[torch.dtype]]]:
    """Of what linear layers said, and of what a network was given to take the noise out of."""
    said: set[torch.dtype] = set()
    given: set[torch.dtype] = set()

    def note(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        if isinstance(module, nn.Linear):
            said.add(out.dtype)
        elif isinstance(module, Network):
            given.update(x.dtype for x in (args[2], args[4]))

    hook = register_module_forward_hook(note)
    try:
        yield said, given
    finally:
        hook.remove()


@pytest.mark.parametrize(
    ("trained", "asked", "computed"),
    [("fp32", "auto", "fp32"), ("bf16", "auto", "bf16"), ("bf16", "fp32", "fp32")],
)
def test_it_computes_as_it_was_trained_or_as_is_said(
    run: Path, tmp_path: Path, trained: str, asked: Any, computed: str
) -> None:
    """Matrix products in evaluation and serving; what is integrated and answered is float32 all the same."""
    mine = trained_in(run, trained, tmp_path / "run")
    wanted = {"bf16": torch.bfloat16, "fp32": torch.float32}[computed]
    with noted_types() as (said, given):
        words = ("--precision", asked, "--max-samples", "1", "--sampling-steps", "1", "--json")
        assert (
            json.loads(invoke("eval", str(mine), *words).stdout)["result"]["precision"] == computed
        )
        assert (said, given) == ({wanted}, {torch.float32})
    settings = PolicySettings(precision=None if asked == "auto" else asked, num_steps=2)
    policy = Policy.load(mine, None, settings, device="cpu")
    latents = {"front": np.zeros((2, 6, 8), np.float32)}
    with noted_types() as (said, given):
        policy.act(Observation(text="trace", embodiment="umi", latents=latents))
        assert (said, given) == ({wanted}, {torch.float32})
    assert policy.facts()["precision"] == computed
    assert f"computed in {computed}; no image encoder" in policy_text(policy)


class _Casts(TorchDispatchMode):
    """Counts how often weights are made another type."""

    def __init__(self, weights: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.places, self.num = {x.data_ptr() for x in weights}, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._to_copy.default:
            self.num += args[0].data_ptr() in self.places
        return func(*args, **(kwargs or {}))


def test_weights_are_cast_once_for_all_steps_of_an_answer(run: Path, tmp_path: Path) -> None:
    """`inference_mode` would have them cast in each: gigabytes a step."""
    mine, nums = trained_in(run, "bf16", tmp_path / "run"), []
    latents = {"front": np.zeros((2, 6, 8), np.float32)}
    for num_steps in (1, 3):
        policy = Policy.load(mine, None, PolicySettings(num_steps=num_steps), device="cpu")
        with _Casts(policy.learner.parameters()) as casts:
            policy.act(Observation(text="trace", embodiment="umi", latents=latents))
        nums.append(casts.num)
    assert nums[0] == nums[1] > 0


def test_the_precision_asked_for_reaches_the_policy(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[PolicySettings] = []

    def noted(run: Path, encode: Any, settings: PolicySettings, **_: Any) -> None:
        asked.append(settings)
        raise ConfigError("enough")

    monkeypatch.setattr(Policy, "load", noted)
    monkeypatch.setattr("jobs.commands.policy_encoder.encoder_for", lambda *_, **__: None)
    for words in ((), ("--precision", "bf16")):
        with pytest.raises(ConfigError, match="enough"):
            invoke("serve-policy", str(run), *words)
    assert [settings.precision for settings in asked] == [None, "bf16"]


def test_changed_latents_are_found_where_digests_are_asked_for(
    trainable: Trainable, run: Path, tmp_path: Path
) -> None:
    mine = trainable.copied(tmp_path / "corpus")
    for path in mine.corpus.glob("**/*.safetensors"):
        data = bytearray(path.read_bytes())
        data[-2] ^= 1  # of a number that stays one, so that nothing else tells
        path.write_bytes(data)
    words = ("eval", str(run), "--manifest", str(mine.manifest), "--max-samples", "1")
    with pytest.raises(SourceError, match="sha256 is"):
        invoke(*words, "--verify-latents")


def test_another_manifest_is_refused_unless_allowed(
    trainable: Trainable, run: Path, tmp_path: Path
) -> None:
    copy = trainable.copied(tmp_path / "corpus")
    other = build_manifest(copy.corpus, "other", where="embodiment = 'umi'")
    words = ("eval", str(run), "--manifest", str(other), "--max-samples", "4", "--json")
    with pytest.raises(ConfigError, match=r"digest.*--allow-other-manifest"):
        invoke(*words)
    said = json.loads(invoke(*words, "--allow-other-manifest").stdout)["result"]
    assert {line["embodiment"] for line in said["lines"]} == {"all", "umi"}


def test_what_is_not_there_is_said(trainable: Trainable, run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="step 5; available steps: 1"):
        invoke("eval", str(run), "--checkpoint", "5")
    with pytest.raises(PipelineError, match=r"no run\.json"):
        invoke("eval", str(tmp_path))
    found = checkpoint_of(run)
    sizes = {k: v for k, v in found.state.num_bytes.items() if k != "averages.safetensors"}
    without = type(found)(
        folder=found.folder, state=found.state.model_copy(update={"num_bytes": sizes})
    )
    manifest = manifests.load(trainable.manifest)
    with pytest.raises(ConfigError, match="no averaged weights"):
        held_out(
            manifest, without, EvaluationRequest(use_averages=True), device=torch.device("cpu")
        )


def test_the_same_command_gives_the_same_numbers(run: Path) -> None:
    found = [
        json.loads(invoke("eval", str(run), "--max-samples", "6", "--json", *more).stdout)["result"]
        for more in ((), ("--batch", "4"), ("--seed", "1"))
    ]
    values = [[line["model"]["value"] for line in said["lines"]] for said in found]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-4)
    assert values[0] != values[2]


def test_the_policy_of_a_run_acts(run: Path) -> None:
    latents = {"front": np.zeros((2, 6, 8), np.float32)}
    seen = Observation(text="trace circle 1", embodiment="umi_bimanual", latents=latents)
    policy = Policy.load(run, device="cpu")
    chunk = policy.act(seen)
    assert chunk.targets.shape == (4, 20)
    assert np.isfinite(chunk.targets).all()
    averaged = Policy.load(run, None, PolicySettings(use_averages=True, step=1), device="cpu")
    assert averaged.facts()["step"] == 1
    facts = policy.facts()
    assert facts["past_s"] == [-0.3, 0.0]
    names = facts["embodiments"]["umi"]["action_names"]
    assert names[:4] == ["left.position_m.x", "left.position_m.y", "left.position_m.z", "left.rot6d_cols.xx"]  # fmt: skip
    json.dumps(facts)


def test_actions_are_as_far_apart_as_where_it_learned(run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    for path in copied.glob("checkpoints/*/state.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"rate_hz": 20.0}))
    policy = Policy.load(copied, device="cpu")
    latents = {"front": np.zeros((2, 6, 8), np.float32)}
    chunk = policy.act(Observation(text="", embodiment="umi", latents=latents))
    assert policy.facts()["rate_hz"] == 20
    np.testing.assert_allclose(chunk.t_s[:2], [0.05, 0.1])


def test_nothing_scored_is_no_figure() -> None:
    assert error_over_horizon([], np.arange(4.0)) is None


def test_latencies_are_told() -> None:
    assert latency_text([], 2) == "no requests, 2 connections refused"
    said = latency_text([0.01] * 18 + [0.5, 1.0], 0)
    assert re.match(r"20 requests, median 10\.0 ms, 95th percentile 1000\.0 ms", said)


def test_the_policy_of_a_run_is_served(run: Path) -> None:
    """From the message to the targets and back, with the network that the run left."""
    policy = Policy.load(run, device="cpu")
    latents, history = np.zeros((2, 6, 8), np.float32), np.zeros((3, 10), np.float32)
    history[:, [3, 7]] = 1.0
    message = {
        "prompt": "trace circle 1",
        "embodiment": "umi",
        "observation/latents/front": latents,
        "observation/history": history,
    }
    seen = Observation(text="trace circle 1", embodiment="umi", latents={"front": latents}, history=history)  # fmt: skip

    async def conversation() -> dict[str, Any]:
        made = PolicyServer(policy, ServerSettings(port=0), monotonic_s=time.monotonic)
        server = await made.start()
        port = next(iter(server.sockets)).getsockname()[1]
        async with server, connect(f"ws://127.0.0.1:{port}") as client:
            assert unpacked(await client.recv()) == policy.facts()
            await client.send(packed(message))
            return unpacked(await client.recv())

    answer = asyncio.run(conversation())
    np.testing.assert_allclose(answer["actions"], policy.act(seen).targets, atol=1e-6)


@pytest.mark.slow
def test_the_encoder_of_a_run_is_found_by_its_id() -> None:
    """Of all settings the one that the id is a digest of; the tokens are those of `eicorpus latents`."""
    source = WeightSource(untrained_seed=3)
    choice = EncoderChoice(model="dinov3_tiny", source=source, fit="crop", storage="int8", keeps_prefix=True, grid_stride=6, device="cpu")  # fmt: skip
    opened = ImageEncoder.open(choice)
    picture = np.random.default_rng(0).integers(0, 255, (2, 90, 120, 3), dtype=np.uint8)
    encode = encoder_for(opened.id, weights=None, hub_id=None, device="cpu")
    assert encode is not None
    square = np.stack([fitted(each, choice.preprocessing) for each in picture])
    np.testing.assert_array_equal(encode(picture), opened.encode(square).float().numpy())
    with pytest.raises(ConfigError, match="are not those of"):
        encoder_for("dinov3_tiny_untrained3-0123456789ab", weights=None, hub_id=None, device="cpu")


def test_an_encoder_without_weights_is_none() -> None:
    assert encoder_for("dinov3_vits16-0123456789ab", weights=None, hub_id=None, device="cpu") is None  # fmt: skip
    assert model_of("dinov3_tiny_untrained12-0123456789ab") == ("dinov3_tiny", 12)
    assert model_of("dinov2_vits14-0123456789ab") == ("dinov2_vits14", None)
