#!/bin/sh
# Makes a consistent copy of all SQLite databases of a directory.
#
#   sh prepare-pull.sh [DIRECTORY]      by hand: an archive below $TMPDIR, then its
#                                       name, ---FILES---, the names, ---DONE---
#   cargo xtask pull-db                 sends this script and a request on standard
#                                       input, and reads the copies from standard output
#
# Needs sh, sqlite3, and coreutils or busybox. Production is only read. Values from outside are
# data: never part of a command. By hand, find.sh and copy.sh have to be in this directory; the
# client sends all files as one text.
# shellcheck shell=dash
# shellcheck disable=SC2154,SC2034 # GROUP and AHEAD are set in compare.sh, the times are for pack.sh
set -u
umask 077
export LC_ALL=C
export COPYFILE_DISABLE=1 # The tar of macOS would add a file of attributes for each file.
# GNU's programs would print sizes in other units, or use options of the user.
unset BLOCK_SIZE BLOCKSIZE DF_BLOCK_SIZE LS_BLOCK_SIZE TIME_STYLE GREP_OPTIONS GZIP TAR_OPTIONS

stage=''  # private directory that holds the copies
jobs=''   # process ids of the background jobs that copy and sanitize
nonce=''  # identifies this pull in every line that the client reads; empty by hand
mode=by-hand
machine='' # `any` if the client has chosen none of several
staging_dir=${TMPDIR:-/tmp}
includes='*.db'
excludes=''
only=''
partial='' # set if a rule may be for other databases than those of this source
renames='' # what databases are called at the client, a line each: SERVER//LOCAL
rules=''
rule_patterns='' # of databases, a line for each rule
audit=''
survey=''     # `all` or `rules`: what would stop a pull is only reported; `all` also describes the databases
same=''       # unchanged databases, see unchanged.sh
base_found='' # findings of the audit in the client's bases
base_groups=0 # number of groups of hashes that the client is asked for
has_hashes=0  # whether they have arrived
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

# status WORDS…: reports progress, for the client's terminal.
status() {
	[ -z "$nonce" ] || printf '\nXTASK-DB-STATUS 1 %s %s\n' "$nonce" "$*"
}

# fail CODE MESSAGE…: CODE is one word, which xtask/src/pull/error.rs maps to a hint.
fail() {
	local code=$1
	shift
	printf 'prepare-pull: %s\n' "$*" >&2
	[ -z "$nonce" ] || report_failure "$code" "$*"
	exit 1
}

# report_failure CODE MESSAGE…: prints the failure line for the client.
report_failure() {
	local code=$1
	shift
	printf '\nXTASK-DB-FAILED 1 %s %s %s\n' "$nonce" "$code" "$(printf '%s' "$*" | tr '\n\r' '  ')"
}

# A signal may arrive at any time, even while the EXIT trap begins; then the trap of the signal
# runs this to its end.
cleanup() {
	local job
	trap '' HUP INT TERM PIPE
	trap - EXIT
	# A job that has just started may ignore a signal: the line ends one that waits for a line. The
	# watcher is not waited for: it may be waiting for the client.
	[ -z "${watcher:-}" ] || echo >words
	for job in ${heart:-} ${watcher:-} $jobs; do kill "$job" 2>/dev/null; done
	# Again, for jobs that ignored it at their start. The shell's messages about killed jobs are
	# dropped.
	for job in $jobs; do kill "$job" && wait "$job"; done 2>/dev/null
	# A child of a killed job may still be creating a file in there, but not for long.
	for _ in 1 2 3 4 5; do
		if [ -z "$stage" ] || rm -rf "$stage"; then break; fi
		sleep 1
	done 2>/dev/null
}

# ---- small tools ---------------------------------------------------------

# literal TEXT: sets `quoted` to it as a string of SQL.
literal() {
	quoted=$1
	case $1 in *\'*) quoted=$(printf '%s\n' "$1" | sed "s/'/''/g") || return 1 ;; esac
	quoted="'$quoted'"
}

# Waits for the background jobs. Their process ids are dropped in any case: after the wait they may
# belong to other processes, which cleanup must not signal.
await_jobs() {
	local job
	set -- 0
	for job in $jobs; do wait "$job" || set -- $?; done
	jobs=''
	return "$1"
}

sql() { sqlite3 -batch -bail -init /dev/null "$@"; }

# is_number TEXT: a program may print nothing, a word, or a number too large for a shell.
is_number() { case $1 in '' | *[!0-9]* | 0?* | ???????????????????*) return 1 ;; esac; }

# require_number TEXT PROGRAM WHAT…
require_number() {
	local program=$2
	is_number "$1" && return
	shift 2
	fail no-number "$program printed no number for $*"
}

# read_clock: sets `now` to the time in milliseconds.
read_clock() {
	now=$(sql :memory: "$CLOCK" </dev/null)
	require_number "$now" sqlite3 'the time'
}

