"""Policies that were saved over REST: immutable files in `policies/` beside the corpus spec, or in the state folder of a server without one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from ingest.curation.tiers.policy import QualityPolicy, known_policies, load_policy, policy_from
from ingest.curation.tiers.policy_loader import parse_policy_text
from ingest.storage.local import LocalStorage
from ingest.storage.write_refusal import refused_write
from jobs.service.errors import ApiError
from jobs.service.job_kinds import JobRequest
from jobs.service.thresholds import changed_document, comparisons

FOLDER = "policies"
MAX_ORIGIN = 400  # characters, as policies have it


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPolicy:
    """A base with other thresholds, and who saved it when and why."""

    name: str
    base: QualityPolicy
    thresholds: Mapping[str, float]
    author: str
    at: datetime
    note: str


def folder_of(state: Path, spec: Path | None) -> Path:
    """Where they lie; no client has a say in it."""
    return (state if spec is None else spec.parent) / FOLDER


def file_of(folder: Path, name: str) -> Path | None:
    """The file of a saved policy; None: there is none of that name. A built-in name is that policy, whatever file has it."""
    path = folder / f"{name}.yaml"
    return path if name not in known_policies() and path.is_file() else None


def policy_names(folder: Path) -> list[str]:
    """Of built-in and saved ones."""
    return sorted({*known_policies(), *(path.stem for path in folder.glob("*.yaml"))})


def policy_of_name(folder: Path | None, name: str) -> QualityPolicy:
    """A built-in policy or a saved one.

    Raises:
        ApiError: 404, there is none.
        ConfigError: its file is damaged.
    """
    saved = None if folder is None else file_of(folder, name)
    if saved is None and name not in known_policies():
        raise ApiError(404, "not_found", f"no policy {name!r}", where="policy")
    return load_policy(name if saved is None else str(saved))[0]


def with_file(request: JobRequest, folder: Path) -> JobRequest:
    """The job with the file of a saved policy in place of its name."""
    name = getattr(request, "policy", None)
    saved = None if name is None else file_of(folder, name)
    return request if saved is None else request.model_copy(update={"policy": str(saved)})


def save(folder: Path, new: NewPolicy) -> tuple[QualityPolicy, str]:
    """Write the policy and read it as any other; with the sha256 of its file. The same again changes nothing.

    Raises:
        ApiError: 409, another policy has the name.
        ConfigError: the policy is not sound, or the folder cannot be written.
        TransientError: the disk is full.
    """
    if new.name in known_policies():
        raise _taken(new.name)
    text = _text(new)
    policy = policy_from(parse_policy_text(text, f"{new.name}.yaml"))
    disk = LocalStorage(folder)
    try:
        disk.make_dir(folder)
        if disk.put_if_absent(folder / f"{new.name}.yaml", text.encode()):
            return policy, hashlib.sha256(text.encode()).hexdigest()
    except OSError as error:
        raise refused_write(error, folder) from error
    stored, stored_text = load_policy(str(folder / f"{new.name}.yaml"))
    if stored.digest != policy.digest or _comment(stored_text, "note") != _one_line(new.note):
        raise _taken(new.name)
    return stored, hashlib.sha256(stored_text.encode()).hexdigest()


def _text(new: NewPolicy) -> str:
    document = changed_document(new.base, new.thresholds)
    document |= {"policy": new.name, "version": 1}
    for name in new.thresholds:
        way, word, before = comparisons(new.base)[name]
        inside: Any = document
        for key in way:
            inside = inside[key]
        origin = f"set by {new.author} in {new.name}; {word} was {before.thresholds[word]:g}"
        inside["origin"] = f"{origin}: {before.origin}"[:MAX_ORIGIN]
    head = {
        "base": f"{new.base.title} ({new.base.digest})",
        "author": new.author,
        "time": new.at.isoformat(timespec="seconds"),
        "note": new.note,
    }
    comments = "".join(f"# {key}: {_one_line(value)}\n" for key, value in head.items())
    return comments + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def _one_line(text: str) -> str:
    """Text of strangers as a comment: without line ends and control characters."""
    return "".join(each if each.isprintable() else " " for each in text).strip()


def _comment(text: str, key: str) -> str:
    lines = (line for line in text.splitlines() if line.startswith(f"# {key}: "))
    return next(lines, "").removeprefix(f"# {key}: ")


def _taken(name: str) -> ApiError:
    return ApiError(
        409, "policy_exists", f"another policy has the name {name}", remedy="choose another name"
    )
