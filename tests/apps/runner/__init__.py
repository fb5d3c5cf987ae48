"""An application that has the shape of QHAna's plugin runner: a factory, Celery tasks in its context, migrations.

It has the faults of the runner too: nothing here knows `qhana_taskstate` but for one line in the factory.
"""
