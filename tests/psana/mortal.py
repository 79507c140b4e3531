"""`ffb`, killed in the moment in which it logs a word: ``python -m ... WORD COMMAND ...``."""

from __future__ import annotations

import logging
import os
import signal
import sys

from ffb import cli


class Killing(logging.Handler):
    """Whoever says ``word`` says no more."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self._word = word

    def emit(self, record: logging.LogRecord) -> None:
        """See :class:`logging.Handler`."""
        if self._word in record.getMessage():
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    logging.getLogger("ffb").addHandler(Killing(sys.argv[1]))
    sys.exit(cli.main(sys.argv[2:]))
