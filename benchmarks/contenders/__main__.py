"""Send the tasks of one contender on request: `python -m benchmarks.contenders NAME`, one JSON object a line.

A process of its own for each contender: an application and its settings belong to a process. A request is
`{"kind": ..., "count": ...}`, its answer `{"messages": ..., "seconds": ...}`; or `{"control": "add-consumer" or
"cancel-consumer", "queue": ...}`, answered by `{}`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time

from celery import Celery


def _control(app: Celery, word: str, queue: str) -> None:
    """Let the worker serve its queue, or not. Serving begins with the call, not with the worker's answer."""
    if word == "add-consumer":
        app.control.add_consumer(queue)
    else:
        app.control.cancel_consumer(queue, reply=True)


def main() -> None:
    """Serve requests until the input ends."""
    contender = importlib.import_module(f"benchmarks.contenders.{sys.argv[1]}")
    contender.prepare()
    print(json.dumps({"kinds": list(contender.KINDS)}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "control" in request:
            _control(contender.app, request["control"], request["queue"])
            print(json.dumps({}), flush=True)
            continue
        gc.collect()
        began = time.perf_counter()
        messages = contender.KINDS[request["kind"]](request["count"])
        print(json.dumps({"messages": messages, "seconds": time.perf_counter() - began}), flush=True)
    # Results that nobody asked for would complain that the interpreter is going down (Celery 5.7).
    os._exit(0)


if __name__ == "__main__":
    main()
