"""`python -m jobs.service.job_on_ray WORDS`: `eicorpus WORDS` on the head of Ray, whose log has no secret of its environment.

Ray keeps what this prints: a bounded log, then the JSON object of the command as one line.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from jobs.service.job_output import CommandPipes, secrets_of
from schemas.json_text import parse_json


def main(words: Sequence[str]) -> int:
    """The exit code of the command."""
    # Ray sends it to the command as well, which ends in order; this handler is none of the command's
    signal.signal(signal.SIGINT, lambda *_: None)
    command = [sys.executable, "-P", "-m", "jobs", *words]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pipes = CommandPipes(child, sys.stderr.fileno(), secrets_of(os.environ))
    exit_code = child.wait()
    output, _ = pipes.end()
    with suppress(ValueError):  # the server reports a command without a result
        sys.stdout.write(json.dumps(parse_json(output)) + "\n")
    return exit_code if exit_code >= 0 else 128 - exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
