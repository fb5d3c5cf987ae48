"""The promises of the README and of the demo."""

from __future__ import annotations
