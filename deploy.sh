#!/usr/bin/env bash
# Brings a stack up on this host, tries it, and goes back to the images and settings that ran before if it does not work.
#
#   ./deploy.sh dev              the development stack, docker-compose.yml, built from this folder
#   ./deploy.sh prod             the production stack, docker-compose.prod.yml, with the settings of .env.prod
#   ./deploy.sh rollback [dev]   the images and settings before those that run now; once more returns to these
#
# ENV_FILE names another file of settings than .env.prod. A variable of the environment goes before the file.
# COMPOSE_OVERRIDE names Compose files to add to the stack's own, separated by colons.
# Ends with 0 where the stack works, 1 where nothing was changed or what ran before runs again, 2 where nothing works.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
umask 077 # what is written here holds secrets

services=(proxy-service upstream redis)
declare -A variable=([proxy-service]=GATEWAY_IMAGE [upstream]=UPSTREAM_IMAGE [redis]=REDIS_IMAGE)
declare -A before=() # image of each service that was healthy when we came
problems=()          # of the settings
going_back=''
starting=''          # process of Compose
deployed=''

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

problem() { problems+=("$*"); }

# refuse ends if there are problems, with all of them.
refuse() {
	local line
	[ ${#problems[@]} -gt 0 ] || return 0
	for line in "${problems[@]}"; do
		printf 'deploy: %s\n' "$line" >&2
	done
	die 'refused, and nothing was changed'
}

read_settings() {
	local file files
	[ "$stack" = dev ] || [ -r "$env_file" ] || die "$env_file cannot be read"
	# Of no stack: Compose would end at a port that is none, without the name of its variable.
	environment=$(docker compose --file - "${settings_flags[@]}" config --environment <<<'services: {none: {image: none}}') ||
		die 'the settings cannot be read'
	IFS=: read -ra files <<<"$(setting COMPOSE_OVERRIDE '')"
	for file in "${files[@]}"; do
		[ -r "$file" ] || die "COMPOSE_OVERRIDE: $file cannot be read"
		compose_flags+=(--file "$file")
	done
	own_flags=("${compose_flags[@]}")
	project=$(setting COMPOSE_PROJECT_NAME "$(sed -n 's/^name: *//p' "${compose_flags[1]}")")
	state=$(setting DEPLOY_STATE .deploy)/$project
	if ! mkdir -p "$state" || ! head -c 65536 /dev/zero >"$state/space"; then
		die "$state cannot be written; nothing was changed"
	fi
	rm -f "$state/space"
}

check_settings() {
	check_ports
	check_dollars
	if [ "$stack" = prod ]; then
		check_secrets
		check_images
	fi
	choose_services
	if [ "$stack" = dev ] && [ -z "$(setting DOCKER_GID '')" ]; then
		find_group
	fi
	compose config --quiet || problem "${compose_flags[*]} is not valid: see above"
}

# check_ports also keeps Compose from ending with a message that does not name the variable.
check_ports() {
	local name value
	for name in PORT DASHBOARD_PORT; do
		value=$(setting "$name" 5000)
		if ! [[ $value =~ ^[0-9]{1,5}$ ]] || [ "$((10#$value))" -lt 1 ] || [ "$((10#$value))" -gt 65535 ]; then
			problem "$name: \"$value\" is not a port; write a number from 1 to 65535"
			export "$name=5000"
		fi
	done
}

# check_dollars refuses secrets that Compose would change: outside of single quotes it replaces $NAME in a file of settings.
check_dollars() {
	local file=.env name value
	[ "$stack" = dev ] || file=$env_file
	[ -r "$file" ] || return 0
	while IFS='=' read -r name value; do
		case $value in
		"'"*) ;;
		*\$*) problem "$name in $file holds a \$, which Compose would replace; write the value in single quotes: $name='...'" ;;
		esac
	done < <(grep -E '^[A-Za-z0-9_]*(PASSWORD|SECRET|TOKEN|KEY)[A-Za-z0-9_]*=' "$file")
}

