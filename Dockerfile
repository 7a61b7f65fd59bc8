# MockPay with its embedded PostgreSQL. `docker compose up` starts it beside a PostgreSQL of its own instead.
#
#   docker build --tag mockpay .
#   docker run --init --publish 127.0.0.1:3000:3000 --volume mockpay:/data mockpay
#
# docs/operations.md, "In a container", says the rest.

# The version of Python that the tests run on.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build

WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/mockpay
# The exact versions, with hashes, and none that would have to be compiled. They change less often than the source, so
# they are a layer of their own.
COPY constraints/run.txt constraints/
RUN /opt/mockpay/bin/python -m pip install --require-hashes --no-deps --only-binary :all: --requirement constraints/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/mockpay/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/mockpay/bin/python -m pip install --no-deps --no-index dist/*.whl \
    && /opt/mockpay/bin/python -m pip uninstall --yes pip

FROM python:${PYTHON}-slim-bookworm

LABEL org.opencontainers.image.title="MockPay" \
      org.opencontainers.image.description="A payment gateway simulator for developers: real states, real webhooks, faults on demand, no money." \
      org.opencontainers.image.licenses="MIT"

# PostgreSQL's initdb wants a name for the user that it runs as, and one that is given with --user has none; this library
# lends it one. The version is Debian's: the archive keeps no other, so that a pinned one would be gone with the next.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libnss-wrapper \
    && rm -rf /var/lib/apt/lists/*

# Of the group 0, as any user is whom the image does not know (docker run --user 12345, OpenShift), and that group may write
# to the data folder. Nothing else has to be written to but /tmp.
RUN useradd --uid 10001 --gid 0 --home-dir /data --no-create-home --shell /usr/sbin/nologin mockpay \
    && install --directory --owner=10001 --group=0 --mode=0770 /data
COPY --from=build /opt/mockpay /opt/mockpay

ENV PATH=/opt/mockpay/bin:$PATH \
    HOME=/data \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MOCKPAY_HOST=0.0.0.0 \
    MOCKPAY_DATA_DIR=/data
VOLUME /data
EXPOSE 3000
USER 10001:0
STOPSIGNAL SIGTERM
# Asks the process itself, past any proxy of the environment. It is for `serve` and `api`; `worker` serves no HTTP.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:%s/health' % (os.environ.get('MOCKPAY_PORT') or 3000), timeout=4)"]
ENTRYPOINT ["mockpay"]
CMD ["serve"]
