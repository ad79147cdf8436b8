"""Digests are compared once, and what is remembered of it is small."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from training.data.file_check import VerifiedFiles


def test_a_file_is_read_once_and_another_digest_is_another_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{k}" for k in range(20)]
    for path in paths:
        path.write_text(path.name)
    wanted = [hashlib.sha256(path.name.encode()).hexdigest() for path in paths]
    compared = VerifiedFiles()
    assert not any(map(compared.other_digest, paths, wanted))
    assert compared.other_digest(paths[0], wanted[1]) == wanted[0]
    assert (
        compared.other_digest(paths[0], wanted[1]) == wanted[0]
    )  # what was wrong is not remembered
    monkeypatch.setattr(Path, "open", lambda *given: pytest.fail("read again"))
    assert not any(map(compared.other_digest, paths, wanted))
