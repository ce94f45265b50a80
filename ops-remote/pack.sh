#!/bin/sh
# shellcheck shell=dash
# Packing: prepare-pull.sh is sent after this file and calls it unless it is run by hand. The
# output is read by xtask/src/server/protocol.rs.
#
# Uses `sql`, `read_clock`, `require_number`, `announce_archive`, `await_jobs`, `fail`
# and `fail_sql` of prepare-pull.sh, `await_word` of request.sh, `send_delta` of compare.sh.
# shellcheck disable=SC2154,SC2034 # mode, rules, staging_dir, jobs and the times are set in other files

# numbers COUNT: prints the names of the copies.
numbers() {
	local n
	n=0
	while [ "$n" -lt "$1" ]; do printf '%d.db\n' "$n" && n=$((n + 1)); done
}

sha256_of() {
	if command -v sha256sum >/dev/null 2>&1; then sha256sum "$@"; else shasum -a 256 "$@"; fi
}

# hex TEXT: its bytes in hex, without blanks.
hex() { printf '%s' "$1" | hex_lines; }

# hex_lines: the bytes of the input in hex, without blanks; a newline stays one. All or nothing is
# printed: a name that lost a byte would be another name.
hex_lines() {
	local byte text=''
	for byte in $(od -An -v -tx1); do case $byte in 0a) text=$text$newline ;; *) text=$text$byte ;; esac; done
	printf '%s' "$text"
}

# word TEXT: TEXT if it needs no escapes in JSON, else nothing.
word() { case $1 in *[!A-Za-z0-9._-]*) ;; *) printf '%s' "$1" ;; esac; }

# local_names NAME…: what these are called at the client, a line each.
local_names() {
	local one renamed
	for one do local_name "$one" && printf '%s\n' "$renamed"; done
}

