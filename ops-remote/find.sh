#!/bin/sh
# Finds the databases: prepare-pull.sh is sent after this file, or sources it when run by hand.
#
# Uses `newline`, `nonce`, `measure` and `fail` of prepare-pull.sh.
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

# fits NAME PATTERN: both are paths. A `*` stops at a `/`; `**/` stands for any directories, or none.
fits() {
	case $2 in
	'**/'*) fits "$1" "${2#*/}" || { is_nested "$1" && fits "${1#*/}" "$2"; } ;;
	*/*)
		is_nested "$1" || return 1
		# shellcheck disable=SC2254 # the pattern is meant to be one
		case ${1%%/*} in ${2%%/*}) fits "${1#*/}" "${2#*/}" ;; *) return 1 ;; esac
		;;
	*)
		! is_nested "$1" || return 1
		# shellcheck disable=SC2254 # the pattern is meant to be one
		case $1 in $2) ;; *) return 1 ;; esac
		;;
	esac
}

is_nested() { case $1 in */*) ;; *) return 1 ;; esac; }

# matches NAME PATTERNS: PATTERNS are separated by newlines.
matches() {
	local pattern matched=1
	set -f
	IFS=$newline
	for pattern in $2; do
		if fits "$1" "$pattern"; then matched=0; fi
	done
	unset IFS
	set +f
	return "$matched"
}

# find_names: sets `names` to what is selected, a line each, in order.
find_names() {
	local pattern left=$includes
	names=''
	while [ -n "$left" ]; do
		pattern=${left%%"$newline"*} left=${left#*"$newline"}
		expand '' "$pattern"
	done
	names=$(printf %s "$names" | sort -u)
	[ -z "$renames" ] || with_lines "$names" refuse_meeting
}

# local_name NAME: sets `renamed` to what the database is called at the client.
local_name() {
	local left=$renames from to
	renamed=$1
	while [ -n "$left" ]; do
		from=${left%%"$newline"*} left=${left#*"$newline"}
		to=${from#*//} from=${from%%//*}
		[ "$from" != "$1" ] || { renamed=$to && return; }
		case $from in *'*'*) ;; *) continue ;; esac
		case $1 in "${from%%[*]*}"*"${from#*[*]}") ;; *) continue ;; esac
		[ "${#1}" -ge $((${#from} - 1)) ] || continue
		renamed=${1#"${from%%[*]*}"}
		renamed=${renamed%"${from#*[*]}"}
		case $renamed in */*) renamed=$1 && continue ;; esac
		renamed=${to%%[*]*}$renamed${to#*[*]}
		return
	done
}

# refuse_meeting NAME…: fails if two would have one name at the client.
refuse_meeting() {
	local name renamed seen=$newline
	for name do
		local_name "$name"
		case $seen in *"$newline$renamed//"*)
			seen=${seen#*"$newline$renamed//"}
			fail rename "${seen%%"$newline"*} and $name would both be called $renamed"
			;;
		esac
		seen=$seen$renamed//$name$newline
	done
}

# fits_either NAME PATTERN: by its name here or at the client.
fits_either() {
	local renamed
	! fits "$1" "$2" || return 0
	local_name "$1"
	[ "$renamed" != "$1" ] && fits "$renamed" "$2"
}

# expand DIRECTORY PATTERN: adds the names below a directory, which is empty or ends with a /. What
# begins with a dot is nobody's database, snapshots are not of production, and what a check of the
# file system recovered is only root's.
expand() {
	local entry first=${2%%/*}
	[ -x "$directory/$1" ] || fail rights "user $(me) may not enter $directory/${1%/}"
	case $first in *[*?[]*) [ -r "$directory/$1" ] || fail rights "user $(me) may not list $directory/${1%/}" ;; esac
	case $2 in '**/'*) expand "$1" "${2#*/}" && first='*' ;; esac
	# A name may have any characters: none of them separates.
	IFS=''
	for entry in "$directory/$1"$first; do
		unset IFS
		entry=${entry##*/}
		case $1$entry in .* | */.* | lost+found) continue ;; esac
		case $2 in
		'**/'*) [ ! -d "$directory/$1$entry" ] || [ -L "$directory/$1$entry" ] || expand_below "$1$entry" "$2" ;;
		*/*) [ ! -d "$directory/$1$entry" ] || expand_below "$1$entry" "${2#*/}" ;;
		*) add_name "$1$entry" ;;
		esac
	done
	unset IFS
}

expand_below() { case $1 in backup_*) ;; *) expand "$1/" "$2" ;; esac; }

# add_name NAME
add_name() {
	selected "$1" || return 0
	case $1 in *"$newline"*) fail no-database "the name of $directory/$1 has a backslash or a control character" ;; esac
	names=$names$1$newline
}

selected() {
	[ -f "$directory/$1" ] || [ -L "$directory/$1" ] || return 1
	matches "$1" "$includes" || return 1
	[ -z "$excludes" ] || ! matches "$1" "$excludes" || return 1
	[ -z "$only" ] || fits_either "$1" "$only" || return 1
	# Skipping it would remove the database of an earlier pull from the client.
	[ -e "$directory/$1" ] || ! is_named "$1" || fail unreadable "$directory/$1 is a dangling symbolic link"
	[ -f "$directory/$1" ]
}

# refuse_selection: fails, with the first names that `only` excludes.
refuse_selection() {
	local there='' more=0 name
	[ -n "${only:-}" ] || fail no-databases "no database in $directory matches"
	only='' renames=''
	find_names
	set -f
	IFS=$newline
	for name in $names; do
		if [ "${#there}" -lt 200 ]; then there="$there, $name"; else more=$((more + 1)); fi
	done
	unset IFS
	set +f
	[ -n "$there" ] || fail no-databases "no database in $directory matches"
	[ "$more" -eq 0 ] || there="$there and $more more"
	fail no-match "${there#, }"
}

# is_named NAME: whether a pattern other than `*` and `**/*` matches the name.
is_named() {
	local named
	named=$(printf '%s\n' "$includes" | grep '[^*/]')
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
	if is_sidecar "$1" || ! is_named "$1"; then return 1; fi
	refuse_encrypted "$@"
	fail no-database "$path has no SQLite header: it is another file"
}

# refuse_encrypted NAME BYTE…: fails if the file at `path` looks encrypted: it begins with bytes that
# are in no ASCII text, and has the size of whole sectors.
refuse_encrypted() {
	case " $*" in *' '[89a-f][0-9a-f]*) ;; *) return 0 ;; esac
	measure "$path"
	[ $((size % 512)) -ne 0 ] ||
		fail encrypted "$path is encrypted, or no SQLite database: only a program with its key can copy it at one moment, and mask it"
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
