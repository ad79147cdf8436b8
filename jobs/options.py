"""Options that encoding, training, evaluation and serving share: the same word means the same in each, and `--help` says it in the same words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

EPISODE_HELP = "An episode: its uid, the beginning of one, or source/episode_id."
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object.")]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option(help="auto: a GPU where there is one.")
]
RayAddress = Annotated[str | None, typer.Option("--address", help="Join this Ray cluster.")]

SOURCE_HELP = "A name from `eicorpus sources`, or FILE.py:Class of your own."

# Of a trained network.
RunFolder = Annotated[Path, typer.Argument(help="Folder of a run of `eicorpus train`.")]
CheckpointStep = Annotated[
    str | None, typer.Option(metavar="STEP", help="A step, or best. Default: the newest.")
]
UsesAverages = Annotated[bool, typer.Option("--ema", help="The averaged weights.")]
ActionsCache = Annotated[
    Path | None, typer.Option(help="Where derived actions are kept. Default: in the corpus.")
]
VerifiesLatents = Annotated[
    bool, typer.Option("--verify-latents", help="Compare the sha256 of each file once.")
]
SamplingSteps = Annotated[
    int | None,
    typer.Option(min=1, help="Euler steps of an answer. Default: the recipe's sampling_steps."),
]
ComputePrecision = Annotated[
    Literal["auto", "bf16", "fp32"], typer.Option(help="Of compute. auto: as it was trained.")
]
