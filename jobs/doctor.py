"""`eicorpus doctor SOURCE PATH`: the source's facts and probe, ranges, speeds, checks, and a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import cv2
import typer
from rich.text import Text

from adapters.registry import resolved
from ingest.check import Check, Verdict
from ingest.doctor.doctor import Examined, Picture, as_json, contact_sheet, examine, over_all
from ingest.pipeline.plan import Request, assets_of, discover, survey
from jobs.assets import CameraPoses, ManoDevice, ManoDir, UrdfFile, assets_from
from jobs.ingest import options_from, recipe_from
from jobs.options import SOURCE_HELP
from jobs.output import answer_json, exit_1, progress_of, stderr, stdout, table
from jobs.own_packages import foreign_packages
from jobs.tables import FittedTable
from schemas.errors import ConfigError
from schemas.outcome import State


def command(
    source: Annotated[str, typer.Argument(help=SOURCE_HELP)],
    path: Annotated[Path, typer.Argument(help="Where the raw data is.")],
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="Write a contact sheet (PNG) here.")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="How many to examine.")] = 3,
    set_name: Annotated[str | None, typer.Option("--set", help="Set within the source.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="Adapter option, key=value.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML that changes the recipe.")] = None,
    mano_dir: ManoDir = None,
    mano_device: ManoDevice = "cpu",
    urdf: UrdfFile = None,
    camera_poses: CameraPoses = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Look before you ingest: facts and probe verdicts, ranges, acceptance tests, hands drawn into the pictures."""
    if sheet is not None and sheet.suffix != ".png":
        raise ConfigError("a contact sheet is a PNG; name a .png file", where=str(sheet))
    if foreign := foreign_packages():
        stderr.print(foreign, style="yellow", highlight=False, soft_wrap=True)
    source = resolved(source, Path.cwd())
    request = Request(
        source=source,
        root=path.absolute(),
        options=options_from(option or []) | ({"set": set_name} if set_name else {}),
        recipe=recipe_from(recipe),
        assets=assets_from(mano_dir, mano_device, urdf, camera_poses),
    )
    info, _ = survey(request)
    assets, _ = assets_of(request)
    refs = discover(request, info)
    sound = [ref for ref in refs if ref.problem is None] or refs
    chosen = sound[:: max(len(sound) // episodes, 1)][:episodes]
    examined: list[Examined] = []
    with progress_of("doctor", len(chosen)) as advance:
        for one in examine(chosen, source, request.recipe, num_pictures=6, assets=assets):
            examined.append(one)
            advance(len(examined))
    picture = contact_sheet(examined) if sheet is not None else None
    if json_:
        answer_json(
            {
                "sheet": None if picture is None else str(sheet),
                "source": info.source,
                "dataset": info.dataset,
                "episodes": len(refs),
                "known_broken": sum(ref.problem is not None for ref in refs),
                "facts": [fact.as_row() for fact in info.facts],
                "examined": [as_json(one) for one in examined],
                "over_all": [check.as_row() for check in over_all(examined)],
            }
        )
    else:
        stdout.print(f"{info.dataset}: {len(refs)} episodes, {len(refs) - len(sound)} known broken")
        facts_rows = [[f.name, f.value, f.certainty.value, f.source] for f in info.facts]
        if facts_rows:
            stdout.print(table("facts", ["about", "value", "certainty", "source"], facts_rows))
        for one in examined:
            _show(one)
        if together := over_all(examined):
            stdout.print(_check_table("all episodes together", together))
    failed = sum(one.outcome.state is not State.STAGED for one in examined)
    if sheet is not None and picture is not None:
        _write_sheet(picture, sheet)
    lacks_sheet = sheet is not None and picture is None
    if failed or lacks_sheet:
        exit_1(_reason(failed, len(examined), lacks_sheet=lacks_sheet))


def _reason(failed: int, examined: int, *, lacks_sheet: bool) -> str:
    """Why the command exits with 1. It comes after the checks, so that a sheet that cannot be drawn hides no reason."""
    parts = [f"{failed} of {examined} examined episodes failed"] if failed else []
    if lacks_sheet and failed < examined:
        parts.append(f"none of the {examined - failed} sound episodes has a camera")
    return f"{'no contact sheet: ' if lacks_sheet else ''}{', '.join(parts)}"


def _write_sheet(picture: Picture, path: Path) -> None:
    if not cv2.imwrite(str(path), picture):
        raise ConfigError("cannot be written; name a .png file in a folder", where=str(path))
    stderr.print(f"contact sheet: {path} {picture.shape[1]}x{picture.shape[0]}")


def _keypoint_rows(one: Examined) -> list[list[object]]:
    """The 63 numbers of a hand as one line for each axis: --json has them all."""
    found: dict[tuple[str, str], list[float]] = {}
    for r in one.ranges:
        part, _, rest = r.name.partition("hand_keypoints_m.")
        if rest:
            axis = f"{part}hand_keypoints_m.*.{rest.rsplit('.', 1)[-1]}"
            low, high = found.get((r.feature, axis), [r.low, r.high])
            found[r.feature, axis] = [min(low, r.low), max(high, r.high)]
    return [[feature, axis, low, high] for (feature, axis), (low, high) in found.items()]


def _show(one: Examined) -> None:
    if one.outcome.state is not State.STAGED:
        failed = Text.assemble((one.episode_id, "red"), f" {one.outcome.message}")
        stdout.print(failed, highlight=False, soft_wrap=True)
        return
    rows = [[r.feature, r.name, r.low, r.high] for r in one.ranges if "keypoints" not in r.name]
    rows += _keypoint_rows(one)
    stdout.print(table(one.episode_id, ["feature", "element", "lowest", "highest"], rows))
    stdout.print(_check_table("checks", one.checks))
    for complaint in one.complaints:
        stdout.print(Text.assemble(("  ! ", "yellow"), complaint), highlight=False)


_MARKS = {Verdict.PASS: "pass", Verdict.FAIL: "FAIL", Verdict.NOT_MEASURABLE: "-"}


def _check_table(title: str, checks: Sequence[Check]) -> FittedTable:
    """One row for each check; the sentence says why where there is nothing to measure, and what is wrong."""
    rows: list[list[object]] = []
    for check in checks:
        measured = "" if check.value is None else f"{check.value:.3g} {check.unit}".strip()
        rows.append(
            [
                check.name,
                check.side,
                measured,
                check.wanted,
                _MARKS[check.verdict],
                check.explanation,
            ]
        )
    columns = ["check", "side", "measured", "wanted", "verdict", "that is"]
    return table(title, columns, rows)
