"""Makes the pictures of the README from a real run of the demo: `python docs/screenshots.py`. Needs Chromium."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from qhana_taskstate import ProcessingTask
from qhana_taskstate.demo import jobs
from qhana_taskstate.demo.deployment import deployed

IMAGES = Path(__file__).parent / "images"


def main() -> int:
    """Run the demo's jobs, and take the pictures at the moments that they show.

    Returns:
        The exit code.
    """
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        print("no Chromium is installed", file=sys.stderr)
        return 1
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        with deployed(Path(name), concurrency=2) as deployment:
            started = jobs.start_jobs([jobs.shipped_data_set()], Path(name), deployment.receiver.href())
            clustering = started[0].task_id
            _wait(lambda: _load(clustering).has_uncleared_step and all(job.load().is_finished for job in started[1:]))
            _take(browser, deployment.page, "list-light.png", "light", 1280, 420)
            _take(browser, deployment.page, "list-phone.png", "dark", 390, 720)
            jobs.answer(clustering, 4)
            _wait(lambda: _load(clustering).is_finished)
            _take(browser, f"{deployment.page}tasks/{clustering}/page", "task-light.png", "light", 1280, 1180)
            _take(browser, f"{deployment.page}tasks/{clustering}/page", "task-dark.png", "dark", 1280, 1180)
        browser.close()
    return 0


def _take(browser: Browser, href: str, name: str, scheme: str, width: int, height: int) -> None:
    context = browser.new_context(
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": width, "height": height},
        locale="en-GB",
    )
    page = context.new_page()
    page.goto(href)
    # Until the stream is open, and the log is there.
    page.wait_for_timeout(1500)
    page.screenshot(path=str(IMAGES / name))
    context.close()


def _load(task_id: int) -> ProcessingTask:
    task = ProcessingTask.get_by_id(task_id)
    if task is None:
        raise LookupError(task_id)
    return task


def _wait(over: Callable[[], bool]) -> None:
    while not over():
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
