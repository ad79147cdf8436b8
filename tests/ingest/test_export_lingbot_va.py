"""A LingBot-VA export, read by the twelve rules of its loader (shared/formats/exports.md §2.2) from the files alone; each rule broken and found."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.spatial.transform import Rotation

from ingest.executors.inline import InlineExecutor
from ingest.export.datasets.lingbot_va import LingBotVa, layout_of
from ingest.export.datasets.run import run_export
from ingest.models.wan_encoders import WanWeights, wan_encoders
from schemas.errors import ConfigError
from tests.ingest.export_cases import (
    Numbered,
    NumberedWrists,
    manifest_of,
    numbered_corpus,
    page_of,
    plan_of,
)

SEGMENTS = [("a", 0, 37), ("a", 3, 12), ("b", 5, 24), ("c", 0, 4), ("c", 0, 12)]
TASKS = [["policy"], ["policy"], ["policy"], ["policy"], ["forward_dynamics"]]
SEEDED = WanWeights(untrained_seed=7, device="cpu")
TO = LingBotVa(weights=SEEDED, frame_stride=2, height_px=64, width_px=128)
KEYS = {"latent", "latent_num_frames", "latent_height", "latent_width", "frame_ids"}


@pytest.fixture(scope="module", params=[Numbered, NumberedWrists])
def corpus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_corpus(tmp_path_factory.mktemp("numbered"), request.param)


@pytest.fixture(scope="module")
def exported(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "out"
    run_export(
        plan_of(corpus, manifest_of(corpus, SEGMENTS, tasks=TASKS), TO), TO, out, InlineExecutor()
    )
    return out


def config_of(out: Path) -> SimpleNamespace:
    (path,) = out.glob("lingbot_va_*.py")
    cfg: SimpleNamespace = runpy.run_path(str(path))["apply"](SimpleNamespace())
    return cfg


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows_of(root: Path, number: int) -> Any:
    table = pq.read_table(root / f"data/chunk-000/episode_{number:06d}.parquet")
    return np.array(table["action"].to_pylist(), dtype=np.float64)


def latents_of(cfg: SimpleNamespace, number: int, clip: dict[str, Any], camera: str) -> Path:
    name = f"episode_{number:06d}_{clip['start_frame']}_{clip['end_frame']}.pth"
    return Path(cfg.dataset_path) / "latents/chunk-000" / camera / name


# --- the rules, written from the page and not from the exporter -------------------------------------------------------------


def problems(out: Path) -> Iterator[str]:
    cfg = config_of(out)
    root = Path(cfg.dataset_path)
    absent = [n for n in ("tasks", "episodes", "episodes_stats") if not _meta(root, n).is_file()]
    if absent:
        yield f"2 no {absent[0]}.jsonl"
        return
    yield from tree_problems(root)
    yield from norm_problems(cfg)
    episodes = lines(_meta(root, "episodes"))
    if [each["episode_index"] for each in episodes] != list(range(len(episodes))):
        yield "3 episodes are not in order"
    for episode in episodes:
        if not episode.get("action_config"):
            yield "4 an episode without action_config"
            continue
        for clip in episode["action_config"]:
            if 0 <= clip["start_frame"] < clip["end_frame"] <= episode["length"]:
                yield from clip_problems(cfg, root, episode["episode_index"], clip)
            else:
                yield "4 a clip is not inside its episode"


def _meta(root: Path, name: str) -> Path:
    return root / f"meta/{name}.jsonl"


def tree_problems(root: Path) -> Iterator[str]:
    if not root.is_absolute():
        yield "1 the path is relative"
    if [path.parent.name for path in root.rglob("info.json")] != ["meta"]:
        yield "1 another info.json"
    info = json.loads((root / "meta/info.json").read_text())
    if any(feature["dtype"] == "video" for feature in info["features"].values()):
        yield "2 videos are declared and not there"
    empty = torch.load(root / "empty_emb.pt", weights_only=True)
    if not torch.is_tensor(empty) or tuple(empty.shape) != (512, 4096):
        yield "7 empty_emb.pt is no tensor [512, 4096]"


def norm_problems(cfg: SimpleNamespace) -> Iterator[str]:
    low, high = (np.array(cfg.norm_stat[name]) for name in ("q01", "q99"))
    if len(low) != 30 or len(high) != 30 or (low > 0).any() or (high < 0).any():
        yield "11 zero is outside of a channel"


def clip_problems(
    cfg: SimpleNamespace, root: Path, number: int, clip: dict[str, Any]
) -> Iterator[str]:
    files = [latents_of(cfg, number, clip, camera) for camera in cfg.obs_cam_keys]
    if not all(path.is_file() for path in files):
        yield "5 the latents of a camera are missing"
        return
    loaded = [torch.load(path, weights_only=True) for path in files]
    found = [problem for content in loaded for problem in latent_problems(content)]
    yield from found
    if found:
        return
    text = loaded[0].get("text_emb")
    lengths = {content["latent_num_frames"] for content in loaded}
    if text is None or tuple(text.shape) != (512, 4096) or len(lengths) != 1:
        yield "6 no text of the first camera, or cameras of different lengths"
    rows = rows_of(root, number)[clip["start_frame"] : clip["end_frame"]]
    yield from row_problems(cfg, rows, loaded[0]["frame_ids"], clip["start_frame"])


def latent_problems(content: dict[str, Any]) -> Iterator[str]:
    if not set(content) >= KEYS:
        yield "6 a key is missing"
        return
    shape = tuple(content[f"latent_{name}"] for name in ("num_frames", "height", "width"))
    latent, ids = content["latent"], content["frame_ids"]
    if tuple(latent.shape) != (np.prod(shape), 48) or latent.dtype != torch.bfloat16:
        yield "6 the latent has another shape than it says"
    if shape[1] % 2 or shape[2] % 2:
        yield "12 an odd number of latents"
    if len(ids) != 4 * (shape[0] - 1) + 1:
        yield "6 not 4 k + 1 pictures"
    if len(set(np.diff(ids))) != 1:
        yield "6 pictures at no constant stride"
    if len(ids) > 4 * 75 + 1:
        yield "12 a clip of more than 30 s"


def row_problems(cfg: SimpleNamespace, rows: Any, ids: list[int], start: int) -> Iterator[str]:
    stride = ids[1] - ids[0]
    if 4 * stride != cfg.action_per_frame:
        yield "9 action_per_frame is not four strides"
    if rows.shape[1] != len(cfg.used_action_channel_ids):
        yield "8 as many columns as channels"
        return
    used = rows[ids[0] - start :]
    if len(used) < (len(ids) - 1) // 4 * 4 * stride:
        yield "9 too few rows after the first picture"
    if cfg.env_type == "robotwin_tshape":
        quats = used[:, [3, 4, 5, 6, 11, 12, 13, 14]].reshape(-1, 4)
        if rows.shape[1] != 16 or (np.linalg.norm(quats, axis=1) < 0.9).any():
            yield "10 no quaternion of an arm"


def sample(cfg: SimpleNamespace, number: int, clip: dict[str, Any]) -> tuple[Any, Any, Any]:
    """(latents [48, F, H, W], actions [30, F, 4 s, 1], their mask) as the page says that the loader makes them."""
    parts = []
    for camera in cfg.obs_cam_keys:
        content = torch.load(latents_of(cfg, number, clip, camera), weights_only=True)
        shape = [content[f"latent_{name}"] for name in ("num_frames", "height", "width")]
        parts.append(content["latent"].float().reshape(*shape, 48).numpy())
    ids = torch.load(latents_of(cfg, number, clip, cfg.obs_cam_keys[0]), weights_only=True)[
        "frame_ids"
    ]
    is_t = cfg.env_type == "robotwin_tshape"
    joined = (
        np.concatenate([np.concatenate(parts[1:], axis=2), parts[0]], axis=1)
        if is_t
        else np.concatenate(parts, axis=2)
    )
    action = rows_of(Path(cfg.dataset_path), number)[clip["start_frame"] : clip["end_frame"]]
    if is_t:
        for at in (0, 8):
            turn = Rotation.from_quat(action[:, at + 3 : at + 7])
            action[:, at : at + 3] = action[:, at : at + 3] - action[0, at : at + 3]
            action[:, at + 3 : at + 7] = (turn[0].inv() * turn).as_quat()
    stride = ids[1] - ids[0]
    count = len(ids) // 4 + 1
    padded = np.pad(action, ((4 * stride, 0), (0, 0)))[: count * 4 * stride]
    assert len(padded) == count * 4 * stride
    wide = np.pad(padded, ((0, 0), (0, 1)))[:, cfg.inverse_used_action_channel_ids]
    mask = np.isin(np.arange(30), cfg.used_action_channel_ids)
    low, high = (np.array(cfg.norm_stat[name]) for name in ("q01", "q99"))
    normal = np.clip((wide - low) / (high - low + 1e-6) * 2 - 1, -1.5, 1.5) * mask
    by_frame = normal.reshape(count, 4 * stride, 30).transpose(2, 0, 1)[..., None]
    return joined.transpose(3, 0, 1, 2), by_frame, mask


# --- tests ----------------------------------------------------------------------------------------------------------------


def test_the_rules_of_the_loader_hold(exported: Path) -> None:
    assert list(problems(exported)) == []


def test_a_sample_has_the_shapes_of_the_model(exported: Path) -> None:
    cfg = config_of(exported)
    (clip,) = lines(Path(cfg.dataset_path) / "meta/episodes.jsonl")[0]["action_config"]
    latents, actions, mask = sample(cfg, 0, clip)
    is_t = cfg.env_type == "robotwin_tshape"
    # 37 timesteps at stride 2 hold 17 pictures: 5 latent frames of 64 x 128 pixels, 16 times less
    assert latents.shape == ((48, 5, 6, 8) if is_t else (48, 5, 4, 16))
    assert actions.shape == (30, 5, 8, 1)
    assert mask.sum() == (16 if is_t else 8)
    assert np.abs(actions).max() <= 1.5


def test_actions_are_the_targets_of_the_corpus(exported: Path, corpus: Path) -> None:
    cfg = config_of(exported)
    mapping = pq.read_table(exported / "eicorpus_export.parquet").to_pylist()
    assert len(mapping) == 3
    for row in mapping:
        number = "abc".index(row["text"].removeprefix("do "))
        (path,) = corpus.glob(f"datasets/*/*/data/*/episode_{number:06d}.parquet")
        stored = pq.read_table(path).slice(row["start"], row["end"] - row["start"])
        target = np.array(stored["action"].to_pylist())
        valid = np.array(stored["action.valid"].to_pylist()).all(axis=1)
        rows = rows_of(Path(cfg.dataset_path), row["episode_index"])
        columns = target[:, 3:9].reshape(-1, 2, 3)
        matrices = np.stack(
            [columns[:, 0], columns[:, 1], np.cross(columns[:, 0], columns[:, 1])], axis=-1
        )
        np.testing.assert_allclose(rows[valid, :3], target[valid, :3], atol=1e-6)
        turned = Rotation.from_quat(rows[:, 3:7]).as_matrix()
        np.testing.assert_allclose(turned[valid], matrices[valid], atol=1e-5)
        np.testing.assert_allclose(rows[valid, 7], target[valid, 9], atol=1e-6)
        assert ((rows[1:, 3:7] * rows[:-1, 3:7]).sum(axis=1) >= 0).all()
        for k in np.flatnonzero(~valid):  # held, as the target before it
            np.testing.assert_array_equal(rows[k], rows[k - 1])
        if cfg.env_type == "robotwin_tshape":
            np.testing.assert_array_equal(
                rows[:, 8:15], np.tile([0, 0, 0, 0, 0, 0, 1], (len(rows), 1))
            )


def test_latents_are_of_the_pictures_of_the_clip(exported: Path, corpus: Path) -> None:
    """The network called as its server calls it, on pictures that PyAV decodes."""
    import av

    cfg = config_of(exported)
    mapping = pq.read_table(exported / "eicorpus_export.parquet").to_pylist()
    row = next(each for each in mapping if each["start"] == 5)
    number = row["episode_index"]
    (clip,) = lines(Path(cfg.dataset_path) / "meta/episodes.jsonl")[number]["action_config"]
    for place, camera in enumerate(cfg.obs_cam_keys):
        (path,) = corpus.glob(f"datasets/*/*/videos/*/{camera}/episode_000001.mp4")
        with av.open(str(path)) as container:
            shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        content = torch.load(latents_of(cfg, number, clip, camera), weights_only=True)
        seen = [shown[row["start"] + k] for k in content["frame_ids"]]
        is_half = cfg.env_type == "robotwin_tshape" and place > 0
        size = (cfg.height // 2, cfg.width // 2) if is_half else (cfg.height, cfg.width)
        frames = torch.from_numpy(np.stack(seen)).permute(3, 0, 1, 2).float()
        small = torch.nn.functional.interpolate(
            frames.permute(1, 0, 2, 3), size=size, mode="bilinear", align_corners=False
        )
        video = small.permute(1, 0, 2, 3)[None] / 255 * 2 - 1
        vae = wan_encoders(SEEDED)._vae
        with torch.inference_mode():
            wanted = vae.encode(video).latent_dist.mode()[0].permute(1, 2, 3, 0).reshape(-1, 48)
        torch.testing.assert_close(content["latent"].float(), wanted, atol=2e-2, rtol=2e-2)


def test_statistics_are_of_what_the_loader_normalises(exported: Path) -> None:
    """After the relative transform, rows of zeros aside; q01 and q99 then take in 0."""
    cfg = config_of(exported)
    low, high = (np.array(cfg.norm_stat[name]) for name in ("q01", "q99"))
    wide = []
    for number, episode in enumerate(lines(Path(cfg.dataset_path) / "meta/episodes.jsonl")):
        for clip in episode["action_config"]:
            _, normal, mask = sample(cfg, number, clip)
            inside = (np.abs(normal[mask]) <= 1.0 + 1e-4).mean()
            assert inside > 0.9
            wide.append(normal[mask])
    values = np.concatenate([each.reshape(each.shape[0], -1) for each in wide], axis=1)
    moving = high[mask] - low[mask] != 1.0
    # a range that was not that of the trained values would leave a part of [-1, 1] empty
    assert (values[moving].max(axis=1) > 0.9).all()


MISTAKES: dict[str, Callable[[Path, SimpleNamespace], object]] = {
    "1 another info.json": lambda root, cfg: shutil.copy(
        root / "meta/info.json", root / "latents/info.json"
    ),
    "2 no episodes_stats": lambda root, cfg: (root / "meta/episodes_stats.jsonl").unlink(),
    "2 videos are declared": lambda root, cfg: _change(
        root / "meta/info.json",
        lambda v: v["features"].update({"observation.images.x": {"dtype": "video"}}),
    ),
    "3 episodes are not in order": lambda root, cfg: _change_line(
        root, lambda v: v.update(episode_index=5)
    ),
    "4 an episode without": lambda root, cfg: _change_line(root, lambda v: v.pop("action_config")),
    "4 a clip is not inside": lambda root, cfg: _change_line(
        root, lambda v: v["action_config"][0].update(end_frame=999)
    ),
    "5 the latents of a camera": lambda root, cfg: next(
        (root / f"latents/chunk-000/{cfg.obs_cam_keys[1]}").iterdir()
    ).unlink(),
    "6 the latent has another shape": lambda root, cfg: _change_latents(
        root, lambda v: v.update(latent=v["latent"][1:])
    ),
    "6 not 4 k + 1 pictures": lambda root, cfg: _change_latents(
        root, lambda v: v["frame_ids"].pop()
    ),
    "6 no text": lambda root, cfg: _change_latents(root, lambda v: v.pop("text_emb", None)),
    "6 pictures at no constant": lambda root, cfg: _change_latents(
        root, lambda v: v["frame_ids"].__setitem__(-1, 99)
    ),
    "7 empty_emb": lambda root, cfg: torch.save({"x": 1}, root / "empty_emb.pt"),
    "8 as many columns": lambda root, cfg: _change_config(
        root, "cfg.used_action_channel_ids = [", "cfg.used_action_channel_ids = [20, "
    ),
    "9 action_per_frame": lambda root, cfg: _change_config(root, " = 30, 8", " = 30, 16"),
    "9 too few rows": lambda root, cfg: (
        _change_line(
            root,
            lambda v: v["action_config"][0].update(end_frame=v["action_config"][0]["end_frame"]),
        )
        or _shorten(root)
    ),
    "11 zero is outside": lambda root, cfg: _change_config(root, '"q01": [', '"q01": [9.0 + '),
    "12 an odd number": lambda root, cfg: _change_latents(
        root,
        lambda v: v.update(latent_height=1, latent_width=v["latent_height"] * v["latent_width"]),
    ),
}


def _change(path: Path, change: Callable[[Any], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def _change_line(root: Path, change: Callable[[Any], object]) -> None:
    path = root / "meta/episodes.jsonl"
    first, *rest = lines(path)
    change(first)
    path.write_text("".join(json.dumps(each) + "\n" for each in (first, *rest)))


def _change_latents(root: Path, change: Callable[[Any], object]) -> None:
    for path in root.glob("latents/*/*/episode_000000_*.pth"):
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)


def _change_config(root: Path, before: str, after: str) -> None:
    (path,) = root.parent.glob("lingbot_va_*.py")
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def _shorten(root: Path) -> None:
    """A clip that ends too early, with the files of its name."""
    _change_line(root, lambda v: v["action_config"][0].update(end_frame=20))
    for path in root.glob("latents/*/*/episode_000000_0_*.pth"):
        path.rename(path.with_name("episode_000000_0_20.pth"))


@pytest.mark.parametrize("told", MISTAKES)
def test_a_broken_rule_is_seen(told: str, exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "out")
    cfg = config_of(tmp_path / "out")
    MISTAKES[told](Path(cfg.dataset_path), cfg)
    assert any(each.startswith(told) for each in problems(tmp_path / "out"))


def test_a_quaternion_of_zeros_is_seen(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "out")
    cfg = config_of(tmp_path / "out")
    if cfg.env_type != "robotwin_tshape":  # one arm alone
        return
    path = Path(cfg.dataset_path) / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path)
    rows = np.array(table["action"].to_pylist())
    rows[:, 11:15] = 0
    place = table.schema.get_field_index("action")
    pq.write_table(table.set_column(place, "action", [rows.tolist()]), path)
    assert "10 no quaternion of an arm" in set(problems(tmp_path / "out"))


def test_what_cannot_be_held_is_counted(exported: Path) -> None:
    page = page_of(exported)
    assert {each["code"]: each["segments"] for each in page["left_out"]} == {
        "no_policy": 1,
        "too_short": 1,
    }
    assert page["untrained"] is True
    (uncovered,) = page["timesteps_in_no_clip"].values()
    assert uncovered == (37 - 33) + (9 - 9) + (19 - 17)


def test_long_segments_become_clips_that_share_a_picture() -> None:
    plan = SimpleNamespace(fps=10)
    clips = LingBotVa(frame_stride=2)._clips(plan, 700)  # type: ignore[arg-type]
    assert clips == [(0, 297), (296, 593), (592, 697)]
    assert all((end - start - 1) % 8 == 0 for start, end in clips)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weights": None}, "needs a video VAE and a text encoder"),
        ({"frame_stride": 3}, "pictures at 10 / 3 Hz"),
        ({"height_px": 100}, "pictures of 100 x 128 pixels"),
    ],
)
def test_what_the_format_cannot_hold_is_refused_before_anything_is_written(
    change: dict[str, Any], told: str, corpus: Path, tmp_path: Path
) -> None:
    to = replace(TO, **change)
    plan = plan_of(corpus, manifest_of(corpus, SEGMENTS), to)
    with pytest.raises(ConfigError, match=told):
        run_export(plan, to, tmp_path / "out", InlineExecutor())
    assert not (tmp_path / "out").exists()


def test_the_t_shape_needs_both_wrists(corpus: Path) -> None:
    (dataset,) = plan_of(corpus, manifest_of(corpus, SEGMENTS), TO).datasets
    layout = layout_of(dataset)
    if len(dataset.video_keys) == 3:
        assert layout.cameras == tuple(
            f"observation.images.{name}" for name in ("front", "wrist_left", "wrist_right")
        )
        assert layout.env_type == "robotwin_tshape"
    else:
        assert layout.env_type == "none"


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder tokenizer"):
        WanWeights(folder=str(tmp_path)).identity()
    (tmp_path / "tokenizer").mkdir()
    with pytest.raises(ConfigError, match=r"no config\.json"):
        WanWeights(folder=str(tmp_path)).identity()


def test_text_ends_with_zeros_and_the_empty_text_is_its_own() -> None:
    encoders = wan_encoders(SEEDED)
    said, empty = encoders.text("  put &amp; lift "), encoders.text("")
    assert said.shape == (512, 4096)
    assert said.dtype == torch.bfloat16
    assert torch.equal(said, encoders.text("put & lift"))
    assert not said[11:].any()
    assert said[10].any()
    assert not empty[1:].any()
