"""Everything that a download of HoloAssist holds, and what of it is not there."""

from __future__ import annotations

from collections.abc import Iterator

from adapters.containers.json_rows import Broken
from adapters.containers.video_clip import Clip, windowed
from adapters.containers.windows import LONGEST_WINDOW_S
from adapters.holoassist.labels import labels_in
from adapters.holoassist.segments import HoloAssistSegment, segments_of
from adapters.holoassist.tree import VIDEO, HoloAssistTree
from schemas.errors import Code


def segments_in(tree: HoloAssistTree, kind: str) -> Iterator[tuple[HoloAssistSegment, str]]:
    """(segment, folder of its session): labelled sessions in the order of their labels, then the others in windows of 60 s."""
    labelled: set[str] = set()
    for path in tree.labels:
        for number, labels in enumerate(labels_in(path)):
            if isinstance(labels, Broken) or labels.session in labelled:
                why = (
                    labels.why
                    if isinstance(labels, Broken)
                    else f"{labels.session}: labelled twice"
                )
                clip = Clip(episode_id=f"{path.name}/{number}").broken(Code.BAD_ANNOTATION, why)
                yield HoloAssistSegment(clip=clip), ""
                continue
            labelled.add(labels.session)
            folder = tree.sessions.get(labels.session, "")
            segments = list(segments_of(labels, kind, f"{folder}/{VIDEO}"))
            yield from _of_session(tree, labels.session, segments)
    for session in sorted(tree.sessions.keys() - labelled):
        whole = Clip(episode_id=f"{session}/window", path=f"{tree.sessions[session]}/{VIDEO}")
        clips = windowed(tree.root, whole, longest_s=LONGEST_WINDOW_S)
        yield from _of_session(tree, session, [HoloAssistSegment(clip=clip) for clip in clips])


def _of_session(
    tree: HoloAssistTree, session: str, segments: list[HoloAssistSegment]
) -> Iterator[tuple[HoloAssistSegment, str]]:
    """The segments, or one that stands for all of them when a file that each needs is not there."""
    problem = tree.problem(session)
    if problem is None:
        yield from ((segment, tree.sessions[session]) for segment in segments)
    elif segments:
        clip = Clip(episode_id=f"{session}/session")
        yield HoloAssistSegment(clip=clip.broken(*problem, stands_for=len(segments))), ""
