"""From features that are made, through catalog and manifest, to what a step is told. The model is a stand-in that says what it was told."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from benchmarks.annotated_corpus import build_manifest
from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.latents.text_encoding import TextEncoder, TextTally, encode_texts
from ingest.latents.text_plan import plan_of, texts_of_episodes
from ingest.storage.local import LocalStorage
from ingest.verify.manifest import verify_manifest
from schemas.errors import ConfigError
from schemas.manifest import Manifest, load
from schemas.text_features import FeatureSettings
from schemas.vlm import Message, Picture
from tests.faults.disks import QuickDisk
from tests.training.corpus import ENCODER, NUM_VIDEO, Trainable
from tests.training.tiny import tokens_of
from training.conditioning.open import open_conditioner
from training.data.camera_views import encoder_of
from training.recipe import CachedText

pytestmark = pytest.mark.slow

VIDEOS = "embodiment = 'human_video'"
ROBOTS = "embodiment = 'umi'"
WIDTH = 4


class Echo:
    """A token for each letter of the text, and the mean of the picture."""

    width = WIDTH

    def instruction(
        self, prompt: str, text: str, picture: Picture | None, max_tokens: int
    ) -> tuple[Message, ...]:
        return (Message(role="user", text=text[:max_tokens], picture=picture),)

    def features(
        self,
        chats: Sequence[Sequence[Message]],
        *,
        layer: int,
        max_picture_tokens: int | None = None,
    ) -> list[npt.NDArray[np.uint16]]:
        return [echo(chat[0].text, chat[0].picture) for chat in chats]


def echo(text: str, picture: Picture | None) -> npt.NDArray[np.uint16]:
    seen = -1.0 if picture is None else float(picture.mean())
    tokens = torch.tensor([[ord(letter), seen, 0, 1] for letter in text], dtype=torch.bfloat16)
    return np.asarray(tokens.view(torch.int16).numpy().view(np.uint16))


def encoder(**settings: Any) -> TextEncoder:
    given = FeatureSettings(layer=1, **settings)
    return TextEncoder(
        vlm=Echo(), model="text_echo", model_sha256="0" * 64, settings=given, batch=3
    )


def encode(root: Path, made: TextEncoder, disk: LocalStorage, where: str = VIDEOS) -> TextTally:
    corpus, current = open_corpus(root), snapshot.load(root)
    plan = plan_of(corpus, current, made.encoder_id, made.settings, where=where)
    tally = TextTally(discovered=len(plan.due) + plan.up_to_date, up_to_date=plan.up_to_date)
    works = texts_of_episodes(corpus, current, made.settings, plan.due)
    encode_texts(corpus, current, works, made, tally, run_id="vlm", disk=disk)
    return tally


def test_features_reach_the_step_through_a_manifest(trainable: Trainable, tmp_path: Path) -> None:
    root = trainable.copied(tmp_path / "corpus").corpus
    made = encoder(picture_every_s=0.5)
    assert encode(root, made, QuickDisk()).encoded == NUM_VIDEO
    manifest = load(build_manifest(root, "told", where=VIDEOS, with_statistics=False))
    assert verify_manifest(open_corpus(root), "corpus", "told").flaws == ()
    assert encoder_of(manifest, ENCODER) == ENCODER  # pictures and texts do not mix
    reader, conditioner = open_conditioner(CachedText(encoder="text_echo"), manifest)
    rows = [manifest.row(k) for k in range(len(manifest))]
    inputs = reader.read(rows, np.full(len(rows), 12))
    text = conditioner(inputs)
    assert conditioner.width == WIDTH
    assert (conditioner.text_id, conditioner.text_settings) == (made.encoder_id, made.settings)
    for k, row in enumerate(rows):
        actual = tokens_of(text, k)
        assert "".join(chr(round(float(x))) for x in actual[:, 0]) == row.text
        assert (actual[:, 1] > 0).all()  # it was shown a picture
    everything = load(build_manifest(root, "all", with_statistics=False))
    with pytest.raises(
        ConfigError, match="segments have no text features from text_echo"
    ) as refused:
        open_conditioner(CachedText(encoder="text_echo"), everything)
    assert f"eicorpus latents text {root} --vlm FOLDER" in str(refused.value)
    half_a_copy_is_refused(manifest)


def test_a_first_file_that_cannot_be_read_is_one_bad_sample(
    trainable: Trainable, tmp_path: Path
) -> None:
    """The width and the settings are those of the next; the samples of the first are replaced when they are drawn."""
    root = trainable.copied(tmp_path / "corpus").corpus
    encode(root, encoder(), QuickDisk(), where=ROBOTS)
    manifest = load(build_manifest(root, "told", where=ROBOTS, with_statistics=False))
    train = manifest.of_split("train")
    (first,) = (x.path for x in train.row(0).latents if not x.camera)
    (root / first).write_bytes((root / first).read_bytes()[:-9])
    with pytest.raises(ConfigError, match=f"{first}: "):
        open_conditioner(CachedText(encoder="text_echo", needs_pictures=False), manifest)
    _, conditioner = open_conditioner(
        CachedText(encoder="text_echo", needs_pictures=False), manifest, max_bad=1
    )
    assert conditioner.width == WIDTH


def half_a_copy_is_refused(manifest: Manifest) -> None:
    """Files of other splits are not looked for."""
    rows = map(manifest.row, range(len(manifest)))
    named = [
        (row.split, latent.path) for row in rows for latent in row.latents if not latent.camera
    ]
    for split, path in named:
        if split != "train":
            (manifest.corpus / path).unlink()
    open_conditioner(CachedText(encoder="text_echo"), manifest)
    *_, last = needed = [path for split, path in named if split == "train"]
    (manifest.corpus / last).unlink()
    counted = (
        f"text features missing: 1 of {len(needed)} files .* {last} first; copy the files, or run"
    )
    with pytest.raises(
        ConfigError, match=f"{counted} `eicorpus latents text {manifest.corpus} --vlm"
    ):
        open_conditioner(CachedText(encoder="text_echo"), manifest)


def test_threads_share_a_reader_that_forgets(
    trainable: Trainable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files come and go under all of them: whoever holds one reads it to the end."""
    root = trainable.copied(tmp_path / "corpus").corpus
    encode(root, encoder(), QuickDisk())
    manifest = load(build_manifest(root, "told", where=VIDEOS, with_statistics=False))
    monkeypatch.setattr("training.conditioning.cached.MAX_OPEN", 1)
    reader, _ = open_conditioner(CachedText(encoder="text_echo"), manifest)
    rows = [manifest.row(k) for k in range(len(manifest))]

    def read(turn: int) -> bool:
        row = rows[turn % len(rows)]
        letters = reader.read([row], np.array([12])).by_token["features"][:, 0]
        return "".join(chr(round(float(x))) for x in letters) == row.text

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(400)))
    finally:
        sys.setswitchinterval(interval)


