"""Batches against the plain loops of `oracle.py`; one order for all workers, ranks and restarts; and what is refused."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from ingest.corpus import snapshot
from schemas.errors import ConfigError
from schemas.manifest import Manifest, ManifestRow, load
from schemas.supervision import Task
from tests.training import oracle
from tests.training.corpus import (
    ENCODER,
    NUM_PATCHES,
    STILL,
    WIDTH,
    Trainable,
    write_latents,
)
from tests.training.loader_cases import (
    ALL,
    addresses,
    as_elements,
    assert_close,
    loader,
    recipe,
    same,
    texts_of,
)
from training.batch import Batch
from training.data import latent_reader
from training.data.action_layout import ACTION_WIDTH
from training.run import data_scale
from training.run.micro_batch import moved
from training.tasks import INDEX, TASKS


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_sample_is_what_plain_loops_say(manifest: Manifest, split: str) -> None:
    found = loader(manifest, split=split)
    seen = 0
    for task in TASKS:
        for batch in found.every(task, batch_size=50, num_samples=16):
            for b, (row, now, which) in enumerate(addresses(batch)):
                assert which == INDEX[task]
                assert_is(batch, b, manifest, manifest.row(row), now)
                seen += 1
    assert seen == 64


def assert_is(batch: Batch, b: int, manifest: Manifest, row: ManifestRow, now: int) -> None:
    wanted = oracle.sample(manifest, row, now, ("front", "wrist"))
    assert_close(as_elements(batch.action[b], batch.has_action[b]), wanted["action"])
    known = batch.known
    assert_close(as_elements(known.history[b], known.has_history[b]), wanted["history"])
    past = known.past[b].float().reshape(2, 2, NUM_PATCHES, WIDTH)
    future = batch.future[b].float().reshape(2, NUM_PATCHES, WIDTH)
    for v, camera in enumerate(("front", "wrist")):
        for p, offset in enumerate(oracle.PAST):
            picture = wanted["pictures"][offset, camera]
            assert bool(known.has_past[b, p, v]) == (picture is not None)
            assert np.array_equal(past[p, v].numpy(), 0 * past[p, v] if picture is None else picture)  # fmt: skip
        picture = wanted["pictures"][oracle.FUTURE, camera]
        assert bool(batch.has_future[b, v]) == (picture is not None)
        assert np.array_equal(future[v].numpy(), 0 * future[v] if picture is None else picture)
    assert batch.known.embodiment[b] == sorted({"umi", "umi_bimanual", "human_video"}).index(row.embodiment)  # fmt: skip


def test_values_that_are_not_there_are_zero(manifest: Manifest) -> None:
    batch = loader(manifest).batch(0)
    assert not batch.action[~batch.has_action].any()
    assert not batch.known.history[~batch.known.has_history].any()
    assert torch.isfinite(batch.action).all()


def test_times_of_the_chunk(manifest: Manifest) -> None:
    batch = loader(manifest).batch(0)
    assert batch.action_t_s.tolist() == pytest.approx([0.1 * (j + 1) for j in range(16)])
    assert batch.future_t_s == pytest.approx(0.6)


def test_the_future_is_not_now(manifest: Manifest) -> None:
    """(d) of the bugs: a target that equals the current picture teaches the identity."""
    for batch in loader(manifest).every(Task.VISUAL_FORECASTING, batch_size=64):
        moved = (batch.future - batch.known.past[:, -1]).abs().flatten(1).amax(1)
        number_still = manifest.rows["text"].take(batch.origin.row).to_pylist()
        assert len(number_still) == len(moved)
        assert (moved > 0.05).float().mean() > 0.95


def test_no_motion_is_a_valid_action(manifest: Manifest, trainable: Trainable) -> None:
    """(g): episode 1 stands still for a while; its zeros are targets like any other."""
    uid = trainable.uids[1]
    split = next(r["split"] for r in manifest.rows.to_pylist() if r["uid"] == uid)
    found = loader(manifest, split=split)
    for batch in found.every(Task.POLICY, batch_size=200):
        for b, (row, now, _) in enumerate(addresses(batch)):
            if manifest.row(row).uid == uid and now <= STILL[0] + 1 < now + 16:
                j = STILL[0] + 1 - now
                assert batch.has_action[b, j, :6].all()
                raw = found.normaliser.decode(batch.action, batch.known.embodiment)[b, j]
                assert raw[:6].abs().max() < 1e-6
                return
    pytest.fail("no window over the still part")


def test_past_the_end_nothing_is_valid(manifest: Manifest) -> None:
    """(r): neither actions nor the future picture."""
    cut = 0
    for batch in loader(manifest).every(Task.POLICY, batch_size=64):
        for b, (row, now, _) in enumerate(addresses(batch)):
            left = manifest.row(row).end - now
            assert not batch.has_action[b, left:].any()
            assert bool(batch.has_future[b].any()) == (left > 6)
            cut += left <= 6
    assert cut > 5


def test_the_instruction_is_that_of_the_segment(manifest: Manifest) -> None:
    """(q): not of five timesteps earlier, which may be another segment's."""
    batch = loader(manifest).batch(3)
    for b, (row, now, _) in enumerate(addresses(batch)):
        segment = manifest.row(row)
        assert texts_of(batch)[b] == f"{segment.text}|{segment.start}"
        assert segment.start <= now < segment.end


