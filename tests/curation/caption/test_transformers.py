"""A local Qwen3-VL: tiny and of random weights, but through the library's own model, tokenizer and image processor.

Runs where the `vlm` extra is installed (`pip install 'eicorpus[vlm]'`), without torchvision and without a network.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.curation.captions import transformers_backend
from ingest.curation.captions.answers import Description
from ingest.curation.captions.chat import ChatBackend, ChatRequest, Turn
from ingest.curation.captions.protocol import (
    CaptionOutcome,
    DescribeRequest,
    InstructRequest,
    Segment,
)
from ingest.curation.captions.settings import AskSettings
from ingest.curation.captions.sheet import Sheet, SheetPlan, sheet_of
from ingest.curation.captions.transformers_backend import TransformersChat
from ingest.models.vlm import Generated, LocalVlm, Message
from schemas.errors import ConfigError
from tests.curation.caption.fake_endpoint import DESCRIPTION
from tests.curation.caption.tiny_qwen import write_tiny_qwen

AUTO = ("AutoConfig", "AutoModelForImageTextToText", "AutoModel")
SEGMENT = Segment(uid="u", start=0, end=10, duration_s=1.0, texts=("take cup",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    pytest.importorskip("transformers", reason="NOT RUN: the vlm extra is not installed")
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # a model this small only waits for the other threads
    yield write_tiny_qwen(tmp_path_factory.mktemp("tiny_qwen"))
    torch.set_num_threads(before)


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
        (made,) = vlm.generate([messages], max_tokens=24, temperature=hot, seed=seed)
        return made.text

    assert said(dark) == said(dark)
    assert said(dark) != said(light)  # it is looked at
    assert said(dark) != said(dark, text="why?")
    assert said(None)
    assert said(dark, hot=1.0, seed=1) == said(dark, hot=1.0, seed=1)
    assert said(dark, hot=1.0, seed=1) != said(dark, hot=1.0, seed=2)
    inputs = vlm._inputs([[Message(role="user", text="<|image_pad|>", picture=dark)]])
    grid = inputs["image_grid_thw"].tolist()
    assert grid == [[1, 6, 8]]  # 96 x 128 in patches of 16
    assert (
        int(inputs["mm_token_type_ids"].sum()) == 6 * 8 // 4
    )  # merged two by two; a text's own token is none
    short = vlm.generate([[Message(role="user", text="a")]], max_tokens=2, temperature=0.0, seed=0)
    assert not short[0].is_whole


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_random_weights_say_nothing_and_are_told_so(folder: Path) -> None:
    backend = ChatBackend(TransformersChat(folder), AskSettings(max_tokens=16))
    assert backend.model.startswith(f"{folder.name}@")
    outcomes = {CaptionOutcome.PARSE_ERROR, CaptionOutcome.TRUNCATED}
    described = backend.describe(DescribeRequest(segment=SEGMENT, sheet=sheet(100)))
    assert described.outcome in outcomes
    instructed = backend.instruct(
        InstructRequest(segment=SEGMENT, description=Description.model_validate(DESCRIPTION))
    )
    assert instructed.outcome in outcomes


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_chats_answered_at_once_get_what_each_gets_alone(folder: Path) -> None:
    """Of different lengths, with and without a picture: what fills up the shorter ones is not read."""
    vlm = LocalVlm.load(folder)
    light = np.full((96, 128, 3), 240, np.uint8)
    chats = [
        [Message(role="user", text="what?", picture=light)],
        [Message(role="user", text="a longer question than the other one")],
        [Message(role="user", text="why?", picture=light[:32, :64])],
    ]
    how: dict[str, Any] = {"max_tokens": 8, "temperature": 0.0, "seed": 0}
    alone = [vlm.generate([chat], **how)[0] for chat in chats]
    assert vlm.generate(chats, **how) == alone
    assert len({one.text for one in alone}) == 3
    chat = TransformersChat(folder, batch=8)
    sizes: list[int] = []

    class Counting:
        def generate(self, chats: list[Any], **how: Any) -> list[Generated]:
            sizes.append(len(chats))
            time.sleep(0.05)
            return [Generated(text=c[1].text[-1], is_whole=True) for c in chats]

    chat._vlm = Counting()  # type: ignore[assignment]
    with ThreadPoolExecutor(9) as pool:
        asked = [request(str(k), hot=0.5 if k == 8 else 0.0) for k in range(9)]
        said = [made.text for made in pool.map(chat.complete, asked)]
    assert said == list("012345678")  # each its own
    assert sum(sizes) == 9
    assert max(sizes) >= 3  # while the first was answered, the others gathered


def request(text: str, hot: float) -> ChatRequest:
    turns = (Turn(role="system", text="s"), Turn(role="user", text=text))
    return ChatRequest(
        turns=turns,
        schema_name="d",
        schema={},
        max_tokens=8,
        temperature=hot,
        seed=0,
        segment=SEGMENT,
        which="describe",
        sample=0,
    )


def test_a_fine_tuned_model_has_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same configuration, same sizes, other numbers."""
    (tmp_path / "config.json").write_text("{}")
    names = []
    for small in (1 << 25, 1000):  # whole, and by samples
        monkeypatch.setattr(transformers_backend, "SMALL", small)
        for fill in (b"a", b"b"):
            (tmp_path / "model.safetensors").write_bytes(b"h" * 60_000 + fill * 500)
            names += [TransformersChat(tmp_path).model for _ in range(2)]
    assert len(set(names)) == 4
    assert all(a == b for a, b in zip(names[::2], names[1::2], strict=True))
    (tmp_path / "tokenizer.json").write_text("{}")
    assert TransformersChat(tmp_path).model not in names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "weights", ["model.safetensors.index.json", "pytorch_model.bin", "cut", "code"]
)
def test_weights_that_run_code_are_not_read(folder: Path, tmp_path: Path, weights: str) -> None:
    hostile, trace = tmp_path / "hostile", tmp_path / "trace"
    shutil.copytree(folder, hostile)
    model = hostile / "model.safetensors"
    pickle = b"cos\nsystem\n(S'touch " + str(trace).encode() + b"'\ntR."
    if weights == "cut":
        model.write_bytes(model.read_bytes()[:5000])
    elif weights == "code":
        config = json.loads((hostile / "config.json").read_text())
        config |= {"model_type": "mine", "auto_map": dict.fromkeys(AUTO, "mine.Mine")}
        (hostile / "config.json").write_text(json.dumps(config))
        (hostile / "mine.py").write_text(f"open({str(trace)!r}, 'w')\nclass Mine: pass\n")
    else:
        model.unlink()
        (hostile / "pytorch_model.bin").write_bytes(pickle)
        if weights != "pytorch_model.bin":
            names = {"weight_map": {"lm_head.weight": "pytorch_model.bin"}, "metadata": {}}
            (hostile / weights).write_text(json.dumps(names))
    with pytest.raises(ConfigError):
        LocalVlm.load(hostile)
    assert not trace.exists()


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
    with pytest.raises(ConfigError, match="not a model folder"):
        TransformersChat(tmp_path)
    with pytest.raises(ConfigError, match=r"no config\.json"):
        LocalVlm.load(tmp_path)
