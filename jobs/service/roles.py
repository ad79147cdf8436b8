"""Which role a request needs. One table for all routes; what is not in it needs the role admin."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from starlette.routing import compile_path


class Role(StrEnum):
    """Each may do what the one before it may."""

    READ = "read"
    REVIEW = "review"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        order = list(Role)
        return order.index(self) >= order.index(other)


API = "/api/v1"
_READ = (
    "/",
    "/episodes",
    "/episodes/{uid}",
    "/jobs",
    "/manifests",
    "/map",
    "/thresholds",
    "/static/{name}",
    "/readyz",
    "/metrics",
    f"{API}/openapi.json",
    f"{API}/me",
    f"{API}/corpora",
    f"{API}/columns",
    f"{API}/episodes",
    f"{API}/episodes/{{uid}}",
    f"{API}/episodes/{{uid}}/neighbours",
    f"{API}/episodes/{{uid}}/geometry",
    f"{API}/episodes/{{uid}}/explain",
    f"{API}/episodes/{{uid}}/series",
    f"{API}/episodes/{{uid}}/videos/{{camera:path}}",
    f"{API}/episodes/{{uid}}/frames/{{timestep}}/{{camera:path}}",
    f"{API}/episodes/{{uid}}/sheets/{{camera:path}}",
    f"{API}/episodes/{{uid}}/reviews",
    f"{API}/reviews/sample",
    f"{API}/reviews/agreement",
    f"{API}/episodes/{{uid}}/similar",
    f"{API}/episodes/{{uid}}/latents",
    f"{API}/facets",
    f"{API}/histogram",
    f"{API}/map",
    f"{API}/thresholds",
    f"{API}/what-if",
    f"{API}/overview",
    f"{API}/stale",
    f"{API}/quarantine",
    f"{API}/spec-schema",
    f"{API}/outcomes",
    f"{API}/runs",
    f"{API}/sources",
    f"{API}/manifests",
    f"{API}/manifests/{{name}}",
    f"{API}/manifests/{{before}}/diff/{{after}}",
    f"{API}/jobs",
    f"{API}/job-options",
    f"{API}/jobs/{{job_id}}",
    f"{API}/jobs/{{job_id}}/log",
    f"{API}/jobs/{{job_id}}/events",
)
ROUTE_ROLES: Mapping[tuple[str, str], Role] = {
    **{("GET", template): Role.READ for template in _READ},
    ("POST", f"{API}/sql"): Role.READ,
    ("POST", f"{API}/session-links"): Role.READ,
    ("POST", f"{API}/logout"): Role.READ,
    ("POST", f"{API}/reviews"): Role.REVIEW,
    ("POST", f"{API}/policies"): Role.ADMIN,
    ("POST", f"{API}/jobs"): Role.ADMIN,
    ("POST", f"{API}/jobs/{{job_id}}/cancel"): Role.ADMIN,
}
_PATTERNS = [
    (method, compile_path(template)[0], role) for (method, template), role in ROUTE_ROLES.items()
]


def role_for(method: str, path: str) -> Role:
    """The highest role of all routes that the path may lead to, so that the order of routes decides nothing."""
    asked = "GET" if method == "HEAD" else method
    roles = [role for known, pattern, role in _PATTERNS if known == asked and pattern.match(path)]
    return max(roles, key=list(Role).index, default=Role.ADMIN)
