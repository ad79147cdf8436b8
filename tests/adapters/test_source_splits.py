"""The split that a source publishes an episode in: read from the source's own files, strictest where they disagree."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from adapters.containers.lerobot_paths import split_ranges
from adapters.registry import adapter_for
from jobs.demo.raw.oxe import dataset_info, shard_name, write_set
from schemas.episode import EpisodeRef
from schemas.errors import ConfigError
from schemas.source_split import source_split_of, strictest
from tests import generators
from tests.adapters.oxe_cases import TINY, refs_of, tiny
from tests.generators.epic_kitchens import LABELS, TIMES, write_rows


def raw(source: str, root: Path) -> Path:
    return generators.write(source, root / "raw").root


def splits_of(source: str, root: Path, **options: str) -> dict[str, str]:
    return {ref.episode_id: ref.source_split for ref in listed(source, root, options)}


def listed(source: str, root: Path, options: Mapping[str, str]) -> list[EpisodeRef]:
    adapter = adapter_for(source)
    return list(adapter.discover(root, adapter.survey(root, options)))


def edit_json(path: Path, **changes: Any) -> None:
    value = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(value | changes))


@pytest.mark.parametrize(
    ("word", "split"),
    [
        *(("train", "train"), ("Training", "train"), ("train_aria", "train"), ("val", "val")),
        *(("valid", "val"), ("validation", "val"), ("test", "test"), ("test_quest3", "test")),
        *(("", ""), ("play", ""), ("trains", ""), ("20_percent_train", ""), ("latest", "")),
    ],
)
def test_a_name_means_a_split_by_its_first_word(word: str, split: str) -> None:
    assert source_split_of(word) == split


def test_test_outranks_val_outranks_train() -> None:
    assert strictest(["train", "val", ""]) == "val"
    assert strictest(["val", "test"]) == "test"
    assert strictest([]) == ""


def test_rlds_shards_are_of_the_split_in_their_name(tmp_path: Path) -> None:
    """One set with a train, a val and a play shard, as TFDS declares it."""
    directory = tmp_path / "bridge_dataset" / "1.0.0"
    names = ("train", "val", "play")
    for name in names:
        write_set(directory, TINY, [tiny()], split=name)
    info = dataset_info("bridge_dataset", "1.0.0", {name: [1] for name in names})
    (directory / "dataset_info.json").write_text(json.dumps(info))
    found = {ref.at("shard"): ref.source_split for ref in refs_of(tmp_path)}
    shards = [shard_name("bridge_dataset", name, 0, 1) for name in names]
    assert [found[shard] for shard in shards] == ["train", "val", ""]


def test_lerobot_ranges_are_half_open_and_the_strictest_counts(tmp_path: Path) -> None:
    root = raw("lerobot", tmp_path)
    info = root / "meta/info.json"
    edit_json(info, splits={"train": "0:3", "validation": "2:3"})
    assert list(splits_of("lerobot", root).values()) == ["train", "train", "val"]
    edit_json(info, splits={"train": "0:1", "test": "1:2"})
    assert list(splits_of("lerobot", root).values()) == ["train", "test", ""]


def test_lerobot_splits_that_are_no_ranges_are_named_and_not_used(tmp_path: Path) -> None:
    root = raw("lerobot", tmp_path)
    edit_json(
        root / "meta/info.json",
        splits={"train": "all", "val": [1], "play": "0:3", "test": "2:3,0:1"},
    )
    assert list(splits_of("lerobot", root).values()) == ["test", "", "test"]
    notes = " ".join(adapter_for("lerobot").survey(root, {}).notes)
    assert "'train': 'all' is no range FROM:TO" in notes
    assert "'play': '0:3' is none of train, val, test" in notes
    edit_json(root / "meta/info.json", splits="0:3")
    assert set(splits_of("lerobot", root).values()) == {""}
    (root / "meta/info.json").write_text("{")
    assert split_ranges(root).split_of(0) == ""


def test_ssv2_files_name_the_split_of_a_clip_whether_chosen_or_not(tmp_path: Path) -> None:
    """Clip 42326 is in train.json and validation.json: it is held out."""
    root = raw("ssv2", tmp_path)
    (root / "labels/validation.json").write_text(json.dumps([{"id": "42326"}, {"id": "100904"}]))
    found = splits_of("ssv2", root)
    assert {name: found[name] for name in ("78687", "42326", "9", "100904")} == {
        "78687": "train",
        "42326": "val",
        "9": "test",
        "100904": "val",
    }
    unlabelled = splits_of("ssv2", root, splits="unlabelled")
    assert unlabelled == {"9": "test", "78687": "train", "42326": "val", "100904": "val"}


def test_epic_kitchens_files_name_the_split_of_a_video(tmp_path: Path) -> None:
    root = raw("epic_kitchens", tmp_path)
    with_rows = splits_of("epic_kitchens", root)
    assert sorted(with_rows.values()) == ["", "test", "val", "val"]
    windows = splits_of("epic_kitchens", root, splits="windows")
    assert {"val", "test", ""} == set(windows.values()), "windows of listed videos keep their split"
    folder = root / "epic-kitchens-100-annotations"
    empty = folder / "EPIC_100_test_timestamps.csv"
    write_rows(empty, [], [*TIMES, *LABELS])
    assert "test" not in splits_of("epic_kitchens", root).values()


def test_ego4d_takes_the_strictest_of_its_benchmarks(tmp_path: Path) -> None:
    """`split_em` train and `split_fho` val; then only Goal-Step's val; then a benchmark whose clips are in several splits."""
    root = raw("ego4d", tmp_path)
    assert set(splits_of("ego4d", root).values()) == {"train"}
    path = next(root.rglob("ego4d.json"))
    metadata = json.loads(path.read_text())
    for split, wanted in (("val", "val"), (None, "train")):
        for video in metadata["videos"]:
            video |= {"split_em": "train", "split_fho": split, "split_av": None}
        path.write_text(json.dumps(metadata))
        assert set(splits_of("ego4d", root).values()) == {wanted}
    train = next(root.rglob("goalstep_train.json"))
    goal = train.rename(train.with_name("goalstep_val.json"))
    in_goal = {video["video_uid"] for video in json.loads(goal.read_text())["videos"]}
    for chosen in ({}, {"annotations": "narrations,windows"}):  # a file that is not read counts too
        found = splits_of("ego4d", root, **chosen)
        for name, split in found.items():
            assert split == ("val" if name.split("/")[0] in in_goal else "train"), name
    metadata["videos"][0]["split_em"] = "multi"
    path.write_text(json.dumps(metadata))
    uid = metadata["videos"][0]["video_uid"]
    held = {s for name, s in splits_of("ego4d", root).items() if name.startswith(uid)}
    assert held == {"test"}


