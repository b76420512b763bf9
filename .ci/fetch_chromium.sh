#!/usr/bin/env sh
# Unpacks Debian's chromium with its libraries and a font into a folder, as any user: nothing is installed.
# Its tests (tests/support/browser.py) look into .venv/chromium, and then for an installed one.
set -eu
target=${1:-.venv/chromium}
[ ! -e "$target/complete" ] || exit 0
[ $# -gt 0 ] || ! command -v chromium >/dev/null || exit 0
rm -rf "$target"
mkdir -p "$target/packages"
target=$(cd "$target" && pwd)
cd "$target/packages"
# shellcheck disable=SC2046 # one name a word
apt-get download -qq $(apt-get install -s --no-install-recommends chromium fonts-dejavu-core fontconfig-config |
	sed -n 's/^Inst \([^ ]*\).*/\1/p')
for package in *.deb; do dpkg -x "$package" "$target"; done
libraries=$(find "$target/usr/lib" "$target/lib" -name '*.so*' -exec dirname {} + 2>/dev/null | sort -u | paste -sd: -)
cat >"$target/fonts.conf" <<XML
<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>$target/usr/share/fonts</dir><dir>/usr/share/fonts</dir><cachedir>$target/fonts</cachedir></fontconfig>
XML
cat >"$target/chromium" <<SH
#!/bin/sh
export LD_LIBRARY_PATH=$libraries FONTCONFIG_FILE=$target/fonts.conf
exec $target/usr/lib/chromium/chromium "\$@"
SH
chmod +x "$target/chromium"
"$target/chromium" --version
cd "$target"
rm -r packages
touch complete
