"""Text that needs no language model, and stored features read from files made by hand."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from ingest.models.text_feature_file import file_bytes
from schemas.errors import ConfigError, SourceError
from schemas.latent_header import read_tensors
from schemas.manifest import ROW_SCHEMA, Latent, Manifest, ManifestRow
from schemas.text_features import (
    OFFSETS,
    TEXT_INDEX,
    TIMESTEP,
    FeatureSettings,
    TextFacts,
    text_encoder_id,
    text_feature_file,
)
from tests.pickling import travelled
from tests.training.tiny import batch, chosen, network, noise_of, tokens_of
from training.conditioning.cached import (
    CachedConditioner,
    CachedReader,
    chosen_encoder,
    features_of,
)
from training.conditioning.hashed_words import (
    NoTextConditioner,
    NoTextReader,
    WordsConditioner,
    WordsReader,
    word_ids,
)
from training.conditioning.protocol import Conditioner, TextReader
from training.learner import Learner

SETTINGS = FeatureSettings(layer=1, picture_every_s=0.5)
ENCODER = text_encoder_id("text_by_hand", "0" * 64, SETTINGS)
TEXTS = ("close the box", "open the box")
# (text, timestep) and its tokens: one number each, so that a test can say which was read
MOMENTS = {(0, -1): [1, 2], (0, 0): [3], (0, 5): [4, 5, 6], (1, -1): [7], (1, 5): [8, 9]}
WIDTH = 2


def row(uid: str, text: str, latents: tuple[Latent, ...] = ()) -> ManifestRow:
    return ManifestRow(
        uid=uid,
        start=0,
        end=9,
        source="s",
        embodiment="umi",
        dataset_path="datasets/s/main",
        episode_index=0,
        tier="high",
        tasks=(),
        reasons=(),
        split="train",
        weight=1.0,
        text=text,
        caption_id=None,
        latents=latents,
        licence_class="open",
        content_sha256="",
    )


def written(corpus: Path, uid: str = "u") -> Latent:
    """A file of MOMENTS, with what a manifest says of it."""
    facts = TextFacts(
        encoder_id=ENCODER,
        model_sha256="0" * 64,
        settings=SETTINGS,
        width=WIDTH,
        uid=uid,
        camera="front",
        length=9,
        rate_hz=10.0,
        texts=TEXTS,
        source_sha256="1" * 64,
    )
    tokens = [torch.tensor([[x, -x] for x in xs], dtype=torch.bfloat16) for xs in MOMENTS.values()]
    bits = [x.view(torch.int16).numpy().view(np.uint16) for x in tokens]
    data = file_bytes(list(MOMENTS), bits, facts)
    path = f"datasets/s/main/{text_feature_file(ENCODER, 0)}"
    (corpus / path).parent.mkdir(parents=True, exist_ok=True)
    (corpus / path).write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    return Latent(camera="", encoder_id=ENCODER, path=path, sha256=sha256)


def manifest_of(corpus: Path, rows: list[ManifestRow]) -> Manifest:
    table = pa.Table.from_pylist([dataclasses.asdict(r) for r in rows], schema=ROW_SCHEMA)

    class Facts:
        name = "m"

    return Manifest(corpus=corpus, facts=Facts(), rows=table)  # type: ignore[arg-type]


# --- words -----------------------------------------------------------------------------------------------------------------


def test_words_have_the_same_ids_everywhere() -> None:
    """Known values: a change of them would spoil every checkpoint."""
    assert word_ids("Pick up the RED cup!", 4096) == [3182, 2258, 2506, 2012, 641]  # b2sum -l 64
    assert word_ids("pick  up, the red cup", 4096) == word_ids("Pick up the RED cup!", 4096)
    assert word_ids("ｐｉｃｋ", 4096) == word_ids("pick", 4096)  # full-width letters
    assert word_ids(" .,!", 4096) == []
    assert len(word_ids("倒水 и кофе", 4096)) == 3
    many = word_ids(" ".join(f"w{k}" for k in range(200)), 3)
    assert set(many) == {1, 2}  # of three buckets one is padding; collisions are allowed


def test_words_are_cut_and_told_once_with_their_places() -> None:
    reader = WordsReader(num_buckets=512, num_words=3)
    texts = ["open the box now", "open", "box the open", "", "Open the BOX, please", ""]
    inputs = reader.read([row("u", text) for text in texts], np.zeros(6, dtype=np.int64))
    open_, the, box = word_ids("open the box", 512)
    assert inputs.by_token["word_ids"].tolist() == [open_, the, box, open_, box, the, open_]
    assert inputs.by_token["place"].tolist() == [0, 1, 2, 0, 0, 1, 2]
    assert inputs.layout.num_tokens.tolist() == [3, 1, 3, 0]
    assert inputs.layout.text_of.tolist() == [0, 1, 2, 3, 0, 3]  # by what is left of them
    torch.manual_seed(0)
    conditioner = WordsConditioner(512, 3, 8)
    text = conditioner(inputs)
    by_hand = conditioner.words.weight[the] + conditioner.places.weight[1]
    assert torch.equal(tokens_of(text, 0)[1], by_hand)
    assert torch.equal(tokens_of(text, 2)[1], by_hand)
    assert not torch.equal(tokens_of(text, 0)[0], tokens_of(text, 2)[2])  # the same word elsewhere
    text.values.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in conditioner.parameters())


@pytest.mark.parametrize("kind", ["none", "words"])
def test_a_network_takes_it_and_a_batch_in_another_order_gives_the_same(kind: str) -> None:
    """Samples told something, and one told nothing."""
    pair: tuple[TextReader, Conditioner] = (
        (NoTextReader(), NoTextConditioner())
        if kind == "none"
        else (WordsReader(num_buckets=64, num_words=5), WordsConditioner(64, 5, 12))
    )
    reader, conditioner = pair
    made, b = network(text_width=conditioner.width), batch()
    texts = ["open the box", "", "close it", "put the cup on the red plate"]
    rows = [row("u", text) for text in texts]
    order = torch.tensor([2, 0, 3, 1])
    actual = []
    for at in (torch.arange(4), order):
        inputs = reader.read([rows[i] for i in at], np.zeros(4, dtype=np.int64))
        text = chosen(conditioner(inputs), at.argsort().tolist())
        t = torch.full((4,), 0.5)
        actual.append(made(b.known, text, b.action, b.has_action, b.future, t)[0])
    assert torch.isfinite(actual[0]).all()
    assert torch.allclose(actual[0], actual[1], atol=1e-6)
    learner = Learner(made, conditioner)
    t, *noise = noise_of(b)
    inputs = reader.read(rows, np.zeros(4, dtype=np.int64))
    stderr = dataclasses.replace(b, text_inputs=inputs)
    terms = learner(stderr, t[None], *(x[None] for x in noise))
    assert torch.isfinite(terms.sums).all()


# --- stored features ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "now", "tokens"),
    [
        (0, 0, [3]),
        (0, 4, [3]),  # the picture of 5 is the future
        (0, 5, [4, 5, 6]),
        (0, 8, [4, 5, 6]),
        (1, 4, [7]),  # no picture yet
        (1, 5, [8, 9]),
        (1, 8, [8, 9]),
    ],
)
def test_the_last_moment_of_the_text_at_or_before_now_is_read(
    tmp_path: Path, text: int, now: int, tokens: list[int]
) -> None:
    latents = (written(tmp_path),)
    reader = CachedReader(corpus=tmp_path, encoder_id=ENCODER)
    inputs = reader.read([row("u", TEXTS[text], latents)], np.array([now]))
    assert inputs.by_token["features"].tolist() == [[x, -x] for x in tokens]
    assert inputs.layout.num_tokens.tolist() == [len(tokens)]


def test_features_of_a_batch_lie_end_to_end_and_equal_ones_once(tmp_path: Path) -> None:
    """Of two moments of a text, of another one, and of the first again, in a file of another episode."""
    own, other = (written(tmp_path, uid) for uid in ("u", "v"))
    other = dataclasses.replace(other, path=str(Path(own.path).with_name("v.safetensors")))
    (tmp_path / own.path).rename(tmp_path / other.path)
    own = written(tmp_path)
    reader = CachedReader(corpus=tmp_path, encoder_id=ENCODER)
    rows = [row("u", TEXTS[k], (own,)) for k in (0, 0, 1, 0)]
    rows.append(row("v", TEXTS[0], (other,)))
    now = np.array([5, 0, 5, 4, 6])
    inputs = reader.read(rows, now)
    numbers = [4, 5, 6, 3, 8, 9]
    assert inputs.by_token["features"].tolist() == [[x, -x] for x in numbers]
    assert inputs.layout.num_tokens.tolist() == [3, 1, 2]
    assert inputs.layout.text_of.tolist() == [0, 1, 2, 1, 0]
    copy: CachedReader = travelled(reader)  # to a worker, without its open files
    again = copy.read(rows, now)
    assert torch.equal(again.by_token["features"], inputs.by_token["features"])
    conditioner = CachedConditioner(WIDTH)
    text = conditioner(inputs)
    assert text.values.dtype == torch.float32
    assert conditioner.state_dict() == {}


def test_the_same_text_with_other_numbers_is_another() -> None:
    """As an encoder rounds it in another batch; or of as many numbers, and of another text."""
    one = torch.tensor([[1.0, 2.0]])
    inputs = features_of([one, one + 1e-3, one.clone(), one.repeat(2, 1)], ["go"] * 4)
    assert inputs.layout.text_of.tolist() == [0, 1, 0, 2]
    assert features_of([one, one], ["go", "stop"]).layout.text_of.tolist() == [0, 1]


def test_damaged_and_other_files_stop_with_their_name_and_the_command(tmp_path: Path) -> None:
    latent = written(tmp_path)
    path, whole = tmp_path / latent.path, (tmp_path / latent.path).read_bytes()

    def refused(given: ManifestRow, content: bytes, match: str) -> None:
        path.write_bytes(content)
        reader = CachedReader(corpus=tmp_path, encoder_id=ENCODER)
        with pytest.raises(SourceError, match=match) as actual:
            reader.read([given], np.array([7]))
        assert f"eicorpus latents text {tmp_path} --vlm FOLDER" in str(actual.value)
        assert actual.value.where == f"{latent.path}, episode {given.uid} [0, 9), timestep 7"

    own = row("u", TEXTS[0], (latent,))
    refused(own, whole[:-2], "sha256")
    refused(own, whole[:-8] + b"12345678", "sha256")
    unchecked = "training.conditioning.cached.SMALL_BYTES"
    with pytest.MonkeyPatch.context() as patch:  # a file too large for its digest to be looked at
        patch.setattr(unchecked, 0)
        refused(own, whole[:-2], "damaged")
        refused(own, b"no safetensors", "damaged")
        refused(row("other", TEXTS[0], (latent,)), whole, "its metadata names")
    refused(row("u", "shake the box", (latent,)), whole, "no text features for 'shake the box'")
    path.unlink()
    with pytest.raises(SourceError, match="cannot be read"):
        CachedReader(corpus=tmp_path, encoder_id=ENCODER).read([own], np.array([0]))


def test_a_large_file_is_compared_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that stays finite: nothing but the digest tells."""
    monkeypatch.setattr("training.conditioning.cached.SMALL_BYTES", 0)
    latent = written(tmp_path)
    path, own = tmp_path / latent.path, row("u", TEXTS[1], (latent,))
    quiet = CachedReader(corpus=tmp_path, encoder_id=ENCODER)
    strict = CachedReader(corpus=tmp_path, encoder_id=ENCODER, with_digest=True)
    wanted = strict.read([own], np.array([8])).by_token["features"]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # of the last token
    assert not torch.equal(quiet.read([own], np.array([8])).by_token["features"], wanted)
    copy: CachedReader = travelled(strict)
    with pytest.raises(SourceError, match="sha256"):
        copy.read([own], np.array([8]))


