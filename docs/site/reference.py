"""Writes the pages of docs/ that repeat what code and benchmarks know: `make reference`.

The pages are committed, because GitHub shows them; tests/test_docs.py fails when a page differs from what this writes.
"""

from __future__ import annotations

import ast
import inspect
import io
import json
import tokenize
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from types import ModuleType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pyarrow as pa
import typer
from pydantic import BaseModel
from typer.main import get_command

import ingest.curation.tiers.policy as tier_policy
import ingest.recipe as ingest_recipe
import jobs.build.spec as corpus_spec
import schemas.catalog as catalog
import training.recipe as train_recipe
from adapters.registry import ADAPTERS
from docs.site.markdown import DOCS, code, page, paragraphs, table
from docs.site.python_page import python_page
from docs.site.results import filled
from docs.site.rooms import picture, rooms_before, rooms_now
from docs.site.routes_page import routes_page
from docs.site.source_pages import facts_page, source_page, sources_page
from ingest.curation.measurements.registry import measures
from ingest.verify.finding import REMEDIES, RULES
from jobs.cli import app
from jobs.ui import envelope
from schemas.remedies import EXPLANATIONS

# --- comments as descriptions -------------------------------------------------------------------------------------------


class Comments:
    """The comments of a module by line: above a node, or at the end of one of its lines."""

    def __init__(self, module: ModuleType) -> None:
        source = inspect.getsource(module)
        self.tree = ast.parse(source)
        self._by_line: dict[int, tuple[bool, str]] = {}
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                is_alone = not token.line[: token.start[1]].strip()
                self._by_line[token.start[0]] = (is_alone, token.string.lstrip("# "))

    def of(self, node: ast.expr | ast.stmt) -> str:
        """What is written above the node and beside it, as one text."""
        above: list[str] = []
        line = node.lineno - 1
        while line in self._by_line and self._by_line[line][0]:
            above.insert(0, self._by_line[line][1])
            line -= 1
        inside = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        beside = [self._by_line[n][1] for n in inside if n in self._by_line]
        return " ".join([*above, *beside])

    def of_fields(self, name: str) -> dict[str, str]:
        """Field -> comment of the class `name`."""
        (cls,) = (n for n in self.tree.body if isinstance(n, ast.ClassDef) and n.name == name)
        return {
            each.target.id: self.of(each)
            for each in cls.body
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
        }


# --- pages --------------------------------------------------------------------------------------------------------------


ARGUMENTS = """
`eicorpus ingest --help` prints the same for one command. A command that writes to a corpus can be interrupted and run again. [Exit codes and `--json`](json.md) are the same for
every command.

CORPUS is the first argument of every command that opens a corpus. If it is left out, `EICORPUS_CORPUS` names the corpus:

```console
$ eicorpus query CORPUS "select count(*) from episodes"
$ export EICORPUS_CORPUS=CORPUS
$ eicorpus query "select count(*) from episodes"
```

`forget` with several episodes needs CORPUS on the command line. `ingest` and `doctor` take PATH or SOURCE PATH. Without SOURCE they detect it from the data, and print it with its
certainty. If several sources match, they print a command for each and exit with 2. `--dry-run` shows what a command would do and changes nothing. A unit is part of the name of an
option (`--time-limit-s`). Option names of earlier versions are refused with the new name.
"""


def command_line() -> str:
    parts = [
        "# Command line",
        ARGUMENTS,
    ]
    for words, command in commands_of(get_command(app)):
        context = typer.Context(command)
        records = [p.get_help_record(context) for p in command.params if not p.hidden]
        rows = [[code(name.replace(" range>", ">")), text] for name, text in records]
        parts += [f"## eicorpus {' '.join(words)}", paragraphs(command.help or "")]
        parts += [table(["argument or option", ""], rows)] if rows else []
    return page(*parts)


