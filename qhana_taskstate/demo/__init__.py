"""A worked example: plugin tasks on a real data set, and a runner that shows them at work.

`python -m qhana_taskstate.demo` brings a broker, a database and a worker of its own.
"""

from __future__ import annotations
