# The image of our own services. What it installs is what was tested: requirements/run.lock, by hash.
FROM python:3.13.15-slim-bookworm AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
RUN python -m venv /opt/siteward
# Libraries first: they change less often than our own source, and take most of the time.
COPY requirements/run.lock requirements/
RUN /opt/siteward/bin/pip install --require-hashes --no-deps --requirement requirements/run.lock
COPY pyproject.toml README.md LICENSE ./
COPY siteward/ siteward/
COPY collectors/ collectors/
COPY monitoring/ monitoring/
COPY accounting/ accounting/
COPY dashboards/ dashboards/
# What only builds stays behind.
RUN /opt/siteward/bin/pip install --no-deps --no-build-isolation --no-index . \
    && /opt/siteward/bin/pip uninstall --yes hatchling editables trove-classifiers pip

FROM python:3.13.15-slim-bookworm

# openssl comes with the base image; the composition's first start makes certificates with it.
RUN openssl version \
    && groupadd --gid 10001 siteward \
    && useradd --uid 10001 --gid siteward --home-dir /var/lib/siteward --no-create-home --shell /usr/sbin/nologin siteward \
    && install --directory --owner siteward --group siteward --mode 0700 /var/lib/siteward
COPY --from=build /opt/siteward /opt/siteward

ENV PATH=/opt/siteward/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 SITEWARD_DATA=/var/lib/siteward
USER 10001:10001
WORKDIR /var/lib/siteward
EXPOSE 8080 9469
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import sys; from siteward.client import Client; sys.exit(not Client(timeout=5).alive())"]
ENTRYPOINT ["siteward"]
CMD ["up"]
