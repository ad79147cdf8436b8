"""`eicorpus build corpus.yaml`: make the corpus what its spec says."""

from __future__ import annotations

from jobs.build.plan import stages_of
from jobs.build.run import build
from jobs.build.spec_file import read_spec
from jobs.commands.plan import Check, Targets, show
from jobs.stages.raw_data import RawCache
from jobs.stages.resources import Resources
from jobs.ui.build_report import build_as_object, show_build
from jobs.ui.options import (
    CACHE_GB,
    AsJson,
    CacheSize,
    DryRun,
    ManoDir,
    OnRay,
    RayAddress,
    SpecArgument,
    Workers,
)
from jobs.ui.output import answer_json, exit_1, stderr


def command(
    spec: SpecArgument,
    target: Targets = None,
    workers: Workers = None,
    ray: OnRay = False,
    address: RayAddress = None,
    check: Check = False,
    mano_dir: ManoDir = None,
    cache_gb: CacheSize = CACHE_GB,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Build what is missing or stale of a corpus spec, in order. Run it again to resume."""
    cache = RawCache(gb=cache_gb)
    if dry_run:
        show(spec, target or [], check=check, mano_dir=mano_dir, cache=cache, as_json=as_json)
        return

    def tell(name: str, why: str) -> None:
        stderr.print(f"{name}: {why}", markup=False, highlight=False)

    file = read_spec(spec)
    resources = Resources(workers=workers, use_ray=ray, address=address)
    stages = stages_of(file, mano_dir, cache)
    done = build(file, stages, resources, target or [], check=check, on_start=tell)
    if as_json:
        answer_json(build_as_object(done, file.corpus), done.failure)
    else:
        show_build(done, file.corpus)
    if done.failure:
        exit_1(done.failure)
