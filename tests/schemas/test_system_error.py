"""What the operating system and libav refuse, in words for the user."""

from __future__ import annotations

import os
from pathlib import Path

import av
import pytest

from schemas.av_options import open_video
from schemas.errors import DAMAGED, system_error_text


def test_a_damaged_video_is_a_sentence_without_number_and_path(tmp_path: Path) -> None:
    path = tmp_path / "in.mp4"
    path.write_bytes(os.urandom(5000))
    with pytest.raises(av.FFmpegError) as caught:
        open_video(path)
    assert str(path) in str(caught.value)  # what the user saw before
    assert system_error_text(caught.value, str(path)) == DAMAGED
    assert system_error_text(caught.value) == f"{path}: {DAMAGED}"


def test_other_reports_of_libav_keep_its_words() -> None:
    error = av.error.DecoderNotFoundError(1, "Decoder not found", "file:/a")
    assert system_error_text(error, "/a") == "libav reports: Decoder not found"


def test_a_refusal_of_the_system_names_its_path_once(tmp_path: Path) -> None:
    path = tmp_path / "absent"
    with pytest.raises(OSError, match="absent") as caught:
        path.open()
    reason = os.strerror(caught.value.errno or 0)
    assert system_error_text(caught.value) == f"{path}: {reason}"
    assert system_error_text(caught.value, str(path)) == reason
    assert system_error_text(caught.value, "absent") == reason
    assert system_error_text(caught.value, "episode_3") == f"{path}: {reason}"
    assert system_error_text(UnicodeDecodeError("utf-8", b"x", 0, 1, "bad byte")).endswith(
        "bad byte"
    )
    assert system_error_text(OSError("h5py's own words")) == "h5py's own words"
