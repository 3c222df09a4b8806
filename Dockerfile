# A worker for one NVIDIA GPU:
#   docker build -t svlm-jax:0.2.0 .
#   docker run --gpus all -p 127.0.0.1:8000:8000 -e SVLM_API_KEY=... -v models:/models svlm-jax:0.2.0 \
#     serve --model mit-han-lab/StreamingVLM --host 0.0.0.0
FROM python:3.12-slim

RUN useradd --create-home --uid 1000 svlm && mkdir /models /snapshots && chown svlm /models /snapshots
WORKDIR /opt/svlm
COPY pyproject.toml setup.py requirements.txt README.md LICENSE NOTICE ./
COPY svlm_jax svlm_jax
COPY pallas_kernels pallas_kernels
COPY configs configs
COPY launch launch
RUN pip install --no-cache-dir '.[cuda,serve]'

USER svlm
ENV HF_HOME=/models
EXPOSE 8000
HEALTHCHECK --start-period=15m CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz')"]
ENTRYPOINT ["svlm"]
CMD ["--help"]
