"""What `Corpus.episode` returns: the arrays of a stored episode, with a figure and a contact sheet for notebooks."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from ingest.report.html import Markup, tag
from ingest.report.pictures import Sheets
from ingest.stored_episode import StoredEpisode
from jobs.python_api.figure import figure
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SHEET_BYTES = 2**18  # of the contact sheet of a notebook cell, as base64


class CorpusEpisode(StoredEpisode):
    """K timesteps at `rate_hz`; timestep k is k / rate_hz seconds after the first. `row` is the episode's row of `episodes`.

    As the value of a notebook's cell it shows a summary with a contact sheet.
    """

    def __repr__(self) -> str:
        return f"Episode({self.row['uid']!r}, {self.row['source']!r}, length={self.length}, rate_hz={self.rate_hz:g}, cameras={list(self.cameras)})"

    def plot(self) -> Figure:
        """State and action over time by slice, with the tiers as bands: a plotly figure.

        Raises:
            ConfigError: plotly is not installed.
        """
        try:
            return figure(self)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "plotly":
                raise
            raise ConfigError(
                "plot() needs plotly", remedy="run pip install 'eicorpus[notebook]'"
            ) from error

    def show(self) -> None:
        """Display the summary and the figure in a notebook.

        Raises:
            ConfigError: this is no notebook, or plotly is not installed.
        """
        if "IPython" not in sys.modules:
            raise ConfigError(
                "show() needs a notebook", remedy="use plot().show(), or `eicorpus view`"
            )
        import_module("IPython.display").display(self, self.plot())

    def _repr_html_(self) -> str:
        """Names are escaped. The pictures are a JPEG inside."""
        row = self.row
        facts = (
            ("uid", row["uid"]),
            ("source", row["source"]),
            ("episode", row["episode_id"]),
            ("embodiment", row["embodiment"]),
            ("tasks", row["tasks"]),
            ("length", f"{self.length} timesteps at {self.rate_hz:g} Hz"),
            ("tiers", sorted(set(self.tiers["tier"]))),
        )
        cells = Markup(
            "".join(tag("tr", tag("th", name), tag("td", value)) for name, value in facts)
        )
        sheet = Sheets(corpus=self.corpus, budget_bytes=SHEET_BYTES).sheet(
            {**row, "start": 0, "end": self.length}
        )
        return tag("div", tag("table", cells), sheet)
