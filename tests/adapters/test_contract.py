"""What every registered adapter promises, checked on what its generator writes: add a line to the registry and this runs.

The golden files say what each adapter gives for that data, value by value. They change only together with the adapter's
`version`, because the version is what tells a corpus that it is stale.
"""

from __future__ import annotations

import inspect
import json
import pickle
import re
import shutil
from collections.abc import Callable
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.base import Adapter, SourceInfo
from adapters.registry import ADAPTERS, adapter_for
from jobs.demo.raw import Written, agibot_world
from jobs.demo.raw.scene import Scene
from schemas.embodiment import embodiments
from schemas.episode import Camera, EncodedImages, Episode, EpisodeRef, Stream, Unit
from schemas.errors import ConfigError
from schemas.fact import Certainty
from schemas.hand_track import HandTrack
from tests import generators
from tests.adapters.hostile_files import (
    CHANGES,
    HangError,
    Seen,
    changes_for,
    faults,
    file_kinds,
    healthy_copy,
    seen_of,
    time_limit,
)
from tests.faults.runs import tree
from tests.pickling import travelled

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
MAX_LINES = 150
MAX_REF_BYTES = 10_000
NAMES = sorted(ADAPTERS)


class Given:
    """One source as its generator wrote it, discovered and loaded once."""

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.adapter: Adapter = adapter_for(name)
        self.written = generators.write(name, root)
        self.before = tree(self.written.root)
        self.info, self.refs = look(self.adapter, self.written)
        self.episodes = [self.adapter.load(ref) for ref in self.refs]

    @cached_property
    def well(self) -> Seen:
        return seen_of(self.adapter, self.written)

    @property
    def streams(self) -> list[Stream]:
        return [stream for episode in self.episodes for stream in episode.streams]


def look(adapter: Adapter, written: Written) -> tuple[SourceInfo, list[EpisodeRef]]:
    info = adapter.survey(written.root, written.options)
    return info, list(adapter.discover(written.root, info))


@pytest.fixture(scope="module", params=NAMES)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Given:
    return Given(request.param, tmp_path_factory.mktemp(request.param) / "raw")


# --- the adapter itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small_and_documented(name: str) -> None:
    adapter = adapter_for(name)
    file = Path(inspect.getfile(type(adapter)))
    assert len(file.read_text().splitlines()) <= MAX_LINES, f"{file}: at most {MAX_LINES} lines"
    assert (ROOT / "docs/reference/sources" / f"{name}.md").is_file()
    assert find_spec(generators.module_of(name)) is not None
    assert adapter.name == name
    assert isinstance(adapter.version, int)
    assert adapter.version >= 1
    assert 0 < len(adapter.about) <= 100
    assert "\n" not in adapter.about + adapter.container


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_root_is_the_callers_mistake(name: str, tmp_path: Path) -> None:
    """Other data, an empty folder, no folder."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "holiday.jpg").write_bytes(b"precious")
    (tmp_path / "empty").mkdir()
    for root in ("other", "empty", "none"):
        with pytest.raises(ConfigError):
            adapter_for(name).survey(tmp_path / root, {})


# A folder inside the generated data that has data of the source, and is no root of it.
INNER_FOLDERS = {
    "arctic": "meta",
    "egodex": "test/fold_towel",
    "hoi4d": "handpose",
    "oakink2": "data",
    "rh20t": "RH20T_cfg3/calib",
    "taco": "Hand_Poses",
    "vitra": "videos",
}


@pytest.mark.parametrize("name", INNER_FOLDERS)
def test_a_folder_inside_is_no_root(name: str, tmp_path: Path) -> None:
    folder = generators.write(name, tmp_path).root / INNER_FOLDERS[name]
    assert folder.is_dir()
    with pytest.raises(ConfigError):
        adapter_for(name).survey(folder, {})


def test_an_unknown_option_is_the_callers_mistake(source: Given) -> None:
    with pytest.raises(ConfigError, match="colour"):
        source.adapter.survey(source.written.root, {"colour": "red"})


# Values of known options that a source refuses, for its generated data.
REFUSED_OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "agibot_world": {"defects": ("/nowhere",)},
    "aloha": {"rate_hz": ("fast",), "embodiment": ("A b",)},
    "ego4d": {"annotations": ("moments", ""), "videos": ("4k", "clips")},
    "ego_exo4d": {"annotations": ("poses",), "hands": ("yes", "all", "", "annotation,manual")},
    "egome": {"annotations": ("Ego",), "videos": ("Ego",)},
    "epic_kitchens": {"splits": ("train", "dev"), "annotations": ("nowhere",)},
    "holoassist": {"segments": ("all",), "annotations": ("nowhere.json",)},
    "hot3d": {"video": ("/nowhere",)},
    "interndata_a1_raw": {"robot": ("ur5",)},
    "rh20t": {"task_description": ("/nowhere",)},
    "robotwin": {"split": ("all",), "rate_hz": ("0",)},
    "ssv2": {"splits": ("validation", "dev"), "labels": ("x",)},
    "umi": {"rate_hz": ("-1",)},
    "video_folder": {"window_s": ("61", "x", "nan")},
    "vitra": {"videos": ("/nowhere",)},
}


def test_a_refused_value_of_an_option_is_the_callers_mistake(source: Given) -> None:
    for option, values in REFUSED_OPTIONS.get(source.name, {}).items():
        for value in values:
            with pytest.raises(ConfigError):
                source.adapter.survey(
                    source.written.root, {**source.written.options, option: value}
                )


# --- discovery ----------------------------------------------------------------------------------------------------------


def test_discovery_finds_everything_in_one_order(source: Given) -> None:
    ids = [ref.episode_id for ref in source.refs]
    assert len(ids) >= 2
    assert len(set(ids)) == len(ids)
    assert set(ids) == set(source.written.scenes)
    info, refs = look(adapter_for(source.name), source.written)
    assert refs == source.refs
    assert info == source.info


def test_a_generator_names_its_episodes_in_the_order_of_discovery(source: Given) -> None:
    """A healthy set has no trap of order in it, so the adapter's order is the natural one: numbers as numbers."""

    def natural(text: str) -> list[tuple[int, str]]:
        return [
            (int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)
        ]

    ids = [ref.episode_id for ref in source.refs]
    by_set: dict[str, list[str]] = {}
    for episode_id in ids:
        by_set.setdefault(episode_id.rsplit("/", 1)[0], []).append(episode_id)
    for same in by_set.values():
        assert same == sorted(same, key=natural)


