"""`--urdf` from the command line to the corpus: poses of a source that stores joints only, by kinematics of the user's robot."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.pipeline.assets import Assets
from ingest.pipeline.plan import Plan, Request, make_plan
from ingest.recipe import Recipe
from ingest.transforms.forward_kinematics import Robot, with_forward_kinematics
from jobs.cli import app
from schemas.episode import Episode, EpisodeRef, Stream, Unit, pose_channel, vector_channel
from schemas.errors import ConfigError
from schemas.kinematics import Kinematics, kinematics_of
from tests.faults.runs import run
from tests.generators import humanoid_everyday

G1, H1 = "*_g1/*", "tools/*"
LAST_M = 0.3  # from the sixth joint to the wrist


def planar_urdf(path: Path, body: str, last_m: float = LAST_M) -> Path:
    """A robot with the link and joint names of `body`: every joint turns about the base's z, only the last lies elsewhere.

    So the wrist is at Rz(q1 + .. + q6) (last_m, 0, 0) and turned by Rz(q1 + .. + q7).
    """
    known: Kinematics = kinematics_of(body)
    links, joints = [known.base], []
    for side, arm in known.arms.items():
        chain = [known.base, *(f"{side}_{k}" for k in range(1, len(arm.joints))), arm.tip]
        links += chain[1:]
        for k, joint in enumerate(arm.joints):
            x = last_m if k == len(arm.joints) - 1 else 0.0
            joints.append(
                f'<joint name="{joint}" type="revolute"><parent link="{chain[k]}"/><child link="{chain[k + 1]}"/>'
                f'<origin xyz="{x} 0 0"/><axis xyz="0 0 1"/></joint>'
            )
    parts = [f'<link name="{name}"/>' for name in links] + joints
    path.write_text(f'<robot name="planar">{"".join(parts)}</robot>')
    return path


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    humanoid_everyday.write(root)
    return root


def request(raw: Path, urdf: Path | None, select: str = G1) -> Request:
    assets = Assets(urdf=None if urdf is None else str(urdf))
    return Request(
        source="humanoid_everyday",
        root=raw,
        options={},
        recipe=Recipe(),
        select=select,
        assets=assets,
    )


def rz(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def expected(t_s: float, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Position and rotation of hand_xfz: the generator's joint k is 0.5 sin(t + k); a G1's hand is 0.12 m ahead of its wrist."""
    q = 0.5 * np.sin(t_s + first + np.arange(7))
    R = rz(q.sum())
    return rz(q[:6].sum()) @ [LAST_M, 0, 0] + R @ [0.12, 0, 0], R


def test_a_urdf_gives_poses_in_the_corpus(raw: Path, tmp_path: Path) -> None:
    urdf = planar_urdf(tmp_path / "robot.urdf", "unitree_g1")
    asked = request(raw, urdf)
    tally = run(
        raw, tmp_path / "corpus", source=asked.source, select=asked.select, assets=asked.assets
    )
    assert tally.committed == tally.discovered == 1
    (row,) = snapshot.load(tmp_path / "corpus").read(tmp_path / "corpus", "episodes").to_pylist()
    assert row["eef_frame"] == "hand_xfz"
    (source,) = [f for f in row["facts"] if f["name"] == "eef_pose_source"]
    assert source["value"].startswith("forward kinematics of robot.urdf sha256:")
    (info,) = (tmp_path / "corpus" / "datasets").glob("**/info.json")
    names = json.loads(info.read_text())["features"]["observation.state"]["names"]
    (table,) = (tmp_path / "corpus" / "datasets").glob("**/episode_*.parquet")
    state = np.array(pq.read_table(table).column("observation.state").to_pylist())
    for side, first in (("left", 0), ("right", 7)):
        at = names.index(f"{side}.position_m.x")
        for k in (0, 7, 19):  # 10 Hz on a 30 Hz source: every sample is hit
            p, R = expected(k / 10, first)
            np.testing.assert_allclose(state[k, at : at + 3], p, atol=2e-5)
            cols = np.concatenate([R[:, 0], R[:, 1]])
            np.testing.assert_allclose(state[k, at + 3 : at + 9], cols, atol=2e-5)


def test_without_a_urdf_there_is_no_pose(raw: Path, tmp_path: Path) -> None:
    run(raw, tmp_path / "corpus", source="humanoid_everyday", select=G1)
    (row,) = snapshot.load(tmp_path / "corpus").read(tmp_path / "corpus", "episodes").to_pylist()
    assert row["eef_frame"] == "none"


