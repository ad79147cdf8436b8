"""Names that are stored or sent keep their spelling: a corpus, a manifest and a run of an earlier version must stay readable.

`stored_names.tsv` has the keys of every file format and the values of every enumeration. What a generated page of docs/reference/
lists is not repeated: catalog columns, quarantine codes, measurements, facts, keys of recipes and policies, the JSON envelope, options
of the command line (tests/test_docs.py compares those pages with the code). After an intended change:
`.venv/bin/python -m tests.test_stored_names`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from enum import StrEnum
from importlib import import_module
from inspect import getmembers, isclass
from pathlib import Path
from types import ModuleType

from pydantic import BaseModel

import ingest
import schemas
import training

STORED = Path(__file__).with_name("stored_names.tsv")
ON_PAGES = (
    "ingest.recipe",
    "ingest.curation.tiers.policy",
    "ingest.verify.finding",
    "schemas.errors",
    "training.recipe",
)
FOREIGN = ("ingest.verify.lerobot_reader.",)  # run by another interpreter


def modules() -> Iterator[ModuleType]:
    for package in (ingest, schemas, training):
        for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if each.name not in ON_PAGES and not each.name.startswith(FOREIGN):
                yield import_module(each.name)
    yield import_module("adapters.lerobot.mapping")  # files of a user


def stored_names() -> list[str]:
    """`Class<TAB>its keys or values`, sorted."""
    rows = set()
    for module in modules():
        for _, kind in getmembers(module, isclass):
            if kind.__module__ != module.__name__:
                continue
            if issubclass(kind, BaseModel) and kind.model_fields:
                names = [field.alias or name for name, field in kind.model_fields.items()]
                rows.add(f"{kind.__name__}\t{' '.join(names)}")
            elif issubclass(kind, StrEnum):
                rows.add(f"{kind.__name__}\t{' '.join(kind)}")
    return sorted(rows)


def test_stored_names_keep_their_spelling() -> None:
    assert stored_names() == STORED.read_text().splitlines()


if __name__ == "__main__":
    STORED.write_text("\n".join(stored_names()) + "\n")
