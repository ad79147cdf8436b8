"""What a command says when part of its work failed."""

from __future__ import annotations


def retry_message(failed: int, total: int, what: str) -> str:
    """Why the command exits with 1; "" if nothing failed. `what`: the things counted, in the plural."""
    if not failed:
        return ""
    return f"{failed:,} of {total:,} {what} failed; run the command again to retry them"
