"""A corpus under mutation: one of its files is damaged, and a command that opens a corpus reports, refuses, or does not mind."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
import random
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from ingest.corpus.erasure import Intent
from ingest.corpus.layout import open_corpus
from ingest.corpus.snapshot import load
from ingest.curation.tiers.policy import load_policy
from ingest.recipe import Recipe
from jobs.command_table import loaded
from jobs.stages.ingest import recipe_from
from schemas.catalog import TABLES
from schemas.errors import InvariantError, PipelineError
from schemas.manifest import load_facts, load_redaction, load_rows
from schemas.parquet_file import read_table
from tests.curation.lifecycle_corpus import uids
from tests.fuzz.mutations import Outcome, mutated
from tests.hostile import commands
from tests.hostile.corpora import World, make_world
from training.data.latent_reader import LatentFile
from training.data.recording import feature_names
from training.recipe import load_recipe

COMMAND_SHARE = (
    5  # one mutation in so many is seen by a command; the others by the reader of that file
)
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Target:
    """A corpus with something in every room, settings beside it, and each of its files by a name that no run changes."""

    world: World
    uid: str
    names: tuple[str, ...]
    digest: str

    @property
    def settings(self) -> Path:
        return self.world.sound / "settings"


@contextmanager
def fixed_identities() -> Iterator[None]:
    """Run ids and times follow from how many there were, so that the same seed meets the same bytes."""
    number = itertools.count()

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime(2026, 1, 1, 0, 0, next(number) % 60, tzinfo=UTC)

    def identity() -> uuid.UUID:
        return uuid.UUID(int=next(number), version=4)

    with mock.patch("jobs.run_context.datetime", Clock), mock.patch("uuid.uuid4", identity):
        yield


def run(arguments: list[str]) -> int:
    """A command in this process; its own errors become an exit code, any other passes through."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            done = loaded(arguments[0]).main(
                arguments[1:], prog_name=arguments[0], standalone_mode=False
            )
        except PipelineError as error:
            return error.exit_code
        except SystemExit as error:
            return int(error.code or 0)
        except OSError:  # as `jobs.cli.main` has it
            return 1
    return int(done or 0)


def written_corpus(folder: Path) -> Target:
    """Curated, with manifests, latents and a stopped erasure; with a recipe of each kind and a policy beside it."""
    with fixed_identities():
        world = make_world(folder)
    settings = world.sound / "settings"
    settings.mkdir()
    (settings / "recipe.yaml").write_text(yaml.safe_dump(Recipe().model_dump(mode="json")))
    shutil.copy(ROOT / "ingest/curation/tiers/policies/ei30k.yaml", settings / "policy.yaml")
    shutil.copy(ROOT / "training/recipes/lda_1b.yaml", settings / "train.yaml")
    files = [p for p in world.sound.rglob("*") if p.is_file() and p.stat().st_size]
    names = tuple(sorted(p.relative_to(world.sound).as_posix() for p in files))
    uid = uids(world.sound)["a"]
    return Target(world=world, uid=uid, names=names, digest=digest_of(world.sound))


def try_corpus(target: Target, rng: random.Random) -> Outcome:
    """The corpus is as before afterwards."""
    sound = target.world.sound
    kind = rng.choice(sorted({_kind(name) for name in target.names}))
    name = rng.choice([name for name in target.names if _kind(name) == kind])
    others = [(sound / rng.choice(target.names)).read_bytes()]
    changed = mutated((sound / name).read_bytes(), name, others, rng)
    if rng.randrange(COMMAND_SHARE) == 0 and kind != "settings":
        return _by_command(target, name, changed, rng.choice(list(commands.WORDS)))
    path, kept = sound / name, sound.parent / "kept"
    os.rename(path, kept)
    try:
        path.write_bytes(changed)
        _read(sound, path, name)
    except InvariantError as error:
        return Outcome(kind, name, "reader", [f"InvariantError: {error}"])
    except PipelineError:
        pass
    finally:
        os.replace(kept, path)
    return Outcome(kind, name, "reader")


def _kind(name: str) -> str:
    """Every kind of file is chosen as often, however many of it there are."""
    parts = name.split("/")
    folder = "/".join(parts[:2]) if parts[0] in ("catalog", "datasets", "manifests") else parts[0]
    return f"{folder}{Path(name).suffix}" if parts[0] != "settings" else "settings"


def _read(corpus: Path, path: Path, name: str) -> None:
    """By the smallest reader of the product that opens such a file."""
    room, suffix = name.split("/")[0], path.suffix
    if room == "settings":
        SETTINGS[path.name](path)
    elif suffix == ".safetensors":
        LatentFile(path, name)
    elif path.name == "intent.json":
        Intent.read(open_corpus(corpus), path.parent)
    elif room == "manifests":
        _read_manifest(path.parent)
    elif room == "catalog":
        _read_catalog(corpus, name.split("/")[1])
    elif suffix == ".parquet":
        read_table(path)
    elif path.name == "info.json":
        feature_names(corpus, path.parents[1].relative_to(corpus).as_posix())
    else:
        open_corpus(corpus)


def _read_catalog(corpus: Path, table: str) -> None:
    current = load(corpus)
    if table in TABLES:
        current.read(corpus, table)


def _read_manifest(folder: Path) -> None:
    """Each of its files, whichever is damaged."""
    for read in (load_facts, load_rows, load_redaction):
        with suppress(PipelineError):
            read(folder)


SETTINGS: dict[str, Callable[[Path], object]] = {
    "recipe.yaml": recipe_from,
    "policy.yaml": lambda path: load_policy(str(path)),
    "train.yaml": load_recipe,
}


def _by_command(target: Target, name: str, changed: bytes, command: str) -> Outcome:
    world = target.world
    shutil.rmtree(world.corpus)
    shutil.rmtree(world.out, ignore_errors=True)  # what the command before wrote
    world.out.with_suffix(".html").unlink(missing_ok=True)
    shutil.copytree(world.sound, world.corpus, copy_function=os.link)
    path = world.corpus / name
    path.unlink()
    path.write_bytes(changed)
    end = commands.run(command, world, target.uid)
    problems = []
    if end.exit_code not in (0, 1, 2):
        problems.append(f"{command}: exit {end.exit_code}, {end.error!r}"[:400])
    if digest_of(world.sound) != target.digest:
        problems.append(f"{command}: something outside changed")
    return Outcome(_kind(name), name, command, problems)


def digest_of(folder: Path) -> str:
    sha = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        sha.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return sha.hexdigest()
