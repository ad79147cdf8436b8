"""Text features against the library's own model, run here on one chat at a time with inputs made by hand; stored, and in the step.

The Qwen3-VL is tiny and of random weights. Runs where the `vlm` extra is installed, without a network.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks.synthetic import write_part
from ingest.corpus import publishing, snapshot
from ingest.corpus.layout import open_corpus
from ingest.latents.text_encoding import TextEncoder, TextTally, encode_texts
from ingest.latents.text_plan import plan_of, texts_of_episodes
from ingest.models.vlm import LocalVlm, Message
from ingest.storage.local import LocalStorage
from jobs.cli import app
from schemas.catalog import TABLES
from schemas.errors import ConfigError, SourceError
from schemas.manifest import Latent, ManifestRow
from schemas.text_features import FeatureSettings
from schemas.vlm import model_sha256
from tests.curation.caption.tiny_qwen import write_tiny_qwen
from tests.latents.corpora import all_pictures, build, rows_of, videos_of
from tests.pickling import travelled
from tests.training.test_conditioning import manifest_of, row
from tests.training.tiny import batch, network, noise_of, tokens_of
from training.conditioning.cached import CachedReader
from training.conditioning.inputs import TextInputs
from training.conditioning.online import OnlineConditioner, OnlineReader
from training.conditioning.open import open_conditioner
from training.learner import Learner
from training.model.text import Text
from training.recipe import CachedText, OnlineText

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
TASK, SEEN = "Put the red box on the plate.", "A gripper slides the crimson cube away, slowly."
SETTINGS = FeatureSettings(layer=2, picture_every_s=1.0)
BF16 = 2**-8  # of rounding to bfloat16, relative
Picture = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    pytest.importorskip("transformers", reason="NOT RUN: the vlm extra is not installed")
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # a model this small only waits for the other threads
    yield write_tiny_qwen(tmp_path_factory.mktemp("tiny_qwen"))
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def vlm(folder: Path) -> LocalVlm:
    return LocalVlm.load(folder)


@pytest.fixture(scope="module")
def told(folder: Path, vlm: LocalVlm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with features; its first episode has a second text, a caption of timesteps [15, 30)."""
    root = build(tmp_path_factory.mktemp("told"))
    first = rows_of(root, "episodes")[0]
    said = {"uid": first["uid"], "start": 15, "end": 30, "text": SEEN, "outcome": "ok"}
    said |= {"checks_failed": [], "backend": "seen", "run_id": "captions", "caption_id": "c"}
    commit(root, "captions", [{name: said.get(name) for name in TABLES["captions"].names}])
    assert encode(root, encoder_of(folder, vlm)).encoded == 3
    return root


def commit(root: Path, table: str, rows: list[dict[str, Any]]) -> None:
    part = write_part(LocalStorage(), root, table, rows)
    publishing.publish(LocalStorage(), root, snapshot.load(root), {table: part}, "by-hand")


def encoder_of(
    folder: Path, vlm: LocalVlm, settings: FeatureSettings = SETTINGS, **more: Any
) -> TextEncoder:
    digest = model_sha256(folder)
    return TextEncoder(
        vlm=vlm, model="text_qwen3_vl", model_sha256=digest, settings=settings, **more
    )


def encode(root: Path, encoder: TextEncoder, where: str = "", run_id: str = "vlm-1") -> TextTally:
    """`eicorpus latents text` without the command."""
    corpus, current = open_corpus(root), snapshot.load(root)
    plan = plan_of(corpus, current, encoder.encoder_id, encoder.settings, where=where)
    works = texts_of_episodes(corpus, current, encoder.settings, plan.due)
    tally = TextTally(discovered=len(plan.due) + plan.up_to_date, up_to_date=plan.up_to_date)
    encode_texts(corpus, current, works, encoder, tally, run_id=run_id, disk=LocalStorage())
    assert tally.discovered == tally.encoded + tally.up_to_date + tally.failed
    return tally


@cache
def library_parts(folder: Path) -> Any:
    import transformers

    library: Any = transformers
    tokenizer = library.AutoTokenizer.from_pretrained(str(folder))
    return tokenizer, library.Qwen3VLForConditionalGeneration.from_pretrained(str(folder)).eval()


