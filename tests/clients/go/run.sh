#!/bin/sh
# Builds the flow with the official Go package and runs it against ROSTER_URL.
# The first build compiles the whole package: about 2.5 minutes and 7 GB of memory; later ones take seconds.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cache=${ROSTER_CLIENT_CACHE:-${TMPDIR:-/tmp}/roster-client-cache}
mkdir -p "$cache"
cd "$here"
GOFLAGS="-p=1 -mod=readonly -buildvcs=false" go build -o "$cache/go-flow" .
ROSTER_SCENARIO="$here/../scenario.json" exec "$cache/go-flow"
