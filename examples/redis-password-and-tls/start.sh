#!/usr/bin/env bash
# Makes the secrets of Redis, where they are not there yet, and starts the example.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./make-secrets.sh secrets
exec docker compose up --build --detach --wait
