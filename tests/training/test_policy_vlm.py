"""A run that learned from stored text features is told the same when it is served, by the same model and by no other. The model is tiny."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from ingest.latents.text_encoding import TextEncoder
from ingest.models.text_feature_file import file_bytes
from ingest.models.vlm import LocalVlm
from jobs.cli import app
from schemas.errors import ConfigError
from schemas.manifest import Latent, ManifestRow
from schemas.stored_picture import as_stored
from schemas.text_features import (
    NO_CAMERA,
    NO_PICTURE,
    FeatureSettings,
    TextFacts,
    text_feature_file,
)
from schemas.vlm import model_sha256
from tests.curation.caption.tiny_qwen import write_tiny_qwen
from tests.training.test_conditioning import row
from training.conditioning.cached import CachedConditioner, CachedReader
from training.conditioning.inputs import TextInputs
from training.conditioning.online import OnlineConditioner
from training.conditioning.text_model import online_text_of, settings_of, text_id_of
from training.data.action_layout import ACTION_WIDTH, slot_names
from training.data.normalise import Normaliser
from training.learner import Learner
from training.model.network import Network
from training.model.settings import ModelSettings
from training.model.text import Text
from training.policy.observation import Observation, Pixels
from training.policy.policy import Policy
from training.policy.text_encoder import VlmTextEncoder, image_for_text, open_text_encoder
from training.recipe import TrainRecipe
from training.run.checkpoint import CheckpointState, checkpoint_of, snapshot, write
from training.run.optimiser import adamw
from training.run.parallel import Ranks

WIDTH, CPU = 64, torch.device("cpu")
SIDE_PX = 64  # of stored pictures
TEXTS = ("close the box", "open it", "put all that lies on the table into the box")
ALONE = FeatureSettings(layer=2, prompt="Do this: {text}", max_text_tokens=24)
SHOWN = FeatureSettings(layer=1, picture_every_s=1.0)
LATENTS = {"front": np.zeros((2, 7, 8), np.float32)}
warm = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="NOT RUN: the vlm extra is not installed")
    return write_tiny_qwen(tmp_path_factory.mktemp("tiny_qwen"))


def stored(corpus: Path, encoder: TextEncoder, picture: Pixels | None) -> tuple[CachedReader, ManifestRow]:  # fmt: skip
    """A file as the ingest chain makes it, of TEXTS told alone and, where there is one, with a picture of timestep 0; its row has no text yet."""
    moments, features = [], []
    for number, text in enumerate(TEXTS):
        moments.append((number, NO_PICTURE))
        features.append(encoder.of_text(text))
        if picture is not None:
            moments.append((number, 0))
            features += encoder.of_pictures([(text, picture)])
    facts = TextFacts(
        encoder_id=encoder.encoder_id,
        model_sha256=encoder.model_sha256,
        settings=encoder.settings,
        width=WIDTH,
        uid="u",
        camera="",
        length=9,
        rate_hz=10.0,
        texts=TEXTS,
        source_sha256="",
    )
    path = corpus / text_feature_file(encoder.encoder_id, 0)
    path.parent.mkdir(parents=True)
    path.write_bytes(file_bytes(moments, features, facts))
    latent = Latent(
        camera=NO_CAMERA,
        encoder_id=encoder.encoder_id,
        path=path.relative_to(corpus).as_posix(),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    return CachedReader(corpus=corpus, encoder_id=encoder.encoder_id), row("u", "", (latent,))


def encoder_of(folder: Path, settings: FeatureSettings) -> TextEncoder:
    """That of `eicorpus latents text`."""
    vlm, digest = LocalVlm.load(folder), model_sha256(folder)
    return TextEncoder(vlm=vlm, model="text_qwen3_vl", model_sha256=digest, settings=settings)


def run_of(out: Path, text: dict[str, Any], **state: Any) -> Path:
    """What `eicorpus train` leaves, of weights that nobody trained and one hand that moves."""
    data = {"cameras": ["front", "wrist"], "num_actions": 4}
    recipe = TrainRecipe.model_validate({"name": "told", "data": data, "text": text})
    model = ModelSettings(
        width=16, num_layers=1, num_heads=2, text_width=WIDTH, latent_width=8, num_patches=6,
        num_views=2, num_actions=4, num_embodiments=1, adapter_width=8,
    )  # fmt: skip
    torch.manual_seed(0)
    learner = Learner(Network(model), CachedConditioner(WIDTH))
    with torch.no_grad():
        for p in learner.parameters():
            p.add_((p == 0) * 0.05 * torch.randn_like(p))
    one = torch.ones(1, ACTION_WIDTH)
    moves = torch.tensor([[name.startswith("left.delta") for name in slot_names()]])
    units = Normaliser(embodiments=("umi",), centre=0 * one, scale=one, is_known=moves)
    said = CheckpointState(
        step=1,
        recipe=recipe.model_dump(mode="json"),
        recipe_sha256="",
        manifest_name="m",
        manifest_sha256="",
        model=model,
        embodiments=("umi",),
        encoder_id="dinov3_vits16-0123456789ab",
        **state,
    )
    optimiser = adamw(learner, recipe.optimiser)
    made = snapshot(learner, optimiser, None, said, Ranks(), units.state())
    assert made is not None
    write(out / "checkpoints", made, keep=1)
    return out


@pytest.mark.slow
@warm
def test_it_answers_as_it_would_with_what_was_stored(folder: Path, tmp_path: Path) -> None:
    """Features of the ingest chain and of the server to the bit, a long text cut alike; then the actions."""
    encoder = encoder_of(folder, ALONE)
    reader, mine = stored(tmp_path / "corpus", encoder, None)
    cached = {"kind": "cached", "encoder": "text_qwen3_vl"}
    run = run_of(tmp_path / "run", cached, text_id=encoder.encoder_id, text_settings=ALONE)
    policy = Policy.load(run, vlm=folder, device="cpu")

    def read(seen: Sequence[Observation]) -> TextInputs:
        rows = [dataclasses.replace(mine, text=each.text) for each in seen]
        return reader.read(rows, np.full(len(rows), 5))

    of_corpus = Policy(policy.learner, read, policy.normaliser, policy.recipe)
    seen = [Observation(text=text, embodiment="umi", latents=LATENTS) for text in TEXTS]
    served, want = policy.tell(seen), read(seen)
    assert same_layout(served, want)
    assert served.by_token["features"].equal(want.by_token["features"].float())
    answers = [policy.act(each).targets for each in seen]
    for found, each in zip(answers, seen, strict=True):
        np.testing.assert_array_equal(found, of_corpus.act(each).targets)
    assert len({each.tobytes() for each in answers}) == len(TEXTS)


@pytest.mark.slow
@warm
def test_it_is_shown_what_was_shown_when_features_were_stored(folder: Path, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (96, 160, 3), dtype=np.uint8)
    reader, mine = stored(tmp_path, encoder_of(folder, SHOWN), as_stored(picture, SIDE_PX))
    telling = VlmTextEncoder(folder, online_text_of(SHOWN, folder), CPU, SIDE_PX)
    cameras = {"wrist": picture[None] * 0, "front": np.stack([picture * 0, picture])}
    seen = [Observation(text=text, embodiment="umi", pictures=cameras) for text in TEXTS]
    found = telling(seen)
    want = reader.read([dataclasses.replace(mine, text=x) for x in TEXTS], np.full(len(TEXTS), 5))
    assert same_layout(found, want)
    features, stored_ones = found.by_token["features"], want.by_token["features"].float()
    torch.testing.assert_close(features, stored_ones, rtol=2**-8, atol=1e-4)
    with pytest.raises(ConfigError, match=r"no image of a camera matching \*, .*send one"):
        telling([Observation(text="", embodiment="umi", latents=LATENTS)])


@pytest.mark.slow
@warm
def test_the_model_is_asked_once_for_an_instruction_that_is_repeated(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling = VlmTextEncoder(folder, online_text_of(ALONE, folder), CPU)
    calls: list[Tensor] = []
    was = OnlineConditioner.forward

    def counted(self: OnlineConditioner, inputs: TextInputs) -> Text:
        calls.append(inputs.by_text["token_ids"])
        return was(self, inputs)

    monkeypatch.setattr(OnlineConditioner, "forward", counted)
    words = ("open it", "close the box", "open it")
    seen = [Observation(text=text, embodiment="umi") for text in words]
    found, again = telling(seen), telling(seen)
    assert len(calls) == 2
    assert found.by_token["features"].equal(again.by_token["features"])
    assert found.layout.num_tokens.tolist() == [each.shape[1] for each in calls]
    assert found.layout.text_of.tolist() == [0, 1, 0]


def same_layout(a: TextInputs, b: TextInputs) -> bool:
    return all(
        np.array_equal(getattr(a.layout, name), getattr(b.layout, name))
        for name in ("num_tokens", "text_of")
    )


def weightless(folder: Path, weights: bytes) -> Path:
    """What names a model, without one."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen3_vl"}')
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_another_model_is_refused_with_both_ids(tmp_path: Path) -> None:
    right, wrong = (weightless(tmp_path / name, name.encode()) for name in ("right", "wrong"))
    was, now = (text_id_of(each, ALONE) for each in (right, wrong))
    cached = {"kind": "cached", "encoder": "text_qwen3_vl"}
    run = run_of(tmp_path / "run", cached, text_id=was, text_settings=ALONE)
    with pytest.raises(
        ConfigError, match=rf"wrong: .*makes text features {now}; .*trained on {was}"
    ):
        Policy.load(run, vlm=wrong)
    with pytest.raises(ConfigError, match=r"no config\.json"):
        Policy.load(run, vlm=tmp_path / "nothing")
    done = CliRunner().invoke(app, ["serve-policy", str(run)])
    assert isinstance(done.exception, ConfigError)
    assert done.exception.exit_code == 2
    assert f"trained on stored text features {was}" in str(done.exception)
    assert "add --vlm FOLDER" in str(done.exception)
    online = run_of(tmp_path / "online", {"kind": "online", "model": str(wrong)}, text_id=was, text_settings=ALONE)  # fmt: skip
    with pytest.raises(
        ConfigError, match=f"makes text features {now}"
    ):  # it lies where another did
        Policy.load(online)


