# syntax=docker/dockerfile:1
# docker build -t recomendation-anime .      (build arguments: DOMAIN, TORCH_INDEX)
# docker run -p 8000:8000 recomendation-anime
# docker run -p 8000:8000 -v /path/to/data:/data:ro -v factotum:/home/factotum/.factotum recomendation-anime up anime --data /data --host 0.0.0.0

ARG PYTHON=3.11-slim-bookworm

# ---- everything that is needed to install, and nothing of it in the image that runs
FROM python:${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential \
 && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/factotum
ENV PATH=/opt/factotum/bin:$PATH
WORKDIR /src
COPY constraints.txt ./
# an index that holds the CPU build of torch; without it the default index may bring the CUDA build
ARG TORCH_INDEX=""
RUN pip install -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY features features
COPY training training
COPY serving serving
COPY pipelines pipelines
RUN pip install -c constraints.txt ".[postgres,redis,kafka]"
# What numba compiles below is kept under the time of its source, and layers hold whole seconds: without this it would be compiled again.
RUN find /opt/factotum/lib -path '*/site-packages/features/*.py' -exec touch -d '2020-01-01T00:00:00Z' {} + \
 && python -m compileall -q /opt/factotum/lib/python3*/site-packages/features

# ---- what runs
FROM python:${PYTHON} AS runtime
RUN apt-get update \
 && apt-get install -y --no-install-recommends fonts-dejavu-core libgomp1 procps tini \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 factotum
COPY --from=build /opt/factotum /opt/factotum
COPY LICENSE /usr/share/doc/factotum/LICENSE
ENV PATH=/opt/factotum/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FACTOTUM_HOME=/home/factotum/.factotum
USER factotum
WORKDIR /home/factotum
# The search of routes, compiled by and for who runs it: the first start answers at once. On a processor with other instructions than the
# building machine's it is compiled again, and /readyz says 503 until that is done.
RUN python -c "from features.itinerary.search import warm; warm()"
RUN mkdir -p .factotum
VOLUME ["/home/factotum/.factotum"]
EXPOSE 8000
# the first start trains on the sample: minutes on a small machine
HEALTHCHECK --interval=10s --timeout=3s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
STOPSIGNAL SIGTERM
# tini: a first process that passes signals on and collects what ends
ENTRYPOINT ["tini", "--", "factotum"]
# A container listens inside its own network; `docker run -p` decides what is reachable from outside.
CMD ["up", "anime", "--host", "0.0.0.0"]
