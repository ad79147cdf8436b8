"""Policies: every bad one is named with its line and column before any work, and the SQL of a good one says what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingest.curation.tiers.policy import TASKS, QualityPolicy, Tier, load_policy, policy_from
from ingest.curation.tiers.policy_fields import FACTS, INGESTED, measurements
from ingest.curation.tiers.policy_loader import MAX_BYTES, parse_policy_text
from schemas.errors import ConfigError
from schemas.supervision import Task
from tests.curation.tier_corpus import policy_of

HEAD = """policy: mine
version: 1
about: a test
segments: {min_length_s: 1.0, origin: ours}
"""
TAIL = "otherwise: {code: rest, tier: low, text: nothing said}\n"
IDLE = "{measurement: idle_share, above: 0.5, origin: ours}"


def with_rule(when: str, conditions: str = "") -> str:
    """A policy with one rule, whose condition is at line 10, column 5 (the word `when`)."""
    named = f"conditions:\n{conditions}" if conditions else "conditions: {}\n"
    return f"{HEAD}{named}rules:\n  - code: one\n    tier: low\n    text: a rule\n    when: {when}\n{TAIL}"


def problem(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        policy_of(text)
    return str(caught.value)


def test_the_harness_is_a_sound_policy() -> None:
    assert policy_of(with_rule(IDLE)).rules[0].when.measurement == "idle_share"


# (condition, what is said, where it is: line 10 is that of `when:`, in column 5)
BAD_CONDITIONS = [
    ("{measurement: idle_shares, above: 0.5, origin: x}", "did you mean idle_share", "10:12"),
    ("{measurement: qqqqqq, above: 0.5, origin: x}", "eicorpus list measures", "10:12"),
    ("{fact: colour, is: red}", "no fact 'colour'", "10:12"),
    ("{condition: nowhere}", "no condition 'nowhere'; there are none", "10:12"),
    ("{measurement: idle_share, above: high, origin: x}", "expected a number", "10:37"),
    ("{measurement: idle_share, above: yes, origin: x}", "expected a number", "10:37"),
    ("{measurement: idle_share, above: .nan, origin: x}", "finite number", "10:44"),
    ("{measurement: idle_share, is: busy}", "is a number; compare it with above", "10:37"),
    ("{measurement: pause_s, above: 1, origin: x}", "add `of`", "10:12"),
    (
        "{measurement: idle_share, of: max, above: 0, origin: x}",
        "`of`, which is for intervals",
        "10:37",
    ),
    ("{measurement: pause_s, of: mean, above: 0, origin: x}", "'share', 'max'", "10:34"),
    ("{fact: success, is: maybe}", "is a true or false, not 'maybe'", "10:27"),
    ("{fact: success, above: 0.5, origin: x}", "compare it with is, known", "10:27"),
    ("{fact: source, is: true}", "is a text, not True", "10:26"),
    ("{fact: licence_class, is: free}", "is never 'free'; it is no_redistribution", "10:33"),
    ("{fact: supervises, has: visual}", "never 'visual'", "10:30"),
    ("{fact: supervises, is: policy}", "list of texts; compare it with has", "10:30"),
    ("{fact: source, in: []}", "at least 1 item", "10:26"),
    ("{measurement: idle_share}", "a comparison: above", "10:5"),
    ("{measurement: idle_share, above: 0.5}", "a threshold needs `origin`", "10:5"),
    ("{measurement: idle_share, fact: success, is: true}", "exactly one of", "10:5"),
    ("{}", "exactly one of", "10:5"),
    ("{all: []}", "at least 1 item", "10:12"),
    (
        "{all: [{fact: success, is: true}], above: 1, origin: x}",
        "can be compared, not `all`",
        "10:5",
    ),
    ("{measurement: idle_share, obove: 0.5}", "unknown key; did you mean above", "10:37"),
    ("idle_share > 0.5", "expected keys with values", "10:5"),
    # impossible ranges
    ("{measurement: idle_share, above: 1, origin: x}", "range is 0 to 1", "10:5"),
    ("{measurement: idle_share, at_most: -0.1, origin: x}", "range is 0 to 1", "10:5"),
    ("{measurement: ldlj_4s, above: 2, below: 2, origin: x}", "no value can be above 2", "10:5"),
    ("{measurement: ldlj_4s, at_least: 3, at_most: 1, origin: x}", "no value can be", "10:5"),
    ("{fact: duration_s, below: 0, origin: x}", "no value can be below 0", "10:5"),
    ("{measurement: pause_s, of: share, above: 1.5, origin: x}", "range is 0 to 1", "10:5"),
    (
        "{all: [{measurement: ldlj_4s, above: 2, origin: x}, {measurement: ldlj_4s, below: 1, origin: x}]}",
        "with the other bounds of this `all`, no value of ldlj_4s is possible",
        "10:63",
    ),
]


@pytest.mark.parametrize(("when", "said", "place"), BAD_CONDITIONS)
def test_a_bad_condition_is_named_with_its_place(when: str, said: str, place: str) -> None:
    found = problem(with_rule(when))
    assert said in found
    assert found.startswith(f"policy.yaml:{place}: "), found


NAMED = f"  idle: {IDLE}\n"
BAD_REFERENCES = [
    ("  a: {condition: b}\n  b: {not: {condition: a}}\n", "a circle: a -> b -> a"),
    ("  a: {all: [{condition: a}]}\n", "a circle: a -> a"),
    (
        "".join(f"  c{k}: {{condition: c{k + 1}}}\n" for k in range(30)) + NAMED,
        "no condition 'c30'",
    ),
    (
        "".join(f"  c{k}: {{condition: c{k + 1}}}\n" for k in range(30)) + f"  c30: {IDLE}\n",
        "references nested more than 16 deep",
    ),
    (
        f"  c30: {IDLE}\n"
        + "".join(f"  c{k}: {{condition: c{k + 1}}}\n" for k in range(29, -1, -1)),
        "references nested more than 16 deep",
    ),
    (
        f"  c12: {IDLE}\n"
        + "".join(
            f"  c{k}: {{all: [{{condition: c{k + 1}}}, {{condition: c{k + 1}}}]}}\n"
            for k in range(12)
        ),
        "more than 2000 comparisons",
    ),
]


@pytest.mark.parametrize(("conditions", "said"), BAD_REFERENCES, ids=[s for _, s in BAD_REFERENCES])
def test_references_that_do_not_end(conditions: str, said: str) -> None:
    found = problem(with_rule(IDLE, conditions))
    assert said in found
    assert re.match(r"policy.yaml:\d+:\d+: ", found)


def test_bounds_that_meet_through_a_reference_are_found() -> None:
    busy = "  busy: {measurement: idle_share, below: 0.2, origin: x}\n"
    found = problem(with_rule(f"{{all: [{{condition: busy}}, {IDLE}]}}", busy))
    assert "no value of idle_share is possible" in found
    assert found.startswith("policy.yaml:11:")


def test_bounds_of_an_any_may_exclude_each_other() -> None:
    policy_of(with_rule(f"{{any: [{IDLE}, {{measurement: idle_share, below: 0.1, origin: x}}]}}"))


BAD_FILES = [
    ("", "expected keys with values"),
    ("policy: [mine\n", "not valid YAML"),
    ("policy: mine\npolicy: yours\n", "duplicate key 'policy'"),
    ("policy: &a mine\nabout: *a\n", "the alias *a is not supported"),
    ("[" * 100, "more than 24 levels"),
    ("? [1]\n: 2\n", "a key must be text"),
    ("policy: 2025-13-45\n", "is not a valid value"),
    ("policy: a\tb\x07\n", "not valid YAML"),
    (with_rule(IDLE).replace("version: 1", "version: 0"), "expected at least 1"),
    (with_rule(IDLE).replace("version: 1", "version: one"), "expected a whole number"),
    (with_rule(IDLE).replace("about: a test\n", ""), "is missing"),
    (with_rule(IDLE).replace("about: a test", 'about: "a\\0b"'), "expected text that matches"),
    (with_rule(IDLE).replace("tier: low\n", "tier: gold\n"), "'high', 'low', 'actionless'"),
    (with_rule(IDLE).replace("min_length_s: 1.0", "min_length_s: 0"), "expected more than 0"),
    (with_rule(IDLE).replace("min_length_s: 1.0, origin: ours", "min_length_s: 1.0"), "is missing"),
    (with_rule(IDLE).replace("code: rest", "code: one"), "duplicate rule code 'one'"),
    (with_rule(IDLE).replace("code: one", "code: One!"), "expected text that matches"),
    (f"{HEAD}rules: []\n{TAIL}", "at least 1 item"),
    (f"{HEAD}", "is missing"),
]


@pytest.mark.parametrize(("text", "said"), BAD_FILES, ids=[s for _, s in BAD_FILES])
def test_a_bad_file_is_named_with_its_place(text: str, said: str) -> None:
    assert said in problem(text)
    assert re.match(r"policy.yaml(:\d+:\d+)?: ", problem(text))


BAD_EDGES = [
    ("{measurement: idle_share}", "one number per episode"),
    ("{measurement: pauses}", "no measurement 'pauses'; did you mean pause_s"),
    ("{segments: task}", "'valid_run' or 'subtask'"),
    ("{segments: subtask, above: 1, origin: x}", "no value to compare"),
    ("{measurement: pause_s, segments: subtask}", "exactly one of segments, measurement"),
    ("{measurement: pause_s, above: 2, below: 1, origin: x}", "no value can be above 2"),
    ("{measurement: pause_s, above: 2}", "needs `origin`"),
]


@pytest.mark.parametrize(("edge", "said"), BAD_EDGES, ids=[s for _, s in BAD_EDGES])
def test_a_bad_edge_is_named_with_its_place(edge: str, said: str) -> None:
    segments = f"segments:\n  min_length_s: 1.0\n  origin: ours\n  edges:\n    - {edge}\n"
    text = with_rule(IDLE).replace("segments: {min_length_s: 1.0, origin: ours}\n", segments)
    found = problem(text)
    assert said in found
    assert re.match(r"policy.yaml:8:\d+: ", found), found


def test_all_problems_are_told_at_once_but_not_without_end() -> None:
    rules = "".join(
        f"  - {{code: r{k}, tier: low, text: t, when: {{fact: no{k}, is: x}}}}\n" for k in range(30)
    )
    lines = problem(f"{HEAD}rules:\n{rules}{TAIL}").splitlines()
    assert len(lines) == 21
    assert lines[0].startswith("policy.yaml:6:")
    assert lines[-1] == "and 10 more"


def test_a_file_that_is_no_policy(tmp_path: Path) -> None:
    large, binary = tmp_path / "large.yaml", tmp_path / "binary.yaml"
    large.write_text("#" * (MAX_BYTES + 1))
    binary.write_bytes(b"\xff\xfe\x00")
    for path, said in ((large, "too_large"), (binary, "cannot be read"), (tmp_path, "ei30k")):
        with pytest.raises(ConfigError, match=said):
            load_policy(str(path))


# --- the built-in policy ------------------------------------------------------------------------------------------------


def test_the_built_in_policy_is_sound_and_every_number_has_its_origin() -> None:
    policy, text = load_policy("ei30k")
    assert policy.title == "ei30k v1"
    assert {rule.tier for rule in policy.rules} == set(Tier)
    numbers = [c for _, c in policy.all_conditions() if c.thresholds]
    assert all(c.origin for c in numbers)
    # ... and in a comment beside it, or on the line of its origin
    for line in text.splitlines():
        if re.match(r"\s+(above|at_least|below|at_most): ", line):
            assert "#" in line or "-0.35" in line, line


def test_the_digest_is_of_the_content_not_of_the_comments() -> None:
    text = load_policy("ei30k")[1]
    bare = yaml.safe_dump(yaml.safe_load(text), sort_keys=True)
    assert policy_of(bare).digest == policy_of(text).digest
    assert policy_of(text.replace("above: 0.6 ", "above: 0.61 ")).digest != policy_of(text).digest


def test_a_condition_survives_its_own_json() -> None:
    policy = load_policy("ei30k")[0]
    raw: Any = policy.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert QualityPolicy.model_validate(raw) == policy


def test_tasks_are_those_of_the_design() -> None:
    """design.md 4.3, by hand."""
    everything = set(Task)
    assert set(TASKS[Tier.HIGH]) == everything
    assert set(TASKS[Tier.LOW]) == everything - {Task.POLICY}
    assert TASKS[Tier.ACTIONLESS] == (Task.VISUAL_FORECASTING,)
    assert TASKS[Tier.EXCLUDED] == ()


def test_every_name_has_one_meaning() -> None:
    known = measurements()
    assert {gives.name for gives in INGESTED} <= known.keys()
    assert FACTS["supervises"].values == {task.value for task in Task}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1e3", 1e3),
        ("-2E5", -2e5),
        ("5.0e-1", 0.5),
        ("1.0e308", 1e308),
        (".5e3", 500.0),
        ("1.e2", 100.0),
        ("1e", "1e"),
        ("e5", "e5"),
        (".e5", ".e5"),
        ("1.2.3e4", "1.2.3e4"),
    ],
)
def test_a_number_with_an_exponent_is_a_number(text: str, value: object) -> None:
    assert parse_policy_text(f"a: {text}\n", "f.yaml").data == {"a": value}


def test_the_place_of_a_value_is_that_of_its_key() -> None:
    read = parse_policy_text("a: 1\nb:\n  - {c: yes}\n", "f.yaml")
    assert read.place(("b", 0, "c")) == "f.yaml:3:6"
    assert read.place(("b", 0, "missing")) == "f.yaml:3:5"
    assert read.place(("nothing",)) == "f.yaml:1:1"
    with pytest.raises(ConfigError):
        policy_from(read)