def test_a_file_that_is_cut_while_it_is_open_is_named(tmp_path: Path) -> None:
    """A mapped file ends the process by SIGBUS here."""
    latent = written(tmp_path)
    reader = CachedReader(corpus=tmp_path, encoder_id=ENCODER)
    rows = [row("u", TEXTS[1], (latent,))]
    reader.read(rows, np.array([8]))
    os.truncate(tmp_path / latent.path, 16)
    with pytest.raises(SourceError, match=r"damaged .the file ends at byte .*--vlm FOLDER"):
        reader.read(rows, np.array([8]))


@pytest.mark.parametrize(
    ("tensor", "values"),
    [
        (OFFSETS, [0, 2**62, 3, 6, 7, 9]),  # would be 2^63 bytes
        (OFFSETS, [0, 2**63 - 1, -(2**63), 6, 7, 9]),
        (OFFSETS, [-3, 2, 3, 6, 7, 9]),
        (TEXT_INDEX, [1, 0, 0, 1, 1]),
        (TEXT_INDEX, [0, 0, 0, 2, 2]),
        (TEXT_INDEX, [0, 0, 0, 0, 0]),
        (TIMESTEP, [0, 0, 5, -1, 5]),
    ],
)
def test_moments_that_are_none_are_refused_when_the_file_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tensor: str, values: list[int]
) -> None:
    monkeypatch.setattr("training.conditioning.cached.SMALL_BYTES", 0)
    latent = written(tmp_path)
    path = tmp_path / latent.path
    held = read_tensors(path)[0][tensor]
    data = np.array(values, "<i8").tobytes()
    assert held.end - held.start == len(data)
    with path.open("r+b") as file:
        file.seek(held.start)
        file.write(data)
    reader = CachedReader(corpus=tmp_path, encoder_id=ENCODER)
    with pytest.raises(SourceError, match="does not match the prompts"):
        reader.read([row("u", TEXTS[1], (latent,))], np.array([8]))


