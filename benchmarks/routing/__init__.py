"""The claim in closed loop: does routing by tier beat training on the best only, and on everything? `python -m benchmarks.routing`."""
