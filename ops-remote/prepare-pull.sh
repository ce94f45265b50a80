#!/bin/sh
# Makes a consistent copy of all SQLite databases of a directory.
#
#   sh prepare-pull.sh [DIRECTORY]      by hand: an archive below $TMPDIR, then its
#                                       name, ---FILES---, the names, ---DONE---
#   cargo xtask pull-db                 sends this script and a request on standard
#                                       input, and reads the copies from standard output
#
# Needs sh, sqlite3 and what coreutils or busybox bring. Production is only read.
# Every value that comes from outside stays data: it is never part of a command.
# shellcheck disable=SC2154,SC2034 # block and ahead are of compare.sh, the times are for pack.sh
set -u
umask 077
export LC_ALL=C
export COPYFILE_DISABLE=1 # macOS's tar would add a file of attributes to each.
# GNU's programs would say sizes in other units, or take options of somebody's own.
unset BLOCK_SIZE BLOCKSIZE DF_BLOCK_SIZE LS_BLOCK_SIZE GREP_OPTIONS GZIP TAR_OPTIONS

stage=''  # private directory that holds the copies
jobs=''   # process ids of what copies and sanitizes in the background
nonce=''  # names this pull in every line that the client reads; empty by hand
mode=by-hand
staging_dir=${TMPDIR:-/tmp}
includes='*.db'
excludes=''
only=''
rules=''
audit=''
base_blocks=0 # of hashes that the client sends after the request
newline='
'

# ---- reporting -----------------------------------------------------------

# status WORDS…: what is being done, for the client's terminal.
status() {
	[ -z "$nonce" ] || printf '\nXTASK-DB-STATUS 1 %s %s\n' "$nonce" "$*"
}

# fail CODE MESSAGE…: CODE is one word, which xtask/src/server.rs turns into a hint.
fail() {
	code=$1
	shift
	text=$(printf '%s' "$*" | tr '\n\r' '  ')
	printf 'prepare-pull: %s\n' "$text" >&2
	[ -z "$nonce" ] || printf '\nXTASK-DB-FAILED 1 %s %s %s\n' "$nonce" "$code" "$text"
	exit 1
}

# A signal may come at any moment of it, also of its beginning at a normal exit:
# then this runs to its end from the signal's own trap.
cleanup() {
	trap '' HUP INT TERM PIPE
	trap - EXIT
	# A job that is killed as it begins may not heed it: a word ends one that waits for
	# that. The watcher is not waited for: it may itself wait for the client.
	[ -z "${watcher:-}" ] || echo >words
	for job in ${heart:-} ${watcher:-} $jobs; do kill "$job" 2>/dev/null; done
	for job in $jobs; do wait "$job"; done 2>/dev/null # without a word on each that was killed
	# A child of what was killed may just make a file there, but not for long.
	for _ in 1 2 3 4 5; do
		if [ -z "$stage" ] || rm -rf "$stage"; then break; fi
		sleep 1
	done 2>/dev/null
}

# ---- small tools ---------------------------------------------------------

literal() { quoted=$(printf '%s\n' "$1" | sed "s/'/''/g") && printf "'%s'" "$quoted"; }
# Waits for the background jobs. Their process ids are forgotten either way: once
# waited for they may be another's, which cleanup must not signal.
await_jobs() {
	set -- 0
	for job in $jobs; do wait "$job" || set -- $?; done
	jobs=''
	return "$1"
}

sql() { sqlite3 -batch -bail -init /dev/null "$@"; }

# is_number TEXT: a program may say nothing, a word, or more than a shell can count.
is_number() { case $1 in '' | *[!0-9]* | 0?* | ???????????????????*) return 1 ;; esac; }

# require_number TEXT PROGRAM WHAT…
require_number() {
	is_number "$1" && return
	shift
	program=$1
	shift
	fail no-number "$program printed no number for $*"
}

# read_clock: `now` becomes the time in milliseconds.
read_clock() {
	now=$(sql :memory: "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER);" </dev/null)
	require_number "$now" sqlite3 'the time'
}

# measure FILE: `size` becomes its bytes, 0 where it is not there. `ls -n` is the only way
# to them that GNU, busybox and BSD share without reading the file. The name comes last,
# so that it cannot disturb the fields.
measure() {
	size=0
	[ -e "$1" ] || return 0
	# shellcheck disable=SC2012 # see above
	size=$(ls -lnLd "$1" 2>/dev/null | { read -r _ _ _ _ size _ && echo "$size"; })
	# A -wal may have gone just now, with the app.
	is_number "$size" || [ -e "$1" ] || size=0
	require_number "$size" ls "the size of $1"
}

