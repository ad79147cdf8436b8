"""ARCTIC: the scene comes back through the parameters, wrong conventions would show, and each known defect."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from adapters.arctic.adapter import Arctic
from adapters.containers.restricted_pickle import load_npy_object
from jobs.demo.raw import Written
from jobs.demo.raw.hand_scene import HandScene
from schemas.episode import EncodedImages, Episode
from schemas.errors import Code, ConfigError, SourceError
from schemas.hand_track import WORLD
from tests.adapters.episode_parts import hand, refs_by_id
from tests.adapters.mano_truth import (
    assert_hands_are_true,
    assert_pixels_are_true,
    wrist_and_fingers,
)
from tests.generators import arctic as generator

ADAPTER = Arctic()
FIRST, RETAKE, FULL = generator.SEQUENCES
Content = dict[str, Any]


def load(root: Path, name: str = FIRST) -> Episode:
    return ADAPTER.load(refs_by_id(ADAPTER, root)[name])


def edited(kind: str, change: Callable[[Content], object]) -> Callable[[Path], None]:
    """The first sequence's `mano` or `egocam.dist`, changed."""

    def apply(root: Path) -> None:
        path = root / "raw_seqs" / f"{FIRST}.{kind}.npy"
        content = deepcopy(load_npy_object(path))  # the reader's arrays are read-only
        change(content)
        generator.put(root / "raw_seqs" / FIRST, kind, content)

    return apply


def test_hands_come_back_through_the_model(pristine: Written) -> None:
    for name, scene in pristine.scenes.items():
        assert isinstance(scene, HandScene)
        episode = load(pristine.root, name)
        assert {(h.frame, h.view) for h in episode.hands} == {(WORLD, "ego")}
        assert_hands_are_true(episode, scene)
        assert (episode.world_up, episode.embodiment) == (None, "human_hands")


def test_a_left_shape_is_read_as_it_was_fitted(root: Path) -> None:
    """With the official left model: mended, the same shape would put the wrist millimetres elsewhere."""
    betas = np.array([3.0, -2, 1, 2, -3, 1, 2, -1, 3, -2])
    scene, moved = HandScene(seed=0, duration_s=1.5), {}

    def shaped(content: Content) -> None:
        for side in ("left", "right"):
            offset = generator.J0(side, betas) - generator.J0(side)
            content[side]["shape"] = betas
            content[side]["trans"] = content[side]["trans"] - offset
            moved[side] = offset

    edited("mano", shaped)(root)
    assert abs(moved["left"][0]) > 5e-4
    for track in load(root).hands:
        T, _ = wrist_and_fingers(track)
        truth = scene.T_world_wrist(0.5, track.side)
        np.testing.assert_allclose(T[15], truth, atol=1e-6)


def test_the_camera_is_inverted_and_has_its_lens(pristine: Written) -> None:
    """Without the lens a point comes where the scene's picture has it; the lens is kept term by term."""
    for name, scene in pristine.scenes.items():
        assert isinstance(scene, HandScene)
        episode = load(pristine.root, name)
        assert_pixels_are_true(episode, scene, scale=1.0)
        camera = episode.cameras[0]
        assert camera.K_size == (scene.width, scene.height)  # of the small pictures too
        assert (camera.lens.model, camera.lens.params) == ("opencv", tuple(generator.DIST8))


def test_pictures_are_of_their_rows(pristine: Written) -> None:
    """Picture 3 of subject s01 is row 0; the full ones begin before it and end after the last row."""
    for name, size in ((FIRST, (72, 96)), (FULL, (240, 320))):
        episode, scene = load(pristine.root, name), pristine.scenes[name]
        camera = episode.cameras[0]
        assert isinstance(camera.frames, EncodedImages)
        assert camera.t_ns is not None
        np.testing.assert_array_equal(camera.t_ns, hand(episode, "left").t_ns)
        for k in (0, 20, 44):
            data = np.frombuffer(camera.frames.images[k], np.uint8)
            picture = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
            assert picture.shape[:2] == size
            truth = [
                cv2.resize(scene.picture((k + d) / 30), size[::-1], interpolation=cv2.INTER_AREA)
                for d in (0, -1, 1)
            ]
            errors = [np.abs(picture - t.astype(float)).mean() for t in truth]
            assert np.argmin(errors) == 0


