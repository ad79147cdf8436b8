"""A checkpoint in parts is that of one process: read by any number of ranks, whole or not there."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from schemas.errors import ConfigError
from tests.training.running import learner, recipe, snapshot_of, trainer, two_ranks
from tests.training.shards_main import (
    NUM_BEFORE,
    PARALLEL,
    everything,
    recipe_by,
    restored,
    stepped,
)
from training.run.checkpoint import (
    AVERAGES,
    NORMALISER,
    STATE,
    WEIGHTS,
    checkpoint_of,
    checkpoints,
    refuse_broken,
    sweep,
    write,
)
from training.run.parallel import Ranks
from training.run.restore import restore, restore_weights
from training.run.shards import number_of, open_shards

pytestmark = pytest.mark.slow
SHARE = {"shard-00001-model-00001-of-00003.safetensors", "shard-00002-model-00003-of-00003.safetensors"}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks left, of which one was killed while it wrote."""
    folder = tmp_path_factory.mktemp("shards")
    alone = trainer(recipe_by("ddp"))
    stepped(alone, 0, NUM_BEFORE, Ranks())
    saved = snapshot_of(alone, NUM_BEFORE)
    assert saved is not None
    write(folder / "one/checkpoints", saved, keep=1)
    save_file(everything(alone), folder / "one.safetensors")
    programs = two_ranks("tests.training.shards_main", folder)
    told = [program.communicate(timeout=300)[1] for program in programs]
    assert all((folder / f"done.{rank}").exists() for rank in range(2)), told
    assert programs[1].returncode == -9, told
    assert programs[0].returncode == 1, told
    assert "OSError" in told[0]
    return folder


@pytest.mark.parametrize("how", PARALLEL)
def test_two_ranks_and_one_read_each_others_to_the_bit(runs: Path, how: str) -> None:
    by_two, one = load_file(runs / f"{how}.safetensors"), load_file(runs / "one.safetensors")
    here = everything(restored("ddp", Ranks(), runs / how))
    assert here.keys() == one.keys()
    for name, x in here.items():
        assert torch.equal(x, by_two[name]), name
        assert torch.equal(one[name], by_two[f"from one {name}"]), name


@pytest.mark.parametrize("how", PARALLEL)
def test_each_rank_writes_its_part_and_nothing_is_a_pickle(runs: Path, how: str) -> None:
    found = checkpoint_of(runs / how)
    assert found.is_sharded
    assert found.has_averages
    assert {path.name for path in found.folder.iterdir()} == {*found.state.num_bytes, STATE}
    assert set(found.state.num_bytes) > SHARE | {NORMALISER}
    sizes = [
        sum(n for name, n in found.state.num_bytes.items() if name.startswith(f"shard-0000{rank}"))
        for rank in (1, 2)
    ]
    assert max(sizes) < 1.5 * min(sizes)


def test_who_wants_weights_reads_no_more(runs: Path) -> None:
    """As a policy and `eval --ema` do; the order of the names is no matter."""
    found, by_two = checkpoint_of(runs / "fsdp2"), load_file(runs / "fsdp2.safetensors")
    assert found.normaliser_state()["slots"] == ["a", "b"]
    for file, prefix in ((WEIGHTS, ""), (AVERAGES, "average.")):
        tensors = found.tensors(file)
        names = {name for name in by_two if name.startswith("average.")}
        assert set(tensors) == {name.removeprefix("average.") for name in names}
        assert all(torch.equal(x, by_two[prefix + name]) for name, x in tensors.items())
        restore_weights(learner(seed=9), tensors, where="x")


def test_one_that_averages_late_begins_with_the_weights(runs: Path, tmp_path: Path) -> None:
    found, state = checkpoint_of(runs / "fsdp2"), json.loads((checkpoint_of(runs / "fsdp2").folder / STATE).read_text())  # fmt: skip
    folder = tmp_path / "checkpoints" / found.folder.name
    folder.mkdir(parents=True)
    state["num_bytes"] = {k: v for k, v in state["num_bytes"].items() if number_of(k) != 3}
    (folder / STATE).write_text(json.dumps(state))
    for name in state["num_bytes"]:
        (folder / name).write_bytes((found.folder / name).read_bytes())
    (folder / "shard-00009-model-00001-of-00003.safetensors").write_text("of a stranger")
    late = trainer(recipe(optimiser={"ema": 0.5}), made=learner(seed=9))
    restore(late.learner, late.optimiser, late.averages, checkpoint_of(tmp_path))
    after, wanted = everything(late), load_file(runs / "fsdp2.safetensors")
    names = [name for name in after if name.startswith("average.")]
    assert names
    for name in names:
        assert torch.equal(after[name], wanted[name.removeprefix("average.")]), name


