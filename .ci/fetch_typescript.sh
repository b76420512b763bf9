#!/usr/bin/env sh
# Installs what examples/typescript needs into a folder; its test looks into .venv/typescript.
set -eu
target=${1:-.venv/typescript}
package=examples/typescript/package.json
! cmp -s "$package" "$target/complete" || exit 0
command -v npm >/dev/null || { echo "npm is not installed" >&2; exit 1; }
rm -rf "$target"
mkdir -p "$target"
cp "$package" "$target/package.json"
npm install --prefix "$target" --ignore-scripts --no-audit --no-fund --silent
cp "$package" "$target/complete"
