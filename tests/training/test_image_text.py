"""Image-text pairs: which are drawn, what of them is predicted, what is refused or replaced, and that a language model learns them."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from schemas.errors import ConfigError, SourceError
from tests.curation.caption.tiny_qwen import write_tiny_qwen
from tests.training.corpus import Trainable
from tests.training.image_text_file import write_pairs
from tests.training.test_train_cli import train
from tests.training.test_tuned_vlm import log_of, online, sets, tensors
from tests.training.tiny import batch
from training.conditioning.online import OnlineConditioner
from training.conditioning.vlm_parts import readers_of
from training.data.image_text import (
    LINE,
    ImageTextSource,
    decoded,
    open_image_text,
)
from training.recipe import ImageTextSettings
from training.run.micro_batch import parts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
NUM = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="NOT RUN: the vlm extra is not installed")
    return write_tiny_qwen(tmp_path_factory.mktemp("tiny_qwen"))


def source(folder: Path, data: Path, **changed: Any) -> ImageTextSource:
    own = {k: changed.pop(k) for k in ("max_bad", "rank", "world_size", "was_replaced") if k in changed}  # fmt: skip
    settings = ImageTextSettings(**({"data": str(data), "batch_size": 4} | changed))
    file = open_image_text(settings)
    return ImageTextSource(file=file, settings=settings, folder=folder, seed=3, batch_size=8, **own)


def test_what_is_predicted_is_the_answers_and_their_ends(folder: Path, tmp_path: Path) -> None:
    """Of every turn, and of nothing that was asked; a picture stands before the question."""
    turns = [("human", "<image>\nWhich?"), ("gpt", "Red, é."), ("human", "Sure?"), ("gpt", "Yes")]
    chat = {
        "image": "0.png",
        "conversations": [{"from": who, "value": what} for who, what in turns],
    }
    data = write_pairs(tmp_path, 1, (chat, {"prompt": "Say hm", "answer": "hm"}))
    made = source(folder, data)
    tokenizer, _ = readers_of(folder)
    for line, answers in ((1, "Red, é.<|im_end|>Yes<|im_end|>"), (2, "hm<|im_end|>")):
        pair = made._conversation(line)
        assert tokenizer.decode(pair.token_ids[pair.is_answer]) == answers
        assert (pair.pixels is not None) == (line == 1)
    text = tokenizer.decode(made._conversation(1).token_ids)
    assert text.startswith("<|im_start|>user\n<|vision_start|><|image_pad|><|image_pad|>")
    assert "<|vision_end|>Which?<|im_end|>" in text


def test_the_loss_is_the_librarys(folder: Path, tmp_path: Path) -> None:
    """Of a batch with and without pictures, each conversation by itself through the library's model with labels."""
    from transformers import Qwen3VLForConditionalGeneration

    data = write_pairs(tmp_path, 3, ({"prompt": "Say hm", "answer": "hm, at length, hm"},))
    made = source(folder, data)
    conditioner = OnlineConditioner(folder, -1, 1, has_answers=True)
    inputs = made.beside(batch(), 0).image_text
    assert inputs is not None
    loss = conditioner.answer_loss(inputs)
    model = Qwen3VLForConditionalGeneration.from_pretrained(str(folder)).eval()
    wanted = 0.0
    for line in range(4):
        pair = made._conversation(line)
        ids, is_answer = (torch.from_numpy(x)[None] for x in (pair.token_ids, pair.is_answer))
        more = {}
        if pair.pixels is not None and pair.grid is not None:
            more = {
                "pixel_values": torch.from_numpy(pair.pixels),
                "image_grid_thw": torch.from_numpy(pair.grid)[None],
                "mm_token_type_ids": torch.from_numpy(pair.is_picture)[None].long(),
            }
        with torch.no_grad():
            out = model(input_ids=ids, labels=ids.masked_fill(~is_answer, -100), **more)
        wanted += float(out.loss) * int(is_answer.sum())
    assert loss.item() == pytest.approx(wanted, rel=1e-4)
    assert int(inputs["is_target"].sum()) == int(inputs["is_target"][:, 1:].sum())


def test_an_epoch_has_every_line_once_and_ranks_share_a_step(folder: Path, tmp_path: Path) -> None:
    data = write_pairs(tmp_path, NUM)
    made = source(folder, data, every=2)
    epochs = [[made.line(step, i, 0) for step in range(e * 6, e * 6 + 6, 2) for i in range(4)] for e in range(2)]  # fmt: skip
    assert [sorted(each) for each in epochs] == [list(range(NUM))] * 2
    assert epochs[0] != epochs[1]
    assert made.beside(batch(), 1).image_text is None
    whole = made.beside(batch(), 2).image_text
    again = source(folder, data, every=2).beside(batch(), 2).image_text
    halves = [source(folder, data, every=2, rank=r, world_size=2).beside(batch(), 2).image_text for r in range(2)]  # fmt: skip
    assert whole is not None
    assert again is not None
    for name, x in whole.items():
        assert torch.equal(x, again[name])
    of_ranks = [row for half in halves if half for row in rows(half)]
    assert of_ranks == rows(whole)
    with pytest.raises(ConfigError, match="4 pairs are not divisible by 3 ranks"):
        source(folder, data, world_size=3)


