"""One module changes a corpus, and one door turns what data says into a path: checked on the files themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise, takewhile
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for room in ("ingest", "jobs") for path in (ROOT / room).rglob("*.py"))
READERS = [path for room in ("schemas", "training") for path in (ROOT / room).rglob("*.py")]
STORAGE = (
    "ingest/storage/file_system.py",
    "ingest/storage/rooted.py",
    "ingest/storage/local.py",
    "ingest/storage/unsynced.py",
)

# Who else changes files, and why that is no corpus.
CHANGES_FILES = {
    "ingest/corpus/layout.py": "what the lock of the writer says",
    "ingest/storage/lock_file.py": "locks, opened without following a link",
    "ingest/executors/ray_worker.py": "the watchdog of a worker, in the folder that its driver has just made",
    "ingest/catalog/query_child.py": "/dev/null",
    "ingest/export/warehouse.py": "a warehouse that the user names",
    "ingest/models/hand_landmarker_file.py": "a file that the user names",
    "ingest/verify/peer_environment.py": "an environment of its own",
    "ingest/video/encode.py": "libav writes into a staging folder that LocalStorage has just made",
    "jobs/caption.py": "a folder for people that the user names",
    "jobs/cli.py": "/dev/null",
    "jobs/demo/": "raw data and a folder of its own",
    "jobs/eval_page.py": "a file that the user names",
    "jobs/report.py": "a file that the user names",
    "jobs/train_log.py": "a run",
}
# Who else joins a corpus with text that is not constant, and why that cannot lead out.
JOINS = {
    "ingest/corpus/layout.py": "the door itself; a uid and a digest of this run",
    "ingest/pipeline/plan.py": "raw data: files that every node must see",
    "ingest/storage/rooted.py": "the walk of a LocalStorage",
    "schemas/safe_path.py": "raw data, where links are followed as long as they stay inside",
    "schemas/within.py": "the door itself",
    "ingest/catalog/views.py": "the names of READABLE",
    "ingest/corpus/commit.py": "a video that a worker of this run staged, in its staging folder",
    "ingest/verify/lerobot_reader/": "a reader that knows nothing of eicorpus, of a folder that the user names",
    "jobs/demo/": "raw data and a folder of its own",
}

CHANGING = frozenset(
    [
        "unlink",
        "rename",
        "renames",
        "rmdir",
        "removedirs",
        "mkdir",
        "makedirs",
        "write_bytes",
        "write_text",
        "touch",
        "symlink_to",
        "hardlink_to",
        "chmod",
        "symlink",
        "truncate",
        "ftruncate",
        "sync",
        "fsync",
        "copyfile",
        "copytree",
        "copy2",
        "copy",
        "move",
        "rmtree",
        "mknod",
        "mkfifo",
    ]
)
# Only of `os`: other things have methods of these names.
CHANGING_OF_OS = frozenset(["remove", "replace", "link", "open"])
CORPUS = frozenset(["corpus", "_corpus", "root", "staging", "ledger", "quarantine"])


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_listed(path: Path, listed: dict[str, str]) -> bool:
    return any(name_of(path).startswith(each) for each in listed)


def last(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def changes(tree: ast.AST) -> Iterator[str]:
    """Calls that change files by other means than a LocalStorage."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        base = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        name = last(node.func)
        if base.split(".")[-1] in ("disk", "storage", "_disk"):
            continue
        is_method = name in CHANGING and base != "" and not _is_of_a_table(node)
        of_os = name in CHANGING_OF_OS and base == "os"
        if is_method or of_os or (name == "open" and _is_for_writing(node)):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def _is_of_a_table(node: ast.Call) -> bool:
    """`frame.rename({...})`, `model.copy()`, `disk.sync()`: nothing with a path."""
    first = node.args[0] if node.args else None
    name = last(node.func)
    return (name == "rename" and isinstance(first, ast.Dict)) or (name == "copy" and first is None)


def _is_for_writing(node: ast.Call) -> bool:
    given = [*node.args, *(k.value for k in node.keywords if k.arg == "mode")]
    texts = [a.value for a in given if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return any(set(text) <= set("rwaxbt+") and set(text) & set("wax+") for text in texts)


def joins(tree: ast.AST) -> Iterator[str]:
    """`corpus / something` where the something is no constant, and whatever else makes a path of the two."""
    for node in ast.walk(tree):
        if _is_quotient(node) or _is_text(node) or (isinstance(node, ast.Call) and _joins(node)):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def _is_quotient(node: ast.AST) -> TypeGuard[ast.expr]:
    """`corpus / name`."""
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)):
        return False
    left: ast.AST = node
    while isinstance(left, ast.BinOp) and isinstance(left.op, ast.Div):
        left = left.left
    return (_is_corpus(left) and not _is_constant(node.right)) or _is_field(node.right, left)


