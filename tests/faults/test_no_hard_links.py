"""A file system without hard links, and one that cannot even rename without replacing: every command that writes works there."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import NoReturn

import pytest

from ingest.corpus import snapshot
from ingest.storage.file_system import FileSystem
from ingest.verify.corpus import verify
from tests.hostile.commands import run
from tests.hostile.corpora import World, make_world

pytestmark = pytest.mark.slow

# Each of these writes to the corpus.
WRITING = ("ingest", "measure", "tier", "compact", "gc", "forget", "manifest build")


def refuse(code: int) -> object:
    def call(self: FileSystem, old: str, new: str, *, old_dir: int, new_dir: int) -> NoReturn:
        raise OSError(code, "not on this file system", new)

    return call


@pytest.fixture(
    scope="module",
    params=[
        {"link": errno.EPERM},
        {"link": errno.EOPNOTSUPP, "rename_new": errno.EINVAL},
    ],
    ids=["no_links", "no_links_no_flags"],
)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Ingested, measured, tiered, captioned, compared, built into a manifest and erased from, all without links."""
    with pytest.MonkeyPatch.context() as patched:
        for name, code in request.param.items():
            patched.setattr(FileSystem, name, refuse(code))
        yield make_world(tmp_path_factory.mktemp("linkless"))


def test_every_command_that_writes(made: World) -> None:
    uid = made_uid(made)
    for name in WRITING:
        ended = run(name, made, uid)
        assert (ended.error, ended.exit_code) == (None, 0), (name, ended)
    assert verify(made.corpus) == []
    assert [path for path in made.corpus.rglob("*") if path.name.endswith(".part")] == []


def test_no_file_has_two_names(made: World) -> None:
    files = [path for path in made.sound.rglob("*") if path.is_file()]
    assert {path.stat().st_nlink for path in files} == {1}


def made_uid(made: World) -> str:
    rows = snapshot.load(made.sound).read(made.sound, "episodes").to_pylist()
    return str(rows[0]["uid"])