def rows(inputs: dict[str, torch.Tensor]) -> list[list[int]]:
    """Tokens of each pair, without padding."""
    return [ids[has].tolist() for ids, has in zip(inputs["token_ids"], inputs["has_token"], strict=True)]  # fmt: skip


@pytest.mark.parametrize("num_parts", [1, 2, 4])
def test_parts_of_a_batch_share_its_pairs(folder: Path, tmp_path: Path, num_parts: int) -> None:
    whole = source(folder, write_pairs(tmp_path, NUM), batch_size=3).beside(batch(), 0)
    actual = [part.image_text for part in parts(whole, num_parts)]
    assert whole.image_text is not None
    assert [row for part in actual if part is not None for row in rows(part)] == rows(whole.image_text)  # fmt: skip


def png(width: int, height: int) -> bytes:
    """Of any size, with no pixel in it."""

    def chunk(content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
        )

    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(header) + chunk(b"IDAT" + zlib.compress(b"")) + chunk(b"IEND")
    )


BAD = {
    "a value that ends": ('{"prompt": "a", ', "broken sample"),
    "no mapping": ("[1, 2]", "expected prompt and answer"),
    "no answer": ('{"prompt": "a"}', "expected prompt and answer"),
    "an empty answer": ('{"prompt": "a", "answer": ""}', "expected prompt and answer"),
    "a question last": ('{"conversations": [{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}]}', "ends with an answer"),
    "an unknown role": ('{"conversations": [{"from": "tool", "value": "a"}, {"from": "gpt", "value": "b"}]}', "expected prompt and answer"),
    "two images": ('{"image": "0.png", "prompt": "<image><image>", "answer": "b"}', "2 places for an image and 1 images"),
    "no image": ('{"prompt": "<image>", "answer": "b"}', "1 places for an image and 0 images"),
    "a way out": ('{"image": "../secret.png", "prompt": "a", "answer": "b"}', "not a path inside"),
    "an absolute path": ('{"image": "/etc/passwd", "prompt": "a", "answer": "b"}', "not a path inside"),
    "a link": ('{"image": "link.png", "prompt": "a", "answer": "b"}', "link"),
    "an absent image": ('{"image": "absent.png", "prompt": "a", "answer": "b"}', "absent.png"),
    "a bomb": ('{"image": "bomb.png", "prompt": "a", "answer": "b"}', "4225000000 pixels"),
    "a large one": ('{"image": "large.png", "prompt": "a", "answer": "b"}', "8200 x 8200 pixels; expected at most 67108864"),
    "a stripe": ('{"image": "stripe.png", "prompt": "a", "answer": "b"}', "6000 x 10 pixels"),
    "text": ('{"image": "text.png", "prompt": "a", "answer": "b"}', "not an image"),
    "a GIF": ('{"image": "a.gif", "prompt": "a", "answer": "b"}', "not an image"),
    "a cut image": ('{"image": "cut.png", "prompt": "a", "answer": "b"}', "not an image"),
    "a long question": (json.dumps({"prompt": "a" * 2000, "answer": "b"}), "no answer within 1024 tokens"),
    "half a letter": ('{"prompt": "\\ud800", "answer": "b"}', "broken sample"),
}  # fmt: skip


