"""`eicorpus latents CORPUS --encoder NAME`: tokens of every picture on the grid, for episodes that do not have them yet.

With `--vlm` the features of instructions instead: `jobs/latents_vlm.py`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from ingest import snapshot
from ingest.corpus import Corpus, open_corpus, writer_lock
from ingest.disk import Disk
from ingest.executor import InlineExecutor, LocalExecutor, RayActors
from ingest.latents.makers import LocalMaking, Making, RayMaking
from ingest.latents.making import PIECE_PICTURES, LatentMaker
from ingest.latents.plan import todo_of
from ingest.latents.probe import probe
from ingest.latents.run import LatentTally, encode_corpus
from ingest.models.encoder import EncoderChoice, ImageEncoder
from ingest.models.encoder_weights import WeightSource
from ingest.models.encoders import EncoderSpec, encoder_spec
from ingest.snapshot import Snapshot
from jobs.context import new_run_id, usable_cores
from jobs.ingest import limits_from
from jobs.latents_report import Live, Plan, show_list, show_plan, show_report
from jobs.latents_vlm import VlmRequest, encode
from schemas.errors import ConfigError


def command(
    corpus: Annotated[Path | None, typer.Argument(help="The corpus.")] = None,
    encoder: Annotated[str, typer.Option(help="A name from --list.")] = "dinov3_vits16",
    weights: Annotated[
        Path | None, typer.Option(help="Folder of the downloaded model (safetensors).")
    ] = None,
    hub_id: Annotated[str | None, typer.Option(help="OWNER/NAME on the hub instead.")] = None,
    untrained: Annotated[
        int | None, typer.Option(min=0, metavar="SEED", help="Weights nobody trained: for tests.")
    ] = None,
    dtype: Annotated[
        Literal["bf16", "fp8", "int8"], typer.Option(help="How tokens are stored.")
    ] = "bf16",
    stride: Annotated[int, typer.Option(min=1, help="Timesteps from picture to picture.")] = 3,
    keep_prefix: Annotated[
        bool, typer.Option("--keep-prefix", help="CLS and registers before the patches.")
    ] = False,
    fit: Annotated[
        Literal["letterbox", "stretch", "crop"], typer.Option(help="How a picture becomes square.")
    ] = "letterbox",
    camera: Annotated[list[str] | None, typer.Option(help="Only this camera; repeatable.")] = None,
    where: Annotated[str, typer.Option(help="SQL expression over `episodes`.")] = "",
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto: a GPU where there is one.")
    ] = "auto",
    batch: Annotated[int, typer.Option(min=0, help="Pictures at once; 0: by the device.")] = 0,
    compile_: Annotated[
        bool, typer.Option("--compile", help="torch.compile; takes a minute to begin.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Decode processes; 0 works inline.")
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Run on Ray instead.")] = False,
    address: Annotated[str | None, typer.Option(help="Join this Ray cluster.")] = None,
    num_gpus: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="With --ray: share of a GPU for each encoder.")
    ] = 1.0,
    vlm: Annotated[
        Path | None, typer.Option(help="Features of instructions instead: folder of a Qwen3-VL.")
    ] = None,
    vlm_layer: Annotated[int, typer.Option(help="Of its hidden states; -1 the last.")] = -1,
    vlm_pictures: Annotated[
        str, typer.Option(metavar="SECONDS|none", help="It is shown a picture every so often.")
    ] = "none",
    vlm_prompt: Annotated[str, typer.Option(help="What it is told.")] = "Instruction: {text}",
    list_: Annotated[bool, typer.Option("--list", help="Every encoder and its licence.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="The plan only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Encode what has no latents of this encoder yet. Stop it at any time; run it again to go on."""
    if list_ or corpus is None:
        show_list(as_json=as_json)
        return
    opened = open_corpus(corpus)
    if vlm is not None:
        if ray or address is not None:
            raise ConfigError("--vlm runs on this machine only; leave --ray out", where="--ray")
        request = VlmRequest(
            folder=vlm,
            layer=vlm_layer,
            pictures=vlm_pictures,
            prompt=vlm_prompt,
            cameras=tuple(camera or ()),
            where=where,
            device=device,
            batch=batch,
        )
        encode(opened, request, dry_run=dry_run, as_json=as_json)
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
    )
    is_on_ray = ray or address is not None
    # on Ray the GPUs are the actors': what this process needs of the encoder is its id and a probe
    held = ImageEncoder.open(replace(choice, device="cpu") if is_on_ray else choice)
    count = _workers(workers, has_gpu=is_on_ray or held.device == "cuda")
    cameras = tuple(camera or ())
    if dry_run:
        plan = _plan(opened, snapshot.load(opened.root), held, cameras, where, count)
        show_plan(plan, as_json=as_json, is_all=True)
        return
    making: Making
    if is_on_ray:
        making = _on_ray(replace(choice, gpu_share=num_gpus), address, count)
    else:
        making = _local(held, count)
    if _run(opened, held, making, cameras, where, count, as_json=as_json).failed:
        raise typer.Exit(1)


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


def _workers(asked: int | None, *, has_gpu: bool) -> int:
    """Decode processes. One keeps an encoder on a CPU busy, and more would take its cores."""
    if asked is not None:
        return asked
    return usable_cores() if has_gpu else 1


def _local(encoder: ImageEncoder, workers: int) -> LocalMaking:
    executor = LocalExecutor(workers, limits_from()) if workers else InlineExecutor()
    return LocalMaking(LatentMaker(encoder=encoder, monotonic_s=time.monotonic), executor)


def _on_ray(choice: EncoderChoice, address: str | None, workers: int) -> RayMaking:
    actors = RayActors(
        limits_from(), address=address, workers=max(workers, 1), gpus_each=choice.gpu_share
    )
    actors.connect()  # before a corpus is touched: a wrong address is the caller's mistake
    return RayMaking(choice, actors, choice.batch or PIECE_PICTURES, time.monotonic)


def _plan(
    corpus: Corpus,
    current: Snapshot,
    encoder: ImageEncoder,
    cameras: tuple[str, ...],
    where: str,
    workers: int,
) -> Plan:
    todo = todo_of(corpus, current, encoder.id, cameras=cameras, where=where)
    found = probe(todo, encoder, time.monotonic) if len(todo) else None
    return Plan(todo=todo, encoder=encoder, probe=found, workers=workers)


def _run(
    corpus: Corpus,
    encoder: ImageEncoder,
    making: Making,
    cameras: tuple[str, ...],
    where: str,
    workers: int,
    *,
    as_json: bool,
) -> LatentTally:
    with writer_lock(corpus):
        current = snapshot.load(corpus.root)
        plan = _plan(corpus, current, encoder, cameras, where, workers)
        if not as_json:
            show_plan(plan, as_json=False)
        began_s = time.monotonic()
        with Live(plan, time.monotonic) as live:
            tally, current = encode_corpus(
                plan.todo,
                current,
                making,
                run_id=new_run_id(),
                disk=Disk(),
                progress=live.update,
            )
        elapsed_s = time.monotonic() - began_s
    show_report(plan, tally, current.number, elapsed_s, as_json=as_json)
    return tally
