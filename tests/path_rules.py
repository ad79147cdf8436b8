"""What a source file does to files, and what it makes paths of, read off its syntax tree. tests/test_corpus_door.py states the rules.

Types decide, as annotations give them: `mypy --strict` holds every function to one. What is called like a folder counts as one, too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise, takewhile

# Names of modules before any import is read.
USUAL = {"np": "numpy", "pa": "pyarrow", "pq": "pyarrow.parquet", "Path": "pathlib.Path"}
_OF_OS = """unlink remove rename renames replace rmdir removedirs mkdir makedirs link symlink chmod lchmod chown lchown truncate
ftruncate mknod mkfifo sync fsync fdatasync utime pwrite"""
_OF_SHUTIL = """copy copy2 copyfile copyfileobj copymode copystat copytree move rmtree make_archive unpack_archive chown"""
ALWAYS = {f"os.{n}" for n in _OF_OS.split()} | {f"shutil.{n}" for n in _OF_SHUTIL.split()}
# Writers of libraries, and which argument is the file: one in memory is none.
WRITERS = {
    "cv2.VideoWriter": 0,
    "cv2.imwrite": 0,
    "numpy.save": 0,
    "numpy.savetxt": 0,
    "numpy.savez": 0,
    "numpy.savez_compressed": 0,
    "pyarrow.RecordBatchFileWriter": 0,
    "pyarrow.RecordBatchStreamWriter": 0,
    "pyarrow.create_memory_map": 0,
    "pyarrow.csv.write_csv": 1,
    "pyarrow.dataset.write_dataset": 1,
    "pyarrow.feather.write_feather": 1,
    "pyarrow.ipc.new_file": 0,
    "pyarrow.ipc.new_stream": 0,
    "pyarrow.output_stream": 0,
    "pyarrow.parquet.ParquetWriter": 0,
    "pyarrow.parquet.write_metadata": 1,
    "pyarrow.parquet.write_table": 1,
    "pyarrow.parquet.write_to_dataset": 1,
    "safetensors.numpy.save_file": 1,
    "safetensors.torch.save_file": 1,
    "safetensors.torch.save_model": 1,
    "torch.save": 1,
}
IN_MEMORY = frozenset(["io.BytesIO", "pyarrow.BufferOutputStream"])
# Methods that change files whatever object has them.
METHODS = frozenset(
    [
        "chmod",
        "copy_into",
        "copyfile",
        "copytree",
        "hardlink_to",
        "lchmod",
        "makedirs",
        "mkdir",
        "mkfifo",
        "mknod",
        "move_into",
        "removedirs",
        "renames",
        "rmdir",
        "rmtree",
        "save_file",
        "save_pretrained",
        "savefig",
        "sink_csv",
        "sink_ipc",
        "sink_ndjson",
        "sink_parquet",
        "symlink",
        "symlink_to",
        "to_csv",
        "to_feather",
        "to_parquet",
        "to_pickle",
        "tofile",
        "touch",
        "unlink",
        "write_bytes",
        "write_csv",
        "write_ipc",
        "write_ndjson",
        "write_parquet",
        "write_text",
    ]
)
# And those that do in a call with one argument: `text.replace(a, b)`, `values.copy()` and `frame.rename({})` change none.
METHODS_OF_A_PATH = frozenset(["copy", "move", "rename", "replace", "save"])
READING = frozenset(
    f"os.O_{n}" for n in ("RDONLY", "CLOEXEC", "DIRECTORY", "NOFOLLOW", "NONBLOCK", "PATH")
)
STORAGE = frozenset(["disk", "storage", "_disk"])
OPENERS = frozenset(["open", "io.open", "os.fdopen", "gzip.open", "codecs.open", "pyarrow.OSFile"])

_FOLDER = re.compile(r"_*(\w+_)?(corpus|root|folder|dataset|staging|ledger|quarantine)")
_PATH_TYPE = re.compile(r"\b(Path|PurePath|PurePosixPath|Traversable|PathLike)\b")
_OF_A_PATH = frozenset(
    [
        "absolute",
        "expanduser",
        "glob",
        "iterdir",
        "joinpath",
        "parent",
        "parents",
        "readlink",
        "relative_to",
        "resolve",
        "rglob",
        "walk",
        "with_name",
        "with_segments",
        "with_stem",
        "with_suffix",
    ]
)
_CONTAINERS = frozenset(
    [
        "cast",
        "chain",
        "dict",
        "enumerate",
        "filter",
        "iter",
        "list",
        "map",
        "max",
        "min",
        "next",
        "reversed",
        "set",
        "sorted",
        "tuple",
        "zip",
    ]
)


def last(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def imported(nodes: list[ast.AST]) -> dict[str, str]:
    """What each name of a module stands for: `from os import replace as r` makes r `os.replace`, and `s = shutil` s `shutil`."""
    names = dict(USUAL)
    for node in nodes:
        if isinstance(node, ast.Import):
            for each in node.names:
                name = each.asname or each.name.split(".")[0]
                names[name] = each.name if each.asname else name
        elif isinstance(node, ast.ImportFrom):
            names |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name | ast.Attribute):
            full = dotted(node.value, names)
            is_known = full.split(".")[0] in {name.split(".")[0] for name in (*ALWAYS, *WRITERS)}
            names |= {t.id: full for t in node.targets if isinstance(t, ast.Name) and is_known}
    return names


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """`numpy.save` for `np.save`; "" for what is no chain of names."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        above = dotted(node.value, names)
        return f"{above}.{node.attr}" if above else ""
    return ""


