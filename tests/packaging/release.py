"""Build the sdist and the wheel, check what is in them, and try them in empty environments: `python -m` this module.

Each extra for users is installed into a copy of the environment that has the wheel alone, and tried. No test among
others, since it installs packages. It needs `build` and `hatchling` (extra `dev`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import venv
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]

#: Extras of those who work on the project; CI installs them elsewhere.
TOOLS: Final = frozenset(("test", "benchmarks", "dev", "docs"))

#: Files of the repository that a source distribution does without.
NOT_IN_SDIST: Final = (".gitignore", ".pre-commit-config.yaml")

_PLUGIN: Final = """
from qhana_taskstate import plugin_task, track
@plugin_task(name="count")
def count(most):
    return str(sum(1 for _ in track(range(most), unit="things")))
"""
_WORKER: Final = """
from celery import Celery
from qhana_taskstate import TaskState
app = Celery("worker", broker="memory://", backend="cache+memory://", include=["plugin"])
app.conf.task_always_eager = True
taskstate = TaskState(app, database_url="sqlite:///taskstate.db")
"""
#: What is tried where the wheel alone is installed: a task from its start to its row, and the command line.
BARE: Final = (
    'python -c "import worker; worker.taskstate.upgrade(); from plugin import count; '
    "task = count.start(3); assert (task.status, task.task_log) == ('SUCCESS', '3'), task.status\"",
    "celery -A worker taskstate upgrade",
    "celery -A worker taskstate show 1",
    "celery -A worker taskstate doctor --help",
    'python -c "import qhana_taskstate as q; [getattr(q, name) for name in q.__all__]"',
    # What an extra is needed for says which one.
    "! celery -A worker taskstate serve 2>&1 | tee serve.txt; grep -q 'qhana_taskstate\\[web\\]' serve.txt",
)
#: What is tried with each extra.
EXTRAS: Final[dict[str, tuple[str, ...]]] = {
    "postgresql": (
        "python -c \"from sqlalchemy import create_engine; create_engine('postgresql+psycopg://a:b@127.0.0.1/c')\"",
    ),
    "mysql": ("python -c \"from sqlalchemy import create_engine; create_engine('mysql+pymysql://a:b@127.0.0.1/c')\"",),
    "gevent": ('python -c "import celery.concurrency.gevent, qhana_taskstate"',),
    "flask": (
        'python -c "from flask_sqlalchemy import SQLAlchemy; from celery import Celery; '
        "from qhana_taskstate import TaskState; TaskState(Celery('x'), session=SQLAlchemy().session)\"",
    ),
    "web": (
        "celery -A worker taskstate serve --help",
        'python -c "from flask import Flask; from qhana_taskstate.web import task_blueprint; import worker; '
        "web = Flask('web'); web.register_blueprint(task_blueprint(worker.taskstate)); "
        "assert web.test_client().get('/').status_code == 403\"",
    ),
    "metrics": ('python -c "import prometheus_client, qhana_taskstate"',),
    "qhana": ('python -c "import qhana_taskstate.qhana"',),
    "demo": ("python -m qhana_taskstate.demo --help",),
    "testing": (
        "echo 'pytest_plugins = [\"qhana_taskstate.testing.plugin\"]' > conftest.py",
        "printf 'from plugin import count\\n\\n\\ndef test_it(taskstate, taskstate_worker):\\n"
        '    assert taskstate.wait(count.start(2).id, timeout=30).status == "SUCCESS"\\n\' > test_it.py',
        "python -m pytest -q --taskstate-databases=sqlite test_it.py",
    ),
}


def project() -> dict[str, Any]:
    """Return the table `project` of pyproject.toml."""
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def extras_for_users() -> list[str]:
    """Return the extras that are installed by those who use the package."""
    return [name for name in project()["optional-dependencies"] if name not in TOOLS]


def tracked(*paths: str) -> set[str]:
    """Return the files that git knows below some paths."""
    done = subprocess.run(
        ["/usr/bin/env", "git", "ls-files", "-z", *paths], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return {name for name in done.stdout.split("\0") if name}


def check_contents(sdist: Path, wheel: Path) -> list[str]:
    """Compare what was built with what git knows. Returns what is wrong."""
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames() if not archive.getmember(name).isdir()}
    with zipfile.ZipFile(wheel) as zipped:
        in_wheel = set(zipped.namelist())
        about = f"qhana_taskstate-{project()['version']}.dist-info"
        metadata = zipped.read(f"{about}/METADATA").decode()
    faults = _compared("sdist", in_sdist - {"PKG-INFO"}, tracked() - set(NOT_IN_SDIST))
    code = {name for name in in_wheel if not name.startswith(f"{about}/")}
    faults += _compared("wheel", code, tracked("qhana_taskstate"))
    for name in ("entry_points.txt", "licenses/LICENSE"):
        if f"{about}/{name}" not in in_wheel:
            faults.append(f"wheel lacks {name}")
    for line in (f"Version: {project()['version']}", *(f"Provides-Extra: {name}" for name in extras_for_users())):
        if line not in metadata.splitlines():
            faults.append(f"its metadata lack {line!r}")
    return faults


def _compared(what: str, found: set[str], wanted: set[str]) -> list[str]:
    return [f"{what} lacks {name}" for name in sorted(wanted - found)] + [
        f"{what} holds {name}, which git does not know" for name in sorted(found - wanted) if name != ".gitignore"
    ]


class Environment:
    """An environment of its own, with a folder in which it is tried."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"

    def install(self, what: str) -> None:
        """Install something with the project's constraints, and let pip check all of it.

        Raises:
            subprocess.CalledProcessError: If it cannot be installed, or does not go together.
        """
        pip = [str(self.python), "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "-q", "--no-compile", "-c", str(ROOT / "constraints.txt"), what], check=True)
        subprocess.run([*pip, "check"], check=True, stdout=subprocess.DEVNULL)

    def copy(self, folder: Path) -> Environment:
        """Return a copy. Its scripts are run by `python -m`, since they name the first one."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Environment(folder)

    def megabytes(self) -> float:
        """Return how large its packages are, pip left out."""
        (packages,) = self.folder.glob("lib/python*/site-packages")
        files = (
            path for path in packages.rglob("*") if path.is_file() and "pip" not in path.relative_to(packages).parts
        )
        return sum(path.stat().st_size for path in files) / 1e6

    def try_out(self, commands: tuple[str, ...]) -> str | None:
        """Run commands in a new folder. Returns what the first one printed that failed."""
        work = self.folder / "work"
        work.mkdir()
        (work / "plugin.py").write_text(_PLUGIN)
        (work / "worker.py").write_text(_WORKER)
        environment = {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "HOME": str(work), "LANG": "C.UTF-8"}
        script = f'celery() {{ {self.python} -m celery "$@"; }}\n' + "\n".join(commands)
        done = subprocess.run(
            ["/bin/bash", "-euxo", "pipefail", "-c", script],
            cwd=work,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return None if done.returncode == 0 else done.stdout + done.stderr


def build(folder: Path) -> tuple[Path, Path]:
    """Build the source distribution, and the wheel from that. Returns their paths."""
    subprocess.run([sys.executable, "-m", "build", "-n", "-o", str(folder), str(ROOT)], check=True, capture_output=True)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def try_extra(extra: str, wheel: Path, bare: Environment, folder: Path) -> str | None:
    """Install the wheel with an extra into a copy of the environment without extras. Returns what is wrong."""
    one = bare.copy(folder / extra)
    one.install(f"{wheel}[{extra}]")
    print(f"with {extra}: {one.megabytes():.0f} MB", flush=True)
    told = one.try_out(EXTRAS[extra])
    shutil.rmtree(one.folder)
    return None if told is None else f"with {extra}:\n{told}"


def main() -> int:
    """Build, check and try; prints how large what is installed is. Returns the exit code."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="release-") as name:
        folder = Path(name)
        sdist, wheel = build(folder / "dist")
        faults = check_contents(sdist, wheel)
        print(f"{sdist.name}: {sdist.stat().st_size / 1e3:.0f} kB, {wheel.name}: {wheel.stat().st_size / 1e3:.0f} kB")
        venv.create(folder / "bare", with_pip=True)
        bare = Environment(folder / "bare")
        bare.install(str(wheel))
        print(f"without extras: {bare.megabytes():.0f} MB", flush=True)
        with ThreadPoolExecutor(max_workers=2) as threads:
            told = threads.map(lambda extra: try_extra(extra, wheel, bare, folder), extras_for_users())
            faults += [text for text in told if text is not None]
        alone = bare.try_out(BARE)
        if alone is not None:
            faults.append(f"without extras:\n{alone}")
    print("\n".join(faults) or f"no fault, after {time.monotonic() - begun:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
