"""`ingest.export.rules`: what was exported passes, and each planted mistake is named. The plants are those of each format's own test, whose checker is another one."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ingest.executors.inline import InlineExecutor
from ingest.export.datasets.run import run_export
from ingest.export.rules.check import RULES, check_rules
from tests.ingest import test_export_groot as groot
from tests.ingest import test_export_lda as lda
from tests.ingest import test_export_lerobot_v3 as v3
from tests.ingest import test_export_lingbot_va as lingbot
from tests.ingest import test_export_openpi as openpi
from tests.ingest.export_cases import (
    Numbered,
    NumberedWrists,
    manifest_of,
    numbered_corpus,
    page_of,
    plan_of,
)

CASES: dict[str, tuple[Any, type[Numbered], Sequence[Any], dict[str, Any]]] = {
    "lerobot-v3": (v3.LeRobotV3(), Numbered, v3.SEGMENTS, {"split": v3.SPLITS}),
    "groot": (groot.Groot(), Numbered, groot.SEGMENTS, {"tasks": groot.TASKS}),
    "lda": (lda.Lda(), Numbered, lda.SEGMENTS, {"tasks": lda.TASKS, "text": lda.TEXTS}),
    "openpi": (openpi.OpenPi(), Numbered, openpi.SEGMENTS, {"tasks": openpi.TASKS}),
    "lingbot-va": (lingbot.TO, Numbered, lingbot.SEGMENTS, {"tasks": lingbot.TASKS}),
    "lingbot-va, T-shape": (
        lingbot.TO,
        NumberedWrists,
        lingbot.SEGMENTS,
        {"tasks": lingbot.TASKS},
    ),
}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One export of each case."""
    corpora = {
        source: numbered_corpus(tmp_path_factory.mktemp("numbered"), source)
        for source in (Numbered, NumberedWrists)
    }
    out = {}
    for name, (to, source, segments, columns) in CASES.items():
        chosen = manifest_of(corpora[source], segments, **columns)
        out[name] = tmp_path_factory.mktemp("export") / "out"
        run_export(plan_of(corpora[source], chosen, to), to, out[name], InlineExecutor())
    return out


def found(out: Path) -> list[str]:
    return list(check_rules(out, page_of(out)))


@pytest.mark.parametrize("name", CASES)
def test_what_was_exported_passes(name: str, exports: dict[str, Path]) -> None:
    assert found(exports[name]) == []


def test_formats_with_rules_are_formats() -> None:
    assert {to.name for to, *_ in CASES.values()} == set(RULES)


# --- planted mistakes -------------------------------------------------------------------------------------------------------


def dataset_of(out: Path, name: str) -> Path:
    return lda.folder(out) if name == "lda" else out / page_of(out)["datasets"][0]["folder"]


def _of_meta(change: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda dataset: change(dataset / "meta")


def _of_lingbot(change: Callable[[Path, Any], object]) -> Callable[[Path], object]:
    return lambda dataset: change(dataset, lingbot.config_of(dataset.parent))


def _page(place: str, change: Callable[[Any], object]) -> Callable[[Path], object]:
    return lambda dataset: lda._change(dataset / place, change)


def _column(
    place: str, name: str, change: Callable[[np.ndarray[Any, Any]], object]
) -> Callable[[Path], object]:
    def plant(dataset: Path) -> None:
        table = pq.read_table(dataset / place)
        index, values = table.schema.get_field_index(name), np.array(table[name].to_pylist())
        change(values)
        column = type(table).from_pydict({name: values.tolist()}, table.select([name]).schema)
        pq.write_table(
            table.set_column(index, table.schema.field(index), column[name]), dataset / place
        )

    return plant


def _text(place: str, before: str, after: str) -> Callable[[Path], object]:
    def plant(dataset: Path) -> None:
        (path,) = dataset.parent.glob(place)
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after, 1))

    return plant


def _plant(name: str) -> Callable[[Path], object]:
    """A function that is defined below."""

    def plant(dataset: Path) -> None:
        globals()[name](dataset)

    return plant