# --- changes ----------------------------------------------------------------------------------------------------------


def changes(tree: ast.AST) -> Iterator[str]:
    """What changes files by other means than a LocalStorage, called or handed on."""
    nodes = list(ast.walk(tree))
    names = imported(nodes)
    in_memory = _bound_in_memory(nodes, names)
    harmless: set[int] = set()
    for node in nodes:
        if isinstance(node, ast.Call):
            target = _target(node, dotted(node.func, names))
            if target is not None and last(target) in in_memory:
                harmless.add(id(node.func))
            if _writes(node, names):
                yield ast.unparse(node)
        elif (
            isinstance(node, ast.Attribute | ast.Name)
            and isinstance(node.ctx, ast.Load)
            and id(node) not in harmless
            and _is_writer(node, names)
        ):
            yield ast.unparse(node)


def _bound_in_memory(nodes: list[ast.AST], names: dict[str, str]) -> set[str]:
    """Names that are bound to a file in memory and to nothing else."""
    bound: dict[str, list[bool]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign):
            is_memory = isinstance(node.value, ast.Call)
            is_memory = is_memory and dotted(node.value.func, names) in IN_MEMORY  # type: ignore[attr-defined]
            for target in node.targets:
                bound.setdefault(last(target), []).append(is_memory)
        elif isinstance(node, ast.arg):
            bound.setdefault(node.arg, []).append(False)
    return {name for name, kinds in bound.items() if name and all(kinds)}


def _target(node: ast.Call, full: str) -> ast.expr | None:
    at = WRITERS.get(full)
    return node.args[at] if at is not None and len(node.args) > at else None


def _is_writer(node: ast.Attribute | ast.Name, names: dict[str, str]) -> bool:
    full = dotted(node, names)
    if full in ALWAYS or full in WRITERS:
        return True
    return isinstance(node, ast.Attribute) and node.attr in METHODS and not _is_storage(node, names)


def _is_storage(node: ast.Attribute, names: dict[str, str]) -> bool:
    return last(node.value) in STORAGE and last(node.value) not in names


