"""Instructions in one form: a rule-based rewrite, or a VLM that describes and then summarises; checked before it is stored."""

__all__ = [
    "audit",
    "backends",
    "cache",
    "checks",
    "offline_backends",
    "prompts",
    "protocol",
    "run",
    "select",
    "settings",
    "sheet",
    "work",
]
