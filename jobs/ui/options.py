"""Arguments and options that several commands share: one name and one help text for each meaning. A corpus may be named by a URI."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from schemas.errors import ConfigError
from schemas.paths import check_local

if TYPE_CHECKING:
    from ingest.pipeline.assets import Assets

CORPUS_ENV = "EICORPUS_CORPUS"
LINK_FILE = ".remote.json"  # `ingest.corpus.layout.LINK`, without its imports: of a working copy
CACHE_ENV = "EICORPUS_CACHE"
DETECT = "detect"  # SOURCE where none is named


class BucketUse(StrEnum):
    """What a command needs of a corpus in a bucket. A parameter without one of these takes local paths only."""

    CATALOG = "catalog"  # SQL over episodes, without their files
    FILES = "files"  # all files of all episodes, and manifests
    CREATES = "creates"  # it may not be there yet
    BUILDS = "builds"  # as CATALOG; it may not be there yet
    MANIFEST = (
        "manifest"  # the path of a manifest in it, and all files but videos and latents of images
    )


_CORPUS_HELP = (
    "Corpus folder, or its URI (s3://, gs://, az://). May be left out when EICORPUS_CORPUS is set."
)
CorpusArgument = Annotated[
    Path,
    typer.Argument(metavar="CORPUS", envvar=CORPUS_ENV, help=_CORPUS_HELP),
    BucketUse.CATALOG,
]
CorpusWithFiles = Annotated[
    Path,
    typer.Argument(metavar="CORPUS", envvar=CORPUS_ENV, help=_CORPUS_HELP),
    BucketUse.FILES,
]
SpecArgument = Annotated[
    Path,
    typer.Argument(metavar="SPEC", help="Corpus spec: a YAML file, as `eicorpus init` writes."),
]
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A name from `eicorpus list sources`, or FILE.py:Class. Default: detected from PATH.",
    ),
]
RawPath = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="Folder or file of raw data, or its URI: s3://, gs://, az:// or hf://datasets/OWNER/NAME.",
    ),
]
CacheFolder = Annotated[
    Path,
    typer.Option(
        "--cache-dir",
        envvar=CACHE_ENV,
        help="Folder on a local disk for raw data that is read by URI.",
    ),
]
CacheSize = Annotated[
    float,
    typer.Option("--cache-gb", min=0.001, help="Size of the cache of objects of buckets, in GB."),
]
CACHE_FOLDER = Path("~/.cache/eicorpus")
CACHE_GB = 100.0
ManifestName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the manifest.")]

EPISODE_HELP = "An episode: its uid, a unique prefix of its uid, or SOURCE/EPISODE_ID."

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done.")]
STATE_NUMBER = object()  # marks a parameter whose snapshot a working copy must have
Snapshot = Annotated[
    int | None,
    typer.Option("--snapshot", min=1, help="Snapshot to read. Default: the latest."),
    STATE_NUMBER,
]
PolicyName = Annotated[
    str | None,
    typer.Option("--policy", help="Quality policy: a name or a YAML file. Default: the last used."),
]

# Where work runs.
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Worker processes. 0 uses this process, without time and memory limits. Default: one per core.",
    ),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads that read files. Default: one per core.")
]
OnRay = Annotated[bool, typer.Option("--ray", help="Run on Ray.")]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="With --ray: address of a running Ray cluster, or `auto` on one of its nodes.",
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option(help="`auto` uses a GPU if there is one.")
]

# Ingest and doctor.
DatasetName = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Dataset within the source (only oxe): overrides the name in its metadata.",
    ),
]
AdapterOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        help="Option of the adapter, repeatable. The source's page in docs/reference/sources lists them.",
    ),
]
IngestConfig = Annotated[
    Path | None, typer.Option("--config", help="YAML file with recipe settings to change.")
]

# Pretrained models.
WeightsFolder = Annotated[
    Path | None, typer.Option("--weights", help="Folder with the encoder's safetensors files.")
]
HubId = Annotated[
    str | None, typer.Option("--hub-id", help="Encoder on the Hugging Face Hub: OWNER/NAME.")
]

# Trained policies.
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="Run directory of `eicorpus train`.")
]
OtherManifest = Annotated[
    Path | None,
    typer.Option(
        metavar="MANIFEST", help="Manifest folder. Default: the one the run was trained on."
    ),
]
AllowsOtherManifest = Annotated[
    bool,
    typer.Option("--allow-other-manifest", help="Allow a manifest other than the training one."),
]
CheckpointStep = Annotated[
    str | None,
    typer.Option(
        metavar="STEP",
        help="Checkpoint step, or `best`: the one with the lowest validation loss. Default: the latest.",
    ),
]
UsesAverages = Annotated[
    bool, typer.Option("--ema", help="Use the exponential moving average of the weights.")
]
ActionsCache = Annotated[
    Path | None, typer.Option(help="Folder for cached actions. Default: in the corpus.")
]
VerifiesLatents = Annotated[
    bool,
    typer.Option(
        "--verify-latents", help="Check the sha256 of each latent file when it is first read."
    ),
]
SamplingSteps = Annotated[
    int | None,
    typer.Option(
        "--sampling-steps", min=1, help="Euler steps per sample. Default: from the recipe."
    ),
]
NumChunks = Annotated[
    int,
    typer.Option(
        "--plan",
        min=1,
        max=1024,
        metavar="N",
        help="Sample N chunks, predict the future image of each, and carry out the one with the highest value (`train-value`). 1 does not plan.",
    ),
]
ComputePrecision = Annotated[
    Literal["auto", "bf16", "fp32"],
    typer.Option(help="Compute precision. `auto` is the precision of training."),
]


HAND_LANDMARKER_ENV = "EICORPUS_HAND_LANDMARKER"
MANO_ENV = "EICORPUS_MANO_DIR"
ManoDir = Annotated[
    Path | None,
    typer.Option(
        "--mano-dir", envvar=MANO_ENV, help="Folder with MANO_LEFT.pkl and MANO_RIGHT.pkl."
    ),
]
ManoDevice = Annotated[
    str, typer.Option("--mano-device", help="Device of the hand model: cpu or cuda.")
]
UrdfFile = Annotated[
    Path | None,
    typer.Option("--urdf", help="Robot URDF. Computes poses of sources that store only joints."),
]
CameraPoses = Annotated[
    Path | None,
    typer.Option("--camera-poses", help="Folder with camera poses of ViPE, MegaSAM or HaWoR."),
]


def assets_from(
    mano_dir: Path | None, mano_device: str, urdf: Path | None, camera_poses: Path | None
) -> Assets:
    """The assets named on the command line, as absolute paths.

    Raises:
        ConfigError: one of them is not there.
    """
    from ingest.pipeline.assets import Assets  # with the pipeline; `--help` reads these options too

    for path, what in (
        (mano_dir, "--mano-dir"),
        (urdf, "--urdf"),
        (camera_poses, "--camera-poses"),
    ):
        if path is not None and not path.exists():
            raise ConfigError(
                f"{what}: no such file or folder", remedy="correct the path", where=str(path)
            )
    return Assets(
        mano_dir=None if mano_dir is None else str(mano_dir.absolute()),
        mano_device=mano_device,
        urdf=None if urdf is None else str(urdf.absolute()),
        camera_poses=None if camera_poses is None else str(camera_poses.absolute()),
    )


def step_from(text: str | None) -> int | Literal["best"] | None:
    """
    Raises:
        ConfigError: neither a step nor "best".
    """
    if text is None:
        return None
    if text == "best":
        return "best"
    if not text.isdecimal():
        raise ConfigError(f"{text!r}; expected a step or `best`", where="--checkpoint")
    return int(text)


def with_places(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same command, which gets local paths only.

    The URI of a corpus becomes the folder of its working copy where the parameter says what it needs of it (`BucketUse`). Any other URI is
    refused before anything is done: `--out ftp://host/c` would otherwise make a local folder of the name `ftp:`.
    """

    @wraps(command)
    def placed(*args: Any, **options: Any) -> Any:
        for name, value in options.items():
            if isinstance(value, Path) and (":/" in str(value) or (value / LINK_FILE).exists()):
                options[name] = _working_copy(command, name, value, options)
            for path in _paths(options[name]):
                check_local(path, f"--{name.replace('_', '-')}")
        return command(*args, **options)

    return placed


