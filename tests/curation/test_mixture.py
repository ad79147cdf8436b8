"""The arithmetic of a mixture, by hand, and every mixture that cannot be."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.curation.manifests.mixture import HOUR_NS, GroupShare, allocate, draw_hours
from ingest.curation.manifests.mixture_text import Mixture, mixture_from
from schemas.errors import ConfigError

BY_SOURCE = "by: [source]\n"


def mixture(text: str) -> Mixture:
    return mixture_from(text, "m.yaml").mixture


def dealt(text: str, hours: dict[str, float]) -> dict[str, GroupShare]:
    """Groups named `source` or `source tier`."""
    groups = {tuple(name.split()): round(h * HOUR_NS) for name, h in hours.items()}
    return {" ".join(d.group): d for d in allocate(mixture(text), groups)}


def shares(text: str, **hours: float) -> dict[str, float]:
    return {name: round(d.share, 6) for name, d in dealt(text, hours).items()}


def test_without_rules_hours_are_shares_and_every_epoch_is_one() -> None:
    found = dealt(BY_SOURCE, {"a": 30, "b": 10})
    assert {n: (d.share, d.epochs, d.hours) for n, d in found.items()} == {
        "a": (0.75, 1.0, 30.0),
        "b": (0.25, 1.0, 10.0),
    }


def test_temperature_by_hand() -> None:
    """sqrt(100) : sqrt(25) = 10 : 5; alike at 0."""
    assert shares(f"{BY_SOURCE}temperature: 0.5", a=100, b=25) == {"a": 0.666667, "b": 0.333333}
    assert shares(f"{BY_SOURCE}temperature: 0", a=100, b=25) == {"a": 0.5, "b": 0.5}


def test_a_target_share_and_its_effective_epochs() -> None:
    """100 h are drawn: 40 of them from the 10 h of a, 4 epochs; the 90 h of b and c give 60 by their hours."""
    text = f"{BY_SOURCE}rules: [{{groups: {{source: a}}, share: 0.4}}]"
    found = dealt(text, {"a": 10, "b": 60, "c": 30})
    assert [round(d.share, 9) for d in found.values()] == [0.4, 0.4, 0.2]
    assert [round(d.epochs, 9) for d in found.values()] == [4.0, 0.666666667, 0.666666667]


def test_a_share_of_several_groups_is_divided_by_temperature() -> None:
    text = "by: [source, tier]\ntemperature: 0.5\nrules: [{groups: {tier: low}, share: 0.3}]"
    found = dealt(text, {"a low": 4, "b low": 1, "a high": 5})
    assert {n: round(d.share, 9) for n, d in found.items()} == {
        "a high": 0.7,
        "a low": 0.2,
        "b low": 0.1,
    }


def test_a_cap_on_epochs_leaves_the_rest_to_the_others() -> None:
    """All alike would draw 50 h from the 1 h of a; at most 2 epochs are 2 h."""
    found = dealt(f"{BY_SOURCE}temperature: 0\nmax_epochs: 2", {"a": 1, "b": 99})
    assert (found["a"].epochs, round(found["a"].share, 9)) == (2.0, 0.02)
    assert found["a"].rule == "max_epochs 2 of the mixture"
    assert (round(found["b"].share, 9), found["b"].rule) == (0.98, "")


def test_a_rule_of_a_group_replaces_the_general_cap() -> None:
    text = f"{BY_SOURCE}temperature: 0\nmax_epochs: 1\ndraw_hours: 50\n"
    text += "rules: [{groups: {source: a}, max_epochs: 20}]"
    assert dealt(text, {"a": 1, "b": 99})["a"].epochs == 20.0


def test_minimums_hold() -> None:
    text = f"{BY_SOURCE}rules: [{{groups: {{source: a}}, min_share: 0.2}}]"
    found = dealt(text, {"a": 1, "b": 66, "c": 33})
    assert [round(d.share, 6) for d in found.values()] == [0.2, 0.533333, 0.266667]
    assert found["a"].rule.startswith("min_share 0.2 of rule")


def test_hours_to_draw_scale_the_epochs() -> None:
    assert dealt(f"{BY_SOURCE}draw_hours: 200", {"a": 50})["a"].epochs == 4.0
    assert draw_hours(mixture(BY_SOURCE), {("a",): 3 * HOUR_NS}) == 3.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules: [{name: r1, groups: {source: a}, share: 0.7}, {groups: {source: b}, share: 0.5}]", "sum to 1.2"),
        ("rules: [{name: r1, groups: {source: a}, share: 0.5}, {name: r2, groups: {source: [a, b]}, share: 0.1}]", "'r1' and 'r2' both"),
        ("rules: [{name: r1, groups: {source: z}, share: 0.5}]", "rule 'r1': no train segment has source z; available: a, b"),
        ("rules: [{name: r1, groups: {source: [a, b]}, share: 0.9}]", "sum to 0.9"),
        ("max_epochs: 2\nrules: [{name: r1, groups: {source: a}, share: 0.5}]", "share 0.5 of rule 'r1' gets 0.5 of the samples, but max_epochs 2 of the mixture allow at most 0.2"),
        ("draw_hours: 1000\nmax_epochs: 2", "the remainder after all shares gets 1 of the samples, but max_epochs 2 of the mixture allow at most 0.2"),
        ("rules: [{name: r1, groups: {source: a}, min_share: 0.6}, {name: r2, groups: {source: b}, min_share: 0.6}]", "min_share 0.6 of rule 'r1', min_share 0.6 of rule 'r2' require at least 1.2"),
        ("rules: [{name: r1, groups: {source: a}, min_epochs: 3, max_share: 0.1}]", "source a cannot have both min_epochs 3 of rule 'r1' and max_share 0.1"),
    ],
)  # fmt: skip
def test_an_impossible_mixture_is_refused_by_its_rule(text: str, said: str) -> None:
    """a has 10 h, b 90."""
    with pytest.raises(ConfigError) as caught:
        dealt(BY_SOURCE + text, {"a": 10, "b": 90})
    assert said in str(caught.value)


@pytest.mark.parametrize("hours", [1e-9, 10])
def test_rules_contradict_each_other_for_a_group_of_any_size(hours: float) -> None:
    """Of 3.6 microseconds among 1000 h an epoch is 1e-12 of the draws, less than any fixed slack."""
    rules = "[{name: r1, groups: {source: a}, min_epochs: 3}, {name: r2, groups: {source: a}, max_epochs: 0.01}]"
    with pytest.raises(ConfigError, match="cannot have both min_epochs 3 of rule 'r1'"):
        dealt(f"{BY_SOURCE}rules: {rules}", {"a": hours, "b": 1000})


def test_bounds_that_meet_are_no_contradiction() -> None:
    """The sum of 0.01, 0.29 and 0.7 is 0.9999999999999999."""
    rules = "[{groups: {source: a}, min_epochs: 0.3, max_epochs: 0.3}]"
    assert dealt(f"{BY_SOURCE}rules: {rules}", {"a": 1e-9, "b": 1000})["a"].epochs == pytest.approx(
        0.3, rel=1e-9
    )
    thirds = ", ".join(
        f"{{groups: {{source: {n}}}, share: {s}}}"
        for n, s in zip("abc", (0.01, 0.29, 0.7), strict=True)
    )
    assert shares(f"{BY_SOURCE}rules: [{thirds}]", a=1, b=1, c=1) == {
        "a": 0.01,
        "b": 0.29,
        "c": 0.7,
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("by: [colour]", "m.yaml:1"),
        ("by: [source]\ntemperature: -1", "m.yaml:2:1"),
        ("by: [source]\nrules:\n  - {groups: {tier: low}, share: 0.1}", "uses ['tier']"),
        ("by: [source]\nrules:\n  - {groups: {source: a}}", "the rule sets nothing"),
        ("by: [source]\nshare: 1", "m.yaml:2"),
        ("a: [", "not valid YAML"),
        ("version: 2", "version"),
        ("draw_hours: .nan", "m.yaml:1:13"),
        ("by: [source]\nrules:\n  - {groups: {source: a}, min_epochs: 3, max_epochs: 0.01}", "m.yaml:3:5: min_epochs 3 is larger than max_epochs 0.01"),
        ("by: [source]\nrules:\n  - {groups: {source: a}, min_share: 0.2, max_share: 0.1}", "m.yaml:3:5: min_share 0.2 is larger than max_share 0.1"),
    ],
)  # fmt: skip
def test_what_is_no_mixture_is_told_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        mixture(text)
    assert said in str(caught.value)


@example([1.0], 5e-324, 2.0)
@given(
    st.lists(st.floats(0.01, 1e5), min_size=1, max_size=8),
    st.floats(0, 1.5),
    st.floats(1.05, 20),
)
def test_shares_add_up_and_caps_hold(hours: list[float], temperature: float, cap: float) -> None:
    text = f"{BY_SOURCE}temperature: {temperature}\nmax_epochs: {cap}"
    found = dealt(text, {f"s{i}": h for i, h in enumerate(hours)})
    assert math.fsum(d.share for d in found.values()) == pytest.approx(1, abs=1e-9)
    assert all(d.epochs <= cap * (1 + 1e-9) for d in found.values())
    free = [d for d in found.values() if not d.rule]
    pulls = [d.share / d.hours**temperature for d in free]
    assert not free or max(pulls) == pytest.approx(min(pulls), rel=1e-9)
