"""The `eicorpus` command. Exit codes: 0 well, 1 done with failures or a check that does not hold, 2 the caller's
mistake, 3 our bug, 130 interrupted and resumable."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import traceback
from collections.abc import Collection
from typing import Annotated, NoReturn

import typer
from typer.core import TyperArgument, TyperGroup
from typer.exceptions import TyperException

from jobs.commands import LazyGroup, option_names
from jobs.cores import bound_thread_pools
from schemas.errors import ClusterLost, PipelineError
from schemas.system_error import system_error_text

INTERRUPTED = 130

app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="One corpus from many bodies: raw robot and egocentric data to LeRobot v2.1 with SQL on top.",
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version

        from jobs.own_packages import foreign_packages

        typer.echo(f"eicorpus {version('eicorpus')}")
        if foreign := foreign_packages():
            typer.echo(foreign, err=True)
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options before the command."""


def fail(message: str, exit_code: int) -> NoReturn:
    """One line on standard error, with `--json` one object on standard output too, and out."""
    announce(message, exit_code)
    sys.exit(exit_code)


def announce(message: str, exit_code: int) -> None:
    """As `fail`, and back."""
    from rich.text import Text

    from jobs.output import answer_json, stderr

    if "--json" in sys.argv:
        answer_json({"error": message, "exit_code": exit_code})
    stderr.print(Text.assemble(("error ", "bold red"), message), highlight=False, soft_wrap=True)


def stop_for(error: PipelineError) -> NoReturn:
    """Our own errors say what to do; without its cluster this process cannot end in Ray's orderly way, which asks the head."""
    if not isinstance(error, ClusterLost):
        fail(str(error), error.exit_code)
    resume = shlex.join(["eicorpus", *sys.argv[1:]])
    announce(
        f"{error}; what is committed is safe; when the cluster is back, resume with: {resume}",
        error.exit_code,
    )
    sys.stdout.flush()
    os._exit(error.exit_code)


def usage_message(error: TyperException) -> str:
    """A wrong option, argument or command in words, and the help of the command that was meant."""
    context = getattr(error, "ctx", None)
    _translate(error)
    if context is None:
        return f"{error.format_message()}\nsee eicorpus --help"
    name = getattr(error, "option_name", "").removeprefix("--")
    is_argument = any(
        isinstance(p, TyperArgument) and p.name == name for p in context.command.params
    )
    lines = [
        f"{error.format_message()}{f'; {name.upper()} is an argument' if is_argument else ''}",
        *([] if isinstance(context.command, TyperGroup) else [f"usage: {usage(context)}"]),
        f"see {context.command_path} --help",
    ]
    return "\n".join(lines)


def usage(context: typer.Context) -> str:
    """`eicorpus query SQL --corpus CORPUS`: a command with everything that it requires."""
    words = [context.command_path]
    for each in context.command.params:
        name = (each.name or "").upper()
        if isinstance(each, TyperArgument):
            words.append(name if each.required else f"[{name}]")
        elif each.required:
            words.append(f"{each.opts[0]} {name}")
    return " ".join(words)


def _translate(error: TyperException) -> None:
    """typer hands pydantic's words on where a value does not fit its option."""
    from pydantic import ValidationError

    from schemas.invalid import problem

    if isinstance(error.__cause__, ValidationError):
        error.message = problem(error.__cause__.errors()[0])


def out_of_memory(error: MemoryError, options: Collection[str]) -> str:
    """What needed it, where its reader has noted that, and what needs less with these options."""
    notes = getattr(error, "__notes__", ())
    during = f" while {notes[0]}" if notes else ""
    less = "fewer --workers need less" if "--workers" in options else "run it where more is free"
    return f"out of memory{during}; {less}"


def main() -> None:
    """Run a command; our errors become one clear line and an exit code."""
    bound_thread_pools()
    # Kubernetes and batch systems say SIGTERM: the same orderly stop as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        exit_code = app(standalone_mode=False)  # typer turns Ctrl-C into 130 by itself
    except PipelineError as error:
        stop_for(error)
    except (KeyboardInterrupt, typer.Abort):
        exit_code = INTERRUPTED
    except TyperException as error:
        if not error.format_message():  # no command: typer has printed the help
            sys.exit(2)
        fail(usage_message(error), 2)
    except MemoryError as error:
        fail(out_of_memory(error, option_names(sys.argv[1:])), 1)
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # the machine's refusal while writing: what is committed stays
        fail(
            f"{system_error_text(error)}; what is committed is safe, run the same command again when mended",
            1,
        )
    except Exception:  # noqa: BLE001  the last door: our bug, with its address
        traceback.print_exc()
        fail("this is a bug of eicorpus; nothing committed has changed; please report it", 3)
    if exit_code == INTERRUPTED:
        fail("interrupted; run the same command again to resume", INTERRUPTED)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