# choose_services leaves out the dummy service if the gateway has another.
choose_services() {
	if [ -z "$(setting UPSTREAM_SCALE '')" ]; then
		case $(setting UPSTREAM_URL http://upstream) in
		*://upstream | *://upstream[:/]*) ;;
		*) export UPSTREAM_SCALE=0 ;;
		esac
	fi
	[ "${UPSTREAM_SCALE:-$(setting UPSTREAM_SCALE 1)}" != 0 ] || services=(proxy-service redis)
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
	if [ -n "$placeholders" ]; then
		problem "still a placeholder:$placeholders; set it in the environment or in a file that ENV_FILE names"
		return
	fi
	password=$(setting REDIS_PASSWORD '')
	[ "${#password}" -ge 16 ] || problem 'REDIS_PASSWORD is shorter than 16 characters'
}

# A name that may stand for another image tomorrow cannot be restored.
check_images() {
	local service image
	for service in "${services[@]}"; do
		image=$(setting "${variable[$service]}" '')
		case $image in
		'' | *@sha256:*) ;;
		*:latest) problem "${variable[$service]}=$image may change under its name; write an exact tag or a digest" ;;
		*)
			case ${image##*/} in
			*:*) ;;
			*) problem "${variable[$service]}=$image has no tag; write an exact tag or a digest" ;;
			esac
			;;
		esac
	done
}

# check_with IMAGE: gives the settings to the check in an image of the gateway, in a container like the gateway's: with its
# environment, its files and its ports. The project and the network of that container exist for it alone.
check_with() {
	local output code=0 line
	local check=(docker compose "${compose_flags[@]}" --file "$state/check.yml" --project-name "$project-check")
	cat >"$state/check.yml" <<-END
		services:
		  proxy-service:
		    networks: !override {check: {}}
		networks: {check: {}}
	END
	find_ports
	output=$(GATEWAY_IMAGE=$1 timeout 60 "${check[@]}" run --rm --no-deps -T --label traefik.enable=false "${publish[@]}" \
		--entrypoint /check proxy-service -space "$(setting DEPLOY_SPACE 200)" 2>&1 </dev/null) || code=$?
	GATEWAY_IMAGE=$1 "${check[@]}" down --volumes --remove-orphans --timeout 1 >/dev/null 2>&1 || true
	rm -f "$state/check.yml"
	[ "$code" -ne 0 ] || return 0
	if grep -qE '/check.*(no such file|not found)' <<<"$output"; then
		problem "$1 is no gateway of this project: it has no check of the settings"
	elif grep -qE 'address already in use|port is already allocated' <<<"$output"; then
		problem "a port is taken: $(grep -oE '(Bind for|listen tcp4?|bind host port).*' <<<"$output" | tail -n 1); set PORT to a free one"
	elif grep -q '^check: ' <<<"$output"; then
		while IFS= read -r line; do
			problem "$line"
		done < <(sed -n '/^check: [0-9]* problems$/d; s/^check: //p' <<<"$output")
	else
		problem "the settings cannot be checked: $(tail -n 3 <<<"$output")"
	fi
}

