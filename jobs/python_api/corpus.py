"""`eicorpus.Corpus`: one snapshot of a corpus. docs/how-to/python.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import polars as pl
import pyarrow as pa

from ingest.catalog.catalog import Catalog
from ingest.catalog.episode_tier import EPISODE_TIERS
from ingest.catalog.query_process import QueryLimits
from ingest.corpus.layout import open_corpus
from ingest.corpus.manifest_folders import manifest_folder, manifest_names
from jobs.python_api.episode import CorpusEpisode
from schemas.errors import ConfigError
from schemas.manifest import Manifest, ManifestFacts, load
from schemas.paths import check_local
from schemas.review import TIERS

if TYPE_CHECKING:
    from training.data.dataset import ManifestDataset
    from training.recipe import DataSettings

_HOURS = ", ".join(f"s.{tier} / e.length * e.hours AS hours_{tier}" for tier in TIERS)
EPISODES = f"""
SELECT e.* EXCLUDE (facts, raw_files, source_repeats)
       REPLACE ([camera.name for camera in cameras] AS cameras),
       s.tier, {_HOURS}
FROM episodes AS e LEFT JOIN {EPISODE_TIERS} AS s ON s.uid = e.uid
ORDER BY e.source, e.episode_id, e.uid
"""


class CorpusManifest:
    """One manifest of a corpus, checked against its digest when it was opened."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._manifest: Manifest = load(folder)

    @property
    def facts(self) -> ManifestFacts:
        """`manifest.json`: snapshot, policy, splits, mixture, hours and normalisation."""
        return self._manifest.facts

    @cached_property
    def segments(self) -> pl.DataFrame:
        """One row a segment: uid, [start, end), tier, tasks, split, weight, text, latents."""
        frame = pl.from_arrow(self._manifest.rows)
        assert isinstance(frame, pl.DataFrame)  # of a table, not of a column
        return frame

    def dataset(
        self, *, split: str = "train", data: DataSettings | None = None, cache: Path | None = None
    ) -> ManifestDataset:
        """A `torch.utils.data.Dataset` of the samples that `eicorpus train` makes; arguments as of `eicorpus.ManifestDataset`.

        Raises:
            ConfigError: torch is not installed; the manifest, its latents or its statistics do not fit, or no sample is left.
        """
        try:
            from training.data.dataset import ManifestDataset
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "torch":
                raise
            raise ConfigError(
                "dataset() needs torch", remedy="run pip install 'eicorpus[train]'"
            ) from error
        return ManifestDataset(self._folder, split=split, data=data, cache=cache)


class Corpus:
    """One snapshot of a corpus: pinned by `open`, moved to the latest by `refresh`. For one thread at a time."""

    def __init__(self, catalog: Catalog, limits: QueryLimits | None) -> None:
        self._catalog = catalog
        self._limits = limits

    @classmethod
    def open(
        cls, path: Path | str, *, snapshot: int | None = None, limits: QueryLimits | None = None
    ) -> Self:
        """Pin the latest snapshot of a corpus, or the one asked for.

        Args:
            snapshot: its number; default the latest. limits: of time and memory of a query.

        Raises:
            ConfigError: no corpus, no such snapshot, or a file of its catalog is missing.
        """
        check_local(Path(path), "Corpus.open")
        root = open_corpus(Path(path)).root.resolve()
        return cls(Catalog.open(root, snapshot=snapshot, limits=limits), limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Corpus({str(self.folder)!r}, snapshot={self.snapshot})"

    def close(self) -> None:
        """End the queries; episodes and frames that were read stay."""
        self._catalog.close()

    @property
    def folder(self) -> Path:
        """The folder of the corpus."""
        return self._catalog.corpus

    @property
    def snapshot(self) -> int:
        """The number of the pinned snapshot; 0 before anything was committed."""
        return self._catalog.snapshot

    def refresh(self) -> int:
        """Pin the latest snapshot, and return its number. Episodes that were read before keep theirs."""
        latest = Catalog.open(self.folder, limits=self._limits)
        self._catalog.close()
        self._catalog = latest
        self.__dict__.pop("episodes", None)
        return self.snapshot

    @property
    def tables(self) -> tuple[str, ...]:
        """Names that SQL can select from."""
        return self._catalog.tables

    def sql(self, text: str, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> pl.DataFrame:
        """The result of a reading query; `parameters` fill `$name` or `?`. Raises ConfigError."""
        return self._catalog.sql(text, parameters)

    def arrow(self, text: str, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> pa.Table:
        """`sql` as an Arrow table."""
        return self._catalog.arrow(text, parameters)

    def table(self, name: str) -> pl.LazyFrame:
        """A whole table with all its columns, to be filtered before it is read."""
        return self._catalog.table(name)

    @cached_property
    def episodes(self) -> pl.DataFrame:
        """One row an episode, in memory: the table `episodes` without raw files and facts, with names of cameras, and with
        `tier`, that of most timesteps (of equals the best), `hours_high`, `hours_low`, `hours_actionless` and `hours_excluded`: null before `eicorpus tier`.
        """
        return self._catalog.sql(EPISODES)

    def episode(self, uid: str) -> CorpusEpisode:
        """An episode of the pinned snapshot, by its uid.

        Raises:
            ConfigError: no episode of this snapshot has this uid, or its files are not where the catalog says.
            SourceError: its rows cannot be read.
        """
        return CorpusEpisode.read(self._catalog, uid)

    @property
    def manifests(self) -> list[str]:
        """Names of the manifests there are now, whatever the snapshot."""
        return manifest_names(self.folder)

    def manifest(self, name: str) -> CorpusManifest:
        """A manifest, checked against its digest.

        Raises:
            ConfigError: no such manifest, or one that was changed since it was built.
        """
        return CorpusManifest(manifest_folder(self.folder, name))
