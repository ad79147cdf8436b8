"""The commands of `eicorpus` by name: where each one is, and its line in `eicorpus --help`.

A command's module is imported when the command runs or when its own help is printed. `eicorpus --help` imports none.
"""

from __future__ import annotations

from collections import UserDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from jobs.local_paths import with_local_paths


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A command before its module is imported."""

    place: str  # "module:function", or "module:app" of a group of commands
    help: str  # equal to the command's own help: tests/test_docs.py compares them


def _listed(place: str, text: str) -> Listed:
    return Listed(place=place, help=text)


COMMANDS: dict[str, Listed] = {
    "ingest": _listed(
        "jobs.ingest:command",
        "Bring raw data into a corpus. Run it again after any stop: it resumes.",
    ),
    "doctor": _listed(
        "jobs.doctor:command",
        "Look before you ingest: facts and probe verdicts, ranges, acceptance tests, hands drawn into the pictures.",
    ),
    "query": _listed("jobs.query:query", "Ask the catalog in SQL. It only reads."),
    "measure": _listed(
        "jobs.measure:command",
        "Measure what is missing or was measured by an older version. Stop it at any time; run it again to go on.",
    ),
    "models": _listed("jobs.models:app", "Model files: list them, get one."),
    "caption": _listed(
        "jobs.caption:command",
        "Caption what lacks a caption. Stop it at any time; run it again to go on.",
    ),
    "tier": _listed(
        "jobs.tier:command",
        "Give every segment its tier: high, low, actionless or excluded, with reasons. Numbers are only read, never made.",
    ),
    "explain": _listed(
        "jobs.explain:command",
        "Why each segment of an episode has its tier, or why the episode was never committed.",
    ),
    "dedup": _listed(
        "jobs.dedup:command",
        "Find copies of one recording across sources and releases, and say which to keep. Nothing is deleted.",
    ),
    "latents": _listed(
        "jobs.latents:command",
        "Encode what has no latents of this encoder yet. Stop it at any time; run it again to go on.",
    ),
    "manifest": _listed(
        "jobs.manifest:app", "What a training run sees: build, show, diff, verify."
    ),
    "train": _listed(
        "jobs.train:command",
        "Train, or go on training: run the same command again after whatever stopped it. Several processes: torchrun, or --ray.",
    ),
    "eval": _listed(
        "jobs.eval:command",
        "Ask a trained network for actions and pictures of segments that it never saw, and compare with doing nothing.",
    ),
    "serve-policy": _listed(
        "jobs.serve_policy:command",
        "Answer observations with chunks of absolute targets, until Ctrl-C. Clients of openpi and starVLA can talk to it.",
    ),
    "report": _listed(
        "jobs.report:command",
        "Funnel, hours, histograms with thresholds, best and worst segments, captions, what was set aside: one HTML file.",
    ),
    "stale": _listed(
        "jobs.stale:command",
        "Count episodes written under another recipe or adapter version. They stay as they are; a new corpus renews them.",
    ),
    "snapshot": _listed("jobs.snapshot:app", "The history of a catalog: list, diff."),
    "compact": _listed(
        "jobs.compact:command",
        "Merge small parts of the catalog, so that queries open fewer files. Not a row changes; `gc` removes the old parts.",
    ),
    "gc": _listed(
        "jobs.gc:command",
        "Remove old snapshots, parts that nobody names and staging that nobody came back for. Episodes are never touched.",
    ),
    "forget": _listed(
        "jobs.forget:command",
        "Erase episodes from datasets, latents, every table and every snapshot. The raw data is not touched; there is no way back but `ingest --restore` from it.",
    ),
    "export": _listed("jobs.export:app", "A corpus in the forms of others: iceberg."),
    "verify": _listed(
        "jobs.verify:command",
        "Compare everything in a corpus with its latest snapshot. Exit 1 when anything does not hold.",
    ),
    "digest": _listed(
        "jobs.verify:digest_command",
        "Print the content digest, recomputed from the files: equal content, equal digest, whatever made it.",
    ),
    "demo": _listed(
        "jobs.demo.command:command",
        "Turn seven generated raw sources into a corpus, a manifest and a small trained policy.",
    ),
    "peer": _listed(
        "jobs.peer:command",
        "Build the environment in which LeRobot 0.3.3 reads a corpus (1.4 GB, about a minute).",
    ),
    "sources": _listed(
        "jobs.sources:command",
        "Every source that can be ingested, its container, and where its page is.",
    ),
}


@cache
def loaded(name: str) -> Any:
    """The command or group itself; imports its module."""
    module, _, attribute = COMMANDS[name].place.partition(":")
    target = getattr(import_module(module), attribute)
    outer = typer.Typer(add_completion=False)
    if isinstance(target, typer.Typer):
        for info in target.registered_commands:
            info.callback = info.callback and with_local_paths(info.callback)
        outer.add_typer(target, name=name)
    else:
        outer.command(name)(with_local_paths(target))
        outer.callback()(_group)  # of one command alone typer makes no group
    group = typer.main.get_command(outer)
    assert isinstance(group, TyperGroup)
    return group.commands[name]


def _group() -> None:
    """Holds the commands."""


class _Commands(UserDict[str, Any]):
    """A command is imported when it is taken out, not when its name is read."""

    def __getitem__(self, name: str) -> Any:
        return loaded(name) if name in self.data else super().__getitem__(name)


class LazyGroup(TyperGroup):
    """The top of the command line: lists commands by `COMMANDS` and imports the one that runs."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands(COMMANDS)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """What a list of commands needs: the name and one line."""
        listed = COMMANDS.get(cmd_name)
        return listed and TyperCommand(name=cmd_name, help=listed.help, callback=None)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """What runs: the command itself."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and loaded(command.name or ""), rest


def option_names(words: Sequence[str]) -> set[str]:
    """The options of the command that these words run, as they are spelled: {"--workers", ...}; none where they name no command."""
    group: Any = None
    for word in words:
        commands = COMMANDS if group is None else getattr(group, "commands", {})
        if word in commands:
            group = loaded(word) if group is None else commands[word]
        elif group is not None:
            break
    return {name for each in getattr(group, "params", ()) for name in each.opts}