def test_other_pictures_do_not_depend_on_storage(trainable: Trainable, tmp_path: Path) -> None:
    """fp8 and int8 come back by their scales."""
    mine = trainable.copied(tmp_path / "corpus")
    plain = loader(load(mine.manifest)).batch(0)
    episodes = snapshot.load(mine.corpus).read(mine.corpus, "episodes").to_pylist()
    for dtype, worst in (("int8", 0.02), ("fp8", 0.08)):
        for episode in episodes:
            for camera in ("front", "wrist")[: len(episode["cameras"])]:
                write_latents(mine.corpus, episode, camera, dtype=dtype)  # type: ignore[arg-type]
        found = loader(load(mine.manifest)).batch(0)
        assert addresses(found) == addresses(plain)
        error = (found.known.past - plain.known.past).abs().max()
        assert 0 < error < worst


def test_pictures_travel_as_they_are_stored_and_are_float32_on_the_device(
    manifest: Manifest,
) -> None:
    """Half the bytes to copy, pin and send. `test_every_sample_is_what_plain_loops_say` is about their values."""
    half = loader(manifest).batch(0)
    assert half.known.past.dtype == half.future.dtype == torch.bfloat16
    there = moved(half, torch.device("cpu"))
    assert there.known.past.dtype == there.future.dtype == torch.float32
    assert torch.equal(there.known.past, half.known.past.to(torch.float32))
    assert torch.equal(there.future, half.future.to(torch.float32))
    assert texts_of(there) == texts_of(half)


def test_what_changes_between_pictures_is_measured_in_float32(manifest: Manifest) -> None:
    """The difference of two bfloat16 is rounded to one."""
    made = loader(manifest)
    places = made.places(Task.VISUAL_FORECASTING, 8)
    pictures, has = made.source.pictures(places)
    wanted = (pictures[:, -1].double() - pictures[:, -2].double())[
        (has[:, -1] & has[:, -2]).repeat_interleave(NUM_PATCHES, dim=1)
    ]
    assert torch.equal(data_scale._changes(made.source, places).float(), wanted.float())


def test_one_camera_for_a_view(manifest: Manifest) -> None:
    """A glob takes the first free camera; a body without the second has it masked."""
    found = loader(manifest, recipe(data={"cameras": ["wrist", "*"]}))
    for batch in (found.batch(step) for step in range(3)):
        is_umi = batch.known.embodiment == 1
        assert torch.equal(batch.known.has_past[:, -1, 0], is_umi)
        assert batch.known.has_past[:, -1, 1].all()


def test_the_state_token(manifest: Manifest) -> None:
    found = loader(manifest, recipe(data={"with_state": True}))
    assert found.shapes().state_width == 52
    batch = found.batch(0)
    assert batch.known.state is not None
    for b, (row, now, _) in enumerate(addresses(batch)):
        segment = manifest.row(row)
        columns = oracle.columns(manifest.corpus, segment.dataset_path, segment.episode_index)
        if not columns:
            assert not batch.known.state[b].any()
            continue
        for side, first in (("left", 0), ("right", 26)):
            if f"{side}.position_m.x" in columns["observation.state"] and columns["observation.valid"][f"{side}.position_m"][now]:  # fmt: skip
                wanted = [columns["observation.state"][f"{side}.position_m.{a}"][now] for a in "xyz"]  # fmt: skip
                assert batch.known.state[b, first : first + 3].tolist() == pytest.approx(wanted)


