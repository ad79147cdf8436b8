"""The value head: its targets by hand, and what of its inputs counts."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from jobs.commands import serve_policy
from schemas.errors import ConfigError
from tests.training.causal_cases import network as causal_network
from tests.training.tiny import SETTINGS, chosen, packed
from training.model.text import Text, TextLayout, equal_lengths
from training.value.head import ValueHead, mean_of
from training.value.outcomes import EpisodeEnding, EpisodeLabel, ends_of, targets_of
from training.value.settings import OutcomeCounts, ValueFacts, ValueSettings, ValueShape
from training.value.stored import KEY, load_value, save_value, shape_of, value_file

# --- targets -----------------------------------------------------------------------------------------------------------


def rows_of(*rows: tuple[str, int, int, str, list[str]]) -> Any:
    names = ("uid", "start", "end", "tier", "reasons")
    table = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    return SimpleNamespace(rows=table)


def test_who_succeeded_is_the_label_then_the_tier() -> None:
    manifest = rows_of(
        ("labelled_yes", 0, 20, "low", ["jerk"]),
        ("labelled_no", 0, 20, "high", ["clean"]),
        ("all_high", 0, 10, "high", ["clean"]),
        ("all_high", 10, 18, "high", ["clean"]),  # two timesteps are left out at its end
        ("cut_short", 0, 10, "high", ["clean"]),
        ("with_low", 0, 10, "high", ["clean"]),
        ("with_low", 10, 20, "low", ["jerk"]),
        ("limited", 0, 20, "low", ["supervision_limit"]),  # for what is not known of it
        ("video", 0, 20, "actionless", []),
        ("no_row", 0, 20, "high", ["clean"]),
    )
    labels = {name: EpisodeLabel(success=None, length=20) for name in manifest.rows["uid"].to_pylist()}  # fmt: skip
    labels |= {
        "labelled_yes": EpisodeLabel(success=True, length=25),
        "labelled_no": EpisodeLabel(success=False, length=20),
    }
    del labels["no_row"]
    ends = ends_of(manifest, labels, low_fails=False, tolerance=3)
    assert {name: (end.ending, end.last) for name, end in ends.items()} == {
        "labelled_yes": (EpisodeEnding.SUCCEEDED, 24),
        "labelled_no": (EpisodeEnding.FAILED, 19),
        "all_high": (EpisodeEnding.SUCCEEDED_BY_TIER, 17),
        "cut_short": (EpisodeEnding.UNKNOWN, 19),
        "with_low": (EpisodeEnding.UNKNOWN, 19),
        "limited": (EpisodeEnding.UNKNOWN, 19),
        "video": (EpisodeEnding.UNKNOWN, 19),
        "no_row": (EpisodeEnding.SUCCEEDED_BY_TIER, 19),
    }
    assert [name for name, end in ends.items() if not end.is_known] == ["cut_short", "with_low", "limited", "video"]  # fmt: skip
    failing = ends_of(manifest, labels, low_fails=True, tolerance=3)
    assert [name for name, end in failing.items() if end.ending is EpisodeEnding.FAILED_LOW] == ["with_low"]  # fmt: skip


def test_targets_by_hand() -> None:
    last, timestep = np.array([10, 10, 10, 10]), np.array([10, 8, 0, 8])
    succeeds = np.array([True, True, True, False])
    discounted = ValueSettings(discount=0.5)
    np.testing.assert_allclose(
        targets_of(last, succeeds, timestep, discounted), [1, 0.25, 2**-10, 0]
    )
    progress = ValueSettings(target="progress")
    np.testing.assert_allclose(targets_of(last, succeeds, timestep, progress), [1, 0.8, 0, 0])


# --- the network -------------------------------------------------------------------------------------------------------


def head_and_inputs(state_width: int = 3) -> tuple[ValueHead, dict[str, Any]]:
    torch.manual_seed(0)
    shape = ValueShape(
        latent_width=6, num_patches=4, num_views=2, text_width=5, state_width=state_width
    )
    head = ValueHead(shape, ValueSettings(width=8)).eval()
    inputs = {
        "future": torch.randn(6, 8, 6),
        "has_future": torch.tensor([[True, False]] * 6),
        "text": packed(torch.randn(2, 7, 5), torch.rand(2, 7) < 0.6),
        "state": torch.randn(6, state_width) if state_width else None,
    }
    return head, inputs


def test_an_absent_view_and_a_text_of_nobody_change_nothing() -> None:
    head, inputs = head_and_inputs()
    values = head.value(**inputs)
    assert values.shape == (6,)
    other = dict(inputs)
    other["future"] = inputs["future"].clone()
    other["future"][:, 4:] += 9
    layout = inputs["text"].layout
    longer = TextLayout(num_tokens=np.append(layout.num_tokens, 9), text_of=layout.text_of)
    values_of_all = torch.cat([inputs["text"].values, torch.full((9, 5), 7.0)])
    other["text"] = Text(values=values_of_all, layout=longer)
    torch.testing.assert_close(head.value(**other), values)
    other["future"][:, 0] += torch.arange(6)  # a seen one does
    assert not head.value(**other).allclose(values)


def test_instructions_and_states_belong_to_their_images() -> None:
    head, inputs = head_and_inputs()
    values = head.value(**inputs)
    text = inputs["text"]
    for image in range(6):
        b = image // 3
        alone = head.value(
            inputs["future"][image][None],
            inputs["has_future"][image][None],
            chosen(text, [b]),
            inputs["state"][image][None],
        )
        torch.testing.assert_close(alone[0], values[image])


def test_no_text_and_no_view_have_a_finite_value() -> None:
    head, inputs = head_and_inputs(state_width=0)
    inputs["has_future"] = torch.zeros(6, 2, dtype=torch.bool)
    inputs["text"] = Text(values=torch.zeros(0, 5), layout=equal_lengths(2, 0))
    assert mean_of(inputs["text"]).tolist() == [[0.0] * 5] * 2
    assert head.value(**inputs).isfinite().all()


def test_a_block_causal_run_neither_plans_nor_gets_a_value_head(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = SimpleNamespace(model=causal_network().settings, encoder_id="tiny_vit-0", step=1)
    checkpoint: Any = SimpleNamespace(state=state, folder=tmp_path)
    with pytest.raises(ConfigError, match="no forward dynamics to plan with"):
        shape_of(checkpoint, 4)
    monkeypatch.setattr("training.run.checkpoint.checkpoint_of", lambda *_: checkpoint)
    with pytest.raises(ConfigError, match=r"--plan: .*no forward dynamics"):
        serve_policy.command(tmp_path, plan=2)


# --- files of strangers ------------------------------------------------------------------------------------------------


def stored_head(folder: Path, *, fill: float | None = None) -> tuple[Any, ValueHead, ValueFacts]:
    """A checkpoint with a value head, beside what was stored."""
    state = SimpleNamespace(model=SETTINGS, encoder_id="tiny_vit-0", text_id="", recipe_sha256="0" * 64, step=1)  # fmt: skip
    checkpoint: Any = SimpleNamespace(state=state, folder=folder)
    shape, settings = shape_of(checkpoint, 5), ValueSettings(width=8)
    head = ValueHead(shape, settings)
    if fill is not None:
        nn.init.constant_(head.hidden.weight, fill)
    facts = ValueFacts(
        step=1,
        is_averaged=False,
        encoder_id=state.encoder_id,
        text_id=state.text_id,
        recipe_sha256=state.recipe_sha256,
        manifest_sha256="0" * 64,
        settings=settings,
        shape=shape,
        counts=OutcomeCounts(),
    )
    return checkpoint, head, save_value(checkpoint, head, facts)


def loaded(checkpoint: Any) -> ValueHead:
    cpu = torch.device("cpu")
    return load_value(checkpoint, is_averaged=False, text_width=5, device=cpu)[0]


def test_a_stored_head_is_the_head(tmp_path: Path) -> None:
    checkpoint, head, _ = stored_head(tmp_path)
    for name, tensor in loaded(checkpoint).state_dict().items():
        assert tensor.equal(head.state_dict()[name]), name


@pytest.mark.parametrize(
    "changed",
    [
        {"x": torch.tensor(1.0)},
        {"token.weight": torch.tensor(1.0)},
        {"token.weight": torch.ones(1 << 20)},
        {"out.bias": torch.ones(1, dtype=torch.float16)},
        {"out.bias": None},
    ],
)
def test_tensors_of_other_shapes_are_refused_before_they_are_read(
    tmp_path: Path, changed: dict[str, Tensor | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, head, facts = stored_head(tmp_path)
    tensors = {k: v for k, v in (head.state_dict() | changed).items() if v is not None}
    page = {KEY: facts.model_dump_json()}
    save_file(tensors, value_file(checkpoint, is_averaged=False), metadata=page)
    monkeypatch.setattr("training.value.stored.tensors_sha256", lambda _: pytest.fail("read"))
    with pytest.raises(ConfigError, match="damaged: its tensors have other names"):
        loaded(checkpoint)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_head_without_an_order_of_values_is_refused(tmp_path: Path, number: float) -> None:
    checkpoint, _, _ = stored_head(tmp_path, fill=number)
    with pytest.raises(ConfigError, match="damaged: non-finite"):
        loaded(checkpoint)


def test_a_checkpoint_that_went_meanwhile_is_named(tmp_path: Path) -> None:
    (tmp_path / "step").mkdir()
    checkpoint, head, facts = stored_head(tmp_path / "step")
    shutil.rmtree(checkpoint.folder)
    with pytest.raises(ConfigError, match=r"the checkpoint is gone; .*keep_checkpoints"):
        save_value(checkpoint, head, facts)
