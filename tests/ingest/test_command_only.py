"""A gripper that is commanded and never measured, from raw data to training: ten numbers of action, a masked state.

The arm stops for two seconds while the jaws close, so a reader that looks at the state alone calls the grasp a pause.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from adapters.base import SourceInfo
from ingest.corpus import snapshot
from jobs.demo.raw.oxe import jpeg
from schemas.episode import (
    Camera,
    EncodedImages,
    Episode,
    EpisodeRef,
    Instruction,
    Licence,
    Stream,
    gripper_channel,
    pose_channel,
)
from schemas.manifest import load
from schemas.rate import instants_ns
from tests.curation.manifest_cases import build, invoke
from tests.faults.runs import run
from tests.ingest.verify_corpus import rewrite_column
from tests.peer.reader import PEER, run_check
from training.data.action_layout import part_slots
from training.data.actions import open_actions

SOURCE = "tests.ingest.test_command_only:Told"
GRIPPER = "left.gripper_opening"
K = 60  # timesteps: 2 s of way, 2 s of grasp, 2 s of way
GRASP = 30  # the command to close is due here


class Told:
    """Two episodes of one arm at 10 Hz; both poses are recorded, of the gripper the command alone."""

    name: ClassVar[str] = "told"
    version: ClassVar[int] = 1
    container: ClassVar[str] = "none"
    about: ClassVar[str] = "a gripper that is commanded and not measured"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        return SourceInfo(source="told", dataset="told", licence=Licence(name="CC0"))

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        for name in "ab":
            yield EpisodeRef(source="told", dataset="told", episode_id=name, root=str(root))

    def load(self, ref: EpisodeRef) -> Episode:
        t_ns = instants_ns(K + 1, Fraction(10))
        seen, due = t_ns[:-1], t_ns[1:]
        T = poses(K + 1)
        opening = np.where(np.arange(1, K + 1) < GRASP, 1.0, 0.0)
        return Episode(
            ref=ref,
            embodiment="panda_hand",
            rate_hz=Fraction(10),
            streams=(
                Stream(spec=pose_channel("left.T_base_eef"), t_ns=seen, values=T[:-1]),
                Stream(spec=pose_channel("command.left.T_base_eef"), t_ns=due, values=T[1:]),
                Stream(
                    spec=gripper_channel(f"command.{GRIPPER}", binary=True),
                    t_ns=due,
                    values=opening[:, None],
                ),
            ),
            cameras=(Camera(name="front", frames=EncodedImages(images=pictures()), t_ns=seen),),
            instructions=(Instruction(text="Put the red box on the plate."),),
        )


def poses(count: int) -> np.ndarray:
    """[count, 4, 4]: 5 cm/s to the left, but for the two seconds of the grasp."""
    steps = np.array([0.0 if 20 <= k < 40 else 0.005 for k in range(count)])
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, 0, 3], T[:, 1, 3] = 0.4, np.concatenate([[0], np.cumsum(steps)[:-1]])
    return T


def pictures() -> tuple[bytes, ...]:
    rng = np.random.default_rng(0)
    return tuple(jpeg(rng.integers(40, 215, (48, 64, 3), dtype=np.uint8)) for _ in range(K))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("told")
    (root / "raw").mkdir()
    assert run(root / "raw", root / "corpus", source=SOURCE).committed == 2
    for words in (["measure", "--workers", "0"], ["tier"]):
        assert invoke(words[0], str(root / "corpus"), *words[1:]).exit_code == 0
    assert build(root / "corpus", "all").exit_code == 0
    return root / "corpus"


def rows(corpus: Path, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = snapshot.load(corpus).read(corpus, table).to_pylist()
    return found


def measured(corpus: Path, name: str) -> list[float]:
    return [row["value"] for row in rows(corpus, "measurements") if row["name"] == name]


def test_the_catalog_says_that_the_gripper_is_not_measured(corpus: Path) -> None:
    for row in rows(corpus, "episodes"):
        assert row["command_only"] == [GRIPPER]
        assert (row["action_source"], row["action_coverage"]) == ("commanded", 1.0)
        assert "policy" in row["supervises"], row["supervision_limits"]
        assert row["num_gaps"] == 0


def test_verify_finds_nothing_and_notices_a_state_that_nobody_measured(
    corpus: Path, tmp_path: Path
) -> None:
    answer = json.loads(invoke("verify", str(corpus), "--json").stdout)["result"]
    assert answer["findings"] == []
    damaged = tmp_path / "corpus"
    shutil.copytree(corpus, damaged)
    [dataset] = (damaged / "datasets/told").iterdir()
    file = dataset / "data/chunk-000/episode_000000.parquet"
    rewrite_column(file, "observation.valid", np.ones_like)
    answer = json.loads(invoke("verify", str(damaged), "--json").stdout)["result"]
    assert "which is commanded only" in str(answer["findings"])


def test_a_grasp_by_command_is_no_pause(corpus: Path) -> None:
    assert measured(corpus, "state_valid_share") == [1.0, 1.0]
    assert measured(corpus, "action_valid_share") == [1.0, 1.0]
    assert measured(corpus, "gripper_range") == [1.0, 1.0]
    assert measured(corpus, "gripper_toggles_per_s")[0] > 0
    assert measured(corpus, "tracking_error_opening") == [None, None]  # a command follows itself
    idle = measured(corpus, "idle_share")
    assert idle
    assert idle[0] == pytest.approx(19 / (K - 1), abs=1e-6)  # of 20 still steps one closes the jaws


def test_the_manifest_normalises_ten_numbers_and_training_reads_them(corpus: Path) -> None:
    manifest = load(corpus / "manifests" / "all")
    assert manifest.facts.statistics is not None
    statistics = manifest.facts.statistics.embodiments["panda_hand"]
    assert GRIPPER in statistics.names
    assert min(statistics.count) > 0
    store = open_actions(manifest, with_state=True)
    part = store.open_part(0)
    at = part.names.index(GRIPPER)
    opening = part.values[: K - 1, at]
    assert part.valid.all()
    assert opening.tolist() == [1.0] * (GRASP - 1) + [0.0] * (K - GRASP)
    assert part.slots[at] == part_slots(GRIPPER)[0]
    assert part.state is not None
    assert (part.state[:, 9] == 0).all()  # the opening, which nobody saw
    assert (part.state[:, :3] != 0).any()
    assert part.measured == {"left.position_m", "left.rot6d_cols"}


def test_the_action_has_ten_numbers(corpus: Path) -> None:
    [dataset] = (corpus / "datasets/told").iterdir()
    info = json.loads((dataset / "meta/info.json").read_text())
    assert info["features"]["action"]["shape"] == [10]
    table = pq.read_table(dataset / "data/chunk-000/episode_000000.parquet")
    names = info["features"]["observation.valid"]["names"]
    masks = np.array(table["observation.valid"].to_pylist())
    assert not masks[:, names.index(GRIPPER)].any()
    assert masks[:, names.index("left.position_m")].all()
    assert pc.all(pc.is_valid(table["observation.state"])).as_py()


class TestPeer:
    pytestmark: ClassVar = PEER

    def test_lerobot_reads_it(self, corpus: Path) -> None:
        [dataset] = (corpus / "datasets/told").iterdir()
        done = run_check(dataset)
        assert done.returncode == 0, done.stdout + done.stderr