def commands_of(group: Any, *words: str) -> Iterable[tuple[tuple[str, ...], Any]]:
    for name, command in getattr(group, "commands", {}).items():
        inner = (*words, name)
        if getattr(command, "commands", None):
            yield from commands_of(command, *inner)
        else:
            yield inner, command


def settings(models: Sequence[type[BaseModel]], module: ModuleType) -> list[str]:
    """A section for each pydantic model: its fields with type, default, bounds and comment."""
    comments = Comments(module)
    parts = []
    for model in models:
        about = comments.of_fields(model.__name__)
        rows = [
            [
                code(field.alias or name),
                code(type_of(field)),
                default_text(field),
                about.get(name, ""),
            ]
            for name, field in model.model_fields.items()
        ]
        parts += [f"## {model.__name__}", paragraphs(model.__doc__ or "")]
        parts.append(table(["key", "type", "default", ""], rows))
    return parts


BOUNDS = {
    "ge": "≥",
    "gt": ">",
    "le": "≤",
    "lt": "<",
    "min_length": "length ≥",
    "max_length": "length ≤",
}


def type_of(field: Any) -> str:
    bounds = [
        f"{sign} {getattr(mark, name)}"
        for mark in field.metadata
        for name, sign in BOUNDS.items()
        if hasattr(mark, name)
    ]
    return ", ".join([type_name(field.annotation), *bounds])


def type_name(kind: Any) -> str:
    """An annotation as a reader of YAML needs it: without Python's names of generics."""
    inner = [each for each in get_args(kind) if each is not Ellipsis]
    origin = get_origin(kind)
    if origin is Annotated:
        return type_name(inner[0])
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " | ".join(dict.fromkeys(type_name(each) for each in inner))
    if origin is tuple:
        return f"[{', '.join(dict.fromkeys(type_name(each) for each in inner))}]"
    if origin is dict:
        return f"{{{type_name(inner[0])}: {type_name(inner[1])}}}"
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return " | ".join(kind)
    return "null" if kind is type(None) else str(kind.__name__)


