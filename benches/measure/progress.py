"""Prints the progress of a run."""

import sys
import time

BEGAN = time.monotonic()


def log(text):
    minutes, seconds = divmod(int(time.monotonic() - BEGAN), 60)
    print(f"{minutes:3}:{seconds:02} {text}", file=sys.stderr, flush=True)
