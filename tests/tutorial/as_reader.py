"""Does what a page says, block after block, in one shell."""

from __future__ import annotations

import sys
from typing import Final

from qhana_taskstate.testing import LocalProcess
from qhana_taskstate.testing.server import free_port

from ..waiting import wait_until
from .project import README_BROKER, Project
from .readme import Block, read_blocks

#: Commands that CI runs for real, in a fresh clone: what they install and show is there.
_RUN_BY_CI: Final = frozenset(("demo", "test", "install"))

_ANNOUNCED: Final = "echo '=='\n"


def run_as_reader(project: Project, page: str, name: str) -> list[str]:
    """Run the blocks of one project of a page, and its commands, in their order.

    Args:
        project: Its folder stands for the checkout. The files are written again, by the shell.
        page: The page.
        name: The project in its blocks.

    Returns:
        What each shell block, Python block and shown output printed.
    """
    port = str(free_port())
    checkout = project.folder
    (checkout / ".venv").symlink_to(sys.prefix)
    script = "\n".join(_steps([block for block in read_blocks(page) if block.project in (name, "command")]))
    script = script.replace(README_BROKER, f"redis://localhost:{port}/0").replace("--port 6379", f"--port {port}")
    shell = LocalProcess(
        ["bash", "-euo", "pipefail", "-c", script],
        log_path=checkout / "log",
        cwd=checkout,
        env=project.environment | {"VIRTUAL_ENV_DISABLE_PROMPT": "1", "PS1": ""},
    )
    shell.start()
    try:
        code = shell.wait(90)
        # The last line asks Redis to end, and does not wait for it.
        wait_until("nothing of the page runs any more", lambda: not shell.descendants())
    finally:
        shell.close()
    log = shell.logs()
    assert code == 0, log
    return log.split("==\n")[:-1]


def _steps(blocks: list[Block]) -> list[str]:
    """Return what is done for each block; files that are shown before there is a folder are written into it."""
    steps: list[str] = []
    waiting: list[str] = []
    inside = False
    for block in blocks:
        match block.role.split():
            case ["file", name]:
                (steps if inside else waiting).append(f"cat > {name} <<'END'\n{block.code}END")
            case ["enter"]:
                steps += [block.code, *waiting]
                inside = True
            case [word] if word in _RUN_BY_CI:
                continue
            case ["shell"]:
                steps.append(block.code + _ANNOUNCED)
            case ["shell", "that", "fails"]:
                steps.append(f"! {block.code}{_ANNOUNCED}")
            case ["python"]:
                steps.append(f"python - <<'END'\n{block.code}END\n{_ANNOUNCED}")
            case ["output", "of", *words] if inside:
                steps.append(f"celery -A worker taskstate {' '.join(words)}\n{_ANNOUNCED}")
            case _:
                # Shown before anything has run.
                continue
    return steps
