"""AgiBot World: community lists of defective beta episodes, `34328/AgiBot_eef_extraction:filter_store/*.jsonl`.

Inconsistent_frams_length.jsonl  {"task", "episode"}                  video, state and extrinsic counts differ
camera_extrinsic.jsonl           {..., "reason", "missing_ratio", ..} end-effector projects outside the picture
still_frames.jsonl               {..., "start_frame", "end_frame"}    the rows worth keeping of a frozen episode
"""

from __future__ import annotations

from pathlib import Path

from adapters.agibot_world.task_info import Checked
from schemas.errors import ConfigError, SourceError
from schemas.fact import Certainty, Fact
from schemas.invalid import reason
from schemas.json_text import parse_json
from schemas.regular_file import read_regular

MAX_LIST_BYTES = 64 << 20


class Defect(Checked):
    """One line of a defect list (`34328/AgiBot_eef_extraction:filter_store/*.jsonl`): ids are strings there."""

    task: str
    episode: str
    reason: str = ""
    start_frame: int | None = None
    end_frame: int | None = None


def read_defects(folder: Path) -> dict[tuple[str, str], tuple[str | None, tuple[Fact, ...]]]:
    """(task, episode) -> (why it is known to be defective or None, facts), from every *.jsonl in `folder`.

    A line with a frame range (still_frames.jsonl) says which part to keep: a fact, since a stage measures stillness.

    Raises:
        ConfigError: no such folder, no list in it, or a line that is not of the lists' form.
    """
    lists = sorted(folder.glob("*.jsonl"))
    if not lists:
        raise ConfigError(f"no defect list (*.jsonl) in {folder}")
    out: dict[tuple[str, str], tuple[str | None, tuple[Fact, ...]]] = {}
    for path in lists:
        for number, line in enumerate(_text(path).splitlines(), 1):
            if not line.strip():
                continue
            try:
                defect = Defect.model_validate(parse_json(line))
            except ValueError as error:
                raise ConfigError(f"{path.name}:{number}: {reason(error, Defect)}") from error
            why, facts = out.get((defect.task, defect.episode), (None, ()))
            if defect.start_frame is None:
                why = f"{defect.reason or 'listed'} ({path.name})"
            else:
                facts += (_kept_range(defect, path.name),)
            out[defect.task, defect.episode] = (why, facts)
    return out


def _text(path: Path) -> str:
    try:
        return read_regular(path, max_bytes=MAX_LIST_BYTES).decode("utf-8")
    except (SourceError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from error


def _kept_range(defect: Defect, name: str) -> Fact:
    return Fact(
        name="moving_frames",
        value=f"[{defect.start_frame}, {defect.end_frame}]",
        certainty=Certainty.THIRD_PARTY,
        source=f"34328/AgiBot_eef_extraction:filter_store/{name}",
        is_for_actions=False,
    )