class Full(QuickDisk):
    """No room for more than so many files of features."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, path: Path, data: bytes, *, is_durable: bool = False) -> None:
        if path.suffix == ".safetensors":
            self.room -= 1
            if self.room < 0:
                raise OSError(28, "No space left on device")
        super().write(path, data, is_durable=is_durable)


def test_a_stopped_run_keeps_what_it_has_and_the_next_does_the_rest(
    trainable: Trainable, tmp_path: Path
) -> None:
    stopped, straight = (trainable.copied(tmp_path / name).corpus for name in ("a", "b"))
    made = encoder()
    with pytest.raises(OSError, match="No space"):
        encode(stopped, made, Full(2))
    tally = encode(stopped, made, QuickDisk())
    assert (tally.encoded, tally.up_to_date) == (NUM_VIDEO - 2, 2)
    encode(straight, made, QuickDisk())

    def files(root: Path) -> dict[str, bytes]:
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob(f"{made.encoder_id}/**/*.safetensors"))}  # fmt: skip

    assert files(stopped) == files(straight)
    assert len(files(stopped)) == NUM_VIDEO
    rows = [
        [(r["path"], r["sha256"]) for r in snapshot.load(root).read(root, "latents").to_pylist() if r["encoder_id"] == made.encoder_id]
        for root in (stopped, straight)
    ]  # fmt: skip
    assert sorted(rows[0]) == sorted(rows[1])


def test_what_is_no_number_fails_its_episode(trainable: Trainable, tmp_path: Path) -> None:
    root = trainable.copied(tmp_path / "corpus").corpus
    made = encoder()
    good = made.vlm.features

    def spoiled(chats: Sequence[Sequence[Message]], **how: Any) -> list[npt.NDArray[np.uint16]]:
        actual = good(chats, **how)
        if chats[0][0].text.endswith("0"):
            actual[0][-1, -1] = 0x7FC0  # NaN
        return actual

    made.vlm.features = spoiled  # type: ignore[method-assign]
    tally = encode(root, made, LocalStorage(), where="")
    assert tally.failed > 0
    assert tally.encoded == tally.discovered - tally.failed
    assert set(tally.errors) == {"not_finite"}


def test_features_without_pictures_are_refused_where_a_recipe_needs_them(
    trainable: Trainable, tmp_path: Path
) -> None:
    """The message has the command. With pictures, or where the recipe does not mind, they are read."""
    needs = CachedText(encoder="text_echo", needs_pictures=True)
    corpora = {name: trainable.copied(tmp_path / name).corpus for name in ("blind", "seeing")}
    encode(corpora["blind"], encoder(), QuickDisk())
    encode(corpora["seeing"], encoder(picture_every_s=0.5), QuickDisk())
    blind, seeing = (
        load(build_manifest(root, name, where=VIDEOS, with_statistics=False))
        for name, root in corpora.items()
    )
    message = r"encoded from text only.*latents text .* --vlm FOLDER --vlm-frame-every-s.*text.needs_pictures=false"
    with pytest.raises(ConfigError, match=message):
        open_conditioner(needs, blind)
    open_conditioner(CachedText(encoder="text_echo"), blind)
    open_conditioner(needs, seeing)
