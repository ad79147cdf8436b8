"""A value head on disk: `value.safetensors` in the folder of its checkpoint, or `value_averages.safetensors` for the averaged weights.

The facts are JSON in the header of the file. They name the encoder, the recipe and the checkpoint, and hold the digest of the tensors. A head that names
another checkpoint is refused: its inputs would mean something else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from schemas.document import DocumentError
from schemas.errors import ConfigError, system_error_text
from schemas.invalid import invalid
from schemas.json_text import DOCUMENT, parse_json
from training.durable import write_durably
from training.model.settings import ModelSettings
from training.run.checkpoint import Checkpoint
from training.value.head import ValueHead
from training.value.settings import VERSION, ValueFacts, ValueShape

KEY = "value"  # of the header


def value_file(checkpoint: Checkpoint, *, is_averaged: bool) -> Path:
    return checkpoint.folder / (
        "value_averages.safetensors" if is_averaged else "value.safetensors"
    )


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and bytes, in order."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        sha.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def save_value(checkpoint: Checkpoint, head: ValueHead, facts: ValueFacts) -> ValueFacts:
    """Write a head, whole or not at all, in place of an older one; the facts with their digest.

    Raises:
        ConfigError: the checkpoint is gone: a run that goes on keeps the newest.
        OSError: the disk is full, or refuses.
    """
    if not checkpoint.folder.is_dir():
        repair = "wait until the run has ended, or train with a higher run.keep_checkpoints"
        raise ConfigError("the checkpoint is gone", remedy=repair, where=str(checkpoint.folder))
    tensors = {name: x.detach().cpu().contiguous() for name, x in head.state_dict().items()}
    facts = facts.model_copy(update={"tensors_sha256": tensors_sha256(tensors)})
    page = json.dumps(facts.model_dump(mode="json"), sort_keys=True)
    path = value_file(checkpoint, is_averaged=facts.is_averaged)
    write_durably(path, save(tensors, metadata={KEY: page}))
    return facts


def load_value(
    checkpoint: Checkpoint, *, is_averaged: bool, text_width: int, device: torch.device
) -> tuple[ValueHead, ValueFacts]:
    """The head of a checkpoint.

    Args:
        text_width: of the conditioner of the run.

    Raises:
        ConfigError: there is none, it is damaged, or it is of another checkpoint, recipe or encoder.
    """
    path = value_file(checkpoint, is_averaged=is_averaged)
    run = checkpoint.folder.parent.parent
    words = f"eicorpus train-value {run} --checkpoint {checkpoint.state.step}"
    repair = f"run `{words}{' --ema' if is_averaged else ''}`"
    if not path.is_file():
        raise ConfigError("the checkpoint has no value head", remedy=repair, where=str(path))
    expected = {
        "step": checkpoint.state.step,
        "is_averaged": is_averaged,
        "encoder_id": checkpoint.state.encoder_id,
        "text_id": checkpoint.state.text_id,
        "recipe_sha256": checkpoint.state.recipe_sha256,
        "shape": shape_of(checkpoint, text_width),
    }
    head, facts, tensors = _read(path, expected, repair)
    if (digest := tensors_sha256(tensors)) != facts.tensors_sha256:
        problem = (
            f"damaged: the tensors have sha256 {digest}, and {facts.tensors_sha256} was written"
        )
        raise ConfigError(problem, remedy=repair, where=str(path))
    if not all(x.isfinite().all() for x in tensors.values()):  # of two such values neither is best
        raise ConfigError("damaged: non-finite numbers", remedy=repair, where=str(path))
    head.load_state_dict(tensors, assign=True)
    for parameter in head.parameters():
        parameter.requires_grad = False
    return head.to(device).eval(), facts


def shape_of(checkpoint: Checkpoint, text_width: int) -> ValueShape:
    """
    Raises:
        ConfigError: the network is not one of the four tasks.
    """
    model = checkpoint.state.model
    if not isinstance(model, ModelSettings):
        problem = "a block-causal network has no forward dynamics to plan with"
        raise ConfigError(problem, remedy="use a run of four tasks", where=str(checkpoint.folder))
    return ValueShape(
        latent_width=model.latent_width,
        num_patches=model.num_patches,
        num_views=model.num_views,
        text_width=text_width,
        state_width=model.state_width,
    )


def _read(
    path: Path, expected: Mapping[str, object], repair: str
) -> tuple[ValueHead, ValueFacts, dict[str, Tensor]]:
    """A head without memory, and what it is to hold. No byte of a tensor is read before all shapes are those of the checkpoint."""

    def refused(problem: str) -> ConfigError:
        return ConfigError(problem, remedy=repair, where=str(path))

    try:
        with safe_open(path, "pt") as opened:
            page = parse_json((opened.metadata() or {}).get(KEY, ""), limits=DOCUMENT)
            if isinstance(page, dict) and page.get("value_version", VERSION) != VERSION:
                version = f"{page['value_version']!r:.20}"
                raise refused(f"value head of version {version}; expected {VERSION}")
            facts = ValueFacts.model_validate(page)
            for name, value in expected.items():
                if (stated := getattr(facts, name)) != value:
                    problem = f"the value head is of another run: {name} is {stated}; the checkpoint has {value}"
                    raise refused(problem)
            with torch.device("meta"):  # a damaged width is refused before memory is asked for it
                head = ValueHead(facts.shape, facts.settings)
            shapes = {name: ("F32", list(x.shape)) for name, x in head.state_dict().items()}
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            if {k: (x.get_dtype(), x.get_shape()) for k, x in slices.items()} != shapes:
                raise refused("damaged: its tensors have other names, types or shapes than its settings")  # fmt: skip
            return head, facts, {name: opened.get_tensor(name) for name in shapes}
    except ValidationError as error:
        raise refused(f"damaged ({invalid(error, ValueFacts)})") from error
    # RuntimeError: the file is too large to be mapped.
    except (OSError, RuntimeError, SafetensorError, DocumentError) as error:
        raise refused(f"cannot be read ({system_error_text(error)})") from error
