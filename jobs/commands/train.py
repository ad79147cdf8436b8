"""`eicorpus train MANIFEST`: train a policy by a recipe. The page: docs/how-to/train.md."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.machine import compute_threads, usable_cores
from jobs.ui.options import (
    ActionsCache,
    AsJson,
    BucketUse,
    Device,
    OnRay,
    RayAddress,
    VerifiesLatents,
)
from schemas.document import DocumentError
from schemas.errors import ConfigError
from schemas.paths import check_local
from schemas.yaml_text import parse_yaml

if TYPE_CHECKING:
    from training.recipe import TrainRecipe


RecipeKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Recipe value, such as run.batch_size=96. Repeatable."
    ),
]
LastStep = Annotated[
    int | None, typer.Option(min=1, help="Stop after this step without changing the schedule.")
]
InitFrom = Annotated[
    Path | None, typer.Option(metavar="RUN", help="Fine-tune the weights of this run.")
]
InitAverages = Annotated[
    bool,
    typer.Option("--init-averages", help="With --init-from: its averaged weights (optimiser.ema)."),
]
InitLam = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN", help="Begin with the latent action model of this run (recipe lam)."
    ),
]
LoaderWorkers = Annotated[
    int | None,
    typer.Option(
        "--loader-workers", min=0, help="Threads of the data loader. Sets run.num_workers."
    ),
]
OtherManifest = Annotated[
    bool, typer.Option("--allow-other-manifest", help="Resume with a different manifest.")
]
OtherRecipe = Annotated[
    bool, typer.Option("--allow-other-recipe", help="Resume with a different recipe.")
]
WandbProject = Annotated[
    str | None, typer.Option(metavar="PROJECT", help="Also log to Weights & Biases.")
]
RanksPerMachine = Annotated[
    int | None,
    typer.Option(
        "--ranks-per-machine",
        min=1,
        help="With --dry-run and --ray-workers: ranks of one machine. Default: 8.",
    ),
]
PlanOnly = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Show the plan. Writes only the cache of derived actions, which the run needs anyway.",
    ),
]


def command(
    manifest: Annotated[
        Path,
        typer.Argument(
            metavar="MANIFEST", help="Manifest: CORPUS/manifests/NAME, a folder or a URI."
        ),
        BucketUse.MANIFEST,
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="RUN", help="Run directory. An unfinished run in it is resumed."),
    ],
    recipe: Annotated[
        str,
        typer.Option(help="Training recipe: a name from `eicorpus list recipes` or a YAML file."),
    ] = "tiny",
    set_: RecipeKeys = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps. Sets run.num_steps.")
    ] = None,
    until: LastStep = None,
    init_from: InitFrom = None,
    init_averages: InitAverages = False,
    init_lam: InitLam = None,
    device: Device = "auto",
    loader_workers: LoaderWorkers = None,
    cache: ActionsCache = None,
    verify_latents: VerifiesLatents = False,
    allow_other_manifest: OtherManifest = False,
    allow_other_recipe: OtherRecipe = False,
    ray: OnRay = False,
    address: RayAddress = None,
    ray_workers: Annotated[
        int,
        typer.Option("--ray-workers", min=1, help="With --ray or --dry-run: number of ranks."),
    ] = 1,
    ranks_per_machine: RanksPerMachine = None,
    wandb: WandbProject = None,
    dry_run: PlanOnly = False,
    as_json: AsJson = False,
) -> None:
    """Train a policy on a manifest. Run it again to resume. Several GPUs: `torchrun --nproc-per-node N -m jobs train ...` or --ray."""
    check_installed()
    check_local(Path(recipe), "--recipe")
    from jobs.ui.manifest_report import refuse_without_latents  # polars: not for `--help`
    from schemas.manifest import newest_version

    if init_averages and init_from is None:
        raise ConfigError("needs --init-from RUN", where="--init-averages")
    if ranks_per_machine is not None and not (dry_run and ray_workers > 1):
        raise ConfigError("needs --dry-run and --ray-workers N", where="--ranks-per-machine")
    opened = newest_version(manifest.absolute())
    refuse_without_latents(opened)
    changes = changes_from(set_ or [], steps=steps, workers=loader_workers)
    # An invalid recipe is refused before torch is imported, which takes seconds.
    resolved = _recipe(recipe, changes, init_from, out)
    from jobs.commands.train_run import (
        dry,
        planned_ranks,
        run_here,
    )  # torch: the base install works without it
    from jobs.stages.latent_place import latent_place
    from training.run.session import TrainRequest

    place = latent_place(opened)
    if resolved.text.kind == "online" and place.copies is not None:
        from jobs.stages.bucket_corpus import with_videos  # obstore

        with_videos(place.copies)
    request = TrainRequest(
        manifest=opened if allow_other_manifest else _of_run(out, manifest) or opened,
        recipe=resolved,
        out=out,
        device=device,
        until=until,
        init_from=init_from,
        init_averages=init_averages,
        init_lam=init_lam,
        cache=cache,
        num_processes=usable_cores(),
        num_threads=compute_threads(),
        verify_latents=verify_latents,
        place=place,
        may_change_manifest=allow_other_manifest,
        may_change_recipe=allow_other_recipe,
    )
    if dry_run:
        dry(request, planned_ranks(ray_workers, ranks_per_machine), as_json=as_json)
    elif ray or address is not None:
        try:
            from jobs.commands.train_ray import run_on_ray
        except ImportError as error:  # a requirement of ray.train
            raise ConfigError(
                f"{error}", remedy="run pip install 'eicorpus[train]'", where="--ray"
            ) from error
        run_on_ray(request, ray_workers, address=address, wandb=wandb, as_json=as_json)
    else:
        run_here(request, wandb=wandb, as_json=as_json)


def _of_run(out: Path, manifest: Path) -> Path | None:
    """The version of `manifest` that the run in `out` was begun with: a resumed run stays with it when there is a newer one."""
    from training.run.run_folder import load_run

    begun = load_run(out)
    version = None if begun is None else Path(begun[0].manifest)
    is_of_manifest = version is not None and version.parent == manifest.absolute()
    return version if is_of_manifest else None


def check_installed() -> None:
    """Raises ConfigError where the extra is missing."""
    if find_spec("torch") is None:
        problem = "needs torch"
        raise ConfigError(
            problem, remedy="run pip install 'eicorpus[train]'", where="eicorpus train"
        )


def changes_from(settings: list[str], *, steps: int | None, workers: int | None) -> dict[str, Any]:
    """`["run.batch_size=96"]` to `{"run": {"batch_size": 96}}`; values are YAML.

    Raises:
        ConfigError: no key, or no value.
    """
    shorthand = {"run.num_steps": steps, "run.num_workers": workers}
    out: dict[str, Any] = {}
    pairs = [_pair(each) for each in settings]
    for key, value in [*pairs, *((k, v) for k, v in shorthand.items() if v is not None)]:
        *path, last = key.split(".")
        place = out
        for name in path:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{key}: {name} is set as a whole", where="--set")
        place[last] = value
    return out


def _pair(setting: str) -> tuple[str, Any]:
    key, equals, value = setting.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"{setting!r}; expected KEY=VALUE, as run.batch_size=96", where="--set")
    try:
        return key, parse_yaml(value)
    except DocumentError as error:
        raise ConfigError(f"{setting!r}: {error}", where="--set") from error


def _recipe(name: str, changes: dict[str, Any], init_from: Path | None, out: Path) -> TrainRecipe:
    """A run that is fine-tuned from another uses its recipe as the base of its own.

    A run that has checkpoints resumes even if the run it was fine-tuned from was deleted: its own recipe holds the values.
    """
    from training.recipe import load_recipe, stored_recipe

    if init_from is None:
        return load_recipe(name, changes)
    from training.run.checkpoint import checkpoint_of  # torch
    from training.run.run_folder import load_run

    try:
        base = stored_recipe(checkpoint_of(init_from).state.recipe)
    except ConfigError:
        begun = load_run(out)
        if begun is None:
            raise
        base = begun[1].model_dump(mode="json")
    return load_recipe(name, changes, base=base)