def test_the_urdf_of_another_robot_is_the_callers_mistake(raw: Path, tmp_path: Path) -> None:
    """Exit 2 before any work: no corpus is made."""
    urdf = planar_urdf(tmp_path / "h1.urdf", "unitree_h1_2_inspire")
    words = ["ingest", "humanoid_everyday", str(raw), "--out", str(tmp_path / "corpus")]
    words += ["--urdf", str(urdf), "--workers", "0", "--select", G1]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, ConfigError)
    assert result.exception.exit_code == 2
    assert "left_wrist_yaw_link" in str(result.exception)
    assert not (tmp_path / "corpus").exists()
    doctor = CliRunner().invoke(app, ["doctor", *words[1:3], "--urdf", str(urdf)])
    assert isinstance(doctor.exception, ConfigError)
    absent = CliRunner().invoke(app, [*words[:-4], "--urdf", str(tmp_path / "none.urdf")])
    assert isinstance(absent.exception, ConfigError)


def test_a_changed_urdf_makes_episodes_stale(raw: Path, tmp_path: Path) -> None:
    """What counts is its content: under another name it is the same robot, with another link it is not."""
    urdf = planar_urdf(tmp_path / "robot.urdf", "unitree_g1")
    out = tmp_path / "corpus"
    run(raw, out, source="humanoid_everyday", select=G1, assets=Assets(urdf=str(urdf)))

    def planned(named: Path | None) -> Plan:
        return make_plan(request(raw, named), open_corpus(out), snapshot.load(out))

    assert (planned(urdf).done, planned(urdf).stale) == (1, 0)
    moved = tmp_path / "elsewhere.urdf"
    moved.write_bytes(urdf.read_bytes())
    assert (planned(moved).done, planned(moved).stale) == (1, 0)
    planar_urdf(urdf, "unitree_g1", last_m=0.31)
    assert (planned(urdf).done, planned(urdf).stale) == (0, 1)
    assert (planned(None).done, planned(None).stale) == (0, 1)
    assert len({planned(p).options_digest for p in (urdf, moved, None)}) == 3
    assert planned(None).options_digest == ""


def test_each_body_has_its_own_urdf(raw: Path, tmp_path: Path) -> None:
    """H1_2: the README's elbow and wrist roll are elbow pitch and elbow roll of its URDF."""
    urdf = planar_urdf(tmp_path / "h1.urdf", "unitree_h1_2_inspire")
    assert '"left_elbow_roll_joint"' in urdf.read_text()
    tally = run(
        raw,
        tmp_path / "corpus",
        source="humanoid_everyday",
        select=H1,
        assets=Assets(urdf=str(urdf)),
    )
    assert tally.committed == tally.discovered == 1
    (row,) = snapshot.load(tmp_path / "corpus").read(tmp_path / "corpus", "episodes").to_pylist()
    assert row["eef_frame"] == "hand_xfz"


def test_stored_poses_need_no_joints_that_kinematics_would(tmp_path: Path) -> None:
    """AgiBot World stores poses, and joints without the waist: naming its URDF must not cost the episode."""
    body = "unitree_g1"
    robot = Robot.open(planar_urdf(tmp_path / "robot.urdf", body), body)
    t_ns = np.arange(3, dtype=np.int64)
    eye = np.tile(np.eye(4), (3, 1, 1))
    stored = [
        Stream(spec=pose_channel(f"{side}.T_base_eef"), t_ns=t_ns, values=eye)
        for side in ("left", "right")
    ]
    spec = vector_channel("joint_position_rad", 1, Unit.RADIAN, names=("left_elbow",))
    joints = Stream(spec=spec, t_ns=t_ns, values=np.zeros((3, 1)))
    episode = Episode(
        ref=EpisodeRef(source="s", dataset="s", episode_id="e", root="/"),
        embodiment=body,
        rate_hz=Fraction(10),
        streams=(*stored, joints),
    )
    assert with_forward_kinematics(episode, robot) is episode


def test_a_set_of_two_bodies_keeps_the_other_ones_joints(raw: Path, tmp_path: Path) -> None:
    """Humanoid Everyday has a G1 and an H1; the URDF is of one of them, and no episode is lost for it."""
    urdf = planar_urdf(tmp_path / "g1.urdf", "unitree_g1")
    out = tmp_path / "corpus"
    tally = run(raw, out, source="humanoid_everyday", assets=Assets(urdf=str(urdf)))
    assert tally.committed == tally.discovered
    rows = snapshot.load(out).read(out, "episodes").to_pylist()
    told = {row["embodiment"]: {f["name"]: f["value"] for f in row["facts"]} for row in rows}
    others = {body: facts for body, facts in told.items() if body != "unitree_g1"}
    assert others
    assert all(facts.get("eef_pose_source") == "none" for facts in others.values())
    assert "forward kinematics" in told["unitree_g1"]["eef_pose_source"]
