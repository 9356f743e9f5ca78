#!/usr/bin/env bash
# Builds Quelea, starts it with 2 shards and with 1, starts Mosquitto and RabbitMQ, runs `quelea-loadgen compare full` against the four,
# and stops what it started. Loopback only. About 25 minutes; nothing else should run on the machine.
#
#   loadgen/peers/compare.sh [arguments of compare full, such as --secs 1 --rounds 1 --only pairs]
#
# Results: target/compare/full.md and full.json (OUT=folder: elsewhere).
#
#   SUITE=quick, SUITE=growth  another suite than full; growth is without peers, and has charts too (growth.svg)
#   QUELEA=..., LOADGEN=...    binaries, instead of building them
#   MOSQUITTO=..., RABBITMQ=...  the peers' binaries, if `mosquitto` and `rabbitmq-server` are not on PATH; none: without that peer
#   MOSQUITTO_AT=host:port MOSQUITTO_PID=pid, RABBITMQ_AT=... RABBITMQ_PID=...  a peer that runs already (in a container, say): it is left alone
#   PORT=22883                 the first of the seven ports that are used
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
port=${PORT:-22883}
out=${OUT:-$root/target/compare}
work=$(mktemp -d "${TMPDIR:-/tmp}/quelea-compare.XXXXXX")
started=()
arguments=()

finish() {
    local pid
    for pid in ${started[@]+"${started[@]}"}; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in ${started[@]+"${started[@]}"}; do
        for _ in $(seq 300); do kill -0 "$pid" 2>/dev/null || continue 2; sleep 0.1; done
        kill -KILL "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# start NAME PORT COMMAND...: in the background, until it answers; its pid is in $pid, what it says in $work/NAME.log.
start() {
    local name=$1 at=$2
    shift 2
    if answers "$at"; then
        echo "$name: something else answers on port $at (PORT=... picks others)" >&2
        exit 2
    fi
    "$@" >"$work/$name.log" 2>&1 &
    pid=$!
    started+=("$pid")
    for _ in $(seq 1200); do
        answers "$at" && return 0
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    echo "$name does not answer on port $at:" >&2
    tail -n 20 "$work/$name.log" >&2
    exit 2
}

# target NAME ADDRESS PID ABOUT
target() {
    arguments+=(--target "$1=$2" --pid "$1=$3" --about "$1=$4")
    printf '%-10s %s, pid %s: %s\n' "$1" "$2" "$3" "$4" >&2
}

start_quelea() { # NAME PORT SHARDS
    start "$1" "$2" "$QUELEA" --set "mqtt.listeners.tcp.default=127.0.0.1:$2" --set "quelea.shards=$3" --set "quelea.data_dir=$work/$1"
    target "$1" "127.0.0.1:$2" "$pid" "$("$QUELEA" --version), $3 shard(s), everything else default"
    arguments+=(--shards "$1=$3")
}

start_mosquitto() {
    local command=${MOSQUITTO:-mosquitto} version
    if [[ -n ${MOSQUITTO_AT:-} ]]; then
        target mosquitto "$MOSQUITTO_AT" "$MOSQUITTO_PID" "ran before"
        return
    fi
    command -v "$command" >/dev/null || { absent mosquitto; return; }
    sed "s/^listener .*/listener $((port + 2)) 127.0.0.1/" "$here/mosquitto.conf" >"$work/mosquitto.conf"
    version=$("$command" -h 2>/dev/null | grep -om1 'version [0-9.]*' || true)
    start mosquitto $((port + 2)) "$command" -c "$work/mosquitto.conf"
    target mosquitto "127.0.0.1:$((port + 2))" "$pid" "${version:-version unknown}, peers/mosquitto.conf"
}

start_rabbitmq() {
    local command=${RABBITMQ:-} version before daemon
    if [[ -n ${RABBITMQ_AT:-} ]]; then
        target rabbitmq "$RABBITMQ_AT" "$RABBITMQ_PID" "ran before"
        return
    fi
    # The one on Debian's PATH changes the user; the one below it does not.
    [[ -n $command || ! -x /usr/lib/rabbitmq/bin/rabbitmq-server ]] || command=/usr/lib/rabbitmq/bin/rabbitmq-server
    command=${command:-rabbitmq-server}
    command -v "$command" >/dev/null || { absent rabbitmq; return; }
    mkdir "$work/rabbitmq"
    sed "s/^mqtt.listeners.tcp.1 .*/mqtt.listeners.tcp.1 = 127.0.0.1:$((port + 3))/" "$here/rabbitmq.conf" >"$work/rabbitmq.conf"
    echo "listeners.tcp.1 = 127.0.0.1:$((port + 4))" >>"$work/rabbitmq.conf"
    cp "$here/rabbitmq_plugins" "$work/rabbitmq_plugins"
    before=" $(pidof epmd || true) "
    start rabbitmq $((port + 3)) env HOME="$work/rabbitmq" RABBITMQ_NODENAME=quelea-compare@localhost \
        RABBITMQ_CONFIG_FILE="$work/rabbitmq.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$work/rabbitmq_plugins" \
        RABBITMQ_MNESIA_BASE="$work/rabbitmq" RABBITMQ_LOG_BASE="$work/rabbitmq" RABBITMQ_LOGS="$work/rabbitmq/log" \
        RABBITMQ_DIST_PORT=$((port + 5)) ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=$((port + 6)) RUNNING_UNDER_SYSTEMD=true \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}' "$command"
    # Its port mapper is a daemon of its own.
    for daemon in $(pidof epmd || true); do
        [[ $before == *" $daemon "* ]] || started+=("$daemon")
    done
    version=$(grep -hom1 'RabbitMQ [0-9][0-9.]* on Erlang [0-9.]*' "$work/rabbitmq/log" 2>/dev/null || true)
    target rabbitmq "127.0.0.1:$((port + 3))" "$pid" "${version:-version unknown}, peers/rabbitmq.conf"
}

absent() {
    echo "NOTE: no $1 (loadgen/peers/README.md says how to install it): goals that compare with it are not measured" >&2
}

ulimit -n "$(ulimit -Hn)"
if [[ -z ${QUELEA:-} || -z ${LOADGEN:-} ]]; then
    (cd "$root" && cargo build --release --workspace)
fi
QUELEA=${QUELEA:-$root/target/release/quelea}
LOADGEN=${LOADGEN:-$root/target/release/quelea-loadgen}
mkdir -p "$out"
start_quelea quelea "$port" 2
start_quelea quelea-1 $((port + 1)) 1
suite=${SUITE:-full}
if [[ $suite != growth ]]; then
    start_mosquitto
    start_rabbitmq
else
    arguments+=(--svg "$out/growth.svg")
fi
[[ " ${arguments[*]} " != *" mosquitto="* ]] || arguments+=(--baseline mosquitto)
# Peers have a descriptor for each client, and some more.
descriptors=$(ulimit -n)
((descriptors == 0 || descriptors >= 16000)) || arguments+=(--idle-clients $((descriptors - 1000)))
# In the background, so that this script ends at once when it is asked to.
"$LOADGEN" compare "$suite" "${arguments[@]}" --json "$out/$suite.json" --markdown "$out/$suite.md" "$@" &
started+=("$!")
wait "$!"
echo "written: $out/$suite.md, $out/$suite.json" >&2
