"""The folder of a downloaded Qwen-VL model: what of it may be read, and which model it is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError, SourceError
from schemas.json_text import DOCUMENT, read_json
from schemas.system_error import system_error_text

SUFFIX = ".safetensors"
# How `transformers` is asked for anything of it: nothing is fetched, no code of the folder runs, nothing is unpickled.
FROM_HERE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
WEIGHTS_FROM_HERE: dict[str, Any] = FROM_HERE | {
    "use_safetensors": True,
    "attn_implementation": "sdpa",  # a config may name one to download
    "dtype": "auto",
}
# what a damaged or hostile folder was seen to end in
LOAD_ERRORS = (OSError, ValueError, ImportError, KeyError, RuntimeError, TypeError, AttributeError)
# what decides how a text becomes tokens and a picture patches
SETTING_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                 "chat_template.json", "preprocessor_config.json", "special_tokens_map.json",
                 "added_tokens.json", "vocab.json", "merges.txt")  # fmt: skip


def refuse_what_is_no_model(folder: Path) -> None:
    """Raises ConfigError: no model, or one whose weights would have to be unpickled."""
    if not (folder / "config.json").is_file():
        problem = "no config.json; give the folder of a downloaded Qwen-VL model"
        raise ConfigError(problem, where=str(folder))
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return  # one file, which the library finds by its name
    try:
        names = set(read_json(index, limits=DOCUMENT)["weight_map"].values())
    except (SourceError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"no index of weights: {error!r}", where=str(index)) from error
    for name in names:
        # the library unpickles whatever the index names otherwise
        if not isinstance(name, str) or Path(name).name != name or Path(name).suffix != SUFFIX:
            raise ConfigError(
                f"names {str(name)[:80]!r}; expected {SUFFIX} files", where=str(index)
            )


def model_sha256(folder: Path) -> str:
    """Of the weights and of every file that decides what they are given; all of it is read.

    Raises:
        ConfigError: there are no weights, or something cannot be read.
    """
    sha = hashlib.sha256()
    try:
        weights = sorted(folder.glob(f"*{SUFFIX}"))
        if not weights:
            raise ConfigError(f"no {SUFFIX} files; give a downloaded model", where=str(folder))
        for path in [*weights, *(folder / name for name in SETTING_FILES)]:
            if path.is_file():
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                sha.update(f"{path.name} {digest}\n".encode())
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {system_error_text(error, str(folder))}", where=str(folder)
        ) from error
    return sha.hexdigest()


def model_type(folder: Path) -> str:
    """The family by its `config.json`: "qwen3_vl".

    Raises:
        ConfigError: it says none.
    """
    path = folder / "config.json"
    try:
        stated = read_json(path, limits=DOCUMENT)["model_type"]
    except (SourceError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"names no model_type ({error!r})", where=str(path)) from error
    return str(stated)