def test_refs_are_small_and_travel(source: Given) -> None:
    for ref in source.refs:
        data = pickle.dumps(ref)
        assert len(data) < MAX_REF_BYTES
        assert travelled(ref) == ref
        assert ref.source == source.name
        assert ref.problem is None, "the generator writes healthy data"
        assert ref.duration_hint_s >= 0
        assert ref.bytes_hint >= 0


def agibot_episode(root: Path, task: int) -> None:
    scene = Scene(duration_s=0.2, width=64, height=48, sides=("left", "right"))
    agibot_world.write_episode(root, task, 7, scene=scene, cameras=("head",))


WRITE_ONE: dict[str, Callable[[Path, int], None]] = {"agibot_world": agibot_episode}


@pytest.mark.parametrize("name", WRITE_ONE)
def test_ids_survive_adding_files(name: str, tmp_path: Path) -> None:
    """Added before and after what was there: an id by position would change."""
    written = Written(root=tmp_path, scenes={})
    found: dict[str, str] = {}
    for number in (300, 400, 200):
        WRITE_ONE[name](tmp_path, number)
        now = {ref.episode_id: ref.uid for ref in look(adapter_for(name), written)[1]}
        assert found.items() < now.items()
        found = now


# Splits that the generated download of a source publishes; a source that is not named publishes none.
SOURCE_SPLITS = {
    "arctic": {"train", "val", "test"},
    "ego4d": {"train"},
    "ego_exo4d": {"train", ""},  # windows of a take that no file lists
    "egodex": {"train", "test"},
    "egome": {"train", "val"},
    "epic_kitchens": {"val", "test", ""},
    "galaxea": {"train"},
    "hoi4d": {"train", "test"},
    "holoassist": {""},  # its lists lie beside the download; test_source_splits.py
    "hot3d_clips": {"train", "test"},
    "humanoid_everyday_lerobot": {"train"},
    "interndata_a1": {"train"},
    "lerobot": {"train"},
    "oxe": {"train"},
    "robocasa_gr1": {"train"},
    "robocoin": {"train", ""},  # its range ends before its last episode, as in the real set
    "robomimic": {"train", ""},
    "robomind": {"train", "val"},
    "ssv2": {"train", "test", ""},
    "taco": {"train", "test"},
    "behavior_1k": {""},  # its range holds positions, its episodes have other numbers
}