def test_a_path_out_of_the_corpus_is_not_followed(tmp_path: Path) -> None:
    latent = dataclasses.replace(written(tmp_path / "other"), path="../other/x.safetensors")
    reader = CachedReader(corpus=tmp_path / "corpus", encoder_id=ENCODER)
    with pytest.raises(SourceError, match="is not a path inside the corpus"):
        reader.read([row("u", TEXTS[0], (latent,))], np.array([0]))


@pytest.mark.parametrize(
    ("offset", "num_bytes"),
    [(-512, 0), (-(2**62), 0), (2**62, 0), (10**6, 0), (0, 2**62), (0, 10**6), (0, -(10**6))],
)
@pytest.mark.parametrize("with_digest", [False, True])
def test_a_place_that_does_not_lie_in_its_pack_is_refused_before_it_is_read(
    tmp_path: Path, offset: int, num_bytes: int, with_digest: bool
) -> None:
    """Whatever a manifest says of it."""
    alone = written(tmp_path)
    data = (tmp_path / alone.path).read_bytes()
    (tmp_path / alone.path).write_bytes(bytes(256) + data + bytes(256))
    good = dataclasses.replace(alone, pack_offset=256, num_bytes=len(data))
    reader = CachedReader(corpus=tmp_path, encoder_id=ENCODER, with_digest=with_digest)
    inputs = reader.read([row("u", TEXTS[1], (good,))], np.array([8]))
    assert inputs.by_token["features"].tolist() == [[8, -8], [9, -9]]
    lied = dataclasses.replace(good, pack_offset=256 + offset, num_bytes=len(data) + num_bytes)
    with pytest.raises(SourceError, match=r"bytes -?\d+ to -?\d+ of a pack of \d+ bytes"):
        reader.read([row("u", TEXTS[1], (lied,))], np.array([8]))
    with pytest.raises(ConfigError, match="of a pack"):
        reader.facts_of(row("u", TEXTS[1], (lied,)))


