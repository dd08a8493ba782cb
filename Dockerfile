# One image for docker-compose.yml's init, MLflow server and workers.
#
#   docker build .                            torch for CPUs
#   docker build --build-arg DEVICE=cuda .    torch with CUDA, for NVIDIA GPUs
#   docker build --build-arg EXTRAS=postgres,server,cmaes,ray .    with other extras of pyproject.toml

FROM python:3.11-slim AS build
ARG DEVICE=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/tuner
WORKDIR /src
COPY constraints.txt ./
# torch first, in a layer that changes with its version only. PyPI's has CUDA for Linux.
RUN case "$DEVICE" in \
      cpu) index=https://download.pytorch.org/whl/cpu ;; \
      cuda) index=https://pypi.org/simple ;; \
      *) echo "DEVICE must be cpu or cuda, but got '$DEVICE'." >&2; exit 2 ;; \
    esac \
    && /opt/tuner/bin/pip install -c constraints.txt --index-url "$index" torch
COPY . .
# What docker-compose.yml needs: PostgreSQL's driver, MLflow's server with users, and the sampler cmaes.
ARG EXTRAS=postgres,server,cmaes
RUN /opt/tuner/bin/pip install -c constraints.txt ".[${EXTRAS}]"

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin tuner \
    && install --directory --owner tuner --group tuner --mode 0750 /var/lib/tuner /var/lib/mlflow \
    && install --directory /code
COPY --from=build /opt/tuner /opt/tuner
# /tmp is the one place that a read-only root leaves (a tmpfs): home of the password file, written at the start.
ENV PATH=/opt/tuner/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    PGPASSFILE=/tmp/.pgpass \
    TUNER_HOME=/var/lib/tuner \
    MLFLOW_DISABLE_TELEMETRY=true \
    DO_NOT_TRACK=true
WORKDIR /code
USER 10001:10001
ENTRYPOINT ["python", "-P", "-m", "tuner.container"]
CMD ["tuner", "--help"]
