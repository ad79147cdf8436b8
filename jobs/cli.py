"""The `eicorpus` command. Exit codes: 0 well, 1 done with failures or a check that does not hold, 2 the caller's
mistake, 3 our bug, 130 interrupted and resumable."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import Annotated, NoReturn

import typer
from rich.text import Text
from typer.exceptions import TyperException

from adapters.registry import ADAPTERS, adapter_for
from jobs import caption as caption_job
from jobs import compact as compact_job
from jobs import dedup as dedup_job
from jobs import doctor as doctor_job
from jobs import eval as eval_job
from jobs import explain as explain_job
from jobs import export as export_job
from jobs import forget as forget_job
from jobs import gc as gc_job
from jobs import ingest as ingest_job
from jobs import latents as latents_job
from jobs import manifest as manifest_job
from jobs import measure as measure_job
from jobs import models as models_job
from jobs import query as query_job
from jobs import report as report_job
from jobs import serve_policy as serve_policy_job
from jobs import snapshot as snapshot_job
from jobs import stale as stale_job
from jobs import tier as tier_job
from jobs import train as train_job
from jobs import verify as verify_job
from jobs.output import answer_json, stderr, stdout, table
from schemas.errors import PipelineError

INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="One corpus from many bodies: raw robot and egocentric data to LeRobot v2.1 with SQL on top.",
)
app.command("ingest")(ingest_job.command)
app.command("doctor")(doctor_job.command)
app.command("query")(query_job.query)
app.command("measure")(measure_job.command)
app.add_typer(models_job.app, name="models")
app.command("caption")(caption_job.command)
app.command("tier")(tier_job.command)
app.command("explain")(explain_job.command)
app.command("dedup")(dedup_job.command)
app.command("latents")(latents_job.command)
app.add_typer(manifest_job.app, name="manifest")
app.command("train")(train_job.command)
app.command("eval")(eval_job.command)
app.command("serve-policy")(serve_policy_job.command)
app.command("report")(report_job.command)
app.command("stale")(stale_job.command)
app.add_typer(snapshot_job.app, name="snapshot")
app.command("compact")(compact_job.command)
app.command("gc")(gc_job.command)
app.command("forget")(forget_job.command)
app.add_typer(export_job.app, name="export")
app.command("verify")(verify_job.command)
app.command("digest")(verify_job.digest_command)


@app.command()
def sources(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Every source that can be ingested, its container, and where its page is."""
    rows = []
    for name in sorted(ADAPTERS):
        adapter = adapter_for(name)
        rows.append([name, adapter.container, adapter.about, f"docs/sources/{name}.md"])
    columns = ["source", "container", "what", "page"]
    if as_json:
        answer_json({"sources": [dict(zip(columns, row, strict=True)) for row in rows]})
    else:
        stdout.print(table("", columns, rows))


def fail(message: str, exit_code: int) -> NoReturn:
    """One line on standard error, with `--json` one object on standard output too, and out."""
    if "--json" in sys.argv:
        answer_json({"error": message, "exit_code": exit_code})
    stderr.print(Text.assemble(("error ", "bold red"), message), highlight=False, soft_wrap=True)
    sys.exit(exit_code)


def main() -> None:
    """Run a command; our errors become one clear line and an exit code."""
    # Kubernetes and batch systems say SIGTERM: the same orderly stop as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        exit_code = app(standalone_mode=False)  # typer turns Ctrl-C into 130 by itself
    except PipelineError as error:
        fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        exit_code = INTERRUPTED
    except TyperException as error:  # a wrong option or argument
        fail(f"{error.format_message()}\nsee eicorpus --help", 2)
    except MemoryError:
        fail("out of memory; fewer --workers need less", 1)
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # the machine's refusal while writing: what is committed stays
        fail(f"{error}; what is committed is safe, run the same command again when mended", 1)
    except Exception:  # noqa: BLE001  the last door: our bug, with its address
        traceback.print_exc()
        fail("this is a bug of eicorpus; nothing committed has changed; please report it", 3)
    if exit_code == INTERRUPTED:
        fail("interrupted; run the same command again to resume", INTERRUPTED)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
