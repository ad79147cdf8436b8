"""Tiers: episodes are cut into segments, facts are gathered by segment, a policy decides, rows are kept."""
