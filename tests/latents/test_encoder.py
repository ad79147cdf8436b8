"""The wrapper against transformers' own model on pixels that numpy normalised; weights and their names; refusals with a way out."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from ingest.models import encoder_weights
from ingest.models.encoder import EncoderChoice, ImageEncoder, encoder_id
from ingest.models.encoder_weights import WeightSource, load_network, weights_sha256
from ingest.models.encoders import CLASSES, ENCODERS, encoder_spec
from schemas.errors import ConfigError
from tests.latents.corpora import TINY

RNG = np.random.default_rng(3)
PICTURES = RNG.integers(0, 256, (11, 64, 64, 3), dtype=np.uint8)
SPEC = encoder_spec("dinov3_tiny")
# dinov3_tiny with seed 0: changes with the seeding rule, and with nothing else
SEEDED_SHA256 = "997ebea67700bb965ca498c4ae972a73da8162808834e963446899976a75d46d"


def own_tokens(network: Any, pictures: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[n, P + T, D] of the library's model itself, in float32."""
    x = (pictures / 255.0 - np.array(SPEC.mean)) / np.array(SPEC.std)
    with torch.no_grad():
        given = torch.from_numpy(x.transpose(0, 3, 1, 2)).float()
        return np.asarray(network(pixel_values=given).last_hidden_state)