def default_text(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "see below" if isinstance(value, BaseModel) else code(json.dumps(value, default=str))


def ingest_page() -> str:
    models = [ingest_recipe.Recipe, ingest_recipe.VideoSettings, ingest_recipe.HandSettings]
    return page(
        "# Ingest recipe",
        "`eicorpus ingest --config FILE` reads a YAML file with these keys. The recipe decides the bytes of a corpus; its digest "
        "is stored with every episode. `Limits` protects the machine and is not part of the digest; its values are options of `ingest` "
        "(`--time-limit-s`, `--memory-limit-mb`, `--decoder-threads`, `--max-quarantined`, `--max-failed`) and no keys of the file.",
        *settings([*models, ingest_recipe.Limits], ingest_recipe),
    )


SPEC_SCHEMA = "reference/corpus.schema.json"
_SPEC_MODELS = (
    *(
        "Spec",
        "SourceSpec",
        "AssetsSpec",
        "MeasuresSpec",
        "TiersSpec",
        "DuplicatesSpec",
        "CaptionsSpec",
    ),
    *(
        "LatentsSpec",
        "TextFeaturesSpec",
        "ManifestSpec",
        "SplitSpec",
        "ExportSpec",
        "ReportSpec",
        "VerifySpec",
    ),
)


def spec_schema() -> str:
    """The JSON Schema of a corpus spec, with the comments of its keys, for editors."""
    schema, comments = corpus_spec.json_schema(), Comments(corpus_spec)
    for name in _SPEC_MODELS:
        properties = (schema if name == "Spec" else schema["$defs"][name])["properties"]
        for key, about in {**comments.of_fields("_Target"), **comments.of_fields(name)}.items():
            if about and key in properties:
                properties[key]["description"] = about
    return f"{json.dumps(schema, indent=1)}\n"


def spec_page() -> str:
    return page(
        "# Corpus spec",
        "`eicorpus build FILE` reads a YAML file with these keys ([how to write one](../how-to/build.md)). Paths start at the folder of the file. Every target has "
        f"`after`: targets that are built before it. [corpus.schema.json]({SPEC_SCHEMA.rpartition('/')[2]}) is its JSON Schema.",
        *settings([getattr(corpus_spec, name) for name in _SPEC_MODELS], corpus_spec),
    )


def policy_page() -> str:
    names = ("QualityPolicy", "Cutting", "Edge", "Rule", "Otherwise", "Condition", "Bounds")
    built_in, _ = tier_policy.load_policy(tier_policy.BUILT_IN)
    rules = [[code(r.code), r.tier.value, r.text] for r in (*built_in.rules, built_in.otherwise)]
    return page(
        "# Quality policy",
        "`eicorpus tier --policy FILE` reads a YAML file with these keys ([how to write one](../how-to/quality-policy.md)).",
        table(
            ["tier", "tasks"],
            [[t.value, ", ".join(tasks) or "none"] for t, tasks in tier_policy.TASKS.items()],
        ),
        *settings([getattr(tier_policy, name) for name in names], tier_policy),
        f"## The built-in policy {built_in.title}",
        f"{built_in.about} The first rule that matches decides. Thresholds and their origin: "
        "`ingest/curation/tiers/policies/ei30k.yaml`.",
        table(["rule", "tier", "reason"], rules),
    )


def train_page() -> str:
    names = (
        "TrainRecipe",
        "DataSettings",
        "LatentCacheSettings",
        "NormaliseSettings",
        "NoText",
        "WordsText",
        "CachedText",
        "OnlineText",
        "ImageTextSettings",
        "OptimiserSettings",
        "RunSettings",
    )
    recipes = [[code(n), train_recipe.load_recipe(n).about] for n in train_recipe.known_recipes()]
    return page(
        "# Training recipe",
        "`eicorpus train --recipe NAME` reads a built-in recipe or a YAML file with these keys; `extends: NAME` starts from another recipe.",
        table(["built-in recipe", ""], recipes),
        *settings([getattr(train_recipe, name) for name in names], train_recipe),
        *settings([train_recipe.Architecture], inspect.getmodule(train_recipe.Architecture)),  # type: ignore[list-item]
        *settings([train_recipe.RoutingSettings], inspect.getmodule(train_recipe.RoutingSettings)),  # type: ignore[list-item]
    )


def catalog_page() -> str:
    comments = Comments(catalog)
    parts = [
        "# Catalog tables",
        "`eicorpus query` reads these tables ([examples](../how-to/query.md)). Columns are added over time and never changed; "
        "a row written before its column existed reads as NULL.",
    ]
    by_table = columns_by_table(comments.tree)
    for name, schema in catalog.TABLES.items():
        about = {node.elts[0].value: comments.of(node) for node in by_table[name]}
        rows = [
            [code(field.name), code(arrow_type(field.type)), about[field.name]] for field in schema
        ]
        parts += [f"## {name}", table(["column", "type", ""], rows)]
    return page(*parts)


def columns_by_table(tree: ast.Module) -> dict[str, list[Any]]:
    """Table -> the `("column", type)` tuples of its schema, as they stand in the source."""
    (tables,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "TABLES"
    )
    return {
        key.value: call.args[0].elts for key, call in zip(tables.keys, tables.values, strict=True)
    }  # type: ignore[union-attr, attr-defined]


def arrow_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list<{arrow_type(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(f'{f.name} {arrow_type(f.type)}' for f in kind)}>"
    return str(kind)


def codes_page() -> str:
    return page(
        "# Codes and remedies",
        "Exit codes are on the page of [JSON output](json.md).",
        "## Quarantine codes",
        "An episode with one of these codes is not in the corpus. `eicorpus explain CORPUS EPISODE` prints the same remedy.",
        table(
            ["code", "meaning", "what to do"],
            [[code(c.value), e.meaning, e.remedy] for c, e in EXPLANATIONS.items()],
        ),
        "## Checks of `eicorpus verify`",
        table(
            ["check", "what must hold", "what to do otherwise"],
            [[code(c.value), RULES[c], REMEDIES[c]] for c in RULES],
        ),
    )


def json_page() -> str:
    def codes(table_of: Mapping[Any, str]) -> str:
        return table(["code", "meaning"], [[code(key), text] for key, text in table_of.items()])

    return page(
        "# Exit codes and JSON output",
        "## Exit codes",
        codes(envelope.EXIT_CODES),
        "## JSON output",
        "With `--json` a command prints one JSON object on standard output, and progress and messages on standard error. An error is printed in the same "
        "form. A command that finishes with a failed check has both a `result` and an `error`.",
        f"```json\n{json.dumps(envelope.SCHEMA, indent=2)}\n```",
        "## Error codes",
        "`error.code` is one of these, or a [quarantine code](codes.md) if a file of the raw data is the cause.",
        codes(envelope.ERROR_CODES),
    )


def measurements_page() -> str:
    parts = [
        "# Measurements",
        "`eicorpus measure` writes these numbers to the table `measurements`. An interval has one row per stretch of timesteps, the "
        "others one row per episode. No threshold is applied here: thresholds belong to the [quality policy](policy.md).",
    ]
    for measure in measures().values():
        doc = inspect.getmodule(measure.compute).__doc__ or ""
        facts = [f"version {measure.version}"]
        facts += ["reads video"] if measure.needs_video else []
        facts += [f"needs the model `{measure.needs_model}`"] if measure.needs_model else []
        facts += (
            [f"better with the model `{measure.optional_model}`"] if measure.optional_model else []
        )
        facts += ["only for episodes of people"] if measure.of_people else []
        rows = [
            [code(g.name), g.unit, "yes" if g.is_interval else "", g.about] for g in measure.outputs
        ]
        parts += [f"## {measure.name}", f"{paragraphs(doc).split(chr(10))[0]} ({', '.join(facts)})"]
        parts += [table(["name", "unit", "interval", ""], rows)] if rows else []
    return page(*parts)


def decisions_page() -> str:
    """The index of docs/adr, by the titles of its pages."""
    paths = sorted((DOCS / "adr").glob("[0-9]*.md"))
    titles = [path.read_text().partition("\n")[0].removeprefix("# ") for path in paths]
    rows = [
        [number, f"[{title}]({path.name})"]
        for path, (number, _, title) in zip(
            paths, (line.partition(". ") for line in titles), strict=True
        )
    ]
    about = "One decision a page: what was chosen, why, and what it costs. Newest last."
    return page("# Decisions", about, table(["", "decision"], rows))


RESULTS = (
    "benchmarks.md",
    "corpus-safety.md",
    "durability.md",
    "fidelity.md",
    "fuzz.md",
    "house.md",
    "lara.md",
    "routing.md",
)
# Page below docs/ -> what writes it.
PAGES: dict[str, Callable[[], str]] = {
    "reference/cli.md": command_line,
    "reference/json.md": json_page,
    "reference/recipe.md": ingest_page,
    "reference/corpus.md": spec_page,
    SPEC_SCHEMA: spec_schema,
    "reference/policy.md": policy_page,
    "reference/training-recipe.md": train_page,
    "reference/catalog.md": catalog_page,
    "reference/codes.md": codes_page,
    "reference/measurements.md": measurements_page,
    "reference/sources.md": sources_page,
    "reference/facts.md": facts_page,
    "reference/python.md": python_page,
    "reference/routes.md": routes_page,
    "adr/README.md": decisions_page,
    **{f"results/{name}": partial(filled, name) for name in RESULTS},
    "results/figures/house_before.svg": lambda: picture(rooms_before(), "ingest before: folders"),
    "results/figures/house_now.svg": lambda: picture(rooms_now(), "ingest now: rooms"),
    **{f"reference/sources/{name}.md": partial(source_page, name) for name in sorted(ADAPTERS)},
}

if __name__ == "__main__":
    for name, write in PAGES.items():
        (DOCS / name).write_text(write())
