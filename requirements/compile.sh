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
printf 'uv==0.13.8\n' | compile uv -