# measure FILE: sets `size` to its bytes, or to 0 if it does not exist. GNU, busybox and BSD share
# no other way than `ls -n` that does not read the file. The name comes last, so that it cannot
# shift the fields.
measure() {
	size=0
	[ -e "$1" ] || return 0
	# shellcheck disable=SC2012 # see above
	size=$(ls -lnLd "$1" 2>/dev/null | { read -r _ _ _ _ size _ && echo "$size"; })
	# The app may just have removed its -wal.
	is_number "$size" || [ -e "$1" ] || size=0
	require_number "$size" ls "the size of $1"
}

# with_lines TEXT COMMAND…: runs the command with each line of a text as one more argument.
with_lines() {
	local text=$1
	shift
	IFS=$newline
	set -f
	# shellcheck disable=SC2086 # lines
	set -- "$@" $text
	set +f
	unset IFS
	"$@"
}

# ---- the staging directory -----------------------------------------------

# place: identifies the boot and the namespace within which process ids are unique.
place() {
	local boot space
	read -r boot </proc/sys/kernel/random/boot_id && space=$(readlink "/proc/$$/ns/pid") || boot='' space=none
	echo "$boot-${space##*[}" | tr -d ']'
} 2>/dev/null

# began PID: prints when the process started, if it exists: process ids are reused.
began() {
	local stat
	if read -r stat <"/proc/$1/stat"; then
		# shellcheck disable=SC2086 # fields after the name, which may contain blanks
		set -- ${stat##*) }
		[ "$1" = Z ] || echo "${20}"
	elif kill -0 "$1"; then echo 0; fi
} 2>/dev/null

# each_abandoned COMMAND…: runs it with each directory of a run that was killed before its cleanup.
# The name says which process owns one. If that process ran in another namespace, the directory is
# left alone for a day.
each_abandoned() {
	local old owner pid
	for old in "$staging_dir"/xtask-pull.*; do
		if [ ! -d "$old" ] || [ -L "$old" ]; then continue; fi
		owner=${old##*/xtask-pull.}
		pid=${owner%%.*}
		case $owner in
		[!0-9]* | "$pid.$(began "$pid").$place".*) ;;
		*".$place".*) "$@" "$old" ;;
		*) if is_untouched "$old" -mtime +0 || is_of_earlier_boot "$old"; then "$@" "$old"; fi ;;
		esac
	done
}

# is_untouched DIRECTORY TEST NUMBER: whether `find` says so of its time.
is_untouched() { [ -n "$(find "$1" -prune "$2" "$3" 2>/dev/null)" ]; }

# is_of_earlier_boot DIRECTORY: whether this machine has booted since. Another machine that shares
# the disk may have written to it, or to a file in it, in the meantime.
is_of_earlier_boot() {
	local seconds
	case $1 in *".${place%-*}-"*) return 1 ;; esac
	read -r seconds </proc/uptime || return 1
	seconds=${seconds%%.*}
	is_untouched "$1" -mmin "+$((seconds / 60 + 1))" &&
		[ -z "$(find "$1" -mmin "-$((seconds / 60 + 1))" 2>&1)" ]
} 2>/dev/null

# free_of DIRECTORY: prints the free KiB of its disk. Some versions of df do not know every disk.
free_of() { df -Pk "$1" 2>/dev/null | { read -r _ && read -r _ _ _ free _ && echo "$free"; }; }

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
	# Besides the copies, VACUUM needs the size of the largest; an archive may be as large as all.
	needed=$(((total + largest) / 1024 + 1024))
	[ "$base_groups" -eq 0 ] || needed=$((needed + (AHEAD + base_groups * GROUP) / 1024))
	[ "$mode" = stream ] || needed=$((needed + total / 1024))
	free=$(free_of "$stage")
	# If the free space is unknown, copying detects a full disk.
	! is_number "$free" || [ "$free" -ge "$needed" ] ||
		fail no-space "$staging_dir has $free KiB free, and copying the databases needs $needed KiB"
	check_memory "$needed"
}

# check_memory KIB: fails if the copies would be in memory, and that is too small. With too little,
# the kernel kills the app.
check_memory() {
	local memory
	read_memory "$stage"
	! is_number "$memory" || [ "$memory" -ge "$1" ] ||
		fail no-memory "$staging_dir is in memory, of which $memory KiB are free, and copying the databases needs $1 KiB"
}

# read_memory DIRECTORY: sets `memory` to the free KiB of memory if the directory is in memory, else
# to nothing. df shows what a tmpfs may take, not what is free.
read_memory() {
	local key limit used
	memory=''
	case $(stat -f -c %t "$1" 2>/dev/null) in 1021994 | 858458f6) ;; *) return 0 ;; esac
	while read -r key limit _; do
		[ "$key" != MemAvailable: ] || memory=$limit
	done </proc/meminfo
	{ read -r limit </sys/fs/cgroup/memory.max && read -r used </sys/fs/cgroup/memory.current; } 2>/dev/null || limit=max
	if is_number "$limit" && is_number "$used" && [ $(((limit - used) / 1024)) -lt "${memory:-0}" ]; then memory=$(((limit - used) / 1024)); fi
}

