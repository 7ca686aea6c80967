#!/usr/bin/env bash
# Brings a stack up on this host, tries it, and goes back to the images that ran before if it does not work.
#
#   ./deploy.sh dev              the development stack, docker-compose.yml, built from this folder
#   ./deploy.sh prod             the production stack, docker-compose.prod.yml, with the settings of .env.prod
#   ./deploy.sh rollback [dev]   the images before those that run now; once more returns to these
#
# ENV_FILE names another file of settings than .env.prod. A variable of the environment goes before the file.
# Ends with 0 where the stack works, 1 where nothing was changed or the images before run again, 2 where nothing works.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

services=(proxy-service upstream redis)
declare -A variable=([proxy-service]=GATEWAY_IMAGE [upstream]=UPSTREAM_IMAGE [redis]=REDIS_IMAGE)
declare -A before=() # image of each service that was healthy when we came

say() { printf 'deploy: %s\n' "$*"; }
die() {
	printf 'deploy: %s\n' "$*" >&2
	exit 1
}
usage() {
	sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
	exit "$1"
}

compose() { docker compose "${compose_flags[@]}" "$@"; }

# setting NAME DEFAULT: its value as Compose sees it.
setting() {
	local value
	value=$(sed -n "s/^$1=//p" <<<"$environment" | tail -n 1)
	printf '%s' "${value:-$2}"
}

check_tools() {
	local tool
	for tool in docker curl flock timeout; do
		command -v "$tool" >/dev/null || die "$tool is missing"
	done
	docker compose version >/dev/null 2>&1 || die 'Docker Compose v2 is missing'
	docker info >/dev/null 2>&1 || die 'no Docker Engine answers; is it running, and may you use it?'
}

check_settings() {
	[ "$stack" = dev ] || [ -r "$env_file" ] || die "$env_file cannot be read"
	environment=$(compose config --environment) || die 'the settings are not whole'
	if [ "$stack" = dev ] && [ -z "$(setting DOCKER_GID '')" ]; then
		find_group
	fi
	if [ "$stack" = prod ]; then
		check_secrets
		check_images
	fi
	compose config --quiet || die "${compose_flags[*]} is not valid"
	project=$(compose config --format json | sed -n 's/^  "name": "\(.*\)",\{0,1\}$/\1/p')
	[ -n "$project" ] || die 'the project has no name'
}

# find_group finds the group that owns Docker's socket.
find_group() {
	local socket
	case $(docker info --format '{{.OperatingSystem}} {{.SecurityOptions}}') in
	*'Docker Desktop'* | *rootless*) return 0 ;; # to a container, the socket belongs to root there
	esac
	socket=$(setting DOCKER_SOCKET /var/run/docker.sock)
	DOCKER_GID=$(stat -L -c %g "$socket") || die "$socket is not there; set DOCKER_SOCKET"
	export DOCKER_GID
}

check_secrets() {
	local name value placeholders='' password
	while IFS= read -r name; do
		value=$(setting "$name" '')
		if grep -qiE 'change[_-]?me|placeholder' <<<"$value"; then
			placeholders+=" $name"
		fi
	done < <(sed -n 's/^\([A-Za-z0-9_]*\)=.*/\1/p' "$env_file")
	[ -z "$placeholders" ] ||
		die "still a placeholder:$placeholders; set it in the environment or in a file that ENV_FILE names"
	password=$(setting REDIS_PASSWORD '')
	[ "${#password}" -ge 16 ] || die 'REDIS_PASSWORD is shorter than 16 characters'
}

# A name that may stand for another image tomorrow cannot be restored.
check_images() {
	local service image
	for service in "${services[@]}"; do
		image=$(setting "${variable[$service]}" '')
		case $image in
		'' | *@sha256:*) ;;
		*:latest) die "${variable[$service]}=$image may change under its name; write an exact tag or a digest" ;;
		*)
			case ${image##*/} in
			*:*) ;;
			*) die "${variable[$service]}=$image has no tag; write an exact tag or a digest" ;;
			esac
			;;
		esac
	done
}

# remember keeps the images of the healthy containers, even if their names are given to other images.
remember() {
	local service container image state
	local format='{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}} {{.Image}}'
	for service in "${services[@]}"; do
		container=$(compose ps --quiet "$service" | head -n 1)
		[ -n "$container" ] || continue
		read -r state image < <(docker inspect --format "$format" "$container")
		[ "$state" = healthy ] || continue
		before[$service]=$(keep "$service" "$image")
	done
}

# keep SERVICE IMAGE-ID: gives the image a name that no other image gets, and prints it.
keep() {
	local id=${2#sha256:}
	local name="$project-$1:${id:0:12}"
	docker tag "$2" "$name"
	printf '%s' "$name"
}

# The Dockerfile needs BuildKit, for instance for the platform of the build.
check_builder() {
	case ${DOCKER_BUILDKIT:-1} in
	0 | [fF]*) die 'the images are built by BuildKit, which DOCKER_BUILDKIT forbids; unset it, or name images to pull' ;;
	esac
}

image_id() { docker image inspect --format '{{.Id}}' "$1" 2>/dev/null; }

