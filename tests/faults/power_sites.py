"""Is every statement that makes something durable needed? `python -m tests.faults.power_sites [--every] [SITE ...]`.

Each call site is left out for real, in each command that reaches it, until a power cut does harm. Without `--every` only the telling moments are
cut. Prints a line for each site.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from tests.faults.call_sites import CallSite, call_sites
from tests.faults.power import FATES, KEPT, Disk, Fate, by_chance
from tests.faults.power_check import Violation, cuts, recorded, telling
from tests.faults.writers import WRITERS

_WORKING_COPY = "a working copy: the bucket has what was committed, and `tests/simulation` plays the loss of a machine"
# {call site: why a power cut of this model cannot tell that it is needed}
BEYOND = {
    "ingest/executors/node_proof.py:shared:0": "read by another machine, whose view of a shared folder is not modelled",
    "ingest/executors/node_proof.py:_of_corpus:0": "read by another machine, whose view of a shared folder is not modelled",
    "ingest/models/hand_landmarker_file.py:write_task:0": "a file outside a corpus",
    "ingest/latents/encode_file.py:_writing:0": "on a cluster another machine writes the file, and the driver's sync does not reach it",
    "ingest/corpus/working_copy.py:keep:0": _WORKING_COPY,
    "ingest/corpus/working_copy.py:keep:1": _WORKING_COPY,
    "ingest/corpus/working_copy.py:relink:0": _WORKING_COPY,
    "ingest/corpus/working_copy.py:make_corpus:0": _WORKING_COPY,
    "ingest/corpus/working_copy.py:attach:0": _WORKING_COPY,
    "ingest/corpus/working_copy.py:attach:1": _WORKING_COPY,
    "ingest/corpus/working_copy.py:attach:2": _WORKING_COPY,
    "ingest/corpus/writer.py:complete_meta:0": _WORKING_COPY,
    "ingest/corpus/kept_states.py:remove_states:0": _WORKING_COPY,
    "ingest/corpus/working_copy.py:keep:2": _WORKING_COPY,
    "ingest/corpus/working_copy.py:erase_copies:0": _WORKING_COPY,
    "ingest/corpus/working_copy.py:keep_state:0": _WORKING_COPY,
    "ingest/maintenance/erase_bucket.py:append:0": _WORKING_COPY,
    "ingest/maintenance/pack_latents.py:_write:0": "no command of these tests packs latents",
    "ingest/corpus/latent_packs.py:_rewrite:0": "no command of these tests erases an episode from a pack",
    "ingest/corpus/reviews.py:publish_pending:0": "saves time alone: `publish_tables` synchronises again, when reviewers wait",
    "ingest/storage/local.py:put_if_absent:2": "snapshots synchronise just before; of `put_if_absent` alone: tests/ingest/test_storage.py",
}
# Call sites whose harm is found after minutes only: `make power` looks for it, the tests do not.
RARE = frozenset({"ingest/video/encode.py:seal:0"})
APART = ("ingest/export/", "training/")  # test_export_power.py, tests/training/test_run_power.py
CHANCES = 3  # fates by chance of each moment
# One harm is enough: first the commands that miss most calls, last those whose states take longest to check.
FIRST, LAST = ("ingest", "forget"), ("build", "latents", "text_features")
COMMANDS = [*FIRST, *sorted(WRITERS.keys() - {*FIRST, *LAST}), *(n for n in LAST if n in WRITERS)]


def sites_of_commands() -> list[CallSite]:
    return [site for site in call_sites() if not site.file.startswith(APART)]


def reached_by(home: Path) -> dict[CallSite, list[str]]:
    """The commands that come by each call site; a site that no command reaches is absent."""
    found: dict[CallSite, list[str]] = {}
    for name in COMMANDS:
        passed: dict[CallSite, None] = {}
        recorded(name, home / name / "home", lambda site, passed=passed: passed.setdefault(site))  # type: ignore[misc]
        for site in passed:
            found.setdefault(site, []).append(name)
    return found


def harm_without(
    site: CallSite, names: Iterable[str], home: Path, *, is_every: bool = False
) -> Violation | None:
    """The first violation of a command that runs without this call."""

    def few(disk: Disk, cut: int) -> Iterator[Fate]:
        yield from (fate for fate in FATES if fate is not KEPT)

    def many(disk: Disk, cut: int) -> Iterator[Fate]:
        yield from (by_chance(CHANCES * cut + number) for number in range(CHANCES))
        yield from disk.fates_of_one()

    for name in names:
        shutil.rmtree(home, ignore_errors=True)
        run = recorded(name, home / "home", site.__eq__)
        moments: Container[int] = range(len(run.journal.events)) if is_every else telling(run)
        for fates in (few, many):  # most harm comes of the few, at some late moment
            _, wrong = cuts(run, fates, at=moments.__contains__, stops_at_first=True)
            if wrong:
                return wrong[0]
    return None


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--every", action="store_true", help="Cut after every change.")
    asked.add_argument("sites", nargs="*", help="Beginnings of FILE:FUNCTION:NUMBER; else all.")
    given = asked.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory(prefix="power_sites.") as scratch:
        reached = reached_by(Path(scratch) / "reached")
        for site in sites_of_commands():
            if given.sites and not str(site).startswith(tuple(given.sites)):
                continue
            names = reached.get(site, [])
            harm = harm_without(site, names, Path(scratch) / "one", is_every=given.every)
            missed += harm is None
            sys.stdout.write(f"{site}: {harm or f'NOT MISSED by {names}'}\n")
            sys.stdout.flush()
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