def test_texts_terms_and_clock(pristine: Written) -> None:
    texts = [e.instructions[0].text for e in (load(pristine.root, n) for n in pristine.scenes)]
    assert texts == ["use the box", "grab the espresso machine", "use the ketchup"]
    first = load(pristine.root)
    assert list(refs_by_id(ADAPTER, pristine.root)) == [FIRST, RETAKE, FULL]
    assert first.licence.licence_class == "no_redistribution"
    assert hand(first, "left").t_ns[3] == 100_000_000
    assert (first.subject_id, len(first.raw_files)) == ("s01", 3)
    assert not [f for f in first.facts if f.is_for_actions and not f.certainty.is_settled]


def test_some_pictures_or_none(root: Path) -> None:
    folder = root / "cropped_images" / FIRST / "0"
    (folder / "00003.jpg").unlink()  # row 0
    (folder / "00010.jpg").unlink()
    (folder / "thumb.jpg").write_bytes(b"x")
    t_ns = load(root).cameras[0].t_ns
    assert t_ns is not None
    assert len(t_ns) == 43
    assert t_ns[[0, 5, 6]].tolist() == [33_333_333, 200_000_000, 266_666_667]
    shutil.rmtree(root / "cropped_images")
    bare = load(root)
    assert bare.cameras == ()
    assert {h.view for h in bare.hands} == {None}
    assert next(f.value for f in bare.facts if f.name == "pictures") == "none are here"


def misc(change: Callable[[Content], object]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        path = root / "meta/misc.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return apply


def linked(root: Path) -> None:
    path = root / "cropped_images" / FIRST / "0/00005.jpg"
    path.unlink()
    path.symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (edited("mano", lambda c: c.pop("left")), Code.MISSING_CHANNEL),
        (edited("mano", lambda c: c["right"].pop("rot")), Code.MISSING_CHANNEL),
        (edited("mano", lambda c: c["left"].update(pose=np.zeros((45, 15)))), Code.SHAPE_MISMATCH),
        (edited("mano", lambda c: c["left"].update(rot=np.zeros((44, 3)))), Code.SHAPE_MISMATCH),
        (edited("mano", lambda c: c["left"]["trans"].fill(np.nan)), Code.NOT_FINITE),
        (edited("mano", lambda c: c["right"].update(rot=np.zeros((0, 3)))), Code.EMPTY_EPISODE),
        (edited("mano", lambda c: c.update(extra=print)), Code.UNSAFE_CONTENT),
        (edited("egocam.dist", lambda c: c.pop("dist8")), Code.MISSING_CHANNEL),
        (edited("egocam.dist", lambda c: c.update(R_k_cam_np=c["R_k_cam_np"][1:])), Code.SHAPE_MISMATCH),
        (edited("egocam.dist", lambda c: c.update(R_k_cam_np=2 * c["R_k_cam_np"])), Code.NOT_A_ROTATION),
        (edited("egocam.dist", lambda c: c["T_k_cam_np"].fill(np.inf)), Code.NOT_FINITE),
        (misc(lambda c: c.pop("s01")), Code.MISSING_META),
        (misc(lambda c: c["s01"].update(image_size=[])), Code.BAD_ANNOTATION),
        (misc(lambda c: c["s01"].update(ioi_offset=500)), Code.FRAME_COUNT),
        (linked, Code.UNSAFE_PATH),
    ],
)  # fmt: skip
def test_defects(root: Path, change: Callable[[Path], object], code: Code) -> None:
    change(root)
    with pytest.raises(SourceError) as caught:
        load(root)
    assert caught.value.code is code, str(caught.value)


def test_missing_parts(root: Path) -> None:
    (root / "raw_seqs" / f"{FIRST}.egocam.dist.npy").unlink()
    (root / "raw_seqs" / f"{FULL}.mano.npy").unlink()
    found = {
        name: ref.problem and ref.problem[0] for name, ref in refs_by_id(ADAPTER, root).items()
    }
    assert found == {FIRST: "missing_file", RETAKE: None, FULL: "missing_file"}
    (root / "meta/misc.json").unlink()
    with pytest.raises(ConfigError, match=r"meta\.zip"):
        ADAPTER.survey(root, {})