def _is_text(node: ast.AST) -> TypeGuard[ast.expr]:
    """`f"{corpus}/{name}"` and `str(corpus) + "/" + name`; `f"run it on {corpus}"` is a message."""
    if isinstance(node, ast.JoinedStr):
        parts = list(node.values)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = _summands(node)
    else:
        return False
    for at, (corpus, slash) in enumerate(pairwise(parts)):
        is_slash = isinstance(slash, ast.Constant) and str(slash.value).startswith("/")
        if is_slash and _is_corpus(corpus):
            # A space ends the path: what follows is the rest of a message.
            path = takewhile(lambda each: " " not in ast.unparse(each), parts[at + 1 :])
            if not all(map(_is_constant, path)):
                return True
    return False


def _summands(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*_summands(node.left), *_summands(node.right)]
    return [node]


def _joins(node: ast.Call) -> bool:
    """`os.path.join(corpus, name)`, `Path(corpus, name)`, `corpus.joinpath(name)`."""
    if last(node.func) == "joinpath":
        return not all(map(_is_constant, node.args))
    is_join = ast.unparse(node.func) in ("os.path.join", "path.join", "Path", "pathlib.Path")
    first, *others = node.args or [node]
    return is_join and _is_corpus(first) and not all(map(_is_constant, others))


def _is_corpus(node: ast.AST) -> bool:
    """A name of a corpus, also as text: `str(corpus)`, `{corpus}` of an f-string."""
    if isinstance(node, ast.FormattedValue):
        return _is_corpus(node.value)
    if isinstance(node, ast.Call) and last(node.func) in ("str", "Path", "fspath") and node.args:
        return _is_corpus(node.args[0])
    return last(node) in CORPUS


def _is_constant(node: ast.AST) -> bool:
    node = node.value if isinstance(node, ast.FormattedValue) else node
    return isinstance(node, ast.Constant) or last(node).isupper()


def _is_field(right: ast.AST, left: ast.AST) -> bool:
    """`anything / row["path"]`; a quotient of two fields is a number."""
    is_named = isinstance(right, ast.Subscript) and isinstance(right.slice, ast.Constant)
    return is_named and isinstance(right.slice.value, str) and not isinstance(left, ast.Subscript)


def of(path: Path) -> ast.AST:
    return ast.parse(path.read_text(), filename=str(path))


def test_one_module_changes_a_corpus() -> None:
    wrong = {
        name_of(path): found
        for path in FILES
        if name_of(path) not in STORAGE and not is_listed(path, CHANGES_FILES)
        if (found := list(changes(of(path))))
    }
    assert wrong == {}, "use LocalStorage"


def test_one_door_turns_what_data_says_into_a_path() -> None:
    wrong = {
        name_of(path): found
        for path in (*FILES, *READERS)
        if not is_listed(path, JOINS)
        if (found := list(joins(of(path))))
    }
    assert wrong == {}, "use Corpus.path or within"


@pytest.mark.parametrize(("listed", "look"), [(CHANGES_FILES, changes), (JOINS, joins)])
def test_what_is_listed_needs_it(listed: dict[str, str], look: object) -> None:
    assert callable(look)
    for each in listed:
        files = [path for path in (*FILES, *READERS) if name_of(path).startswith(each)]
        assert any(list(look(of(path))) for path in files), each


@pytest.mark.parametrize(
    "text",
    [
        "shutil.rmtree(x)",
        "os.remove(x)",
        "os.open(x, os.O_CREAT)",
        "path.unlink()",
        "path.open('wb')",
        "open(path, mode='a')",
        "path.write_text('')",
        "os.rename(a, b)",
        "path.rename(b)",
    ],
)
def test_a_change_is_seen(text: str) -> None:
    assert list(changes(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "disk.remove(x)",
        "self.disk.sync()",
        "path.open('rb')",
        "frame.rename({'a': 'b'})",
        "open(x)",
    ],
)
def test_what_changes_nothing_is_let_be(text: str) -> None:
    assert list(changes(ast.parse(text))) == []


@pytest.mark.parametrize(
    "text",
    [
        "corpus / row['path']",
        "Path(work.corpus) / row['path'] / name",
        "self.corpus.root / 'a' / name",
        "root / f'{x}'",
        "p.joinpath(q)",
        "f'{root}/{name}'",
        "open(f'{self.corpus.root}/{FOLDER}/x/{name}')",
        "f'see {corpus}/datasets/{name}'",
        "os.path.join(corpus, name)",
        "os.path.join(str(root), 'a', row['path'])",
        "Path(root, name)",
        "Path(corpus) / name",
        "str(corpus) + '/' + name",
    ],
)
def test_a_join_with_data_is_seen(text: str) -> None:
    assert list(joins(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "row['length'] / row['duration_s']",
        "values / names[0]",
        "corpus / 'meta'",
        "corpus.root / FOLDER",
        "files('schemas').joinpath('hands.yaml')",
        "total / count",
        "f'run `eicorpus verify {corpus}`, then {name}'",
        "f'{corpus}/{FOLDER}'",
        "f'{dataset_path}/{name}'",
        "os.path.join(corpus, 'meta')",
        "os.path.join(folder, name)",
        "Path(corpus)",
        "str(corpus) + '.part'",
    ],
)
def test_a_join_with_a_constant_is_let_be(text: str) -> None:
    assert list(joins(ast.parse(text))) == []