def cosine_errors(a: Any, b: Any) -> Any:
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    return 1 - (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.fixture(scope="module")
def network() -> Any:
    return load_network(SPEC, WeightSource(untrained_seed=0))[0]


@pytest.fixture(scope="module")
def folder(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as a download of it would look."""
    path = tmp_path_factory.mktemp("model")
    network.save_pretrained(str(path))
    return path


@pytest.fixture
def with_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry of the tests' own that may have weights."""
    spec = replace(SPEC, name="dinov3_tiny", hub_id="facebook/tiny", licence="DINOv3 License")
    monkeypatch.setattr("ingest.models.encoders.ENCODERS", {**ENCODERS, "dinov3_tiny": spec})


# --- tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keeps_prefix", [False, True])
def test_tokens_are_those_of_the_library(network: Any, keeps_prefix: bool) -> None:
    choice = replace(TINY, keeps_prefix=keeps_prefix)
    wanted = own_tokens(network, PICTURES)[:, 0 if keeps_prefix else 2 :]
    exact = ImageEncoder.open(choice, is_exact=True).encode(PICTURES)
    assert exact.shape == wanted.shape == (11, choice.num_tokens, 64)
    assert np.abs(np.asarray(exact) - wanted).max() < 1e-4
    half = ImageEncoder.open(choice).encode(PICTURES)
    assert half.dtype is torch.bfloat16
    assert cosine_errors(half.float(), wanted).max() < 3e-4


def test_the_first_patch_is_the_upper_left_and_they_go_row_by_row(tiny: ImageEncoder) -> None:
    grey = np.full((1, 64, 64, 3), 128, np.uint8)
    changed = grey.copy()
    changed[0, 16:32, 48:64] = 255  # row 1, column 3
    moved = (tiny.encode(grey) - tiny.encode(changed)).float().abs().sum(dim=-1)[0]
    assert int(moved.argmax()) == 1 * 4 + 3


def test_a_picture_does_not_depend_on_its_company(tiny: ImageEncoder) -> None:
    """Batches of 4, the last one filled up. On a CPU to the bit."""
    together = tiny.encode(PICTURES)
    alone = torch.cat([tiny.encode(PICTURES[k : k + 1]) for k in range(11)])
    backwards = tiny.encode(PICTURES[::-1].copy()).flip(0)
    assert torch.equal(together, backwards)
    assert cosine_errors(alone.float(), together.float()).max() < 1e-5


def test_the_frequencies_of_positions_stay_float32(tiny: ImageEncoder) -> None:
    assert dict(tiny._network.named_buffers())["rope_embeddings.inv_freq"].dtype is torch.float32


@pytest.mark.parametrize("wrong", [PICTURES[:, :32], PICTURES.astype(np.float32)])
def test_other_pictures_are_refused(tiny: ImageEncoder, wrong: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        tiny.encode(wrong)


@pytest.mark.parametrize(
    "name", [n for n, spec in ENCODERS.items() if n != "dinov3_tiny" and spec.family in CLASSES]
)
def test_every_entry_is_a_model_of_its_library(name: str) -> None:
    """Its library says the shapes, without any numbers."""
    spec = encoder_spec(name)
    config_name, model_name = CLASSES[spec.family]
    with torch.device("meta"), torch.no_grad():
        network = getattr(transformers, model_name)(
            getattr(transformers, config_name)(**spec.config)
        )
        given = torch.zeros(2, 3, spec.size_px, spec.size_px)
        out = network(pixel_values=given).last_hidden_state
    assert out.shape == (2, spec.num_prefix + spec.grid**2, spec.width)


# --- names -----------------------------------------------------------------------------------------------------------


def test_seeded_weights_are_the_same_everywhere(network: Any) -> None:
    assert load_network(SPEC, WeightSource(untrained_seed=0))[1] == SEEDED_SHA256
    assert load_network(SPEC, WeightSource(untrained_seed=1))[1] != SEEDED_SHA256


def test_seeding_leaves_the_generators_of_others_alone() -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    load_network(SPEC, WeightSource(untrained_seed=0))
    assert torch.equal(torch.rand(3), wanted)


def test_the_id_changes_with_what_the_numbers_mean_and_with_nothing_else() -> None:
    first = encoder_id(TINY, SEEDED_SHA256)
    assert first.startswith("dinov3_tiny_untrained0-")
    others = [
        replace(TINY, fit="crop"),
        replace(TINY, storage="int8"),
        replace(TINY, grid_stride=2),
        replace(TINY, keeps_prefix=True),
        replace(TINY, model="dinov3_vits16"),
        replace(TINY, source=WeightSource(untrained_seed=1)),
    ]
    ids = {encoder_id(each, SEEDED_SHA256) for each in others} | {encoder_id(TINY, "f" * 64)}
    assert len(ids | {first}) == len(others) + 2
    same = replace(TINY, device="auto", batch=99, is_compiled=True, gpu_share=0.5)
    assert encoder_id(same, SEEDED_SHA256) == first


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("with_weights")
def test_a_folder_gives_the_same_tokens_and_the_digest_of_its_file(
    folder: Path, tiny: ImageEncoder
) -> None:
    choice = replace(TINY, source=WeightSource(folder=str(folder)))
    found = ImageEncoder.open(choice)
    assert torch.equal(found.encode(PICTURES), tiny.encode(PICTURES))
    assert found.weights_sha256 == weights_sha256(folder)
    assert found.id.startswith("dinov3_tiny-")  # trained, for all it says


def refused(folder: Path, **other: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        ImageEncoder.open(replace(TINY, source=WeightSource(folder=str(folder)), **other))
    return str(caught.value)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "model"))


@pytest.mark.usefixtures("with_weights")
def test_what_is_no_such_model_is_refused(copied: Path, tmp_path: Path) -> None:
    assert "no config.json" in refused(tmp_path)
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    assert "is not dinov3_tiny: num_hidden_layers 1, not 2" in refused(copied)
    (copied / "config.json").write_text(json.dumps(config))
    data = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert "cannot be loaded" in refused(copied)
    (copied / "model.safetensors").unlink()
    (copied / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    assert "pickled weights are not read" in refused(copied)


@pytest.mark.usefixtures("with_weights")
def test_weights_of_which_a_part_would_stay_random_are_refused(copied: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(str(copied / "model.safetensors"))
    gone = next(name for name in tensors if name.endswith("layer.1.mlp.up_proj.weight"))
    del tensors[gone]
    save_file(tensors, str(copied / "model.safetensors"), metadata={"format": "pt"})
    assert "1 tensors are missing" in refused(copied)


@pytest.mark.usefixtures("with_weights")
@pytest.mark.parametrize("name", ["../weights.safetensors", "weights.bin", 3])
def test_an_index_that_names_anything_else_is_refused(copied: Path, name: Any) -> None:
    (copied / "model.safetensors").unlink()
    index = {"weight_map": {"norm.weight": name}}
    (copied / encoder_weights.INDEX).write_text(json.dumps(index))
    assert "expected .safetensors files" in refused(copied)


def test_an_encoder_without_weights_is_told_to_be_untrained(folder: Path) -> None:
    assert "add --untrained SEED" in refused(folder)


@pytest.mark.parametrize(
    "given", [{"folder": "a", "hub_id": "b/c"}, {"hub_id": "../x/y"}, {"untrained_seed": -1}]
)
def test_one_sound_source_of_weights(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        WeightSource(**given)


def test_who_needs_weights_is_not_opened_without() -> None:
    with pytest.raises(ConfigError, match="no weights"):
        ImageEncoder.open(EncoderChoice(model="dinov3_tiny", source=WeightSource(), device="cpu"))


def test_a_gpu_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("NOT RUN: there is a GPU here")
    with pytest.raises(ConfigError, match="use --device cpu"):
        ImageEncoder.open(replace(TINY, device="cuda"))


# --- the hub, which nobody asks here ----------------------------------------------------------------------------------

# the HTTP library of this version of the hub's client
_HTTP: Any = import_module(HfHubHTTPError.__mro__[1].__module__.partition(".")[0])
_ANSWER: Any = _HTTP.Response(401, request=_HTTP.Request("GET", "https://hub.invalid"))
HUB = EncoderChoice(
    model="dinov3_vits16",
    source=WeightSource(hub_id="facebook/dinov3-vits16-pretrain-lvd1689m"),
    device="cpu",
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            GatedRepoError("403", response=_ANSWER),
            "accept the DINOv3 License at https://huggingface.co/facebook/dinov3-vits16-pretrain-lvd1689m, run `hf auth login`",
        ),
        (RepositoryNotFoundError("404", response=_ANSWER), "no such model"),
        (_HTTP.ConnectError("no route"), "does not respond"),
        (_HTTP.ReadTimeout("slow"), "does not respond"),
        (OSError("no network"), "does not respond"),
    ],
)
def test_a_hub_that_says_no_ends_in_what_to_do(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def nothing_cached(*_: Any, **how: Any) -> str:
        assert how["local_files_only"]
        raise LocalEntryNotFoundError("nothing")

    def answer(*_: Any, **how: Any) -> None:
        assert how["timeout"] <= 10
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", nothing_cached)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", answer)
    with pytest.raises(ConfigError) as caught:
        ImageEncoder.open(HUB)
    assert said in str(caught.value)
    assert "--weights FOLDER" in str(caught.value)


@pytest.mark.usefixtures("with_weights")
def test_what_was_downloaded_before_needs_no_network(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tiny: ImageEncoder
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    found = ImageEncoder.open(replace(TINY, source=WeightSource(hub_id="facebook/tiny")))
    assert found.weights_sha256 == weights_sha256(folder)
    assert torch.equal(found.encode(PICTURES[:2]), tiny.encode(PICTURES[:2]))


def test_the_oracle_is_the_librarys_own_class(network: Any) -> None:
    assert type(network) is DINOv3ViTModel
    assert type(network.config) is DINOv3ViTConfig
