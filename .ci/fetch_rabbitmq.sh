#!/usr/bin/env sh
# Unpacks Debian's rabbitmq-server and Erlang into a folder, as any user: no service starts, nothing is installed.
# Its tests (tests/support/rabbitmq.py) look into .venv/rabbitmq.
set -eu
target=${1:-.venv/rabbitmq}
[ ! -e "$target/complete" ] || exit 0
rm -rf "$target"
mkdir -p "$target/packages"
target=$(cd "$target" && pwd)
cd "$target/packages"
# shellcheck disable=SC2046 # one name a word
apt-get download -qq $(apt-get install -s --no-install-recommends rabbitmq-server |
	sed -n 's/^Inst \([^ ]*\).*/\1/p' | grep -E '^(erlang-|rabbitmq-server)')
for package in *.deb; do dpkg -x "$package" "$target"; done
# Debian writes Erlang's place into this script.
sed -i "s#=/usr/lib/erlang#=$target/usr/lib/erlang#" "$target/usr/lib/erlang/bin/erl"
"$target/usr/lib/erlang/bin/erl" -noshell -eval 'ok = crypto:start(), halt()'
cd "$target"
rm -r packages
touch complete