def _working_copy(
    command: Callable[..., Any], name: str, value: Path, options: Mapping[str, Any]
) -> Path:
    """The folder of the working copy where `value` is the URI of a bucket, or that folder, and the command takes one; else `value`."""
    from ingest.storage.store_uri import OBJECT_SCHEMES, scheme_of  # not for `--help`

    is_uri = scheme_of(str(value)) in OBJECT_SCHEMES
    if not is_uri and scheme_of(str(value)):
        return value
    hints = get_type_hints(command, include_extras=True)
    uses = [each for each in _marks(hints[name]) if isinstance(each, BucketUse)]
    if not uses:
        return value
    from jobs.stages.bucket_corpus import (
        opened,
        opened_folder,
    )  # obstore, which local corpora do not need

    states = [
        number
        for each, number in options.items()
        if number and each in hints and STATE_NUMBER in _marks(hints[each])
    ]
    if not is_uri:
        return opened_folder(value, uses[0], states)
    return opened(uri_of(value), uses[0], cache_folder(options.get("cache_dir")), states)


def _marks(hint: Any) -> Sequence[Any]:
    return getattr(hint, "__metadata__", ())


def uri_of(path: Path | str) -> str:
    """A URI as it was typed: `Path` writes one slash of two, and schemes are of any case."""
    scheme, _, rest = str(path).partition(":")
    return f"{scheme.lower()}://{rest.lstrip('/')}"


def cache_folder(named: Path | None = None) -> Path:
    """The cache of this machine: the one that an option names, of the environment, or the default."""
    return (named or Path(os.environ.get(CACHE_ENV) or CACHE_FOLDER)).expanduser()


def _paths(value: Any) -> Iterable[Path]:
    if isinstance(value, Path):
        return (value,)
    return [v for v in value if isinstance(v, Path)] if isinstance(value, list | tuple) else ()
