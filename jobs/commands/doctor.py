"""`eicorpus doctor [SOURCE] PATH`: the source's facts and probe, ranges, speeds, checks, and a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import cv2
import typer
from rich.text import Text

from adapters.base import SourceInfo
from ingest.check import Check, Verdict
from ingest.doctor.doctor import Examined, Picture, as_json, contact_sheet, examine, over_all
from ingest.pipeline.plan import Request, assets_of, discover, survey
from jobs.commands.ingest import options_from
from jobs.commands.source import source_at
from jobs.own_packages import foreign_packages
from jobs.stages.ingest import recipe_from
from jobs.stages.raw_data import raw_data
from jobs.ui.options import (
    CACHE_FOLDER,
    CACHE_GB,
    AdapterOptions,
    AsJson,
    CacheFolder,
    CacheSize,
    CameraPoses,
    DatasetName,
    IngestConfig,
    ManoDevice,
    ManoDir,
    RawPath,
    SourceArgument,
    UrdfFile,
    assets_from,
)
from jobs.ui.output import answer_json, exit_1, progress_of, stderr, stdout, table
from jobs.ui.tables import FittedTable
from schemas.errors import ConfigError
from schemas.outcome import State


def command(
    source: SourceArgument,
    path: RawPath,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", metavar="PNG", help="Write a contact sheet.")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Number of episodes to examine.")] = 3,
    dataset: DatasetName = None,
    option: AdapterOptions = None,
    config: IngestConfig = None,
    mano_dir: ManoDir = None,
    mano_device: ManoDevice = "cpu",
    urdf: UrdfFile = None,
    camera_poses: CameraPoses = None,
    cache_dir: CacheFolder = CACHE_FOLDER,
    cache_gb: CacheSize = CACHE_GB,
    json_: AsJson = False,
) -> None:
    """Check raw data before ingest: facts, value ranges, acceptance tests, contact sheet."""
    if sheet is not None and sheet.suffix != ".png":
        raise ConfigError("expected the name of a .png file", where=f"--sheet {sheet}")
    if foreign := foreign_packages():
        stderr.print(foreign, style="yellow", highlight=False, soft_wrap=True)
    options = options_from(option or [], dataset)
    with raw_data(path, cache_dir.expanduser(), cache_gb) as raw:
        request = Request(
            source=source_at(source, raw.root, options, "doctor", uri=raw.uri or path),
            root=raw.root,
            options=options,
            recipe=recipe_from(config),
            assets=assets_from(mano_dir, mano_device, urdf, camera_poses),
            uri=raw.uri,
        )
        _examine(request, sheet, episodes, as_json_=json_)


def _examine(request: Request, sheet: Path | None, episodes: int, *, as_json_: bool) -> None:
    """Examine episodes of a source, and print what is found."""
    info, _ = survey(request)
    assets, _ = assets_of(request)
    refs = discover(request, info)
    sound = [ref for ref in refs if ref.problem is None] or refs
    chosen = sound[:: max(len(sound) // episodes, 1)][:episodes]
    examined: list[Examined] = []
    with progress_of("doctor", len(chosen)) as advance:
        for one in examine(chosen, request.source, request.recipe, num_pictures=6, assets=assets):
            examined.append(one)
            advance(len(examined))
    has_sheet = sheet is not None and _write_sheet(contact_sheet(examined), sheet)
    failure = _reason(examined, lacks_sheet=sheet is not None and not has_sheet)
    if as_json_:
        answer_json(
            {
                "sheet": str(sheet) if has_sheet else None,
                "source": info.source,
                "dataset": info.dataset,
                "episodes": len(refs),
                "known_broken": sum(ref.problem is not None for ref in refs),
                "facts": [fact.as_row() for fact in info.facts],
                "examined": [as_json(one) for one in examined],
                "over_all": [check.as_row() for check in over_all(examined)],
            },
            failure,
        )
    else:
        broken = len(refs) - len(sound)
        stdout.print(f"{info.dataset}: {len(refs)} episodes, {broken} known to be broken")
        _show_all(info, examined)
    if failure:
        exit_1(failure)


def _show_all(info: SourceInfo, examined: Sequence[Examined]) -> None:
    rows = [[f.name, f.value, f.certainty.value, f.source] for f in info.facts]
    if rows:
        stdout.print(table("facts", ["fact", "value", "certainty", "source"], rows))
    for one in examined:
        _show(one)
    if together := over_all(examined):
        stdout.print(_check_table("all examined episodes", together))


def _reason(examined: Sequence[Examined], *, lacks_sheet: bool) -> str:
    """Why the command exits with 1, failed episodes first, then the missing sheet; or nothing."""
    failed = sum(one.outcome.state is not State.STAGED for one in examined)
    parts = [f"{failed} of {len(examined)} examined episodes failed"] if failed else []
    if lacks_sheet and failed < len(examined):
        parts.append(f"none of the {len(examined) - failed} valid episodes has a camera")
    return f"{'no contact sheet: ' if lacks_sheet else ''}{', '.join(parts)}"


def _write_sheet(picture: Picture | None, path: Path) -> bool:
    """False if there is nothing to draw."""
    if picture is None:
        return False
    if not cv2.imwrite(str(path), picture):
        raise ConfigError(
            "cannot be written", remedy="check that the folder exists", where=f"--sheet {path}"
        )
    stderr.print(f"contact sheet: {path} {picture.shape[1]}x{picture.shape[0]}")
    return True


def _keypoint_rows(one: Examined) -> list[list[object]]:
    """The 63 numbers of a hand as one row for each axis; --json lists them all."""
    ranges: dict[tuple[str, str], list[float]] = {}
    for r in one.ranges:
        part, _, rest = r.name.partition("hand_keypoints_m.")
        if rest:
            axis = f"{part}hand_keypoints_m.*.{rest.rsplit('.', 1)[-1]}"
            low, high = ranges.get((r.feature, axis), [r.low, r.high])
            ranges[r.feature, axis] = [min(low, r.low), max(high, r.high)]
    return [[feature, axis, low, high] for (feature, axis), (low, high) in ranges.items()]


def _show(one: Examined) -> None:
    if one.outcome.state is not State.STAGED:
        failed = Text.assemble((one.episode_id, "red"), f" {one.outcome.message}")
        stdout.print(failed, highlight=False, soft_wrap=True)
        return
    rows = [[r.feature, r.name, r.low, r.high] for r in one.ranges if "keypoints" not in r.name]
    rows += _keypoint_rows(one)
    stdout.print(table(one.episode_id, ["feature", "element", "min", "max"], rows))
    stdout.print(_check_table("checks", one.checks))
    for complaint in one.complaints:
        stdout.print(Text.assemble(("  ! ", "yellow"), complaint), highlight=False)


_MARKS = {Verdict.PASS: "pass", Verdict.FAIL: "FAIL", Verdict.NOT_MEASURABLE: "-"}


def _check_table(title: str, checks: Sequence[Check]) -> FittedTable:
    """One row for each check; the explanation states what is wrong, or why there is no value."""
    rows: list[list[object]] = []
    for check in checks:
        measured = "" if check.value is None else f"{check.value:.3g} {check.unit}".strip()
        rows.append(
            [
                check.name,
                check.side,
                measured,
                check.expected,
                _MARKS[check.verdict],
                check.explanation,
            ]
        )
    columns = ["check", "side", "measured", "expected", "result", "explanation"]
    return table(title, columns, rows)