def test_shapes_fit_the_batch(manifest: Manifest) -> None:
    found = loader(manifest)
    shapes, batch = found.shapes(), found.batch(0)
    size = (12, shapes.num_past, shapes.num_views * shapes.num_patches, shapes.latent_width)
    assert batch.known.past.shape == size == (12, 2, 2 * NUM_PATCHES, WIDTH)
    assert batch.action.shape == (12, shapes.num_actions, ACTION_WIDTH)
    assert shapes.num_embodiments == 3


# --- the order -------------------------------------------------------------------------------------------------------


def test_ranks_and_workers_see_the_same_global_order(manifest: Manifest) -> None:
    """(k), (p): concatenated over ranks, a batch is the same for 1, 2, 3 and 4 of them, and for 0, 1 and 3 workers."""
    whole = loader(manifest)
    wanted = [whole.batch(step) for step in range(4)]
    for world_size, num_workers in ((1, 0), (1, 1), (1, 3), (2, 3), (3, 0), (4, 1)):
        made = recipe(run={"num_workers": num_workers})
        ranks = [loader(manifest, made, rank=r, world_size=world_size).batches() for r in range(world_size)]  # fmt: skip
        for step in range(4):
            parts = [next(rank) for rank in ranks]
            found = [a for part in parts for a in addresses(part)]
            assert found == addresses(wanted[step])
            action = torch.cat([p.action for p in parts])
            assert torch.equal(action, wanted[step].action)
        for rank in ranks:
            rank.close()  # type: ignore[attr-defined]


def test_resumed_equals_uninterrupted(manifest: Manifest) -> None:
    """(l): the number of the next step is all the state there is; over the end of an epoch too."""
    made = recipe(run={"num_workers": 2})
    straight = loader(manifest, made)
    assert 9 < straight.steps_per_epoch < 12
    batches = straight.batches()
    wanted = [next(batches) for _ in range(16)]
    again = loader(manifest, made).batches(first_step=7)
    assert all(same(next(again), batch) for batch in wanted[7:])


