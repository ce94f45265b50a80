#!/bin/sh
# shellcheck shell=dash
# The request, and what the client says later: prepare-pull.sh is sent behind this, and calls
# it for what is not by hand. xtask/src/server/request.rs writes the request.
#
# Of prepare-pull.sh: `newline`, `await_jobs`, `fail`; of compare.sh: `add_base`, `GROUP`.
# shellcheck disable=SC2154,SC2034 # what is asked for, and the jobs, are of there

HEARTBEAT=2 # seconds

# take COUNT: so many bytes of our input, and none of what follows. Where `dd` cannot
# fill a block from a pipe, that is one byte at a time.
take() {
	if dd iflag=fullblock count=0 </dev/null; then dd iflag=fullblock bs="$1" count=1; else dd bs=1 count="$1"; fi 2>/dev/null
}

# The client sends lines of a key and a value, then `end`. `rules N` is
# followed by N bytes of SQL, and so is `audit LEVEL N`.
read_request() {
	local line value
	while IFS= read -r line; do
		value=${line#* }
		case $line in
		'nonce '*) nonce=$value ;;
		'mode '*) mode=$value ;;
		'directory '*) directory=$value ;;
		'staging '*) staging_dir=$value ;;
		'max-lock '*) max_lock=$value ;;
		'include '*) includes=$includes$value$newline ;;
		'exclude '*) excludes=$excludes$value$newline ;;
		'only '*) only=$value ;;
		'base '*) add_base "$value" ;;
		'rules '*) rules=$(take "$value") || return 1 ;;
		'audit '*) audit_level=${value% *} && audit=$(take "${value#* }") || return 1 ;;
		end) return 0 ;;
		*) return 1 ;;
		esac
	done
	return 1
}

# keep_alive: tells the client on standard error that this is at work, by an empty line. A
# connection over which nothing comes is dead, which nothing else would tell.
keep_alive() {
	echo
	{
		trap 'kill $nap 2>/dev/null; exit' TERM
		while nap='' && kill -0 $$ 2>/dev/null && echo >&2; do
			sleep "$HEARTBEAT" >/dev/null 2>&1 &
			nap=$!
			wait "$nap"
		done
	} </dev/null >/dev/null &
	heart=$!
}

# The client keeps our standard input open until it has all it wants: its end
# means that nobody is left to work for, also when the connection broke. Until
# then come the hashes of what it has, which become an empty line, and lines, the last
# of which is `done`.
# Only the watcher can write to `words`: a reader of that FIFO ends when the watcher does.
watch_client() {
	mkfifo words || fail no-space "cannot make a pipe in $stage"
	exec 3<&0 4<>words
	{
		if [ "$base_groups" -eq 0 ] || head -c $((base_groups * GROUP)) >base; then
			[ "$base_groups" -eq 0 ] || echo >&4
			while read -r line; do
				echo "$line" >&4
				[ "$line" != 'done' ] || exit
			done
		else
			echo full >&4
			cat >/dev/null
		fi
		kill -TERM $$
	} <&3 >/dev/null 2>&1 &
	watcher=$!
	exec 3<&- 4<words </dev/null
}

# await_word: `word` becomes the next line from the client. In the background,
# because a signal interrupts only what is waited for.
await_word() {
	head -n 1 <&4 >said &
	jobs="$jobs $!"
	await_jobs
	read -r word <said || fail request "what the client has did not arrive whole"
}
