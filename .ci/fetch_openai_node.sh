#!/usr/bin/env sh
# Installs OpenAI's client for Node into a folder; its tests (tests/support/node.py) look into .venv/openai_node.
set -eu
version=7.59.0
target=${1:-.venv/openai_node}
[ ! -e "$target/complete-$version" ] || exit 0
command -v node >/dev/null || { echo "Node is not installed" >&2; exit 1; }
rm -rf "$target"
mkdir -p "$target"
npm install --prefix "$target" --ignore-scripts --no-audit --no-fund --silent "openai@$version"
touch "$target/complete-$version"
