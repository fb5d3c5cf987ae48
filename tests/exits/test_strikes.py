"""Something strikes at a line of ours between `task_prerun` and the end of `task_postrun`: every task ends.

Here at some lines of each kind; `python -m benchmarks.strikes` does it at all of them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.exits.conftest import DeployExits
from tests.exits.striking import BODIES, count_lines, kinds_of, start, states, wrong

#: At so many lines of each body and kind, unless the environment says at each so-many-th.
_SAMPLE, _EVERY = 12, int(os.environ.get("STRIKES_EVERY", "0"))


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_whatever_strikes_at_a_line_of_ours_every_task_ends(
    deploy_exits: DeployExits, pool: str, tmp_path: Path
) -> None:
    lines = tmp_path / "lines"
    with deploy_exits("sqlite", pool=pool, concurrency=4, environment={"INJECTION_LINES": str(lines)}) as deployment:
        started: dict[int, str] = {}
        # Counted first: what is started then keeps the worker busy for minutes.
        counts = {body: count_lines(deployment, body, lines) for body in BODIES}
        assert min(counts.values()) > 100
        for body, count in counts.items():
            for place, kind in enumerate(kinds_of(pool)):
                step = _EVERY or max(1, count // _SAMPLE)
                for number in range(1 + place % step, count, step):
                    started[start(deployment, f"{kind}:{number}", body)] = f"{kind} at line {number}, {body}"

        found = wrong(deployment, started, 40 + len(started) / 5)
        assert not found, "\n".join(found)

        ended = states(deployment, started)
        assert any("SUCCESS" in found for found in ended.values())
        # Nothing may be known of an end only where even its second recording was kept from running.
        assert [started[task_id] for task_id, found in ended.items() if "LOST" in found] == []
