"""Whether `schemas`, `adapters`, `ingest` and `training` are ours. Other distributions use such names too, and the first on sys.path is imported."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("schemas", "adapters", "ingest", "training", "jobs")
_PLACE = Path(__file__).parents[1]  # of this package; the others lie beside it


def foreign_packages() -> str:
    """One line that names every package of another distribution and both places; "" where all are ours. Imports nothing."""
    places = {name: _place_of(name) for name in PACKAGES}
    foreign = [f"{name} ({place})" for name, place in places.items() if place != _PLACE / name]
    if not foreign:
        return ""
    return (
        f"packages of another distribution hide those of eicorpus in {_PLACE}: {', '.join(foreign)}; "
        "uninstall that distribution, or install eicorpus in a virtual environment of its own"
    )


def _place_of(name: str) -> Path | None:
    spec = find_spec(name)
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None