def test_the_splits_that_a_source_publishes_are_kept(source: Given) -> None:
    wanted = SOURCE_SPLITS.get(source.name, {""})
    assert {ref.source_split for ref in source.refs} == wanted
    assert [e.ref.source_split for e in source.episodes] == [r.source_split for r in source.refs]


def test_the_page_of_sources_lists_who_publishes_splits() -> None:
    table = (ROOT / "docs/reference/splits.md").read_text()
    assert set(re.findall(r"`([a-z0-9_]+)`(?=[^|\n]*\|[^|\n]*\|$)", table, re.M)) == set(
        SOURCE_SPLITS
    )


# --- loading ------------------------------------------------------------------------------------------------------------


def test_loading_twice_gives_the_same(source: Given) -> None:
    again = adapter_for(source.name)
    for ref, episode in zip(source.refs, source.episodes, strict=True):
        assert_same(again.load(travelled(ref)), episode)


def assert_same(one: Episode, two: Episode) -> None:
    for name in ("ref", "embodiment", "rate_hz", "instructions", "facts", "licence", "raw_files"):
        assert getattr(one, name) == getattr(two, name), name
    assert [s.spec for s in one.streams] == [s.spec for s in two.streams]
    for a, b in zip(one.streams, two.streams, strict=True):
        for array in ("t_ns", "values", "valid"):
            np.testing.assert_array_equal(getattr(a, array), getattr(b, array))
    for e, f in zip(one.hands, two.hands, strict=True):
        assert hand_summary(e) == hand_summary(f)
        np.testing.assert_array_equal(e.present, f.present)
    for c, d in zip(one.cameras, two.cameras, strict=True):
        assert (c.name, c.frames, c.K_size) == (d.name, d.frames, d.K_size)
        np.testing.assert_array_equal(np.array(c.t_ns, dtype=float), np.array(d.t_ns, dtype=float))
        np.testing.assert_array_equal(
            np.array(c.K_cam, dtype=float), np.array(d.K_cam, dtype=float)
        )


def test_an_adapter_only_reads(source: Given) -> None:
    assert tree(source.written.root) == source.before


def test_times_count_from_the_episodes_own_zero(source: Given) -> None:
    for episode in source.episodes:
        starts = [int(s.t_ns[0]) for s in episode.streams]
        starts += [int(c.t_ns[0]) for c in episode.cameras if c.t_ns is not None]
        assert not starts or min(starts) == 0, episode.ref.episode_id
        assert 0 < episode.rate_hz <= 1000


def test_units_are_plausible(source: Given) -> None:
    """Millimetres, degrees, raw gripper counts and clocks in seconds all fall outside."""
    for hand in (hand for episode in source.episodes for hand in episode.hands):
        assert hand.present.any()
        if hand.joints_m is not None:
            spread = np.ptp(hand.joints_m[hand.present], axis=1).max(axis=1)
            assert 0.05 < np.median(spread) < 0.3, f"{hand.side} hand: metres?"
    for stream in source.streams:
        values = stream.values[stream.valid]
        if stream.spec.unit is Unit.POSE:
            assert np.abs(values[:, :3, 3]).max() < 5, f"{stream.name}: metres?"
            np.testing.assert_array_equal(values[:, 3], [[0, 0, 0, 1]] * len(values))
        if stream.name.endswith("gripper_opening"):
            assert stream.spec.unit is Unit.FRACTION
            assert 0 <= values.min() <= values.max() <= 1
            assert np.ptp(values) > 0.5, "the scene's gripper opens and closes"
        if stream.spec.unit is Unit.RADIAN:
            assert np.abs(values).max() < 4 * np.pi, f"{stream.name}: radians?"
        if len(stream.t_ns) > 1:
            period_s = float(np.median(np.diff(stream.t_ns))) / 1e9
            assert 1e-3 < period_s < 10, f"{stream.name}: nanoseconds?"


def test_the_scene_comes_out_whole(source: Given) -> None:
    """As long as the generator wrote it, with a picture and a text."""
    for episode in source.episodes:
        scene = source.written.scenes[episode.ref.episode_id]
        for stream in episode.streams:
            length_s = float(stream.t_ns[-1] - stream.t_ns[0]) / 1e9
            assert length_s == pytest.approx(scene.duration_s, rel=0.3), stream.name
        assert episode.cameras
        assert all(i.text == i.text.strip() and i.text for i in episode.instructions)
        assert re.fullmatch(r"[a-z0-9_]+", episode.embodiment)
        if any(s.spec.unit is Unit.POSE for s in episode.streams):
            assert episode.embodiment in embodiments()


