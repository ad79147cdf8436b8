"""The metadata of a TFDS directory: `dataset_info.json` (splits, shards) and `features.json` (the tree of leaves).

Sources (doc/code): tensorflow/datasets:tensorflow_datasets/core/{dataset_info,splits,naming}.py and
core/features/{feature,features_dict,dataset_feature,sequence_feature,tensor_feature,image_feature}.py. Shards are taken
from `shardLengths` and `filepathTemplate`, never from a glob: mirrors hold stale extra files. Feature descriptions are
often untouched template text and are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from schemas.document import DocumentError
from schemas.errors import ConfigError, SourceError
from schemas.invalid import invalid
from schemas.json_text import DOCUMENT, parse_json, read_json

MAX_DEPTH = 50
DEFAULT_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


class Split(BaseModel):
    """One split; proto JSON writes numbers as strings."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    name: str
    shard_lengths: tuple[int, ...] = Field(
        validation_alias=AliasChoices("shardLengths", "shard_lengths")
    )
    template: str = Field(
        default=DEFAULT_TEMPLATE,
        validation_alias=AliasChoices("filepathTemplate", "filepath_template"),
    )


class DatasetInfo(BaseModel):
    """`dataset_info.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    name: str
    version: str
    config: str = Field(default="", validation_alias=AliasChoices("configName", "config_name"))
    file_format: str = Field(
        default="tfrecord", validation_alias=AliasChoices("fileFormat", "file_format")
    )
    splits: tuple[Split, ...] = ()

    def shard_name(self, split: Split, shard: int) -> str:
        """The file name of a shard, relative to the version directory (it comes from data: check it with `inside`)."""
        count = len(split.shard_lengths)
        values = {
            "{DATASET}": self.name,
            "{SPLIT}": split.name,
            "{FILEFORMAT}": self.file_format,
            "{SHARD_X_OF_Y}": f"{shard:05d}-of-{count:05d}",
            "{SHARD_INDEX}": f"{shard:05d}",
            "{NUM_SHARDS}": f"{count:05d}",
        }
        name = split.template
        for token, value in values.items():  # not str.format: the template is somebody else's text
            name = name.replace(token, value)
        return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One leaf of the feature tree.

    `shape` is that of one sample, None for an unknown length. `rank` counts the Sequence and Dataset levels above it:
    1 is a value per step, 2 and more are stored ragged.
    """

    key: str
    kind: str  # tensor | image | text | unknown
    shape: tuple[int | None, ...] = ()
    dtype: str = ""
    encoding: str = "none"  # of a tensor: none | bytes | zlib
    rank: int = 0

    @property
    def is_number(self) -> bool:
        return self.kind == "tensor" and self.dtype not in ("string", "object", "")


def read_info(directory: Path) -> DatasetInfo:
    """Parse `dataset_info.json`. Raises ConfigError: absent, no JSON, or not the layout of TFDS."""
    path = directory / "dataset_info.json"
    try:
        info = DatasetInfo.model_validate(_json(path))
    except ValidationError as error:
        raise ConfigError(
            f"not a TFDS dataset_info with name, version and shardLengths: {invalid(error)}",
            where=str(path),
        ) from error
    if info.file_format != "tfrecord":
        problem = f"fileFormat {info.file_format!r}; only tfrecord is supported"
        raise ConfigError(problem, remedy="convert the dataset first", where=str(path))
    return info


def read_leaves(directory: Path) -> dict[str, Leaf]:
    """The leaves of `features.json` by full key, e.g. `steps/observation/image_0`; names may contain `/`.

    Raises:
        ConfigError: absent, no JSON, or nested deeper than any real set.
    """
    path = directory / "features.json"
    return {leaf.key: leaf for leaf in _leaves(_json(path), "", 0, 0)}


def _json(path: Path) -> Any:
    try:
        return read_json(path, limits=DOCUMENT)
    except SourceError as error:
        raise ConfigError(f"cannot be read: {error.message}", where=str(path)) from error
    except DocumentError as error:
        raise ConfigError(str(error), where=str(path)) from error


def _leaves(node: Any, key: str, rank: int, depth: int) -> Iterator[Leaf]:
    if depth > MAX_DEPTH or not isinstance(node, dict):
        raise ConfigError(f"features.json: node {key!r} is not a feature, or is nested too deeply")
    kind, body = _kind_and_body(node)
    if kind == "featuresDict":
        children = body.get("features", body)
        for name, child in children.items():
            yield from _leaves(child, f"{key}/{name}" if key else name, rank, depth + 1)
    elif kind == "sequence":
        yield from _leaves(body.get("feature"), key, rank + 1, depth + 1)
    else:
        yield _leaf(kind, body, key, rank)


_NEW_KINDS = ("featuresDict", "sequence", "tensor", "image", "text", "classLabel")
_OLD_CLASSES = {
    "FeaturesDict": "featuresDict",
    "Sequence": "sequence",
    "Dataset": "sequence",
    "Tensor": "tensor",
    "Scalar": "tensor",
    "Image": "image",
    "Text": "text",
    "ClassLabel": "classLabel",
}


def _kind_and_body(node: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Both styles: `{"tensor": {...}}`, and the older `{"type": "...Tensor", "content": {...} or its JSON text}`."""
    for kind in _NEW_KINDS:
        if isinstance(node.get(kind), dict):
            return kind, node[kind]
    name = str(node.get("type") or node.get("pythonClassName") or "").rsplit(".", 1)[-1]
    content = node.get("content")
    if isinstance(content, str):
        try:
            content = parse_json(content) if content.strip() else {}
        except DocumentError as error:
            raise ConfigError(f"features.json: content of a {name}: {error}") from error
    return _OLD_CLASSES.get(name, "unknown"), content if isinstance(content, dict) else {}


def _leaf(kind: str, body: dict[str, Any], key: str, rank: int) -> Leaf:
    if kind == "classLabel":
        return Leaf(key=key, kind="tensor", dtype="int64", rank=rank)
    if kind == "text":
        return Leaf(key=key, kind="text", dtype="string", rank=rank)
    if kind not in ("tensor", "image"):
        return Leaf(key=key, kind="unknown", rank=rank)
    default = "uint8" if kind == "image" else ""
    dtype = str(body.get("dtype") or default).removeprefix("tf.")
    encoding = str(body.get("encoding") or "none").rsplit(".", 1)[-1].lower()
    return Leaf(
        key=key,
        kind=kind,
        shape=_shape(body.get("shape"), key),
        dtype=dtype,
        encoding=encoding if kind == "tensor" else "none",
        rank=rank,
    )


def _shape(raw: Any, key: str) -> tuple[int | None, ...]:
    dimensions = raw.get("dimensions", ()) if isinstance(raw, dict) else (raw or ())
    try:
        sizes = [None if d is None else int(d) for d in dimensions]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"features.json: {key} has shape {raw!r}") from error
    return tuple(None if d is None or d < 0 else d for d in sizes)
