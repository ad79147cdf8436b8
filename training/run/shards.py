"""Tensors of a checkpoint that every rank writes its own part of, and that any number of ranks reads.

`torch.distributed.checkpoint` (DCP) plans and writes it, in its safetensors format: each file says of each of its tensors where in the whole
it lies. There is no index file, and so no pickle. The number in a file's name says which tensors lie together: `shard-RANK-model-NUMBER-of-...`.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystem
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from schemas.errors import ConfigError, system_error_text

_NAME = re.compile(r"shard-\d{5,}-model-(\d{5,})-of-\d{5,}\.safetensors")


def number_of(file: str) -> int | None:
    """Which tensors a file of this name has a part of; None for a file that is none of these."""
    match = _NAME.fullmatch(file)
    return int(match[1]) if match else None


class _Writer(HuggingFaceStorageWriter):
    """`begin` and `publish` are called by one rank: before any of them writes, and after all of them have written."""

    def __init__(
        self,
        folder: Path,
        numbers: dict[str, int],
        begin: Callable[[], object],
        publish: Callable[[], object],
    ) -> None:
        super().__init__(str(folder), numbers, save_distributed=True)
        self._begin, self._publish = begin, publish

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan  # the folder is made by one rank

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        self._begin()
        planned: list[SavePlan] = super().prepare_global_plan(plans)
        return planned

    def finish(self, metadata: Metadata, results: list[list[Any]]) -> None:
        self._publish()


def begin_write(
    folder: Path,
    tensors: Mapping[int, Mapping[str, Tensor]],
    *,
    group: dist.ProcessGroup,
    begin: Callable[[], object],
    publish: Callable[[], object],
) -> Future[Any]:
    """Copy what this rank has to the CPU and begin to write it into `folder`. Every rank must call this; `written` waits.

    Args:
        tensors: by number, then by name. What no rank has a piece of by itself is written by one of them.
        group: of all ranks, on the CPU, for this alone: a thread speaks over it.
    """
    named = {
        _key(number, name): x.detach() for number, of in tensors.items() for name, x in of.items()
    }
    numbers = {_key(number, name): number for number, of in tensors.items() for name in of}
    writer = _Writer(folder, numbers, begin, publish)
    future = async_save(named, storage_writer=writer, process_group=group)
    assert isinstance(future, Future)  # no stager of its own was asked for
    return future


def written(future: Future[Any]) -> None:
    """Wait for it.

    Raises:
        OSError: on every rank, where one could not write.
    """
    try:
        future.result()
    except CheckpointException as error:
        causes = (
            f"rank {rank}: {type(cause).__name__}: {cause}"
            for rank, (cause, _) in error.failures.items()
        )
        raise OSError("; ".join(causes)) from error
    except (SafetensorError, RuntimeError) as error:  # a rank that died closes its connection
        raise OSError(f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shards:
    """The files of one checkpoint. `shapes`: of whole tensors, by number and name."""

    folder: Path
    shapes: dict[int, dict[str, tuple[torch.Size, torch.dtype]]]
    _files: tuple[str, ...]

    def load(self, targets: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Fill tensors that are there, or the pieces of them that are here. No rank speaks to another.

        Raises:
            ConfigError: a file cannot be read.
        """
        named = {
            _key(number, name): x.detach()
            for number, of in targets.items()
            for name, x in of.items()
        }
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="torch.distributed is disabled")
                load(named, storage_reader=_reader(self.folder, self._files), no_dist=True)
        except (*_BROKEN, CheckpointException) as error:
            raise _broken(self.folder, error) from error

    def whole(self, number: int) -> dict[str, Tensor]:
        """All tensors of a number, in memory.

        Raises:
            ConfigError: a file cannot be read.
        """
        shapes = self.shapes.get(number, {})
        try:
            tensors = {name: torch.empty(shape, dtype=of) for name, (shape, of) in shapes.items()}
        except RuntimeError as error:  # without a number, and of a size that no tensor has
            raise _broken(self.folder, error) from error
        self.load({number: tensors})
        return tensors


def open_shards(folder: Path, files: Iterable[str]) -> Shards:
    """
    Args:
        files: names of those that belong to it; what else lies there is not opened.

    Raises:
        ConfigError: one cannot be read, or a tensor is not all there.
    """
    listed = tuple(sorted(files))
    shapes: dict[int, dict[str, tuple[torch.Size, torch.dtype]]] = {}
    try:
        stored = _reader(folder, listed).read_metadata().state_dict_metadata
        for key, tensor in stored.items():
            number, _, name = key.partition("/")
            assert isinstance(tensor, TensorStorageMetadata)
            if not _is_covered(tensor):
                raise ValueError(f"tensor {name} is not all there")
            shape = torch.Size(tensor.size), tensor.properties.dtype
            shapes.setdefault(int(number), {})[name] = shape
    except _BROKEN as error:
        raise _broken(folder, error) from error
    return Shards(folder=folder, shapes=shapes, _files=listed)


# What DCP and safetensors say of files that are not what was written.
_BROKEN = (
    OSError,
    SafetensorError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    AssertionError,
    RuntimeError,
)


def _broken(folder: Path, error: BaseException) -> ConfigError:
    cause: BaseException = error
    if isinstance(error, CheckpointException):
        cause = next(iter(error.failures.values()))[0]
    why = system_error_text(cause) if isinstance(cause, OSError) else str(cause)
    return ConfigError(
        f"cannot be read ({why})",
        remedy="remove this checkpoint to use the one before it",
        where=str(folder),
    )


def _is_covered(tensor: TensorStorageMetadata) -> bool:
    """Whether its pieces are all of it, as ranks write it: rows, each once. A stranger's pieces may overlap and leave memory as it was between them."""
    size = tuple(tensor.size)
    if not math.prod(size):
        return True
    pieces = sorted((tuple(piece.offsets), tuple(piece.sizes)) for piece in tensor.chunks)
    pieces = [(at, sizes) for at, sizes in pieces if math.prod(sizes)]
    if len(pieces) == 1:
        return pieces[0] == ((0,) * len(size), size)
    if not size:
        return False
    end = 0
    for (first, *rest), (num, *others) in pieces:
        if first != end or any(rest) or tuple(others) != size[1:]:
            return False
        end += num
    return end == size[0]


def _key(number: int, name: str) -> str:
    return f"{number}/{name}"


class _Listed(FileSystem):
    """Of a folder, the files that are named."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = files

    def ls(self, path: str | os.PathLike[str]) -> list[str]:
        return [str(Path(path) / name) for name in self._files]


def _reader(folder: Path, files: Sequence[str]) -> HuggingFaceStorageReader:
    reader = HuggingFaceStorageReader(str(folder))
    reader.fs = _Listed(files)
    return reader
