"""A corpus that somebody sent us: whatever it says, no command changes or takes in anything outside of it, hangs, or calls it our bug."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from ingest.corpus.snapshot import MOST_ROWS_OF_EPISODE
from ingest.storage.file_tree import MAX_DEPTH
from schemas.parquet_file import (
    FREE_BYTES,
    FREE_VALUES,
    MOST_BYTES_PER_BYTE,
    MOST_VALUES_PER_BYTE,
)
from tests.hostile.commands import OPEN_NONE, WORDS, commands, run
from tests.hostile.corpora import (
    BOMB_ROWS,
    DEEP,
    SPARSE_BYTES,
    Scenario,
    World,
    columns,
    rooms,
    state,
)
from tests.hostile.sweep import (
    GIB,
    KINDS,
    PEAK_BYTES,
    ROOM_BYTES,
    bounded_memory,
    hostile_world,
    problems,
    sampled,
    spoil,
)

SAMPLE = 40  # runs of each kind in the slow tests


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, str]]:
    with hostile_world(tmp_path_factory.mktemp("hostile")) as world:
        yield world


@pytest.fixture(scope="module")
def made(world: tuple[World, str]) -> World:
    return world[0]


@pytest.fixture(scope="module")
def uid(world: tuple[World, str]) -> str:
    return world[1]


def try_all(
    made: World, scenarios: Iterable[Scenario], names: Iterable[str], uid: str
) -> tuple[int, list[str]]:
    """(commands run, what went wrong)."""
    count, wrong = 0, []
    for scenario in scenarios:
        for name in names:
            count += 1
            wrong += problems(made, scenario, name, uid)
    return count, wrong


SOUND = Scenario("sound", lambda made: None)


def test_every_command_is_tried_or_has_a_reason() -> None:
    assert set(commands()) == WORDS.keys() | OPEN_NONE.keys()


@pytest.mark.parametrize("name", WORDS)
def test_every_command_works_on_the_sound_corpus(name: str, made: World, uid: str) -> None:
    """Else a refusal would prove nothing."""
    spoil(made, SOUND)
    before = state(made.victim)
    ended = run(name, made, uid)
    assert ended.error is None, ended
    assert ended.exit_code in (0, 1), ended.output
    assert state(made.victim) == before


def test_the_page_has_the_numbers_of_the_code(made: World) -> None:
    page = " ".join(
        (Path(__file__).parents[2] / "docs/results/corpus-safety.md").read_text().split()
    )
    counts = {kind: len(list(scenarios(made))) for kind, scenarios in KINDS.items()}
    table = dict(re.findall(r"\| ([a-z]+) \| ([\d,]+) \|", page))
    assert table == {kind: f"{count:,}" for kind, count in counts.items()}
    for sentence in (
        f"{len(WORDS)} commands open a corpus",
        f"({SAMPLE} of each kind;",
        f"add at most {PEAK_BYTES // GIB} GiB of resident memory",
        f"allocation beyond {ROOM_BYTES // GIB} GiB fails",
        f"a sparse one of {SPARSE_BYTES // 10**9} GB",
        f"has {DEEP:,} folders in each other",
        f"more than {MAX_DEPTH} folders in each other",
        f"more than {FREE_VALUES:,} values and {MOST_VALUES_PER_BYTE} values a byte",
        f"more than {FREE_BYTES >> 20} MiB and {MOST_BYTES_PER_BYTE} times its size",
        f"more than {MOST_ROWS_OF_EPISODE:,} rows of one episode",
        f"{BOMB_ROWS:,} equal rows",
    ):
        assert sentence in page, sentence


FEW = (
    "pipe:cache/captions/00/a.json",
    "link:datasets",
    "link:catalog",
    "link:staging",
    "link:.writer",
    "link:manifests/m",
    "pipe:corpus.json",
)


def test_a_few_rooms(made: World, uid: str) -> None:
    few = [each for each in rooms(made) if each.name in FEW]
    count, wrong = try_all(made, few, ("ingest", "gc", "forget", "query"), uid)
    assert wrong == []
    assert count == 4 * len(FEW)


def test_a_link_in_a_room_is_the_callers_to_resolve(made: World, uid: str) -> None:
    [scenario] = [each for each in rooms(made) if each.name == "link:datasets"]
    spoil(made, scenario)
    ended = run("verify", made, uid)
    assert ended.exit_code == 2
    assert str(made.corpus / "datasets") in str(ended.error)


@pytest.mark.parametrize("files", [{"000000.parquet": "../victim/f"}, {"../../../victim/f": None}])
@pytest.mark.parametrize("name", ["gc", "compact", "ingest"])
def test_f1_an_intent_places_nothing_outside(
    name: str, files: dict[str, str | None], made: World, uid: str
) -> None:
    """Both sides: the target, and the file that is placed (at a place that its own tombstone has)."""

    def rewrite(world: World) -> None:
        path = world.corpus / "staging/erase.half/intent.json"
        intent = json.loads(path.read_text())
        [own, *_] = intent["files"].values()
        path.write_text(json.dumps({**intent, "files": {k: v or own for k, v in files.items()}}))

    assert list(problems(made, Scenario("intent", rewrite), name, uid)) == []
    spoil(made, Scenario("intent", rewrite))
    assert run(name, made, uid).exit_code == 2


@pytest.mark.parametrize("name", ["forget", "measure", "ingest", "explain"])
def test_f2_a_dataset_outside_is_neither_read_nor_rewritten(
    name: str, made: World, uid: str
) -> None:
    wanted = "column:episodes.dataset_path:dots"
    [scenario] = [each for each in columns(made) if each.name == wanted]
    assert list(problems(made, scenario, name, uid)) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_all_scenarios(kind: str, made: World, uid: str) -> None:
    """`python -m tests.hostile` runs each scenario, and with `--all` each of them with each command."""
    seed = int(os.environ.get("EICORPUS_HOSTILE_SEED", "0"))
    runs = sampled(made, kind, SAMPLE, seed)
    wrong = [bad for each in runs for bad in problems(made, each.scenario, each.command, uid)]
    assert wrong == [], f"seed {seed}: {len(wrong)} of {len(runs)}"


def test_an_allocation_beyond_the_bound_fails_and_a_smaller_one_is_seen() -> None:
    with bounded_memory(), pytest.raises(MemoryError):
        bytearray(2 * ROOM_BYTES)
    with bounded_memory() as memory:
        bytearray(PEAK_BYTES // 4)
    assert PEAK_BYTES // 8 < memory.peak_bytes < PEAK_BYTES


@pytest.mark.parametrize("name", ["tier", "manifest verify", "ingest", "verify"])
def test_a_json_column_that_holds_none_is_no_bug_of_ours(name: str, made: World, uid: str) -> None:
    found = [each for each in columns(made) if each.name.endswith("detail_json:dots")]
    assert [each for scenario in found for each in problems(made, scenario, name, uid)] == []
    assert found


ONCE_WRONG = [
    *(
        pytest.param(f"deep:{room}", name, marks=pytest.mark.slow)
        for room, names in {
            "manifests": ["gc", "stale"],
            "staging": ["stale", "gc"],
            "datasets": ["ingest", "verify", "query", "forget"],
        }.items()
        for name in names
    ),
    *(("bomb:verdicts:rows", name) for name in ("explain", "verify", "report", "tier")),
    *(("bomb:episodes:bytes", name) for name in ("query", "forget", "tier")),
    ("bomb:episodes:rows", "measure"),  # few rows a byte, of 68 values each
    *(  # /dev/zero was read into memory
        pytest.param("device:manifests/_cache/", name, marks=pytest.mark.slow)
        for name in ("manifest build", "train")
    ),
    *(  # 300 GB of zeros were hashed
        pytest.param("sparse:datasets/", name, marks=pytest.mark.slow)
        for name in ("latents images", "manifest verify", "tier")
    ),
    ("column:episodes.uid:dots", "gc"),
    ("column:tombstones.episode_index:10^18", "ingest"),
    ("column:episodes.length:10^18", "manifest build"),
    ("column:episodes.duration_s:nan", "manifest build"),
    ("column:episodes.source_split:absolute", "manifest build"),
    ("column:manifests/built/manifest.parquet.end:2^62", "train"),
]


@pytest.mark.parametrize(("begin", "name"), ONCE_WRONG)
def test_what_was_wrong_once(begin: str, name: str, made: World, uid: str) -> None:
    found = [s for kind in KINDS.values() for s in kind(made) if s.name.startswith(begin)]
    assert [bad for scenario in found for bad in problems(made, scenario, name, uid)] == []
    assert found
