# The platform in a container. It was written without Docker at hand and has not been built; a test compares it with
# pyproject.toml and setup.py. docs/where.md shows its use.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

# Empty: pip's own choice, which on Linux is PyTorch's build with CUDA. For the CPU build, which is smaller, give the
# address that pytorch.org names for pip and the CPU.
ARG TORCH_INDEX=""
ARG EXTRAS="media,text,score,track"

# First PyTorch, which is large and seldom changes, then the platform.
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url ${TORCH_INDEX}} "torch>=2.9" "torchvision>=0.24"
COPY pyproject.toml setup.py README.md LICENSE /source/
COPY avplatform /source/avplatform
COPY models /source/models
COPY tasks /source/tasks
COPY hub_cards /source/hub_cards
RUN pip install --no-cache-dir "/source[${EXTRAS}]" && rm -r /source

# Not as root; what is fetched or made once lies in /cache, so mount a volume there.
RUN useradd --create-home --uid 1000 user && mkdir /cache /workspace && chown user /cache /workspace
USER user
ENV AVPLATFORM_CACHE=/cache/avplatform HF_HOME=/cache/huggingface PYTHONUNBUFFERED=1
WORKDIR /workspace
CMD ["avplatform", "--help"]
