"""The colour of each tier in figures and viewers: four of Okabe and Ito's palette, which colour-blind readers can tell apart."""

TIER_COLOURS = {
    "high": "#009e73",
    "low": "#e69f00",
    "actionless": "#56b4e9",
    "excluded": "#d55e00",
}
