"""Strike once at every line of ours between `task_prerun` and the end of `task_postrun`; see `--help`.

The long form of `tests/exits/test_strikes.py`, which does it at some lines. Takes about a quarter of an hour.
"""

from __future__ import annotations

import argparse
import os
import sys

import pytest


def main() -> int:
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.strikes", description=__doc__)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="strike at each N-th line (default 1)")
    parser.add_argument("--pool", choices=("prefork", "threads"), help="in this pool only")
    arguments = parser.parse_args()
    os.environ["STRIKES_EVERY"] = str(arguments.every)
    options = ["-n", "0", "-p", "no:cacheprovider", "-o", "timeout=0", "-rA"]
    if arguments.pool:
        options += ["-k", arguments.pool]
    return int(pytest.main([*options, "tests/exits/test_strikes.py"]))


if __name__ == "__main__":
    sys.exit(main())
