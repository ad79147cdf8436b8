"""Batches against the plain loops of `oracle.py`; one order for all workers, ranks and restarts; and what is refused."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ingest import snapshot
from ingest.disk import Disk
from schemas.errors import ConfigError, SourceError
from schemas.latents import LATENTS
from schemas.manifest import Manifest, ManifestRow, load
from schemas.supervision import Task
from schemas.tensor_page import METADATA
from tests.training import oracle
from tests.training.corpus import (
    ENCODER,
    NUM_PATCHES,
    OTHER_ENCODER,
    STILL,
    WIDTH,
    Trainable,
    build_manifest,
    write_latents,
)
from training.batch import Batch
from training.data.layout import ACTION_WIDTH, slot_names
from training.data.loader import Loader
from training.recipe import TrainRecipe
from training.tasks import INDEX, TASKS

ALL = tuple(task.value for task in TASKS)


class Words:
    """Gives every sample its row's text, as bytes."""

    def read(
        self, rows: Sequence[ManifestRow], timesteps: npt.NDArray[np.int64]
    ) -> dict[str, Tensor]:
        assert len(rows) == len(timesteps)
        made = np.zeros((len(rows), 40), dtype=np.uint8)
        for b, row in enumerate(rows):
            word = f"{row.text}|{row.start}".encode()
            made[b, : len(word)] = np.frombuffer(word, dtype=np.uint8)
        return {"bytes": torch.from_numpy(made)}


def recipe(**changes: Any) -> TrainRecipe:
    given: dict[str, Any] = {
        "name": "test",
        "seed": 7,
        "data": {"encoder": "tiny_vit", "cameras": ["front", "wrist"], **changes.pop("data", {})},
        "run": {"batch_size": 12, "num_workers": 0, **changes.pop("run", {})},
    }
    return TrainRecipe.model_validate(given | changes)


def loader(manifest: Manifest, made: TrainRecipe | None = None, **given: Any) -> Loader:
    return Loader(manifest, made or recipe(), reader=Words(), **given)


@pytest.fixture(scope="module")
def manifest(trainable: Trainable) -> Manifest:
    return load(trainable.manifest)


def addresses(batch: Batch) -> list[tuple[int, int, int]]:
    origin = batch.origin
    return list(
        zip(origin.row.tolist(), origin.timestep.tolist(), batch.known.task.tolist(), strict=True)
    )


def same(a: Batch, b: Batch) -> bool:
    pairs = [(a.action, b.action), (a.has_action, b.has_action), (a.future, b.future)]
    pairs += [(a.known.past, b.known.past), (a.known.history, b.known.history)]
    pairs += [(a.text_inputs["bytes"], b.text_inputs["bytes"])]
    return addresses(a) == addresses(b) and all(torch.equal(x, y) for x, y in pairs)


# --- what a sample is ------------------------------------------------------------------------------------------------


def as_elements(values: Tensor, has: Tensor) -> list[dict[str, float]]:
    return [
        {slot_names()[s]: float(values[k, s]) for s in torch.nonzero(has[k])[:, 0].tolist()}
        for k in range(len(values))
    ]


def assert_close(found: list[dict[str, float]], wanted: list[dict[str, float]]) -> None:
    assert [x.keys() for x in found] == [x.keys() for x in wanted]
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine == pytest.approx(theirs, abs=2e-4)  # a micrometre over a range of centimetres


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
    past = known.past[b].reshape(2, 2, NUM_PATCHES, WIDTH)
    future = batch.future[b].reshape(2, NUM_PATCHES, WIDTH)
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
        said = bytes(batch.text_inputs["bytes"][b].tolist()).rstrip(b"\0").decode()
        assert said == f"{segment.text}|{segment.start}"
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


def test_half_precision_pictures_on_request(manifest: Manifest) -> None:
    half = loader(manifest, latent_dtype=torch.bfloat16).batch(0)
    assert half.known.past.dtype == half.future.dtype == torch.bfloat16
    assert torch.equal(half.known.past.float(), loader(manifest).batch(0).known.past)


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


