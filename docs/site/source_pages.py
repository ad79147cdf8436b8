"""The pages of the sources: what each adapter declares, below what is written by hand."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

from adapters.lerobot.mapping import ChannelPart, Mapping, shipped_mappings
from adapters.registry import ADAPTERS, adapter_for
from docs.site.markdown import DOCS, NOTE_BELOW, ROOT, by_hand, code, joined, page, table
from schemas.episode import Licence
from schemas.errors import Code
from schemas.fact import Certainty

FOLDER = DOCS / "reference" / "sources"
EVIDENCE = "**Evidence:** "
MIN_WORDS = 20  # a docstring with fewer has no convention in it

ABOUT_CERTAINTY = {
    Certainty.VERIFIED: "checked numerically on real files",
    Certainty.DOCUMENTED: "stated by the authors of the source",
    Certainty.CODE: "implied by the code of the authors or of a widely used reader",
    Certainty.THIRD_PARTY: "stated in other public code",
    Certainty.INFERRED: "concluded by this project",
    Certainty.UNVERIFIED: "repeated by others, stated by no authority",
    Certainty.UNKNOWN: "not known",
}


def sources_page() -> str:
    rows = []
    for name in sorted(ADAPTERS):
        adapter = adapter_for(name)
        line = (FOLDER / f"{name}.md").read_text().splitlines()[2]
        assert line.startswith(EVIDENCE), f"{name}.md: the third line is not the evidence"
        embodiments = sorted({e["embodiment"] for e in golden(name)})
        rows.append(
            [
                f"[`{name}`](sources/{name}.md)",
                adapter.about,
                adapter.container,
                ", ".join(embodiments),
                line.removeprefix(EVIDENCE),
            ]
        )
    return page(
        "# Sources",
        "`eicorpus list sources` prints the first columns. The last one states on what evidence the adapter rests. The page of a source "
        "lists its conventions with their [certainty](facts.md). Splits that sources publish: [splits](splits.md).",
        table(["source", "what", "container", "embodiments of the tests", "evidence"], rows),
    )


def facts_page() -> str:
    levels = [
        [code(c.value), ABOUT_CERTAINTY[c], "yes" if c.is_settled else "no"] for c in Certainty
    ]
    return page(
        "# Facts and their certainty",
        "An adapter states each convention of its source as a fact with a certainty and its evidence. They are stored in `episodes.facts`, and the "
        "page of each [source](sources.md) lists them. A fact about actions that is not settled excludes the policy task; an unknown one excludes "
        "dynamics too.",
        table(["certainty", "meaning", "settled"], levels),
    )


def source_page(name: str) -> str:
    adapter = adapter_for(name)
    files = files_of(adapter)
    seen = {fact[0]: fact for episode in golden(name) for fact in reversed(episode["facts"])}
    rows = [[code(fact[0]), *fact[1:4]] for fact in sorted(seen.values())]
    names = getattr(adapter, "mappings", ())
    mappings = [m for m in shipped_mappings() if m.name in names or name == "lerobot"]
    return joined(
        by_hand(FOLDER / f"{name}.md"),
        NOTE_BELOW,
        licences(adapter, files),
        "## Facts",
        "Values are those of the test data; other data of this source may have other values.",
        table(["fact", "value", "[certainty](../facts.md)", "evidence"], rows),
        f"Channels: {channels(name)}",
        f"Quarantine codes: {codes_of(files)}",
        *(mapping_section(mapping) for mapping in mappings),
        # The named sets share the files of their reader, which has a page of its own.
        "" if names else conventions(files),
    )


def files_of(adapter: Any) -> list[Path]:
    """The adapter's module and those beside it in its package."""
    file = Path(inspect.getfile(type(adapter)))
    beside = file.parent.glob("*.py" if file.parent.name != "adapters" else f"{file.stem}_*.py")
    return [
        file,
        *sorted(path for path in beside if path not in (file, file.parent / "__init__.py")),
    ]


def licences(adapter: Any, files: list[Path]) -> str:
    """The terms that the adapter declares: its own, or those that its modules name."""
    modules = [importlib.import_module(module_name(path)) for path in files]
    declared = [v for m in modules for v in vars(m).values() if isinstance(v, Licence)]
    licences_ = list(dict.fromkeys([adapter.licence] if hasattr(adapter, "licence") else declared))
    words = {True: "yes", False: "no", None: "not stated"}
    rows = [
        [each.name, words[each.allows_commercial], words[each.allows_redistribution]]
        for each in licences_
    ]
    return table(["licence", "commercial use", "redistribution"], rows) if rows else ""


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def conventions(files: list[Path]) -> str:
    """What the adapter's modules state about the files that they read."""
    parts = ["## Files and conventions", "Where the adapter reads what, from its docstrings."]
    for path in files:
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        if len(text.split()) >= MIN_WORDS:
            parts += [f"`{path.relative_to(ROOT)}`", f"```text\n{text}\n```"]
    return "\n\n".join(parts)


def mapping_section(mapping: Mapping) -> str:
    """Which columns of a LeRobot set the mapping reads as which channel."""
    rows = []
    for channel in mapping.channels:
        named = [getattr(channel, field, None) for field in ("position", "rotation", "at")]
        parts = [*(part for part in named if part), *getattr(channel, "parts", ())]
        columns = ", ".join(dict.fromkeys(code(column_text(part)) for part in parts))
        rows.append([code(channel.channel), columns, channel.certainty.value, channel.source])
    return joined(
        f"## Mapping {mapping.name}",
        f"Embodiment: {code(mapping.embodiment or 'robot_type of info.json')}. Source: {mapping.source}.",
        table(["channel", "columns", "certainty", "evidence"], rows) if rows else "",
    )


def column_text(part: ChannelPart) -> str:
    if part.modality or (part.start is None and part.end is None):
        return part.modality or str(part.column)
    return f"{part.column}[{part.start or 0}:{'' if part.end is None else part.end}]"


def channels(name: str) -> str:
    """Every stream and camera of the source's test data."""
    units = {n: s["unit"] for episode in golden(name) for n, s in episode["streams"].items()}
    cameras = sorted({camera for episode in golden(name) for camera in episode["cameras"]})
    streams = [f"{code(stream)} ({unit})" for stream, unit in sorted(units.items())]
    hands = sorted(
        {f"{side} hand" for episode in golden(name) for side in episode.get("hands", ())}
    )
    return (
        ", ".join([*streams, *hands, *(f"camera {code(camera)}" for camera in cameras)]) or "none"
    )


def codes_of(files: list[Path]) -> str:
    """The codes that the adapter's own files mention; shared readers may raise others."""
    used = {each for path in files for each in re.findall(r"\bCode\.([A-Z_]+)", path.read_text())}
    return ", ".join(code(c.value) for c in Code if c.name in used) or "those of its readers"


def golden(name: str) -> list[dict[str, Any]]:
    """The episodes that the adapter's test data give (tests/adapters/test_contract.py)."""
    text = (ROOT / "tests" / "golden" / f"{name}.json").read_text()
    return list(json.loads(text)["episodes"].values())
