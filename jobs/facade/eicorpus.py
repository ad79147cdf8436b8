"""The Python interface: `from eicorpus import Corpus`. Importing this module imports nothing else; each name is imported on first use.

    Corpus     one snapshot of a corpus: its tables by SQL, its episodes as arrays
    Manifest   what a training run reads: segments, splits, weights, statistics
    Policy     a trained network that predicts actions (needs the extra `train`)
    Adapter    the protocol that a source of your own implements

An installation has it as the top-level module `eicorpus` (pyproject.toml, `py-modules`). The packages behind it have names that other
distributions use too, so programs import this module and not those packages.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.base import Adapter
    from ingest.stored_episode import StoredCorpus as Corpus
    from schemas.manifest import Manifest
    from training.policy.policy import Policy

    __version__: str

__all__ = ["Adapter", "Corpus", "Manifest", "Policy", "__version__"]

_PLACES = {
    "Adapter": "adapters.base:Adapter",
    "Corpus": "ingest.stored_episode:StoredCorpus",
    "Manifest": "schemas.manifest:Manifest",
    "Policy": "training.policy.policy:Policy",
}


def __getattr__(name: str) -> Any:
    """The name itself, imported (PEP 562).

    Raises:
        ImportError: its extra is not installed.
    """
    if name == "__version__":
        return version("eicorpus")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(f"{name} needs torch; pip install 'eicorpus[train]'") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
