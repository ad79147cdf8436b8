"""The page of an evaluation: one HTML file, nothing from outside, in the look of `eicorpus report`."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from ingest.report.html import Markup, image, listed, section, shown, table, tag
from ingest.report.style import GUARD, STYLE
from jobs.eval_format import COMPARED, comparison_rows, headline, interval_text, percent
from schemas.supervision import Task
from training.evaluation.evaluate_checkpoint import Evaluated
from training.evaluation.figures import error_over_horizon, latents_as_colours
from training.evaluation.summary import MetricLine

ABOUT_SKILL = (
    "Better by: 1 - error / error of the baseline. Intervals are a paired bootstrap over episodes."
)
ABOUT_METRICS = (
    "Every metric is an error; lower is better. Each baseline shows its error and the improvement over it, in brackets if the 95 % interval includes 0 or there are too few episodes. "
    "Motions are put one after the other, seen from the hand of now. Position: mean over three axes, m. Rotation: the angle of the turn between both, rad; of a parallel "
    "gripper the smaller of it and the one after half a turn about the approach. Latents: length of the difference of a token, and 1 - cosine similarity. "
    "Inverse dynamics is scored up to the future image. Comparing forward dynamics with without_action shows what the action adds to a forecast."
)
ABOUT_COLOURS = (
    "Patches of the first camera. The three directions in which the true tokens differ most are red, green and blue: "
    "one colour is alike to the encoder."
)


def write_page(path: Path, about: dict[str, Any], evaluated: Evaluated) -> None:
    """Raises OSError where it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(about, evaluated))


def page(about: dict[str, Any], evaluated: Evaluated) -> str:
    """The whole of it."""
    title = f"step {about['step']} on {about['split']} of {about['manifest']}"
    facts = {key: value for key, value in about.items() if key != "num_samples"}
    parts = [
        tag("h1", title),
        tag("p", headline(about, evaluated.comparisons), class_="headline"),
        listed(facts | {f"samples, {task}": num for task, num in about["num_samples"].items()}),
        section(
            "baselines", "Baselines", _baselines(evaluated), tag("p", ABOUT_SKILL, class_="note")
        ),
        *_drawings(evaluated),
        section("errors", "Errors", _errors(evaluated), tag("p", ABOUT_METRICS, class_="note")),
    ]
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{GUARD}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{shown(title)}</title><style>{STYLE}</style>"
    )
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'
    )


def _baselines(evaluated: Evaluated) -> Markup:
    return table("baselines", COMPARED, comparison_rows(evaluated.comparisons))


def _drawings(evaluated: Evaluated) -> list[Markup]:
    out = []
    for task, title in (
        (Task.POLICY, "Policy: error over the horizon"),
        (Task.INVERSE_DYNAMICS, "Inverse dynamics: error over the horizon"),
    ):
        drawn = error_over_horizon(evaluated.lines, evaluated.action_t_s, task)
        if drawn is not None:
            out.append(section(f"horizon-{task}", title, _png(drawn, title)))
    if evaluated.shown is not None:
        title = "Future images, shown as latents"
        drawn = latents_as_colours(evaluated.shown)
        note = tag("p", ABOUT_COLOURS, class_="note")
        out.append(section("latents", title, _png(drawn, title), note))
    return out


def _png(content: bytes, label: str) -> Markup:
    return image(base64.b64encode(content).decode(), label, kind="png")


def _errors(evaluated: Evaluated) -> Markup:
    """A table for each task, so that no row has columns of baselines that its task has not."""
    out = []
    for task in dict.fromkeys(line.task for line in evaluated.lines):
        lines = [line for line in evaluated.lines if line.task == task]
        baselines = list(dict.fromkeys(name for line in lines for name in line.baselines))
        columns = [
            "metric",
            "embodiment",
            "tier",
            "episodes",
            "scored",
            "error",
            "95 %",
            *baselines,
        ]
        rows = [
            [
                line.metric,
                line.embodiment,
                line.tier,
                line.num_episodes,
                line.num,
                line.model.value,
                interval_text(line.model),
                *(_beside(line, name) for name in baselines),
            ]
            for line in lines
        ]
        title = tag("h3", task.replace("_", " "))
        out.append(Markup(title + table(f"errors_{task}", columns, rows, is_compact=True)))
    return Markup("".join(out))


def _beside(line: MetricLine, name: str) -> str:
    """The baseline's error and by how much the network is better; in brackets where that is not clear."""
    error, skill = line.baselines.get(name), line.skill.get(name)
    if error is None:
        return ""
    text = "" if skill is None else percent(skill.value, digits=0)
    text = text if skill is None or skill.is_clear else f"({text})"
    return f"{error:.4g} {text}".strip()
