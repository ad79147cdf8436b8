"""The folder of a run, beside its checkpoints: what it is a run of, its resolved recipe, and a line for every so many steps.

run.json       RunFacts: the manifest by path and digest, the recipe by digest
manifest.json  the page of the manifest, as it was
recipe.yaml    the recipe, resolved
log.jsonl      one object a line
bad.jsonl      samples that could not be read, in whose place others were drawn; skipped.jsonl: steps that were not finite
stop           where it is there, the run stops after its step, as at a signal. The next start removes it
.lock          held by the process that trains here
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from schemas.errors import ConfigError, SourceError, system_error_text
from schemas.invalid import reason
from schemas.json_text import DOCUMENT, JsonLimits, parse_json, read_json
from schemas.manifest import FACTS_FILE, FACTS_LIMITS
from schemas.regular_file import lines_of_regular, read_regular
from schemas.yaml_text import SETTINGS, parse_yaml
from training.durable import make_folder, write_durably
from training.recipe import TrainRecipe, stored_recipe

VERSION = 1  # a reader refuses a higher one
RUN_FILE, RECIPE_FILE, LOG_FILE = "run.json", "recipe.yaml", "log.jsonl"
RESULT_FILE, STOP_FILE, LOCK_FILE = "result.json", "stop", ".lock"
MAX_LOG_BYTES = 16 << 30  # 10^7 lines of 1,600 characters
LINE_LIMITS = JsonLimits(max_bytes=1 << 20, max_elements=10_000)
# By which means, not what: another value gives the same run, but for the order in which numbers are added.
FREE = {
    f"run.{key}"
    for key in (
        "accumulate",
        "checkpoint_activations",
        "checkpoint_every",
        "checkpoint_minutes",
        "compile",
        "eval_every",
        "eval_samples",
        "keep_best",
        "keep_checkpoints",
        "loader",
        "log_every",
        "max_bad_samples",
        "max_skipped_steps",
        "num_workers",
        "parallel",
        "shard_ranks",
    )
} | {"name", "about"}
FREE_SECTION = "data.latent_cache"  # where bytes come from, never which


class RunFacts(BaseModel):
    """What a run is of. `manifest`: its folder, as it was given; `manifest_sha256`: of its rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    run_version: int = VERSION
    manifest: str
    manifest_name: str
    manifest_sha256: str
    recipe_sha256: str
    init_from: str = ""  # the run whose weights it began with
    init_averages: bool = False  # of which it took the averaged ones
    init_lam: str = ""  # and the one whose latent action model
    image_text_sha256: str = ""  # of the file of image-text pairs


def load_run(out: Path) -> tuple[RunFacts, TrainRecipe] | None:
    """What the run in this folder is of; None where there is no run.

    Raises:
        ConfigError: there is something, but it is damaged or of a newer version.
    """
    if not (out / RUN_FILE).exists():
        return None
    try:
        raw = read_json(out / RUN_FILE, limits=DOCUMENT)
        if int(raw["run_version"]) > VERSION:
            problem = (
                f"run version {raw['run_version']}; this eicorpus reads up to version {VERSION}"
            )
            raise ConfigError(problem, remedy="install a newer eicorpus", where=str(out))
        kept = parse_yaml(read_regular(out / RECIPE_FILE, max_bytes=SETTINGS.max_bytes))
        recipe = TrainRecipe.model_validate(stored_recipe(kept))
        return RunFacts.model_validate(raw), recipe
    except (SourceError, ValueError, KeyError, TypeError) as error:
        message = f"not a complete run ({reason(error)})"
        raise ConfigError(
            message, remedy="choose another --out, or remove this one", where=str(out)
        ) from error


def check_same(
    out: Path,
    facts: RunFacts,
    recipe: TrainRecipe,
    *,
    may_change_manifest: bool = False,
    may_change_recipe: bool = False,
) -> None:
    """A run goes on only as what it began.

    Raises:
        ConfigError: it was begun with another manifest or recipe, or from other weights; the message says what differs.
    """
    begun = load_run(out)
    if begun is None:
        return
    was, old = begun
    other = f"choose another --out, or add {{}} to resume in {out}"
    for option, before, now in (
        ("--init-from", was.init_from, facts.init_from),
        ("--init-lam", was.init_lam, facts.init_lam),
    ):
        if not may_change_recipe and (problem := _other_base(before, now, option)):
            raise ConfigError(problem, remedy=other.format("--allow-other-recipe"), where=str(out))
    if was.init_averages != facts.init_averages and not may_change_recipe:
        problem = "the run was started with other weights of --init-from"
        how = "add" if was.init_averages else "remove"
        raise ConfigError(f"{problem}; {how} --init-averages", remedy=other.format("--allow-other-recipe"), where=str(out))  # fmt: skip
    if was.manifest_sha256 != facts.manifest_sha256 and not may_change_manifest:
        problem = f"the run was started with manifest {was.manifest_name} ({was.manifest_sha256[:12]}), not {facts.manifest_name} ({facts.manifest_sha256[:12]})"
        raise ConfigError(problem, remedy=other.format("--allow-other-manifest"), where=str(out))
    if was.image_text_sha256 != facts.image_text_sha256 and not may_change_recipe:
        problem = "the file image_text.data is another than the run was started with"
        raise ConfigError(problem, remedy=other.format("--allow-other-recipe"), where=str(out))
    odd = [line for key, line in differences(old, recipe) if not _is_free(key)]
    if odd and not may_change_recipe:
        more = f" and {len(odd) - 6} more" if len(odd) > 6 else ""
        problem = f"the run was started with another recipe: {', '.join(odd[:6])}{more}"
        if (
            old.routing.draw != recipe.routing.draw
        ):  # the default of runs from before `routing.draw` was another
            problem += f"; add --set routing.draw={old.routing.draw} to keep its sampling"
        raise ConfigError(problem, remedy=other.format("--allow-other-recipe"), where=str(out))


