"""Every command that writes to a corpus, on a tiny one that is ready for it: `prepare` makes it, `argv` is what a user types."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from typer.main import get_command

from jobs.cli import app
from tests.curation.lifecycle_corpus import build, publish_manifest, uids
from tests.faults.power import SAVED_AT_NS
from tests.faults.toy import write_toy
from tests.jobs.build_cases import write_spec

TOY = {"a": "good", "b": "quarantine", "c": "good"}
MEASURES = ("length", "look", "trajectory", "rows")


@dataclass(frozen=True, kw_only=True)
class Writer:
    """`prepare` gets an empty folder and leaves `corpus` and `raw` in it; `words` are filled with {corpus}, {raw}, {spec}, {uid}, {qwen}."""

    words: Sequence[str]
    prepare: Callable[[Path], None]

    def argv(self, home: Path) -> list[str]:
        filled = {"corpus": home / "corpus", "raw": home / "raw", "spec": home / "corpus.yaml"}
        if any("{qwen}" in word for word in self.words):
            filled["qwen"] = _tiny_qwen()
        uid = ""
        if any("{uid}" in word for word in self.words):
            uid = uids(home / "corpus")["a"] if (home / "corpus").exists() else ""
        return [word.format(uid=uid, **filled) for word in self.words]


@cache
def _tiny_qwen() -> Path:
    from tests.curation.caption.tiny_qwen import write_tiny_qwen  # imports torch

    folder = Path(tempfile.mkdtemp(prefix="tiny_qwen."))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return write_tiny_qwen(folder)


@cache
def _commands() -> Any:
    """Built once: it takes typer as long as a small command takes."""
    return get_command(app)


def ended(words: Sequence[str]) -> str:
    """A command in this process: "" when it ended well, else how it did not."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(out):
        try:
            exit_code = _commands().main(list(words), standalone_mode=False)
        except Exception as error:  # noqa: BLE001  whatever it is, the caller reports it
            return f"{words[0]}: {error!r}"
    return f"{words[0]} ended with {exit_code}: {out.getvalue()}" if exit_code else ""


def do(words: Sequence[str]) -> None:
    """A command in this process, which must end well."""
    assert not (said := ended(words)), said


def raw_only(home: Path) -> None:
    write_toy(home / "raw", TOY)


def ingested(home: Path) -> None:
    raw_only(home)
    do(INGEST.argv(home))


def measured(home: Path) -> None:
    ingested(home)
    do(MEASURE.argv(home))


def tiered(home: Path) -> None:
    measured(home)
    do(["tier", str(home / "corpus")])


def built_to_tiers(home: Path) -> None:
    """All that a manifest of a spec needs."""
    spec = write_spec(home, TOY)
    for path in (home / "raw").rglob("*"):
        os.utime(path, ns=(SAVED_AT_NS, SAVED_AT_NS))  # raw data of another time is new data
    do(["build", str(spec), "tiers", "--workers", "0"])


def living(home: Path) -> None:
    """Rows in every table, several parts, a manifest."""
    build(home, TOY)
    publish_manifest(home / "corpus")


def compacted(home: Path) -> None:
    living(home)
    do(["compact", str(home / "corpus")])


def rewritten(home: Path) -> None:
    """No manifest holds the parts from before."""
    build(home, TOY)
    do(["compact", str(home / "corpus")])


ONLY = [word for name in MEASURES for word in ("--only", name)]
INGEST = Writer(
    words=["ingest", "tests.faults.toy:Toy", "{raw}", "--out", "{corpus}", "--workers", "0",
           "--max-quarantined", "1"],
    prepare=raw_only,
)  # fmt: skip
MEASURE = Writer(words=["measure", "{corpus}", "--workers", "0", *ONLY], prepare=ingested)
WRITERS: dict[str, Writer] = {
    "ingest": INGEST,
    "measure": MEASURE,
    "tier": Writer(words=["tier", "{corpus}"], prepare=measured),
    "caption": Writer(words=["caption", "{corpus}", "--backend", "rules"], prepare=ingested),
    "dedup": Writer(words=["dedup", "{corpus}"], prepare=measured),
    "manifest": Writer(
        words=["manifest", "build", "{corpus}", "m", "--workers", "0"], prepare=tiered
    ),
    "build": Writer(
        words=["build", "{spec}", "manifests.train", "--workers", "0"], prepare=built_to_tiers
    ),
    "latents": Writer(
        words=[
            "latents",
            "images",
            "{corpus}",
            "--encoder",
            "patch_dct",
            "--workers",
            "0",
            "--batch",
            "8",
        ],
        prepare=ingested,
    ),
    "compact": Writer(words=["compact", "{corpus}"], prepare=living),
    "gc": Writer(words=["gc", "{corpus}", "--keep", "1", "--older-than", "0"], prepare=compacted),
    "gc_parts": Writer(
        words=["gc", "{corpus}", "--keep", "1", "--older-than", "0"], prepare=rewritten
    ),
    "forget": Writer(words=["forget", "{corpus}", "{uid}"], prepare=living),
}
if find_spec("transformers") is not None:  # else NOT RUN: no extra `vlm`
    WRITERS["text_features"] = Writer(
        words=["latents", "text", "{corpus}", "--vlm", "{qwen}", "--device", "cpu"],
        prepare=ingested,
    )
