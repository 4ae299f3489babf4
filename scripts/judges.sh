#!/bin/sh
# judges.sh: installs the judges of others into .venv-judges: openapi-python-client, by hash from
# tests/openapi/requirements.txt, and with npm Redocly's lint and two verifiers of webhooks (standardwebhooks and svix), by
# hash from tests/openapi/package-lock.json. Does nothing when that was done already.
set -eu

cd "$(dirname "$0")/.."
unset PYTHONHOME PYTHONPATH
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
locks=tests/openapi

stamp() { { cat $locks/requirements.txt $locks/package-lock.json scripts/judges.sh; pwd -P; } | cksum; }

if [ -f .venv-judges/stamp ] && [ "$(cat .venv-judges/stamp)" = "$(stamp)" ]; then exit 0; fi

echo "Setting up .venv-judges …" >&2
sh scripts/setup.sh
rm -rf .venv-judges
# pip of the project's environment installs into the new one.
.venv/bin/python -m venv --without-pip .venv-judges
.venv/bin/python -m pip --python .venv-judges/bin/python install --quiet --require-hashes --only-binary :all: --no-deps \
    -r $locks/requirements.txt
mkdir .venv-judges/node
cp $locks/package.json $locks/package-lock.json .venv-judges/node
(cd .venv-judges/node && npm ci --ignore-scripts --no-audit --no-fund --silent)
stamp >.venv-judges/stamp
