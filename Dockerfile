# One image for every service; the command selects the service.
FROM python:3.13.5-slim AS build
COPY requirements.lock /build/
RUN python -m venv /app/venv \
    && /app/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r /build/requirements.lock
# A clone has file modes by its owner's umask, and the image runs as another user.
COPY shared /app/shared
COPY services /app/services
COPY examples /app/examples
COPY docs/runbook.md /app/docs/
COPY deploy/answers deploy/alive /app/bin/
RUN chmod -R a+rX /app && chmod a+x /app/bin/*

FROM python:3.13.5-slim
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="Order Fellow" org.opencontainers.image.version=$VERSION
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin fellow \
    && printf '#!/bin/sh\nexec python -m services.ops "$@"\n' > /usr/local/bin/fellow \
    && chmod 755 /usr/local/bin/fellow
COPY --from=build /app/bin /usr/local/bin
COPY --from=build /app/venv /app/venv
COPY --from=build /app/shared /app/shared
COPY --from=build /app/services /app/services
COPY --from=build /app/examples /app/examples
COPY --from=build /app/docs /app/docs
WORKDIR /app
ENV PATH=/app/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ENVIRONMENT=production \
    LOG_FORMAT=json \
    HEALTH_FILE=/tmp/alive \
    HOST=0.0.0.0
USER fellow
CMD ["python", "-m", "services.ingress"]