@pytest.fixture(scope="module")
def hostile(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile") / "pairs"
    data = write_pairs(root, 1, tuple(text for text, _ in BAD.values()))
    Image.new("RGB", (32, 32)).save(root.parent / "secret.png")
    (root / "link.png").symlink_to(root.parent / "secret.png")
    (root / "bomb.png").write_bytes(png(65000, 65000))
    (root / "large.png").write_bytes(png(8200, 8200))
    Image.new("RGB", (6000, 10)).save(root / "stripe.png")
    (root / "text.png").write_text("not an image at all")
    Image.new("RGB", (32, 32)).save(root / "a.gif")
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(picture).save(root / "cut.png")
    (root / "cut.png").write_bytes((root / "cut.png").read_bytes()[:3000])
    return data


@pytest.mark.parametrize("name", BAD)
def test_a_pair_that_cannot_be_used_is_refused_with_its_line(
    folder: Path, hostile: Path, name: str
) -> None:
    line = 1 + list(BAD).index(name)
    with pytest.raises(SourceError, match=BAD[name][1]) as caught:
        source(folder, hostile)._conversation(line)
    assert f"pairs.jsonl, line {line + 1}" in str(caught.value)


def test_an_image_is_turned_as_its_camera_says() -> None:
    from io import BytesIO

    upright = Image.new("RGB", (40, 20), (9, 9, 9))
    exif = upright.getexif()
    exif[0x0112] = 6  # a quarter turn
    out = BytesIO()
    upright.save(out, "JPEG", exif=exif)
    assert decoded(out.getvalue()).shape == (40, 20, 3)


def test_bad_pairs_are_replaced_listed_and_bounded(folder: Path, hostile: Path) -> None:
    """What is drawn instead is the same when a run goes on, though the pair can be read by then."""
    made = source(folder, hostile, max_bad=200)
    first = made.beside(batch(), 0)
    bad = first.replaced
    assert bad
    assert first.image_text is not None
    assert {each.task for each in bad} == {"image_text"}
    assert all(each.place >= 8 and each.error for each in bad)  # places after those of the batch
    assert sorted({(each.place, each.attempt) for each in bad}) == sorted((each.place, each.attempt) for each in bad)  # fmt: skip
    attempts = {(0, each.place): each.attempt + 1 for each in bad}
    again = source(folder, hostile, max_bad=0, was_replaced=attempts).beside(batch(), 0)
    assert again.image_text is not None
    assert torch.equal(again.image_text["token_ids"], first.image_text["token_ids"])
    with pytest.raises(SourceError, match=r"run\.max_bad_samples=N"):
        source(folder, hostile, max_bad=0).beside(batch(), 0)
    with pytest.raises(SourceError, match="now 2"):
        source(folder, hostile, max_bad=2).beside(batch(), 0)


def test_what_is_no_file_of_pairs_is_refused_at_once(tmp_path: Path) -> None:
    def refused(why: str, **changed: Any) -> None:
        with pytest.raises(ConfigError, match=why):
            open_image_text(
                ImageTextSettings(**({"data": str(tmp_path / "pairs.jsonl")} | changed))
            )

    refused("cannot be read")
    (tmp_path / "pairs.jsonl").write_text("\n \n")
    refused("no pairs")
    (tmp_path / "pairs.jsonl").write_text("a" * (LINE.max_bytes + 1))
    refused("line 1 is longer than")
    refused("not a folder", images=str(tmp_path / "none"))
    refused("cannot be read", data=str(tmp_path))


def test_a_language_model_learns_the_pairs_beside_the_samples(
    trainable: Trainable, folder: Path, tmp_path: Path
) -> None:
    """Pictures of three colours: the loss of an answer falls, of the robot's samples too, and bad lines are counted."""
    data = write_pairs(tmp_path / "pairs", NUM, ('{"prompt": "a"',))
    pairs = {"data": str(data), "batch_size": 6, "weight": 1.0}
    settings = sets(
        online(folder, lr=1e-2), "image_text=" + json.dumps(pairs), "run.num_steps=24",
        "run.max_bad_samples=50", "run.checkpoint_every=24",
    )  # fmt: skip
    train(trainable.manifest, tmp_path / "run", *settings)
    log = log_of(tmp_path / "run")
    losses = [line["loss_image_text"] for line in log]
    assert len(losses) == 24
    # The head is random and frozen, so no hidden state gives a logit above 1.3: 4.3 is the least.
    assert 4.3 < np.mean(losses[-4:]) < losses[0] - 1
    robot = [line["loss"] - line["loss_image_text"] for line in log]
    assert all(x > 0 for x in robot)
    listed = [json.loads(x) for x in (tmp_path / "run/bad.jsonl").read_text().splitlines()]
    assert listed
    assert {(each["task"], each["uid"], each["row"]) for each in listed} == {("image_text", "pairs.jsonl", 13)}  # fmt: skip
    assert log[-1]["bad_samples"] == len(listed)
    data.write_text(data.read_text().replace("It is red", "It is not"))
    with pytest.raises(ConfigError, match=r"image_text\.data is another than"):
        train(trainable.manifest, tmp_path / "run", *settings)


def test_the_weight_of_the_pairs_is_that_of_the_recipe(
    trainable: Trainable, folder: Path, tmp_path: Path
) -> None:
    """`loss` has it, and with next to none of it the layers are those of a run without pairs."""
    write_pairs(tmp_path / "pairs")

    def run(name: str, weight: float | None) -> dict[str, Any]:
        pairs = {"data": str(tmp_path / "pairs/pairs.jsonl"), "batch_size": 4, "weight": weight}
        asked = [] if weight is None else ["image_text=" + json.dumps(pairs)]
        train(trainable.manifest, tmp_path / name, *sets(online(folder), *asked, "run.num_steps=1"))
        return log_of(tmp_path / name)[0]

    none, light, heavy = run("none", None), run("light", 1e-9), run("heavy", 2.0)
    assert "loss_image_text" not in none
    assert light["loss"] == pytest.approx(none["loss"], rel=1e-6)
    assert heavy["loss"] == pytest.approx(none["loss"] + 2 * heavy["loss_image_text"], rel=1e-5)
    name = "conditioner.layers.1.self_attn.v_proj.weight"
    torch.testing.assert_close(tensors(tmp_path / "light")[name], tensors(tmp_path / "none")[name])
    assert not torch.equal(tensors(tmp_path / "heavy")[name], tensors(tmp_path / "none")[name])
