"""Ray Train does what a run of one's own does, and stops as that stops."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from schemas.errors import ConfigError
from tests.training.corpus import Trainable
from tests.training.running import recipe
from tests.training.test_train_cli import train, weights_of, words
from training.run.checkpoint import checkpoint_of
from training.run.parallel import BACKENDS
from training.run.run_folder import LOG_FILE, ask_to_stop, is_stop_requested, write_result
from training.run.session import TrainRequest

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Train's use of Ray Data


class NoCluster:
    is_ours = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def connect(self) -> None:
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_workers_through_the_folder_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Without Ray: what stands for it waits for the file, as its first worker does."""
    from jobs.commands import train_ray

    class Fit:
        def __init__(self, *args: Any, train_loop_config: dict[str, Any], **kwargs: Any) -> None:
            self.request: TrainRequest = train_loop_config["request"]

        def fit(self) -> None:
            # In the main thread Ray takes SIGINT for itself, and aborts.
            assert threading.current_thread() is not threading.main_thread()
            out = self.request.out
            assert not is_stop_requested(out)
            os.kill(os.getpid(), number)
            until = time.monotonic() + 20
            while not is_stop_requested(out) and time.monotonic() < until:
                time.sleep(0.005)
            write_result(out, {"interrupted": is_stop_requested(out)})
            told = (self.request.manifest, out, self.request.init_from, self.request.cache)
            assert all(path is not None and path.is_absolute() for path in told)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_ray, "RayExecutor", NoCluster)
    monkeypatch.setattr(train_ray, "TorchTrainer", Fit)
    monkeypatch.setattr("ray.cluster_resources", dict)
    ask_to_stop(tmp_path / "run")  # of the run before
    paths = {name: Path(name) for name in ("manifest", "init_from", "cache")}
    request = TrainRequest(recipe=recipe(), out=Path("run"), **paths)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        train_ray.run_on_ray(request, 1, address=None, wandb=None, as_json=True)


@pytest.mark.parametrize(
    ("device", "num_gpus", "is_gpu"),
    [("auto", 0, False), ("auto", 4, True), ("auto", 8, True), ("cpu", 3, False), ("cuda", 3, True)],
)  # fmt: skip
def test_workers_get_gpus_where_there_is_one_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, num_gpus: int, is_gpu: bool
) -> None:
    fitted = fitted_with(tmp_path, monkeypatch, device, num_gpus)
    assert fitted["scaling_config"].use_gpu == is_gpu
    assert fitted["torch_config"].backend == BACKENDS["cuda" if is_gpu else "cpu"]
    assert fitted["train_loop_config"]["request"].device == ("cuda" if is_gpu else "cpu")


@pytest.mark.parametrize("num_gpus", [1, 3])
def test_fewer_gpus_than_workers_are_not_left_idle_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_gpus: int
) -> None:
    with pytest.raises(ConfigError, match=rf"4 workers need a GPU each, .* has {num_gpus} now.* --ray-workers {num_gpus},"):  # fmt: skip
        fitted_with(tmp_path, monkeypatch, "auto", num_gpus)


def test_fewer_cpus_than_workers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ConfigError, match=r"4 workers need a CPU .* has 2 now; use --ray-workers 2"
    ):
        fitted_with(tmp_path, monkeypatch, "cpu", 0, num_cpus=2)
    assert fitted_with(tmp_path, monkeypatch, "cpu", 0, num_cpus=4)["scaling_config"]


def fitted_with(
    out: Path, monkeypatch: pytest.MonkeyPatch, device: str, num_gpus: int, *, num_cpus: int = 8
) -> dict[str, Any]:
    """What Ray Train is asked for with four workers on a cluster of so many GPUs and CPUs."""
    from jobs.commands import train_ray

    given: dict[str, Any] = {}

    class Fit:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            given.update(kwargs)

        def fit(self) -> None:
            write_result(out, {"interrupted": False})

    monkeypatch.setattr(train_ray, "RayExecutor", NoCluster)
    monkeypatch.setattr(train_ray, "TorchTrainer", Fit)
    resources = {"CPU": num_cpus, "GPU": num_gpus}
    there = {name: count for name, count in resources.items() if count}
    monkeypatch.setattr("ray.cluster_resources", lambda: there)
    request = TrainRequest(manifest=out, recipe=recipe(), out=out, device=device)
    train_ray.run_on_ray(request, 4, address=None, wandb=None, as_json=True)
    return given


@pytest.mark.slow
@pytest.mark.ray
def test_ray_train_stops_at_a_signal_and_gives_the_same_weights(
    trainable: Trainable, tmp_path: Path, ray_cluster: None
) -> None:
    """One worker, on the cluster that the tests share; two ranks are tested without Ray."""
    there, many = tmp_path / "there", ("--set", "run.num_steps=4000")

    def stop() -> None:
        until = time.monotonic() + 60
        while not (there / LOG_FILE).exists() and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    with ThreadPoolExecutor(1) as beside:
        beside.submit(stop)
        command = words(trainable.manifest, there, *many, "--ray")
        stopped = CliRunner().invoke(app, command, standalone_mode=False)
    assert stopped.return_value == 130
    step = checkpoint_of(there).state.step
    assert 1 <= step < 4000
    here = train(trainable.manifest, tmp_path / "here", *many, "--until", str(step))
    assert here["step"] == step
    assert weights_of(tmp_path / "here") == weights_of(there)