# obtain builds our own images unless the settings name them, and pulls the others.
obtain() {
	local service build=() pull=()
	for service in "${services[@]}"; do
		if [ "$service" != redis ] && { [ "$stack" = dev ] || [ -z "$(setting "${variable[$service]}" '')" ]; }; then
			build+=("$service")
		else
			pull+=("$service")
		fi
	done
	if [ ${#build[@]} -gt 0 ]; then
		check_builder
		REVISION=$(git rev-parse --short=12 HEAD 2>/dev/null || printf unknown)
		export REVISION
		say "building ${build[*]}"
		compose build "${build[@]}" || return 1
	fi
	if [ ${#pull[@]} -gt 0 ]; then
		say "pulling ${pull[*]}, where missing"
		compose pull --quiet --policy missing "${pull[@]}" || return 1
	fi
}

bring_up() {
	local patience
	patience=$(setting DEPLOY_TIMEOUT 180)
	say "starting, and waiting up to $patience s for health"
	compose up --detach --no-build --remove-orphans --wait --wait-timeout "$patience" "${services[@]}"
}

status_of() { curl --silent --output /dev/null --max-time 10 --write-out '%{http_code}' "$1" || true; }

# await SECONDS URL: waits until the URL answers with a 2xx or 3xx.
await() {
	local deadline=$((SECONDS + $1)) status
	while :; do
		status=$(status_of "$2")
		case $status in 2?? | 3??) return 0 ;; esac
		if [ "$SECONDS" -ge "$deadline" ]; then
			say "$2 answers $status after $1 s"
			return 1
		fi
		sleep 1
	done
}

# smoke tests the stack as its clients use it. A circuit that was open before needs time to close.
smoke() {
	local base answer
	base="http://127.0.0.1:$(setting PORT 5000)"
	await 30 "$base/health" || return 1
	answer=$(curl --silent --max-time 10 "$base/health")
	if [ "$answer" != '{"status":"healthy"}' ]; then
		say "$base/health answers $answer"
		return 1
	fi
	say 'health: passed'
	await $(($(setting CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS 60) + 15)) "$base$(setting SMOKE_PATH /proxy/ok)" || return 1
	say 'a proxied request: passed'
}

# smoke_limit sends more requests than the bucket has tokens. Only this host's bucket is emptied.
smoke_limit() {
	local capacity limited url requests
	capacity=$(setting RATE_LIMIT_CAPACITY "$default_capacity")
	if [ "$capacity" -gt 20000 ]; then
		say "a 429: not tried, as a burst of $capacity is more than a smoke test should send"
		return 0
	fi
	url="http://127.0.0.1:$(setting PORT 5000)$(setting SMOKE_PATH /proxy/ok)"
	requests=$((2 * capacity + 200))
	limited=$(timeout 120 curl --silent --globoff --parallel --parallel-max 50 --write-out '%{http_code}\n' \
		--config <(burst "$url" "$requests") | grep -c '^429$' || true)
	if [ "$limited" -eq 0 ]; then
		say "no 429 in a burst of $requests"
		return 1
	fi
	say "a 429: passed, $limited of a burst of $requests"
}

burst() {
	local i
	for ((i = 0; i < $2; i++)); do
		printf 'url = "%s"\noutput = /dev/null\n' "$1"
	done
}

works() { bring_up && smoke; }

go_back() {
	local service
	trap - INT TERM
	compose ps --all --format '{{.Service}}: {{.Image}} {{.Status}}' || true
	compose logs --no-color --tail 20 || true
	if [ ${#before[@]} -eq 0 ]; then
		say 'FAILED. Nothing healthy ran before, so there is nothing to go back to. What was started is left to be looked at.'
		exit 2
	fi
	say 'FAILED. Going back to the images that ran before.'
	for service in "${!before[@]}"; do
		export "${variable[$service]}=${before[$service]}"
		say "  $service: ${before[$service]}"
	done
	if works; then
		say 'the images that ran before run again; this deployment was not made'
		exit 1
	fi
	say 'the images that ran before do not work either: nothing works now'
	exit 2
}

# note_previous names the images for rollback. If the same images are deployed again, the earlier ones are kept.
note_previous() {
	local service container changed=
	for service in "${!before[@]}"; do
		container=$(compose ps --quiet "$service" | head -n 1)
		if [ "$(docker inspect --format '{{.Image}}' "$container")" != "$(image_id "${before[$service]}")" ]; then
			changed=yes
		fi
	done
	[ -n "$changed" ] || return 0
	for service in "${!before[@]}"; do
		docker tag "${before[$service]}" "$project-$service:previous"
	done
}

finish() {
	trap 'say interrupted; go_back' INT TERM
	{ works && smoke_limit; } || go_back
	trap - INT TERM
	note_previous
	say "$1"
	compose ps --format '  {{.Service}}: {{.Image}}, {{.Status}}'
}

deploy() {
	remember
	obtain || die 'an image could not be had; nothing was changed'
	finish "$stack is up, on port $(setting PORT 5000)"
}

rollback() {
	local service id found=
	remember
	for service in "${services[@]}"; do
		id=$(image_id "$project-$service:previous") || continue
		found=yes
		export "${variable[$service]}=$(keep "$service" "$id")"
		say "$service: back to $project-$service:${id:7:12}"
	done
	[ -n "$found" ] || die 'no images from before are known here; nothing was changed'
	finish "$stack runs the images from before"
}

main() {
	local action=${1:-}
	stack=prod
	case $action in
	dev | prod)
		[ $# -eq 1 ] || usage 1 >&2
		stack=$action
		action=deploy
		;;
	rollback)
		case ${2:-prod} in dev | prod) stack=${2:-prod} ;; *) usage 1 >&2 ;; esac
		;;
	-h | --help | help) usage 0 ;;
	*) usage 1 >&2 ;;
	esac
	env_file=${ENV_FILE:-.env.prod}
	if [ "$stack" = dev ]; then
		compose_flags=(--file docker-compose.yml)
		default_capacity=100
	else
		compose_flags=(--file docker-compose.prod.yml --env-file "$env_file")
		default_capacity=1000
	fi
	check_tools
	exec 9<"${BASH_SOURCE[0]##*/}"
	flock --nonblock 9 || die 'another deployment is under way'
	check_settings
	"$action"
}

main "$@"
