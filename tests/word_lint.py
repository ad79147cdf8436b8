"""Rules about words that `make lint` runs: names of the code, and prose of docs, help texts and docstrings.

A name says what the thing is: `matches`, `digest`, `row`, not `found`. Prose has bounds; they hold today and may only go down.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from docs.site.markdown import hand_written

ROOT = Path(__file__).parents[1]
READER = "ingest/verify/lerobot_reader/"  # run by another interpreter
PACKAGES = ("ingest", "adapters", "schemas", "training", "jobs", "benchmarks")

# --- names -----------------------------------------------------------------------------------------------------------

DENIED_NAMES = frozenset(
    {
        "told",
        "found",
        "made",
        "there",
        "is_there",
        "wanted",
        "lacking",
        "mine",
        "gone",
        "said",
        "given",
    }
)
# (file, name) -> why it keeps the name: it is stored or sent, or belongs to a library.
KEPT_NAMES: Mapping[tuple[str, str], str] = {}
# Classes that share a name, with the reason.
SHARED_CLASS_NAMES: Mapping[str, str] = {
    "Instruction": "the name of the caption answer is sent to servers as the name of its schema",
}


def names_bound(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of every variable, parameter, attribute, function, class and import that the module gives a name to."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.alias(asname=str(name)):
                yield node.lineno, name
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield node.lineno, name
            case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield node.lineno, name


def name_problems(path: str, text: str) -> Iterator[str]:
    for line, name in names_bound(ast.parse(text)):
        if name.lower().lstrip("_") in DENIED_NAMES and (path, name) not in KEPT_NAMES:
            yield f"{path}:{line}: {name!r} does not say what the thing is; name it after what it holds"


def class_problems(sources: Mapping[str, str]) -> Iterator[str]:
    """Classes of one name in two modules of the product: a search for the name should find one thing."""
    seen: dict[str, str] = {}
    for path, text in sources.items():
        for node in ast.parse(text).body:
            if not isinstance(node, ast.ClassDef):
                continue
            first = seen.setdefault(node.name, path)
            if first != path and node.name not in SHARED_CLASS_NAMES:
                yield f"{path}:{node.lineno}: class {node.name} is also in {first}; rename one"


# --- prose -----------------------------------------------------------------------------------------------------------

DENIED_WORDS = re.compile(
    r"\b(nobody|somebody|whoever|for ever|told|gone on with|goes on with|mended|poisoned)\b",
    re.IGNORECASE,
)
LONG = 30  # words of a sentence


@dataclass(frozen=True, slots=True)
class Measured:
    denied_words: int
    semicolons_per_1000_words: float
    long_sentences_per_1000_words: float


# Kind of prose -> the most of each. Lower a bound when the prose got better; never raise one.
MOST = {
    "docs": Measured(0, 7.0, 0.6),
    "help": Measured(0, 0.0, 0.0),
    "docstrings": Measured(6, 15.9, 1.4),
}

# Words of README and docs that are written by hand, tables and code too. The aim is 30,000.
MOST_BY_HAND = 39_950  # 35,000 before corpora in buckets, packs of latents and clusters had pages; 39,000 before image-text pairs and the study's results; 39,500 before a GPU, 39,850 before the second lever of the study


def words_by_hand(root: Path) -> int:
    pages = [root / "README.md", *(root / "docs").rglob("*.md")]
    return sum(len(hand_written(page.read_text()).split()) for page in pages)


def measure(texts: Iterable[str]) -> Measured:
    denied = words = semicolons = long = 0
    for text in texts:
        denied += len(DENIED_WORDS.findall(text))
        semicolons += text.count(";")
        for sentence in re.split(r"[.!?:](?=\s|$)|\n\s*\n|\n\s*(?:[-*#|]|\d+\.)", text):
            num_words = len(re.findall(r"[A-Za-z][\w'’-]*", sentence))
            words += num_words
            long += num_words > LONG
    thousands = max(words, 1) / 1000
    return Measured(denied, semicolons / thousands, long / thousands)


def plain(markdown: str) -> str:
    """Without code, tables, comments and the targets of links."""
    text = re.sub(r"```.*?```|<!--.*?-->|^\|[^\n]*$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`]*`|\]\([^)]*\)", " x ", text)


def python_prose(tree: ast.Module) -> tuple[list[str], list[str]]:
    """(docstrings, help texts)."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = list(ast.walk(tree))
    docs = [ast.get_docstring(n) or "" for n in nodes if isinstance(n, documented)]
    helps = [
        n.value.value
        for n in nodes
        if isinstance(n, ast.keyword) and n.arg == "help" and isinstance(n.value, ast.Constant)
    ]
    return [plain(text) for text in docs], [plain(str(text)) for text in helps]


def prose(root: Path) -> dict[str, list[str]]:
    pages = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    out: dict[str, list[str]] = {"docs": [plain(p.read_text()) for p in pages], "help": []}
    out["docstrings"] = []
    for path in sources(root):
        docstrings, helps = python_prose(ast.parse(path.read_text()))
        out["docstrings"] += docstrings
        out["help"] += helps if path.is_relative_to(root / "jobs") else []
    return out


def prose_problems(kind: str, texts: Iterable[str]) -> Iterator[str]:
    now, most = measure(texts), MOST[kind]
    for field in Measured.__dataclass_fields__:
        value, bound = getattr(now, field), getattr(most, field)
        if value > bound:
            yield f"{kind}: {field} is {value:.4g}, at most {bound:.4g}"


def sources(root: Path) -> list[Path]:
    return sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))


def problems(root: Path) -> list[str]:
    by_hand = words_by_hand(root)
    texts = {path.relative_to(root).as_posix(): path.read_text() for path in sources(root)}
    # The benchmarks and the reference reader run by themselves: their classes meet no others.
    product = {k: v for k, v in texts.items() if not k.startswith(("benchmarks/", READER))}
    return [
        *(problem for path, text in texts.items() for problem in name_problems(path, text)),
        *class_problems(product),
        *(problem for kind, each in prose(root).items() for problem in prose_problems(kind, each)),
        *(
            [f"docs: {by_hand} words by hand, at most {MOST_BY_HAND}"]
            if by_hand > MOST_BY_HAND
            else []
        ),
    ]


if __name__ == "__main__":
    sys.exit("\n".join(problems(ROOT)) or None)
