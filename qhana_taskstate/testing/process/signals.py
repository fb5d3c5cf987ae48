"""Signals by the names that Docker's API gives them."""

from __future__ import annotations

import signal


def signal_number(name: str | int | None) -> signal.Signals:
    """Read a signal as Docker's API writes it.

    Args:
        name: "SIGTERM", "TERM", 15, "15"; None means SIGKILL.

    Raises:
        ValueError: No signal has this name or number.
    """
    if name is None:
        return signal.SIGKILL
    text = str(name).strip().upper()
    if text.isdigit():
        return signal.Signals(int(text))
    try:
        return signal.Signals[text if text.startswith("SIG") else f"SIG{text}"]
    except KeyError:
        raise ValueError(f"{name!r} is no signal; pass a name such as 'SIGTERM' or a number") from None
