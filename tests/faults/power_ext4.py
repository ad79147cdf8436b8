"""The power cut for real: `python -m tests.faults.power_ext4 [--cuts 8] [--seed 0]`, as root, where a loop device may be mounted.

A command works on an ext4 in a file. At chosen calls the file is copied as it is at that moment: what the kernel still holds in memory is not
in it, as after a power cut. The copy is repaired as at boot (`e2fsck -p` replays the journal), mounted, and the same command is run again.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ingest.verify.corpus import verify
from tests.faults.calls import calling
from tests.faults.power_check import end_of
from tests.faults.writers import WRITERS, ended

# The kernel writes nothing back by itself within 5 minutes, and then with data before names, or in any order.
MOUNTS = ("data=ordered,commit=300", "data=writeback,commit=300", "data=ordered,commit=1")
SIZE_MIB = 96


def why_not(scratch: Path) -> str:
    """Why no ext4 can be mounted here; "" where it can."""
    try:
        image = _made(scratch / "probe.img")
        with _mounted(image, scratch / "probe", MOUNTS[0]):
            pass
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or str(error).encode()
        return f"{said.decode(errors='replace').strip()} (user {os.geteuid()})"
    return ""


def _do(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


def _made(image: Path) -> Path:
    image.parent.mkdir(parents=True, exist_ok=True)
    with image.open("wb") as file:
        file.truncate(SIZE_MIB * 2**20)
    _do("mkfs.ext4", "-q", "-J", "size=4", image)
    return image


@contextmanager
def _mounted(image: Path, at: Path, options: str) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    _do("mount", "-o", f"loop,{options}", image, at)
    try:
        yield at
    finally:
        gc.collect()  # Arrow maps files
        try:
            _do("umount", at)
        except subprocess.CalledProcessError:
            _do("umount", "-l", at)


def cut(name: str, cuts: int, seed: int, scratch: Path) -> tuple[int, list[str]]:
    """Cut the power `cuts` times during a command and once after it; how often that was, and what was wrong."""
    writer, chance = WRITERS[name], random.Random(f"{name} {seed}")
    options = MOUNTS[seed % len(MOUNTS)]
    image = _made(scratch / "disk.img")
    # Everything is prepared in the place in which it is used: corpora know where their raw data is.
    home = scratch / "mounted" / "home"
    with _mounted(image, scratch / "mounted", MOUNTS[0]):
        home.mkdir()
        writer.prepare(home)
        argv = writer.argv(home)
    begun = scratch / "begun.img"
    _do("cp", "--sparse=always", image, begun)
    calls: list[int] = []
    with _mounted(image, scratch / "mounted", options), calling(calls.append):
        assert not (said := ended(argv)), said
        end = end_of(home / "corpus", name)
    chosen = set(chance.sample(range(len(calls)), min(cuts, len(calls))))
    taken: list[tuple[str, Path]] = []

    def take(moment: str) -> None:
        if "commit=1" in options:
            time.sleep(chance.choice((0.0, 1.3)))  # the kernel commits its journal by itself
        taken.append((moment, scratch / f"cut{len(taken)}.img"))
        _do("cp", "--sparse=always", begun, taken[-1][1])

    with _mounted(begun, scratch / "mounted", options):
        with calling(lambda call: take(f"call {call}") if call in chosen else None):
            said = ended(argv)
        take("after the end")
        assert not said, said
    wrong = []
    for moment, left in taken:
        repaired = subprocess.run(["e2fsck", "-p", str(left)], check=False, capture_output=True)
        with _mounted(left, scratch / "mounted", MOUNTS[0]):
            found = _after(name, argv, home / "corpus", moment, end)
        if repaired.returncode > 1:
            found.append(f"e2fsck: {repaired.stdout.decode()}")
        wrong += [f"{name}, {options}, {moment}: {each}" for each in found]
        left.unlink()
    return len(taken), wrong


def _after(name: str, argv: list[str], corpus: Path, moment: str, end: dict[str, Any]) -> list[str]:
    is_over = moment == "after the end"
    if not is_over and (said := ended(argv)):
        return [said]
    found = [f"{f.check.value} {f.path}: {f.message}" for f in verify(corpus)]
    if found:
        return found
    now = end_of(corpus, name)
    if is_over:
        now["left over"] = end["left over"]  # what the next writer sweeps may still be there
    return [f"{key} differs" for key in end if now[key] != end[key]]


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument(
        "--cuts", type=int, default=8, help="Of each command, besides the one after its end."
    )
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("commands", nargs="*", default=list(WRITERS))
    given = asked.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="power_ext4."))
    try:
        if reason := why_not(scratch):
            sys.stdout.write(f"NOT RUN: no ext4 can be mounted here: {reason}\n")
            return 1
        total, wrong = 0, list[str]()
        for name in given.commands:
            shutil.rmtree(scratch / name, ignore_errors=True)
            (scratch / name).mkdir()
            count, found = cut(name, given.cuts, given.seed, scratch / name)
            total, wrong = total + count, wrong + found
            sys.stdout.write(f"{name}: {count} cuts, {len(found)} differences\n")
            sys.stdout.flush()
        sys.stdout.write("".join(f"{each}\n" for each in wrong))
        sys.stdout.write(
            f"{total} cuts of {len(given.commands)} commands, {len(wrong)} differences\n"
        )
        return int(bool(wrong))
    finally:
        with suppress(OSError):
            shutil.rmtree(scratch)


if __name__ == "__main__":
    sys.exit(main())
