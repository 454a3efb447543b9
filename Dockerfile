# The search page in a container:
#
#     docker build -t asmk-engine .
#     docker run --rm -p 127.0.0.1:8765:8765 -v "$PWD/collection:/collection:ro" -e ASMK_ENGINE_TOKEN=... asmk-engine
#
# PyTorch has an index of builds without CUDA, which make the image some gigabytes smaller:
# `--build-arg PIP_EXTRA_INDEX_URL=...`. /collection holds one index or several, and their photographs at the paths relative to them that they were indexed at.
# With `--writable` mount it without `:ro`, as a volume of user 10001.
FROM python:3.12-slim AS build
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
ARG PIP_EXTRA_INDEX_URL
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir \
        "asmk-engine[cpu,serve] @ file://$(ls /wheels/asmk_engine-*.whl)" \
    && useradd --uid 10001 --create-home asmk
USER 10001
ENV NUMBA_CACHE_DIR=/tmp/numba
EXPOSE 8765
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8765/health', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["asmk-engine", "serve", "--host", "0.0.0.0", "--no-browser"]
CMD ["/collection"]