def _writes(node: ast.Call, names: dict[str, str]) -> bool:
    """Calls whose arguments decide."""
    full, func = dotted(node.func, names), node.func
    if full == "getattr" and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
        return node.args[1].value in METHODS | METHODS_OF_A_PATH
    if full == "os.open":
        flags = node.args[1] if len(node.args) > 1 else node
        return not {dotted(each, names) for each in _alternatives(flags)} <= READING
    if full in ("numpy.memmap", "numpy.lib.format.open_memmap"):
        return not _modes(node, 2) & {"r", "c"}
    if full in OPENERS or full.startswith("pathlib.Path.open"):
        modes = _modes(node, 1)
        return None in modes or any(set(str(mode)) & set("wax+") for mode in modes)
    if not isinstance(func, ast.Attribute) or _is_storage(func, names):
        return False
    if func.attr == "open":
        return any(
            isinstance(mode, str) and set(mode) <= set("rwaxbt+") and set(mode) & set("wax+")
            for mode in _modes(node, 0) | _modes(node, 1)
        )
    is_one = len(node.args) == 1 and not node.keywords and not isinstance(node.args[0], ast.Dict)
    return func.attr in METHODS_OF_A_PATH and is_one


def _modes(node: ast.Call, at: int) -> set[object]:
    """The mode of an `open`: None where it is no constant, nothing where there is none."""
    modes = [*node.args[at : at + 1], *(k.value for k in node.keywords if k.arg == "mode")]
    return {mode.value if isinstance(mode, ast.Constant) else None for mode in modes}


def _alternatives(flags: ast.AST) -> list[ast.AST]:
    if isinstance(flags, ast.BinOp) and isinstance(flags.op, ast.BitOr):
        return [*_alternatives(flags.left), *_alternatives(flags.right)]
    return [flags]


# --- paths ------------------------------------------------------------------------------------------------------------


@dataclass
class PathNames:
    """What of the whole source is a path by its annotation: attributes of classes, and what functions return."""

    attributes: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, trees: Iterable[ast.AST]) -> PathNames:
        known = cls()
        for node in (node for tree in trees for node in ast.walk(tree)):
            if isinstance(node, ast.FunctionDef) and _is_path_type(node.returns):
                is_property = any("property" in last(each) for each in node.decorator_list)
                (known.attributes if is_property else known.functions).add(node.name)
            elif isinstance(node, ast.ClassDef):
                known.attributes |= {
                    last(each.target)
                    for each in node.body
                    if isinstance(each, ast.AnnAssign) and _is_path_type(each.annotation)
                }
                known.attributes |= set(_own(node))
        return known


def _own(node: ast.ClassDef) -> Iterator[str]:
    """`self.folder = folder`, where the argument is a path."""
    for function in (each for each in node.body if isinstance(each, ast.FunctionDef)):
        nodes = list(ast.walk(function))
        names = Bindings(nodes, PathNames())
        for each in nodes:
            if isinstance(each, ast.Assign):
                pairs = _pairs(each)
                yield from (
                    t.attr for t, v in pairs if isinstance(t, ast.Attribute) and names.is_path(v)
                )


def _is_path_type(annotation: ast.expr | None) -> bool:
    return annotation is not None and _PATH_TYPE.search(ast.unparse(annotation)) is not None


def _pairs(node: ast.Assign) -> Iterator[tuple[ast.expr, ast.expr]]:
    """(target, value) of an assignment; of `a, b = c, d` one by one."""
    for target in node.targets:
        if (
            isinstance(target, ast.Tuple)
            and isinstance(node.value, ast.Tuple)
            and len(target.elts) == len(node.value.elts)
        ):
            yield from zip(target.elts, node.value.elts, strict=True)
        else:
            yield target, node.value