def test_ego_exo4d_reads_the_list_of_takes(tmp_path: Path) -> None:
    root = raw("ego_exo4d", tmp_path)
    before = splits_of("ego_exo4d", root)
    assert sorted(set(before.values())) == ["", "train"]
    silent = next(name.split("/")[0] for name, split in before.items() if not split)
    trained = next(name.split("/")[0] for name, split in before.items() if split)
    listing = {"take_uid_to_split": {silent: "test", trained: "val"}, "split_to_take_uids": {}}
    (root / "annotations/splits.json").write_text(json.dumps(listing))
    after = splits_of("ego_exo4d", root)
    assert {split for name, split in after.items() if name.startswith(silent)} == {"test"}
    assert {split for name, split in after.items() if name.startswith(trained)} == {"val"}


def test_holoassist_reads_the_official_lists(tmp_path: Path) -> None:
    root = raw("holoassist", tmp_path)
    names = sorted({name.split("/")[0] for name in splits_of("holoassist", root)})
    (root / "train-v1_2.txt").write_text(f"{names[0]}\n")
    (root / "val-v1_2.txt").write_text(f"\n{names[1]}\n")
    found = splits_of("holoassist", root)
    assert {found[name] for name in found if name.startswith(f"{names[0]}/")} == {"train"}
    assert {found[name] for name in found if name.startswith(f"{names[1]}/")} == {"val"}