def test_what_a_run_does_not_say_is_not_guessed(tmp_path: Path) -> None:
    old = run_of(tmp_path / "old", {"kind": "cached", "encoder": "text_x"})
    with pytest.raises(ConfigError, match=r"features text_x; .*an older eicorpus"):
        Policy.load(old, vlm=weightless(tmp_path / "model", b""))
    words = run_of(tmp_path / "words", {"kind": "words"})
    with pytest.raises(
        ConfigError, match=r"--vlm: .* was not trained with a language model .*text\.kind words"
    ):
        open_text_encoder(checkpoint_of(words), vlm=tmp_path, device=CPU)


def test_how_it_was_asked_there_and_back() -> None:
    shown = SHOWN.model_copy(update={"picture_every_s": 0.1, "max_picture_tokens": 9})
    for settings in (ALONE, shown):
        assert settings_of(online_text_of(settings, Path("m")), 36, 10.0) == settings


@pytest.mark.parametrize(
    "picture", [np.zeros((0, 4, 4, 3)), np.zeros((1, 0, 4, 3)), np.zeros((4, 4, 3)), np.zeros((1, 1, 51, 3)), np.zeros((1, 4, 4, 3), np.float32)]
)  # fmt: skip
def test_what_is_no_picture_is_not_shown(picture: np.ndarray) -> None:
    pictures = {"front": picture if picture.dtype == np.float32 else picture.astype(np.uint8)}
    with pytest.raises(ConfigError, match="images of camera 'front'"):
        image_for_text(Observation(text="", embodiment="umi", pictures=pictures), "*", SIDE_PX)