# find_ports finds the ports to publish that the running gateway does not hold, to see whether they are free.
find_ports() {
	publish=()
	[ ${#problems[@]} -eq 0 ] || return 0
	add_port "$(setting PORT 5000)" 5000 ''
	if [ "$stack" = dev ]; then
		add_port "$(setting DASHBOARD_PORT 8080)" 8080 127.0.0.1:
	fi
}

add_port() {
	local held
	held=$(compose port proxy-service "$2" 2>/dev/null || true)
	[ "${held##*:}" = "$1" ] || publish+=(--publish "$3$1:$2")
}

# check_early checks with an image that is there already: the one to deploy, or else the one that runs.
check_early() {
	local image container
	image=$(setting GATEWAY_IMAGE '')
	checked=$(image_id "${image:-none}") || checked=''
	if [ -z "$checked" ]; then
		container=$(compose ps --quiet proxy-service 2>/dev/null | head -n 1)
		[ -z "$container" ] || checked=$(docker inspect --format '{{.Image}}' "$container")
		# A gateway that is older than its check cannot be asked.
		[ -z "$checked" ] || docker image inspect --format '{{.Config.Entrypoint}}' "$checked" | grep -q /check || checked=''
	fi
	[ -z "$checked" ] || check_with "$checked"
}

# check_late checks with the image to deploy, unless that was done.
check_late() {
	local image
	image=$(image_id "$(setting GATEWAY_IMAGE resilience-gateway:local)") || image=''
	if [ -z "$image" ] || [ "$image" != "$checked" ]; then
		check_with "$(setting GATEWAY_IMAGE resilience-gateway:local)"
	fi
}

# remember keeps the images of the healthy containers, even if their names are given to other images.
remember() {
	local service container image health
	local format='{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}} {{.Image}}'
	for service in proxy-service upstream redis; do
		container=$(compose ps --quiet "$service" 2>/dev/null | head -n 1)
		[ -n "$container" ] || continue
		read -r health image < <(docker inspect --format "$format" "$container")
		[ "$health" = healthy ] || continue
		before[$service]=$(keep "$service" "$image") || die 'what runs could not be kept; nothing was changed'
	done
}

# keep SERVICE IMAGE-ID: gives the image a name that no other image gets, and prints it.
keep() {
	local id=${2#sha256:}
	local name="$project-$1:${id:0:12}"
	docker tag "$2" "$name" || return 1
	printf '%s' "$name"
}

# The Dockerfile needs BuildKit, for instance for the platform of the build.
check_builder() {
	case ${DOCKER_BUILDKIT:-1} in
	0 | [fF]*) die 'the images are built by BuildKit, which DOCKER_BUILDKIT forbids; unset it, or name images to pull' ;;
	esac
}

# configured_image SERVICE: the image that the stack's files name, with what an override says.
configured_image() {
	compose config | sed -n '/^services:/,/^[a-z]/p' | sed -n "/^  $1:\$/,/^  [a-z]/s/^    image: //p" | head -n 1
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

# bring_up waits until everything is healthy. A container that ends again and again ends the wait.
bring_up() {
	local patience failing before since=$SECONDS
	patience=$(setting DEPLOY_TIMEOUT 180)
	say "starting, and waiting up to $patience s for health"
	before=$(ended_often)
	compose up --detach --no-build --remove-orphans --wait --wait-timeout "$patience" &
	starting=$!
	while kill -0 "$starting" 2>/dev/null; do
		sleep 0.5
		failing=$(ended_often --filter status=restarting)
		# One from before is about to be replaced.
		[ $((SECONDS - since)) -ge 20 ] || failing=$(grep -vxF "$before" <<<"$failing" || true)
		if [ -n "$failing" ]; then
			say "$failing does not stay up"
			kill "$starting" 2>/dev/null || true
			wait "$starting" || true
			return 1
		fi
	done
	wait "$starting"
}

# ended_often prints the containers that have ended three times. Arguments are filters.
ended_often() {
	local ids
	ids=$(docker ps --all --quiet --filter "label=com.docker.compose.project=$project" "$@")
	[ -z "$ids" ] || xargs docker inspect --format '{{if ge .RestartCount 3}}{{.Name}} {{slice .Id 0 12}}{{end}}' <<<"$ids" 2>/dev/null | grep . || true
}

# request URL: prints the status. The answer's body is in a file.
request() {
	curl --silent --globoff --output "$state/answer" --max-time 20 --write-out '%{http_code}' "$1" || true
}

smoke() {
	local base status deadline=$((SECONDS + 30))
	base="http://127.0.0.1:$(setting PORT 5000)"
	until [ "$(request "$base/health")" = 200 ] && [ "$(cat "$state/answer")" = '{"status":"healthy"}' ]; do
		if [ "$SECONDS" -ge "$deadline" ]; then
			say "$base/health answers $(request "$base/health") after 30 s"
			return 1
		fi
		sleep 0.5
	done
	say 'health: passed'
	smoke_service "$base$(setting SMOKE_PATH /proxy/ok)" && smoke_limit
}

# smoke_service sends requests to the service until one is answered well, for 10 s. A circuit that was open before has time to close.
smoke_service() {
	local status='' first='' begun=$SECONDS patience=10
	while :; do
		: >"$state/answer"
		status=$(request "$1")
		first=${first:-$status}
		case $status in
		2?? | 3??)
			say 'a proxied request: passed'
			return 0
			;;
		429) patience=60 ;; # this host has sent more than its share
		503)
			if [ "$first" = 503 ] && grep -q 'circuit open' "$state/answer"; then
				if [ -n "$going_back" ]; then
					say 'a proxied request: not tried, as the circuit is open from before'
					return 0
				fi
				patience=$(($(whole_seconds) + 15))
			fi
			;;
		esac
		if [ $((SECONDS - begun)) -ge "$patience" ]; then
			say "$1 answers $first, and $status after $((SECONDS - begun)) s"
			return 1
		fi
		sleep 1
	done
}

