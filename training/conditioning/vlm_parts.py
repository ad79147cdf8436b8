"""The parts of a downloaded Qwen-VL model, by the same rules as `ingest/models/vlm.py`: no network, no code of the folder, no pickles."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from schemas.errors import ConfigError
from schemas.paths import check_local
from schemas.vlm import (
    FROM_HERE,
    IMAGE_PAD,
    LOAD_ERRORS,
    WEIGHTS_FROM_HERE,
    refuse_what_is_no_model,
)


def folder_of(model: str) -> Path:
    """A folder, or where a hub id was downloaded to.

    Raises:
        ConfigError: neither; nothing is fetched.
    """
    check_local(Path(model), "text.model")
    if Path(model).is_dir():
        folder = Path(model)
    else:
        try:
            cached_file: Any = _library("transformers.utils").cached_file
            folder = Path(cached_file(model, "config.json", local_files_only=True)).parent
        except (OSError, ValueError) as error:
            problem = f"{model!r} is neither a folder nor a downloaded model"
            raise ConfigError(
                problem, remedy=f"run `hf download {model}`", where="text.model"
            ) from error
    refuse_what_is_no_model(folder)
    return folder


def readers_of(folder: Path) -> tuple[Any, Any]:
    """The tokenizer and the image processor.

    Raises:
        ConfigError: they cannot be loaded, or are not of a Qwen-VL model.
    """
    library = _library("transformers")
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(str(folder), **FROM_HERE)
        images = library.AutoImageProcessor.from_pretrained(str(folder), **FROM_HERE)
    except LOAD_ERRORS as error:
        raise ConfigError(
            f"cannot be loaded: {error}", remedy="download the model again", where=str(folder)
        ) from error
    if tokenizer.convert_tokens_to_ids(IMAGE_PAD) in (None, tokenizer.unk_token_id):
        raise ConfigError(
            f"the tokenizer has no {IMAGE_PAD}; expected a Qwen-VL model",
            remedy="pass the folder of a Qwen-VL model",
            where=str(folder),
        )
    return tokenizer, images


def weights_of(folder: Path) -> Any:
    """The model with its head, frozen, in the type its weights are in: bfloat16 for every published one.

    Raises:
        ConfigError: it cannot be loaded.
    """
    library = _library("transformers")
    try:
        whole = library.AutoModelForImageTextToText.from_pretrained(
            str(folder), **WEIGHTS_FROM_HERE
        )
    except (*LOAD_ERRORS, SafetensorError) as error:
        raise ConfigError(
            f"cannot be loaded: {error}", remedy="download the model again", where=str(folder)
        ) from error
    return whole.eval().requires_grad_(requires_grad=False)


def _library(name: str) -> Any:
    try:
        return import_module(name)  # its types say less than it does
    except ModuleNotFoundError as error:
        problem = f"{error.name} is not installed"
        raise ConfigError(problem, remedy="run pip install 'eicorpus[vlm]'") from error
