"""Real servers and workers under load while faults strike at random: `python -m benchmarks.chaos --help`.

`plans` says what is started and how it has to end, `app` is what the workers run, `client` starts plans, `faults`
strikes, `evidence` is what really happened beside the system under test, `verdict` judges,
`report` prints.
"""

from __future__ import annotations

from typing import Final

#: Names in the environment: the seed, the folder of the evidence, and the address of the receiver of webhooks.
SEED: Final = "CHAOS_SEED"
FOLDER: Final = "CHAOS_FOLDER"
HOOK: Final = "CHAOS_HOOK"

#: Name of the file that ends the load.
STOP: Final = "stop"