write_index() {
	local i name='' delta size
	printf '{"version":1,"machine":"%s","region":"%s","sqlite":"%s","databases":[' \
		"$(word "${FLY_MACHINE_ID:-}")" "$(word "${FLY_REGION:-}")" \
		"$(word "$(sql :memory: 'SELECT sqlite_version();' </dev/null)")"
	i=0
	# The line behind the names tells that all of them are there.
	for name in $({ local_names "$@" && echo .; } | hex_lines); do
		[ "$i" -lt $# ] || break
		[ "$i" -eq 0 ] || printf ','
		delta=false
		[ ! -e "$i.base" ] || delta=true
		read_size "$i"
		printf '{"name":"%s","bytes":%d,"delta":%s}' "$name" "$size" "$delta"
		i=$((i + 1))
	done
	[ "$i" -eq $# ] && [ "$name" = 2e ] || return 1
	printf '],"boot":"%s","same":[' "$boot"
	i=''
	for name in $same; do printf '%s%d' "$i" "${name%%:*}" && i=,; done
	printf ']}\n'
}

# `sums` has the hashes in any order; rows and differences are in files.
write_end() {
	local now comma sum
	read_clock
	printf '{"version":1,"copy_ms":%d,"sanitize_ms":%d,"compare_ms":%d,"pack_ms":%d,"skew_ms":%d,"index":"%s","sha256":[' \
		$((t_copied - t_start)) $((t_sanitized - t_copied)) $((t_compared - t_sanitized)) \
		$((now - t_compared)) "$skew" "$(sha256_of index.json | { read -r sum _ && echo "$sum"; })"
	comma=''
	sort -n -k 2 sums | while read -r sum _; do printf '%s"%s"' "$comma" "$sum" && comma=,; done
	printf '],"changed":'
	numbers_in "$1" changed
	printf ',"sanitized":'
	if [ -n "$rules" ]; then numbers_in "$1" rows; else printf null; fi
	printf ',"scrubbed":'
	numbers_in "$1" scrub
	printf ',"state":'
	states_of "$1"
	[ ! -s found.json ] || { printf ',"found":' && cat found.json; }
	printf '}\n'
}

# states_of COUNT: for each copy its state and the rules and columns that matched something in it,
# as JSON. The client sends them back with the base of a later pull.
states_of() {
	local i=0 comma='' state lines
	printf '['
	while [ "$i" -lt "$1" ]; do
		state=-
		[ ! -e "$i.state" ] || read -r state <"$i.state"
		if [ "$state" != - ]; then
			join_lines "$i.applied" && state="$state $lines"
			join_lines "$i.columns" && printf '%s"%s/%s"' "$comma" "$state" "$lines"
		else
			printf '%snull' "$comma"
		fi
		comma=, i=$((i + 1))
	done
	printf ']'
}

# join_lines FILE: sets `lines` to its lines, separated by commas, or to `-`.
join_lines() {
	local line
	lines=''
	[ ! -e "$1" ] || while read -r line; do lines="$lines,$line"; done <"$1"
	lines=${lines#,}
	lines=${lines:--}
}

# numbers_in COUNT KIND: the contents of 0.KIND, 1.KIND, … as JSON.
numbers_in() {
	local i comma number
	i=0 comma=''
	printf '['
	while [ "$i" -lt "$1" ]; do
		number=null
		[ ! -s "$i.$2" ] || read -r number <"$i.$2"
		printf '%s%s' "$comma" "$number"
		comma=, i=$((i + 1))
	done
	printf ']'
}

# The tar of macOS writes extended attributes, in a format of its own.
TAR_FORMAT=''
case $(tar --version 2>/dev/null) in bsdtar*) TAR_FORMAT='--format gnutar' ;; esac
tar_members() {
	# shellcheck disable=SC2086 # none or two words
	tar $TAR_FORMAT -cf - "$@"
}

compress() {
	# Its worker threads would make zstd take six times the memory.
	if zstd -q --single-thread -c </dev/null >/dev/null 2>&1; then
		zstd -q -3 --single-thread -c
	else
		gzip -1 -c
	fi
}

# In the background, because a signal interrupts only `wait`; bash even hangs if one comes while it
# sets up a pipeline. The status of a pipeline is that of its last command, so the file `packed`
# tells whether all commands succeeded.
pack() {
	write_index "$@" >index.json || exit 1
	send_members $# &
	jobs=$!
	await_jobs && [ -e packed ]
}

send_members() {
	if [ "$mode" = dry-run ]; then
		members "$1" | compress | wc -c
	else
		members "$1" | compress
	fi
}

# Members are named by number; the names of the databases are in the index. The end record is an
# archive of its own, because hashing runs beside packing.
members() {
	local sums
	# shellcheck disable=SC2046 # names that are numbers
	[ "$1" -eq 0 ] || sha256_of $(numbers "$1") >sums &
	sums=$!
	send_databases "$1" && wait "$sums" && write_end "$1" >end.json && tar_members end.json && : >packed
}

send_databases() {
	local i
	set -- "$1" index.json
	i=0
	while [ "$i" -lt "$1" ]; do
		if [ ! -e "$i.base" ]; then
			set -- "$@" "$i.db"
		else
			send_whole "$@" && send_delta "$i" "$1" || return 1
			set -- "$1"
		fi
		i=$((i + 1))
	done
	send_whole "$@"
}

# send_whole COUNT MEMBER…
send_whole() {
	shift
	[ $# -eq 0 ] || tar_members "$@"
}

# In these modes the client does not see where the stream breaks off, so it is told why.
explain_failed_pack() {
	local error
	error=$(cat compare.*.err 2>/dev/null | head -n 3)
	[ -n "$error" ] || fail no-space "cannot write the archive in $staging_dir"
	fail_sql compare "comparing failed: $error"
}

# Sends the stream, or announces the archive.
send() {
	local machine planned
	case $mode in
	stream)
		# After half a stream, the client would wait for the rest and this for the client's answer.
		{ printf '\nXTASK-DB 1 %s\n' "$nonce" && pack "$@"; } || exit 1
		[ "$base_groups" -eq 0 ] || send_again "$@"
		;;
	archive)
		pack "$@" >pull.archive || explain_failed_pack
		announce_archive "$stage/pull.archive" "$@"
		machine=$(word "${FLY_MACHINE_ID:-}")
		printf '\nXTASK-DB-ARCHIVE 1 %s %s %s\n' "$nonce" "${machine:--}" "$stage/pull.archive"
		send_again "$@"
		;;
	dry-run)
		pack "$@" >plan || explain_failed_pack
		planned=$(tr -d ' ' <plan)
		require_number "$planned" wc 'the bytes that would be sent'
		printf '\nXTASK-DB-PLAN 1 %s %d\n' "$nonce" "$planned"
		tar_members index.json end.json | compress
		;;
	esac
}

# The client asks by number for the databases that it could not build from its bases; they are sent
# again, whole. It says `done` when it needs nothing more.
send_again() {
	local i kept name
	await_word
	[ "$word" != 'done' ] || return 0
	i=0 kept=0
	for name do
		shift
		case " $word " in
		*" $i "*)
			rm -f "$i.base" "$i.changed" "$i.fast"
			[ "$i" -eq "$kept" ] || mv "$i.db" "$kept.db"
			[ "$i" -eq "$kept" ] || mv "$i.size" "$kept.size"
			if [ "$i" -ne "$kept" ] && [ -e "$i.rows" ]; then mv "$i.rows" "$kept.rows" && mv "$i.scrub" "$kept.scrub"; fi
			set -- "$@" "$name"
			kept=$((kept + 1))
			;;
		*) rm -f "$i".* ;;
		esac
		i=$((i + 1))
	done
	base_groups=0 same=''
	: >sums
	rm -f packed pull.archive found.json ./*.state
	send "$@"
}