# enter DIRECTORY: its absolute path. `cd` alone takes `-` and $CDPATH for others.
enter() { case $1 in /*) cd "$1" ;; *) cd "./$1" ;; esac 2>/dev/null && pwd; }

# matches NAME PATTERNS: PATTERNS are separated by newlines.
matches() {
	matched=1
	set -f
	IFS=$newline
	for pattern in $2; do
		# shellcheck disable=SC2254 # the pattern is meant to be one
		case $1 in $pattern) matched=0 ;; esac
	done
	unset IFS
	set +f
	return "$matched"
}

selected() {
	[ -f "$directory/$1" ] && matches "$1" "$includes" || return 1
	[ -z "$excludes" ] || ! matches "$1" "$excludes" || return 1
	[ -z "$only" ] || matches "$1" "$only"
}

# ---- the copies ----------------------------------------------------------

# A process id means something within one boot and one namespace of processes.
place() {
	read -r boot </proc/sys/kernel/random/boot_id && space=$(readlink "/proc/$$/ns/pid") || boot='' space=none
	echo "$boot${space##*[}" | tr -d ']'
} 2>/dev/null

# began PID: when that began, if it is there: its id may have been another's before.
began() {
	if read -r stat <"/proc/$1/stat"; then
		# shellcheck disable=SC2086 # its words, behind the name, which may have blanks
		set -- ${stat##*) }
		[ "$1" = Z ] || echo "${20}"
	elif kill -0 "$1"; then echo 0; fi
} 2>/dev/null

# Directories of runs that were killed before they could clean up: whose each is
# stands in its name. One from another place may be at work, but not for a day.
remove_abandoned() {
	for old in "$staging_dir"/xtask-pull.*; do
		if [ ! -d "$old" ] || [ -L "$old" ]; then continue; fi
		owner=${old##*/xtask-pull.}
		pid=${owner%%.*}
		case $owner in
		[!0-9]* | "$pid.$(began "$pid").$place".*) ;;
		*".$place".*) rm -rf "$old" ;;
		*) [ -z "$(find "$old" -prune -mtime +0 2>/dev/null)" ] || rm -rf "$old" ;;
		esac
	done
}

check_space() {
	total=0 largest=0
	for name do
		locate "$name"
		measure "$path" && main=$size
		measure "$path-wal" && size=$((main + size))
		total=$((total + size))
		[ "$size" -le "$largest" ] || largest=$size
	done
	# Beside the copies, VACUUM needs the largest once more; an archive may be as large as all.
	needed=$(((total + largest) / 1024 + 1024))
	[ "$base_blocks" -eq 0 ] || needed=$((needed + (ahead + base_blocks * block) / 1024))
	[ "$mode" = stream ] || needed=$((needed + total / 1024))
	free=$(df -Pk "$stage" 2>/dev/null | { read -r _ && read -r _ _ _ free _ && echo "$free"; })
	# Not every df knows every disk. Where the room is unknown, copying finds out.
	! is_number "$free" || [ "$free" -ge "$needed" ] ||
		fail no-space "$staging_dir has $free KiB free, and copying the databases needs $needed KiB"
}

# Databases in WAL mode are copied as files: production sees no lock and no trace of it. Of
# the others SQLite keeps writers out, until its own copy is made.
copy_all() {
	i=0 files='' pins='' pinned='' copiers='' tries=0 started=0
	for name do
		locate "$name"
		header_byte "$path" 18
		if [ "$byte" -eq 2 ]; then files="$files $i"; else pins="$pins $i"; fi
		i=$((i + 1))
	done
	stale=$files
	copy_mains "$@"
	start_copiers 4194304 "$@"
	until copy_logs "$@"; do
		tries=$((tries + 1))
		[ "$tries" -lt 3 ] || pin_the_rest "$@"
		copy_mains "$@"
	done
	for i in $files; do [ ! -s "$i.db-wal" ] || take_log_in "$i" "$@"; done
	await_copiers "$@"
}

# locate NAME: `path` becomes that of the file itself, beside which SQLite has the others.
locate() {
	path=$directory/$1
	[ ! -L "$path" ] || path=$(readlink -f "$path") || fail unreadable "$directory/$1 leads nowhere"
}

# locate_copy NUMBER NAME…: the same of one of all.
locate_copy() { eval "locate \"\${$(($1 + 2))}\""; }

