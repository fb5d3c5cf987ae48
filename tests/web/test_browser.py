"""The page in a real browser, against a real worker and a real server."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.testing import LocalProcess, wait_until
from qhana_taskstate.testing.container import LocalWorker
from qhana_taskstate.testing.server import free_port
from tests.apps import jobs
from tests.apps.factory import close_state, make_app

from .browser import chromium, open_page
from .test_serve import _status

ROOT = Path(__file__).parents[2]

SIZES = [(390, 844), (1024, 800), (1600, 900)]


class Deployment(NamedTuple):
    """What the tests of this module share.

    Attributes:
        state: Starts tasks.
        href: Of the server, without a slash at the end.
        browser: The browser.
    """

    state: TaskState
    href: str
    browser: Browser


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, new_redis_url: Callable[[], str]) -> Iterator[Deployment]:
    """A worker, a server, and a browser."""
    folder = tmp_path_factory.mktemp("browser")
    url, broker, backend, port = f"sqlite:///{folder}/taskstate.db", new_redis_url(), new_redis_url(), free_port()
    environment: dict[str, str | None] = {
        "CELERY_BROKER_URL": broker,
        "CELERY_RESULT_BACKEND": backend,
        "TASKSTATE_DATABASE_URL": url,
    }
    app, state = make_app(broker, backend, url)
    app.set_current()
    state.upgrade()
    worker = LocalWorker(
        LocalWorker.command(application="tests.apps.worker"), folder=folder / "worker", env=environment, cwd=ROOT
    )
    everything: dict[str, Any] = {**os.environ, **environment}
    command = ["-m", "celery", "-A", "tests.apps.worker", "taskstate", "serve", "--port", str(port)]
    server = LocalProcess([sys.executable, *command], log_path=folder / "serve.log", cwd=ROOT, env=everything)
    try:
        with chromium() as browser:
            worker.start()
            server.start()
            worker.ready()
            wait_until("the server is ready", lambda: _status(f"http://127.0.0.1:{port}/healthz") == 200, timeout=60)
            yield Deployment(state, f"http://127.0.0.1:{port}", browser)
    finally:
        server.close()
        worker.remove()
        close_state(state)


def page_of(deployment: Deployment, task: ProcessingTask, **options: Any) -> Any:
    return open_page(deployment.browser, f"{deployment.href}/tasks/{task.id}/page", **options)


def test_a_task_is_followed_from_its_start_to_its_end(deployment: Deployment, tmp_path: Path) -> None:
    listed = open_page(deployment.browser, deployment.href)
    task = deployment.state.start(jobs.wait_for_file.s(str(tmp_path / "go"), 60.0), task_name="followed")
    row = listed.locator(".task", has_text="followed")
    expect(row.locator(".badge")).to_have_text("Running")
    row.get_by_role("link", name="followed").click()
    expect(listed.locator(".head .badge")).to_have_text("Running")
    (tmp_path / "go").touch()
    expect(listed.locator(".head .badge")).to_have_text("Succeeded")
    expect(listed.locator(".run")).to_have_count(1)
    expect(listed).to_have_title(f"Succeeded: followed {task.id}")
    listed.context.close()


def test_a_step_says_where_to_answer(deployment: Deployment) -> None:
    task = deployment.state.start(jobs.ask.s("clusters"), task_name="dialogue")
    deployment.state.wait(task.id, timeout=30, or_step=True)
    page = page_of(deployment, task)
    expect(page.locator(".head .badge")).to_have_text("Waits for you")
    expect(page.locator(".ask")).to_contain_text("clusters")
    page.context.close()


def test_a_failure_shows_its_cause_and_its_traceback(deployment: Deployment) -> None:
    task = deployment.state.start(jobs.fail.s("the museum is closed"), task_name="doomed")
    deployment.state.wait(task.id, timeout=30)
    page = open_page(deployment.browser, f"{deployment.href}/?show=failed")
    expect(page.locator(".task", has_text="doomed").locator(".what")).to_contain_text("the museum is closed")
    page.get_by_role("link", name="doomed").click()
    expect(page.locator(".cause")).to_contain_text("ValueError: the museum is closed")
    page.get_by_text("Traceback", exact=True).click()
    expect(page.locator(".run pre")).to_contain_text("jobs.py")
    page.context.close()


def test_a_task_is_cancelled_and_the_list_hears_of_it(deployment: Deployment, tmp_path: Path) -> None:
    task = deployment.state.start(jobs.wait_for_file.s(str(tmp_path / "never"), 3.0), task_name="unwanted")
    listed = open_page(deployment.browser, deployment.href)
    page = page_of(deployment, task)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .badge")).to_have_text("Failed")
    expect(listed.locator(".task", has_text="unwanted").locator(".badge")).to_have_text("Failed")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    page.context.close()
    listed.context.close()


def test_a_failed_task_is_started_again(deployment: Deployment) -> None:
    task = deployment.state.start(jobs.fail_again.s("out of luck"), task_name="hopeless")
    deployment.state.wait(task.id, timeout=30)
    page = page_of(deployment, task)
    page.get_by_role("button", name="Start again").click()
    expect(page.locator("#outputs")).to_contain_text("restart-of")
    expect(page.locator(".head .badge")).to_have_text("Failed")
    assert page.url != f"{deployment.href}/tasks/{task.id}/page"
    page.context.close()


def test_several_are_cancelled_at_once(deployment: Deployment) -> None:
    tasks = [ProcessingTask(f"many {number}") for number in range(3)]
    for task in tasks:
        task.save(commit=True)
    page = open_page(deployment.browser, f"{deployment.href}/?show=open&search=many")
    for task in tasks[:2]:
        page.locator(f"#pick{task.id}").check()
    page.get_by_role("button", name="Cancel the chosen tasks").click()
    expect(page.locator(".task")).to_have_count(1)
    page.context.close()


def test_a_log_of_20000_lines_is_whole_found_in_and_quick(deployment: Deployment) -> None:
    log = "\n".join(f"line {number} of a long log with some words in it" for number in range(20_000))
    task = ProcessingTask("talkative", task_log=log)
    task.save(commit=True)
    page = page_of(deployment, task)
    expect(page.locator("#log")).to_contain_text("line 19999 of")
    wait_until("all lines are there", lambda: "line 0 of" in page.locator("#log pre").text_content())
    # Frames while it is scrolled from end to end; a slow one takes much longer than a sixtieth of a second.
    slowest = page.evaluate(
        """async () => {
            const log = document.getElementById("log");
            let slowest = 0, last = performance.now();
            for (let step = 0; step < 60; step++) {
                log.scrollTop = log.scrollHeight * step / 60;
                await new Promise(requestAnimationFrame);
                slowest = Math.max(slowest, performance.now() - last);
                last = performance.now();
            }
            return slowest;
        }"""
    )
    assert slowest < 500
    page.locator("#find").fill("line 1234 ")
    expect(page.locator("#found")).to_have_text("1 line of 20,000")
    task.add_task_log_entry("and one more", commit=True)
    page.locator("#find").fill("")
    expect(page.locator("#log")).to_contain_text("and one more")
    page.context.close()


def test_all_of_it_works_without_a_script(deployment: Deployment) -> None:
    task = ProcessingTask("plain", task_log="first\nsecond")
    task.save(commit=True)
    page = open_page(deployment.browser, f"{deployment.href}/?search=plain", java_script_enabled=False)
    page.get_by_role("link", name="plain").click()
    expect(page.locator("#log")).to_contain_text("first")
    page.locator("#find").fill("second")
    page.get_by_role("button", name="Find").click()
    expect(page.locator("#log")).not_to_contain_text("first")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .badge")).to_have_text("Failed")
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_shut_out(deployment: Deployment, scheme: Any) -> None:
    task = deployment.state.start(jobs.log_then_fail.s(), task_name="inspected")
    deployment.state.wait(task.id, timeout=30)
    for width, height in SIZES:
        viewport: Any = {"width": width, "height": height}
        for path in ("/", f"/tasks/{task.id}/page", "/?search=nothing%20like%20it", "/openapi", "/tasks/999999/page"):
            page = open_page(deployment.browser, deployment.href + path, color_scheme=scheme, viewport=viewport)
            found = Axe().run(page).response["violations"]
            assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == [], (path, width)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
            page.context.close()


def test_times_are_those_of_the_reader(deployment: Deployment) -> None:
    task = ProcessingTask("timed")
    task.save(commit=True)
    told = {
        zone: page.locator("dd time").first.text_content()
        for zone in ("Asia/Tokyo", "America/New_York")
        for page in [page_of(deployment, task, timezone_id=zone, locale="en-GB")]
    }
    assert told["Asia/Tokyo"] != told["America/New_York"]
    for context in deployment.browser.contexts:
        context.close()
