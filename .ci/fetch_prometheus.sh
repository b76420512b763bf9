#!/usr/bin/env sh
# Unpacks Debian's prometheus, with promtool, into a folder, as any user: no service starts, nothing is installed.
# tests/support/prometheus.py looks into .venv/prometheus.
set -eu
target=${1:-.venv/prometheus}
[ ! -e "$target/complete" ] || exit 0
rm -rf "$target"
mkdir -p "$target"
target=$(cd "$target" && pwd)
cd "$target"
apt-get download -qq prometheus
dpkg -x prometheus_*.deb .
rm prometheus_*.deb
usr/bin/promtool --version
touch complete