# copy_file FROM TO: in the background, because a signal interrupts only what is waited for.
copy_file() {
	dd if="$1" of="$2" bs=1048576 2>"$2.err" &
	others=$jobs jobs="$jobs $!"
	wait "$!" && jobs=$others && return
	jobs=$others why=$(head -n 1 "$2.err")
	# There is no room for a word either.
	case $why in '' | *'No space left'*) fail no-space "copying failed (is $staging_dir full?)" ;; esac
	fail unreadable "$1 cannot be read: ${why##*: }"
}

# Each copy is whole if nothing was lost from the -wal meanwhile: what a checkpoint writes
# into the main file is in it, too, until a writer begins it anew, with another header. What
# has an empty one has not changed if its times have not.
copy_mains() {
	for i in $stale; do
		locate_copy "$i" "$@"
		await_tick || observe
		echo "$seen" >"$i.seen"
		copy_file "$path" "$i.db"
	done
}

# stat_of FILE…: eight words for each: when it was changed (3), what and how large it is, when
# that was changed (3).
stat_of() {
	if [ "$gnu_stat" -eq 1 ]; then stat -c '%y %i %s %z' "$@"; else stat -f '%Fm x x %i %z %Fc x x' "$@"; fi 2>/dev/null
}

# await_tick: until a write that comes from now on gives the file another time than the one
# that is `seen`. Where the clock of a file system has seconds only, that is one of them.
await_tick() {
	while [ ! -s "$path-wal" ]; do
		: >tick || fail no-space "cannot write in $staging_dir"
		# shellcheck disable=SC2046 # words
		set -- $(stat_of tick "$path")
		[ $# -eq 16 ] || break
		tick="$1 $2" last="$9 ${10}"
		case $last in *.*[1-9]*) ;; *) tick=${tick%%.*} last=${last%%.*} ;; esac
		shift 8
		seen=$*
		[ "$tick" = "$last" ] || return 0
		case $last in *.*) ;; *) sleep 1 ;; esac
	done
	return 1
}

# observe: `seen` becomes what is another after a write that the copy would have half of.
observe() {
	if [ -s "$path-wal" ]; then seen="log $(od -An -v -tx1 -N32 "$path-wal" 2>/dev/null)"; else seen=$(stat_of "$path"); fi
	# shellcheck disable=SC2086 # words
	set -- $seen
	seen=$*
}

# unchanged NUMBER: whether the copy is whole. Some file systems have no times.
unchanged() {
	observe
	read -r before <"$1.seen"
	[ "$seen" = "$before" ] || return 1
	case $seen in '' | 1970-* | 0.*) cmp -s "$path" "$1.db" ;; esac
}

# What was committed at one moment to each -wal; whether all copies are whole then. Its -shm
# says how much that is. Where that does not change until all are copied, nothing more was
# committed, and it may be an old one.
copy_logs() {
	mark_commits mark "$@"
	for i in $files; do
		locate_copy "$i" "$@"
		rm -f "$i.db-wal"
		[ ! -s "$path-wal" ] || copy_file "$path-wal" "$i.db-wal"
	done
	mark_commits later "$@"
	stale=''
	for i in $files; do
		locate_copy "$i" "$@"
		unchanged "$i" || stale="$stale $i"
	done
	[ -z "$stale" ]
}

