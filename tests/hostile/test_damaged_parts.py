"""A damaged Parquet file of a corpus: every command that meets it says which file, and none ends as a bug of ours."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.curation.lifecycle_corpus import uids
from tests.hostile.commands import WORDS, run
from tests.hostile.corpora import World, make_world

pytestmark = pytest.mark.slow

# `snapshot diff` names snapshot 1, which `gc` has removed here, and `eval` a run whose manifest it has changed.
LEFT_OUT = ("ingest", "caption", "export", "snapshot diff", "eval")
READ_ALL = [name for name in WORDS if name not in LEFT_OUT]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Without the erasure that `make_world` stops in the middle: every command refuses that before it reads a part."""
    made = make_world(tmp_path_factory.mktemp("world"))
    assert run("gc", made, "").exit_code == 0
    shutil.rmtree(made.sound)
    shutil.copytree(made.corpus, made.sound)
    return made


def _magic(data: bytes) -> bytes:
    return data[:-4] + b"PARX"


def _footer(data: bytes) -> bytes:
    size = int.from_bytes(data[-8:-4], "little")
    return data[: -8 - size] + b"\xff" * 40 + data[-8 - size + 40 :]


@pytest.mark.parametrize(("table", "damage"), [("episodes", _magic), ("measurements", _footer)])
def test_no_command_takes_a_damaged_part_for_a_bug(
    world: World, table: str, damage: Callable[[bytes], bytes]
) -> None:
    uid = uids(world.sound)["a"]
    ends = {}
    for name in READ_ALL:
        shutil.rmtree(world.corpus)
        shutil.copytree(world.sound, world.corpus, copy_function=os.link)
        shutil.rmtree(world.out, ignore_errors=True)  # of the command before
        for part in sorted((world.corpus / "catalog" / table).glob("*.parquet")):
            data = part.read_bytes()
            part.unlink()
            part.write_bytes(damage(data))
        ends[name] = run(name, world, uid)
    wrong = {
        n: (e.exit_code, repr(e.error)) for n, e in ends.items() if e.exit_code not in (0, 1, 2)
    }
    assert wrong == {}
    assert ends["verify"].exit_code == 1
    refused = {name: str(end.error) for name, end in ends.items() if end.exit_code == 2}
    assert refused.keys() & {"tier", "digest", "manifest build"}
    unnamed = {name: error for name, error in refused.items() if f"catalog/{table}" not in error}
    assert unnamed == {}


def test_a_damaged_manifest_is_named(world: World, tmp_path: Path) -> None:
    shutil.rmtree(world.corpus)
    shutil.copytree(world.sound, world.corpus)
    for path in (world.corpus / "manifests").rglob("*.parquet"):
        path.write_bytes(_magic(path.read_bytes()))
    uid = uids(world.sound)["a"]
    for name in ("manifest diff", "manifest verify", "forget"):
        end = run(name, world, uid)
        assert end.exit_code in (1, 2), (name, end)
        if end.exit_code == 2:
            assert "manifests" in str(end.error)