class Bindings:
    """What the names of one function, or of the top of a module, are bound to; nested functions count as part of theirs."""

    def __init__(self, nodes: list[ast.AST], known: PathNames) -> None:
        self.known = known
        self.values: dict[str, list[ast.expr]] = {}
        self.annotations: dict[str, list[ast.expr]] = {}
        self.iterated: dict[str, list[ast.expr]] = {}
        for node in nodes:
            self._add(node)
        self._paths = {
            name for name, types in self.annotations.items() if any(map(_is_path_type, types))
        }
        size = -1
        while size < len(self._paths):
            size = len(self._paths)
            bound = [*self.values.items(), *self.iterated.items()]
            self._paths |= {name for name, values in bound if any(map(self.is_path, values))}
        self._constants = {*self.values, *self.iterated} - self.annotations.keys()
        while size != len(self._constants):
            size = len(self._constants)
            bound = [*self.values.items(), *self.iterated.items()]
            self._constants -= {n for n, values in bound if not all(map(self.is_constant, values))}

    def _add(self, node: ast.AST) -> None:
        if isinstance(node, ast.arg):
            self.annotations.setdefault(node.arg, []).append(node.annotation or ast.Name("Any"))
        elif isinstance(node, ast.AnnAssign):
            self.annotations.setdefault(last(node.target), []).append(node.annotation)
        elif isinstance(node, ast.Assign):
            for target, value in _pairs(node):
                self._bind(self.values, target, value)
        elif isinstance(node, ast.NamedExpr | ast.AugAssign):
            self._bind(self.values, node.target, node.value)
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            self._bind(self.values, node.optional_vars, node.context_expr)
        elif isinstance(node, ast.For | ast.comprehension):
            self._bind(self.iterated, node.target, node.iter)

    def _bind(self, where: dict[str, list[ast.expr]], target: ast.expr, value: ast.expr) -> None:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                where.setdefault(node.id, []).append(value)

    def is_path(self, node: ast.AST) -> bool:
        """A path, or something that holds paths."""
        if isinstance(node, ast.Name):
            return node.id in self._paths or _FOLDER.fullmatch(node.id) is not None
        if isinstance(node, ast.Attribute):
            if node.attr in self.known.attributes or _FOLDER.fullmatch(node.attr):
                return True
            return node.attr in _OF_A_PATH and self.is_path(node.value)
        if isinstance(node, ast.Call):
            return self._is_call_of_path(node)
        if isinstance(node, ast.BinOp):
            return self.is_path(node.left) or self.is_path(node.right)
        if isinstance(node, ast.IfExp):
            return self.is_path(node.body) or self.is_path(node.orelse)
        if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.SetComp):
            return self.is_path(node.elt)
        if isinstance(node, ast.DictComp):
            return self.is_path(node.key) or self.is_path(node.value)
        if isinstance(node, ast.Subscript | ast.Starred | ast.NamedExpr):
            return self.is_path(node.value)
        parts = [*getattr(node, "elts", []), *getattr(node, "values", [])]
        return isinstance(node, ast.Tuple | ast.List | ast.Set | ast.BoolOp | ast.Dict) and any(
            self.is_path(part) for part in parts if part is not None
        )

    def _is_call_of_path(self, node: ast.Call) -> bool:
        name = last(node.func)
        if name in ("Path", "PurePath", "PurePosixPath") or name in self.known.functions:
            return True
        if isinstance(node.func, ast.Attribute):
            above = node.func.value
            if last(above) == "Path" or (name in _OF_A_PATH | {"values", "items", "pop", "get"}):
                return last(above) == "Path" or self.is_path(above)
        return name in _CONTAINERS and any(map(self.is_path, node.args))

    def is_constant(self, node: ast.AST) -> bool:
        """Nothing that data decides: a literal, an upper-case name, a name bound to those alone, a number written as digits."""
        if isinstance(node, ast.FormattedValue):
            return _is_number(node) or self.is_constant(node.value)
        if isinstance(node, ast.JoinedStr | ast.Tuple | ast.List):
            return all(map(self.is_constant, getattr(node, "values", getattr(node, "elts", []))))
        if isinstance(node, ast.IfExp):
            return self.is_constant(node.body) and self.is_constant(node.orelse)
        if isinstance(node, ast.BinOp):
            return self.is_constant(node.left) and self.is_constant(node.right)
        if isinstance(node, ast.Starred):
            return self.is_constant(node.value)
        is_name = isinstance(node, ast.Name) and node.id in self._constants
        return is_name or isinstance(node, ast.Constant) or last(node).isupper()


