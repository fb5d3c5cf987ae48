"""Local processes that are supervised, so that nothing of them outlives the tests."""

from __future__ import annotations

from qhana_taskstate.testing.process.local_process import LocalProcess, ProcessError
from qhana_taskstate.testing.process.procfs import child_pids, descendant_pids
from qhana_taskstate.testing.process.signals import signal_number

__all__ = ["LocalProcess", "ProcessError", "child_pids", "descendant_pids", "signal_number"]
