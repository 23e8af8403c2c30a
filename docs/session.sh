#!/bin/sh
# Records docs/session.svg: two clients, a killed worker and a killed server, in a real terminal. Needs
# bun, nc, tmux and termtosvg (Debian packages netcat-openbsd, tmux, termtosvg).
set -eu
cd "$(dirname "$0")/.."
session() { tmux -L pipechat-session -f /dev/null "$@"; }
pane() { session split-window -t demo -l "$1" env PS1='$ ' sh; }
# Types a line into a pane, as a person does, and gives the others time to read.
type_in() {
  session send-keys -t "demo:0.$1" -l "$2"
  sleep 0.6
  session send-keys -t "demo:0.$1" Enter
  sleep "${3:-1.5}"
}

session new-session -d -s demo -x 106 -y 34 env PS1='$ ' sh
session set -t demo status off
pane 26
pane 17
pane 3
for title in "0 server" "1 ann" "2 bob" "3 anybody"; do
  session select-pane -t "demo:0.${title% *}" -T "${title#* }"
done
session set -t demo pane-border-status top
session set -t demo pane-border-format ' #{pane_title} '

play() {
  sleep 1
  type_in 0 "bun server.ts"
  type_in 1 "bun client.ts :2000 ann" 2
  type_in 2 "nc 127.0.0.1 2000" 2
  type_in 2 "bob"
  type_in 1 "hello bob, shall we try it?"
  type_in 2 "/who" 3
  worker=$(session capture-pane -p -t demo:0.2 | sed -n 's/^\* try: kill -9 //p')
  type_in 3 "kill -9 $worker" 3
  type_in 2 "and I am still here" 2
  type_in 1 "so I see" 3
  server=$(session capture-pane -p -t demo:0.0 | sed -n 's/^listening .*(pid \([0-9]*\))$/\1/p')
  type_in 3 "kill -9 $server" 3
  type_in 0 "bun server.ts" 3
  type_in 2 "and again" 4
  client=$(session list-clients -F '#{client_pid}')
  kill -STOP "$client" # so that it does not clear the screen at the end
  kill -9 "$(session display-message -p '#{pid}')" "$client"
}
play &
termtosvg docs/session.svg -g 106x34 -m 50 -M 3000 -D 4000 -t window_frame \
  -c 'tmux -L pipechat-session attach -t demo'
wait
