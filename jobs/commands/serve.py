"""`eicorpus serve SPEC|CORPUS`: a corpus in a browser and over REST, with jobs. The page: docs/how-to/service.md."""

from __future__ import annotations

import ctypes
import ipaddress
import logging
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ingest.corpus.layout import MARKER, open_corpus
from ingest.corpus.publishing import working_copy
from ingest.corpus.remote_link import read_link
from jobs.ui.options import BucketUse
from jobs.ui.output import stderr
from schemas.errors import ConfigError, system_error_text

if TYPE_CHECKING:
    import uvicorn

    from jobs.service.credentials import Access
    from jobs.service.job_runner import JobRunner

DEFAULT_PORT = 8321
M_ARENA_MAX = -8  # of malloc.h in glibc
SPEC_SUFFIXES = (".yaml", ".yml")


def command(
    served: Annotated[
        Path,
        typer.Argument(
            metavar="SPEC|CORPUS",
            help="Corpus spec (a YAML file), or corpus folder or its URI (s3://, gs://, az://).",
        ),
        BucketUse.CATALOG,
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on. Other machines need --token-file.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on. 0 picks a free port.")
    ] = DEFAULT_PORT,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with one token, or with lines NAME ROLE TOKEN, readable by its owner alone. Default: made in the state folder.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Host name under which browsers reach it. Repeatable."),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="TLS proxy in front, by IP address or network: clients and https are as its X-Forwarded-For and X-Forwarded-Proto say. Repeatable.",
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for caches, jobs and the token, on a local disk. Default: $XDG_STATE_HOME/eicorpus.",
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Run jobs on the Ray cluster of this dashboard, such as http://HOST:8265. Default: on this machine.",
        ),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Refuse jobs.")] = False,
) -> None:
    """Show a corpus in a browser and over REST, and run jobs on it. With a corpus spec also builds. Ctrl-C stops it."""
    _check_installed()
    from jobs.service.app import ServiceSettings, create_app
    from jobs.service.bucket_files import BucketFiles
    from jobs.service.credentials import Access
    from jobs.service.keeper import Keeper, state_folder
    from jobs.service.security import LOOPBACK
    from jobs.service.token_file import own_tokens, read_tokens

    spec = served.absolute() if served.suffix in SPEC_SUFFIXES else None
    root = open_corpus(
        served if spec is None else _corpus_of(spec, may_create=not read_only)
    ).root.resolve()
    is_loopback = host in ("127.0.0.1", "::1", "localhost")
    if not is_loopback and token_file is None:
        raise ConfigError(
            "other machines can reach this address",
            remedy="pass --token-file",
            where=f"--host {host}",
        )
    proxies = [_network(each) for each in trusted_proxy or ()]
    folder = state_folder(state or _default_state(), root)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    own_file = folder / "token"
    holders = own_tokens(own_file) if token_file is None else read_tokens(token_file)
    listener = _listen(host, port)
    bound = int(listener.getsockname()[1])
    access = Access(holders, clock=time.monotonic, cookie=f"eicorpus_{bound}")
    named = f"[{host}]" if ":" in host else host
    hosts = (*LOOPBACK, *(() if host in ("0.0.0.0", "::") else (named,)), *(allow_host or ()))
    copy = working_copy(root)
    files = None if copy is None else BucketFiles(copy)
    keeper = Keeper(root, folder, time.monotonic, files)
    app = create_app(
        keeper,
        access,
        ServiceSettings(hosts=hosts),
        clock=time.monotonic,
        report=_report,
        version=version("eicorpus"),
        jobs=None if read_only else _runner(folder, root, spec, ray_address),
        token_file=token_file or own_file,
    )
    shown = (
        allow_host[0] if allow_host else named if named not in ("0.0.0.0", "[::]") else "127.0.0.1"
    )
    _announce(f"http://{shown}:{bound}", access, token_file or own_file)
    _share_memory_pools()
    _serve(server_config(app, proxies), listener)
    stderr.print("stopped")


def _runner(folder: Path, root: Path, spec: Path | None, ray_address: str | None) -> JobRunner:
    from jobs.service.job_runner import JobRunner
    from jobs.service.job_store import JobStore

    store = JobStore(folder)
    if ray_address is None:
        return JobRunner(store, root, spec)
    from jobs.service.job_ray import RayEngine

    return JobRunner(store, root, spec, RayEngine(store, root, spec, ray_address))


def _check_installed() -> None:
    """Raises ConfigError where the extra is missing."""
    try:
        import fastapi  # noqa: F401
        import plotly  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"needs {error.name}",
            remedy="run pip install 'eicorpus[service]'",
            where="eicorpus serve",
        ) from error


def _corpus_of(spec: Path, *, may_create: bool) -> Path:
    """The corpus of a spec. One that was never built is made, empty, so that a job can build it.

    Raises:
        ConfigError: no spec; or it was not built yet and may not be made.
    """
    from jobs.build.run import bring_corpus, create_corpus
    from jobs.build.spec_file import corpus_named, read_corpus, read_spec_alone

    bring_corpus(corpus_named(spec))
    corpus = read_corpus(spec)
    if corpus.exists() and (read_link(corpus) is None or (corpus / MARKER).is_file()):
        return corpus
    if not may_create:
        raise ConfigError(
            "the corpus of this spec is not built yet",
            remedy="run eicorpus build with it first",
            where=str(spec),
        )
    create_corpus(read_spec_alone(spec))
    return corpus


def _default_state() -> Path:
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base else Path.home() / ".local" / "state") / "eicorpus"


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(system_error_text(error), where=f"--host {host} --port {port}") from error


def _announce(url: str, access: Access, token_file: Path) -> None:
    stderr.print(f"open {url}/login?code={access.new_code()}", highlight=False, markup=False)
    holder = f"{access.first.name} ({access.first.role})"
    stderr.print(
        f"the link works once, within ten minutes, for {holder}. API: {url}/api/v1 with the token in {token_file}. Ctrl-C stops",
        highlight=False,
        markup=False,
    )


def _report(message: str) -> None:
    from jobs.ui.output import warn
    from jobs.ui.tables import printable

    warn(printable(message))


def _share_memory_pools() -> None:
    """glibc gives each of the 40 threads that answer a pool of its own, and each keeps what masks of 10^6 episodes needed: with two
    pools the server has half the memory, which stays level, and answers sooner under load (docs/results/benchmarks.md)."""
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ConfigError(str(error), where=f"--trusted-proxy {text}") from error


def server_config(app: object, trusted_proxies: Sequence[str]) -> uvicorn.Config:
    """How uvicorn serves."""
    import uvicorn

    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,  # lines of it would have the codes of links
        server_header=False,
        proxy_headers=bool(trusted_proxies),  # any other client can write such a header
        forwarded_allow_ips=list(trusted_proxies),
        ws="none",
        timeout_keep_alive=65,  # longer than the minute after which a proxy before us closes a connection
        timeout_graceful_shutdown=5,
    )


def _serve(config: uvicorn.Config, listener: socket.socket) -> None:
    import uvicorn

    # The address of a bug is reported; a traceback would have names from data in it.
    logging.getLogger("uvicorn.error").addFilter(_without_traceback)
    with suppress(KeyboardInterrupt):  # uvicorn has ended in order, and raises the signal again
        uvicorn.Server(config).run(sockets=[listener])


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = record.exc_text = None
    return True
