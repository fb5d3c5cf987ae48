"""The commands, a module for each group of them; a new module is imported here, so that its commands are known."""

from __future__ import annotations

from . import end as end
from . import operations as operations
from . import start as start
from . import tasks as tasks
from . import webhooks as webhooks
