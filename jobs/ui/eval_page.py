"""Reports of an evaluation: text for the terminal and one self-contained HTML page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.report.html import Markup, image, listed, section, shown, table, tag
from ingest.report.style import GUARD, STYLE
from schemas.supervision import Task
from training.evaluation.evaluate_checkpoint import Evaluated
from training.evaluation.examples import error_over_horizon, latents_as_colours
from training.evaluation.summary import MetricLine

if TYPE_CHECKING:
    from training.evaluation.summary import Comparison, IntervalEstimate, MetricLine

COMPARED = ("baseline", "better by", "95 %", "episodes", "result")


ALL = "all"  # the embodiment and tier of a line over everything


def is_whole(line: MetricLine) -> bool:
    """Over all embodiments and tiers."""
    return line.embodiment == line.tier == ALL


def is_beaten(comparison: Comparison, *, clearly: bool) -> bool:
    """By the mean, or with its whole interval under --clearly."""
    return bool(comparison.is_better) and (bool(comparison.is_clear) or not clearly)


def headline(about: Mapping[str, Any], comparisons: Mapping[str, Comparison]) -> str:
    """What was evaluated, and how many baselines it beats."""
    compared = {name: each for name, each in comparisons.items() if each.skill is not None}
    better = [name for name, each in compared.items() if each.is_better]
    clear = [name for name in better if compared[name].is_clear]
    lost = sorted(compared.keys() - set(better))
    text = f"step {about['step']} of {about['run']}, {about['split']} of {about['manifest']}, {about['precision']}: "
    text += f"better than {len(better)} of {len(compared)} baselines, {len(clear)} of them with an interval above zero"
    return text + (f"; not better than {', '.join(lost)}" if lost else "")


def verdicts(
    names: Sequence[str], comparisons: Mapping[str, Comparison], clearly: bool
) -> list[str]:
    """A line for each baseline that must be beaten."""
    return [
        f"must beat {name}: {'beaten' if is_beaten(comparisons[name], clearly=clearly) else 'NOT BEATEN'} ({comparisons[name].answer})"
        for name in names
    ]


def comparison_rows(comparisons: Mapping[str, Comparison]) -> list[list[str | int]]:
    """One for each baseline, in the columns of `COMPARED`."""
    return [
        [
            name,
            "" if each.skill is None else percent(each.skill.value),
            "" if each.skill is None else percents(each.skill),
            each.num_episodes,
            each.answer,
        ]
        for name, each in comparisons.items()
    ]


def interval_text(estimate: IntervalEstimate) -> str:
    """Its two ends, or nothing."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low:.4g} .. {estimate.high:.4g}"


def skills_text(line: MetricLine, *, with_intervals: bool = False) -> str:
    """By how much it is better than each baseline; in brackets where the interval holds 0 or there is none."""
    parts = []
    for name, skill in line.skill.items():
        plain = percent(skill.value, digits=0)
        part = plain if skill.is_clear else f"({plain})"
        ends = percents(skill) if with_intervals else ""
        parts.append(f"{name} {part}" + (f" [{ends}]" if ends else ""))
    return ", ".join(parts)


def percents(estimate: IntervalEstimate) -> str:
    """The two ends of a share, or nothing."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{percent(estimate.low)} .. {percent(estimate.high)}"


def percent(share: float, *, digits: int = 1) -> str:
    """0.431 is +43.1%."""
    return f"{share:+.{digits}%}"


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
