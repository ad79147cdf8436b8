"""How good a trained network is on segments that it never saw, and whether that is better than doing nothing. Docs: docs/how-to/evaluate.md."""