# fail_sql CODE MESSAGE…: two conditions can stop any statement; they have codes of their own.
fail_sql() {
	case $2 in
	*'disk is full'* | *'disk I/O error'* | *'No space left'*) fail no-space "$2 (is $staging_dir full?)" ;;
	*'is locked'*) fail busy "$2 (a database in $directory stayed locked for 10 s)" ;;
	*) fail "$@" ;;
	esac
}

# ---- by hand -------------------------------------------------------------

# By hand, the archive contains the files under their own names.
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

# Says whether this machine is as good as the others. A replica of LiteFS has the primary's name in a
# file of the mount; on the primary, only the mount shows that all machines have the same databases.
say_mount() {
	local at device host='' point kind=other
	for at in "$directory" "${directory%/*}" /litefs; do
		[ ! -f "$at/.primary" ] || read -r host <"$at/.primary"
		[ -z "$host" ] || fail replica "$host"
	done
	[ ! -r /proc/mounts ] || while read -r device point _; do
		[ "$device" != litefs ] || case $directory/ in "$point"/*) kind=litefs ;; esac
	done </proc/mounts
	status mount "$kind"
}

enter_stage() {
	stage=$(mktemp -d "$staging_dir/xtask-pull.$$.$(began $$).$place.XXXXXX") ||
		fail no-space "cannot make a directory in $staging_dir"
	cd "$stage" || fail no-space "cannot enter $stage"
	# Sorting must write its temporary files there too: they may contain old values.
	export SQLITE_TMPDIR="$stage" TMPDIR="$stage"
}

# The databases that are copied; the others have not changed since the earlier pull.
prepare() {
	check_space "$@"
	read_clock && t_start=$now
	[ $# -eq 0 ] || status copying $# "$total"
	copy_all "$@"
	until [ "$mode" = by-hand ] || are_still_same "$@"; do
		# They come whole: the hashes are asked for already.
		base='' state=-
		while [ -n "$moved" ]; do
			if add_copy "${moved%%"$newline"*}"; then set -- "$@" "${moved%%"$newline"*}"; fi
			moved=${moved#*"$newline"}
		done
		copy_all "$@"
	done
	read_clock && t_copied=$now
	[ "$mode" = by-hand ] || { note_sizes $# && note_headers $#; }
	[ "$survey" != all ] || survey "$@"
	! is_plan || say_columns $#

	if [ "$base_groups" -gt 0 ]; then
		await_word
		[ -z "$word" ] || fail no-space "cannot write in $staging_dir"
		has_hashes=1
	fi
	if [ -n "$rules" ] && [ $# -gt 0 ]; then
		status sanitizing
		sanitize_all "$@"
		say_leaks
		! is_plan || say_effects
	fi
	if [ -n "$audit" ] && [ -n "$*$base_found" ]; then
		status auditing
		audit_all "$@"
	fi
	read_clock && t_sanitized=$now

	: >sums
	if [ "$base_groups" -gt 0 ]; then
		status comparing
		compare_to_bases $#
	fi
	read_clock && t_compared=$now
	status packing
	deliver "$@"
}

deliver() {
	local archive
	if [ "$mode" != by-hand ]; then
		send "$@"
		return
	fi
	archive=$staging_dir/xtask-databases-$(date -u +%Y-%m-%dT%H-%M-%SZ)-$$.tar.gz
	echo 'prepare-pull: by hand, nothing is masked: the archive holds production data' >&2
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
	[ "$machine" != any ] || say_mount
	[ "$mode" != doctor ] || { examine; exit 0; }
	require_directory "$directory" no-directory 'on the server'
	directory=$entered
	[ -r "$directory" ] || fail rights "user $(me) may not list $directory"
	command -v sqlite3 >/dev/null 2>&1 || fail no-sqlite3 "sqlite3 is not installed on the server"
	require_directory "$staging_dir" no-space 'to copy to'
	staging_dir=$entered
	place=$(place)
	gnu_grep=0 # Other greps are too slow with many patterns, or skip binary data.
	case $(grep --version 2>/dev/null) in 'grep (GNU grep)'*) gnu_grep=1 ;; esac
	if stat -c %i / >/dev/null 2>&1; then gnu_stat=1; else gnu_stat=0; fi
	each_abandoned rm -rf
	set --
	if [ "$mode" = by-hand ]; then
		for entry in "$directory"/*; do
			entry=${entry##*/}
			if selected "$entry"; then set -- "$@" "$entry"; fi
		done
	else
		find_names
		IFS=$newline
		set -f
		# shellcheck disable=SC2086 # lines
		set -- $names
		set +f
		unset IFS
	fi
	enter_stage
	choose=is_database
	[ "$mode" = by-hand ] || { choose=is_to_copy && read_first_states "$@"; }
	for entry do
		shift
		if $choose "$entry"; then set -- "$@" "$entry"; fi
	done
	[ -n "$same$*" ] || refuse_selection
	if [ "$mode" != by-hand ]; then
		ask_for_hashes
		watch_client
	fi
	prepare "$@"
}

main "$@"
