# ddcm on a CPU or, with --gpus all, on a GPU: torch's wheels bring CUDA, the host brings the driver.
#
#   docker build -t ddcm .
#   docker run --rm --user "$(id -u)" -v "$PWD:/data" ddcm transform /data/examples -o /data/out
#   docker run --rm --gpus all --entrypoint python ddcm train.py fit -c configs/fit.yaml --data.root examples
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends ffmpeg && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY pyproject.toml requirements.lock README.md LICENSE LICENSES.md ./
COPY ddcm ddcm
RUN pip install --no-cache-dir -c requirements.lock -e '.[train,report]'
COPY train.py infer.py ./
COPY configs configs
COPY examples examples
COPY checkpoints checkpoints
# For any --user: nothing is written below /app; mount /cache to keep weights and latents.
ENV HOME=/tmp DDCM_CACHE=/cache/ddcm HF_HOME=/cache/huggingface MPLCONFIGDIR=/tmp NUMBA_CACHE_DIR=/tmp
RUN mkdir -m 1777 /cache
VOLUME /cache
ENTRYPOINT ["ddcm"]
