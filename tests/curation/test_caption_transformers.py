"""A local Qwen3-VL: tiny and of random weights, but through the library's own model, tokenizer and image processor.

Runs where the `vlm` extra is installed (`pip install 'eicorpus[vlm]'`), without torchvision and without a network.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ingest.curation.caption.answers import Description
from ingest.curation.caption.chat import ChatBackend
from ingest.curation.caption.protocol import (
    DescribeRequest,
    InstructRequest,
    Outcome,
    Segment,
)
from ingest.curation.caption.settings import AskSettings
from ingest.curation.caption.sheet import Sheet, SheetPlan, sheet_of
from ingest.curation.caption.transformers_backend import TransformersChat
from ingest.models.vlm import LocalVlm, Message
from schemas.errors import ConfigError
from tests.curation.fake_endpoint import DESCRIPTION
from tests.curation.tiny_qwen import write_tiny_qwen

SEGMENT = Segment(uid="u", start=0, end=10, duration_s=1.0, texts=("take cup",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="NOT RUN: the vlm extra is not installed")
    return write_tiny_qwen(tmp_path_factory.mktemp("tiny_qwen"))


def sheet(level: int) -> Sheet:
    pictures = [np.full((48, 64, 3), level, np.uint8)] * 4
    return sheet_of(pictures, [0.0, 0.3, 0.6, 0.9], SheetPlan(tile_px=64))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_true_path_generates_from_pictures_and_text(folder: Path) -> None:
    vlm = LocalVlm.load(folder)
    dark, light = (np.full((96, 128, 3), level, np.uint8) for level in (10, 240))

    def said(
        picture: np.ndarray | None, text: str = "what?", seed: int = 0, hot: float = 0.0
    ) -> str:
        messages = [Message(role="user", text=text, picture=picture)]
        return vlm.generate(messages, max_tokens=24, temperature=hot, seed=seed).text

    assert said(dark) == said(dark)
    assert said(dark) != said(light)  # it is looked at
    assert said(dark) != said(dark, text="why?")
    assert said(None)
    assert said(dark, hot=1.0, seed=1) == said(dark, hot=1.0, seed=1)
    assert said(dark, hot=1.0, seed=1) != said(dark, hot=1.0, seed=2)
    inputs = vlm._inputs([Message(role="user", text="<|image_pad|>", picture=dark)])
    grid = inputs["image_grid_thw"].tolist()
    assert grid == [[1, 6, 8]]  # 96 x 128 in patches of 16
    assert (
        int(inputs["mm_token_type_ids"].sum()) == 6 * 8 // 4
    )  # merged two by two; a text's own token is none
    assert not vlm.generate(
        [Message(role="user", text="a")], max_tokens=2, temperature=0.0, seed=0
    ).is_whole


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_random_weights_say_nothing_and_are_told_so(folder: Path) -> None:
    backend = ChatBackend(TransformersChat(folder), AskSettings(max_tokens=16))
    assert backend.model.startswith(f"{folder.name}@")
    outcomes = {Outcome.PARSE_ERROR, Outcome.TRUNCATED}
    described = backend.describe(DescribeRequest(segment=SEGMENT, sheet=sheet(100)))
    assert described.outcome in outcomes
    instructed = backend.instruct(
        InstructRequest(
            segment=SEGMENT, description=Description.model_validate(DESCRIPTION), sheet=sheet(100)
        )
    )
    assert instructed.outcome in outcomes


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_model_of_another_family_or_damaged_is_refused(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_vl"}))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        LocalVlm.load(tmp_path)
    with pytest.raises(ConfigError, match=r"sees no GPU|cannot be loaded"):
        LocalVlm.load(tmp_path, "cuda")


def test_a_folder_without_a_model_is_named_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model here"):
        TransformersChat(tmp_path)
    with pytest.raises(ConfigError, match=r"no config\.json"):
        LocalVlm.load(tmp_path)
