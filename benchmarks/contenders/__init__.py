"""What is compared: one small Celery application each, with the same kinds of tasks.

A module here has `app`, `prepare()`, which makes what the application keeps its state in, and `KINDS`: for each kind of
task a call that sends a number of them and returns how many messages a worker will have received in the end. The
modules read `CELERY_BROKER_URL`, `CELERY_RESULT_URL` and `TASKSTATE_DATABASE_URL` when they are imported.
"""
