"""`import eicorpus`: it imports nothing of ours and no library; each of its names is the class that it stands for."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import eicorpus
import pytest

import adapters.base
import jobs.python_api.corpus
import schemas.manifest
from tests.test_architecture import MAY_IMPORT, PYPROJECT, ROOT


def test_it_is_the_file_of_this_checkout() -> None:
    assert Path(eicorpus.__file__) == ROOT / "jobs" / "facade" / "eicorpus.py"
    tools = PYPROJECT["tool"]["setuptools"]
    assert (tools["py-modules"], tools["package-dir"][""]) == (["eicorpus"], "jobs/facade")


def test_names_are_the_classes_themselves() -> None:
    assert eicorpus.Adapter is adapters.base.Adapter
    assert eicorpus.Corpus is jobs.python_api.corpus.Corpus
    assert eicorpus.Manifest is schemas.manifest.Manifest
    assert eicorpus.__version__ == version("eicorpus")
    assert set(eicorpus.__all__) <= set(dir(eicorpus))


def test_every_name_that_is_offered_is_one_that_type_checkers_know() -> None:
    tree = ast.parse(Path(eicorpus.__file__).read_text())
    (block,) = (
        n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"
    )
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    known = {a.asname or a.name: (n.module, a.name) for n in imports for a in n.names}
    assert known == eicorpus._PLACES
    assert sorted({*known, "__version__"}) == eicorpus.__all__


@pytest.mark.parametrize("name", sorted(eicorpus._PLACES))
def test_a_name_is_what_its_module_has(name: str) -> None:
    pytest.importorskip("torch")
    module, attribute = eicorpus._PLACES[name]
    assert getattr(eicorpus, name) is getattr(import_module(module), attribute)


def test_pages_import_the_facade_alone() -> None:
    ours = rf"^\s*(?:from|import) (?:{'|'.join(MAY_IMPORT)})\b.*"
    blocks = [
        (page.name, block)
        for page in (ROOT / "docs").rglob("*.md")
        for block in re.findall(
            r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE
        )
    ]
    assert sum("from eicorpus import" in block for _, block in blocks) >= 6
    assert [(n, line) for n, b in blocks for line in re.findall(ours, b, re.MULTILINE)] == []


def test_the_policy_is_that_of_training() -> None:
    policy = pytest.importorskip("training.policy.policy")
    assert eicorpus.Policy is policy.Policy


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Catalog'"):
        eicorpus.Catalog  # noqa: B018


def modules_after(code: str) -> set[str]:
    """First parts of the names of all modules that are imported after `code`, without those of an empty program."""
    script = "import sys; before = set(sys.modules)\n{}\nimport json; print(json.dumps(sorted(set(sys.modules) - before)))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script.format(code)],
        env={"PYTHONPATH": str(ROOT / "jobs" / "facade")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return {name.split(".")[0] for name in json.loads(done.stdout)}


def test_importing_it_imports_the_standard_library_alone() -> None:
    names = modules_after("import eicorpus")
    assert "eicorpus" in names
    assert names - {"eicorpus"} <= set(sys.stdlib_module_names)
    assert not names & MAY_IMPORT.keys()


def test_a_policy_without_torch_names_the_extra() -> None:
    code = (
        "import sys; sys.path.append(sys.argv[1]); sys.modules['torch'] = None\n"
        "try:\n    from eicorpus import Policy\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)],
        env={"PYTHONPATH": str(ROOT / "jobs" / "facade")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "Policy needs torch; run pip install 'eicorpus[train]'"
