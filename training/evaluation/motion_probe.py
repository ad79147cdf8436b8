"""Whether latent actions know how the hand moved: a linear probe, fitted on episodes of the split train and scored on held-out ones.

The target is the displacement of each hand in its own frame from now to the time of the later picture: the translation of T_now^-1 T_later, composed of the recorded
motions. R2 = 1 - squared error / squared error of the mean of training (pooled over coordinates, bodies and samples). A released model reports
no such number; the design is ours (`formats/exports.md` 7.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from schemas.episode import SIDES
from schemas.errors import ConfigError
from schemas.geometry import rotmat_from_rotvec
from schemas.supervision import Task
from training.batch import Batch
from training.data.action_layout import part_slots
from training.data.loader import Loader
from training.data.rng_keys import Purpose, key_of
from training.evaluation.accumulate import interval
from training.evaluation.summary import IntervalEstimate
from training.lara.lara import Lara, pairs_of
from training.lara.quantise import perplexity_of
from training.run.micro_batch import moved

Array = npt.NDArray[np.float64]
FEATURES = ("latent_action", "code", "random_code", "picture_of_now", "nothing_moves")
NUM_FOLDS, ALPHAS = 5, tuple(10.0**power for power in range(-3, 7))
NUM_DRAWS = 1000  # of episodes, with replacement
LEAST_EPISODES = 2  # of a body, in either split


class NothingToProbe(ConfigError):
    """The split has no motions that latent actions could tell of; other errors of the run can be measured all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionProbe:
    """r2: by FEATURES; the interval is over episodes. reconstruction: mean squared error of the change of the picture, as a share of that of saying that nothing
    changes; with_other: the same with the latent action of another sample. perplexity: of the codes. Of held-out samples.
    """

    r2: Mapping[str, IntervalEstimate]
    reconstruction: float
    reconstruction_with_other: float
    perplexity: float
    num_fitted: int
    num_scored: int
    num_episodes: int

    def as_object(self) -> dict[str, object]:
        """For JSON."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "r2"}
        return {"r2": {name: each.as_object() for name, each in self.r2.items()}, **plain}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProbeSamples:
    """Of one split. features: by name [M, F]; target: [M, 6] metres, of SIDES; has: [M, 6] what is known of it; body, episode: [M]."""

    features: Mapping[str, Array]
    target: Array
    has: npt.NDArray[np.bool_]
    body: npt.NDArray[np.int64]
    episode: npt.NDArray[np.int64]
    sums: Array  # [3] squared errors: of the decoder, with another's latent action, of saying that nothing changes
    code: npt.NDArray[np.int64]


def displacement_m(motions: Array) -> Array:
    """[B, 3] the translation of T_0^-1 T_n of [B, n, 6] motions T_i^-1 T_(i+1): metres, and rotation vectors in radians."""
    rotmat = np.tile(np.eye(3), (len(motions), 1, 1))
    out = np.zeros((len(motions), 3))
    for step in range(motions.shape[1]):
        out += np.einsum("bij,bj->bi", rotmat, motions[:, step, :3])
        rotmat = rotmat @ rotmat_from_rotvec(motions[:, step, 3:])
    return out


@torch.no_grad()
def samples_of(
    loader: Loader, lara: Lara, *, max_samples: int | None, batch_size: int, device: torch.device
) -> ProbeSamples:
    """Samples with both pictures and all motions between them, evenly spread over the split of the loader.

    Raises:
        NothingToProbe: there are none, or a chunk of actions does not reach the later picture.
    """
    window = loader.window
    reach = window.later_step or window.future_step
    if reach > window.num_actions:
        problem = f"a chunk of {window.num_actions} actions ends before the later picture, {reach} timesteps after now"
        raise NothingToProbe(problem, remedy=f"train with --set data.num_actions={reach}", where="recipe key data.num_actions")  # fmt: skip
    parts = [
        part
        for batch in loader.at(
            loader.places(Task.FORWARD_DYNAMICS, max_samples), batch_size=batch_size
        )
        for part in _of_batch(moved(batch, device), lara, reach)
    ]
    if not parts:
        problem = (
            f"no sample of split {loader.split} has both pictures and the motions between them"
        )
        raise NothingToProbe(problem, where=f"manifest {loader.manifest.facts.name}")

    def joined(name: str) -> npt.NDArray[np.float64]:
        return np.concatenate([getattr(part, name) for part in parts])

    rows = joined("episode").astype(np.int64)
    uids = np.asarray(loader.manifest.rows["uid"].take(rows).to_pylist())
    return ProbeSamples(
        features={
            name: np.concatenate([part.features[name] for part in parts])
            for name in parts[0].features
        },
        target=joined("target"),
        has=joined("has").astype(bool),
        body=joined("body").astype(np.int64),
        episode=np.unique(uids, return_inverse=True)[1],
        sums=np.sum([part.sums for part in parts], axis=0),
        code=joined("code").astype(np.int64),
    )


def _of_batch(batch: Batch, lara: Lara, reach: int) -> Iterator[ProbeSamples]:
    seen = pairs_of(batch)
    pair = lara.lam(seen.now, seen.later, seen.has)
    assert batch.stored is not None
    stored, has_action = batch.stored.cpu().numpy(), batch.has_action.cpu().numpy()
    targets, known = [], []
    for side in SIDES:
        slots = np.concatenate(
            [part_slots(f"{side}.{part}") for part in ("delta_position_m", "delta_rotvec_rad")]
        )
        is_whole = np.asarray(has_action[:, :reach, slots].all(axis=(1, 2)))
        targets.append(displacement_m(stored[:, :reach, slots].astype(np.float64)))
        known.append(np.repeat(is_whole[:, None], 3, axis=1))
    has = np.concatenate(known, axis=1)
    usable = seen.has.any(1).cpu().numpy() & has.any(axis=1)
    if not usable.any():
        return
    where = torch.from_numpy(np.flatnonzero(usable)).to(pair.z.device)
    code = pair.quantised.code[where]
    book = lara.lam.book.codes.detach()
    chance = torch.randint(
        len(book), code.shape, generator=torch.Generator().manual_seed(int(batch.origin.row.sum()))
    )
    yield ProbeSamples(
        features={
            "latent_action": _rows(pair.z[where]),
            "code": _rows(book[code]),
            "random_code": _rows(book[chance.to(book.device)]),
            "picture_of_now": _rows(_pooled(seen.now, seen.has)[where]),
        },
        target=np.concatenate(targets, axis=1)[usable],
        has=has[usable],
        body=batch.known.embodiment.cpu().numpy()[usable],
        episode=np.asarray(batch.origin.row)[usable],
        sums=_errors(lara, seen.now, seen.later, seen.has, pair.change, pair.quantised.values),
        code=code.flatten(1).cpu().numpy(),
    )


def _errors(
    lara: Lara, now: Tensor, later: Tensor, has: Tensor, change_by: Tensor, values: Tensor
) -> Array:
    change = (later - now) / lara.unit
    other = lara.lam.decoder(torch.where(has[..., None], now, 0.0), values.roll(1, dims=0))
    squared = [
        (x - change).square()[has].sum() for x in (change_by, other, torch.zeros_like(change))
    ]
    return torch.stack(squared).double().cpu().numpy()


def _pooled(tokens: Tensor, has: Tensor) -> Tensor:
    """[B, 2 D] mean and spread of the tokens that are there."""
    weight = has[..., None].float()
    count = weight.sum(1).clamp(min=1)
    mean = (tokens * weight).sum(1) / count
    spread = (((tokens - mean[:, None]) * weight).square().sum(1) / count).sqrt()
    return torch.cat([mean, spread], dim=-1)


def _rows(x: Tensor) -> Array:
    return x.flatten(1).double().cpu().numpy()


def probed(
    fitted: ProbeSamples, scored: ProbeSamples, *, num_codes: int, seed: int = 0
) -> MotionProbe:
    """
    Args:
        fitted: of the split train. scored: of another, with other episodes.

    Raises:
        NothingToProbe: no body has enough episodes in both, no hand moves or no picture changes in `scored`.
    """
    errors: dict[str, list[Array]] = {name: [] for name in FEATURES}
    spreads: list[Array] = []
    episodes: list[npt.NDArray[np.int64]] = []
    num_fitted = 0
    for body in np.unique(scored.body):
        own, test = fitted.body == body, scored.body == body
        columns = scored.has[test].all(axis=0) & (
            fitted.has[own].all(axis=0) if own.any() else False
        )
        enough = min(
            len(np.unique(each.episode[at])) for each, at in ((fitted, own), (scored, test))
        )
        if enough < LEAST_EPISODES or not columns.any():
            continue
        num_fitted += int(own.sum())
        y, truth = fitted.target[own][:, columns], scored.target[test][:, columns]
        spreads.append(((truth - y.mean(axis=0)) ** 2).sum(axis=1))
        episodes.append(scored.episode[test])
        errors["nothing_moves"].append((truth**2).sum(axis=1))
        for name, x in fitted.features.items():
            predicted = ridge(x[own], y, fitted.episode[own], scored.features[name][test])
            errors[name].append(((predicted - truth) ** 2).sum(axis=1))
    if not episodes:
        problem = f"no body has {LEAST_EPISODES} episodes with motions in the split train and in the other"
        raise NothingToProbe(problem, where="eicorpus eval")
    spread, episode = np.concatenate(spreads), np.concatenate(episodes)
    if not spread.sum() or not scored.sums[2]:
        problem = "no hand moves in the held-out samples, or no picture changes: nothing tells a share of it"
        raise NothingToProbe(problem, where="eicorpus eval")
    return MotionProbe(
        r2={
            name: _r2(np.concatenate(each), spread, episode, seed) for name, each in errors.items()
        },
        reconstruction=float(scored.sums[0] / scored.sums[2]),
        reconstruction_with_other=float(scored.sums[1] / scored.sums[2]),
        perplexity=perplexity_of(
            torch.bincount(torch.from_numpy(scored.code.ravel()), minlength=num_codes)
        ),
        num_fitted=num_fitted,
        num_scored=len(spread),
        num_episodes=len(np.unique(episode)),
    )


def ridge(x: Array, y: Array, episode: npt.NDArray[np.int64], at: Array) -> Array:
    """[M', T] what ridge regression of [M, T] y on [M, F] x says of [M', F] `at`. Features are standardised; the penalty is the one of ALPHAS with the least error
    on folds of whole episodes (Hoerl & Kennard 1970).
    """
    centre, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 1e-12, spread, 1.0)
    x, at = (x - centre) / spread, (at - centre) / spread
    fold = np.unique(episode, return_inverse=True)[1] % NUM_FOLDS
    errors = np.zeros(len(ALPHAS))
    for each in np.unique(fold):
        out = fold == each
        if out.all():
            continue
        for number, predicted in enumerate(_ridges(x[~out], y[~out], x[out])):
            errors[number] += ((predicted - y[out]) ** 2).sum()
    return _ridges(x, y, at)[int(errors.argmin())]


def _ridges(x: Array, y: Array, at: Array) -> list[Array]:
    """With every penalty, by one singular value decomposition."""
    centre, mean = x.mean(axis=0), y.mean(axis=0)
    u, s, vt = np.linalg.svd(x - centre, full_matrices=False)
    along, shown = u.T @ (y - mean), (at - centre) @ vt.T
    return [mean + shown @ ((s / (s**2 + alpha))[:, None] * along) for alpha in ALPHAS]


def _r2(
    errors: Array, spread: Array, episode: npt.NDArray[np.int64], seed: int
) -> IntervalEstimate:
    """Every feature is given the same draws of episodes."""
    index = np.unique(episode, return_inverse=True)[1]
    by_episode = np.stack([np.bincount(index, weights=each) for each in (errors, spread)])
    num = by_episode.shape[1]
    rng = np.random.default_rng(int(key_of(seed, Purpose.MOTION_PROBE)))
    drawn = by_episode[:, rng.integers(num, size=(NUM_DRAWS, num))].sum(axis=2)
    ends = interval(1.0 - drawn[0] / drawn[1]) if num > 1 else None
    return IntervalEstimate(
        value=float(1.0 - errors.sum() / spread.sum()),
        low=None if ends is None else ends[0],
        high=None if ends is None else ends[1],
    )
