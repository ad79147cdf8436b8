"""A wish to stop is kept though it cannot be handed on."""

from __future__ import annotations

import signal

import pytest

from jobs.run_context import StopRequest


def test_a_full_disk_does_not_end_the_command_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    stop = StopRequest(on_stop=full)
    with stop.listening():
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_asked
        assert "No space left" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
