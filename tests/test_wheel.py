"""What a user installs: the wheel, unpacked in a folder of its own and run far from the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.peer.reader import PEER, PYTHON
from tests.test_architecture import PYPROJECT, ROOT, project_files

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's files, built from what git tracks."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in project_files():
        if not name.startswith(("tests/", "benchmarks/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    words = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder), "."]
    subprocess.run([sys.executable, "-m", *words], cwd=source, check=True, timeout=600)
    (wheel,) = folder.glob("eicorpus-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    shutil.rmtree(source)
    return folder / "site"


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `pip install -e` leaves in site-packages, without pip."""
    folder = tmp_path_factory.mktemp("editable")
    hook = f"from setuptools.build_meta import build_editable; build_editable({str(folder)!r})"
    subprocess.run([sys.executable, "-c", hook], cwd=ROOT, check=True, timeout=600)
    (wheel,) = folder.glob("eicorpus-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def environment_of(installed: Path, home: Path) -> dict[str, str]:
    """Imports come from the wheel, and from nowhere near the current folder."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(installed),
        "PYTHONSAFEPATH": "1",
    }


def eicorpus(
    installed: Path, home: Path, *words: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The command as the wheel has it, in an empty folder, with an empty home."""
    home.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "jobs", *words],
        cwd=home,
        env={**environment_of(installed, home), **variables},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_the_packages_are_the_wheels_and_not_the_checkouts(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import jobs.cli; print(jobs.cli.__file__)"],
        env=environment_of(installed, tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(installed)


FACADE = """
import site, sys
site.addsitedir(sys.argv[1])
import eicorpus, json
from schemas.remedies import doc_page
about = {"file": eicorpus.__file__, "version": eicorpus.__version__, "corpus": eicorpus.Corpus.__module__}
print(json.dumps(about | {"page": doc_page("how-to/query.md")}))
"""


def test_the_description_for_a_package_index_has_no_link_into_the_checkout(installed: Path) -> None:
    (path,) = installed.glob("eicorpus-*.dist-info/METADATA")
    _, _, description = path.read_text().partition("\n\n")
    links = re.findall(r"\]\(([^)\s]+)", description)
    assert [link for link in links if not link.startswith(("https://", "http://"))] == []
    assert "`eicorpus --help` lists the commands" in description


START = "import site, sys; site.addsitedir(sys.argv[1]); sys.argv[1:] = sys.argv[2:]; from eicorpus import main; main()"


@pytest.mark.parametrize("kind", ["installed", "editable"])
@pytest.mark.parametrize("name", ["schemas", "jobs"])
@pytest.mark.parametrize("words", [["--version"], ["doctor", "droid", "no_such_folder"]])
def test_a_foreign_package_that_hides_ours_is_named(
    words: list[str], name: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Also one that hides what the command itself is made of."""
    site: Path = request.getfixturevalue(kind)
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit('it was imported')")
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", START, str(site), *words],
        env={
            "PYTHONPATH": f"{tmp_path}:{site}:{sysconfig.get_path('purelib')}",
            "HOME": str(tmp_path),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert f"{name} ({tmp_path / name})" in done.stderr
    assert "packages of another distribution" in done.stderr


@pytest.mark.parametrize("kind", ["installed", "editable"])
def test_the_facade_and_the_pages_come_with_either_kind_of_installation(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    site: Path = request.getfixturevalue(kind)
    done = subprocess.run(
        [
            sys.executable,
            "-S",
            "-P",
            "-c",
            FACADE,
            str(site),
        ],  # -S: without this checkout's own installation
        env={"PYTHONPATH": f"{site}:{sysconfig.get_path('purelib')}", "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    about = json.loads(done.stdout)
    home = site if kind == "installed" else ROOT
    assert about["version"] == PYPROJECT["project"]["version"]
    assert about["corpus"] == "jobs.python_api.corpus"
    assert Path(about["file"]).is_relative_to(home)
    assert Path(about["page"]).is_relative_to(home)
    assert Path(about["page"]).is_file()


@pytest.fixture(scope="module")
def corpus(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's first steps: its raw data of one source, and their ingestion."""
    folder = tmp_path_factory.mktemp("corpus")
    script = "from pathlib import Path; from jobs.demo.command import raw_of; raw_of('droid', Path('raw'))"
    environment = environment_of(installed, folder)
    subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, timeout=120, check=True
    )
    words = ("ingest", "droid", str(folder / "raw"), "--out", str(folder / "corpus"))
    done = eicorpus(installed, folder / "home", *words)
    assert done.returncode == 0, done.stderr
    return folder / "corpus"


def test_the_demo_makes_a_sound_corpus(installed: Path, corpus: Path, tmp_path: Path) -> None:
    done = eicorpus(installed, tmp_path / "home", "verify", str(corpus), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"]["episodes"] == 2


class TestWithLeRobot:
    pytestmark = PEER

    def test_lerobot_reads_the_corpus(self, installed: Path, corpus: Path, tmp_path: Path) -> None:
        words = ("verify", str(corpus), "--peer", "--json")
        done = eicorpus(installed, tmp_path / "home", *words, EICORPUS_PEER_PYTHON=str(PYTHON))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["result"]["peer"]["episodes"] == 2


def test_the_reference_reader_is_in_the_wheel(installed: Path, tmp_path: Path) -> None:
    """Without its environment the message names the command that builds it, and a folder of the user's cache."""
    reader = installed / "ingest" / "verify" / "lerobot_reader"
    assert {path.name for path in reader.iterdir()} >= {"check.py", "shim.py", "requirements.txt"}
    done = eicorpus(installed, tmp_path / "home", "verify", str(tmp_path), "--peer")
    assert done.returncode == 2
    assert "run `eicorpus peer`" in done.stderr
    assert str(tmp_path / "home" / ".cache" / "eicorpus" / "peer") in done.stderr.replace("\n", "")
