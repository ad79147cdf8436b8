"""`eicorpus demo`: seven raw sources, robots and human hands, become one corpus, a manifest and a small policy, by one corpus spec.

The raw data are generated in each source's true layout; nothing is downloaded. Every step is a command that a user types, run
in a process of its own.
"""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from jobs.demo.raw import SOURCES, Written
from jobs.ui.options import AsJson
from jobs.ui.output import answer_json, stdout, table
from schemas.errors import ConfigError, PipelineError

MARKER = ".eicorpus-demo"  # in a folder that a demo made and the next one may delete
QUERY = (
    "select source, embodiment, count(*) as episodes, sum(length) as timesteps, "
    "round(sum(duration_s), 1) as seconds, any_value(eef_frame) as eef_frame, "
    "any_value(action_source) as action_source from episodes group by all order by 1"
)
TIERS = (
    'select source, tier, count(*) as segments, round(sum(duration_s * ("end" - start) / length), 1) as seconds, '
    "string_agg(distinct reasons[1].code, ', ' order by reasons[1].code) as first_reasons "
    "from tiers join episodes using (uid) group by all order by all"
)
NUM_PLAYS = 96  # of the source that the demo's policy learns from
BEATEN = ("copy_last_frame", "zero_action", "repeat_action", "mean_action")
MANIFEST = "first"
# The corpus is small: a fifth of the episodes is held out. The encoder stands in for DINOv3, whose weights are gated.
SPEC = """\
# The corpus of `eicorpus demo`. Every key: docs/how-to/build.md
version: 1
corpus: ./corpus

sources:
{sources}
measures: {{}}
tiers:
  policy: ei30k
duplicates: {{}}
captions:
  backend: rules
latents:
  dinov3_tiny:
    encoder: dinov3_tiny
    untrained: 0

manifests:
  first:
    where: uid NOT IN (SELECT uid FROM redundant)
    split: {{by: episode, val: 0.2}}

reports:
  overview:
    html: report.html

verify: {{}}
"""
SOURCE = "  {0}:\n    path: raw/{0}\n    adapter: {0}\n"


class DemoFailed(PipelineError):
    """A step of the demo ended with another exit code than 0."""

    exit_code = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoStep:
    """What a user would do next, why, and the commands that do it."""

    title: str
    commands: tuple[tuple[str, ...], ...] = ()
    prepare: Callable[[], None] = lambda: None


def command(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Output folder. An earlier demo there is replaced.")
    ] = Path("demo"),
    as_json: AsJson = False,
) -> None:
    """Build a corpus, a manifest and a small policy from seven small synthetic sources."""
    if importlib.util.find_spec("torch") is None:
        raise ConfigError(
            "the demo trains a policy", remedy="run pip install 'eicorpus[train]'", where="torch"
        )
    claim(out)
    seconds: dict[str, float] = {}
    plan = list(steps(out))
    for number, step in enumerate(plan, start=1):
        sys.stderr.write(f"\n[{number}/{len(plan)}] {step.title}\n")
        sys.stderr.flush()
        started_s = time.monotonic()
        step.prepare()
        for words in step.commands:
            run(words, is_quiet=as_json)
        seconds[step.title] = round(time.monotonic() - started_s, 1)
    total_s = round(sum(seconds.values()), 1)
    if as_json:
        answer_json({"seconds": seconds, "total_s": total_s, "folder": str(out)})
        return
    rows = [[title, f"{took_s:.1f}"] for title, took_s in seconds.items()]
    stdout.print(table("", ["step", "seconds"], [*rows, ["all", f"{total_s:.1f}"]]))
    stdout.print(f"open {out / 'report.html'} and {out / 'eval.html'} in a browser")


def claim(out: Path) -> None:
    """Make `out` an empty folder of the demo's own.

    Raises:
        ConfigError: it holds something that no demo made.
    """
    if out.exists() and not (out / MARKER).is_file():
        if not out.is_dir() or any(out.iterdir()):
            raise ConfigError(
                "is not the output of an earlier demo",
                remedy="choose a new folder",
                where=f"--out {out}",
            )
    elif out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()


def run(words: tuple[str, ...], *, is_quiet: bool) -> None:
    """Print a command and run it; with `is_quiet` its output goes to standard error.

    Raises:
        DemoFailed: it did not exit with 0.
    """
    output = sys.stderr if is_quiet else sys.stdout
    output.write(f"$ {shlex.join(('eicorpus', *words))}\n")
    output.flush()
    done = subprocess.run([sys.executable, "-m", "jobs", *words], stdout=output, check=False)
    if done.returncode:
        message = f"exit code {done.returncode}; its message is above"
        raise DemoFailed(message, where=shlex.join(("eicorpus", *words)))


def steps(out: Path) -> Iterator[DemoStep]:
    """All steps of a demo in the folder `out`, in order."""
    corpus, raw = out / "corpus", out / "raw"

    spec = out / "corpus.yaml"

    def generate() -> None:
        for name in SOURCES:
            raw_of(name, raw / name)
        spec.write_text(SPEC.format(sources="".join(map(SOURCE.format, SOURCES))))

    yield DemoStep(title="generate raw data of seven sources, and a corpus spec", prepare=generate)
    yield DemoStep(
        title="build the corpus: ingest, measure, tiers, duplicates, captions, latents, a manifest, a report",
        commands=(("build", str(spec)),),
    )
    yield DemoStep(
        title="build it again: nothing has changed, so nothing is done",
        commands=(("build", str(spec)),),
    )
    yield DemoStep(
        title="look at it: query the catalog, show the tiers, print the content digest",
        commands=(
            ("query", str(corpus), QUERY),
            ("query", str(corpus), TIERS),
            ("manifest", "verify", str(corpus), MANIFEST),
            ("digest", str(corpus)),
        ),
    )
    yield from training_steps(corpus, out / "run", out / "eval.html")


def raw_of(name: str, folder: Path) -> Written:
    """Generated raw data of one source of the demo."""
    folder.mkdir(parents=True, exist_ok=True)
    module = import_module(f"jobs.demo.raw.{name}")
    written: Written = (
        module.write_many(folder, NUM_PLAYS) if name == "metaworld_hdf5" else module.write(folder)
    )
    return written


def training_steps(corpus: Path, trained: Path, page: Path) -> Iterator[DemoStep]:
    """A small policy, and its errors on held-out episodes."""
    manifest = str(corpus / "manifests" / MANIFEST)
    yield DemoStep(
        title="train a small policy",
        commands=(("train", manifest, "--recipe", "tiny", "--out", str(trained)),),
    )
    must_beat = [word for name in BEATEN for word in ("--must-beat", name)]
    yield DemoStep(
        title="evaluate it on held-out episodes",
        commands=(("eval", str(trained), "--ema", *must_beat, "--html", str(page)),),
    )