def test_an_epoch_draws_by_weight_and_covers(manifest: Manifest) -> None:
    found = loader(manifest)
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


def test_tasks_are_what_tier_and_window_allow(manifest: Manifest) -> None:
    found = loader(manifest, recipe(routing={"min_per_batch": 2}))
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


def test_behaviour_cloning_of_everything(manifest: Manifest) -> None:
    """Policy alone, low tiers too: actionless segments have no anchor, and no draw goes to them."""
    weights = dict.fromkeys(ALL, 0.0) | {"policy": 1.0}
    found = loader(manifest, recipe(routing={"weights": weights, "low_policy_share": 1.0}))
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
        loader(manifest, recipe(routing={"weights": weights, "low_policy_share": 0.5}))


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


# --- what is refused, and what stops a run ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"data": {"encoder": "siglip"}}, r"another encoder.*tiny_vit.*eicorpus latents"),
        ({"data": {"encoder": ""}}, r"several encoders.*--set data.encoder="),
        ({"data": {"future_s": 0.5}}, r"off the grid.*0.3 or 0.6"),
        ({"data": {"cameras": ["side"]}}, r"latents missing: 26 of 26 rows.*eicorpus latents"),
        ({"data": {"cameras": ["wrist"]}}, r"latents missing: .*without_missing=true"),
        ({"data": {"cameras": ["side"], "without_missing": True}}, r"26 of 26 rows"),
        ({"data": {"future_s": 60.0}}, r""),
        ({"run": {"batch_size": 7}}, r"does not divide by 2 ranks"),
    ],
)
def test_refused_before_the_first_step(manifest: Manifest, given: Any, said: str) -> None:
    if (
        not said
    ):  # a window that nothing is long enough for leaves the policy, which needs no future
        assert loader(manifest, recipe(**given)).counts().shortfalls == ALL[1:]
        return
    with pytest.raises(ConfigError, match=said) as error:
        loader(manifest, recipe(**given), world_size=2)
    assert error.value.exit_code == 2


def test_an_unknown_body_is_refused(manifest: Manifest) -> None:
    with pytest.raises(ConfigError, match=r"unknown embodiment umi_bimanual.*finetune"):
        loader(manifest, embodiments=("umi", "human_video"))
    grown = loader(manifest, embodiments=("zebra", "umi_bimanual", "umi", "human_video"))
    assert grown.shapes().num_embodiments == 4
    batch = grown.batch(0)
    body = [manifest.row(r).embodiment for r in batch.origin.row]
    assert [grown.embodiments[e] for e in batch.known.embodiment] == body


def test_nothing_left_to_draw(manifest: Manifest) -> None:
    weights = dict.fromkeys(ALL, 0.0) | {"visual_forecasting": 1.0}
    with pytest.raises(ConfigError, match="no sample is left"):
        loader(manifest, recipe(data={"future_s": 60.0}, routing={"weights": weights}))


def test_rows_without_latents_are_left_out_when_asked(trainable: Trainable, tmp_path: Path) -> None:
    """Cameras that some bodies do not have: their segments are counted, not drawn."""
    found = loader(load(trainable.manifest), recipe(data={"cameras": ["wrist"], "without_missing": True}), cache=tmp_path)  # fmt: skip
    assert {r.embodiment for r in found.counts().rows} == {"umi"}
    assert found.counts().unseen == 5
    assert found.counts().lost_weight == pytest.approx(
        sum(r.weight for r in map(found.manifest.row, range(26)) if r.split == "train" and r.embodiment != "umi")
    )  # fmt: skip
    for batch in (found.batch(0), found.batch(1)):
        assert (batch.known.embodiment == 1).all()
        assert batch.known.has_past[:, -1].all()


