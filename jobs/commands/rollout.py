"""`eicorpus rollout RUN`: a policy in closed loop in a simulator, with videos and the share of successes. The page: docs/how-to/evaluate.md."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.commands.train import check_installed
from jobs.ui.options import (
    AsJson,
    CheckpointStep,
    Device,
    HubId,
    NumChunks,
    SamplingSteps,
    UsesAverages,
    WeightsFolder,
    step_from,
)
from jobs.ui.output import answer_json, exit_1, progress_of, stdout
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from training.policy.policy import Policy
    from training.rollout.episodes import Played
    from training.rollout.loop import Horizon, Steered
    from training.server.client import ServedPolicy

METAWORLD, GYM = "metaworld:", "gym:"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRequest:
    """The options: which environment, and how it is played."""

    env: str
    mapping: Path | None
    instruction: str | None
    seed: int
    max_steps: int
    execute: int


def command(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN", help="Run directory of `eicorpus train`. Left out with --server."
        ),
    ] = None,
    *,
    env: Annotated[
        str,
        typer.Option(metavar="NAME", help="metaworld:TASK, or gym:ID with --mapping."),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder of results. Finished episodes in it are kept."),
    ],
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to play in all.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scenes and of the noise.")] = 0,
    max_steps: Annotated[
        int, typer.Option(min=1, help="Timesteps after which an episode has failed.")
    ] = 80,
    execute: Annotated[
        int, typer.Option(min=1, help="Timesteps of each chunk that are carried out.")
    ] = 8,
    mapping: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML file: names, units and frames of a gym:ID."),
    ] = None,
    instruction: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Instruction. Default: of the environment.")
    ] = None,
    min_success: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Exit 1 if the share of successes is lower."),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Policy of `eicorpus serve-policy`: ws://HOST:PORT."),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with the API key of --server.")
    ] = None,
    checkpoint: CheckpointStep = None,
    ema: UsesAverages = False,
    sampling_steps: SamplingSteps = None,
    plan: NumChunks = 1,
    weights: WeightsFolder = None,
    hub_id: HubId = None,
    vlm: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of the vision-language model that encoded the instructions (`latents text --vlm`).",
        ),
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Drive a policy in a simulator in closed loop: success with its interval, and videos. Run it again to resume."""
    request = RolloutRequest(
        env=env,
        mapping=mapping,
        instruction=instruction,
        seed=seed,
        max_steps=max_steps,
        execute=execute,
    )
    _check(run, server, request, weighs=bool(checkpoint or ema or sampling_steps or plan > 1))
    with ExitStack() as stack:
        policy: Policy | ServedPolicy
        if server is not None:
            policy = stack.enter_context(_served(server, token_file))
        else:
            assert run is not None  # _check
            check_installed()
            from training.policy.policy import PolicySettings

            settings = PolicySettings(
                step=step_from(checkpoint),
                use_averages=ema,
                num_steps=sampling_steps,
                seed=seed,
                num_chunks=plan,
            )
            policy = _opened(run, settings, weights=weights, hub_id=hub_id, vlm=vlm, device=device)
        about = {
            "run": None if run is None else str(run.resolve()),
            "averaged": ema,
            "sampling_steps": sampling_steps,
        }
        result = _rolled_out(policy, request, out, episodes, about=about)
    share = result["success"]["value"]
    failure = ""
    if min_success is not None and share < min_success:
        failure = f"{share:.1%} of the episodes succeeded; --min-success asks for {min_success:.1%}"
    if as_json:
        answer_json(result, failure)
    else:
        for line in result_lines(result):
            stdout.print(line, markup=False, highlight=False)
    if failure:
        exit_1(failure)


def _check(run: Path | None, server: str | None, request: RolloutRequest, *, weighs: bool) -> None:
    """Raises ConfigError: options that do not go together."""
    if (run is None) == (server is None):
        raise ConfigError("expected either RUN or --server URL", where="eicorpus rollout")
    if server is not None and weighs:
        problem = "--checkpoint, --ema, --sampling-steps and --plan are options of the server"
        raise ConfigError(problem, remedy="pass them to `eicorpus serve-policy`", where="--server")
    if not request.env.startswith((METAWORLD, GYM)) or request.env.endswith(":"):
        problem = f"{request.env!r:.80}; expected metaworld:TASK or gym:ID"
        raise ConfigError(problem, where="--env")
    if request.env.startswith(GYM) != (request.mapping is not None):
        problem = "gym:ID needs --mapping FILE, and metaworld:TASK has its own"
        raise ConfigError(problem, where="--mapping")