def test_robomimic_masks_are_splits_and_skills_are_not(tmp_path: Path) -> None:
    """`mask/better` and `mask/20_percent_valid` say nothing; one demonstration in train and valid is held out."""
    root = raw("robomimic", tmp_path)
    path = next(p for p in sorted(root.rglob("*.hdf5")) if "mask" in h5py.File(p))
    with h5py.File(path, "r+") as file:
        file["mask/valid"] = np.array([b"demo_2"])
        file["mask/20_percent_valid"] = np.array([b"demo_10"])
    found = splits_of("robomimic", root)
    name = path.relative_to(root).as_posix().removesuffix(".hdf5")
    assert (found[f"{name}/demo_2"], found[f"{name}/demo_10"]) == ("val", "")


def test_egodex_and_hot3d_clips_go_by_folder_also_where_the_root_is_it(tmp_path: Path) -> None:
    root = raw("egodex", tmp_path)
    assert set(splits_of("egodex", root / "test").values()) == {"test"}
    (root / "part1").rename(root / "extra")
    assert set(splits_of("egodex", root / "extra").values()) == {""}
    clips = raw("hot3d_clips", tmp_path / "clips")
    assert set(splits_of("hot3d_clips", clips / "train_aria").values()) == {"train"}


def test_arctic_takes_the_strictest_of_its_two_protocols(tmp_path: Path) -> None:
    root = raw("arctic", tmp_path)
    assert list(splits_of("arctic", root).values()) == ["train", "val", "test"]
    (root / "splits_json/protocol_p2.json").unlink()
    assert list(splits_of("arctic", root).values()) == ["train", "val", "train"]
    (root / "splits_json/protocol_p1.json").unlink()
    assert set(splits_of("arctic", root).values()) == {""}
    assert "splits_json" in " ".join(adapter_for("arctic").survey(root, {}).notes)


def test_taco_reads_its_list_in_either_place(tmp_path: Path) -> None:
    """test_1 to test_4 are test sets all; a sequence that the list does not have has no split."""
    root = raw("taco", tmp_path)
    assert list(splits_of("taco", root).values()) == ["train", "test"]
    path = root / "data_lists/v1_overall_data_train_test_split.txt"
    path.write_bytes(b"20231024_246,test_1\r\n")
    assert list(splits_of("taco", root).values()) == ["test", ""]
    path = path.rename(root / path.name)
    assert list(splits_of("taco", root).values()) == ["test", ""]
    path.unlink()
    assert set(splits_of("taco", root).values()) == {""}
    assert "no test sets" in " ".join(adapter_for("taco").survey(root, {}).notes)


def test_hoi4d_sequences_of_both_lists_are_held_out(tmp_path: Path) -> None:
    """As 31 of the real ones are."""
    root = raw("hoi4d", tmp_path)
    assert list(splits_of("hoi4d", root).values()) == ["train", "test"]
    (root / "testset.txt").unlink()
    assert list(splits_of("hoi4d", root).values()) == ["train", "train"]
    assert "no test set" in " ".join(adapter_for("hoi4d").survey(root, {}).notes)
    (root / "release.txt").unlink()
    assert set(splits_of("hoi4d", root).values()) == {""}


@pytest.mark.parametrize(
    ("source", "name"),
    [("taco", "v1_overall_data_train_test_split.txt"), ("hoi4d", "testset.txt")],
)
def test_a_list_that_is_no_text_ends_the_run_before_it_begins(
    tmp_path: Path, source: str, name: str
) -> None:
    root = raw(source, tmp_path)
    next(root.rglob(name)).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a list of names"):
        splits_of(source, root)