whole_seconds() {
	local seconds
	seconds=$(setting CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS 60)
	printf '%s' "${seconds%%.*}"
}

# smoke_limit empties a small bucket on the internal entry point: no request reaches the service.
smoke_limit() {
	local said
	if said=$(timeout 60 docker compose "${compose_flags[@]}" exec -T proxy-service /check smoke 2>&1 </dev/null); then
		say "a 429: passed, $said"
	elif [ -n "$going_back" ] && grep -qE '/check.*(no such file|not found)' <<<"$said"; then
		say 'a 429: not tried, as these images are older than that test'
	else
		say "a 429: $said"
		return 1
	fi
}

works() { bring_up && smoke; }

# explain prints the state, what Traefik has disabled, and the errors in the logs: all lines where there is none.
explain() {
	local lines
	compose ps --all --format '{{.Service}}: {{.Image}} {{.Status}}' || true
	timeout 30 docker compose "${compose_flags[@]}" exec -T proxy-service /check disabled 2>/dev/null </dev/null || true
	lines=$(compose logs --no-color --tail 300 2>&1 | grep -E '"level":"(warn|error|fatal|panic)"|check: |panic:|Fatal' | tail -n 20 || true)
	[ -n "$lines" ] || lines=$(compose logs --no-color --tail 20 2>&1 || true)
	printf '%s\n' "$lines"
}

