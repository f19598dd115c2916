FROM python:3.12-slim

# Where torch comes from. The default is the CPU build; https://pypi.org/simple has the CUDA build (x86-64).
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# In a layer of its own, and first: the largest download does not depend on our code.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --index-url "$TORCH_INDEX" "torch>=2.8,<2.14"
COPY . /src
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install "/src[all]"

RUN useradd --uid 1000 --no-create-home dppo \
    && install --directory --owner dppo --group dppo /data /checkpoints

# HOME and USER: compose may run this under a user id that has neither a home nor a name in here.
ENV HOME=/tmp USER=dppo PYTHONUNBUFFERED=1 \
    DPPO_DATA_DIR=/data DPPO_CHECKPOINT_ROOTS=/checkpoints HF_HOME=/data/huggingface
USER dppo
WORKDIR /data
EXPOSE 8000
# http.client rather than urllib: it ignores the proxy variables that Docker may pass in.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["dppo"]
# Without DPPO_TOKEN (or --unsafe-no-auth) the service refuses this address.
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