def alone(folder: Path, text: str, picture: Picture | None, layer: int) -> torch.Tensor:
    """[T, C] hidden states of one chat without padding: the prompt written out, the patches cut by hand."""
    tokenizer, model = library_parts(folder)
    shown, seen = "", {}
    if picture is not None:
        height, width = picture.shape[0] // 16, picture.shape[1] // 16  # patches
        shown = f"<|vision_start|>{'<|image_pad|>' * (height * width // 4)}<|vision_end|>"
        values = (torch.from_numpy(picture).permute(2, 0, 1) / 255 - 0.5) / 0.5
        # [C, rows of four, 2, 16, columns of four, 2, 16] to patches, four neighbours after each other, each twice in time
        cut = values.view(3, height // 2, 2, 16, width // 2, 2, 16).permute(1, 4, 2, 5, 0, 3, 6)
        patches = cut.reshape(-1, 3, 1, 16, 16).expand(-1, -1, 2, -1, -1).flatten(1)
        seen = {"pixel_values": patches, "image_grid_thw": torch.tensor([[1, height, width]])}
    said = f"<|im_start|>user\n{shown}Instruction: {text}<|im_end|>\n<|im_start|>assistant\n"
    ids = torch.tensor([tokenizer(said)["input_ids"]])
    if picture is not None:
        pad = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        seen["mm_token_type_ids"] = (ids == pad).long()
    with torch.no_grad():
        out = model(input_ids=ids, output_hidden_states=True, **seen)
    hidden: torch.Tensor = out.hidden_states[layer][0]
    return hidden


def scene(seed: int, height: int = 96, width: int = 160) -> Picture:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def floats(bits: Any) -> torch.Tensor:
    return torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float()


def assert_same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """But for bfloat16."""
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=BF16, atol=1e-4)


@pytest.mark.parametrize("layer", [2, 1])
def test_features_are_those_of_each_chat_alone(folder: Path, vlm: LocalVlm, layer: int) -> None:
    """Of different lengths, with and without pictures; in another order the same."""
    asked = [("go", None), (SEEN, scene(0)), (TASK, None), ("grip", scene(1, 64, 64))]
    chats = [vlm.instruction("Instruction: {text}", *each, 256) for each in asked]
    wanted = [alone(folder, *each, layer) for each in asked]
    assert len({len(each) for each in wanted}) == 4
    for order in ([0, 1, 2, 3], [2, 3, 0, 1]):
        found = vlm.features([chats[i] for i in order], layer=layer)
        for each, i in zip(found, order, strict=True):
            assert_same(floats(each), wanted[i])
    assert vlm.num_tokens(chats[0]) == len(wanted[0])


