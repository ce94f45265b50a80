#!/bin/sh
# Makes a consistent copy of all SQLite databases of a directory.
#
#   sh prepare-pull.sh [DIRECTORY]      by hand: an archive below $TMPDIR, then its
#                                       name, ---FILES---, the names, ---DONE---
#   cargo xtask pull-db                 sends this script and a request on standard
#                                       input, and reads the copies from standard output
#
# Needs sh, sqlite3 and what coreutils or busybox bring. Production is only read.
# Every value that comes from outside stays data: it is never part of a command. By hand,
# find.sh and copy.sh have to be beside this; else all files come in one text.
# shellcheck shell=dash
# shellcheck disable=SC2154,SC2034 # GROUP and AHEAD are of compare.sh, the times are for pack.sh
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
base_groups=0 # of hashes that the client sends after the request
newline='
'
CLOCK="SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER);" # in milliseconds

if [ -z "${XTASK_REQUEST:-}" ]; then
	case $0 in */*) here=${0%/*} ;; *) here=. ;; esac
	# shellcheck source=ops-remote/find.sh
	. "$here/find.sh"
	# shellcheck source=ops-remote/copy.sh
	. "$here/copy.sh"
fi

# ---- reporting -----------------------------------------------------------

# status WORDS…: what is being done, for the client's terminal.
status() {
	[ -z "$nonce" ] || printf '\nXTASK-DB-STATUS 1 %s %s\n' "$nonce" "$*"
}

# fail CODE MESSAGE…: CODE is one word, which xtask/src/pull/error.rs turns into a hint.
fail() {
	local code=$1
	shift
	printf 'prepare-pull: %s\n' "$*" >&2
	[ -z "$nonce" ] || report_failure "$code" "$*"
	exit 1
}

# report_failure CODE MESSAGE…: the line of a failure, for the client.
report_failure() {
	local code=$1
	shift
	printf '\nXTASK-DB-FAILED 1 %s %s %s\n' "$nonce" "$code" "$(printf '%s' "$*" | tr '\n\r' '  ')"
}

# A signal may come at any moment of it, also of its beginning at a normal exit:
# then this runs to its end from the signal's own trap.
cleanup() {
	local job
	trap '' HUP INT TERM PIPE
	trap - EXIT
	# A job that is killed as it begins may not heed it: a word ends one that waits for
	# that. The watcher is not waited for: it may itself wait for the client.
	[ -z "${watcher:-}" ] || echo >words
	for job in ${heart:-} ${watcher:-} $jobs; do kill "$job" 2>/dev/null; done
	# Once more: it comes too early for one that begins. Without a word on each that was killed.
	for job in $jobs; do kill "$job" && wait "$job"; done 2>/dev/null
	# A child of what was killed may just make a file there, but not for long.
	for _ in 1 2 3 4 5; do
		if [ -z "$stage" ] || rm -rf "$stage"; then break; fi
		sleep 1
	done 2>/dev/null
}

# ---- small tools ---------------------------------------------------------

literal() {
	local quoted
	quoted=$(printf '%s\n' "$1" | sed "s/'/''/g") && printf "'%s'" "$quoted"
}

# Waits for the background jobs. Their process ids are forgotten either way: once
# waited for they may be another's, which cleanup must not signal.
await_jobs() {
	local job
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
	local program=$2
	is_number "$1" && return
	shift 2
	fail no-number "$program printed no number for $*"
}

# read_clock: `now` becomes the time in milliseconds.
read_clock() {
	now=$(sql :memory: "$CLOCK" </dev/null)
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

# ---- the staging directory -----------------------------------------------

# A process id means something within one boot and one namespace of processes.
place() {
	local boot space
	read -r boot </proc/sys/kernel/random/boot_id && space=$(readlink "/proc/$$/ns/pid") || boot='' space=none
	echo "$boot${space##*[}" | tr -d ']'
} 2>/dev/null

# began PID: when that began, if it is there: its id may have been another's before.
began() {
	local stat
	if read -r stat <"/proc/$1/stat"; then
		# shellcheck disable=SC2086 # its words, behind the name, which may have blanks
		set -- ${stat##*) }
		[ "$1" = Z ] || echo "${20}"
	elif kill -0 "$1"; then echo 0; fi
} 2>/dev/null

# Directories of runs that were killed before they could clean up: whose each is
# stands in its name. One from another place may be at work, but not for a day.
remove_abandoned() {
	local old owner pid
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
	local name main needed free n=0
	total=0 largest=0 alone=''
	for name do
		locate "$name"
		measure "$path" && main=$size
		[ "$main" -lt "$ALONE" ] || alone="$alone $n"
		n=$((n + 1))
		measure "$path-wal" && size=$((main + size))
		total=$((total + size))
		[ "$size" -le "$largest" ] || largest=$size
	done
	# Beside the copies, VACUUM needs the largest once more; an archive may be as large as all.
	needed=$(((total + largest) / 1024 + 1024))
	[ "$base_groups" -eq 0 ] || needed=$((needed + (AHEAD + base_groups * GROUP) / 1024))
	[ "$mode" = stream ] || needed=$((needed + total / 1024))
	free=$(df -Pk "$stage" 2>/dev/null | { read -r _ && read -r _ _ _ free _ && echo "$free"; })
	# Not every df knows every disk. Where the room is unknown, copying finds out.
	! is_number "$free" || [ "$free" -ge "$needed" ] ||
		fail no-space "$staging_dir has $free KiB free, and copying the databases needs $needed KiB"
}

# fail_sql CODE MESSAGE…: two things can happen to every statement.
fail_sql() {
	case $2 in
	*'disk is full'* | *'disk I/O error'* | *'No space left'*) fail no-space "$2 (is $staging_dir full?)" ;;
	*'is locked'*) fail busy "$2 (a database in $directory stayed locked for 10 s)" ;;
	*) fail "$@" ;;
	esac
}

# is_utf16 FILE: the text encoding stands at offset 56 of the header, most significant byte first.
is_utf16() { header_byte "$1" 59 && case $byte in 2 | 3) ;; *) return 1 ;; esac; }

# header_byte FILE OFFSET: `byte` becomes that one, 0 where the file is empty.
header_byte() {
	byte=0
	[ -s "$1" ] || return 0
	byte=''
	for byte in $(od -An -tu1 -j"$2" -N1 "$1" 2>/dev/null); do :; done
	require_number "$byte" od "a byte of $1"
}

# ---- by hand -------------------------------------------------------------

# What an operator finds in the archive are files by their own names.
pack_by_hand() {
	local archive=$1 name i=0
	shift
	mkdir files || return 1
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
	if [ "$base_groups" -gt 0 ]; then
		await_word
		[ -z "$word" ] || fail no-space "cannot write in $staging_dir"
		status comparing
		compare_to_bases "$@"
	fi
	read_clock && t_compared=$now
	status packing
}

deliver() {
	local archive
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
	require_directory "$directory" no-directory here
	directory=$entered
	[ -r "$directory" ] || fail rights "user $(me) may not list $directory"
	require_directory "$staging_dir" no-space 'to copy to'
	staging_dir=$entered
	place=$(place)
	gnu_grep=0 # Others cannot look for many things at once, nor in what is no text.
	case $(grep --version 2>/dev/null) in 'grep (GNU grep)'*) gnu_grep=1 ;; esac
	if stat -c %i / >/dev/null 2>&1; then gnu_stat=1; else gnu_stat=0; fi
	remove_abandoned
	set --
	for entry in "$directory"/*; do
		entry=${entry##*/}
		if selected "$entry" && is_database "$entry"; then set -- "$@" "$entry"; fi
	done
	[ $# -gt 0 ] || fail no-databases "no database in $directory matches"
	prepare "$@"
	deliver "$@"
}

main "$@"
