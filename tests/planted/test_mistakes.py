"""The list of planted mistakes is true: every text is where the list says, every test exists, and no room is without a mistake."""

from __future__ import annotations

import ast

import pytest

from tests.planted.mistakes import Mistake, mistakes
from tests.test_architecture import MAY_IMPORT, ROOMS, ROOT, room_of

MISTAKES = mistakes()


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: f"{m.file}: {m.what}")
def test_a_mistake_can_be_planted(mistake: Mistake) -> None:
    text = (ROOT / mistake.file).read_text()
    changed = mistake.planted(text)
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text))
    name, _, function = mistake.test.partition("::")
    tree = ast.parse((ROOT / name).read_text())
    inner = function.split("[")[0].split("::")[-1]
    assert inner in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}


def test_a_text_that_is_gone_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 times"):
        MISTAKES[0].planted("another text")
    with pytest.raises(ValueError, match="2 times"):
        MISTAKES[0].planted(MISTAKES[0].old * 2)


def test_every_room_has_one() -> None:
    assert len(MISTAKES) >= 60
    files = {each.file for each in MISTAKES}
    modules = {file.removesuffix(".py").replace("/", ".") for file in files}
    assert {room_of(module) for module in modules if module.startswith("ingest.")} == ROOMS.keys()
    assert {file.split("/")[0] for file in files} == MAY_IMPORT.keys() | {"benchmarks"}


def test_no_mistake_is_listed_twice() -> None:
    assert len({(each.file, each.old) for each in MISTAKES}) == len(MISTAKES)
