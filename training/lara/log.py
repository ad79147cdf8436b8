"""What a run's log says of LARA: means over the steps since the line before."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from training.lara.lara import TERMS, LaraTerms
from training.lara.quantise import perplexity_of
from training.run.parallel import Ranks, sum_over


class LaraLog:
    """Sums over steps, of this rank."""

    def __init__(self, num_codes: int) -> None:
        self._num_codes = num_codes
        self.reset()

    def reset(self) -> None:
        """Forget what was added."""
        self._sums = torch.zeros(2 * len(TERMS) + 2, dtype=torch.float64)
        self._codes = torch.zeros(self._num_codes, dtype=torch.float64)

    def add(self, terms: LaraTerms) -> None:
        """Of one step."""
        extra = torch.stack([terms.copied, terms.strange], dim=1)
        row = torch.cat([terms.sums.detach(), terms.counts, extra], dim=1)
        self._sums += row.double().sum(0).cpu()
        codes = terms.code[terms.is_scored].flatten()
        self._codes += torch.bincount(codes, minlength=self._num_codes).double().cpu()

    def means(self, ranks: Ranks) -> dict[str, Any]:
        """Of all ranks. `copied` is the error of saying that nothing changes, in the units of `reconstruction`; `cosine_of_others` is with another sample's
        latent action: where it is as high as `cosine`, alignment says nothing. Only what was scored.
        """
        sums, codes = sum_over(self._sums.clone(), ranks), sum_over(self._codes.clone(), ranks)
        num = len(TERMS)
        by_term = {
            name: (float(sums[i] / sums[num + i]), float(sums[num + i]))
            for i, name in enumerate(TERMS)
            if sums[num + i] > 0
        }
        line = {name: mean for name, (mean, _) in by_term.items() if name != "alignment"}
        if "reconstruction" in by_term:
            elements = by_term["reconstruction"][1]
            line |= {"copied": float(sums[2 * num] / elements), "perplexity": perplexity_of(codes)}
        if "alignment" in by_term:
            mean, draws = by_term["alignment"]
            line |= {
                "cosine": 1.0 - mean,
                "cosine_of_others": float(sums[2 * num + 1] / draws),
                "num_aligned": draws,
            }
        return {"lara": line} if line else {}


def joined_terms(parts: list[LaraTerms]) -> LaraTerms:
    """Of the parts of a batch, in order."""

    def cat(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    return LaraTerms(**{name: cat(name) for name in LaraTerms.__dataclass_fields__})
