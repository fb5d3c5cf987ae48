"""What a worker of the runner loads."""

from __future__ import annotations

from .core import CELERY
from .factory import create_app

create_app()
app = CELERY