# mark_commits KIND NAME…: what each -shm says goes to NUMBER.KIND. One process reads all of
# them, so that it is one moment.
mark_commits() {
	kind=$1 n=0 marked=''
	shift
	for name do
		shift
		rm -f "$n.$kind"
		case " $files " in *" $n "*) locate "$name" ;; *) path=/dev/null ;; esac
		[ ! -s "$path-shm" ] || { marked="$marked $n" && set -- "$@" "$path-shm"; }
		n=$((n + 1))
	done
	[ $# -gt 0 ] || return 0
	# shellcheck disable=SC2046 # words, 12 and the same 12 of each, if nobody was writing them
	set -- $(head -q -c 96 "$@" 2>/dev/null | od -An -v -tu4)
	for i in $marked; do
		[ $# -ge 24 ] || return 0
		echo "$5 $1-$2-$3-$4-$5-$6-$7-$8-$9-${10}-${11}-${12} ${13}-${14}-${15}-${16}-${17}-${18}-${19}-${20}-${21}-${22}-${23}-${24}" >"$i.$kind"
		shift 24
	done
}

# cut_log NUMBER: whether more was committed than at that moment; `kept` becomes the bytes of
# what was. A frame has a page, whose size is in the header, and 24 bytes.
cut_log() {
	[ -e "$1.mark" ] && [ -e "$1.later" ] || return 1
	read -r frames first second <"$1.mark"
	read -r _ later _ <"$1.later"
	[ "$first" = "$second" ] && [ "$first" != "$later" ] && [ "$frames" -gt 0 ] || return 1
	read -r seen <"$1.seen"
	# shellcheck disable=SC2086 # words, the second of which is the first byte
	set -- $seen
	kept=$((32 + frames * (24 + 0x${10}${11}${12}${13})))
}

# take_log_in NUMBER NAME…: as SQLite does it after a crash.
take_log_in() {
	locate_copy "$@"
	if cut_log "$1" && ! { head -c "$kept" "$1.db-wal" >"$1.cut" && mv "$1.cut" "$1.db-wal"; }; then
		fail no-space "cannot write in $staging_dir"
	fi
	error=$(sql "$1.db" 'PRAGMA wal_checkpoint(TRUNCATE);' 2>&1 >/dev/null) || fail_sql unreadable "$path cannot be read: $error"
	[ ! -s "$1.db-wal" ] || fail no-space "cannot write in $staging_dir"
}

# pin_the_rest NAME…: those that are written too fast are pinned by a reader, as long as it
# takes to copy them. Only their owner's leaves no files that the app cannot use.
pin_the_rest() {
	me=$(id -u) calm=''
	for i in $files; do
		locate_copy "$i" "$@"
		# shellcheck disable=SC2012 # see `measure`
		owner=$(ls -lnLd "$path" 2>/dev/null | { read -r _ _ owner _ && echo "$owner"; })
		if [ "$owner" = "$me" ] && [ -e "$path-wal" ] && [ -e "$path-shm" ]; then
			rm -f "$i.db" "$i.db-wal"
			pins="$pins $i"
			continue
		fi
		calm="$calm $i"
		case " $stale " in *" $i "*) [ "$tries" -lt 10 ] ;; esac ||
			fail moving "$path is written faster than it can be copied, and what user $me must leave beside it to lock it would lock out its owner, user ${owner:-?}"
	done
	files=$calm stale=$calm
	start_copiers 0 "$@"
}

# start_copiers BYTES NAME…: each pins what it copies with one SELECT, which is one moment, and
# keeps writers from starting .backup again. One attaches ten at the most, all in its own text
# encoding. What has so many BYTES has its own: who writes to others need not wait for it.
start_copiers() {
	alone=$1
	shift
	start_group
	for i in $pins; do
		locate_copy "$i" "$@"
		measure "$path"
		if is_utf16 "$path" || { [ "$alone" -gt 0 ] && [ "$size" -ge "$alone" ]; }; then
			start_copier "$path" "BEGIN;${newline}SELECT count(*) FROM sqlite_master;${newline}.backup main $i.db"
		else
			# A small cache: a machine of 256 MB runs the app as well.
			attach="${attach}ATTACH $(literal "$path") AS s$i; PRAGMA s$i.cache_size = -64;$newline"
			pin="$pin + (SELECT count(*) FROM s$i.sqlite_master)"
			copy="$copy.backup s$i $i.db$newline"
			members=$((members + 1))
			[ "$members" -lt 10 ] || finish_group
		fi
	done
	[ "$members" -eq 0 ] || finish_group
	pinned="$pinned$pins" pins=''
}

start_group() { members=0 attach='' pin='SELECT 0' copy=''; }
finish_group() {
	start_copier :memory: "${attach}BEGIN;$newline$pin;$newline$copy"
	start_group
}

# start_copier DATABASE SQL
start_copier() {
	started=$((started + 1)) script=copy-$started
	# Half of it would end well, with half of the copies.
	printf '.bail on\n.timeout 10000\n%s\n' "$2" >"$script.sql" || fail no-space "cannot write in $staging_dir"
	# By hand on purpose, not through `sql`: the process id must be sqlite3's own.
	sqlite3 -batch -bail -readonly -init /dev/null "$1" <"$script.sql" >/dev/null 2>"$script.err" &
	copiers="$copiers $script:$!"
	jobs="$jobs $!"
}

await_copiers() {
	failed_copy=''
	for copier in $copiers; do wait "${copier#*:}" || failed_copy=${copier%%:*}; done
	jobs=''
	[ -z "$failed_copy" ] || explain_failed_copy "$@"
	# .backup makes no file of an empty database.
	for i in $pinned; do [ -e "$i.db" ] || : >"$i.db"; done
}

# sqlite3 says what went wrong, but not with which file.
explain_failed_copy() {
	error=$(head -n 3 "$failed_copy.err")
	for i in $pinned; do
		case $error in *'disk is full'* | *'disk I/O error'* | *'is locked'*) break ;; esac
		locate_copy "$i" "$@"
		why=$(sql -readonly "$path" 'SELECT count(*) FROM sqlite_master' 2>&1 >/dev/null) ||
			fail unreadable "$path cannot be read: $why"
	done
	fail_sql copy "copying failed: $error"
}