def test_a_start_opens_one_file_of_latents_and_a_batch_only_its_own(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many a manifest names: a million would be opened one after the other."""
    opened: list[str] = []
    was = latent_reader.read_header

    def counted(path: Path, span: Any) -> Any:
        opened.append(path.relative_to(manifest.corpus.resolve()).as_posix())
        return was(path, span)

    monkeypatch.setattr(latent_reader, "read_header", counted)
    found = loader(manifest)
    assert len(opened) == 1
    rows = found.batch(0).origin.row.tolist()
    mine = {x.path for r in rows for x in manifest.row(r).latents if x.encoder_id == ENCODER}
    assert sorted(opened[1:]) == sorted(mine)
    found.batch(0)
    assert len(opened) == 1 + len(mine)


def test_an_epoch_draws_by_weight_and_covers(manifest: Manifest) -> None:
    found = loader(manifest, recipe(routing={"draw": "segment"}))
    counts: dict[int, int] = {}
    for step in range(43):  # 4 epochs of 129 anchors
        for row, _, _ in addresses(found.batch(step)):
            counts[row] = counts.get(row, 0) + 1
    total = sum(counts.values())
    for row, count in counts.items():
        assert abs(count / total - manifest.row(row).weight) < 4 / total + 1e-9


def test_other_seeds_are_other_orders(manifest: Manifest) -> None:
    a, b = (addresses(loader(manifest, recipe(seed=s)).batch(0)) for s in (1, 2))
    assert a != b


# --- tasks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", ["task", "segment"])
def test_tasks_are_what_tier_and_window_allow(manifest: Manifest, draw: str) -> None:
    found = loader(manifest, recipe(routing={"draw": draw, "min_per_batch": 2}))
    seen = set()
    for step in range(20):
        batch = found.batch(step)
        assert torch.bincount(batch.known.task, minlength=4).min() >= 2
        for b, (row, _, task) in enumerate(addresses(batch)):
            assert TASKS[task].value in manifest.row(row).tasks
            if TASKS[task] is not Task.POLICY:
                assert batch.has_future[b].any()
            if TASKS[task] is Task.FORWARD_DYNAMICS:
                assert batch.has_action[b, :6].any(dim=-1).all()
            if TASKS[task] in (Task.POLICY, Task.INVERSE_DYNAMICS):
                assert batch.has_action[b].any()
            seen.add((manifest.row(row).tier, task))
    assert seen == {(t, INDEX[k]) for t, k in _pairs()}


def _pairs() -> list[tuple[str, Task]]:
    low = [("low", t) for t in TASKS if t is not Task.POLICY]
    return [("high", t) for t in TASKS] + low + [("actionless", Task.VISUAL_FORECASTING)]


@pytest.mark.parametrize(("draw", "key"), [("task", "shares"), ("segment", "weights")])
def test_behaviour_cloning_of_everything(manifest: Manifest, draw: str, key: str) -> None:
    """Policy alone, low tiers too: actionless segments have no anchor, and no draw goes to them."""
    routing = {"draw": draw, key: {"policy": 1.0}, "low_policy_share": 1.0}
    found = loader(manifest, recipe(routing=routing))
    tiers = set()
    for step in range(12):
        batch = found.batch(step)
        assert (batch.known.task == INDEX[Task.POLICY]).all()
        tiers |= {manifest.row(row).tier for row, _, _ in addresses(batch)}
    assert tiers == {"high", "low"}
    counts = found.counts()
    assert counts.too_short > 0
    assert 0 < counts.lost_weight < 1


def test_a_lottery_without_another_task_is_refused(manifest: Manifest) -> None:
    weights = dict.fromkeys(ALL, 0.0) | {"policy": 1.0}
    with pytest.raises(ConfigError, match="low_policy_share"):
        loader(manifest, recipe(routing={"draw": "segment", "weights": weights, "low_policy_share": 0.5}))  # fmt: skip


def test_counts_are_those_of_the_rows(manifest: Manifest) -> None:
    counts = loader(manifest).counts()
    rows = [manifest.row(i) for i in range(len(manifest))]
    train = [r for r in rows if r.split == "train"]
    assert counts.segments == len(train)
    assert sum(r.anchors for r in counts.rows) == counts.anchors
    assert sum(r.share for r in counts.rows) == pytest.approx(1)
    assert counts.lost_weight == pytest.approx(0)
    (low,) = [r for r in counts.rows if (r.embodiment, r.tier) == ("umi", "low")]
    wanted = sum(
        t + 6 < r.end
        for r in train
        if (r.embodiment, r.tier) == ("umi", "low")
        for t in range(r.start, r.end)
        if t % 3 == 0
    )
    assert low.by_task["visual_forecasting"] == wanted
    assert low.by_task["policy"] == 0


def test_every_anchor_once(manifest: Manifest) -> None:
    """Evaluation: all of them, in order, whole or in stretches of ranks."""
    made = loader(manifest, split="val")
    whole = [a for batch in made.every(Task.POLICY, batch_size=7) for a in addresses(batch)]
    assert len(set(whole)) == len(whole) > 10
    assert whole == sorted(whole)
    parts: list[tuple[int, int, int]] = []
    for rank in range(3):
        mine = loader(manifest, split="val", rank=rank, world_size=3)
        parts += [a for batch in mine.every(Task.POLICY, batch_size=7) for a in addresses(batch)]
    assert parts == whole
    some = [a for b in made.every(Task.POLICY, batch_size=7, num_samples=5) for a in addresses(b)]
    assert len(some) == 5
    assert set(some) <= set(whole)


@pytest.mark.slow
def test_memory_is_flat_over_epochs(manifest: Manifest) -> None:
    found = loader(manifest, recipe(run={"batch_size": 48, "num_workers": 2}))
    batches = found.batches()

    def own_mib() -> float:
        gc.collect()
        info = psutil.Process(os.getpid()).memory_info()
        return float(info.rss - info.shared) / 2**20

    for _ in range(20):
        next(batches)
    before = own_mib()
    for _ in range(60):  # twenty epochs and more
        next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert own_mib() - before < 8