FIRST = "data/chunk-000/episode_000000.parquet"
V3, GROOT, LDA, LINGBOT = (m.MISTAKES for m in (v3, groot, lda, lingbot))
MISTAKES: list[tuple[str, Callable[[Path], object], str]] = [
    ("lerobot-v3", V3["not task i"], "meta/tasks.parquet: row i is not task i"),
    ("lerobot-v3", V3["not numbered"], "not numbered 0 to N - 1"),
    ("lerobot-v3", V3["not contiguous"], "episode 0: index is not contiguous"),
    ("lerobot-v3", V3["not its rows"], "episode 2: from and to are not its rows"),
    ("lerobot-v3", V3["other texts"], "its rows have other texts"),
    ("lerobot-v3", V3["between two pictures"], "begins between two pictures"),
    ("lerobot-v3", V3["has no picture"], "file-000.mp4 has no picture"),
    ("lerobot-v3", V3["total_frames"], "total_frames is 1"),
    ("lerobot-v3", V3["other columns"], "other columns than info.json"),
    ("lerobot-v3", _page("meta/info.json", lambda v: v.update(fps=10.5)), "no whole number"),
    (
        "lerobot-v3",
        _page("meta/info.json", lambda v: v.update(data_path="{chunk_index:999999999d}")),
        "other paths than LeRobot's",
    ),
    (
        "lerobot-v3",
        _page("meta/stats.json", lambda v: v["action"]["max"].__setitem__(0, 99.0)),
        "min and max of action are not those of the data",
    ),
    ("lerobot-v3", _page("meta/stats.json", lambda v: v["action"].pop("q01")), "lacks q01"),
    (
        "lerobot-v3",
        _column(v3.DATA, "action", lambda values: values.__setitem__((2, 0), np.nan)),
        "not finite",
    ),
    ("lerobot-v3", lambda d: (d / v3.EPISODES).write_bytes(b"PAR1"), "damaged Parquet"),
    ("groot", _of_meta(GROOT["do not tile"]), "the slices of observation.state do not tile it"),
    ("groot", _of_meta(GROOT["the six statistics"]), "action has not exactly the six"),
    ("groot", _of_meta(GROOT["another width"]), "action: q01 has another width"),
    ("groot", _of_meta(GROOT["fps is no integer"]), "meta/info.json: fps"),
    ("groot", _of_meta(GROOT["tasks.jsonl lacks"]), "one that tasks.jsonl lacks"),
    ("groot", _of_meta(GROOT["is no video"]), "front is no video"),
    ("groot", _of_meta(GROOT["fewer pictures"]), "episode_000000.mp4: fewer pictures than rows"),
    ("groot", _text("n15_*.py", "state.left_eef", "state.right_eef"), "its state keys are not"),
    ("groot", _text("n16_*.py", "'left_gripper'", "'left_hand'"), "keys are not those of"),
    ("groot", _column(FIRST, "timestamp", lambda v: v.__iadd__(0.05)), "is not frame_index / fps"),
    ("groot", _column(FIRST, "action", lambda v: v.__imul__(3.0)), "min and max of action"),
    ("lda", _of_meta(LDA["the files of stats differ"]), "stats_eef.json: differs from"),
    ("lda", _of_meta(LDA["six statistics"]), "eef.left.wrist has not exactly the six"),
    ("lda", _of_meta(LDA["roll, pitch and yaw"]), "left_eef_rotation is no roll, pitch and yaw"),
    ("lda", _of_meta(LDA["share a column"]), "share a column, eef.left.hand"),
    ("lda", _of_meta(LDA["a cache"]), "has a cache of the loader"),
    ("lda", _of_meta(LDA["another length"]), "another length"),
    ("lda", _of_meta(LDA["no text"]), "no text in its first row"),
    ("lda", _text("lda_mixture.py", '"decord"', '"torchvision_av"'), "backend is not decord"),
    ("lda", _text("lda_mixture.py", '1.0, "', '1.0, "'), ""),
    (
        "lda",
        _column(FIRST, "eef.left.wrist", lambda v: v.__setitem__((3, 4), 90.0)),
        "angles beyond half a turn",
    ),
    ("lda", _column(FIRST, "eef.left.hand", lambda v: v.__imul__(100.0)), "outside of [0, 1]"),
    (
        "openpi",
        lambda d: _stats_of_openpi(d, lambda v: v["actions"].pop("q99")),
        "actions has not exactly mean, std, q01 and q99",
    ),
    (
        "openpi",
        lambda d: _stats_of_openpi(d, lambda v: v["state"]["q01"].__setitem__(0, 50.0)),
        "q01 of state is outside of the data",
    ),
    (
        "openpi",
        lambda d: _stats_of_openpi(d, lambda v: v.update(action=v.pop("actions"))),
        "statistics of state, action; expected state and actions",
    ),
    ("openpi", _text("openpi_*.py", "base_0_rgb': 'image'", "base_0_rgb': 'x'"), "VIEWS are not"),
    (
        "openpi",
        _page("meta/info.json", lambda v: v["features"].update(front=v["features"].pop("image"))),
        "expected image and its wrists",
    ),
    (
        "openpi",
        _page("meta/info.json", lambda v: v.update(total_episodes=9)),
        "are there, not what",
    ),
    (
        "openpi",
        lambda d: (d / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": " "}\n'),
        "no text",
    ),
    ("lingbot-va", _of_lingbot(LINGBOT["1 another info.json"]), "(rule 1)"),
    (
        "lingbot-va",
        _text("lingbot_va_*.py", "cfg.dataset_path = os.path.join(HERE, ", "cfg.dataset_path = ("),
        "(rule 1)",
    ),
    ("lingbot-va", _of_lingbot(LINGBOT["2 no episodes_stats"]), "episodes_stats.jsonl"),
    (
        "lingbot-va",
        _of_lingbot(LINGBOT["2 videos are declared"]),
        "meta/info.json: shape: is missing",
    ),
    ("lingbot-va", _plant("_declare_a_video"), "(rule 2)"),
    ("lingbot-va", _of_lingbot(LINGBOT["3 episodes are not in order"]), "not in order"),
    ("lingbot-va", _of_lingbot(LINGBOT["4 an episode without"]), "no action_config (rule 4)"),
    (
        "lingbot-va",
        _of_lingbot(LINGBOT["4 a clip is not inside"]),
        "not inside its episode (rule 4)",
    ),
    ("lingbot-va", _of_lingbot(LINGBOT["5 the latents of a camera"]), "in silence (rule 5)"),
    ("lingbot-va", _of_lingbot(LINGBOT["6 the latent has another shape"]), "than it says (rule 6)"),
    (
        "lingbot-va",
        _of_lingbot(LINGBOT["6 not 4 k + 1 pictures"]),
        "expected 4 (F - 1) + 1 (rule 6)",
    ),
    ("lingbot-va", _of_lingbot(LINGBOT["6 no text"]), "no text_emb [512, 4096]"),
    (
        "lingbot-va",
        _of_lingbot(LINGBOT["6 pictures at no constant"]),
        "no constant stride (rule 6)",
    ),
    ("lingbot-va", _of_lingbot(LINGBOT["7 empty_emb"]), "no tensor [512, 4096] (rule 7)"),
    ("lingbot-va", _of_lingbot(LINGBOT["8 as many columns"]), "columns for 9 channels (rule 8)"),
    (
        "lingbot-va",
        _text(
            "lingbot_va_*.py",
            "inverse_used_action_channel_ids = [0, 1",
            "inverse_used_action_channel_ids = [1, 0",
        ),
        "(rule 8)",
    ),
    ("lingbot-va", _of_lingbot(LINGBOT["9 action_per_frame"]), "is not four strides of 2 (rule 9)"),
    ("lingbot-va", _of_lingbot(LINGBOT["9 too few rows"]), "needs 32 (rule 9)"),
    (
        "lingbot-va",
        _of_lingbot(LINGBOT["11 zero is outside"]),
        "norm_stat missing or not written out",
    ),
    ("lingbot-va", _column(FIRST, "action", lambda v: v.__imul__(0.1)), "trained values (rule 11)"),
    ("lingbot-va, T-shape", _column(FIRST, "action", lambda v: v.__imul__(1.0)), ""),
    ("lingbot-va, T-shape", _column(FIRST, "action", lambda v: v[:, 11:15].fill(0)), "(rule 10)"),
    ("lingbot-va, T-shape", _plant("_wide_wrist"), "as wide as the scene (rule 10)"),
    ("lingbot-va, T-shape", _plant("_absolute_norm"), "trained values (rule 11)"),
    ("lingbot-va", lambda d: _norm(d, lambda low: low.__setitem__(0, 0.5)), "zero is outside"),
    ("lingbot-va", _of_lingbot(LINGBOT["12 an odd number"]), "(rule 12)"),
    (
        "lingbot-va",
        lambda d: next(d.glob("latents/*/*/*.pth")).write_bytes(b"x"),
        "no file of tensors",
    ),
]


def _stats_of_openpi(dataset: Path, change: Callable[[Any], object]) -> None:
    path = dataset.parent / "assets" / dataset.name / "norm_stats.json"
    lda._change(path, lambda value: change(value["norm_stats"]))


def _declare_a_video(dataset: Path) -> None:
    from schemas.lerobot import VIDEO_PATH, video_feature

    def declare(info: Any) -> None:
        info["features"]["observation.images.x"] = video_feature(
            width=64, height=64, codec="h264", fps=10
        )
        info["video_path"] = VIDEO_PATH

    lda._change(dataset / "meta/info.json", declare)


def _wide_wrist(dataset: Path) -> None:
    import torch

    cfg = lingbot.config_of(dataset.parent)
    for path in dataset.glob(f"latents/*/{cfg.obs_cam_keys[1]}/*.pth"):
        content = torch.load(path, weights_only=True)
        content["latent"] = content["latent"].repeat(2, 1)
        content["latent_width"] *= 2
        torch.save(content, path)


def _absolute_norm(dataset: Path) -> None:
    """Quantiles of the poses, not of what the loader makes of them."""
    _norm(dataset, lambda low: None)


def _norm(dataset: Path, change: Callable[[list[float]], object]) -> None:
    """Other quantiles in the config: of the rows as they are stored, changed."""
    rows = np.concatenate([lingbot.rows_of(dataset, k) for k in range(3)])
    low, high = [0.0] * 30, [0.0] * 30
    for place, channel in enumerate(lingbot.config_of(dataset.parent).used_action_channel_ids):
        low[channel] = min(0.0, float(np.quantile(rows[:, place], 0.01)))
        high[channel] = max(0.0, float(np.quantile(rows[:, place], 0.99)))
    change(low)
    (path,) = dataset.parent.glob("lingbot_va_*.py")
    lines = [
        f"    cfg.norm_stat = {{'q01': {low}, 'q99': {high}}}" if "norm_stat" in line else line
        for line in path.read_text().splitlines()
    ]
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("name", "plant", "told"), MISTAKES, ids=[f"{name}: {told}" for name, _, told in MISTAKES]
)
def test_a_planted_mistake_is_named(
    name: str,
    plant: Callable[[Path], object],
    told: str,
    exports: dict[str, Path],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    shutil.copytree(exports[name], out)
    plant(dataset_of(out, name))
    assert any(told in each for each in found(out)) == bool(told), found(out)


def test_a_length_that_no_file_has_takes_no_memory(
    exports: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(exports["lerobot-v3"], out)
    length = 3_000_000
    v3._rows(
        dataset_of(out, "lerobot-v3") / v3.EPISODES, lambda rows: rows[1].update(length=length)
    )
    tracemalloc.start()
    try:
        told = [each for each in found(out) if "episode 1" in each]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert any(f"its length is {length}" in each for each in told), told
    assert not any(".mp4" in each for each in told)
    assert peak < 8 * length  # less than any list of its numbers


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "other": lambda data: b"null",
    "list": lambda data: b"[1, [2]]",
    "deep": lambda data: b"[" * 100_000,
    "binary": lambda data: bytes(range(256)) * 8,
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_a_finding_and_never_an_error(
    damage: str, name: str, exports: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(exports[name], out)
    unread = 0
    for place in page_of(out)["files"]:
        whole = (out / place).read_bytes()
        (out / place).write_bytes(DAMAGES[damage](whole))
        if not found(out):
            unread += 1
            assert place.endswith((".parquet", ".jsonl", ".py"))  # named below
            assert (
                place == "eicorpus_export.parquet" or place.startswith("assets") or damage == "cut"
            )
        (out / place).write_bytes(whole)
    assert unread <= 3


@pytest.mark.parametrize(
    "folder", ["../out", "/etc", "", "a/../../b", "\0", "x" * 5000, 7, None, []]
)
def test_a_folder_that_leads_out_of_the_export_is_a_finding(
    folder: Any, exports: dict[str, Path]
) -> None:
    for name in ("lerobot-v3", "lda", "lingbot-va"):
        page = page_of(exports[name])
        page["datasets"][0]["folder"] = folder
        assert list(check_rules(exports[name], page)) != []
    assert list(check_rules(exports["lda"], {"format": "lda", "datasets": 3})) != []
