"""Figures of a code base, of ours and of others: `python -m benchmarks.house NAME=CHECKOUT:PACKAGES[@COMMIT] ... > docs/results/data/house.json`.

Product files are the Python files below PACKAGES (comma list) that are no tests; tests are those in folders `tests` or named `test_*`, `*_test`. Two
programs must be on PATH, because they are no dependencies of ours: `radon` (complexity) and `jscpd` (copies of at least 5 lines and 50 tokens).
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import statistics
import subprocess
import tempfile
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import result
from docs.site.markdown import hand_written

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DOCUMENTED = (ast.Module, ast.ClassDef, *FUNCTIONS)
LONG_LINES, LONG_FILE, MANY_ARGUMENTS = 60, 300, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    name: str
    checkout: Path
    packages: tuple[str, ...]
    commit: str

    @classmethod
    def of(cls, text: str) -> Project:
        name, _, rest = text.partition("=")
        rest, _, commit = rest.partition("@")
        checkout, _, packages = rest.rpartition(":")
        return cls(
            name=name, checkout=Path(checkout), packages=tuple(packages.split(",")), commit=commit
        )

    def product(self) -> list[Path]:
        files = (p for package in self.packages for p in (self.checkout / package).rglob("*.py"))
        return sorted(path for path in files if not is_test(path.relative_to(self.checkout)))

    def tests(self) -> list[Path]:
        files = (p.relative_to(self.checkout) for p in self.checkout.rglob("*.py"))
        return sorted(self.checkout / p for p in files if is_test(p) and not hidden(p))

    def pages(self) -> list[Path]:
        files = (p for end in ("md", "rst") for p in self.checkout.rglob(f"*.{end}"))
        return sorted(path for path in files if not hidden(path.relative_to(self.checkout)))


def words_of(texts: Iterable[str]) -> str:
    """With tables and code."""
    return f"{sum(len(text.split()) for text in texts):,}"


def hidden(path: Path) -> bool:
    """Environments and caches, which no checkout has in git."""
    return any(part.startswith(".") and part != ".github" for part in path.parts) or any(
        part in ("build", "node_modules", "__pycache__") for part in path.parts
    )


def is_test(path: Path) -> bool:
    named = path.stem.startswith("test_") or path.stem.endswith("_test")
    return named or any(part in ("tests", "test", "testing") for part in path.parts[:-1])


def quantiles(values: Sequence[int]) -> str:
    """Median and 90th percentile."""
    if len(values) < 2:
        return "–"
    return f"{statistics.median(values):.0f} / {statistics.quantiles(values, n=10)[-1]:.0f}"


def share(part: float, whole: float, digits: int = 1) -> str:
    return f"{100 * part / whole:.{digits}f}" if whole else "–"


def comment_lines(text: str) -> int:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return sum(1 for token in tokens if token.type == tokenize.COMMENT)


def docstring_lines(tree: ast.Module) -> int:
    texts = (ast.get_docstring(n, clean=False) for n in ast.walk(tree) if isinstance(n, DOCUMENTED))
    return sum(text.count("\n") + 1 for text in texts if text)


def arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    """Without self and cls, which need no annotation."""
    every = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    return [each for each in every if each.arg not in ("self", "cls")]


def catches_everything(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException")


def of_code(files: Sequence[Path], project: Project) -> dict[str, str]:
    """Row -> figure of the files."""
    texts = [path.read_text(encoding="utf-8") for path in files]
    trees = [ast.parse(text) for text in texts]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    functions = [node for node in nodes if isinstance(node, FUNCTIONS)]
    lengths = [(f.end_lineno or f.lineno) - f.lineno + 1 for f in functions]
    per_file = [text.count("\n") for text in texts]
    lines = sum(per_file)
    args = [arguments(f) for f in functions]
    num_args = sum(map(len, args))
    any_names = sum(isinstance(n, ast.Name) and n.id == "Any" for n in nodes)
    return {
        "files": f"{len(files):,}",
        "lines": f"{lines:,}",
        "lines of a file, median / 90 %": quantiles(per_file),
        f"files over {LONG_FILE} lines": str(sum(n > LONG_FILE for n in per_file)),
        "functions": f"{len(functions):,}",
        "lines of a function, median / 90 %": quantiles(lengths),
        f"functions over {LONG_LINES} lines": str(sum(n > LONG_LINES for n in lengths)),
        f"functions with more than {MANY_ARGUMENTS} arguments": str(
            sum(len(each) > MANY_ARGUMENTS for each in args)
        ),
        "complexity, mean / 90 % / highest": complexity(files),
        "lines with a comment, %": share(sum(map(comment_lines, texts)), lines),
        "docstring lines, %": share(sum(map(docstring_lines, trees)), lines),
        "annotated arguments, %": share(
            sum(a.annotation is not None for each in args for a in each), num_args, 0
        ),
        "`Any` for 1,000 lines": f"{1000 * any_names / lines:.1f}" if lines else "–",
        "`except Exception` or bare": str(
            sum(isinstance(n, ast.ExceptHandler) and catches_everything(n) for n in nodes)
        ),
        "duplicated lines, %": duplicated(files, project.checkout),
    }


def complexity(files: Sequence[Path]) -> str:
    """Of functions and methods, by radon."""
    done = run(["radon", "cc", "-j", *map(str, files)])
    blocks = [
        block for each in json.loads(done).values() if isinstance(each, list) for block in each
    ]
    values = [block["complexity"] for block in blocks if block["type"] != "class"]
    if len(values) < 2:
        return "–"
    high = statistics.quantiles(values, n=10)[-1]
    return f"{statistics.mean(values):.2f} / {high:.0f} / {max(values)}"


def duplicated(files: Sequence[Path], checkout: Path) -> str:
    """By jscpd, over links to the files alone."""
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name) / "files", Path(name) / "out"
        for path in files:
            at = folder / path.relative_to(checkout)
            at.parent.mkdir(parents=True, exist_ok=True)
            at.write_bytes(path.read_bytes())
        limits = [
            "--min-lines",
            "5",
            "--min-tokens",
            "50",
            "--max-size",
            "1mb",
            "--max-lines",
            "100000",
        ]
        words = ["jscpd", *limits, "--format", "python", "--reporters", "json", "--silent"]
        run([*words, "--output", str(out), str(folder)])
        report = json.loads((out / "jscpd-report.json").read_text())
    return f"{report['statistics']['total']['percentage']:.2f}"


def run(words: list[str]) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def columns(projects: Sequence[Project], figures: Sequence[dict[str, str]]) -> dict[str, Any]:
    rows = [[row, *(each[row] for each in figures)] for row in figures[0]]
    return {"columns": ["", *(project.name for project in projects)], "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("projects", nargs="+", type=Project.of)
    projects: list[Project] = parser.parse_args().projects
    measured_on = result.machine()
    about = [
        {
            "commit": project.commit,
            "words of its pages": words_of(p.read_text() for p in project.pages()),
            "of them not generated": words_of(hand_written(p.read_text()) for p in project.pages()),
        }
        for project in projects
    ]
    product = [of_code(project.product(), project) for project in projects]
    tests = [of_code(project.tests(), project) for project in projects]
    tables = {
        "about": columns(projects, about),
        "product": columns(projects, product),
        "tests": columns(projects, tests),
    }
    print(json.dumps([json.loads(result.as_json("house", measured_on, tables=tables))], indent=1))


if __name__ == "__main__":
    main()
