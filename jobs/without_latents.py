"""A manifest that was built before `eicorpus latents` ran never gets latents: messages with the commands that help."""

from __future__ import annotations

from pathlib import Path

from ingest.catalog.next_command import next_command
from ingest.corpus import snapshot
from ingest.latents.stale import encoder_states
from jobs.output import warn
from schemas.errors import ConfigError
from schemas.manifest import ManifestFacts, has_latents, load_facts, load_rows
from schemas.manifest_rebuild import MIXTURE_FILE, rebuild_command


def warn_of_no_latents(facts: ManifestFacts, corpus: Path) -> None:
    """On standard error, when the manifest is built."""
    problem = "no segment has latents, so `eicorpus train` refuses this manifest"
    warn(f"{problem}; to train, {_repair(facts, corpus)}")


def refuse_without_latents(folder: Path) -> None:
    """Before anything heavy is imported or read.

    Raises:
        ConfigError: no row has latents of pictures; or it is no manifest.
    """
    facts = load_facts(folder)
    if not has_latents(load_rows(folder, ["latents"])):
        problem = "no segment has image latents: the manifest was built before they existed, and manifests are immutable"
        repair = _repair(facts, folder.absolute().parent.parent)
        raise ConfigError(problem, remedy=repair, where=f"manifest {facts.name}")


def _repair(facts: ManifestFacts, corpus: Path) -> str:
    """What to run: nothing but the manifest where the corpus has latents of every video by now."""
    name = f"{facts.name}_with_latents"
    rebuild = f"`{rebuild_command(facts, corpus, name=name)}`"
    if facts.mixture.text:
        rebuild += f" ({MIXTURE_FILE}: the text at `mixture.text` of {facts.name}'s manifest.json)"
    states = encoder_states(corpus, snapshot.load(corpus))
    encoders = [each.encoder_id for each in states if not (each.missing or each.other_video)]
    if encoders:
        return f"run {rebuild}: the corpus now has latents of {' and '.join(encoders)}"
    encode = next_command("latents images --encoder dinov3_vits16 --weights FOLDER", corpus)
    others = "FOLDER holds the downloaded model; `eicorpus list encoders` lists other encoders"
    return f"run `{encode}` ({others}), then {rebuild}"
