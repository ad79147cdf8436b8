"""`python -m tests.hostile.listing`: every test that expects a code of `schemas.errors.Code`, or one of our errors, with its number of cases.

`listing.tsv` is read from the source text of the tests. Written again after a change, its diff shows which refusals are not tested any
more. `docs/reference/facts.md` does the same for facts, `tests/planted` for behaviour.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
LISTING = Path(__file__).with_name("listing.tsv")
ERRORS = {"ConfigError", "DamagedCatalog", "DamagedParquet", "DamagedSnapshot", "OutsideCorpus"}


def expected_errors() -> Iterator[tuple[str, ...]]:
    """(test, error, cases): names inside a test, its decorators, and the module's constants and helpers that it uses."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text())
        shared = {
            name: node
            for node in tree.body
            for name in names_defined(node)
            if not name.startswith("test_")
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for error, cases in sorted(errors_in(node, shared).items()):
                    yield f"{path.relative_to(ROOT).as_posix()}::{node.name}", error, str(cases)


def names_defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return [node.name] if isinstance(node, ast.FunctionDef) else []


def errors_in(test: ast.FunctionDef, shared: Mapping[str, ast.stmt]) -> Counter[str]:
    used = {n.id for n in ast.walk(test) if isinstance(n, ast.Name)} & shared.keys()
    counts: Counter[str] = Counter()
    for each in (test, *(shared[name] for name in sorted(used))):
        for node in ast.walk(each):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Code":
                counts[node.attr] += node.attr.isupper()
            elif isinstance(node, ast.Name) and node.id in ERRORS:
                counts[node.id] += 1
    return +counts


def main() -> None:
    rows = ["\t".join(row) for row in sorted(expected_errors())]
    LISTING.write_text("\n".join(["test\terror\tcases", *rows]) + "\n")


if __name__ == "__main__":
    main()
