"""`eicorpus latents CORPUS --encoder NAME`: tokens of every picture on the grid, for episodes that do not have them yet.

The options only: what is done is in `jobs/encode_images.py`, and with `--vlm`, for features of instructions, in `jobs/encode_text.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ingest.corpus.layout import open_corpus
from ingest.models.encoder import EncoderChoice
from ingest.models.encoder_weights import WeightSource
from ingest.models.encoders import EncoderSpec, encoder_spec
from jobs import encode_images, encode_text
from jobs.encode_images import PicturesRequest
from jobs.encode_text import VlmRequest
from jobs.latents_list import show_list
from jobs.options import AsJson, Device, RayAddress
from schemas.errors import ConfigError

WeightsFolder = Annotated[
    Path | None, typer.Option(help="Folder of the downloaded model (safetensors).")
]
HubId = Annotated[str | None, typer.Option(help="OWNER/NAME on the hub instead.")]
Seed = Annotated[
    int | None, typer.Option(min=0, metavar="SEED", help="Weights nobody trained: for tests.")
]
StoredAs = Annotated[Literal["bf16", "fp8", "int8"], typer.Option(help="How tokens are stored.")]
KeepsPrefix = Annotated[
    bool, typer.Option("--keep-prefix", help="CLS and registers before the patches.")
]
FitOption = Annotated[
    Literal["letterbox", "stretch", "crop"], typer.Option(help="How a picture becomes square.")
]
Cameras = Annotated[
    list[str] | None, typer.Option(help="Only this camera; repeatable. Else every camera.")
]
Compiles = Annotated[
    bool, typer.Option("--compile", help="torch.compile; takes a minute to begin.")
]
Workers = Annotated[int | None, typer.Option(min=0, help="Decode processes; 0 works inline.")]
GpuShare = Annotated[
    float, typer.Option(min=0.01, max=1.0, help="With --ray: share of a GPU for each encoder.")
]
VlmFolder = Annotated[
    Path | None, typer.Option(help="Features of instructions instead: folder of a Qwen3-VL.")
]
VlmPictures = Annotated[
    str, typer.Option(metavar="SECONDS|none", help="It is shown a picture every so often.")
]

# What only one of the two kinds of encoding hears.
OF_PICTURES = ("encoder", "weights", "hub_id", "untrained", "dtype", "stride", "keep_prefix", "fit",
               "compile_", "workers", "ray", "address", "num_gpus")  # fmt: skip
OF_TEXT = ("vlm_layer", "vlm_pictures", "vlm_prompt")


def command(
    context: typer.Context,
    corpus: Annotated[Path | None, typer.Argument(help="The corpus.")] = None,
    encoder: Annotated[str, typer.Option(help="A name from --list.")] = "dinov3_vits16",
    weights: WeightsFolder = None,
    hub_id: HubId = None,
    untrained: Seed = None,
    dtype: StoredAs = "bf16",
    stride: Annotated[int, typer.Option(min=1, help="Timesteps from picture to picture.")] = 3,
    keep_prefix: KeepsPrefix = False,
    fit: FitOption = "letterbox",
    camera: Cameras = None,
    where: Annotated[str, typer.Option(help="SQL expression over `episodes`.")] = "",
    device: Device = "auto",
    batch: Annotated[int, typer.Option(min=0, help="Pictures at once; 0: by the device.")] = 0,
    compile_: Compiles = False,
    workers: Workers = None,
    ray: Annotated[bool, typer.Option("--ray", help="Run on Ray instead.")] = False,
    address: RayAddress = None,
    num_gpus: GpuShare = 1.0,
    vlm: VlmFolder = None,
    vlm_layer: Annotated[int, typer.Option(help="Of its hidden states; -1 the last.")] = -1,
    vlm_pictures: VlmPictures = "none",
    vlm_prompt: Annotated[str, typer.Option(help="What it is told.")] = "Instruction: {text}",
    list_: Annotated[bool, typer.Option("--list", help="Every encoder and its licence.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="The plan only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Encode what has no latents of this encoder yet. Stop it at any time; run it again to go on."""
    if list_ or corpus is None:
        show_list(as_json=as_json)
        return
    is_on_ray = ray or address is not None
    _refuse_unheard(context, is_of_text=vlm is not None, is_on_ray=is_on_ray)
    opened, cameras = open_corpus(corpus), tuple(camera or ())
    if vlm is not None:
        asked = VlmRequest(
            folder=vlm,
            layer=vlm_layer,
            pictures=vlm_pictures,
            prompt=vlm_prompt,
            cameras=cameras,
            where=where,
            device=device,
            batch=batch,
        )
        encode_text.encode(opened, asked, dry_run=dry_run, as_json=as_json)
        return
    choice = EncoderChoice(
        model=encoder,
        source=_source(encoder_spec(encoder), weights, hub_id, untrained),
        fit=fit,
        storage=dtype,
        grid_stride=stride,
        keeps_prefix=keep_prefix,
        device=device,
        batch=batch,
        is_compiled=compile_,
        gpu_share=num_gpus,
    )
    request = PicturesRequest(
        choice=choice,
        cameras=cameras,
        where=where,
        workers=workers,
        is_on_ray=is_on_ray,
        address=address,
    )
    encode_images.encode(opened, request, dry_run=dry_run, as_json=as_json)


def _refuse_unheard(context: typer.Context, *, is_of_text: bool, is_on_ray: bool) -> None:
    """Raises ConfigError: an option was given that would change nothing."""
    if is_of_text:
        unheard = dict.fromkeys(OF_PICTURES, "with --vlm")
    else:
        unheard = dict.fromkeys(OF_TEXT, "without --vlm FOLDER")
        unheard |= {} if is_on_ray else {"num_gpus": "without --ray"}
    for name, when in unheard.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = f"--{name.strip('_').replace('_', '-')}"
            raise ConfigError(f"says nothing {when}; leave it out", where=option)


def _source(
    spec: EncoderSpec, weights: Path | None, hub_id: str | None, untrained: int | None
) -> WeightSource:
    """Where the weights come from; exactly one is given."""
    if weights is None and hub_id is None and untrained is None and spec.has_weights:
        known = f"--weights FOLDER, --hub-id {spec.hub_id}, or " if spec.hub_id else ""
        found = f"no weights given; give {known}--untrained SEED (nobody trained those)"
        raise ConfigError(found, where=f"--encoder {spec.name}")
    folder = "" if weights is None else str(weights.absolute())
    return WeightSource(folder=folder, hub_id=hub_id or "", untrained_seed=untrained)
