"""State and action of an episode over time, as a plotly figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ingest.stored_episode import StoredEpisode
from jobs.ui.tier_colours import TIER_COLOURS

if TYPE_CHECKING:
    import plotly.graph_objects as go

# feature, the line, and how many timesteps after its own a row's values are reached
LINES = (("observation.state", "solid", 0), ("action", "dot", 1))
ROW_HEIGHT_PX = 140
MOST_ELEMENTS = 12  # 63 coordinates of keypoints are no figure


def figure(episode: StoredEpisode) -> go.Figure:
    """One row of axes a slice: state solid, action dotted and at the time it aims at, both only where valid, and the tiers as bands."""
    from plotly.subplots import make_subplots

    slices = episode.slices
    drawn = [name for name, width in slices.items() if width <= MOST_ELEMENTS]
    out = make_subplots(
        rows=max(len(drawn), 1), shared_xaxes=True, subplot_titles=drawn or ["no state, no action"]
    )
    for row, name in enumerate(drawn, start=1):
        _draw_slice(out, episode, name, row)
    for start, end, tier in episode.tiers.select("start", "end", "tier").iter_rows():
        out.add_vrect(
            x0=start / episode.rate_hz,
            x1=end / episode.rate_hz,
            fillcolor=TIER_COLOURS.get(tier, "#999999"),
            opacity=0.15,
            line_width=0,
        )
    out.update_xaxes(range=[0, episode.length / episode.rate_hz])
    out.update_xaxes(title_text="time_s", row=max(len(drawn), 1))
    left_out = [name for name, width in slices.items() if width > MOST_ELEMENTS]
    note = f"; not drawn: {', '.join(left_out)}" if left_out else ""
    out.update_layout(
        height=ROW_HEIGHT_PX * max(len(drawn), 1) + 160,
        title_text=f"{episode.row['uid']}: state solid, action dotted{note}",
        title_font_size=13,
    )
    return out


def _draw_slice(out: go.Figure, episode: StoredEpisode, name: str, row: int) -> None:
    import plotly.graph_objects as go
    from plotly.colors import qualitative

    for feature, dash, steps_ahead in LINES:
        part = episode.view.part(feature, name)
        if part is None:
            continue
        values = np.where(episode.valid(feature, name)[:, None], part, np.nan)
        elements = [e for e in episode.features[feature] if e == name or e.startswith(f"{name}.")]
        for index, (element, column) in enumerate(zip(elements, values.T, strict=True)):
            line = go.Scatter(
                x=(np.arange(episode.length) + steps_ahead) / episode.rate_hz,
                y=column,
                name=f"{feature} {element}",
                line={"dash": dash, "color": qualitative.D3[index % len(qualitative.D3)]},
                mode="lines",
                showlegend=False,
            )
            out.add_trace(line, row=row, col=1)
