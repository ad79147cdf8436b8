"""Arguments and options that several commands share: one name and one help text for one meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

CORPUS_ENV = "EICORPUS_CORPUS"
DETECT = "detect"  # SOURCE where none is named

CorpusArgument = Annotated[
    Path, typer.Argument(metavar="CORPUS", envvar=CORPUS_ENV, help="Corpus folder.")
]
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A name from `eicorpus list sources`, or FILE.py:Class. Default: detected from PATH.",
    ),
]
RawPath = Annotated[Path, typer.Argument(metavar="PATH", help="Folder or file of raw data.")]
ManifestName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the manifest.")]

EPISODE_HELP = "An episode: its uid, a unique prefix of its uid, or SOURCE/EPISODE_ID."

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done.")]
Snapshot = Annotated[
    int | None, typer.Option("--snapshot", min=1, help="Snapshot to read. Default: the latest.")
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
    str | None, typer.Option("--address", help="Address of a Ray cluster; `auto` inside one.")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option(help="`auto` uses a GPU if there is one.")
]

# Ingest and doctor.
DatasetName = Annotated[
    str | None,
    typer.Option("--dataset", help="Dataset name; overrides the source's metadata (oxe)."),
]
AdapterOptions = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="Adapter option; repeatable."),
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
CheckpointStep = Annotated[
    str | None,
    typer.Option(metavar="STEP", help="Checkpoint step, or `best`. Default: the latest."),
]
UsesAverages = Annotated[
    bool, typer.Option("--ema", help="Use the exponential moving average of the weights.")
]
ActionsCache = Annotated[
    Path | None, typer.Option(help="Folder for cached actions. Default: in the corpus.")
]
VerifiesLatents = Annotated[
    bool, typer.Option("--verify-latents", help="Check the sha256 of each latent file once.")
]
SamplingSteps = Annotated[
    int | None,
    typer.Option(
        "--sampling-steps", min=1, help="Euler steps per sample. Default: from the recipe."
    ),
]
ComputePrecision = Annotated[
    Literal["auto", "bf16", "fp32"],
    typer.Option(help="Compute precision. `auto` is the precision of training."),
]