def test_a_kill_in_the_middle_leaves_the_one_before(runs: Path) -> None:
    run = runs / "killed"
    assert [each.state.step for each in checkpoints(run)] == [1]
    assert list((run / "checkpoints/.step_00000002.part").glob("shard-00002-*"))
    refuse_broken(run)
    restored("ddp", Ranks(), run)
    sweep(run)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_00000001"]


def test_after_a_failed_write_the_next_is_whole(runs: Path) -> None:
    assert [each.state.step for each in checkpoints(runs / "full")] == [1, 3]


def test_another_network_is_refused(runs: Path) -> None:
    found = checkpoint_of(runs / "fsdp2")
    for changed in ({"num_layers": 1}, {"action_width": 6}):
        other = trainer(recipe(optimiser={"ema": 0.5}), made=learner(**changed))  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="another network"):
            restore(other.learner, other.optimiser, other.averages, found)


@pytest.mark.parametrize("offset", [5, 1 << 40, -1, "x"])
def test_a_size_that_nobody_has_memory_for_is_refused(tmp_path: Path, offset: object) -> None:
    """The header of a file from a stranger says where in the whole a piece lies."""
    name = "shard-00001-model-00001-of-00001.safetensors"
    where = json.dumps({"1/x": {"saved_offsets": [offset]}})
    save_file({"1/x": torch.ones(4)}, tmp_path / name, metadata={"DCP_SHARDING_INFO": where})
    began_s = time.perf_counter()
    with pytest.raises(ConfigError, match="cannot be read"):
        open_shards(tmp_path, [name]).whole(1)
    assert time.perf_counter() - began_s < 30


@pytest.mark.parametrize("damage", ["cut", "no offsets", "gone"])
def test_a_damaged_part_is_refused(tmp_path: Path, damage: str) -> None:
    name = "shard-00001-model-00001-of-00001.safetensors"
    save_file({"1/x": torch.ones(4)}, tmp_path / name, metadata={"DCP_SHARDING_INFO": "{}"})
    data = (tmp_path / name).read_bytes()
    if damage == "cut":
        (tmp_path / name).write_bytes(data[: struct.unpack("<Q", data[:8])[0]])
    elif damage == "gone":
        (tmp_path / name).unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        open_shards(tmp_path, [name])


def pieces(folder: Path, *of: tuple[list[int], torch.Tensor]) -> list[str]:
    """Files with a piece each: where it lies in the whole, and its numbers."""
    names = []
    for rank, (offsets, piece) in enumerate(of, 1):
        names.append(f"shard-{rank:05d}-model-00001-of-00001.safetensors")
        where = json.dumps({"1/x": {"saved_offsets": offsets}})
        save_file({"1/x": piece}, folder / names[-1], metadata={"DCP_SHARDING_INFO": where})
    return names


@pytest.mark.parametrize(
    "of",
    [
        [([0], torch.ones(3)), ([2], torch.ones(2)), ([5], torch.ones(1))],  # as many as there are
        [([0, 0], torch.ones(2, 2)), ([1, 1], torch.ones(2, 2)), ([2, 0], torch.ones(1, 1))],
        [([0, 0], torch.ones(2, 2)), ([2, 0], torch.ones(1, 1)), ([2, 1], torch.ones(1, 1))],
        [([1], torch.ones(2))],
        [([0, 0], torch.ones(2))],
        [([0], torch.ones(2)), ([0], torch.ones(2))],
        [([], torch.tensor(1.0)), ([], torch.tensor(1.0))],
    ],
)
def test_pieces_that_are_not_all_of_a_tensor_once_are_refused(
    tmp_path: Path, of: list[tuple[list[int], torch.Tensor]]
) -> None:
    """Else memory that nobody wrote would be weights."""
    with pytest.raises(ConfigError, match="not all there"):
        open_shards(tmp_path, pieces(tmp_path, *of))


def test_pieces_are_rows_in_any_order_of_files(tmp_path: Path) -> None:
    whole = torch.arange(10.0).view(5, 2)
    of = [([3, 0], whole[3:].clone()), ([0, 0], whole[:3].clone()), ([5, 0], torch.ones(0, 2))]
    assert open_shards(tmp_path, pieces(tmp_path, *of)).whole(1)["x"].equal(whole)
    names = pieces(tmp_path, ([], torch.tensor(2.0)))
    assert open_shards(tmp_path, names).whole(1)["x"].equal(torch.tensor(2.0))


def test_a_size_that_no_tensor_has_is_refused(tmp_path: Path) -> None:
    (name,) = pieces(tmp_path, ([0], torch.ones(0)))
    data = (tmp_path / name).read_bytes()
    page = json.loads(data[8:])
    page["1/x"]["shape"] = [0, 1 << 62, 1 << 62]
    del page["__metadata__"]
    header = json.dumps(page).encode()
    (tmp_path / name).write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ConfigError, match="cannot be read"):
        open_shards(tmp_path, [name]).whole(1)
