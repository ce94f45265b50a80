#!/bin/sh
# shellcheck shell=dash
# Packing: prepare-pull.sh is sent behind this, and calls it for what is not by hand.
# xtask/src/server/protocol.rs reads what it writes.
#
# Of prepare-pull.sh: `sql`, `measure`, `read_clock`, `require_number`,
# `announce_archive`, `await_jobs`, `fail` and `fail_sql`; of request.sh: `await_word`; of compare.sh: `send_delta`.
# shellcheck disable=SC2154,SC2034 # mode, rules, staging_dir, jobs and the times are of there

# numbers COUNT: what the copies are called.
numbers() {
	local n
	n=0
	while [ "$n" -lt "$1" ]; do printf '%d.db\n' "$n" && n=$((n + 1)); done
}

sha256_of() {
	if command -v sha256sum >/dev/null 2>&1; then sha256sum "$@"; else shasum -a 256 "$@"; fi
}

# The words of `od` without the blanks between them.
hex() { local pair && for pair in $(printf '%s' "$1" | od -An -v -tx1); do printf '%s' "$pair"; done; }

# A word that is safe inside JSON, or nothing.
word() { case $1 in *[!A-Za-z0-9._-]*) ;; *) printf '%s' "$1" ;; esac; }

write_index() {
	local i name delta size
	printf '{"version":1,"machine":"%s","region":"%s","sqlite":"%s","databases":[' \
		"$(word "${FLY_MACHINE_ID:-}")" "$(word "${FLY_REGION:-}")" \
		"$(word "$(sql :memory: 'SELECT sqlite_version();' </dev/null)")"
	i=0
	for name do
		[ "$i" -eq 0 ] || printf ','
		delta=false
		[ ! -e "$i.base" ] || delta=true
		measure "$i.db"
		printf '{"name":"%s","bytes":%d,"delta":%s}' "$(hex "$name")" "$size" "$delta"
		i=$((i + 1))
	done
	printf ']}\n'
}

# `sums` has the hashes in any order; rows and differences stand in files.
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
	printf '}\n'
}

# numbers_in COUNT KIND: what stands in 0.KIND, 1.KIND, …, as JSON.
numbers_in() {
	local i comma number
	i=0 comma=''
	printf '['
	while [ "$i" -lt "$1" ]; do
		number=null
		[ ! -e "$i.$2" ] || read -r number <"$i.$2"
		printf '%s%s' "$comma" "$number"
		comma=, i=$((i + 1))
	done
	printf ']'
}

# macOS's tar writes attributes of its own in a format of its own.
TAR_FORMAT=''
case $(tar --version 2>/dev/null) in bsdtar*) TAR_FORMAT='--format gnutar' ;; esac
tar_members() {
	# shellcheck disable=SC2086 # none or two words
	tar $TAR_FORMAT -cf - "$@"
}

compress() {
	# With threads of its own, zstd takes six times the memory.
	if zstd -q --single-thread -c </dev/null >/dev/null 2>&1; then
		zstd -q -3 --single-thread -c
	else
		gzip -1 -c
	fi
}

# In the background, because a signal interrupts only what is waited for; in the
# middle of making a pipeline, bash would even hang. Only `packed` tells whether
# all was, since the status of a pipeline is that of its end.
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

# They are called by number: what a database is called stands in the index. Hashing
# runs beside packing, so the end record is an archive of its own.
members() {
	local whole name sums
	whole=''
	for name in $(numbers "$1"); do [ -e "${name%.db}.base" ] || whole="$whole $name"; done
	# shellcheck disable=SC2086 # numbers
	[ -z "$whole" ] || sha256_of $whole >>sums &
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
		elif [ ! -e "$i.changed" ]; then
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

# Where the client does not see that it ends, it is told why.
explain_failed_pack() {
	local error
	error=$(cat compare.*.err 2>/dev/null | head -n 3)
	[ -n "$error" ] || fail no-space "cannot write what is packed in $staging_dir"
	fail_sql compare "comparing failed: $error"
}

# To the client.
send() {
	local machine planned
	case $mode in
	stream)
		# The client would wait for the rest of half a stream, and we for its word.
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

# What the client could not put together from what it has, it asks for: numbers of
# databases, which then come whole. It says `done` when it needs nothing more.
send_again() {
	local i kept name
	await_word
	[ "$word" != 'done' ] || return 0
	i=0 kept=0
	for name do
		shift
		case " $word " in
		*" $i "*)
			rm -f "$i.base" "$i.changed"
			[ "$i" -eq "$kept" ] || mv "$i.db" "$kept.db"
			[ "$i" -eq "$kept" ] || [ ! -e "$i.rows" ] || mv "$i.rows" "$kept.rows"
			set -- "$@" "$name"
			kept=$((kept + 1))
			;;
		*) rm -f "$i".* ;;
		esac
		i=$((i + 1))
	done
	base_groups=0
	: >sums
	rm -f packed pull.archive
	send "$@"
}
