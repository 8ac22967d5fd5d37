#!/usr/bin/env bash
# The installed package, in an empty folder: a project that runs, a cached second run, a server that starts and stops.
# Usage: smoke.sh BIN, the folder of an environment's programs.
set -euo pipefail
bin=$(cd "$1" && pwd)
PATH=$bin:$PATH
MA_HOME=$PWD/home
export PATH MA_HOME
server=""

finish() {
  if [ -n "$server" ] && kill -0 "$server" 2>/dev/null; then
    kill -TERM "$server"
    wait "$server" || true
  fi
}
trap finish EXIT

expect() { # expect WORDS COMMAND…: the command succeeds, and what it prints has the words
  local words=$1 output
  shift
  output=$("$@" 2>&1) || { printf 'error: %s failed:\n%s\n' "$*" "$output" >&2; return 1; }
  case $output in
    *"$words"*) printf 'ok: %s\n' "$*" ;;
    *) printf 'error: %s did not print %s but:\n%s\n' "$*" "$words" "$output" >&2; return 1 ;;
  esac
}

expect "client" mactl version
expect "Commands" ma --help
expect "created" mactl init demo
cd demo
expect "14" python pipeline.py --n 3
# Before there is a second run, which may have started in the same second and prints nothing.
expect "squaring 3" mactl logs "$(mactl get pipeline_run -o name)"
expect "cached" python pipeline.py --n 3
expect "Succeeded" mactl get pipeline_run

coproc SERVER { exec mactl serve --port 0 2>&1; }
server=$SERVER_PID
read -r line <&"${SERVER[0]}"
case $line in
  "serving https://127.0.0.1:"*) printf 'ok: %s\n' "$line" ;;
  *) printf 'error: the server said: %s\n' "$line" >&2; exit 1 ;;
esac
expect "project/demo created" mactl apply -f project.yaml
expect "pipeline/demo created" mactl pipeline apply -f pipeline.yaml
expect "condition met" mactl wait pipeline/demo -n demo --for=jsonpath='{.status.state}'=Ready
expect "91" mactl pipeline run demo -n demo --arg n=6 --wait
expect "demo" mactl get pipelines -A -o wide
kill -TERM "$server"
status=0
wait "$server" || status=$?
server=""
[ "$status" = 0 ] || { printf 'error: the server ended with %s\n' "$status" >&2; exit 1; }
echo "ok: the server stopped"
