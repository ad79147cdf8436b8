"""`eicorpus latents images | text`: encode what training reads. The options only: the work is in `jobs/stages/latents_images.py` and
`jobs/stages/latents_text.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.models.encoder import EncoderChoice
from ingest.models.encoders import encoder_spec
from jobs.commands.train import check_installed
from jobs.ui.options import (
    AsJson,
    CheckpointStep,
    CorpusWithFiles,
    Device,
    DryRun,
    HubId,
    OnRay,
    RayAddress,
    WeightsFolder,
    step_from,
)
from jobs.ui.output import exit_1
from schemas.errors import ConfigError
from schemas.latent_pack import PACK_BYTES

app = typer.Typer(no_args_is_help=True, help="Encode images or instructions for training.")

Where = Annotated[
    str,
    typer.Option(metavar="SQL", help="Encode only episodes for which this SQL expression holds."),
]
Cameras = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Encode only this camera. Repeatable. Default: every camera."
    ),
]


@app.command("images")
def images(
    corpus: CorpusWithFiles,
    encoder: Annotated[
        str, typer.Option(metavar="NAME", help="Image encoder, from `eicorpus list encoders`.")
    ] = "dinov3_vits16",
    weights: WeightsFolder = None,
    hub_id: HubId = None,
    untrained: Annotated[
        int | None,
        typer.Option(min=0, metavar="SEED", help="Random weights from this seed (tests only)."),
    ] = None,
    dtype: Annotated[
        Literal["bf16", "fp8", "int8"], typer.Option(help="Number format of stored tokens.")
    ] = "bf16",
    stride: Annotated[
        int, typer.Option(min=1, help="Encode one image every N timesteps (10 per second).")
    ] = 3,
    keep_prefix: Annotated[
        bool, typer.Option("--keep-prefix", help="Also store the CLS and register tokens.")
    ] = False,
    fit: Annotated[
        Literal["letterbox", "stretch", "crop"], typer.Option(help="How images are made square.")
    ] = "letterbox",
    pack_mb: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="MB",
            help="Least size of the packs that hold the tokens of many episodes. 0 writes one file per episode and camera.",
        ),
    ] = PACK_BYTES // 1_000_000,
    camera: Cameras = None,
    where: Where = "",
    device: Device = "auto",
    batch: Annotated[
        int, typer.Option(min=0, help="Images per batch. 0 chooses by the device.")
    ] = 0,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Use torch.compile (about a minute at the start).")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Decoder processes. 0 uses this process. Default: one per core for a GPU, else 1.",
        ),
    ] = None,
    ray: OnRay = False,
    address: RayAddress = None,
    gpus_per_encoder: Annotated[
        float | None,
        typer.Option(min=0.01, max=1.0, help="With --ray: share of a GPU per encoder. Default: 1."),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Encode video frames to image tokens. Run it again to resume."""
    from jobs.stages.latents_images import (
        ImagesRequest,
        plan_images,
        run_images,
    )
    from jobs.stages.request_checks import weight_source
    from jobs.ui.latents_plan import LatentsPlan, show_plan
    from jobs.ui.latents_report import show_report

    is_on_ray = ray or address is not None
    if gpus_per_encoder is not None and not is_on_ray:
        raise ConfigError(
            "has no effect without --ray", remedy="remove it", where="--gpus-per-encoder"
        )
    choice = EncoderChoice(
        model=encoder,
        source=weight_source(encoder_spec(encoder), weights, hub_id, untrained),
        fit=fit,
        storage=dtype,
        grid_stride=stride,
        keeps_prefix=keep_prefix,
        device=device,
        batch=batch,
        is_compiled=compile_,
        gpu_share=1.0 if gpus_per_encoder is None else gpus_per_encoder,
    )
    request = ImagesRequest(
        choice=choice,
        cameras=tuple(camera or ()),
        where=where,
        workers=workers,
        is_on_ray=is_on_ray,
        address=address,
        pack_bytes=pack_mb * 1_000_000,
    )
    opened = open_corpus(corpus)
    if dry_run:
        show_plan(plan_images(opened, request), as_json=as_json, is_all=True)
        return

    def tell(plan: LatentsPlan) -> None:
        if not as_json:
            show_plan(plan, as_json=False)

    done = run_images(opened, request, on_plan=tell)
    show_report(done.plan, done.tally, done.snapshot, done.elapsed_s, done.failure, as_json=as_json)
    if done.failure:
        exit_1(done.failure)


@app.command("actions")
def actions(
    corpus: CorpusWithFiles,
    lam: Annotated[
        Path,
        typer.Option(metavar="RUN", help="Training run with a latent action model (recipe lam)."),
    ],
    checkpoint: CheckpointStep = None,
    where: Where = "",
    device: Device = "auto",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write the latent actions of every episode, from the image latents that it has. Run it again to resume."""
    check_installed()
    from jobs.stages.latents_actions import action_encoder, plan_actions, run_actions
    from jobs.ui.latents_report import show_actions
    from training.run.checkpoint import checkpoint_of

    opened = open_corpus(corpus)
    encoder = action_encoder(checkpoint_of(lam, step_from(checkpoint)), device)
    if dry_run:
        plan = plan_actions(opened, snapshot.load(opened.root), encoder, where)
        show_actions(plan.as_json(), as_json=as_json)
        return
    done = run_actions(opened, encoder, where=where)
    show_actions(done.as_json(), as_json=as_json, failure=done.failure)
    if done.failure:
        exit_1(done.failure)


@app.command("text")
def text(
    corpus: CorpusWithFiles,
    vlm: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of a Qwen3-VL model.")],
    vlm_layer: Annotated[
        int, typer.Option(help="Layer whose hidden states are stored. -1 is the last.")
    ] = -1,
    vlm_frame_every_s: Annotated[
        float | None,
        typer.Option(
            "--vlm-frame-every-s",
            metavar="SECONDS",
            help="Show the VLM one frame every N seconds. Default: text only.",
        ),
    ] = None,
    vlm_prompt: Annotated[
        str, typer.Option(metavar="TEXT", help="Prompt. {text} is the instruction.")
    ] = "Instruction: {text}",
    camera: Annotated[
        str | None,
        typer.Option(metavar="GLOB", help="Camera of the frames. Default: the first one."),
    ] = None,
    where: Where = "",
    device: Device = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Prompts per batch.")] = 8,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Encode instructions with a frozen vision-language model, for training with the recipe key `text.kind: cached`. Run it again to resume."""
    from jobs.stages.latents_text import VlmRequest, open_text, run_text
    from jobs.ui.latents_report import print_plan, report

    request = VlmRequest(
        folder=vlm,
        layer=vlm_layer,
        frame_every_s=vlm_frame_every_s,
        prompt=vlm_prompt,
        camera=camera or "*",
        where=where,
        device=device,
        batch=batch,
    )
    layout = open_corpus(corpus)
    opened = open_text(request)
    if dry_run:
        _, page = opened.plan(layout, snapshot.load(layout.root))
        print_plan(page, as_json=as_json, is_all=True)
        return

    def tell(page: dict[str, Any]) -> None:
        if not as_json:
            print_plan(page, as_json=False)

    done = run_text(layout, opened, on_plan=tell)
    report(
        done.tally,
        done.encoder,
        done.snapshot,
        done.elapsed_s,
        done.page,
        done.failure,
        as_json=as_json,
    )
    if done.failure:
        exit_1(done.failure)
