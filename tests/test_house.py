"""The pictures of the rooms and the program that measures a checkout."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from benchmarks.house import Project, catches_everything, is_test, quantiles, share
from docs.site.rooms import circles, floors, lines_of, picture, rooms_before, rooms_now
from tests.test_architecture import ROOMS

CHAIN = {"a": frozenset("bc"), "b": frozenset("c"), "c": frozenset()}
CIRCLE = {"a": frozenset("b"), "b": frozenset("ad"), "c": frozenset("ab"), "d": frozenset()}


def test_a_line_that_follows_from_others_is_left_out() -> None:
    assert floors(CHAIN) == [["a"], ["b"], ["c"]]
    assert list(lines_of(CHAIN)) == [("a", "b", False), ("b", "c", False)]


def test_rooms_of_a_circle_share_a_floor_and_keep_their_lines() -> None:
    assert floors(CIRCLE) == [["c"], ["a", "b"], ["d"]]
    assert circles(CIRCLE) == {"a", "b"}
    assert set(lines_of(CIRCLE)) == {
        ("a", "b", True),
        ("b", "a", True),
        ("b", "d", False),
        ("c", "a", False),
        ("c", "b", False),
    }


def test_the_picture_has_every_room_once() -> None:
    drawn = re.findall(r"<text [^>]*>([^<]+)</text>", picture(CIRCLE, "title"))
    assert sorted(drawn) == ["a", "b", "c", "d", "title"]


def test_the_picture_of_now_is_of_the_table_that_is_tested() -> None:
    assert rooms_now() == {room: frozenset(imported) for room, imported in ROOMS.items()}
    assert circles(rooms_now()) == set()
    assert len(circles(rooms_before())) == 6


def test_a_project_is_named_by_one_argument(tmp_path: Path) -> None:
    for name in ("pkg/a.py", "pkg/a_test.py", "tests/test_b.py", ".venv/tests/test_c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    project = Project.of(f"ours={tmp_path}:pkg,other@abc")
    assert (project.name, project.packages, project.commit) == ("ours", ("pkg", "other"), "abc")
    assert [path.name for path in project.product()] == ["a.py"]
    assert [path.name for path in project.tests()] == ["a_test.py", "test_b.py"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a/b.py", False), ("a/tests/b.py", True), ("test_a.py", True), ("attest.py", False)],
)
def test_what_is_a_test(path: str, expected: bool) -> None:
    assert is_test(Path(path)) is expected


def test_figures_by_hand() -> None:
    assert quantiles([1, 2, 3, 4, 5, 6, 7, 8, 9]) == "5 / 9"
    assert (share(1, 8), share(1, 0)) == ("12.5", "–")


@pytest.mark.parametrize(
    ("clause", "expected"),
    [("except:", True), ("except Exception as e:", True), ("except ValueError:", False)],
)
def test_a_broad_except(clause: str, expected: bool) -> None:
    (node,) = (
        n
        for n in ast.walk(ast.parse(f"try:\n    f()\n{clause}\n    pass"))
        if isinstance(n, ast.ExceptHandler)
    )
    assert catches_everything(node) is expected
