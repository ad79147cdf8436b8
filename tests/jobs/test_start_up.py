"""A command imports only what it needs, so that help and completion answer at once."""

import subprocess
import sys

import pytest

# Words of a command line -> large libraries that its help does not need.
UNUSED = {
    "--help": {"numpy", "pydantic", "pyarrow", "pandas", "polars", "duckdb", "av", "torch", "ray"},
    "train --help": {"numpy", "pyarrow", "pandas", "polars", "duckdb", "av", "torch", "ray"},
    "query --help": {"pandas", "polars", "duckdb", "av", "torch", "ray"},
    "ingest --help": {"pandas", "polars", "duckdb", "torch", "ray"},
}
SCRIPT = """
import contextlib, io, sys
from jobs.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
print(*{name.split(".")[0] for name in sys.modules})
"""


@pytest.mark.parametrize("words", UNUSED)
def test_help_imports_no_large_library_that_it_does_not_need(words: str) -> None:
    command = [sys.executable, "-c", SCRIPT, *words.split()]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = set(answer.stdout.split())
    assert "typer" in imported
    assert not imported & UNUSED[words]
