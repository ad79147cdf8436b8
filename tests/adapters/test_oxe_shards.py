"""Open X-Embodiment: which folders are sets, which shards and records are there, and every known defect by its code."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from adapters.containers.rlds_dir import find_version_dir
from jobs.demo.raw import Written
from jobs.demo.raw.oxe import (
    BRIDGE,
    bridge_episode,
    jpeg,
    shard_name,
    write_set,
)
from jobs.demo.raw.scene import Scene
from schemas.errors import Code, ConfigError
from schemas.fact import Certainty
from tests.adapters.oxe_cases import (
    OXE,
    REST,
    TINY,
    code_of,
    fact,
    load_all,
    refs_of,
    sharded,
    tiny,
)

# --- survey and discovery -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "bridge_dataset", "bridge_dataset/1.0.0"])
def test_any_of_the_outer_directories_is_a_root(bridge: Written, below: str) -> None:
    ids = [ref.episode_id for ref in refs_of(bridge.root / below)]
    assert ids == list(bridge.scenes)


def test_ids_survive_adding_an_episode(tmp_path: Path) -> None:
    for n in (2, 3):
        write_set(tmp_path / str(n) / "bridge_dataset" / "1.0.0", TINY, [tiny()] * n)
    few, many = ([r.uid for r in refs_of(tmp_path / str(n))] for n in (2, 3))
    assert many[:2] == few


def test_several_sets_below_the_root_are_listed(tmp_path: Path) -> None:
    for name in ("a/1.0.0", "b/1.0.0"):
        write_set(tmp_path / name, TINY, [tiny()])
    with pytest.raises(ConfigError, match=r"a/1\.0\.0, b/1\.0\.0"):
        OXE.survey(tmp_path, {})
    assert find_version_dir(tmp_path / "a").name == "1.0.0"


def test_an_unknown_set(tmp_path: Path) -> None:
    write_set(tmp_path / "bridge_datset" / "1.0.0", TINY, [tiny()])
    with pytest.raises(ConfigError, match="bridge_dataset"):
        OXE.survey(tmp_path, {})
    assert OXE.survey(tmp_path, {"set": "bridge_dataset"}).details["set"] == "bridge_dataset"


def test_missing_shard_is_one_ref_that_says_how_many(tmp_path: Path) -> None:
    directory = sharded(tmp_path)
    (directory / shard_name("bridge_dataset", "train", 1, 3)).unlink()
    refs = refs_of(tmp_path)
    assert [r.problem is None for r in refs] == [True, True, False, True]
    assert refs[2].problem is not None
    assert refs[2].problem[0] == Code.MISSING_SHARD.value
    assert "it should contain 2 episodes" in refs[2].problem[1]
    assert refs[2].episode_id.endswith("train-00001/000000" + REST)


def test_missing_first_shard_does_not_stop_the_probe(tmp_path: Path) -> None:
    directory = sharded(tmp_path)
    (directory / shard_name("bridge_dataset", "train", 0, 3)).unlink()
    assert len(refs_of(tmp_path)) == 4


@pytest.mark.parametrize("keep", [1.0, 1.4])
def test_truncated_shard_says_how_many_are_lost(tmp_path: Path, keep: float) -> None:
    directory = sharded(tmp_path)
    path = directory / shard_name("bridge_dataset", "train", 0, 3)
    data = path.read_bytes()
    path.write_bytes(
        data[: int(len(data) / 2 * keep)]
    )  # after a whole record, or inside the second
    refs = refs_of(tmp_path)
    assert len(refs) == 5
    assert refs[1].problem is not None
    assert refs[1].problem[0] == Code.TRUNCATED.value
    assert "1 of 2 declared records are missing" in refs[1].problem[1]
    assert OXE.load(refs[0]).stream("left.T_base_eef") is not None


def test_wrong_length_checksum_loses_the_rest_of_its_shard_only(tmp_path: Path) -> None:
    directory = sharded(tmp_path)
    path = directory / shard_name("bridge_dataset", "train", 0, 3)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 + 3] ^= 0x40
    path.write_bytes(data)
    problems = [r.problem[0] if r.problem else None for r in refs_of(tmp_path)]
    assert problems == [None, Code.WRONG_CRC.value, None, None, None]


def test_wrong_payload_checksum_loses_that_episode_only(tmp_path: Path) -> None:
    directory = sharded(tmp_path)
    path = directory / shard_name("bridge_dataset", "train", 0, 3)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    refs = refs_of(tmp_path)
    assert all(r.problem is None for r in refs)
    assert code_of(refs[0]) is Code.WRONG_CRC
    assert OXE.load(refs[1]).rate_hz == 5


def test_undeclared_records_and_files(tmp_path: Path) -> None:
    directory = sharded(tmp_path, (2,))
    path = directory / shard_name("bridge_dataset", "train", 0, 1)
    path.write_bytes(path.read_bytes() + path.read_bytes())
    (directory / shard_name("bridge_dataset", "train", 7, 9)).write_bytes(b"stale")
    info = OXE.survey(tmp_path, {})
    assert any("1 undeclared tfrecord files are not read" in note for note in info.notes)
    refs = list(OXE.discover(tmp_path, info))
    assert len(refs) == 4
    assert [any(f.name == "undeclared_record" for f in r.facts) for r in refs] == [
        False,
        False,
        True,
        True,
    ]


def test_shard_name_that_leaves_the_root(tmp_path: Path) -> None:
    directory = sharded(tmp_path)
    text = (directory / "dataset_info.json").read_text()
    (directory / "dataset_info.json").write_text(
        text.replace("{DATASET}-{SPLIT}", "../../x-{SPLIT}")
    )
    assert {r.problem[0] if r.problem else None for r in refs_of(tmp_path)} == {
        Code.UNSAFE_PATH.value
    }


def test_broken_values_quarantine_one_episode_each(tmp_path: Path) -> None:
    nan, short, picture, frames, text = (
        bridge_episode(Scene(width=16, height=16), 4) for _ in range(5)
    )
    state = ("observation", "state")
    nan[state] = nan[state].copy()
    nan[state][2, 4] = np.nan
    short[state] = short[state][:, :6]
    picture[("observation", "image_1")] = [b"not a picture"] * 4
    frames[("observation", "image_0")] = frames[("observation", "image_0")][:3]
    text[("language_instruction",)] = [b"\xff\xff"] * 4
    write_set(tmp_path / "bridge_dataset" / "1.0.0", BRIDGE, [nan, short, picture, frames, text])
    wanted = [
        Code.NOT_FINITE,
        Code.SHAPE_MISMATCH,
        Code.CORRUPT_IMAGE,
        Code.FRAME_COUNT,
        Code.BAD_ANNOTATION,
    ]
    assert [code_of(ref) for ref in refs_of(tmp_path)] == wanted


def test_metadata_gone_after_discovery(tmp_path: Path) -> None:
    directory = sharded(tmp_path, (1,))
    (ref,) = refs_of(tmp_path)
    (directory / "features.json").unlink()
    assert code_of(ref) is Code.MISSING_META


def test_a_camera_that_varies_is_kept_however_dark(tmp_path: Path) -> None:
    episode = bridge_episode(Scene(width=128, height=128), 8)
    noise = np.random.default_rng(0).integers(0, 5, (8, 32, 32, 3)).astype(np.uint8)
    episode[("observation", "image_2")] = [jpeg(p) for p in noise]
    write_set(tmp_path / "bridge_dataset" / "1.0.0", BRIDGE, [episode])
    (loaded,) = load_all(tmp_path)
    assert [c.name for c in loaded.cameras] == ["image_0", "image_1", "image_2"]


def test_no_rate_is_a_problem_until_the_caller_gives_one(tmp_path: Path) -> None:
    spec = {("observation", "end_effector_pose"): ("tensor", (5,), "float32")}
    spec |= {("action",): ("tensor", (5,), "float32")}
    episode = {key: np.ones((3, 5)) for key in spec}
    write_set(
        tmp_path / "stanford_mask_vit_converted_externally_to_rlds" / "0.1.0", spec, [episode]
    )
    (ref,) = refs_of(tmp_path)
    assert ref.problem is not None
    assert ref.problem[0] == Code.UNKNOWN_LAYOUT.value
    (loaded,) = load_all(tmp_path, rate_hz="2.5")
    assert loaded.rate_hz == Fraction(5, 2)
    assert fact(loaded, "rate_hz").certainty is Certainty.UNVERIFIED
    # one angle is no rotation, and the values are normalised: no pose
    names = [s.name for s in loaded.streams]
    assert names == ["command.left.gripper_opening", "source_state", "raw_command"]
    with pytest.raises(ConfigError, match="rate_hz"):
        OXE.survey(tmp_path, {"rate_hz": "fast"})
