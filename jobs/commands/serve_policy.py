"""`eicorpus serve-policy RUN`: a WebSocket server for a trained policy. The page: docs/how-to/serve.md."""

from __future__ import annotations

import asyncio
import signal
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.commands.train import check_installed
from jobs.ui.options import (
    CheckpointStep,
    ComputePrecision,
    Device,
    HubId,
    NumChunks,
    RunFolder,
    SamplingSteps,
    UsesAverages,
    WeightsFolder,
    step_from,
)
from jobs.ui.output import stderr
from schemas.errors import ConfigError, system_error_text

if TYPE_CHECKING:
    from training.causal.policy import CausalPolicy
    from training.policy.policy import Policy
    from training.server.server import WireServer

MAX_TOKEN_BYTES = 4096


def command(
    run: RunFolder,
    weights: WeightsFolder = None,
    hub_id: HubId = None,
    vlm: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of the vision-language model that encoded the instructions (`latents text --vlm`).",
        ),
    ] = None,
    checkpoint: CheckpointStep = None,
    ema: UsesAverages = False,
    sampling_steps: SamplingSteps = None,
    plan: NumChunks = 1,
    precision: ComputePrecision = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the sampling noise.")] = 0,
    device: Device = "auto",
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. Another than 127.0.0.1 requires --token-file."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on. 0 picks a free port.")
    ] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with the API key that clients must send."),
    ] = None,
    max_message_mb: Annotated[
        int, typer.Option(min=1, help="Refuse messages above this size, in MiB.")
    ] = 32,
    max_clients: Annotated[int, typer.Option(min=1, help="Refuse further connections (503).")] = 16,
) -> None:
    """Serve a policy over a WebSocket to openpi, starVLA or (block-causal) LingBot-VA clients. Ctrl-C stops it."""
    check_installed()
    check_served("eicorpus serve-policy")
    from jobs.commands.policy_encoder import encoder_for
    from training.causal.policy import CausalPolicy
    from training.causal.settings import CausalModelSettings
    from training.policy.policy import Policy, PolicySettings
    from training.run.checkpoint import checkpoint_of
    from training.server.lingbot import ChunkServer
    from training.server.server import PolicyServer, ServerSettings

    step = step_from(checkpoint)
    asked = PolicySettings(
        step=step,
        use_averages=ema,
        num_steps=sampling_steps,
        precision=None if precision == "auto" else precision,
        seed=seed,
        num_chunks=plan,
    )
    served = ServerSettings(
        host=host,
        port=port,
        token=None if token_file is None else token_of(token_file),
        max_message_bytes=max_message_mb << 20,
        max_clients=max_clients,
    )
    state = checkpoint_of(run, step).state
    if plan > 1 and isinstance(state.model, CausalModelSettings):
        problem = "a block-causal network has no forward dynamics to plan with"
        raise ConfigError(problem, remedy="remove --plan", where="--plan")
    encode = encoder_for(state.encoder_id, weights=weights, hub_id=hub_id, device=device)
    served_policy: Policy | CausalPolicy
    policy_server: WireServer
    if isinstance(state.model, CausalModelSettings):
        served_policy = CausalPolicy.load(run, encode, asked, vlm=vlm, device=device)
        policy_server = ChunkServer(served_policy, served, monotonic_s=time.monotonic)
    else:
        served_policy = Policy.load(run, encode, asked, vlm=vlm, device=device)
        policy_server = PolicyServer(served_policy, served, monotonic_s=time.monotonic)
    asyncio.run(_serve(policy_server, policy_text(served_policy)))


def check_served(command: str) -> None:
    """Raises ConfigError where the extra is missing."""
    try:
        import msgpack  # noqa: F401
        import websockets  # noqa: F401
    except ModuleNotFoundError as error:
        problem = f"needs {error.name}"
        raise ConfigError(
            problem,
            remedy="run pip install 'eicorpus[policy-server,train]'",
            where=command,
        ) from error


def token_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            token = file.read(MAX_TOKEN_BYTES + 1).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot be read: {system_error_text(error, str(path))}",
            remedy="check the path and the permissions",
            where=f"--token-file {path}",
        ) from error
    if not token or len(token) > MAX_TOKEN_BYTES:
        raise ConfigError(
            "the file has more than one line or none; write only the API key into it",
            where=f"--token-file {path}",
        )
    return token


async def _serve(policy_server: WireServer, text: str) -> None:
    settings = policy_server.settings
    stop = asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    try:
        server = await policy_server.start()
    except OSError as error:
        raise ConfigError(
            system_error_text(error), where=f"--host {settings.host} --port"
        ) from error
    host, port = next(iter(server.sockets)).getsockname()[:2]
    stderr.print(text)
    stderr.print(
        f"serving ws://{host}:{port}, health check http://{host}:{port}/healthz; Ctrl-C stops"
    )
    await stop.wait()
    server.close()
    await server.wait_closed()
    stderr.print(latency_text(list(policy_server.infer_s), policy_server.num_refused))


def policy_text(policy: Policy | CausalPolicy) -> str:
    """What is served."""
    facts = policy.facts()
    text = f"step {policy.step} of {policy.recipe.name}, computed in {facts['precision']}"
    if "plan" in facts:
        text += f", plans with {facts['plan']['num_chunks']} chunks"
    if policy.encode is None:
        text += "; no image encoder: clients must send observation/latents/<camera>"
    return text


def latency_text(infer_s: list[float], num_refused: int) -> str:
    """How long inference took, of the last ones."""
    if not infer_s:
        return f"no requests, {num_refused} connections refused"
    ordered = sorted(infer_s)
    late = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    middle = statistics.median(ordered)
    count = f"{len(ordered):,} requests"
    return f"{count}, median {middle * 1e3:.1f} ms, 95th percentile {late * 1e3:.1f} ms, {num_refused} connections refused"