def _is_number(node: ast.FormattedValue) -> bool:
    """`{index:06d}`: a text is refused there."""
    return node.format_spec is not None and ast.unparse(node.format_spec).endswith(
        ("d'", "x'", 'd"')
    )


def joins(tree: ast.AST, known: PathNames | None = None) -> Iterator[str]:
    """What makes a path of a folder and of something that is no constant."""
    for scope in _scopes(tree):
        nodes = list(ast.walk(scope))
        names = Bindings(nodes, known or PathNames())
        yield from (
            ast.unparse(node)
            for node in nodes
            if _is_quotient(node, names) or _is_text(node, names) or _is_call(node, names)
        )


def _scopes(tree: ast.AST) -> Iterator[ast.AST]:
    """Functions and methods, and all else of a module as one."""
    rest = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _scopes(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        elif isinstance(node, ast.stmt):
            rest.append(node)
    if rest:
        yield ast.Module(body=rest, type_ignores=[])


def _is_quotient(node: ast.AST, names: Bindings) -> bool:
    """`folder / name`, `folder /= name`, `"a" / folder`, `anything / f"{name}.json"` and `anything / row["path"]`."""
    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Div):
        return names.is_path(node.target) and not names.is_constant(node.value)
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)):
        return False
    if names.is_constant(node.right):
        return False
    is_path = names.is_path(node.left) or names.is_path(node.right)
    return is_path or isinstance(node.right, ast.JoinedStr) or _is_field(node.right, node.left)


def _is_field(right: ast.AST, left: ast.AST) -> bool:
    """`anything / row["path"]`; a quotient of two fields is a number."""
    is_named = isinstance(right, ast.Subscript) and isinstance(right.slice, ast.Constant)
    return is_named and isinstance(right.slice.value, str) and not isinstance(left, ast.Subscript)  # type: ignore[attr-defined]


def _is_text(node: ast.AST, names: Bindings) -> bool:
    """`f"{corpus}/{name}"` and `str(corpus) + "/" + name`; `f"run it on {corpus}"` is a message."""
    if isinstance(node, ast.JoinedStr):
        parts = list(node.values)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = _summands(node)
    else:
        return False
    for at, (folder, slash) in enumerate(pairwise(parts)):
        is_slash = isinstance(slash, ast.Constant) and str(slash.value).startswith("/")
        if is_slash and names.is_path(_untold(folder)):
            # A space ends the path: what follows is the rest of a message.
            path = takewhile(lambda each: " " not in ast.unparse(each), parts[at + 1 :])
            if not all(map(names.is_constant, path)):
                return True
    return False


def _summands(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*_summands(node.left), *_summands(node.right)]
    return [node]


def _untold(node: ast.AST) -> ast.AST:
    """The path of `str(path)` and of `{path}` in a text."""
    if isinstance(node, ast.FormattedValue):
        return _untold(node.value)
    if isinstance(node, ast.Call) and last(node.func) in ("str", "fspath") and node.args:
        return _untold(node.args[0])
    return node


def _is_call(node: ast.AST, names: Bindings) -> bool:
    """`folder.joinpath(name)`, `folder.rglob(pattern)`, `Path(folder, name)`, `os.path.join(folder, name)`."""
    if not isinstance(node, ast.Call):
        return False
    if last(node.func) in ("joinpath", "glob", "rglob", "with_segments"):
        return not all(map(names.is_constant, node.args))
    is_join = ast.unparse(node.func) in (
        "os.path.join",
        "path.join",
        "join",
        "Path",
        "pathlib.Path",
    )
    first, *others = node.args or [node]
    is_folder = names.is_path(_untold(first)) or last(node.func) == "Path"
    return is_join and is_folder and not all(map(names.is_constant, others))
