#!/bin/sh
# Finds the databases: prepare-pull.sh is sent after this file, or sources it when run by hand.
#
# Uses `newline`, `nonce` and `fail` of prepare-pull.sh.
# shellcheck shell=dash
# shellcheck disable=SC2154,SC2034 # the request's values are set in request.sh

SQLITE_MAGIC='53 51 4c 69 74 65 20 66 6f 72 6d 61 74 20 33 00'

found=0   # number of databases so far
files=''  # numbers of the databases in WAL mode
pins=''   # numbers of the other databases
wide=''   # numbers of the databases whose text encoding is UTF-16

me() {
	local name
	name=$(id -un 2>/dev/null) || name=$(id -u)
	echo "$name"
}

# enter DIRECTORY: its absolute path. `cd` alone would interpret `-` and $CDPATH.
enter() { case $1 in /*) cd "$1" ;; *) cd "./$1" ;; esac 2>/dev/null && pwd; }

# require_directory DIRECTORY CODE WHAT…: sets `entered` to its absolute path.
require_directory() {
	local wanted=$1 code=$2
	shift 2
	entered=$(enter "$wanted") && return
	! find_barrier "$wanted" || fail rights "user $(me) may not enter $barrier"
	fail "$code" "there is no directory $wanted $*"
}

# find_barrier PATH: sets `barrier` to the first directory of PATH that this user may not enter.
find_barrier() {
	local rest at=.
	case $1 in /*) at='' ;; esac
	rest=${1#/}
	while :; do
		barrier=${at:-/}
		[ ! -d "$barrier" ] || [ -x "$barrier" ] || return 0
		[ -n "$rest" ] || return 1
		at=$at/${rest%%/*}
		case $rest in */*) rest=${rest#*/} ;; *) rest='' ;; esac
	done
}

# matches NAME PATTERNS: PATTERNS are separated by newlines.
matches() {
	local pattern matched=1
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
	[ -f "$directory/$1" ] || [ -L "$directory/$1" ] || return 1
	matches "$1" "$includes" || return 1
	[ -z "$excludes" ] || ! matches "$1" "$excludes" || return 1
	[ -z "$only" ] || matches "$1" "$only" || return 1
	# Skipping it would remove the database of an earlier pull from the client.
	[ -e "$directory/$1" ] || ! is_named "$1" || fail unreadable "$directory/$1 is a dangling symbolic link"
	[ -f "$directory/$1" ]
}

# is_named NAME: whether a pattern other than `*` matches the name.
is_named() {
	local named
	named=$(printf '%s\n' "$includes" | grep '[^*]')
	matches "$1" "$named"
}

# is_sidecar NAME: whether the name ends like a file that SQLite keeps beside a database.
is_sidecar() { case $1 in *-wal | *-shm | *-journal) ;; *) return 1 ;; esac; }

# is_database NAME: decided by the first bytes; an empty file is an empty database. Sidecars are
# not databases, nor are other files whose name only `*` matches.
is_database() {
	locate "$1"
	# The client refuses such names; by hand they are allowed.
	case ${nonce:+$1} in *\\* | *[[:cntrl:]]*) fail no-database "the name of $path has a backslash or a control character" ;; esac
	if is_sidecar "$1" && { [ ! -s "$path" ] || [ ! -r "$path" ]; }; then return 1; fi
	[ -s "$path" ] || { add_database 01 00 && return; }
	[ -r "$path" ] || fail rights "user $(me) may not read $path"
	# shellcheck disable=SC2046 # the words that od prints
	set -- "$1" $(od -An -v -tx1 -N60 "$path" 2>/dev/null)
	case "$* " in "$1 $SQLITE_MAGIC "*) add_database "${20-}" "${61-}" && return ;; esac
	! is_sidecar "$1" || return 1
	! is_named "$1" || fail no-database "$path has no SQLite header: it is another file, or encrypted"
	return 1
}

# add_database MODE ENCODING: bytes 18 and 59 of the header, in hex.
add_database() {
	if [ "$1" = 02 ]; then files="$files $found"; else pins="$pins $found"; fi
	case $2 in 02 | 03) wide="$wide $found" ;; esac
	found=$((found + 1))
}

# locate NAME: sets `path` to the file itself, after links: SQLite keeps the sidecars beside it.
locate() {
	path=$directory/$1
	[ ! -L "$path" ] || path=$(readlink -f "$path") || fail unreadable "$directory/$1 is a dangling symbolic link"
}

# locate_copy NUMBER NAME…: the same for the NUMBERth name.
locate_copy() { eval "locate \"\${$(($1 + 2))}\""; }
