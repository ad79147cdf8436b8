"""The `eicorpus` command. Exit codes: 0 success, 1 finished with failures or a failed check, 2 wrong usage, 3 a bug of
eicorpus, 130 interrupted and resumable."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Collection
from dataclasses import replace
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from jobs.command_table import LazyGroup, option_names
from jobs.machine import bound_thread_pools
from jobs.ui.arguments import forms, new_spelling, words_of
from jobs.ui.envelope import Failure, envelope, failure_of
from schemas.errors import ClusterLost, Code, PipelineError, system_error_text

INTERRUPTED = 130

app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Convert robot and egocentric video data to one LeRobot v2.1 corpus, curate it with SQL, and train on it.",
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version
        from platform import python_version

        from jobs.own_packages import foreign_packages

        typer.echo(f"eicorpus {version('eicorpus')} (Python {python_version()})")
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


def fail(failure: Failure) -> NoReturn:
    """Print why a command failed and exit."""
    announce(failure)
    sys.exit(failure.exit_code)


def announce(failure: Failure) -> None:
    """One line on standard error; with `--json` also one object on standard output."""
    from rich.text import Text

    from jobs.ui.output import print_json, stderr

    if "--json" in sys.argv:
        print_json(envelope(failure=failure))
    code = f"[{failure.code}] " if failure.code in list(Code) else ""
    text = Text.assemble(("error ", "bold red"), f"{code}{failure}")
    stderr.print(text, highlight=False, soft_wrap=True)


def stop_for(error: PipelineError) -> NoReturn:
    """Exit for one of our own errors. A process that lost its Ray cluster ends at once: an orderly end would ask the head node."""
    failure = failure_of(error)
    if not isinstance(error, ClusterLost):
        fail(failure)
    resume = shlex.join(["eicorpus", *sys.argv[1:]])
    remedy = f"committed data is safe; when the cluster is back, resume with: {resume}"
    announce(replace(failure, remedy=remedy))
    sys.stdout.flush()
    os._exit(error.exit_code)


def usage_failure(error: TyperException) -> Failure:
    """What is wrong with the options, arguments or command, the correct form, and where the help is."""
    context = getattr(error, "ctx", None)
    _translate(error)
    if context is None:
        message, lines = error.format_message(), ["see eicorpus --help"]
    else:
        message = _renamed(error, context) or error.format_message()
        is_group = isinstance(context.command, TyperGroup)
        lines = [*([] if is_group else forms(context)), f"see {context.command_path} --help"]
    return Failure(code="usage", message=message, exit_code=2, remedy="\n".join(lines))


def _renamed(error: TyperException, context: typer.Context) -> str | None:
    """The new spelling, if the error is about an option or a command of an earlier version."""
    no_command = re.search(r"No such command '([^']*)'", error.message)
    old = no_command[1] if no_command else getattr(error, "option_name", "")
    params = context.command.params
    has = {name for each in params for name in (*each.opts, (each.metavar or each.name).upper())}
    new = old and new_spelling(words_of(context), old, has)
    if not new:
        return None
    return f"{old} is not valid here; use {f'the argument {new}' if new.isupper() else new}"


def _translate(error: TyperException) -> None:
    """Typer passes on the message of pydantic where a value does not fit its option: use ours."""
    from pydantic import ValidationError

    from schemas.invalid import problem

    if isinstance(error.__cause__, ValidationError):
        error.message = problem(error.__cause__.errors()[0])


def out_of_memory(error: MemoryError, options: Collection[str]) -> Failure:
    """Where it happened, if the reader noted that, and how the command needs less memory."""
    notes = getattr(error, "__notes__", ())
    during = f" while {notes[0]}" if notes else ""
    names = [name for name in ("--workers", "--threads") if name in options]
    less = f"use fewer {names[0]}" if names else "run it on a machine with more memory"
    message = f"out of memory{during}"
    return Failure(code="out_of_memory", message=message, exit_code=1, remedy=less)


def main() -> None:
    """Run a command; our errors become one clear line and an exit code."""
    bound_thread_pools()
    # Kubernetes and batch systems send SIGTERM: the same orderly stop as Ctrl-C.
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
        fail(usage_failure(error))
    except MemoryError as error:
        fail(out_of_memory(error, option_names(sys.argv[1:])))
    except BrokenPipeError:  # the reader of our output, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # the machine refuses to write: committed data stays
        remedy = "committed data is safe; fix the cause and run the same command again"
        message = system_error_text(error)
        fail(Failure(code="system", message=message, exit_code=1, remedy=remedy))
    except Exception:  # noqa: BLE001  the last door: our bug, with its address
        traceback.print_exc()
        remedy = "committed data is unchanged; please report it"
        fail(Failure(code="bug", message="this is a bug of eicorpus", exit_code=3, remedy=remedy))
    if exit_code == INTERRUPTED:
        remedy = "run the same command again to resume"
        fail(
            Failure(code="interrupted", message="interrupted", exit_code=INTERRUPTED, remedy=remedy)
        )
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
