#!/bin/sh
# shellcheck shell=dash
# The request, and the client's later lines: prepare-pull.sh is sent after this file and calls it
# unless it is run by hand. xtask/src/server/request.rs writes the request.
#
# Uses `newline`, `await_jobs` and `fail` of prepare-pull.sh, `add_base` and `GROUP` of compare.sh.
# shellcheck disable=SC2154,SC2034 # the request's values and the jobs are used in other files

HEARTBEAT=2 # seconds

# take COUNT: reads exactly COUNT bytes of standard input. If `dd` cannot fill a block from a pipe,
# it reads one byte at a time.
take() {
	if dd iflag=fullblock count=0 </dev/null; then dd iflag=fullblock bs="$1" count=1; else dd bs=1 count="$1"; fi 2>/dev/null
}

# The client sends lines of a key and a value, then `end`. `rules N` and `audit LEVEL N` are
# followed by N bytes of SQL.
read_request() {
	local line value
	while IFS= read -r line; do
		value=${line#* }
		case $line in
		'nonce '*) nonce=$value ;;
		'mode '*) mode=$value ;;
		'machine '*) machine=$value ;;
		'directory '*) directory=$value ;;
		'staging '*) staging_dir=$value ;;
		'max-lock '*) max_lock=$value ;;
		'survey '*) survey=$value ;;
		'include '*) includes=$includes$value$newline ;;
		'exclude '*) excludes=$excludes$value$newline ;;
		'only '*) only=$value ;;
		'partial '*) partial=$value ;;
		'rename '*) renames=$renames$value$newline ;;
		'rule-for '*) rule_patterns=$rule_patterns$value$newline ;;
		'boot '*) base_boot=$value ;;
		'base '*) add_base "$value" ;;
		'found '*) base_found=$(take "$value") || return 1 ;;
		'rules '*) rules=$(take "$value") || return 1 ;;
		'audit '*) audit_level=${value% *} && audit=$(take "${value#* }") || return 1 ;;
		end) return 0 ;;
		*) return 1 ;;
		esac
	done
	return 1
}

# keep_alive: writes empty lines to standard error while this works. Nothing else tells the client
# that a connection is dead.
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

# The end of standard input, also by a broken connection, stops this run. First come the hashes of
# the bases, which become an empty line in the FIFO `words`; then lines, up to `done`. Only the
# watcher writes to the FIFO: a reader ends when the watcher does.
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

# await_word: sets `word` to the client's next line. In the background, because a signal interrupts
# only `wait`.
await_word() {
	head -n 1 <&4 >said &
	jobs="$jobs $!"
	await_jobs
	read -r word <said || fail request "the hashes of the client's databases did not arrive whole"
}
