"""The Python interface: `from eicorpus import Corpus`. Importing this module imports nothing else; each name is imported on first use.

    Corpus      one snapshot of a corpus: its episodes, tables and manifests
    Manifest    what a training run reads: segments, splits, weights, statistics; ManifestDataset: its samples (extra `train`)
    Policy      a trained network that predicts actions, from an Observation; encoder_for: its image encoder (extra `train`)
    Adapter     the protocol that a source of your own implements, with what docs/how-to/add-a-source.md uses
    Measure     a measurement of your own

An installation has it as the top-level module `eicorpus` (pyproject.toml, `py-modules`). The packages behind it have names that other
distributions use too, so programs import this module and not those packages.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.base import Adapter, SourceInfo
    from adapters.containers.array_files import csv_columns, npy_array
    from adapters.containers.hdf5 import Hdf5File
    from adapters.containers.json_rows import Broken, JsonRow, parse
    from adapters.containers.listing import natural_key
    from adapters.containers.poses import poses_of_rows
    from adapters.containers.raw_file import raw_file_of
    from adapters.containers.safe_path import inside
    from adapters.containers.sidecar import Sidecar, json_object, read_sidecar
    from adapters.containers.video_probe import count_frames
    from ingest.curation.measurements.registry import Measure, OutputField
    from ingest.curation.measurements.view import EpisodeView
    from jobs.commands.policy_encoder import encoder_for
    from jobs.python_api.corpus import Corpus
    from schemas.episode import (
        Camera,
        Episode,
        EpisodeRef,
        Instruction,
        Licence,
        Stream,
        Unit,
        VideoSpan,
        VideoWindow,
        gripper_channel,
        pose_channel,
        vector_channel,
    )
    from schemas.errors import Code, ConfigError, SourceError
    from schemas.fact import Certainty, Fact, fact
    from schemas.geometry import (
        inverse,
        rotmat_from_euler,
        rotmat_from_quat_wxyz,
        rotmat_from_quat_xyzw,
        transform,
    )
    from schemas.hand_track import HandTrack
    from schemas.manifest import Manifest
    from schemas.measurement import Measurement
    from schemas.rate import instants_ns, ns_from_seconds, rate_from
    from schemas.regular_file import read_regular
    from training.data.dataset import ManifestDataset
    from training.policy.observation import Observation
    from training.policy.policy import Policy
    from training.recipe import DataSettings

    __version__: str

__all__ = [
    "Adapter",
    "Broken",
    "Camera",
    "Certainty",
    "Code",
    "ConfigError",
    "Corpus",
    "DataSettings",
    "Episode",
    "EpisodeRef",
    "EpisodeView",
    "Fact",
    "HandTrack",
    "Hdf5File",
    "Instruction",
    "JsonRow",
    "Licence",
    "Manifest",
    "ManifestDataset",
    "Measure",
    "Measurement",
    "Observation",
    "OutputField",
    "Policy",
    "Sidecar",
    "SourceError",
    "SourceInfo",
    "Stream",
    "Unit",
    "VideoSpan",
    "VideoWindow",
    "__version__",
    "count_frames",
    "csv_columns",
    "encoder_for",
    "fact",
    "gripper_channel",
    "inside",
    "instants_ns",
    "inverse",
    "json_object",
    "natural_key",
    "npy_array",
    "ns_from_seconds",
    "parse",
    "pose_channel",
    "poses_of_rows",
    "rate_from",
    "raw_file_of",
    "read_regular",
    "read_sidecar",
    "rotmat_from_euler",
    "rotmat_from_quat_wxyz",
    "rotmat_from_quat_xyzw",
    "transform",
    "vector_channel",
]

_NAMES = {
    "adapters.base": ("Adapter", "SourceInfo"),
    "adapters.containers.hdf5": ("Hdf5File",),
    "adapters.containers.json_rows": ("Broken", "JsonRow", "parse"),
    "adapters.containers.array_files": ("csv_columns", "npy_array"),
    "adapters.containers.listing": ("natural_key",),
    "adapters.containers.poses": ("poses_of_rows",),
    "adapters.containers.raw_file": ("raw_file_of",),
    "adapters.containers.safe_path": ("inside",),
    "adapters.containers.sidecar": ("Sidecar", "json_object", "read_sidecar"),
    "adapters.containers.video_probe": ("count_frames",),
    "ingest.curation.measurements.registry": ("Measure", "OutputField"),
    "ingest.curation.measurements.view": ("EpisodeView",),
    "jobs.commands.policy_encoder": ("encoder_for",),
    "jobs.python_api.corpus": ("Corpus",),
    "schemas.episode": (
        "Camera",
        "Episode",
        "EpisodeRef",
        "Instruction",
        "Licence",
        "Stream",
        "Unit",
        "VideoSpan",
        "VideoWindow",
        "gripper_channel",
        "pose_channel",
        "vector_channel",
    ),
    "schemas.errors": ("Code", "ConfigError", "SourceError"),
    "schemas.fact": ("Certainty", "Fact", "fact"),
    "schemas.geometry": (
        "inverse",
        "rotmat_from_euler",
        "rotmat_from_quat_wxyz",
        "rotmat_from_quat_xyzw",
        "transform",
    ),
    "schemas.hand_track": ("HandTrack",),
    "schemas.manifest": ("Manifest",),
    "schemas.measurement": ("Measurement",),
    "schemas.rate": ("instants_ns", "ns_from_seconds", "rate_from"),
    "schemas.regular_file": ("read_regular",),
    "training.data.dataset": ("ManifestDataset",),
    "training.policy.observation": ("Observation",),
    "training.policy.policy": ("Policy",),
    "training.recipe": ("DataSettings",),
}
_PLACES = {name: (module, name) for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """The name itself, imported (PEP 562).

    Raises:
        ImportError: its extra is not installed.
    """
    if name == "__version__":
        return version("eicorpus")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(f"{name} needs torch; run pip install 'eicorpus[train]'") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def main() -> None:
    """The command `eicorpus`. It starts here, because a package of another distribution may hide `jobs` itself."""
    here = Path(__file__).parent
    root = here.parents[1] if here.name == "facade" else here  # of a checkout, or of site-packages
    spec = spec_from_file_location("own_packages", root / "jobs" / "own_packages.py")
    assert spec is not None
    assert spec.loader is not None
    own_packages = module_from_spec(spec)
    spec.loader.exec_module(own_packages)  # by its path: `import jobs` may find another
    if foreign := own_packages.foreign_packages():
        sys.stderr.write(f"eicorpus {version('eicorpus')}: {foreign}\n")
        sys.exit(2)
    import_module("jobs.cli").main()