def _is_free(key: str) -> bool:
    return key in FREE or f"{key}.".startswith(f"{FREE_SECTION}.")


def going_on(out: Path, facts: RunFacts) -> RunFacts:
    """Of a run that has weights already: whatever is said now, it began with those of then."""
    begun = load_run(out)
    if begun is None:
        return facts
    names = ("init_from", "init_averages", "init_lam")
    return facts.model_copy(update={name: getattr(begun[0], name) for name in names})


def _other_base(was: str, now: str, option: str) -> str:
    """What is to be said against `now`, or nothing. Folders are compared: the weights of then may be gone."""
    if bool(was) == bool(now) and Path(was).resolve() == Path(now).resolve():
        return ""
    began, asked = (
        f"from the weights of {each}" if each else "from new weights" for each in (was, now)
    )
    again = f"add {option} {was}" if was else f"remove {option}"
    return f"the run was started {began}, not {asked}; {again}"


def differences(old: TrainRecipe, new: TrainRecipe) -> Iterator[tuple[str, str]]:
    """(key, "key: was -> is") of every leaf that differs."""
    was, now = (dict(_leaves(each.model_dump(mode="json"))) for each in (old, new))
    for key in sorted(was.keys() | now.keys()):
        if was.get(key) != now.get(key):
            yield key, f"{key} {was.get(key)} -> {now.get(key)}"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(each, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def write_run(out: Path, facts: RunFacts, recipe: TrainRecipe, manifest: Path) -> None:
    """Begin a run, or go on with one; `run.json` last, by which it is known."""
    make_folder(out)
    page = read_regular(manifest / FACTS_FILE, max_bytes=FACTS_LIMITS.max_bytes)
    write_durably(out / FACTS_FILE, page)
    content = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_durably(out / RECIPE_FILE, content)
    write_durably(out / RUN_FILE, json.dumps(facts.model_dump(), indent=1, sort_keys=True))


def cut_log(out: Path, step: int) -> None:
    """Forget the lines after `step`: of steps that are done again."""
    path = out / LOG_FILE
    if not path.exists():
        return
    write_durably(path, (line for line in _lines(path) if _step_of(line) <= step))


def logged(out: Path, step: int) -> dict[str, Any]:
    """The line of a step. Nothing where there is none."""
    path = out / LOG_FILE
    lines = _lines(path) if path.exists() else iter(())
    return next((dict(parse_json(line)) for line in lines if _step_of(line) == step), {})


def _lines(path: Path) -> Iterator[bytes]:
    return lines_of_regular(path, max_bytes=MAX_LOG_BYTES, max_line_bytes=LINE_LIMITS.max_bytes)


def _step_of(line: bytes) -> float:
    """A line that was cut by a power failure is of no step."""
    try:
        return int(parse_json(line, limits=LINE_LIMITS)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def append_log(out: Path, line: dict[str, Any]) -> None:
    """One object, written to disk at once."""
    with (out / LOG_FILE).open("a") as file:
        file.write(json.dumps(line) + "\n")


def write_result(out: Path, result: dict[str, Any]) -> None:
    """What came of it."""
    write_durably(out / RESULT_FILE, json.dumps(result, indent=1))


def load_result(out: Path) -> dict[str, Any]:
    """What was written last."""
    return dict(read_json(out / RESULT_FILE, limits=DOCUMENT))


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Nobody else of this machine trains into it. The kernel lets go when the process dies, however it dies.

    Raises:
        ConfigError: another process does.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            problem = f"another process is training in this folder ({system_error_text(error)})"
            raise ConfigError(
                problem,
                remedy=f"wait for it, or stop it with `touch {out / STOP_FILE}`",
                where=str(out),
            ) from error
        yield


def ask_to_stop(out: Path) -> None:
    """From wherever the folder can be seen: a signal reaches one machine, and Ray takes those of its workers."""
    out.mkdir(parents=True, exist_ok=True)
    (out / STOP_FILE).touch()


def is_stop_requested(out: Path) -> bool:
    return (out / STOP_FILE).exists()


def forget_stop(out: Path) -> None:
    """What was asked of the run before."""
    (out / STOP_FILE).unlink(missing_ok=True)
