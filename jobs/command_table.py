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

from jobs.ui.arguments import Command
from jobs.ui.options import with_places


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandHelp:
    """A command before its module is imported."""

    place: str  # "module:function", or "module:app" of a group of commands
    help: str  # equal to the command's own help: tests/test_docs.py compares them
    panel: str  # of `eicorpus --help`


# Panel of `eicorpus --help`: name -> (place, help).
_PANELS = {
    "Corpus": {
        "init": (
            "jobs.commands.init:command",
            "Print a corpus spec for folders of raw data, with comments. Its paths start at the folder of --out FILE, or at the current folder.",
        ),
        "plan": (
            "jobs.commands.plan:command",
            "Show which targets of a corpus spec are up to date, stale or missing, and why. Changes nothing.",
        ),
        "build": (
            "jobs.commands.build:command",
            "Build what is missing or stale of a corpus spec, in order. Run it again to resume.",
        ),
    },
    "Ingest": {
        "demo": (
            "jobs.demo.command:command",
            "Build a corpus, a manifest and a small policy from seven small synthetic sources.",
        ),
        "list": (
            "jobs.commands.listing:app",
            "List sources, measures, encoders, models, recipes, policies or manifests.",
        ),
        "doctor": (
            "jobs.commands.doctor:command",
            "Check raw data before ingest: facts, value ranges, acceptance tests, contact sheet.",
        ),
        "ingest": (
            "jobs.commands.ingest:command",
            "Convert raw data and add it to a corpus. Run it again to resume.",
        ),
        "verify": (
            "jobs.commands.verify:command",
            "Check every file of a corpus against its latest snapshot, or of an export against its page and the rules of its format.",
        ),
        "peer": (
            "jobs.commands.peer:command",
            "Install LeRobot 0.3.3, the reference reader of `verify --peer` (1.4 GB).",
        ),
    },
    "Curate": {
        "query": ("jobs.commands.query:query", "Run a read-only SQL query on the catalog."),
        "measure": (
            "jobs.commands.measure:command",
            "Compute missing or outdated measurements. Run it again to resume.",
        ),
        "models": ("jobs.commands.models:app", "Download models that measurements need."),
        "caption": (
            "jobs.commands.caption:command",
            "Write captions for segments that have none of this backend, model and prompt. Run it again to resume.",
        ),
        "tier": (
            "jobs.commands.tier:command",
            "Assign a tier to every segment: high, low, actionless or excluded. Uses stored measurements; run `measure` first.",
        ),
        "explain": (
            "jobs.commands.explain:command",
            "Explain the tier of each segment of an episode, or why the episode was not committed.",
        ),
        "view": (
            "jobs.commands.view:command",
            "Open an episode in Rerun, or save it as a file: videos, cameras, hands, end-effectors, series, segments.",
        ),
        "review": (
            "jobs.commands.review:app",
            "Import and export reviews by people, and compare them with a policy.",
        ),
        "dedup": (
            "jobs.commands.dedup:command",
            "Find duplicate recordings across sources and mark one copy of each to keep. Deletes nothing.",
        ),
        "report": (
            "jobs.commands.report:command",
            "Write an HTML report: funnel, hours, histograms, best and worst segments, quarantine.",
        ),
        "manifest": (
            "jobs.commands.manifest:app",
            "Build, show, compare and verify manifests, the input of training.",
        ),
    },
    "Serve": {
        "serve": (
            "jobs.commands.serve:command",
            "Show a corpus in a browser and over REST, and run jobs on it. With a corpus spec also builds. Ctrl-C stops it.",
        ),
    },
    "Train": {
        "latents": ("jobs.commands.latents:app", "Encode images or instructions for training."),
        "train": (
            "jobs.commands.train:command",
            "Train a policy on a manifest. Run it again to resume. Several GPUs: `torchrun --nproc-per-node N -m jobs train ...` or --ray.",
        ),
        "eval": (
            "jobs.commands.eval:command",
            "Evaluate a run offline on segments of a split (default: val) against simple baselines.",
        ),
        "train-value": (
            "jobs.commands.train_value:command",
            "Train a value head for planning (`--plan`) on the latents of a run: how near an image is to the end of an episode that succeeds.",
        ),
        "serve-policy": (
            "jobs.commands.serve_policy:command",
            "Serve a policy over a WebSocket to openpi, starVLA or (block-causal) LingBot-VA clients. Ctrl-C stops it.",
        ),
        "rollout": (
            "jobs.commands.rollout:command",
            "Drive a policy in a simulator in closed loop: success with its interval, and videos. Run it again to resume.",
        ),
    },
    "Maintain": {
        "digest": (
            "jobs.commands.verify:digest_command",
            "Print a digest of all episodes, computed from the files. Corpora with equal episodes have equal digests.",
        ),
        "stale": (
            "jobs.commands.stale:command",
            "Count episodes and latents written by another recipe or adapter version. Renew episodes by ingest into a new corpus, latents by `latents images`.",
        ),
        "snapshot": ("jobs.commands.snapshot:app", "List and compare snapshots of the catalog."),
        "compact": (
            "jobs.commands.compact:command",
            "Merge small catalog files so that queries open fewer. Rows stay the same; `gc` deletes the old files.",
        ),
        "gc": (
            "jobs.commands.gc:command",
            "Delete old snapshots, unreferenced catalog files, replaced latents and abandoned staging. Keeps every episode and what manifests need.",
        ),
        "forget": (
            "jobs.commands.forget:command",
            "Erase episodes from datasets, latents, tables, snapshots and manifests. Only `ingest --restore` from raw data can bring them back.",
        ),
        "export": (
            "jobs.commands.export:command",
            "Export a manifest as datasets for another trainer, or the catalog as Iceberg tables. Run it again to resume.",
        ),
        "push": (
            "jobs.commands.push:command",
            "Copy a corpus or an export to the Hugging Face Hub, to a bucket, or to a folder. Run it again to resume.",
        ),
        "pull": (
            "jobs.commands.pull:command",
            "Copy a corpus or an export from the Hugging Face Hub, a bucket, or a folder, and verify it. Run it again to resume.",
        ),
    },
}
COMMANDS: dict[str, CommandHelp] = {
    name: CommandHelp(place=place, help=text, panel=panel)
    for panel, commands in _PANELS.items()
    for name, (place, text) in commands.items()
}


@cache
def loaded(name: str) -> Any:
    """The command or group itself; imports its module."""
    module, _, attribute = COMMANDS[name].place.partition(":")
    target = getattr(import_module(module), attribute)
    outer = typer.Typer(add_completion=False)
    if isinstance(target, typer.Typer):
        for info in target.registered_commands:
            info.callback = info.callback and with_places(info.callback)
            info.cls = Command
        outer.add_typer(target, name=name)
    else:
        outer.command(name, cls=Command)(with_places(target))
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
        return listed and TyperCommand(
            name=cmd_name, help=listed.help, rich_help_panel=listed.panel, callback=None
        )

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
