"""Which node of a cluster quarantines far more than the others: its memory, its disk or its libraries may be at fault, not the episodes."""

from __future__ import annotations

from collections import Counter

TIMES = 5.0  # the rate of the others
# So many at five times the rate of the others come by chance in fewer than 3 of 10,000 runs (Chernoff bound of a Poisson count).
LEAST = 10


class NodeRates:
    """Results and quarantined episodes by node, while a run goes on."""

    def __init__(self) -> None:
        self.results: Counter[str] = Counter()
        self.quarantined: Counter[str] = Counter()

    def count(self, node: str, *, is_quarantined: bool) -> None:
        self.results[node] += 1
        self.quarantined[node] += is_quarantined

    def suspects(self) -> dict[str, str]:
        """Node -> its rate beside that of the others."""
        suspects = {}
        for node, bad in self.quarantined.items():
            results = self.results[node]
            others = self.results.total() - results
            others_bad = self.quarantined.total() - bad
            if bad < LEAST or not others:
                continue
            # One more than counted: no others that are bad so far is no rate of 0.
            if bad / results >= TIMES * (others_bad + 1) / (others + 1):
                suspects[node] = (
                    f"node {node} quarantines {bad:,} of {results:,} episodes ({bad / results:.1%}), "
                    f"the others {others_bad:,} of {others:,} ({others_bad / others:.1%})"
                )
        return suspects