def test_files_are_named_by_digest_and_lie_below_the_root(source: Given) -> None:
    root = source.written.root.resolve()
    for episode in source.episodes:
        assert episode.raw_files
        for file in episode.raw_files:
            assert re.fullmatch(r"sha256(-ends)?:[0-9a-f]{64}", file.digest), file
            assert file.num_bytes > 0
            assert not Path(file.path).is_absolute(), "a corpus must not carry a machine's paths"
        for camera in episode.cameras:
            if not isinstance(camera.frames, EncodedImages):
                assert Path(camera.frames.path).resolve().is_relative_to(root)


def test_conventions_are_stated_with_their_certainty(source: Given) -> None:
    for episode in source.episodes:
        has_actions = any(s.name.startswith("command.") for s in episode.streams)
        assert not has_actions or any(fact.is_for_actions for fact in episode.facts)
        for fact in episode.facts:
            assert isinstance(fact.certainty, Certainty)
            assert fact.name
            assert fact.source, f"{fact.name}: who says so?"


# --- hostile files ------------------------------------------------------------------------------------------------------


def suffer(source: Given, place: Path, name: str, change: str) -> list[str]:
    """The faults of an adapter on a copy of its set in which one file is made hostile."""
    copy = healthy_copy(source.written, place / source.written.root.name)
    CHANGES[change](copy.root / name)
    try:
        with time_limit():
            seen = seen_of(adapter_for(source.name), copy)
    except HangError:
        return ["hangs"]
    except Exception as error:  # noqa: BLE001  every one is exit 3, and all are listed
        return [f"{type(error).__name__}: {error}"[:300]]
    finally:
        shutil.rmtree(place)
    return faults(source.well, seen, name, change)


def suffered(source: Given, tmp_path: Path, *, turn: int | None) -> list[str]:
    """Faults by file and change: every kind of file with every change, or with each kind's turn of them."""
    found = []
    for k, name in enumerate(file_kinds(source.written.root).values()):
        changes = changes_for(source.written.root / name)
        chosen = changes if turn is None else {changes[(k + turn) % len(changes)], changes[-1]}
        for change in sorted(chosen):
            told = suffer(source, tmp_path / f"{k}-{change}", name, change)
            found += [f"{name}, {change}: {fault}" for fault in told]
    return found


def test_a_hostile_file_costs_its_own_episode(source: Given, tmp_path: Path) -> None:
    """No hang, no error but a coded one, no other episode harmed, nobody gone without a word; one or two changes a kind of file."""
    assert suffered(source, tmp_path, turn=0) == []


@pytest.mark.slow
def test_every_hostile_file_costs_its_own_episode(source: Given, tmp_path: Path) -> None:
    assert suffered(source, tmp_path, turn=None) == []


# --- golden files -------------------------------------------------------------------------------------------------------


def rounded(values: Any) -> Any:
    """Numbers to 1e-6 without a negative zero; nested lists stay nested."""
    array = np.round(np.asarray(values, dtype=float), 6) + 0.0
    return array.tolist()


def camera_summary(camera: Camera) -> dict[str, Any]:
    frames = camera.frames
    summary: dict[str, Any] = {"kind": type(frames).__name__, "K_size": camera.K_size}
    for name in type(frames).__slots__:
        value = getattr(frames, name)
        if name == "images":
            summary["num_frames"] = len(value)
        elif name != "path":
            summary[name] = rounded(value) if isinstance(value, float) else value
    summary["K_cam"] = None if camera.K_cam is None else rounded(camera.K_cam)
    summary["t_ns"] = None if camera.t_ns is None else camera.t_ns[[0, -1]].tolist()
    return summary


def stream_summary(stream: Stream) -> dict[str, Any]:
    return {
        "shape": list(stream.values.shape),
        "unit": stream.spec.unit.value,
        "interpolation": stream.spec.interpolation.value,
        "names": list(stream.spec.names),
        "t_ns": stream.t_ns[[0, -1]].tolist(),
        "num_valid": int(stream.valid.sum()),
        "first": rounded(stream.values[0]),
        "last": rounded(stream.values[-1]),
        "mean": rounded(stream.values.mean(axis=0)),  # a change in the middle shows too
    }


