"""Measures of installed packages: imported when they are named, refused when they are not what their entry point says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.curation.measurements import registry
from schemas.errors import ConfigError
from tests.curation.test_policy import with_rule
from tests.curation.tier_corpus import policy_of

MEASURE = """
from ingest.curation.measurements.registry import Measure, OutputField
MEASURE = Measure(name={name!r}, version=1, outputs=(OutputField(name={output!r}, unit="m", about="x"),), compute=lambda view: ())
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path with a distribution that names four measures, one of which raises when it is imported."""
    about = tmp_path / "toy-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    points = {"rise": "toy_rise", "trap": "toy_trap", "odd": "toy_odd", "length": "toy_rise"}
    lines = "".join(f"{name} = {module}:MEASURE\n" for name, module in points.items())
    (about / "entry_points.txt").write_text(f"[eicorpus.measures]\n{lines}")
    (tmp_path / "toy_rise.py").write_text(MEASURE.format(name="rise", output="rise.max_m"))
    (tmp_path / "toy_trap.py").write_text("raise ImportError('it was imported')")
    (tmp_path / "toy_odd.py").write_text(MEASURE.format(name="odd", output="rise.odd"))
    monkeypatch.syspath_prepend(str(tmp_path))
    caches = (registry.measures_of_packages, registry.measure_of_package)
    for cache in caches:
        cache.cache_clear()
    yield tmp_path
    for cache in caches:
        cache.cache_clear()
    for module in points.values():
        sys.modules.pop(module, None)


def test_without_a_name_only_ours_run_and_nothing_is_imported(site: Path) -> None:
    ours = registry.measures()
    assert [m.name for m in registry.select_measures([])] == list(ours)
    assert sorted(registry.measures_of_packages()) == ["odd", "rise", "trap"]  # `length` stays ours
    assert not {"toy_rise", "toy_trap"} & sys.modules.keys()


def test_a_named_one_is_imported_and_no_other(site: Path) -> None:
    (measure,) = registry.select_measures(["rise"])
    assert [gives.name for gives in measure.outputs] == ["rise.max_m"]
    assert "toy_trap" not in sys.modules


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trap", "cannot be imported: it was imported"),
        ("odd", r"writes \['rise.odd'\]; expected 'odd'"),
        ("rize", r"no measure \['rize'\]; expected one of .*rise"),
    ],
)
def test_what_is_no_measure_of_its_name_is_refused(site: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.select_measures([name])


def test_a_policy_that_names_its_number_imports_it(site: Path) -> None:
    policy = policy_of(with_rule("{measurement: rise.max_m, above: 0.5, origin: ours}"))
    assert policy.rules[0].when.measurement == "rise.max_m"
    assert "toy_trap" not in sys.modules
    with pytest.raises(ConfigError, match=r"no measurement 'rise.min_m'; did you mean rise.max_m"):
        policy_of(with_rule("{measurement: rise.min_m, above: 0.5, origin: ours}"))
