"""The member reader gives what the whole-file parser gives, whatever the chunk size, and says where it breaks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.containers import json_rows
from adapters.containers.json_rows import members
from schemas.errors import ConfigError

VALUE = {
    "version": "2.0",
    "n": 12345,
    "videos": [{"uid": "a", "t": [1, 2.5, None]}, 1234567, 'ü\\"}'],
    "other": {"videos": [1]},
}


@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
def test_members_whatever_the_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(json_rows, "CHUNK_CHARS", chunk)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(VALUE, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert list(members(path)) == [
        (("version",), "2.0"),
        (("n",), 12345),
        (("videos", "0"), VALUE["videos"][0]),
        (("videos", "1"), 1234567),
        (("videos", "2"), 'ü\\"}'),
        (("other",), {"videos": [1]}),
    ]


@pytest.mark.parametrize(
    "text",
    ['{"a": 1', '{"a" 1}', '{"a": 1}}', "", "[1, 2", '{"a": [1, }', "[" * 100_000, '{"a": 1,}'],
)
def test_no_whole_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="incomplete JSON"):
        list(members(path))


def test_no_text_and_no_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": "\xff\xfe"}')
    with pytest.raises(ConfigError, match="UTF-8"):
        list(members(path))
    with pytest.raises(ConfigError, match="cannot be read"):
        list(members(tmp_path / "b.json"))


def test_an_endless_member_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "CHUNK_CHARS", 10)
    monkeypatch.setattr(json_rows, "LONGEST_MEMBER_CHARS", 100)
    path = tmp_path / "a.json"
    path.write_text('{"a": "' + "x" * 1000 + '"}', encoding="utf-8")
    with pytest.raises(ConfigError, match="longer than 100 characters"):
        list(members(path))
