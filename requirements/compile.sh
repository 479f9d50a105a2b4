#!/bin/sh
# Compile the pinned requirements from pyproject.toml: names, versions and hashes, and no index address.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
compile() {
  out=$1
  shift
  "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
    --no-emit-index-url --no-emit-find-links --output-file "requirements/$out.txt" "$@"
}
compile node pyproject.toml
compile all pyproject.toml --extra all --group dev --constraint requirements/node.txt
# Model servers that contract tests speak to, each in an environment of its own.
printf 'kserve>=0.20\nscikit-learn>=1.9,<1.10\nai-edge-litert>=2.3,<3\npillow>=11\n' | compile peers-kserve -
printf 'mlserver>=1.7\nmlserver-sklearn>=1.7\nscikit-learn>=1.9,<1.10\nai-edge-litert>=2.3,<3\npillow>=11\n' |
  compile peers-mlserver -
printf 'uv==0.13.8\n' | compile uv -