go_back() {
	local service
	trap - INT TERM
	kill "$starting" 2>/dev/null || true
	explain
	if [ ${#before[@]} -eq 0 ]; then
		say 'FAILED. Nothing healthy ran before, so there is nothing to go back to. What was started is left to be looked at.'
		exit 2
	fi
	going_back=yes
	if [ -r "$state/current/compose.yml" ]; then
		say 'FAILED. Going back to the images and settings that ran before.'
		use current
	else
		say 'FAILED. Going back to the images that ran before. Their settings are not known here.'
		compose_flags=("${own_flags[@]}")
		for service in "${!before[@]}"; do
			export "${variable[$service]}=${before[$service]}"
		done
	fi
	for service in "${!before[@]}"; do
		say "  $service: ${before[$service]}"
	done
	if works; then
		say 'what ran before runs again; this deployment was not made'
		exit 1
	fi
	say 'what ran before does not work either: nothing works now'
	exit 2
}

# use WHICH: works with the deployment that is kept by that name from now on: next, current or previous.
use() {
	deployed=$1
	compose_flags=(--file "$state/$1/compose.yml")
	environment=$(cat "$state/$1/settings")
	services=()
	while IFS= read -r service; do
		services+=("$service")
	done <"$state/$1/services"
}

# prepare resolves the configuration to deploy, with images by names that stay theirs, and works with it from now on.
prepare() {
	local service id
	rm -rf "$state/next"
	mkdir "$state/next" || return 1
	printf 'services:\n' >"$state/images.yml"
	for service in "${services[@]}"; do
		id=$(image_id "$(configured_image "$service")") || return 1
		printf '  %s: {image: "%s"}\n' "$service" "$(keep "$service" "$id")" >>"$state/images.yml"
	done
	compose --file "$state/images.yml" config >"$state/next/compose.yml" || return 1
	printf '%s\n' "${services[@]}" >"$state/next/services"
	grep -E '^(PORT|SMOKE_PATH|DEPLOY_TIMEOUT|CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS)=' <<<"$environment" >"$state/next/settings" || true
	rm -f "$state/images.yml"
	use next
}

# adopt keeps what was deployed as the current deployment, and the one before it as the previous one.
adopt() {
	case $deployed in
	next)
		if cmp -s "$state/next/compose.yml" "$state/current/compose.yml"; then
			rm -rf "$state/current" # what ran before these stays what rollback returns to
		elif [ -d "$state/current" ]; then
			rm -rf "$state/previous"
			mv "$state/current" "$state/previous"
		fi
		mv "$state/next" "$state/current"
		;;
	previous)
		mv "$state/previous" "$state/next"
		mv "$state/current" "$state/previous"
		mv "$state/next" "$state/current"
		;;
	esac
	use current
}

# prune removes the names of images that neither this deployment nor the one before it uses.
prune() {
	local service name
	for service in proxy-service upstream redis; do
		while IFS= read -r name; do
			[[ $name =~ :([0-9a-f]{12}|previous)$ ]] || continue
			grep -qsF "$name" "$state/current/compose.yml" "$state/previous/compose.yml" || docker image rm "$name" >/dev/null || true
		done < <(docker image ls --format '{{.Repository}}:{{.Tag}}' --filter "reference=$project-$service")
	done
}

finish() {
	trap 'say interrupted; go_back' INT TERM
	works || go_back
	trap - INT TERM
	adopt
	prune
	say "$1"
	show_page
	compose ps --format '  {{.Service}}: {{.Image}}, {{.Status}}'
}

# show_page says where the status page is. In production its port is not published.
show_page() {
	[ "$stack" = dev ] || return 0
	say "the status page: http://$(compose port proxy-service 8080)/resilience/"
	say '  it asks for the token: RESILIENCE_ADMIN_TOKEN, or token-of-development if that is not set'
}

deploy() {
	read_settings
	check_settings
	check_early
	refuse
	obtain || die 'an image could not be had; nothing was changed'
	check_late
	refuse
	remember
	prepare || die 'the configuration could not be written; nothing was changed'
	finish "$stack is up, on port $(setting PORT 5000)"
}

rollback() {
	local image
	read_settings
	[ -r "$state/previous/compose.yml" ] || die 'no images and settings from before are known here; nothing was changed'
	while IFS= read -r image; do
		image_id "$image" >/dev/null || die "the image $image from before is no longer here; nothing was changed"
	done < <(sed -n "s/^    image: \($project-.*\)\$/\1/p" "$state/previous/compose.yml")
	remember
	use previous
	finish "$stack runs the images and settings from before"
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
		settings_flags=()
	else
		settings_flags=(--env-file "$env_file")
		compose_flags=(--file docker-compose.prod.yml "${settings_flags[@]}")
	fi
	check_tools
	exec 9<"${BASH_SOURCE[0]##*/}"
	flock --nonblock 9 || die 'another deployment is under way'
	"$action"
}

main "$@"
