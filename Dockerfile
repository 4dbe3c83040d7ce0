# One image for every role: `docker run millrace run features pipeline.toml`.
FROM python:3.11-slim-bookworm

WORKDIR /app

# The lock pins what the package asks for, and installs nothing that only tests need.
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY streams streams
COPY models models
COPY consumers consumers
COPY serving serving
RUN pip install --no-cache-dir --disable-pip-version-check --constraint requirements.lock ".[http,report,select,train]"

COPY examples examples

# Compiled kernels are kept where an unprivileged user may write; the state directory must be a volume.
ENV NUMBA_CACHE_DIR=/app/cache PYTHONUNBUFFERED=1
RUN useradd --system --create-home millrace && mkdir -p cache state && chown millrace:millrace cache state
USER millrace
VOLUME /app/state
EXPOSE 9100

ENTRYPOINT ["millrace"]
CMD ["--help"]
