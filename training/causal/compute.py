"""FLOPs, tokens and memory of a sequence before the first step: counted on tensors without memory, with a dense mask."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from training.batch import Batch, Origin
from training.causal.layout import Blocks
from training.causal.learner import CausalDraw, CausalLearner
from training.causal.network import CausalNetwork
from training.causal.settings import CausalModelSettings
from training.conditioning.inputs import TextInputs
from training.conditioning.protocol import Conditioner
from training.data.sequences import sequences_of
from training.model.network import KnownInputs
from training.model.text import Text, equal_lengths, padded
from training.precision import Precision
from training.run.memory import Footprint, Products, bytes_of, kept_bytes


def causal_tokens(settings: CausalModelSettings, num_text: int) -> dict[str, int]:
    """Of one sequence, noisy and clean: what attends to each other, and the text with the one token of the network's own."""
    video = 2 * settings.num_frames * settings.num_video_tokens
    action = 2 * settings.num_frames * settings.actions_per_frame
    return {"video": video, "action": action, "joint": video + action, "text": num_text + 1}


def causal_flops(settings: CausalModelSettings, num_text: int) -> int:
    """Forward and backward of one sequence. A kernel that skips blocks of the mask needs less."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        video, action = _forward(settings, 1, num_text)
        (video.sum() + action.sum()).backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())


def causal_footprint(
    settings: CausalModelSettings, num_text: int, precision: Precision
) -> Footprint:
    """As `training.run.memory.footprint_of`: two numbers of samples and of layers are compared."""

    def kept(layers: int, size: int) -> tuple[int, int]:
        of = settings.model_copy(update={"num_layers": layers})
        with FakeTensorMode(), Products() as products:
            return kept_bytes(lambda: _forward(of, size, num_text), precision), products.num_bytes

    (one, one_products), (two, two_products) = (
        ((more - few) // 2 for more, few in zip(kept(layers, 4), kept(layers, 2), strict=True))
        for layers in (1, 2)
    )
    with FakeTensorMode():
        batch = bytes_of(_batch_of_ones(settings, 1, num_text))
    itemsize = 4  # the stream of tokens is fp32 in either precision
    return Footprint(
        block=two - one,
        stream=causal_tokens(settings, num_text)["joint"] * settings.width * itemsize,
        rest=max(0, 2 * one - two),
        batch=batch,
        products=two_products - one_products,
    )


class _TextOfOnes(Conditioner):
    def forward(self, inputs: TextInputs) -> Text:
        return Text(values=inputs.by_token["text"], layout=inputs.layout)


def _forward(settings: CausalModelSettings, size: int, num_text: int) -> tuple[Tensor, Tensor]:
    learner = CausalLearner(CausalNetwork(settings), _TextOfOnes())
    batch = _batch_of_ones(settings, size, num_text)
    like = sequences_of(batch)
    u = torch.ones(like.latents.shape[:2])
    draw = CausalDraw(
        blocks=Blocks(chunk=1, window=settings.objective.window[1]),
        video_u=u,
        history_u=u,
        action_u=u,
        video_noise=like.latents,
        history_noise=like.latents,
        action_noise=like.action,
        drops_text=torch.zeros(size, dtype=torch.bool),
    )
    text = padded(learner.conditioner(batch.text_inputs))
    out: tuple[Tensor, Tensor] = learner.network(learner.inputs(like, draw, text), text)
    return out


def _batch_of_ones(s: CausalModelSettings, size: int, num_text: int) -> Batch:
    """Policy samples, all of whose frames and actions there are."""
    ones, num_past = torch.ones, s.num_frames - 1
    action = ones(size, s.actions_per_frame, s.action_width)
    history = ones(size, num_past * s.actions_per_frame, s.action_width)
    known = KnownInputs(
        past=ones(size, num_past, s.num_latents, s.latent_width),
        has_past=ones(size, num_past, s.num_views, dtype=torch.bool),
        history=history,
        has_history=torch.ones_like(history, dtype=torch.bool),
        embodiment=torch.zeros(size, dtype=torch.long),
        task=torch.zeros(size, dtype=torch.long),
    )
    return Batch(
        known=known,
        action=action,
        has_action=torch.ones_like(action, dtype=torch.bool),
        asked=ones(size, s.action_width, dtype=torch.bool),
        future=ones(size, s.num_latents, s.latent_width),
        has_future=ones(size, s.num_views, dtype=torch.bool),
        action_t_s=ones(s.actions_per_frame),
        future_t_s=1.0,
        text_inputs=TextInputs(
            layout=equal_lengths(size, num_text),
            by_token={"text": ones(size * num_text, s.text_width)},
        ),
        origin=Origin(row=np.zeros(size, dtype=np.int64), timestep=np.zeros(size, dtype=np.int64)),
    )
