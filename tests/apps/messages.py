"""Tasks whose messages get lost or come twice; knows neither app nor worker."""

from __future__ import annotations

from pathlib import Path

from celery import shared_task

from qhana_taskstate import plugin_task


def _note(folder: str, name: str) -> None:
    with (Path(folder) / "begun").open("a") as begun:
        begun.write(f"{name}\n")


@plugin_task(resend=True)
def sent_again(folder: str, word: str = "went on") -> str:
    """Say that it runs; its message is kept."""
    _note(folder, "sent_again")
    return word


@plugin_task
def forgotten(folder: str) -> None:
    """Say that it runs; its message is not kept."""
    _note(folder, "forgotten")


@shared_task
def follows(word: str, folder: str) -> str:
    """Stand at the end of a chain."""
    _note(folder, f"follows {word}")
    return word
