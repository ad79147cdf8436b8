"""What each quarantine code means and what to do about it, and where the documentation pages lie that messages name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from schemas.errors import Code

_PACKAGES = Path(__file__).parents[1]


def doc_page(name: str) -> str:
    """The path of `docs/NAME`: beside the packages in a checkout; a wheel has the pages in `jobs/docs` (pyproject.toml)."""
    installed = _PACKAGES / "jobs" / "docs" / name
    return str(installed if installed.is_file() else _PACKAGES / "docs" / name)


@dataclass(frozen=True, slots=True)
class Explanation:
    """One row: what the pipeline found in the raw data, and the user's next step."""

    meaning: str
    remedy: str


_FETCH = "download the file again"
_DEFECT = "none: the release has this defect; report it to its authors"

EXPLANATIONS: dict[Code, Explanation] = {
    Code.MISSING_FILE: Explanation(
        "a file that the metadata names is absent, a dangling link (git-annex, DVC, a hub cache), or a git-LFS pointer",
        "finish the download; the message names the command",
    ),
    Code.MISSING_SHARD: Explanation(
        "a shard listed in `dataset_info.json` is absent; one entry stands for all its episodes",
        "finish the download",
    ),
    Code.MISSING_META: Explanation(
        "data without the metadata that describes it",
        "add what the message names: the rest of the download, or an option of `ingest`",
    ),
    Code.MISSING_VIDEO: Explanation(
        "the video of an episode, or of all segments of a long video, is absent",
        "finish the download",
    ),
    Code.MISSING_CHANNEL: Explanation(
        "a required key is absent; the message lists the keys that exist",
        "check which release this is; its layout may differ",
    ),
    Code.UNREADABLE: Explanation(
        "the file cannot be opened or parsed, or the path is a folder, FIFO, device or loop of links",
        "fix the link or the permissions, or download the file again",
    ),
    Code.TRUNCATED: Explanation("the file ends early", _FETCH),
    Code.WRONG_CRC: Explanation("the stored checksum does not match the bytes", _FETCH),
    Code.CORRUPT_RECORD: Explanation("the framing or encoding of a record is broken", _FETCH),
    Code.CORRUPT_VIDEO: Explanation("the container or a frame in it does not decode", _FETCH),
    Code.CORRUPT_IMAGE: Explanation("an image does not decode or declares an absurd size", _FETCH),
    Code.FRAME_COUNT: Explanation(
        "the number of frames differs from the number of rows, so they cannot be paired",
        "check that both belong to the same recording; otherwise the release has this defect",
    ),
    Code.SHAPE_MISMATCH: Explanation(
        "an array has another shape than its channel", "check which release this is"
    ),
    Code.NOT_FINITE: Explanation("NaN or infinity in a value that is marked valid", _DEFECT),
    Code.NOT_A_ROTATION: Explanation(
        "a matrix is not a rotation: a wrong convention, or damaged data",
        "run `eicorpus doctor` and compare the conventions that it prints",
    ),
    Code.CLOCK_NOT_INCREASING: Explanation("timestamps repeat or decrease", _DEFECT),
    Code.NO_COMMON_TIME: Explanation("one stream starts after another ended", _DEFECT),
    Code.EMPTY_EPISODE: Explanation("the episode has no samples or no frames", "none"),
    Code.TOO_LONG: Explanation(
        "longer than 1000 s, or more frames than the recipe allows",
        "cut the recording into episodes",
    ),
    Code.TOO_LARGE: Explanation(
        "an array or file exceeds a safety limit",
        "check whether the file is damaged; if it is right, report it, because the limit is fixed",
    ),
    Code.UNKNOWN_VERSION: Explanation(
        "the adapter does not support this version of the format",
        "use a newer eicorpus, or convert the data",
    ),
    Code.UNKNOWN_LAYOUT: Explanation(
        "the files follow neither the documented layout nor a known variant",
        "compare the named part with the layout on the source's page in docs/reference/sources, convert it, or download the file again",
    ),
    Code.UNSAFE_PATH: Explanation(
        "a file name leads outside the raw folder, by `..` or by a link",
        "move the files into the raw folder",
    ),
    Code.UNSAFE_CONTENT: Explanation(
        "the file could make a reader open other files or run code (external links, pickles)",
        "do not trust this file",
    ),
    Code.BAD_ANNOTATION: Explanation("an annotation contradicts itself or its video", _DEFECT),
    Code.REDACTED: Explanation("the segment overlaps a redacted interval", "none"),
    Code.KNOWN_DEFECT: Explanation("the episode is on a published list of defects", "none"),
    Code.CONTRACT_BROKEN: Explanation(
        "the adapter returned an episode that breaks the adapter contract",
        "report it as a bug of the adapter",
    ),
    Code.WORKER_DIED: Explanation(
        "the worker process crashed on this episode twice; the message has the signal and the place in the code, or the exit code",
        "read the message, remove the cause, and run `ingest` with `--retry-crash-looping`",
    ),
    Code.TIME_LIMIT: Explanation(
        "the episode exceeded `--time-limit-s` twice",
        "raise the limit and use `--retry-crash-looping`, or cut the recording",
    ),
    Code.OUT_OF_MEMORY: Explanation(
        "the episode exceeded `--memory-limit-mb` twice",
        "raise the limit and use `--retry-crash-looping`, or cut the recording",
    ),
    Code.OOM_KILLED: Explanation(
        "the kernel killed the worker process twice because the memory of the machine or of the container was full",
        "use fewer `--workers`, lower `--memory-limit-mb` or use a larger machine, then `--retry-crash-looping`",
    ),
    Code.NODE_MEMORY_FULL: Explanation(
        "the memory monitor of Ray ended the worker process twice because the memory of its node was full",
        "raise `--memory-limit-mb`, so that fewer episodes share a node, or use larger nodes, then `--retry-crash-looping`",
    ),
    Code.NODE_LOST: Explanation(
        "20 attempts in one run ended because a node of the cluster was lost",
        "check that the episode does not end its node, then use `--retry-crash-looping`",
    ),
    Code.NODE_PREEMPTED: Explanation(
        "20 attempts in one run ended because a node of the cluster was drained or preempted",
        "use nodes that live longer than the episode takes, then `--retry-crash-looping`",
    ),
}

# Of an episode that failed, by a fault of the machine or of eicorpus rather than of its data.
FAILED = "run the same command again; if it fails again, report it with this message"


def remedy_of(code: str) -> str:
    """The next step for an episode whose latest attempt ended with `code`."""
    return EXPLANATIONS[Code(code)].remedy if code in set(Code) else FAILED
