"""Which texts of an episode are told to the model, with which pictures, and under which name. No model runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.latents.text_plan import EpisodeTexts, spans_of
from schemas.errors import ConfigError
from schemas.text_features import (
    FeatureSettings,
    is_of_text,
    moment_of,
    picture_timesteps,
    source_sha256,
    text_encoder_id,
    text_facts_of,
    text_feature_file,
)
from schemas.vlm import model_sha256, model_type

LAST = FeatureSettings(layer=2)


def segment(kind: str, start: int, end: int, text: str) -> dict[str, Any]:
    return {"kind": kind, "start": start, "end": end, "text": text}


def caption(start: int, end: int, text: str, **more: Any) -> dict[str, Any]:
    usual = {"outcome": "ok", "checks_failed": [], "backend": "seen"}
    return usual | {"start": start, "end": end, "text": text} | more


def test_one_text_is_of_the_whole_episode() -> None:
    episode = {"length": 40, "tasks": ["open"]}
    assert spans_of(episode, [segment("valid_run", 3, 9, "")], []) == {"open": ((0, 40),)}
    assert spans_of(episode, [segment("task", 0, 40, "open")], []) == {"open": ((0, 40),)}


def test_every_text_a_manifest_may_choose_is_told_where_it_holds() -> None:
    episode = {"length": 40, "tasks": [" ", "pick", "place"]}
    segments = [
        segment("task", 0, 20, "pick"),
        segment("task", 20, 30, "place"),
        segment("task", 30, 40, "pick"),
        segment("subtask", 5, 15, "reach"),
        segment("valid_run", 0, 40, "no text"),
        segment("summary", 0, 40, "neither"),
        segment("subtask", 15, 20, "  "),
    ]
    captions = [
        caption(0, 50, "a hand picks"),
        caption(0, 40, "unsure", outcome="abstained"),
        caption(0, 40, "wrong", checks_failed=["grounding"]),
        caption(2, 4, "other hand", checks_failed=["hand_agreement"]),  # advisory
        caption(0, 40, ""),
    ]
    found = spans_of(episode, segments, captions)
    assert found == {
        "a hand picks": ((0, 40),),
        "other hand": ((2, 4),),
        "pick": ((0, 20), (30, 40)),
        "place": ((20, 30),),
        "reach": ((5, 15),),
    }
    assert list(found) == sorted(found)


def test_an_episode_that_says_nothing_is_told_nothing() -> None:
    assert spans_of({"length": 7, "tasks": []}, [], []) == {"": ((0, 7),)}
    assert spans_of({"length": 7, "tasks": ["  "]}, [segment("task", 0, 7, " ")], []) == {"": ((0, 7),)}  # fmt: skip


@pytest.mark.parametrize(
    ("spans", "stride", "wanted"),
    [
        (((0, 21),), 10, [0, 10, 20]),
        (((0, 20),), 10, [0, 10]),  # 20 is not in it
        (((7, 12),), 10, [0, 10]),  # what it begins with is the picture before
        (((12, 15),), 10, [10]),
        (((3, 9), (5, 31)), 10, [0, 10, 20, 30]),
        ((), 10, []),
    ],
)
def test_pictures_of_a_text(spans: Any, stride: int, wanted: list[int]) -> None:
    assert picture_timesteps(spans, stride) == wanted


def test_at_every_timestep_where_a_text_holds_the_picture_is_no_older_than_one_stride() -> None:
    spans, stride = ((3, 9), (26, 37)), 7
    at = np.array([-1, *picture_timesteps(spans, stride)])
    for now in range(40):
        read = int(at[moment_of(np.zeros(len(at), np.int64), at, 0, now)])
        assert read <= now
        if any(a <= now < b for a, b in spans):
            assert now - stride < read


def episode(**more: Any) -> EpisodeTexts:
    given: dict[str, Any] = {
        "uid": "u",
        "dataset_path": "datasets/s/main",
        "episode_index": 1003,
        "length": 25,
        "rate_hz": 10.0,
        "spans": {"a": ((0, 25),), "b": ((12, 20),)},
        "camera": "front",
        "video_sha256": "v",
    }
    return EpisodeTexts(**(given | more))


def test_moments_are_sorted_and_every_text_has_one_without_a_picture() -> None:
    shown = LAST.model_copy(update={"picture_every_s": 1.0})
    both = [(0, -1), (0, 0), (0, 10), (0, 20), (1, -1), (1, 10)]
    assert episode().moments(shown) == both
    assert episode().moments(LAST) == [(0, -1), (1, -1)]
    assert episode(camera="").moments(shown) == [(0, -1), (1, -1)]  # nothing can be shown
    assert episode().target("text_x-0").endswith("text_x-0/chunk-001/text/episode_001003.safetensors")  # fmt: skip


def test_what_features_are_made_from_has_a_digest() -> None:
    spans: Any = {"a": ((0, 5),), "b": ((5, 9),)}
    later: Any = {"a": ((0, 6),), "b": ((6, 9),)}
    with_video = source_sha256(spans, 9, "v")
    assert with_video != source_sha256(later, 9, "v")
    assert with_video != source_sha256(spans, 9, "w")
    alone = source_sha256(spans, 9, "")
    assert alone == source_sha256(later, 9, "")  # when they hold does not matter to texts alone
    assert alone != source_sha256({"a": ((0, 5),)}, 9, "")


CHANGES: dict[str, Callable[[FeatureSettings], FeatureSettings]] = {
    name: lambda s, name=name, value=value: s.model_copy(update={name: value})  # type: ignore[misc]
    for name, value in {
        "prompt": "Do: {text}",
        "layer": 1,
        "max_text_tokens": 99,
        "picture_every_s": 1.0,
        "camera": "front",
        "max_picture_tokens": 49,
    }.items()
}


def test_every_setting_is_in_the_name() -> None:
    assert CHANGES.keys() == FeatureSettings.model_fields.keys()
    base = text_encoder_id("text_qwen3_vl", "0" * 64, LAST)
    ids = [text_encoder_id("text_qwen3_vl", "0" * 64, change(LAST)) for change in CHANGES.values()]
    assert len({base, *ids, text_encoder_id("text_qwen3_vl", "1" * 64, LAST)}) == len(CHANGES) + 2
    assert is_of_text(base)
    assert not is_of_text("dinov3_vits16-0123456789ab")
    assert text_feature_file(base, 0).startswith(f"latents/{base}/chunk-000/")
    with pytest.raises(ValueError, match="expected text_"):
        text_encoder_id("../x", "0" * 64, LAST)
    with pytest.raises(ValueError, match=r"must contain \{text\}"):
        FeatureSettings(layer=0, prompt="say it")


def test_a_model_is_its_weights_and_what_feeds_them(tmp_path: Path) -> None:
    files = {"model.safetensors": b"w", "config.json": b'{"model_type": "qwen3_vl"}',
             "tokenizer.json": b"t", "preprocessor_config.json": b"p", "chat_template.jinja": b"c"}  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    whole = model_sha256(tmp_path)
    (tmp_path / "README.md").write_text("other words")
    (tmp_path / "generation_config.json").write_text("{}")
    assert model_sha256(tmp_path) == whole
    for name, content in files.items():
        (tmp_path / name).write_bytes(content + b" ")
        assert model_sha256(tmp_path) != whole, name
        (tmp_path / name).write_bytes(content)
    assert model_sha256(tmp_path) == whole
    assert model_type(tmp_path) == "qwen3_vl"
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="model_type"):
        model_type(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"no \.safetensors"):
        model_sha256(tmp_path)


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        (None, "no valid text features of eicorpus"),
        ({"eicorpus": "no json"}, "no valid text features"),
        ({"eicorpus": '{"text_features_version": 2}'}, "version 2.*install a newer"),
        ({"eicorpus": '{"text_features_version": 1}'}, "no valid text features"),
    ],
)
def test_a_file_that_says_something_else_is_refused(
    metadata: dict[str, str] | None, match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        text_facts_of(metadata, where="file")
