"""What a trainer reads: selected segments with split, weight, text and action statistics, published once and never changed."""

__all__ = [
    "action_stats",
    "building",
    "diff",
    "issue",
    "manifest",
    "mixture_text",
    "running_stats",
    "split_by",
    "splits",
]
