"""Every YAML text gives a value within bounds, or one `DocumentError` that says the line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from schemas.document import DocumentError
from schemas.errors import ConfigError
from schemas.yaml_text import YamlLimits, parse_yaml, read_yaml

LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(18)
)
HOSTILE = {
    "5,000 digits": "a: " + "7" * 5_000,
    "2^63": "a: 9223372036854775808",
    "a number in quotes": "a: !!int '99999999999999999999'",
    "grouped": "a: 1" + "_000" * 10,
    "hexadecimal": "a: 0x" + "f" * 16,
    "binary": "a: 0b" + "1" * 64,
    "hexadecimal without end": "a: 0x" + "f" * 5_000,
    "sexagesimal": "a: 1" + ":59" * 2_000,
    "a float beyond": "a: 1.0e+999",
    "infinity": "a: .inf",
    "not a number": "a: -.nan\nb: .nan",
    "nested flow": "a: " + "[" * 100_000,
    "nested blocks": "".join(f"{'  ' * i}a:\n" for i in range(40)),
    "a scalar of 100 kB": "a: " + "x" * 100_000,
    "a text of 2 MB": "# " + "x" * 2_000_000,
    "billion laughs": LAUGHS,
    "an alias within itself": "a: &a [1, *a]",
    "an alias of nothing": "a: *b",
    "a type of Python": "!!python/object/apply:os.system [id]",
    "a key twice": "a: 1\nb: {c: 1, c: 2}",
    "no date": "a: 2024-13-45",
    "a key that is a list": "? [1]\n: 2",
    "two documents": "a: 1\n---\nb: 2",
    "a control character": "a: \x07",
    "half": "a: [1, 2",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_is_one_error(text: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_yaml(text)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_plain_settings_are_read() -> None:
    text = "a: 9223372036854775807\nb: '99999999999999999999'\nc: 1.5e+3\nd: [yes, null]\ne: 0x10"
    assert parse_yaml(text) == {
        "a": 2**63 - 1,
        "b": "9" * 20,
        "c": 1500.0,
        "d": [True, None],
        "e": 16,
    }
    assert parse_yaml("") is None
    assert parse_yaml(b"\xef\xbb\xbfa: \xc3\xa4") == {"a": "ä"}
    with pytest.raises(DocumentError, match="UTF-8"):
        parse_yaml(b"a: \xff")


def test_an_alias_counts_as_what_it_stands_for() -> None:
    text = "a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a"
    assert parse_yaml(text) == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1}}
    assert parse_yaml(text, limits=YamlLimits(max_nodes=19)) is not None
    with pytest.raises(DocumentError, match=r"line 3.*aliases are expanded"):
        parse_yaml(text, limits=YamlLimits(max_nodes=14))


def test_a_file_of_the_user_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [1\n")
    os.mkfifo(tmp_path / "fifo.yaml")
    for name, found in (
        ("a.yaml", "line 2"),
        ("fifo.yaml", "FIFO"),
        ("none.yaml", "the file is missing"),
    ):
        with pytest.raises(ConfigError, match=found) as caught:
            read_yaml(tmp_path / name)
        assert name in str(caught.value)