# The text encoding stands at offset 56 of the header, most significant byte first.
is_utf16() { header_byte "$1" 59 && case $byte in 2 | 3) ;; *) return 1 ;; esac; }

# header_byte FILE OFFSET: `byte` becomes that one, 0 where the file is empty.
header_byte() {
	byte=0
	[ -s "$1" ] || return 0
	byte=''
	for byte in $(od -An -tu1 -j"$2" -N1 "$1" 2>/dev/null); do :; done
	require_number "$byte" od "a byte of $1"
}

# fail_sql CODE MESSAGE…: two things can happen to every statement.
fail_sql() {
	case $2 in
	*'disk is full'* | *'disk I/O error'* | *'No space left'*) fail no-space "$2 (is $staging_dir full?)" ;;
	*'is locked'*) fail busy "$2 (a database in $directory stayed locked for 10 s)" ;;
	*) fail "$@" ;;
	esac
}

# ---- by hand -------------------------------------------------------------

# What an operator finds in the archive are files by their own names.
pack_by_hand() {
	archive=$1
	shift
	mkdir files || return 1
	i=0
	for name do
		mv "$i.db" "files/$name" || return 1
		i=$((i + 1))
	done
	tar -czf "$archive" -C files .
}

announce_archive() {
	printf -- '---ARCHIVE---\n%s\n---FILES---\n' "$1"
	shift
	printf '%s\n' "$@"
	printf -- '---DONE---\n'
}

# ---- the plan ------------------------------------------------------------

prepare() {
	stage=$(mktemp -d "$staging_dir/xtask-pull.$$.$(began $$).$place.XXXXXX") ||
		fail no-space "cannot make a directory in $staging_dir"
	cd "$stage" || fail no-space "cannot enter $stage"
	# Also what sorts, which may be old values, does it there.
	export SQLITE_TMPDIR="$stage" TMPDIR="$stage"
	[ "$mode" = by-hand ] || watch_client
	check_space "$@"

	read_clock && t_start=$now
	status copying $# "$total"
	copy_all "$@"
	read_clock && t_copied=$now

	if [ -n "$rules" ]; then
		status sanitizing
		sanitize_all "$@"
	fi
	if [ -n "$audit" ]; then
		status auditing
		audit_all "$@"
	fi
	read_clock && t_sanitized=$now

	: >sums
	if [ "$base_blocks" -gt 0 ]; then
		await_word
		[ -z "$word" ] || fail no-space "cannot write in $staging_dir"
		status comparing
		compare_to_bases "$@"
	fi
	read_clock && t_compared=$now
	status packing
}

deliver() {
	if [ "$mode" != by-hand ]; then
		send "$@"
		return
	fi
	archive=$staging_dir/xtask-databases-$(date -u +%Y-%m-%dT%H-%M-%SZ)-$$.tar.gz
	echo 'prepare-pull: by hand, nothing is sanitized: the archive holds production data' >&2
	pack_by_hand "$archive" "$@" || fail no-space "cannot write $archive"
	announce_archive "$archive" "$@"
}

main() {
	trap cleanup EXIT
	trap 'cleanup; exit 129' HUP
	trap 'cleanup; exit 130' INT
	trap 'cleanup; exit 141' PIPE
	trap 'cleanup; exit 143' TERM
	directory=${1:-${DATA_DIR:-/data}}
	if [ -n "${XTASK_REQUEST:-}" ]; then
		includes=''
		read_request || fail request "the request did not arrive whole"
		keep_alive
	fi
	command -v sqlite3 >/dev/null 2>&1 || fail no-sqlite3 "sqlite3 is not installed on this machine"
	found=$(enter "$directory") || fail no-directory "there is no directory $directory here"
	directory=$found
	found=$(enter "$staging_dir") || fail no-space "there is no directory $staging_dir to copy to"
	staging_dir=$found
	place=$(place)
	gnu_grep=0 # Others cannot look for many things at once, nor in what is no text.
	case $(grep --version 2>/dev/null) in 'grep (GNU grep)'*) gnu_grep=1 ;; esac
	if stat -c %i / >/dev/null 2>&1; then gnu_stat=1; else gnu_stat=0; fi
	remove_abandoned
	set --
	for path in "$directory"/*; do
		! selected "${path##*/}" || set -- "$@" "${path##*/}"
	done
	[ $# -gt 0 ] || fail no-databases "no database in $directory matches"
	prepare "$@"
	deliver "$@"
}

main "$@"
