"""A real browser: Chromium of the system, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

#: Names of Chromium in Debian and elsewhere.
_NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser. Where the system has none, the test is skipped, or fails where the variable CI is set."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        reason = f"no browser is installed (looked for {', '.join(_NAMES)})"
        if os.environ.get("CI"):
            pytest.fail(f"{reason} (a failure, since CI is set)", pytrace=False)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        # As root, and in containers, there is no sandbox to be had.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


def open_page(browser: Browser, href: str, **options: Any) -> Page:
    """Open a page in a profile of its own; whatever goes wrong in its scripts ends the test.

    Args:
        browser: The browser.
        href: What to open.
        options: Of the profile, such as `java_script_enabled`, `color_scheme`, `viewport`.
    """
    context = browser.new_context(**options)
    context.set_default_timeout(20_000)
    page = context.new_page()
    page.on("pageerror", _fail)
    page.goto(href)
    return page


def _fail(error: Any) -> None:
    raise AssertionError(f"the page's script failed: {error}")