@pytest.fixture(scope="module")
def deep(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four layers, of which the first two add something of a picture."""
    return write_tiny_qwen(tmp_path_factory.mktemp("deep"), num_layers=4, deepstack=(0, 1))


@pytest.mark.parametrize("layer", [0, 1, 2, 3, 4, -1, -3])
def test_what_comes_after_a_layer_is_left_out_and_its_hidden_state_is_the_same(
    deep: Path, tmp_path: Path, layer: int
) -> None:
    """To the bit that of the library's whole model, stored and in the step, with pictures and without; later layers run no more and have no memory."""
    number, pictures = layer % 5, [None, scene(0), scene(1, 64, 64)]
    whole, cut = LocalVlm.load(deep), LocalVlm.load(deep)
    texts = ["go", SEEN, TASK]
    chats = [whole.instruction("Instruction: {text}", *each, 256) for each in zip(texts, pictures, strict=True)]  # fmt: skip
    inputs = whole._inputs(chats, "right")
    with torch.no_grad():
        out = whole._model.model(**inputs, output_hidden_states=True, use_cache=False)
    hidden = out.hidden_states[layer].to(torch.bfloat16)[inputs["attention_mask"].bool()]
    cut.keep_for(layer)
    for vlm in (whole, cut):
        found = torch.cat([floats(each) for each in vlm.features(chats, layer=layer)])
        assert torch.equal(found, hidden.float())
    reader = OnlineReader(corpus=tmp_path, folder=deep, settings=OnlineText(model="unused"))
    asked = reader.of(texts, pictures)
    every = sum(p.nbytes for p in whole._model.parameters())
    later = every - sum(p.nbytes for p in cut._model.parameters())
    assert later == bytes_after(whole, number)
    for has_answers, num_run, without in ((False, number, later), (True, 4, 0)):
        conditioner = OnlineConditioner(deep, layer, has_answers=has_answers)
        assert torch.equal(conditioner(asked).values, hidden.float())
        assert layers_run(conditioner, asked) == list(range(num_run))
        assert conditioner.frozen_bytes == every - without


def bytes_after(whole: LocalVlm, number: int) -> int:
    """Of the head and of what a hidden state does not need."""
    text, seen = whole._model.model.language_model, whole._model.model.visual
    unused = [whole._model.lm_head]
    if number < len(text.layers):
        unused += [text.norm, *text.layers[number:], *seen.deepstack_merger_list[max(number - 1, 0) :]]  # fmt: skip
    return sum(p.nbytes for each in unused for p in each.parameters())


def layers_run(conditioner: OnlineConditioner, inputs: TextInputs) -> list[int]:
    (model,), run = conditioner._frozen, list[int]()
    for number, each in enumerate(model.language_model.layers):
        each.register_forward_hook(lambda *_, number=number: run.append(number))
    conditioner(inputs)
    return run


def test_filling_up_on_the_left_changes_nothing(vlm: LocalVlm) -> None:
    chats = [
        [Message(role="user", text="go", picture=scene(0))],
        [Message(role="user", text=SEEN, picture=scene(1, 64, 64))],
        [Message(role="user", text="hm")],
    ]
    found = []
    sides: tuple[Literal["left", "right"], ...] = ("left", "right")
    for side in sides:
        inputs = vlm._inputs(chats, side)
        with torch.no_grad():
            out = vlm._model.model(**inputs)
        has = inputs["attention_mask"].bool()
        assert has[:, 0 if side == "left" else -1].sum() < 3
        found.append(out.last_hidden_state[has])
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_a_picture_is_shrunk_and_an_instruction_cut_to_what_is_allowed(vlm: LocalVlm) -> None:
    def num_picture_tokens(most: int | None) -> int:
        chat = [Message(role="user", text="a", picture=scene(0, 240, 320))]
        return int(vlm._inputs([chat], "right", most)["mm_token_type_ids"].sum())

    assert num_picture_tokens(None) == 12  # 128 * 128 pixels at most, as the processor is set
    assert num_picture_tokens(64) == 54  # 6 x 9 of 32 px, the aspect kept
    assert num_picture_tokens(4) <= 4
    (long,) = vlm.instruction("Say {text}", "é" * 9, None, 5)
    assert long.text == "Say éé"  # two tokens each; no half of a letter
    (braces,) = vlm.instruction("Say {text}", "{text} <|image_pad|>", None, 99)
    assert vlm.num_tokens([braces]) > 10  # it brings no picture of its own
    assert "mm_token_type_ids" not in vlm._inputs([[braces]])


def row_of(root: Path, encoder_id: str, text: str = TASK, episode: int = 0) -> ManifestRow:
    """A segment that is the whole episode."""
    found = rows_of(root, "episodes")[episode]
    latents = [
        Latent(**{k: each[k] for k in ("camera", "encoder_id", "path", "sha256")})
        for each in rows_of(root)
        if (each["uid"], each["encoder_id"]) == (found["uid"], encoder_id)
    ]
    pictures = Latent(camera="top_head", encoder_id="dinov3_tiny-0", path="", sha256="")
    return dataclasses.replace(
        row(found["uid"], text, (pictures, *latents)),
        dataset_path=found["dataset_path"],
        episode_index=found["episode_index"],
        end=found["length"],
    )


@pytest.mark.parametrize(
    ("text", "now", "shown"),
    [(TASK, 0, 0), (TASK, 9, 0), (TASK, 10, 10), (TASK, 40, 40), (SEEN, 15, 10), (SEEN, 29, 20), (SEEN, 40, 20), (SEEN, 9, None)],
)  # fmt: skip
def test_what_is_stored_is_what_the_step_says_of_the_last_picture_stored(
    told: Path, folder: Path, vlm: LocalVlm, text: str, now: int, shown: int | None
) -> None:
    """Cached and online agree, both with the model alone on a picture that PyAV decodes; the future is never read."""
    encoder_id = encoder_of(folder, vlm).encoder_id
    mine = row_of(told, encoder_id, text)
    reader = CachedReader(corpus=told, encoder_id=encoder_id)
    inputs = reader.read([mine], np.array([now]))
    picture = None if shown is None else all_pictures(videos_of(told)[0])[shown]
    features = inputs.by_token["features"].float()
    assert_same(features, alone(folder, text, picture, 2))
    online = OnlineText(model=str(folder), with_pictures=shown is not None)
    step = OnlineReader(corpus=told, folder=folder, settings=online)
    said = online_conditioner(folder)(step.read([mine], np.array([shown or 0])))
    assert_same(said.values, features)


def online_conditioner(folder: Path, layer: int = -1) -> OnlineConditioner:
    return OnlineConditioner(folder, layer)


@pytest.mark.parametrize("layer", [-1, 1])
def test_a_batch_in_the_step_is_each_sample_alone(folder: Path, tmp_path: Path, layer: int) -> None:
    """With and without pictures, of two sizes; what is filled up is said to be nothing; another order gives the same."""
    reader = OnlineReader(corpus=tmp_path, folder=folder, settings=OnlineText(model="unused"))
    conditioner = online_conditioner(folder, layer)
    texts = ["go", SEEN, TASK, "grip"]
    pictures = [None, scene(0), scene(1, 64, 64), None]
    for order in ([0, 1, 2, 3], [3, 2, 0, 1]):
        inputs = reader.of([texts[i] for i in order], [pictures[i] for i in order])
        text = conditioner(inputs)
        for k, i in enumerate(order):
            assert_same(tokens_of(text, k), alone(folder, texts[i], pictures[i], layer))
    for first in (0, 2):
        half = conditioner(inputs.of_samples(slice(first, first + 2)))
        for k in range(2):
            torch.testing.assert_close(tokens_of(half, k), tokens_of(text, first + k), rtol=BF16, atol=1e-4)  # fmt: skip
    only_words = conditioner(reader.of(texts, [None] * 4))
    assert_same(tokens_of(only_words, 0), alone(folder, "go", None, layer))


def test_equal_instructions_are_encoded_once_and_pictures_each(
    folder: Path, tmp_path: Path
) -> None:
    reader = OnlineReader(corpus=tmp_path, folder=folder, settings=OnlineText(model="unused"))
    texts, pictures = ["go", TASK, "go", TASK, TASK], [None, None, None, scene(0), scene(1)]
    inputs = reader.of(texts, pictures)
    assert inputs.layout.text_of.tolist() == [0, 1, 0, 2, 3]
    assert all(len(each) == 4 for each in inputs.by_text.values())
    text = online_conditioner(folder)(inputs)
    for sample, (words, picture) in enumerate(zip(texts, pictures, strict=True)):
        assert_same(tokens_of(text, sample), alone(folder, words, picture, -1))


def test_the_frozen_model_is_in_no_checkpoint_and_asked_once_for_all_draws(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditioner = online_conditioner(folder)
    (model,) = conditioner._frozen
    assert list(conditioner.parameters()) == []
    assert conditioner.state_dict() == {}
    assert not any(p.requires_grad for p in model.parameters())
    calls: list[int] = []
    was = model.language_model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return was(*args, **kwargs)

    monkeypatch.setattr(model.language_model, "forward", counted)
    reader = OnlineReader(corpus=tmp_path, folder=folder, settings=OnlineText(model="unused"))
    made, b = network(text_width=conditioner.width), batch()
    inputs = travelled(reader).of(["go", SEEN, "grip", TASK], [None, scene(0), None, scene(1)])
    told = dataclasses.replace(b, text_inputs=inputs)
    draws = [noise_of(b, seed) for seed in range(3)]
    t, action_noise, future_noise = (torch.stack(x) for x in zip(*draws, strict=True))
    terms = Learner(made, conditioner)(told, t, action_noise, future_noise)
    terms.sums.sum().backward()
    assert len(calls) == 1
    assert all(p.grad is None for p in model.parameters())
    kv = made.blocks[0].text[0].kv.weight  # type: ignore[index, union-attr]
    assert kv.grad is not None
    assert kv.grad.any()


def test_what_cannot_be_is_refused_when_it_is_opened(
    told: Path, folder: Path, tmp_path: Path, vlm: LocalVlm
) -> None:
    encoder_id = encoder_of(folder, vlm).encoder_id
    whole = manifest_of(told, [row_of(told, encoder_id), row_of(told, encoder_id, episode=1)])
    _, conditioner = open_conditioner(CachedText(encoder="text_qwen3_vl"), whole)
    assert conditioner.width == 64
    reader, online = open_conditioner(OnlineText(model=str(folder)), whole)
    assert online.width == 64
    assert (conditioner.text_id, conditioner.text_settings) == (encoder_id, SETTINGS)
    # What is asked in the step has the id that the same features have where they are stored.
    by_hand = FeatureSettings(layer=2, picture_every_s=0.1)
    assert online.text_id == encoder_of(folder, vlm, by_hand).encoder_id
    inputs = reader.read([whole.row(0), whole.row(1)], np.array([3, 20]))
    assert isinstance(online(inputs), Text)
    with pytest.raises(
        ConfigError,
        match="is neither a folder nor a downloaded model; run `hf download nobody/none`",
    ):
        open_conditioner(OnlineText(model="nobody/none"), whole)
    with pytest.raises(ConfigError, match=r"layer 3; expected 0 to 2"):
        open_conditioner(OnlineText(model=str(folder), layer=3), whole)
    with pytest.raises(ConfigError, match=r"no config\.json"):
        open_conditioner(OnlineText(model=str(tmp_path)), whole)
    moved = dataclasses.replace(whole, corpus=tmp_path)
    with pytest.raises(ConfigError, match="files of the manifest do not exist"):
        open_conditioner(CachedText(encoder="text_qwen3_vl"), moved)
    with pytest.raises(SourceError, match="eicorpus verify"):
        reader.read(
            [dataclasses.replace(whole.row(0), dataset_path="datasets/none")], np.array([0])
        )
    with pytest.raises(SourceError, match=r"no frame at 4\.100 s"):
        reader.read([whole.row(0)], np.array([41]))


def test_what_is_there_stays_and_what_changed_is_made_anew(
    told: Path, folder: Path, vlm: LocalVlm, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(told, tmp_path / "corpus"))
    encoder = encoder_of(folder, vlm)
    before = {each["path"]: each["sha256"] for each in rows_of(root)}
    assert encode(root, encoder).up_to_date == 3
    cut, gone, _ = (root / path for path in sorted(before))
    cut.write_bytes(cut.read_bytes()[:-1])
    gone.unlink()
    tally = encode(root, encoder_of(folder, vlm), run_id="vlm-2")
    assert (tally.encoded, tally.up_to_date) == (2, 1)
    for path, sha256 in before.items():  # the same bytes, whatever else was in the run
        assert hashlib.sha256((root / path).read_bytes()).hexdigest() == sha256
    uid = rows_of(root, "episodes")[2]["uid"]
    said = {"uid": uid, "start": 0, "end": 9, "text": "other words", "outcome": "ok"}
    said |= {"checks_failed": [], "backend": "seen"}
    commit(root, "captions", [{name: said.get(name) for name in TABLES["captions"].names}])
    assert encode(root, encoder, run_id="vlm-3").encoded == 1
    second = encoder_of(folder, vlm, SETTINGS.model_copy(update={"layer": 1}))
    assert encode(root, second, where="length < 20").encoded == 1
    assert len({each["encoder_id"] for each in rows_of(root)}) == 2


def test_a_broken_video_fails_alone(
    told: Path, folder: Path, vlm: LocalVlm, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(told, tmp_path / "corpus"))
    video = videos_of(root)[1]
    video.write_bytes(video.read_bytes()[:2000])
    again = encoder_of(folder, vlm, SETTINGS.model_copy(update={"layer": 0}), batch=2)
    tally = encode(root, again)
    assert (tally.encoded, tally.failed) == (2, 1)
    (why,) = tally.failures
    assert "episode_000001.mp4" in why
    assert (
        encode(root, encoder_of(folder, vlm, FeatureSettings(layer=0))).encoded == 3
    )  # texts alone


def test_the_command_plans_encodes_and_goes_on(folder: Path, told: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(told, tmp_path / "corpus"))

    def said(*more: str) -> Any:
        done = CliRunner().invoke(
            app, ["latents", "text", str(root), "--vlm", str(folder), "--json", *more]
        )
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)["result"]

    plan = said("--vlm-layer", "1", "--vlm-frame-every-s", "2", "--dry-run")["plan"]
    assert (plan["episodes"], plan["texts"], plan["moments"], plan["with_picture"]) == (3, 2, 12, 8)
    assert plan["num_bytes_at_most"] >= plan["moments"] * plan["tokens_of_a_text"] * 64 * 2
    made = said("--vlm-layer", "1", "--vlm-frame-every-s", "2")
    assert (made["encoder_id"], made["encoded"], made["moments"]) == (plan["encoder_id"], 3, 12)
    assert made["num_bytes"] < plan["num_bytes_at_most"] + 3 * 4096
    assert (
        said("--vlm-layer", "-2", "--vlm-frame-every-s", "2.0")["up_to_date"] == 3
    )  # -2 of 0 to 2 is 1

    def refused(*more: str) -> str:
        done = CliRunner().invoke(app, ["latents", "text", str(root), "--vlm", str(folder), *more])
        assert isinstance(done.exception, ConfigError)
        return str(done.exception)

    assert "expected 0 to 2" in refused("--vlm-layer", "7")
    assert refused("--vlm-frame-every-s", "0").startswith("--vlm-frame-every-s")
    assert refused("--vlm-prompt", "Do it").startswith("--vlm-prompt")
