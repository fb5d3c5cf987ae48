"""Fixtures for all tests: real servers and workers as local processes."""

from __future__ import annotations

pytest_plugins = ("pytester", "qhana_taskstate.testing.plugin")
