#!/bin/sh
# Which files are the databases: prepare-pull.sh is sent behind this, or reads it by hand.
#
# Of there: `newline`, `nonce` and `fail`.
# shellcheck shell=dash
# shellcheck disable=SC2154,SC2034 # what is asked for is of there

SQLITE_MAGIC='53 51 4c 69 74 65 20 66 6f 72 6d 61 74 20 33 00'

found=0   # databases, in the order of their numbers
files=''  # numbers of those in WAL mode
pins=''   # and of the others
wide=''   # and of those with a text encoding of UTF-16

me() {
	local name
	name=$(id -un 2>/dev/null) || name=$(id -u)
	echo "$name"
}

# enter DIRECTORY: its absolute path. `cd` alone takes `-` and $CDPATH for others.
enter() { case $1 in /*) cd "$1" ;; *) cd "./$1" ;; esac 2>/dev/null && pwd; }

# require_directory DIRECTORY CODE WHAT…: `entered` becomes its absolute path.
require_directory() {
	local wanted=$1 code=$2
	shift 2
	entered=$(enter "$wanted") && return
	! find_barrier "$wanted" || fail rights "user $(me) may not enter $barrier"
	fail "$code" "there is no directory $wanted $*"
}

# find_barrier PATH: `barrier` becomes the first directory on the way that this user may
# not enter.
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
	# To pass over it would take the database away that an earlier pull has brought.
	[ -e "$directory/$1" ] || ! is_named "$1" || fail unreadable "$directory/$1 is a link that leads nowhere"
	[ -f "$directory/$1" ]
}

# is_named NAME: whether a pattern says something of the name, other than `*`.
is_named() {
	local named
	named=$(printf '%s\n' "$includes" | grep '[^*]')
	matches "$1" "$named"
}

# is_sidecar NAME: whether it is called as what SQLite keeps beside a database.
is_sidecar() { case $1 in *-wal | *-shm | *-journal) ;; *) return 1 ;; esac; }

# is_database NAME: what a file begins with says so; an empty one is an empty database. A
# sidecar is none, nor is another file whose name only `*` matches.
is_database() {
	locate "$1"
	# No client takes such a name; by hand it may be any.
	case ${nonce:+$1} in *\\* | *[[:cntrl:]]*) fail no-database "the name of $path has a backslash or a control character" ;; esac
	if is_sidecar "$1" && { [ ! -s "$path" ] || [ ! -r "$path" ]; }; then return 1; fi
	[ -s "$path" ] || { add_database 01 00 && return; }
	[ -r "$path" ] || fail rights "user $(me) may not read $path"
	# shellcheck disable=SC2046 # the words that od prints
	set -- "$1" $(od -An -v -tx1 -N60 "$path" 2>/dev/null)
	case "$* " in "$1 $SQLITE_MAGIC "*) add_database "${20-}" "${61-}" && return ;; esac
	! is_sidecar "$1" || return 1
	! is_named "$1" || fail no-database "$path does not begin as a SQLite database: it is another file, or encrypted"
	return 1
}

# add_database MODE ENCODING: what its header says of them, in hex.
add_database() {
	if [ "$1" = 02 ]; then files="$files $found"; else pins="$pins $found"; fi
	case $2 in 02 | 03) wide="$wide $found" ;; esac
	found=$((found + 1))
}

# locate NAME: `path` becomes that of the file itself, beside which SQLite has the others.
locate() {
	path=$directory/$1
	[ ! -L "$path" ] || path=$(readlink -f "$path") || fail unreadable "$directory/$1 leads nowhere"
}

# locate_copy NUMBER NAME…: the same of one of all.
locate_copy() { eval "locate \"\${$(($1 + 2))}\""; }
