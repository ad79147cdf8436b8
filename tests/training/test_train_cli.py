"""`eicorpus train` as a person runs it: to the end, interrupted, killed, gone on with, refused."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.annotated_corpus import build_manifest
from jobs.cli import app
from jobs.commands import train_run
from jobs.commands.train import changes_from
from jobs.ui import output, train_report
from schemas.errors import ConfigError, PipelineError, SourceError
from schemas.manifest import load
from schemas.stored_size import SHORT_SIDE_PX
from tests.training.corpus import ENCODER, Trainable
from training.conditioning.hashed_words import WordsConditioner
from training.data.action_layout import ACTION_WIDTH
from training.policy.policy import Policy
from training.recipe import load_recipe
from training.run.checkpoint import WEIGHTS, checkpoint_of, checkpoints
from training.run.metrics import scalars
from training.run.mishaps import Diverged
from training.run.parallel import Ranks
from training.run.run_folder import LOG_FILE, RunFacts, ask_to_stop, load_result, load_run
from training.run.session import TrainRequest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SMALL = (
    "architecture.width=16", "architecture.num_layers=1", "architecture.num_heads=2", "text.width=8",
    "run.batch_size=8", "run.log_every=1", "run.checkpoint_every=2", "data.encoder=tiny_vit",
    "run.num_steps=6", "optimiser.warmup_steps=2", "architecture.dropout=0.1",
)  # fmt: skip


def words(manifest: Path, out: Path, *more: str, small: tuple[str, ...] = SMALL) -> list[str]:
    sets = [word for each in small for word in ("--set", each)]
    return ["train", str(manifest), "--out", str(out), "--device", "cpu", "--json", *sets, *more]  # fmt: skip


def train(manifest: Path, out: Path, *more: str) -> dict[str, Any]:
    """What `--json` says."""
    done = CliRunner().invoke(app, words(manifest, out, *more), standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return dict(json.loads(done.stdout)["result"])


def weights_of(run: Path) -> bytes:
    return (checkpoint_of(run).folder / WEIGHTS).read_bytes()


def run_facts(run: Path) -> RunFacts:
    found = load_run(run)
    assert found is not None
    return found[0]


def test_a_log_has_steps_and_loss(
    trainable: Trainable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the lines come is tested in tests/jobs/test_progress.py."""
    log = io.StringIO()
    monkeypatch.setattr(train_run, "stderr", Console(file=log, force_terminal=False))
    answer = train(trainable.manifest, tmp_path / "run")
    line = re.fullmatch(
        r"train 6/6 \(100%\) after [0-9:]+ · loss ([0-9.]+) · [0-9,]+ samples/s · MFU [0-9.]+% · waiting for data [0-9]+%",
        log.getvalue().splitlines()[-1],
    )
    assert line is not None, log.getvalue()
    assert float(line[1]) == pytest.approx(answer["loss"], abs=1e-4)


def test_a_run_that_is_gone_on_with_is_the_run_in_one(trainable: Trainable, tmp_path: Path) -> None:
    whole = train(trainable.manifest, tmp_path / "one")
    assert (whole["step"], whole["resumed_from"], whole["interrupted"]) == (6, 0, False)
    train(trainable.manifest, tmp_path / "two", "--until", "3")
    rest = train(
        trainable.manifest, tmp_path / "two", "--set", "run.log_every=2", "--loader-workers", "0"
    )
    assert (rest["step"], rest["resumed_from"]) == (6, 3)
    names = [path.name for path in sorted(checkpoint_of(tmp_path / "one").folder.iterdir())]
    for name in names:
        one, two = (checkpoint_of(tmp_path / run).folder / name for run in ("one", "two"))
        if name != "state.json":  # `log_every` is there
            assert one.read_bytes() == two.read_bytes(), name
    again = train(trainable.manifest, tmp_path / "one")
    assert (again["step"], again["resumed_from"]) == (6, 6)
    same = ("loss", "loss_by_task", "samples_per_s", "mfu")  # and what came of it is still told
    assert [again[key] for key in same] == [whole[key] for key in same]
    assert load_result(tmp_path / "one") == again


