"""Fixtures for all tests: real servers and workers as local processes."""

from __future__ import annotations

from hypothesis import settings

pytest_plugins = ("pytester", "qhana_taskstate.testing.plugin")

# The machine is shared with servers and workers, so how long one example takes says nothing.
settings.register_profile("taskstate", deadline=None, print_blob=True)
settings.load_profile("taskstate")
