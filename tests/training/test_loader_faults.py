"""What a loader refuses before the first step, and what stops a run with its address."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.annotated_corpus import build_manifest
from benchmarks.synthetic import write_part
from ingest.corpus import publishing, snapshot
from ingest.storage.local import LocalStorage
from schemas.errors import ConfigError, SourceError
from schemas.latents import LATENTS, METADATA
from schemas.manifest import Manifest, load
from schemas.paths import OutsideCorpus
from tests.training.corpus import (
    ENCODER,
    OTHER_ENCODER,
    Trainable,
)
from tests.training.loader_cases import (
    ALL,
    addresses,
    loader,
    recipe,
)

# --- what is refused, and what stops a run ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"data": {"encoder": "siglip"}}, r"another encoder.*tiny_vit.*eicorpus latents"),
        ({"data": {"encoder": ""}}, r"several encoders.*--set data.encoder="),
        ({"data": {"future_s": 0.5}}, r"is not a multiple.*0.3 or 0.6"),
        ({"data": {"cameras": ["side"]}}, r"latents missing: 26 of 26 rows.*eicorpus latents"),
        ({"data": {"cameras": ["wrist"]}}, r"latents missing: .*without_missing=true"),
        ({"data": {"cameras": ["side"], "without_missing": True}}, r"26 of 26 rows"),
        ({"data": {"future_s": 60.0}}, r""),
        ({"run": {"batch_size": 7}}, r"is not divisible by 2 ranks"),
    ],
)
def test_refused_before_the_first_step(manifest: Manifest, given: Any, said: str) -> None:
    if not said:  # a window too long for every segment leaves the policy, which needs no future
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


@pytest.mark.parametrize(
    "name", ["index.npy", "part-00000.arrow", "segments.npy", "serves.npy", "rows.arrow"]
)
def test_a_damaged_table_of_the_cache_is_named(
    manifest: Manifest, tmp_path: Path, name: str
) -> None:
    """As a power cut may leave it."""
    loader(manifest, cache=tmp_path)
    (path,) = tmp_path.rglob(name)
    path.write_bytes(b"")
    with pytest.raises(
        ConfigError, match=f"damaged .*; remove {path.parent}; the next run rebuilds it"
    ):
        loader(manifest, cache=tmp_path).batch(0)


def test_nothing_left_to_draw(manifest: Manifest) -> None:
    routing = {"shares": {"visual_forecasting": 1.0}}
    with pytest.raises(ConfigError, match="no samples"):
        loader(manifest, recipe(data={"future_s": 60.0}, routing=routing))


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
    part = write_part(LocalStorage(), mine.corpus, "latents", rows)
    tables = {t: [part] if t == "latents" else now.parts(t) for t in _tables(mine.corpus)}
    publishing.publish_tables(LocalStorage(), mine.corpus, now, tables, "again")
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
    [
        ("cut", 0),
        ("cut", 2),
        ("gone", 0),
        ("camera", 0),
        ("episode", 0),
        ("short", 0),
        ("nan", 2),
        ("dtype", 0),
    ],
)
def test_a_broken_sample_stops_the_run_with_its_address(
    trainable: Trainable, tmp_path: Path, fault: str, num_workers: int
) -> None:
    """(n): never another sample in its place."""
    mine = trainable.copied(tmp_path / "corpus")
    manifest, path, uid = victim(mine)
    batches = loader(manifest, recipe(run={"num_workers": num_workers})).batches()
    spoil(path, fault)
    with pytest.raises(SourceError, match=r"broken sample") as error:
        list(islice(batches, 40))
    said = str(error.value)
    assert path.name in said
    assert f"episode {uid}" in said
    assert "timestep" in said
    if fault == "gone":
        assert f"run `eicorpus latents images {mine.corpus} --encoder tiny_vit`" in said


@pytest.mark.parametrize("without_missing", [False, True])
def test_half_a_copy_is_refused_before_the_first_step(
    trainable: Trainable, tmp_path: Path, without_missing: bool
) -> None:
    """Files of another encoder, of cameras that are no view and of other splits are not looked for."""
    mine = trainable.copied(tmp_path / "corpus")
    manifest = load(mine.manifest)
    named = {
        latent.path: (row.split, latent.camera)
        for row in map(manifest.row, range(len(manifest)))
        for latent in row.latents
        if latent.encoder_id == ENCODER
    }
    shutil.rmtree(next(mine.corpus.rglob(OTHER_ENCODER)))
    for path, place in named.items():
        if place != ("train", "front"):
            (mine.corpus / path).unlink()
    one = recipe(data={"cameras": ["front"], "without_missing": without_missing})
    assert len(loader(manifest, one).batch(0).action) == 12
    needed = [path for path, place in named.items() if place == ("train", "front")]
    for path in needed[1:4]:
        (mine.corpus / path).unlink()
    repair = f"`eicorpus latents images {mine.corpus} --encoder tiny_vit`.*`eicorpus manifest build"
    said = f"latents missing: 3 of {len(needed)} files .* {needed[1]} first; copy the files, or run {repair}"
    with pytest.raises(ConfigError, match=said):
        loader(manifest, one)
    shutil.rmtree((mine.corpus / needed[0]).parent)
    with pytest.raises(ConfigError, match=f"missing: .* {needed[0]} first"):
        loader(manifest, one)


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
        if fault == "dtype":
            tensors[LATENTS] = tensors[LATENTS].half()
        elif fault == "nan":
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
    with pytest.raises(SourceError, match="sha256 is"):
        list(islice(strict.batches(), 3))


@pytest.mark.parametrize("place", ["elsewhere.safetensors", "corpus/inside.safetensors"])
def test_a_link_in_the_corpus_is_not_followed(
    trainable: Trainable, tmp_path: Path, place: str
) -> None:
    """Not even where it stays inside."""
    mine = trainable.copied(tmp_path / "corpus")
    manifest, path, _ = victim(mine)
    path.rename(tmp_path / place)
    path.symlink_to(tmp_path / place)
    found = loader(manifest)
    with pytest.raises(SourceError, match="is a link"):
        list(islice(found.batches(), 3))
    folder = path.parent
    folder.rename(tmp_path / "folder")
    folder.symlink_to(tmp_path / "folder")
    with pytest.raises(OutsideCorpus, match="is a link"):
        loader(manifest)


def test_the_other_encoder_is_other_numbers(manifest: Manifest) -> None:
    ours = loader(manifest).batch(0)
    other = loader(manifest, recipe(data={"encoder": OTHER_ENCODER})).batch(0)
    assert addresses(ours) == addresses(other)
    assert not torch.equal(ours.known.past, other.known.past)


# --- memory ----------------------------------------------------------------------------------------------------------
