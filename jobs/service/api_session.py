"""REST: who asks, links that open a browser session, and the end of one."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from jobs.service.credentials import Access, Caller
from jobs.service.models import StrictModel
from jobs.service.roles import Role
from jobs.service.security import LOGIN

router = APIRouter()


class MeAnswer(StrictModel):
    name: str
    role: Role


class LinkAnswer(StrictModel):
    path: str


def caller_of(request: Request) -> Caller:
    """Whom the guard has let in."""
    caller: Caller = request.state.caller
    return caller


@router.get("/me")
def me(request: Request) -> MeAnswer:
    """The name and the role of the token, or of the session."""
    holder = caller_of(request).holder
    return MeAnswer(name=holder.name, role=holder.role)


@router.post("/session-links")
def session_link(request: Request) -> LinkAnswer:
    """A path that opens one browser session of the same name and role, within ten minutes. A session's link opens one that ends when it does."""
    access: Access = request.app.state.access
    return LinkAnswer(path=f"{LOGIN}?code={access.new_code(caller_of(request))}")


@router.post("/logout", status_code=204)
def log_out(request: Request) -> Response:
    """End this browser session; a token stays valid."""
    access: Access = request.app.state.access
    access.log_out(request.headers)
    response = Response(status_code=204)
    response.delete_cookie(access.cookie, path="/", httponly=True, samesite="strict")
    return response
