# The worker and the web server of a deployment. Build: docker build -t qhana-taskstate .
ARG PYTHON_VERSION=3.11
FROM python:${PYTHON_VERSION}-slim

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /app
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY qhana_taskstate ./qhana_taskstate
RUN pip install -c constraints.txt ".[postgresql,mysql,web,metrics]"
COPY worker.py ./

# /data is for what tasks write; a deployment mounts a volume there.
RUN useradd --create-home --uid 10001 worker && install -d -o worker -g worker /data
USER worker
VOLUME /data

# The exec form, so that Celery gets SIGTERM itself and ends its running tasks in peace.
STOPSIGNAL SIGTERM
CMD ["celery", "-A", "worker", "worker", "--loglevel", "INFO"]