def test_segments_without_features_are_refused_before_any_step(tmp_path: Path) -> None:
    own = Latent(camera="", encoder_id=ENCODER, path="p", sha256="")
    other = dataclasses.replace(own, encoder_id="text_by_hand-000000000000")
    picture = dataclasses.replace(own, camera="front", encoder_id="dinov3_vits16-000000000000")
    full = [row("a", "", (picture, own)), row("b", "", (own,))]
    for wanted in (ENCODER, "text_by_hand"):
        assert chosen_encoder(manifest_of(tmp_path, full), wanted) == ENCODER
    partly = manifest_of(tmp_path, [*full, row("c", "", (picture,))])
    with pytest.raises(
        ConfigError, match=r"1 of 3 segments have no text features .* for example c"
    ) as actual:
        chosen_encoder(partly, ENCODER)
    assert f"eicorpus latents text {tmp_path} --vlm FOLDER" in str(actual.value)
    for wanted in ("dinov3_vits16", "text_other", other.encoder_id):
        with pytest.raises(
            ConfigError, match=f"no text encoders of the manifest match '{wanted}'.*{ENCODER}"
        ):
            chosen_encoder(manifest_of(tmp_path, full), wanted)
    both = manifest_of(tmp_path, [row("a", "", (own, other))])
    with pytest.raises(ConfigError, match="2 text encoders"):
        chosen_encoder(both, "text_by_hand")
    with pytest.raises(ConfigError, match="it has none"):
        chosen_encoder(manifest_of(tmp_path, [row("a", "")]), ENCODER)
