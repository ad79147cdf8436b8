"""Argument parsing of commands: CORPUS may come from the environment, SOURCE may be detected, and spellings of earlier versions are refused with the new one."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperOption

from jobs.ui.envelope import Running
from jobs.ui.options import CORPUS_ENV, DETECT

ANY = "*"  # every command that has the new option
_IMAGES_OR_TEXT = "eicorpus latents images CORPUS, or eicorpus latents text CORPUS --vlm FOLDER"
# (command, old word): new words. An argument is written in capitals.
RENAMED = {
    (ANY, "--corpus"): "CORPUS",
    (ANY, "--what-if"): "--dry-run",
    (ANY, "--set"): "--dataset",
    (ANY, "--recipe"): "--config",
    (ANY, "--time-limit"): "--time-limit-s",
    (ANY, "--timeout-s"): "--time-limit-s",
    (ANY, "--memory-limit"): "--memory-limit-mb",
    (ANY, "--memory-mb"): "--memory-limit-mb",
    (ANY, "--steps"): "--sampling-steps",
    (ANY, "--encoder-weights"): "--weights",
    (ANY, "--encoder-hub-id"): "--hub-id",
    (ANY, "--num-gpus"): "--gpus-per-encoder",
    (ANY, "--vlm-pictures"): "--vlm-frame-every-s",
    ("ingest", "--threads"): "--decoder-threads",
    ("ingest", "--retry-poison"): "--retry-crash-looping",
    ("verify", "--workers"): "--threads",
    ("digest", "--workers"): "--threads",
    ("manifest verify", "--workers"): "--threads",
    ("train", "--manifest"): "MANIFEST",
    ("train", "--workers"): "--loader-workers",
    ("train", "--num-workers"): "--ray-workers",
    ("measure", "--list"): "eicorpus list measures",
    ("latents", "--list"): "eicorpus list encoders",
    ("latents", ANY): _IMAGES_OR_TEXT,
    ("models", "list"): "eicorpus list models",
    ("export", "iceberg"): "eicorpus export CORPUS --to iceberg",
    ("", "sources"): "eicorpus list sources",
}


def new_spelling(command: str, old: str, has: Collection[str]) -> str | None:
    """What replaced an option or a command; None if nothing did.

    Args:
        command: "manifest verify"; empty for `eicorpus` itself.
        has: the options and arguments of the command: {"--dry-run", "CORPUS"}.
    """
    general = RENAMED.get((ANY, old))
    return (
        RENAMED.get((command, old))
        or RENAMED.get((command, ANY))
        or (general if general in has else None)
    )


_SHORT_TYPES = {bool: "", int: "INT", float: "NUMBER"}  # in help
FIRST = ("corpus", "source")  # arguments that may be left out where they come first


class Command(TyperCommand):
    """A command that counts its arguments: one less than it needs means that the first is left out."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._needed = [p for p in self.params if isinstance(p, TyperArgument) and p.required]
        self._is_counted = bool(self._needed) and self._needed[0].name in FIRST
        if self._is_counted:
            self._needed[0].required = False  # in the help too
        for each in self.params:
            # typer writes <bool>, as if a flag took a value, and <int range>, which leaves long names no room
            if isinstance(each, TyperArgument | TyperOption) and each.metavar is None:
                each.metavar = _SHORT_TYPES.get(each.type_descriptor.annotation)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        Running.command = words_of(ctx)
        if args and (new := RENAMED.get((words_of(ctx), args[0]))) and args[0].isalpha():
            ctx.fail(f"{args[0]} is not valid here; use {new}")
        rest: list[str] = super().parse_args(ctx, self._with_first(ctx, args))
        return rest

    def _with_first(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing or not self._is_counted:
            return args
        values, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        num_missing = sum(values.get(each.name) in (None, ()) for each in self._needed)
        if num_missing == 0 or values.get("help"):
            return args
        if self._needed[0].name == "source":
            return [DETECT, *args]
        if corpus := os.environ.get(CORPUS_ENV):
            return [corpus, *args]
        if num_missing == 1:
            ctx.fail("CORPUS is missing")
        return args


def words_of(context: typer.Context) -> str:
    """`manifest build`, however the program was started: `eicorpus`, or `python -m jobs`."""
    return context.command_path.removeprefix(context.find_root().command_path).strip()


def usage(context: typer.Context, *, without_corpus: bool = False) -> str:
    """`eicorpus query CORPUS SQL`: a command with everything that it requires."""
    words = [context.command_path]
    for each in context.command.params:
        if without_corpus and each.envvar == CORPUS_ENV:
            continue
        name = (each.metavar or each.name or "").upper()
        if isinstance(each, TyperArgument):
            is_optional = not each.required and each.name != "corpus"
            words.append(f"[{name}]" if is_optional else name)
        elif each.required:
            words.append(f"{each.opts[0]} {name}")
    return " ".join(words)


def forms(context: typer.Context) -> list[str]:
    """How to write a command; with CORPUS, also how to write it without."""
    lines = [f"usage: {usage(context)}"]
    if any(each.envvar == CORPUS_ENV for each in context.command.params):
        short = usage(context, without_corpus=True)
        lines.append(f"   or: export {CORPUS_ENV}=CORPUS; {short}")
    return lines
