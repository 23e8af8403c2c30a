#!/bin/sh
# What bunx and npx start: server.ts or client.ts, if there is a Bun to run it.
case $0 in
  *-server) script=server.ts ;;
  *) script=client.ts ;;
esac
if ! command -v bun >/dev/null; then
  echo "$script: it runs on Bun, which is not installed: npm install -g bun, or see https://bun.com" >&2
  exit 127
fi
exec bun "$(dirname "$(readlink -f "$0")")/$script" "$@"