@contextmanager
def _served(url: str, token_file: Path | None) -> Iterator[ServedPolicy]:
    from jobs.commands.serve_policy import check_served, token_of

    check_served("eicorpus rollout --server")
    from training.server.client import ServedPolicy

    token = None if token_file is None else token_of(token_file)
    with ServedPolicy(url, token=token) as policy:
        yield policy


def _opened(
    run: Path,
    settings: Any,
    *,
    weights: Path | None,
    hub_id: str | None,
    vlm: Path | None,
    device: Any,
) -> Policy:
    from jobs.commands.policy_encoder import encoder_for
    from training.policy.policy import Policy
    from training.run.checkpoint import checkpoint_of

    encoder = checkpoint_of(run, settings.step).state.encoder_id
    encode = encoder_for(encoder, weights=weights, hub_id=hub_id, device=device)
    if encode is None:
        problem = f"the run was trained on latents of {encoder}, and no weights are named"
        raise ConfigError(problem, remedy="add --weights FOLDER", where="--weights")
    return Policy.load(run, encode, settings, vlm=vlm, device=device)


def _rolled_out(
    policy: Policy | ServedPolicy,
    request: RolloutRequest,
    out: Path,
    count: int,
    *,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Play, and write OUT/result.json; what it holds is the answer.

    Raises:
        ConfigError: policy and environment do not fit, or the folder holds other episodes.
    """
    import json

    from ingest.storage.lock_file import held_alone
    from training.durable import make_folder, write_durably
    from training.rollout.episodes import RESULT_FILE, check_cameras, check_settings, play_all
    from training.rollout.loop import closed_loop

    facts = policy.facts()
    horizon = horizon_of(facts, request)
    rate_hz = Fraction(facts["rate_hz"]).limit_denominator(1000)
    settings = _settings(facts, request, about)
    with ExitStack() as stack:
        steered = stack.enter_context(_environment(request, facts))
        _check_pictures(steered, facts, request.seed, check_cameras)
        if not out.exists():
            make_folder(out)
        stack.enter_context(held_alone(out / ".lock", wait_s=1.0))
        check_settings(out, settings)

        def play(number: int, scene: int) -> dict[str, Any]:
            from jobs.rollout_video import EpisodeVideos

            with EpisodeVideos(out, number, rate_hz) as videos:
                outcome = closed_loop(
                    policy, steered, scene, horizon, task=request.env, watch=videos.add
                )
            return {"episode": number, **asdict(outcome), "videos": videos.files}

        with progress_of("episodes", count) as progress:
            played = play_all(out, count, request.seed, play, progress)
        result = {**settings, **summary_of(played)}
        write_durably(out / RESULT_FILE, json.dumps(result, indent=1) + "\n")
    return result


def horizon_of(facts: Mapping[str, Any], request: RolloutRequest) -> Horizon:
    """Pictures from as long ago as the policy was trained with.

    Raises:
        ConfigError: more timesteps are to be carried out than a chunk has.
    """
    from training.rollout.loop import Horizon

    if request.execute > facts["num_actions"]:
        problem = f"{request.execute}; a chunk of this policy has {facts['num_actions']} timesteps"
        raise ConfigError(problem, where="--execute")
    past_steps = tuple(round(offset * facts["rate_hz"]) for offset in facts["past_s"])
    return Horizon(execute=request.execute, past_steps=past_steps, limit=request.max_steps)


def _settings(
    facts: Mapping[str, Any], request: RolloutRequest, about: Mapping[str, Any]
) -> dict[str, Any]:
    """What every episode in one folder has in common. A served policy is known by what it says of itself."""
    import hashlib

    from schemas.regular_file import read_regular

    digest = None
    if request.mapping is not None:
        digest = hashlib.sha256(read_regular(request.mapping, max_bytes=1 << 20)).hexdigest()
    plan = facts.get("plan") or {}
    return {
        "env": request.env,
        "mapping_sha256": digest,
        "instruction": request.instruction,
        "seed": request.seed,
        "max_steps": request.max_steps,
        "execute": request.execute,
        "recipe": facts["recipe"],
        "step": facts["step"],
        "plan": plan.get("num_chunks"),
        "value_sha256": plan.get("value_sha256"),
        **about,
    }


@contextmanager
def _environment(request: RolloutRequest, facts: Mapping[str, Any]) -> Iterator[Steered]:
    """Raises ConfigError: the extra is missing, no such task, or the policy was not trained for the body or its rate."""
    steered: Any
    if request.env.startswith(METAWORLD):
        with _metaworld(request, facts) as steered:
            yield steered
        return
    from training.rollout.action_names import spec_of_embodiment
    from training.rollout.gym_environment import GymEnvironment, make_gym
    from training.rollout.gym_mapping import read_mapping

    assert request.mapping is not None  # _check
    mapping = read_mapping(request.mapping)
    spec = spec_of_embodiment(facts, mapping.embodiment)
    env = make_gym(request.env.removeprefix(GYM))
    try:
        steered = GymEnvironment(env, mapping, spec, rate_hz=facts["rate_hz"])
        if request.instruction is not None:
            steered.instruction = request.instruction
        yield steered
    finally:
        env.close()


@contextmanager
def _metaworld(request: RolloutRequest, facts: Mapping[str, Any]) -> Iterator[Steered]:
    # Before mujoco is imported: draws without a display and without a GPU.
    os.environ.setdefault("MUJOCO_GL", "osmesa")
    from training.rollout import sawyer
    from training.rollout.action_names import spec_of_embodiment

    task = request.env.removeprefix(METAWORLD)
    known = sawyer.task_names()
    if task not in known:
        raise ConfigError(
            f"no task {task!r:.80}; expected one of {', '.join(known)}", where="--env"
        )
    instruction = request.instruction or sawyer.INSTRUCTIONS.get(task)
    if instruction is None:
        problem = f"no instruction of {task} is known"
        raise ConfigError(problem, remedy='add --instruction "TEXT"', where="--instruction")
    if spec_of_embodiment(facts, sawyer.EMBODIMENT) != sawyer.spec():
        problem = "the policy acts with other elements than position, rotation and opening"
        raise ConfigError(problem, where="--env")
    if abs(facts["rate_hz"] * sawyer.TIMESTEP_S - 1) > 1e-6:
        problem = f"the policy has {facts['rate_hz']:g} timesteps a second, and this world has 10"
        raise ConfigError(problem, where="--env")
    with sawyer.World(task) as world:
        yield sawyer.SawyerHand(world, instruction)


def _check_pictures(
    steered: Steered, facts: Mapping[str, Any], seed: int, check_cameras: Any
) -> None:
    """Look once, before anything is written: a wrong key ends here, and so does a camera that the policy never saw."""
    from fnmatch import fnmatchcase

    steered.reset(seed)
    names = sorted(steered.shown())
    check_cameras(names)
    if not any(fnmatchcase(name, pattern) for name in names for pattern in facts["cameras"]):
        problem = f"cameras {', '.join(names)}; the policy looks at {' or '.join(facts['cameras'])}"
        raise ConfigError(problem, remedy="rename the camera in the mapping", where="--env")


def summary_of(played: Played) -> dict[str, Any]:
    """Success with its 95 % Wilson interval, and every episode."""
    from ingest.curation.captions.checks import wilson

    count = len(played.episodes)
    low, high = wilson(played.num_successes, count)
    success = {
        "value": played.num_successes / count,
        "low": low,
        "high": high,
        "num_successes": played.num_successes,
        "count": count,
    }
    return {"success": success, "num_new": played.num_new, "episodes": list(played.episodes)}


def result_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """For people."""
    success = result["success"]
    share = f"{success['num_successes']} of {success['count']} episodes succeeded"
    yield f"{share}: {success['value']:.1%} (95 % interval {success['low']:.1%} to {success['high']:.1%})"
    yield f"{result['num_new']} played now, {success['count'] - result['num_new']} before"
