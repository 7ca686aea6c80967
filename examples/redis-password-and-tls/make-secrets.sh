#!/usr/bin/env bash
# make-secrets.sh FOLDER: writes a password, the certificate of an authority, and a certificate of Redis with its key into a
# new folder. A folder that is there stays as it is.
set -euo pipefail
[ $# -eq 1 ] || {
	echo 'usage: make-secrets.sh FOLDER' >&2
	exit 1
}
[ ! -e "$1" ] || exit 0
command -v openssl >/dev/null || {
	echo 'make-secrets.sh: openssl is missing; install it' >&2
	exit 1
}

# What ends halfway leaves no folder behind.
umask 077
made=$(mktemp -d "$1.XXXXXX")
trap 'rm -rf "$made"' EXIT
cd "$made"

openssl rand -hex 32 >password
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj '/CN=example authority' \
	-keyout ca-key.pem -out ca.pem 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=redis -keyout key.pem -out request.pem 2>/dev/null
printf 'subjectAltName = DNS:redis\n' >names
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 365 -extfile names -out cert.pem 2>/dev/null
rm -f ca-key.pem request.pem names ./*.srl

# The containers read these as other users. On this host nobody else can: the folder is its owner's.
chmod 0444 password ca.pem cert.pem key.pem
cd - >/dev/null
mv "$made" "$1"
trap - EXIT