def test_a_manifest_without_latents_is_refused(trainable: Trainable, tmp_path: Path) -> None:
    mine = trainable.copied(tmp_path / "corpus")
    now = snapshot.load(mine.corpus)
    uid = mine.uids[3]
    rows = [r for r in now.read(mine.corpus, "latents").to_pylist() if r["uid"] != uid]
    part = snapshot.write_part(Disk(), mine.corpus, "latents", rows)
    tables = {t: [part] if t == "latents" else now.parts(t) for t in _tables(mine.corpus)}
    snapshot.publish_tables(Disk(), mine.corpus, now, tables, "again")
    manifest = load(build_manifest(mine.corpus, "fewer"))
    rows_of_uid = sum(r["uid"] == uid for r in manifest.rows.to_pylist())
    with pytest.raises(ConfigError, match=f"latents missing: {rows_of_uid} of 26 rows.*{uid}"):
        loader(manifest)


def _tables(corpus: Path) -> list[str]:
    return [t for t in ("episodes", "segments", "tiers", "latents", "policies", "verdicts", "artifacts", "sources", "runs") if snapshot.load(corpus).parts(t)]  # fmt: skip


def victim(mine: Trainable) -> tuple[Manifest, Path, str]:
    """A file that the first batches read."""
    manifest = load(mine.manifest)
    row = manifest.row(int(loader(manifest).batch(2).origin.row[0]))
    path = next(x.path for x in row.latents if x.encoder_id == ENCODER and x.camera == "front")
    return manifest, mine.corpus / path, row.uid


@pytest.mark.parametrize(
    ("fault", "num_workers"),
    [("cut", 0), ("cut", 2), ("gone", 0), ("camera", 0), ("episode", 0), ("short", 0), ("nan", 2)],
)
def test_a_broken_sample_stops_the_run_with_its_address(
    trainable: Trainable, tmp_path: Path, fault: str, num_workers: int
) -> None:
    """(n): never another sample in its place."""
    mine = trainable.copied(tmp_path / "corpus")
    manifest, path, uid = victim(mine)
    spoil(path, fault)
    batches = loader(manifest, recipe(run={"num_workers": num_workers})).batches()
    with pytest.raises(SourceError, match=r"broken sample") as error:
        list(islice(batches, 40))
    said = str(error.value)
    assert path.name in said
    assert f"episode {uid}" in said
    assert "timestep" in said


def spoil(path: Path, fault: str) -> None:
    if fault == "gone":
        path.unlink()
    elif fault == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        tensors = load_file(path)
        head = path.read_bytes()
        size = int.from_bytes(head[:8], "little")
        facts = json.loads(json.loads(head[8 : 8 + size])["__metadata__"][METADATA])
        if fault == "nan":
            tensors[LATENTS][:] = float("nan")
        elif fault == "short":  # whole, but of fewer pictures than the segment has
            tensors = {name: tensor[:2].clone() for name, tensor in tensors.items()}
            facts["length"] = 6
        else:
            facts |= {"camera": "fruit"} if fault == "camera" else {"uid": "stranger"}
        save_file(tensors, path, metadata={METADATA: json.dumps(facts)})


def test_a_changed_file_is_found_when_digests_are_asked_for(
    trainable: Trainable, tmp_path: Path
) -> None:
    mine = trainable.copied(tmp_path / "corpus")
    manifest, path, _ = victim(mine)
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(bytes(data))
    quiet = loader(manifest)
    assert len([quiet.batch(step) for step in range(3)]) == 3
    strict = loader(manifest, verify_latents=True)
    with pytest.raises(SourceError, match="its digest is"):
        list(islice(strict.batches(), 3))


def test_a_link_out_of_the_corpus_is_not_followed(trainable: Trainable, tmp_path: Path) -> None:
    mine = trainable.copied(tmp_path / "corpus")
    manifest, path, _ = victim(mine)
    path.rename(tmp_path / "elsewhere.safetensors")
    path.symlink_to(tmp_path / "elsewhere.safetensors")
    found = loader(manifest)
    with pytest.raises(SourceError, match="outside the corpus"):
        list(islice(found.batches(), 3))


def test_the_other_encoder_is_other_numbers(manifest: Manifest) -> None:
    ours = loader(manifest).batch(0)
    other = loader(manifest, recipe(data={"encoder": OTHER_ENCODER})).batch(0)
    assert addresses(ours) == addresses(other)
    assert not torch.equal(ours.known.past, other.known.past)


# --- memory ----------------------------------------------------------------------------------------------------------


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
