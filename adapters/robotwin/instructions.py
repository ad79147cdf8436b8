"""The text of a RoboTwin episode: one of about a hundred wordings of the same task.

    current   `instruction`, the chosen one (converted files), else `instructions`: a JSON list in one string, or an array of
              strings; they are the seen ones
    both      <config>/{instructions/episode<k>.json | instruction/episode_<k>.json}   {"seen": [...], "unseen": [...]}
Source: `RoboTwin-Platform/RoboTwin:envs/utils/pkl2hdf5.py, scripts/{collect_data,process_data_xpolicylab}.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters.containers.hdf5 import Hdf5File
from adapters.containers.safe_path import exists_inside
from adapters.containers.sidecar import Sidecar, json_object, read_sidecar
from schemas.document import DocumentError
from schemas.episode import Instruction, RawFile
from schemas.errors import Code, SourceError
from schemas.json_text import parse_json

FOLDERS = ("instructions", "instruction")
SPLITS = ("seen", "unseen")
LONGEST = 2000  # characters; wordings have some hundred at most


def read_instructions(
    file: Hdf5File, root: Path, locator: Mapping[str, str]
) -> tuple[tuple[Instruction, ...], tuple[RawFile, ...]]:
    """The first wording of the split that is asked for (default seen), and the file that it came from.

    Raises:
        SourceError: BAD_ANNOTATION.
    """
    split = locator.get("split", "seen")
    if "instruction" in locator:
        return _texts([locator["instruction"]], "option"), ()
    if split == "seen" and (inside_file := _stored(file)):
        return _texts(inside_file, file.where), ()
    config, _, name = f"/{locator['file']}".rpartition("/data/")
    for folder in FOLDERS:
        path = f"{config}/{folder}/{name.removesuffix('.hdf5')}.json".lstrip("/")
        if exists_inside(root, path):
            text, raw = read_sidecar(root, Sidecar(path=path))
            return _texts(json_object(text, path).get(split, []), path), (raw,)
    return (), ()


def _stored(file: Hdf5File) -> list[str]:
    """Wordings in the file itself."""
    for key in ("instruction", "instructions"):
        texts = list(file.texts(key)) if key in file else []
        if len(texts) == 1 and texts[0].startswith("["):
            texts = _parsed(texts[0], f"{file.where}:{key}")
        if texts := [text for text in texts if text.strip()]:
            return texts
    return []


def _parsed(text: str, where: str) -> list[Any]:
    try:
        value = parse_json(text)
    except DocumentError as error:
        raise SourceError(Code.BAD_ANNOTATION, str(error), where=where) from error
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SourceError(Code.BAD_ANNOTATION, "expected a list of strings", where=where)
    return value


def _texts(texts_read: Any, where: str) -> tuple[Instruction, ...]:
    if not isinstance(texts_read, list) or not all(isinstance(text, str) for text in texts_read):
        raise SourceError(Code.BAD_ANNOTATION, "expected a list of strings", where=where)
    texts = [text.strip()[:LONGEST] for text in texts_read if text.strip()]
    return (Instruction(text=texts[0]),) if texts else ()
