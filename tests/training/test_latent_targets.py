"""Latent actions of video as what the policy says: which samples have them, their numbers, how often they are drawn, and who never sees them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from benchmarks.annotated_corpus import build_manifest
from ingest.corpus import snapshot
from ingest.latents.token_file import read_latents
from schemas.errors import ConfigError
from schemas.latents import is_of_actions
from schemas.manifest import load
from schemas.supervision import Task
from tests.latents.test_latents_actions import LAM, STEP, command, trained_lam
from tests.training.corpus import GRID_STRIDE, NUM_EPISODES, NUM_VIDEO, Trainable, make
from training.batch import Batch
from training.conditioning.hashed_words import NoTextReader
from training.data.action_layout import LATENT_BODY
from training.data.dataset import ManifestDataset
from training.data.loader import Loader
from training.recipe import load_recipe
from training.tasks import INDEX

pytestmark = pytest.mark.slow

SMALL = {
    "name": "small",
    "extends": "tiny",
    "architecture": {"width": 16, "num_heads": 2, "num_layers": 1, "adapter_width": 8},
    "data": {
        "encoder": "tiny_vit",
        "cameras": ["front"],
        "latent_actions": {"share": 0.25},
        "num_actions": 8,
        "num_history": 2,
        "future_s": 0.9,
    },
    "routing": {"shares": {"policy": 3, "inverse_dynamics": 0, "forward_dynamics": 0, "visual_forecasting": 1}},
    "text": {"kind": "none"},
    "run": {"num_steps": 4, "batch_size": 16},
}  # fmt: skip


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Trainable:
    """A corpus with latent actions, and a manifest that has them."""
    made = make(tmp_path_factory.mktemp("labelled"))
    lam = trained_lam(made.manifest, tmp_path_factory.mktemp("lam"))
    command("latents", "actions", str(made.corpus), "--lam", str(lam), "--device", "cpu")
    manifest = build_manifest(made.corpus, "with_codes")
    return Trainable(corpus=made.corpus, manifest=manifest, uids=made.uids)


def recipe_file(folder: Path, **data: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(SMALL | {"data": {**SMALL["data"], **data}}))  # type: ignore[dict-item]
    return path


def loader_of(labelled: Trainable, tmp_path: Path, split: str = "train", **data: Any) -> Loader:
    recipe = load_recipe(str(recipe_file(tmp_path, **data)))
    return Loader(
        load(labelled.manifest), recipe, reader=NoTextReader(), split=split, cache=tmp_path / "c"
    )


def batches(loader: Loader, count: int) -> Iterator[Batch]:
    return (loader.batch(step) for step in range(count))


def is_latent(loader: Loader, batch: Batch) -> Any:
    return batch.known.embodiment == loader.embodiments.index(LATENT_BODY)


def test_chunks_are_the_stored_latent_actions_of_video_alone(
    labelled: Trainable, tmp_path: Path
) -> None:
    loader, corpus = loader_of(labelled, tmp_path), labelled.corpus
    stored = {
        row["uid"]: read_latents(corpus / row["path"])
        for row in snapshot.load(corpus).read(corpus, "latents").to_pylist()
        if is_of_actions(row["encoder_id"])
    }
    num_tokens, width = LAM["num_queries"], LAM["code_width"]
    rms = next(iter(stored.values())).facts.code_rms
    assert rms is not None
    num_seen = 0
    for batch in batches(loader, 20):
        for b in torch.nonzero(is_latent(loader, batch)).flatten().tolist():
            row = loader.manifest.row(int(batch.origin.row[b]))
            now = int(batch.origin.timestep[b])
            assert (row.tier, int(batch.known.task[b])) == ("actionless", INDEX[Task.POLICY])
            assert row.start <= now
            assert now + STEP * GRID_STRIDE < row.end
            z = torch.from_numpy(stored[row.uid].tokens[now // GRID_STRIDE])
            assert z.any()
            torch.testing.assert_close(batch.action[b, :num_tokens, :width] * rms, z)
            has = torch.zeros_like(batch.has_action[b])
            has[:num_tokens, :width] = True
            assert torch.equal(batch.has_action[b], has)
            assert not batch.action[b][~has].any()
            assert not batch.known.has_history[b].any()
            assert batch.may_teach is not None
            assert not batch.may_teach[b]  # nothing is aligned with its own target
            num_seen += 1
    assert num_seen > 20


def test_other_samples_are_what_they_are_without(labelled: Trainable, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    loader = loader_of(labelled, tmp_path)
    plain = loader_of(labelled, tmp_path / "plain", latent_actions=None)
    assert (*plain.embodiments, LATENT_BODY) == loader.embodiments
    assert torch.equal(loader.normaliser.scale[:-1], plain.normaliser.scale)
    for task in (Task.POLICY, Task.VISUAL_FORECASTING, Task.FORWARD_DYNAMICS):
        pairs = zip(loader.every(task, batch_size=64), plain.every(task, batch_size=64), strict=True)  # fmt: skip
        for one, other in pairs:  # what is evaluated: recorded actions alone
            assert torch.equal(one.known.embodiment, other.known.embodiment)
            assert torch.equal(one.action, other.action)
            assert torch.equal(one.has_action, other.has_action)
            assert torch.equal(one.future, other.future)


def test_a_dataset_has_them_where_a_policy_could_learn_them(
    labelled: Trainable, tmp_path: Path
) -> None:
    """A timestep whose image 0.9 s later is not in the segment is a sample of forecasting, without an action."""
    settings = load_recipe(str(recipe_file(tmp_path, future_s=0.3))).data
    dataset = ManifestDataset(labelled.manifest, data=settings, cache=tmp_path / "c")
    uids = {labelled.uids[n] for n in range(NUM_EPISODES - NUM_VIDEO, NUM_EPISODES)}
    video = [each for each in dataset if each["uid"] in uids]
    latent = dataset.embodiments.index(LATENT_BODY)
    size = LAM["num_queries"] * LAM["code_width"]
    policy = INDEX[Task.POLICY]
    for each in video:
        is_said = each["embodiment"] == latent
        assert each["may"][policy] == is_said
        assert int(each["has_action"].sum()) == size * is_said
    assert 0 < sum(each["embodiment"] == latent for each in video) < len(video)


@pytest.mark.parametrize("share", [0.25, 0.6, 1.0])
def test_the_share_is_that_of_the_policys_samples(
    share: float, labelled: Trainable, tmp_path: Path
) -> None:
    loader = loader_of(labelled, tmp_path, latent_actions={"share": share})
    drawn, policy = 0, 0
    for batch in batches(loader, 60):
        drawn += int(is_latent(loader, batch).sum())
        policy += int((batch.known.task == INDEX[Task.POLICY]).sum())
        assert int((batch.known.task == INDEX[Task.POLICY]).sum()) == 12
    assert drawn / policy == pytest.approx(share, abs=0.05)
    counts = loader.counts()
    rows = loader.anchors.segments
    assert counts.labelled_segments == int(rows["is_labelled"].sum()) > 0
    ends = rows["end"][rows["is_labelled"]]
    assert counts.labelled_anchors == sum(len(range(0, end - STEP * GRID_STRIDE, GRID_STRIDE)) for end in ends)  # fmt: skip


def test_a_run_trains_resumes_is_evaluated_and_acts_for_recorded_bodies_alone(
    labelled: Trainable, tmp_path: Path
) -> None:
    words = ("train", str(labelled.manifest), "--recipe", str(recipe_file(tmp_path)), "--device", "cpu")  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    command(*words, "--out", str(whole))
    command(*words, "--out", str(parts), "--until", "2")
    command(*words, "--out", str(parts))
    weights = [next((each / "checkpoints").glob("*4/weights.safetensors")).read_bytes() for each in (whole, parts)]  # fmt: skip
    assert weights[0] == weights[1]
    lines = command("eval", str(whole), "--split", "val", "--device", "cpu")["lines"]
    bodies = {line["embodiment"] for line in lines if line["task"] == "policy"}
    assert bodies
    assert LATENT_BODY not in bodies
    state = json.loads(next((whole / "checkpoints").glob("*4/state.json")).read_text())
    assert state["embodiments"][-1] == LATENT_BODY
    from training.policy.policy import Policy, PolicySettings

    policy = Policy.load(whole, lambda images: None, PolicySettings())  # type: ignore[arg-type,return-value]
    assert LATENT_BODY not in policy.embodiments
    assert policy.embodiments


def test_post_training_adds_latent_actions_and_leaves_them_out_again(
    labelled: Trainable, tmp_path: Path
) -> None:
    def trained(name: str, *base: str, **data: Any) -> Path:
        out = tmp_path / name
        recipe = recipe_file(tmp_path, **data)
        command("train", str(labelled.manifest), "--recipe", str(recipe), "--out", str(out), "--device", "cpu", *base)  # fmt: skip
        return out

    plain = trained("plain", latent_actions=None)
    grown = trained("grown", "--init-from", str(plain))
    again = trained("again", "--init-from", str(grown), latent_actions=None)
    names = [json.loads(next((run / "checkpoints").glob("*4/state.json")).read_text())["embodiments"] for run in (plain, grown, again)]  # fmt: skip
    assert names[1] == names[2] == [*names[0], LATENT_BODY]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"latent_actions": {"share": 0.5, "encoder": "lam-0123456789ab"}}, "no latent actions of lam-0123456789ab: the manifest has lam-"),
        ({"num_actions": 1}, "latent actions of 2 x 4; a chunk has 1 x 172"),
        ({"latent_actions": {"share": 0.0}}, "share"),
        ({"latent_actions": {"share": 0.5, "encoder": "tiny_vit"}}, "encoder"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(
    data: dict[str, Any], problem: str, labelled: Trainable, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=problem):
        loader_of(labelled, tmp_path, **data)


def test_a_manifest_without_them_names_the_commands(labelled: Trainable, tmp_path: Path) -> None:
    earlier = Trainable(
        corpus=labelled.corpus, manifest=labelled.manifest.parent / "m", uids=labelled.uids
    )
    with pytest.raises(ConfigError, match=r"run `eicorpus latents actions .* --lam RUN`, then"):
        loader_of(earlier, tmp_path)


def test_a_missing_and_a_damaged_file_are_named(labelled: Trainable, tmp_path: Path) -> None:
    own = labelled.copied(tmp_path / "corpus")
    rows = load(own.manifest)
    path = next(
        latent.path
        for at in range(len(rows))
        for latent in rows.row(at).latents
        if rows.row(at).split == "train" and rows.row(at).tier == "actionless" and is_of_actions(latent.encoder_id)
    )  # fmt: skip
    loader = loader_of(own, tmp_path)
    data = bytearray((own.corpus / path).read_bytes())
    start = int.from_bytes(data[:8], "little") + 8
    data[start:] = b"\x80\x7f" * ((len(data) - start) // 2)  # infinity
    (own.corpus / path).write_bytes(data)
    with pytest.raises(Exception, match=f"{path}"):
        list(batches(loader, 40))
    (own.corpus / path).unlink()
    with pytest.raises(ConfigError, match=f"latent actions missing: 1 of .*{path}"):
        loader_of(own, tmp_path)
