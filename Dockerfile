# ddcm on a CPU or, with --gpus all, on a GPU: torch's wheels contain CUDA, the host provides the driver.
#
#   docker build -t ddcm .
#   docker run --rm --user "$(id -u)" -v "$PWD:/data" ddcm transform /data/examples -o /data/out
#   docker run --rm --gpus all --user "$(id -u)" -v "$PWD:/data" -w /data ddcm fit -c fit.yaml --data.root /data/examples
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends ffmpeg && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY pyproject.toml setup.py requirements.lock README.md LICENSE LICENSES.md ./
COPY checkpoints checkpoints
COPY configs configs
COPY examples examples
COPY ddcm ddcm
RUN pip install --no-cache-dir -c requirements.lock '.[train,report]'
# Works for any --user, because nothing is written below /app. Mount /cache to keep weights and latents.
ENV HOME=/tmp DDCM_CACHE=/cache/ddcm HF_HOME=/cache/huggingface MPLCONFIGDIR=/tmp NUMBA_CACHE_DIR=/tmp
RUN mkdir -m 1777 /cache
VOLUME /cache
ENTRYPOINT ["ddcm"]
