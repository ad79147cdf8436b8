"""Every random key names what it is for, in the one list of `rng_keys.py`, so that no two users of a seed draw the same numbers by accident."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from training.data.rng_keys import Purpose

ROOT = Path(__file__).parents[2] / "training"
NO_KEYS_OF_A_RUN = {"key_of(*parts)", "key_of(which)"}  # of noise.py: parts of such keys
VALUES = {
    "SAMPLE_ORDER": 0, "SAMPLE_OFFSET": 1, "ANCHOR": 2, "LOW_QUALITY": 3, "TASK": 4, "RARE_TASK": 5,
    "INITIAL_WEIGHTS": 6, "TRAINING_NOISE": 7, "DROPOUT": 8, "EVALUATION_NOISE": 9, "TASK_ORDER": 10,
    "POLICY_NOISE": 10, "TASK_MIX": 11, "REDRAWN_SAMPLE": 12, "REVIVED_CODES": 13, "CAUSAL_BLOCKS": 14,
    "CAUSAL_NOISE": 15, "MOTION_PROBE": 16, "CAUSAL_POLICY_NOISE": 17, "VALUE_ORDER": 18, "PLAN_NOISE": 19,
    "PAIR_ORDER": 20, "REDRAWN_PAIR": 21,
}  # fmt: skip


def name_of(node: ast.expr) -> str | None:
    is_member = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Purpose"
    return node.attr if is_member and isinstance(node, ast.Attribute) else None


def calls(text: str) -> Iterator[tuple[str, list[ast.expr]]]:
    """What makes keys or a generator of several numbers: the call as it is written, and the numbers."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            called, given = ast.unparse(node.func).rpartition(".")[2], node.args
            if called == "default_rng" and given and isinstance(given[0], ast.List):
                yield ast.unparse(node), given[0].elts
            elif called in {"key_of", "sample_keys"} and ast.unparse(node) not in NO_KEYS_OF_A_RUN:
                yield ast.unparse(node), given


def problems(text: str) -> list[str]:
    """Calls without a purpose, or with two; a generator may go by other numbers, but by none that stands there bare."""
    found = []
    for written, given in calls(text):
        num = sum(name_of(x) is not None for x in given)
        bare = [x for x in given if isinstance(x, ast.Constant) or ast.unparse(x).isupper()]
        if num > 1 or (num == 0 and (bare or "default_rng" not in written)):
            found.append(written)
    return found


def files() -> dict[str, str]:
    return {str(path.relative_to(ROOT)): path.read_text() for path in sorted(ROOT.rglob("*.py"))}


def test_every_key_has_one_purpose_of_the_list() -> None:
    assert {file: found for file, text in files().items() if (found := problems(text))} == {}


@pytest.mark.parametrize(
    "text",
    [
        "key_of(seed, 7)", "key_of(self.seed, step, PURPOSE)", "sample_keys(seed, step, 4, first=0)", "key_of(seed)",
        "rng_keys.key_of(seed, step)", "np.random.default_rng([seed, PURPOSE])", "default_rng([seed, 18])",
        "key_of(Purpose.TASK, Purpose.DROPOUT)",
    ],
)  # fmt: skip
def test_a_bare_number_is_found(text: str) -> None:
    assert problems(text) == [text]


def test_a_purpose_is_that_of_one_file() -> None:
    """None is left over, and none is taken twice."""
    users: defaultdict[str, set[str]] = defaultdict(set)
    for file, text in files().items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.expr) and (name := name_of(node)) is not None:
                users[name].add(file)
    assert {name: at for name, at in users.items() if len(at) > 1} == {}
    assert users.keys() == Purpose.__members__.keys()


def test_values_are_those_of_the_runs_that_there_are() -> None:
    """A run that goes on draws what it would have drawn. Only the two that always did share one."""
    assert {name: int(each) for name, each in Purpose.__members__.items()} == VALUES
    assert len(Purpose) == len(VALUES) - 1