PROCESS = ("--set", "run.loader=process", "--loader-workers", "2")


def test_batches_of_another_process_give_the_same_run(trainable: Trainable, tmp_path: Path) -> None:
    """In parts, gone on with, and by a run that began with threads. Ctrl-C reaches every process of a terminal: the run alone heeds it."""
    in_parts = ("--set", "run.accumulate=2")
    train(trainable.manifest, tmp_path / "one", *in_parts)
    command = words(trainable.manifest, tmp_path / "two", *in_parts, *PROCESS)
    program = subprocess.Popen(
        [sys.executable, "-m", "jobs", *command, "--set", "run.num_steps=4000"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_checkpoints(program, tmp_path / "two", 1)
    family = psutil.Process(program.pid).children(recursive=True)
    assert any("spawn_main" in " ".join(each.cmdline()) for each in family)
    os.killpg(program.pid, signal.SIGINT)
    _, said = program.communicate(timeout=200)
    assert program.returncode == 130, said
    assert "Traceback" not in said
    assert "started again" not in said
    assert psutil.wait_procs(family, timeout=20)[1] == []
    stopped = checkpoint_of(tmp_path / "two").state.step
    more = ("--set", "run.num_steps=4000", *in_parts, "--until", str(stopped + 2))
    rest = train(trainable.manifest, tmp_path / "two", *more)
    assert (rest["resumed_from"], rest["data_wait_share"] > 0) == (stopped, True)
    whole = train(trainable.manifest, tmp_path / "three", *more, *PROCESS)
    assert whole["step"] == stopped + 2
    assert weights_of(tmp_path / "two") == weights_of(tmp_path / "three")
    train(trainable.manifest, tmp_path / "four", *in_parts, *PROCESS, "--until", "3")
    assert train(trainable.manifest, tmp_path / "four", *in_parts, *PROCESS)["resumed_from"] == 3
    assert weights_of(tmp_path / "one") == weights_of(tmp_path / "four")


def wait_for_checkpoints(program: subprocess.Popen[Any], out: Path, num: int) -> None:
    until = time.monotonic() + 200
    while len(checkpoints(out)) < num and time.monotonic() < until:
        assert program.poll() is None
        time.sleep(0.05)


def test_a_checkpoint_says_which_of_the_state_was_measured(
    trainable: Trainable, tmp_path: Path
) -> None:
    """Of the embodiments that act; a run without a state keeps nothing, and one that starts from a checkpoint of before has it too."""
    train(trainable.manifest, tmp_path / "plain", "--until", "1")
    assert checkpoint_of(tmp_path / "plain").state.measured_state == {}
    with_state = ("--set", "data.with_state=true")
    train(trainable.manifest, tmp_path / "run", *with_state, "--until", "1")
    slices = ("gripper_opening", "position_m", "rot6d_cols")
    measured = {
        "umi": tuple(f"left.{name}" for name in slices),
        "umi_bimanual": tuple(f"{side}.{name}" for side in ("left", "right") for name in slices),
    }
    found = checkpoint_of(tmp_path / "run")
    assert found.state.measured_state == measured
    state = found.folder / "state.json"
    state.write_text(json.dumps({k: v for k, v in json.loads(state.read_text()).items() if k != "measured_state"}))  # fmt: skip
    assert Policy.load(tmp_path / "run", device="cpu").bodies["umi"].not_measured == frozenset()
    train(trainable.manifest, tmp_path / "run", *with_state, "--until", "2")
    assert checkpoint_of(tmp_path / "run").state.measured_state == measured


def test_a_checkpoint_says_how_large_stored_pictures_were(
    trainable: Trainable, tmp_path: Path
) -> None:
    """Pictures of the corpus are 48 x 32; one that does not say it was trained on those of the default."""
    train(trainable.manifest, tmp_path / "run", "--until", "1")
    found = checkpoint_of(tmp_path / "run")
    assert found.state.short_side_px == 32
    assert Policy.load(tmp_path / "run", device="cpu").short_side_px == 32
    state = found.folder / "state.json"
    state.write_text(json.dumps({k: v for k, v in json.loads(state.read_text()).items() if k != "short_side_px"}))  # fmt: skip
    assert Policy.load(tmp_path / "run", device="cpu").short_side_px == SHORT_SIDE_PX


@pytest.mark.smoke
def test_the_log_has_every_step_once(trainable: Trainable, tmp_path: Path) -> None:
    train(trainable.manifest, tmp_path, "--until", "3")
    log = tmp_path / LOG_FILE
    line = json.loads(log.read_text().splitlines()[-1])
    log.write_text(log.read_text() + json.dumps(line | {"step": 5}) + '\n{"step": 6, "lo')
    train(trainable.manifest, tmp_path)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    first = lines[0]
    for key in ("loss", "lr", "gradient_norm", "samples_per_s", "mfu", "data_wait_share", "elapsed_s"):  # fmt: skip
        assert first[key] >= 0
    assert sum(first["num_by_task"].values()) == 8
    assert first["loss_by_tier"].keys() <= {"high", "low", "actionless"}
    assert first["loss_by_embodiment"].keys() <= {"umi", "umi_bimanual", "human_video"}
    assert "loss_by_task/policy" in dict(scalars(first))
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_signal_finishes_the_step_saves_and_goes_on_later(
    trainable: Trainable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(trainable.manifest, tmp_path / "one")

    def stop(out: Path, line: dict[str, Any]) -> None:
        if line["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(train_report, "append_log", stop)
        command = words(trainable.manifest, tmp_path / "two")
        stopped = CliRunner().invoke(app, command, standalone_mode=False)
    assert stopped.return_value == 130
    assert not stopped.stdout
    assert checkpoint_of(tmp_path / "two").state.step == 4  # it came while step 3 was told
    assert train(trainable.manifest, tmp_path / "two")["resumed_from"] == 4
    assert weights_of(tmp_path / "one") == weights_of(tmp_path / "two")


def test_a_file_in_the_run_stops_it_as_a_signal_does_and_a_start_forgets_it(
    trainable: Trainable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_to_stop(tmp_path / "run")  # of the run before, as it were
    with monkeypatch.context() as patch:
        patch.setattr(train_report, "append_log", lambda out, line: ask_to_stop(out))
        command = words(trainable.manifest, tmp_path / "run")
        stopped = CliRunner().invoke(app, command, standalone_mode=False)
    assert stopped.return_value == 130
    assert checkpoint_of(tmp_path / "run").state.step == 2  # it came while step 1 was told
    monkeypatch.setenv(
        "TORCHELASTIC_RESTART_COUNT", "1"
    )  # torchrun begins it again: the wish stands
    again = CliRunner().invoke(app, command, standalone_mode=False)
    assert again.return_value == 130
    assert checkpoint_of(tmp_path / "run").state.step == 3


def test_a_killed_run_goes_on_from_its_last_whole_checkpoint(
    trainable: Trainable, tmp_path: Path
) -> None:
    out, many = tmp_path / "killed", "run.num_steps=4000"
    command = words(trainable.manifest, out, "--set", many)
    program = subprocess.Popen(
        [sys.executable, "-m", "jobs", *command],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    wait_for_checkpoints(program, out, 2)
    program.kill()
    program.wait()
    found = checkpoint_of(out).state.step
    assert found >= 4
    end = str(found + 3)
    assert train(trainable.manifest, out, "--set", many, "--until", end)["resumed_from"] == found
    assert not list((out / "checkpoints").glob(".*"))
    train(trainable.manifest, tmp_path / "one", "--set", many, "--until", end)
    assert weights_of(tmp_path / "one") == weights_of(out)


def test_another_recipe_is_refused_and_says_what_differs(
    trainable: Trainable, tmp_path: Path
) -> None:
    train(trainable.manifest, tmp_path, "--until", "2")
    with pytest.raises(ConfigError, match=r"optimiser.lr 0.002 -> 0.5.*--allow-other-recipe") as e:
        train(trainable.manifest, tmp_path, "--set", "optimiser.lr=0.5")
    assert "run." not in str(e.value)
    done = train(trainable.manifest, tmp_path, "--set", "optimiser.lr=0.5", "--allow-other-recipe")
    assert done["resumed_from"] == 2


def test_weights_are_not_given_another_text(
    trainable: Trainable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a language model had told the words, which is another one now: neither to go on nor to evaluate."""
    with monkeypatch.context() as patch:
        patch.setattr(WordsConditioner, "text_id", "text_x-0123456789ab")
        train(trainable.manifest, tmp_path, "--until", "1")
    with pytest.raises(ConfigError, match="was trained with text_x-0123456789ab"):
        train(trainable.manifest, tmp_path)
    command = ["eval", str(tmp_path), "--device", "cpu", "--max-samples", "1"]
    done = CliRunner().invoke(app, command, standalone_mode=False)
    assert "was trained with text_x-0123456789ab" in str(done.exception)


def test_another_manifest_is_refused_and_says_which(trainable: Trainable, tmp_path: Path) -> None:
    mine = trainable.copied(tmp_path / "corpus")
    train(mine.manifest, tmp_path / "run", "--until", "2")
    other = build_manifest(mine.corpus, "robots", where="embodiment <> 'human_video'")
    with pytest.raises(ConfigError, match=r"started with manifest m \(.*not robots .*--allow-other-manifest"):  # fmt: skip
        train(other, tmp_path / "run")
    done = train(other, tmp_path / "run", "--allow-other-manifest")
    assert done["resumed_from"] == 2
    assert checkpoint_of(tmp_path / "run").state.embodiments == ("human_video", "umi", "umi_bimanual")  # fmt: skip


def test_fine_tuning_adds_a_layer_for_a_new_body(trainable: Trainable, tmp_path: Path) -> None:
    mine = trainable.copied(tmp_path / "corpus")
    robots = build_manifest(mine.corpus, "umi", where="embodiment = 'umi'")
    train(robots, tmp_path / "base")
    with pytest.raises(ConfigError, match="unknown embodiment"):
        train(mine.manifest, tmp_path / "base", "--allow-other-manifest")
    sets = ("run.batch_size=8", "run.num_steps=4", "run.log_every=1", "run.checkpoint_every=4", "optimiser.lr=1e-12", "optimiser.min_lr=0")  # fmt: skip
    tuned = ["--recipe", "finetune", "--init-from", str(tmp_path / "base")]
    done = CliRunner().invoke(
        app, words(mine.manifest, tmp_path / "tuned", *tuned, small=sets), standalone_mode=False
    )
    assert done.exception is None
    before, after = checkpoint_of(tmp_path / "base"), checkpoint_of(tmp_path / "tuned")
    assert before.state.embodiments == ("umi",)
    assert after.state.embodiments == ("umi", "human_video", "umi_bimanual")
    assert after.state.model.width == 16
    assert len(before.state.model.action_std) == ACTION_WIDTH
    assert after.state.model.action_std == before.state.model.action_std
    assert run_facts(tmp_path / "tuned").init_from == str(tmp_path / "base")
    one, two = before.tensors(), after.tensors()
    for name, value in one.items():
        torch.testing.assert_close(two[name][: len(value)], value, atol=1e-6, rtol=1e-4)
    scale = before.normaliser_state()["scale"]
    assert torch.equal(after.normaliser_state()["scale"][:1], scale)
    assert after.normaliser_state()["scale"][2].any()


def test_numbers_that_are_none_stop_the_run_with_the_samples_named(
    trainable: Trainable, tmp_path: Path
) -> None:
    with pytest.raises(Diverged, match=r"the loss is not finite for .* at timestep") as e:
        train(trainable.manifest, tmp_path, "--set", "optimiser.lr=1e30")
    assert e.value.exit_code == 1
    assert any(uid in str(e.value) for uid in trainable.uids.values())
    for found in checkpoints(tmp_path):
        assert all(x.isfinite().all() for x in found.tensors().values())


def spoil_rows(made: Trainable) -> None:
    path = made.manifest / "manifest.parquet"
    other = build_manifest(made.corpus, "less", where="length > 36")
    path.write_bytes((other / "manifest.parquet").read_bytes())


def spoil_statistics(made: Trainable) -> None:
    from schemas.manifest import load_facts, page_of

    facts = load_facts(made.manifest)
    assert facts.statistics is not None
    other = facts.statistics.model_copy(update={"representation": "absolute_0"})
    page = page_of(facts.model_copy(update={"statistics": other}))
    (made.manifest / "manifest.json").write_text(json.dumps(page))


@pytest.mark.parametrize(
    ("spoil", "more", "message"),
    [
        (spoil_rows, (), r"digest .*eicorpus manifest build m"),
        (spoil_statistics, (), r"absolute_0; expected delta_body_rotvec_1; run `eicorpus manifest"),
        (None, ("--set", "data.encoder=siglip2_base"), r"siglip2_base.*eicorpus latents"),
        (None, ("--set", "data.future_s=0.5"), r"0.5 s is not a multiple .*use 0.3 or 0.6"),
        (None, ("--set", "text={kind: cached, encoder: qwen}"), r"eicorpus latents text .* --vlm FOLDER"),
        (None, ("--set", "run.accumulate=16"), r"8 is not divisible by 16"),
        (None, ("--recipe", "huge"), r"no recipe 'huge'; expected one of causal_tiny, finetune"),
        (None, ("--init-from", "nowhere"), r"no whole checkpoint; available steps: none"),
        (None, ("--set", "run"), r"expected KEY=VALUE"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_the_first_step(
    trainable: Trainable, tmp_path: Path, spoil: Any, more: tuple[str, ...], message: str
) -> None:
    made = trainable
    if spoil is not None:
        made = trainable.copied(tmp_path / "corpus")
        spoil(made)
    with pytest.raises(PipelineError, match=message) as e:
        train(made.manifest, tmp_path / "run", *more)
    assert e.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_a_dry_run_tells_and_touches_nothing(
    trainable: Trainable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []  # who tells the text, between ranks
    monkeypatch.setattr("training.run.build.check_same_text", lambda text, _: compared.append(text))  # fmt: skip
    found = train(trainable.manifest, tmp_path / "run", "--dry-run")
    assert compared == [""]
    assert not (tmp_path / "run").exists()
    parts = found["parameters"]
    assert parts["total"] == sum(n for part, n in parts.items() if part != "total")
    assert found["tokens"] == {"registers": 4, "image": 6, "action": 20, "joint": 30, "text": 4}
    assert found["memory"]["state"] == 20 * parts["total"]
    assert found["memory"]["total"] == sum(
        n for what, n in found["memory"].items() if what != "total"
    )
    assert found["accumulate"] == 1
    assert found["memory_by_parts"].keys() == {"1", "2", "4", "8"}
    assert found["traffic"] == {"within_machine": 0, "between_machines": 0, "shard_ranks": 1, "copies": 1}  # fmt: skip
    assert found["hours"] > 0
    assert found["counts"]
    assert found["device"] == "cpu"


MACHINES = ("--dry-run", "--ray", "--ray-workers", "48")


def test_a_dry_run_is_of_the_ranks_that_are_planned(trainable: Trainable, tmp_path: Path) -> None:
    """Of 48 ranks on machines of 8, by hand: each has two samples and an eighth of the state, and all-reduces its piece across machines. No Ray is asked."""
    more = ("--set", "run.parallel=hsdp", "--set", "run.batch_size=96", "--set", "run.accumulate=2")
    alone = train(trainable.manifest, tmp_path, "--dry-run", *more)
    found = train(trainable.manifest, tmp_path, *MACHINES, *more)
    num = found["parameters"]["total"]
    assert (found["world_size"], found["local_world_size"]) == (48, 8)
    assert (found["traffic"]["shard_ranks"], found["traffic"]["copies"]) == (8, 6)
    assert found["traffic"]["between_machines"] == 2 * 4 * num // 8 * 5 // 6
    assert found["traffic"]["within_machine"] > 4 * num * 7 // 8
    assert found["memory_by_parts"].keys() == {"1", "2"}
    assert found["memory"]["state"] == alone["memory"]["state"] // 8
    assert found["memory"]["batch"] == alone["memory"]["batch"] // 48
    assert found["memory"]["unreduced"] == 4 * (num - num // 8)
    assert found["counts"] == alone["counts"]
    assert train_report._processes(Ranks(world_size=48, local_world_size=8)) == "48 (8 per machine)"
    of_four = train(trainable.manifest, tmp_path, *MACHINES, *more, "--ranks-per-machine", "4")
    assert (of_four["traffic"]["shard_ranks"], of_four["traffic"]["copies"]) == (4, 12)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((*MACHINES, "--set", "run.batch_size=64"), r"64 is not divisible by 48 ranks"),
        ((*MACHINES, "--set", "run.batch_size=48", "--set", "run.accumulate=2"), r"1 samples of a rank .* 2 parts"),
        ((*MACHINES, "--set", "run.batch_size=48", "--set", "run.parallel=hsdp", "--ranks-per-machine", "5"), r"48 ranks are not divisible into groups of 5"),
        (("--dry-run", "--ranks-per-machine", "8"), r"needs --dry-run and --ray-workers"),
        (("--ray-workers", "48", "--ranks-per-machine", "8"), r"needs --dry-run and --ray-workers"),
    ],
)  # fmt: skip
def test_a_dry_run_refuses_what_the_planned_ranks_could_not(
    trainable: Trainable, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(trainable.manifest, tmp_path, *more)


@pytest.mark.parametrize(
    ("kind", "num_gpus", "world_size", "is_told"),
    [("cuda", 4, "1", True), ("cuda", 1, "1", False), ("cpu", 4, "1", False), ("cuda", 4, "4", False)],
)  # fmt: skip
def test_one_process_on_many_gpus_is_told_the_command_for_all(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    num_gpus: int,
    world_size: str,
    is_told: bool,
) -> None:
    request = TrainRequest(manifest=tmp_path, recipe=load_recipe("tiny"), out=tmp_path / "run")
    told: list[str] = []
    monkeypatch.setenv("WORLD_SIZE", world_size)
    monkeypatch.setattr(sys, "argv", ["/bin/eicorpus", "train", "--out", "my run"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    monkeypatch.setattr(train_run, "device_for", lambda ranks, name: torch.device(kind, 0))
    monkeypatch.setattr(train_run, "joined", lambda ranks, device: nullcontext())
    monkeypatch.setattr(train_run, "train", lambda *a, **k: {"interrupted": False})
    monkeypatch.setattr(output.stderr, "print", lambda said, **style: told.append(said))
    train_run.run_here(request, wandb=None, as_json=True)
    command = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT=900 torchrun --nproc-per-node 4 -m jobs train --out 'my run'"
    assert told == ([f"1 of 4 GPUs is used; to use all, run: {command}"] if is_told else [])


def test_a_folder_is_one_run_of_wandb_and_another_folder_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def init(**given: Any) -> Any:
        begun.append(given["id"])
        return SimpleNamespace(
            finish=lambda: None, log=lambda *a, **k: None, define_metric=lambda *a, **k: None
        )

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    for name in ("a", "b", "a"):
        (tmp_path / name).mkdir(exist_ok=True)
        if name == "b":  # power went as it was written
            (tmp_path / name / train_report.WANDB_ID).touch()
        request = TrainRequest(manifest=tmp_path, recipe=load_recipe("tiny"), out=tmp_path / name)
        session: Any = SimpleNamespace(request=request, first_step=0)
        with ExitStack() as stack:
            train_report.sinks_of(session, "project", stack)
    assert begun[0] == begun[2] != begun[1]
    assert len(begun[0]) == len(begun[1]) == 16


class WandbRun:
    """As W&B takes lines: one of a step below the last it was given by `step=` is dropped; without it each has the next step."""

    def __init__(self) -> None:
        self.at, self.lines, self.axes = 0, list[dict[str, float]](), dict[str, str | None]()

    def log(self, line: dict[str, float], step: int | None = None) -> None:
        step = self.at + 1 if step is None else step
        if step >= self.at:
            self.lines.append(line)
        self.at = max(self.at, step)

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.axes[name] = step_metric

    def finish(self) -> None: ...


def test_what_wandb_is_told_of_a_step_again_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed after step 30 resumes from step 10; its lines are drawn over the step of the run."""
    run = WandbRun()
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **given: run))
    request = TrainRequest(manifest=tmp_path, recipe=load_recipe("tiny"), out=tmp_path)
    for first, steps in ((0, (10, 20, 30)), (10, (20, 30))):
        session: Any = SimpleNamespace(request=request, first_step=first)
        with ExitStack() as stack:
            *_, sink = train_report.sinks_of(session, "project", stack)
            for step in steps:
                sink({"step": step, "loss": 1.0, "lara": {"perplexity": 2.0}})
    assert [line["step"] for line in run.lines] == [10, 20, 30, 20, 30]
    assert run.lines[0] == {"step": 10, "loss": 1.0, "lara/perplexity": 2.0}
    assert run.axes == {"step": None, "*": "step"}


def test_set_keys_become_a_tree_of_yaml() -> None:
    found = changes_from(
        ["run.batch_size=96", "data.past_s=[-0.6, 0.0]", "text={kind: none}"], steps=5, workers=None
    )
    assert found == {
        "run": {"batch_size": 96, "num_steps": 5},
        "data": {"past_s": [-0.6, 0.0]},
        "text": {"kind": "none"},
    }
    with pytest.raises(ConfigError, match="set as a whole"):
        changes_from(["seed=1", "seed.x=2"], steps=None, workers=None)


@pytest.mark.parametrize("loader", ["threads", "process"])
def test_a_run_goes_on_past_a_broken_file_and_lists_it(
    trainable: Trainable, tmp_path: Path, loader: str
) -> None:
    """Ended by it first; the same command with the key that the message names goes on."""
    mine = trainable.copied(tmp_path / "corpus")
    manifest = load(mine.manifest).of_split("train")
    first, *others = map(manifest.row, range(len(manifest)))  # a start reads the file of the first
    row = next(each for each in others if each.uid != first.uid and "policy" in each.tasks)
    views = [x for x in row.latents if x.encoder_id == ENCODER]
    path = mine.corpus / min(views, key=lambda x: x.camera).path
    path.write_bytes(path.read_bytes()[:-9])
    by = ("--set", f"run.loader={loader}")
    with pytest.raises(SourceError, match=rf"{path.name}.*broken sample") as caught:
        train(mine.manifest, tmp_path / "run", *by)
    assert (caught.value.exit_code, caught.value.code) == (1, "unreadable")
    found = train(mine.manifest, tmp_path / "run", *by, "--set", "run.max_bad_samples=100")
    assert found["step"] == 6
    lines = (tmp_path / "run" / "bad.jsonl").read_text().splitlines()
    assert len(lines) == found["bad_samples"] > 0
    assert all(path.name in json.loads(line)["error"] for line in lines)
