#!/usr/bin/env sh
# Unpacks what some models' processors and vision parts need, for tests of the worker's extra `models`: beside the
# installation, not in it, since with a torchvision there transformers behaves differently in all other tests.
# Its tests (tests/integration/engine/test_engine_extras.py) look into .venv/torchvision.
set -eu
target=${1:-.venv/torchvision}
[ ! -e "$target/complete" ] || exit 0
rm -rf "$target"
${PYTHON:-python3} -m pip install --quiet --no-deps --only-binary :all: -c constraints.txt --target "$target" torchvision timm
touch "$target/complete"