def hand_summary(hand: HandTrack) -> dict[str, Any]:
    """Where it is present: the mean of every joint, its wrist at the ends, its confidences, its MANO parameters."""
    there = hand.present
    summary: dict[str, Any] = {"frame": hand.frame, "layout": hand.layout, "view": hand.view}
    summary |= {"wrist_axes": hand.wrist_axes, "num_samples": len(there)}
    summary |= {"num_present": int(there.sum()), "t_ns": hand.t_ns[[0, -1]].tolist()}
    if hand.joints_m is not None:
        summary["mean_joints_m"] = rounded(hand.joints_m[there].mean(axis=0))
    if hand.confidence is not None:
        summary["mean_confidence"] = rounded(hand.confidence[there].mean())
    if hand.T_frame_wrist is not None:
        summary["wrist_first"] = rounded(hand.T_frame_wrist[there][0])
        summary["wrist_last"] = rounded(hand.T_frame_wrist[there][-1])
    if hand.mano is not None:
        pose = hand.mano
        summary["mano"] = {
            name: getattr(pose, name)
            for name in ("trans_is", "is_flat_hand_mean", "model", "has_shapedirs_fix")
        }
        for name in ("trans_m", "global_orient", "hand_axis_angle_rad", "hand_pca", "hand_rotmat"):
            value = getattr(pose, name)
            if value is not None:
                summary["mano"][f"mean_{name}"] = rounded(value[there].mean(axis=0))
        summary["mano"]["betas"] = rounded(pose.betas)
    return summary


def episode_summary(episode: Episode) -> dict[str, Any]:
    hands = {hand.side: hand_summary(hand) for hand in episode.hands}
    published = {"source_split": episode.ref.source_split} if episode.ref.source_split else {}
    of_people = {"world_up": episode.world_up, "hands": hands} if hands else {}
    return {
        "embodiment": episode.embodiment,
        "rate_hz": str(episode.rate_hz),
        "licence_class": episode.licence.licence_class,
        "success": episode.success,
        "subject_id": episode.subject_id,
        "scene_id": episode.scene_id,
        "facts": [[f.name, f.value, f.certainty.value, f.source] for f in episode.facts],
        "instructions": [[i.kind, i.start_ns, i.end_ns, i.text] for i in episode.instructions],
        "streams": {stream.name: stream_summary(stream) for stream in episode.streams},
        "cameras": {camera.name: camera_summary(camera) for camera in episode.cameras},
        **of_people,
        **published,
    }


def differences(found: Any, wanted: Any, at: str = "") -> list[str]:
    """Where two JSON values differ; floats by more than two units of the last digit kept."""
    if isinstance(found, dict) and isinstance(wanted, dict) and list(found) == list(wanted):
        return [d for key in found for d in differences(found[key], wanted[key], f"{at}/{key}")]
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        pairs = enumerate(zip(found, wanted, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{at}/{i}")]
    if isinstance(found, float) and isinstance(wanted, float):
        return [] if abs(found - wanted) <= 2e-6 else [f"{at}: {found} instead of {wanted}"]
    return [] if found == wanted else [f"{at}: {found} instead of {wanted}"]


def pretty(value: Any) -> str:
    """JSON with every list of plain values on one line: a diff that a person can read."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    plain = re.compile(r"\[\s+([^\[\]{}]*?)\s+\]")
    return plain.sub(lambda m: "[" + re.sub(r",\s+", ", ", m[1]) + "]", text) + "\n"


def test_golden(source: Given, request: pytest.FixtureRequest) -> None:
    found = {
        "adapter": source.name,
        "version": source.adapter.version,
        "episodes": {e.ref.episode_id: episode_summary(e) for e in source.episodes[:3]},
    }
    path = GOLDEN / f"{source.name}.json"
    if request.config.getoption("--update-golden"):
        path.write_text(pretty(found))
    assert path.is_file(), f"{path.name} is not there; make it with --update-golden"
    wanted = json.loads(path.read_text())
    assert wanted["version"] == source.adapter.version, (
        f"the adapter is version {source.adapter.version}, {path.name} of version "
        f"{wanted['version']}: run with --update-golden and review the diff"
    )
    given = json.loads(pretty(found))  # as JSON has it: no tuples
    changed = differences(given["episodes"], wanted["episodes"])
    assert not changed, (
        f"{source.name} gives other values than {path.name}: {changed[:3]}. Mend it; or, when the new "
        f"values are right, raise `version` in the adapter (now {source.adapter.version}) so that "
        "corpora know they are stale, run with --update-golden and review the diff"
    )


def test_golden_files_are_of_registered_adapters() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(NAMES)
