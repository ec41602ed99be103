"""The end of the process waits for native work, and lets none begin."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import ctypes, sys, threading
from exsearch.retrievers.native import native

started = threading.Event()

def work():
    for number in range(10_000):
        with native():
            started.set()
            ctypes.CDLL(None).usleep(50_000)
            print("done" if number == 0 else "more", flush=True)

threading.Thread(target=work, daemon=True).start()
started.wait()
"""


def test_the_end_waits_for_what_runs_and_begins_nothing():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
