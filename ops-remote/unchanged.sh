#!/bin/sh
# shellcheck shell=dash
# Databases that have not changed since an earlier pull: prepare-pull.sh is sent behind this.
# The client has what the file system said of them then, a word for each, and of an equal one
# nothing is copied, sanitized, hashed or sent. xtask/src/pull/base.rs is the other side.
#
# Of find.sh: `locate` and `local_name`; of prepare-pull.sh: `newline`, `gnu_stat`, `fail`, `is_number`.
# shellcheck disable=SC2154,SC2034 # names and numbers are of there

# File systems that set the times of each write themselves: ext, XFS, Btrfs, tmpfs, ZFS, F2FS,
# overlay. FUSE may set none, and over a network they may be old ones.
KNOWN_FILE_SYSTEMS=' ef53 58465342 9123683e 1021994 2fc12fc1 f2f52010 794c7630 '
SETTLED=2 # seconds that a file has not been written for

boot=''       # names the run of the kernel, within which device numbers mean something
base_boot=''  # the same at the earlier pull
all_bases='' # the same, also those that were looked at
bases=''      # a line for each database that the client has: see `add_base`
base_count=0
states=''     # of each database a word and a blank
same=''        # of each database that has not changed NUMBER:STATE:MATCHED, before a blank
same_names=''  # their names, each before a newline
copy_states='' # of the others, before they are copied

# add_base "SHA256 BYTES PAGE-SIZE SCRUBBED STATE MATCHED//NAME"
add_base() {
	bases="$bases$base_count $1$newline" all_bases=$bases
	base_count=$((base_count + 1))
}

# find_base NAME: `base` becomes its line without the name, or nothing. Both sides have them in
# one order, and to look past hundreds takes long.
find_base() {
	local renamed
	base=''
	local_name "$1"
	# With other names the order is another one.
	[ -z "$renames" ] || bases=$all_bases
	case $newline$bases in
	*"//$renamed$newline"*)
		base=${bases%%"//$renamed$newline"*}
		base=${base##*"$newline"}
		bases=${bases#*"//$renamed$newline"}
		;;
	esac
}

# knows_states NAME…: whether a state of these files says anything.
knows_states() {
	local kind
	[ "$gnu_stat" -eq 1 ] && read -r boot </proc/sys/kernel/random/boot_id || return 1
	for kind in $(list_files "$@" | xargs -0 stat -L -f -c %t | sort -u); do
		case $KNOWN_FILE_SYSTEMS in *" $kind "*) ;; *) return 1 ;; esac
	done
} 2>/dev/null

list_files() { for _ do locate "$1" && printf '%s\0' "$path" && shift; done; }

# read_states NAME…: `states` becomes a word for each database, of its file and its -wal: device,
# inode, size and times. It is a `-` where a write that comes now could leave the same.
read_states() {
	local logs='' mains sides='' name line log k=0 now
	states=''
	now=$(date +%s)
	mains=$(list_files "$@" | stat_files)
	for name do
		locate "$name"
		[ ! -e "$path-wal" ] || { printf '%s\0' "$path-wal" && logs="$logs$k "; }
		k=$((k + 1))
	done >state.logs
	[ -z "$logs" ] || sides=$(stat_files <state.logs)$newline
	k=0
	IFS=$newline
	for line in $mains; do
		log=0,0,-
		case $logs in "$k "*) log=${sides%%"$newline"*} sides=${sides#*"$newline"} logs=${logs#* } ;; esac
		add_state "$line" "$log"
		k=$((k + 1))
	done
	unset IFS
	# One of them has gone meanwhile.
	[ "$k" -eq $# ] && [ -z "$logs$sides" ] || states=$(for _ do printf -- '- '; done)
}

# stat_files: a line for each path on the input, as SECONDS,SECONDS,WORD.
stat_files() { TZ=UTC0 xargs -0 stat -L -c '%Y,%Z,%d.%i.%s.%y.%z' 2>/dev/null | tr ' :+' '_..'; }

# add_state LINE LINE: of the file and of its -wal.
add_state() {
	local line time settled=1
	for line do
		time=${line%%,*}
		[ $((now - time)) -gt "$SETTLED" ] || settled=0
		line=${line#*,}
		time=${line%%,*}
		[ $((now - time)) -gt "$SETTLED" ] || settled=0
	done
	case $1 in 0,* | *,0,*) settled=0 ;; esac
	if [ "$settled" -eq 1 ]; then states="$states${1##*,}.${2##*,} "; else states="$states- "; fi
}

# next_state: `state` becomes the next one.
next_state() { state=${states%% *} states=${states#* }; }

# is_same NAME: whether its `state` is the one in which its `base` was pulled.
is_same() {
	# shellcheck disable=SC2086 # words
	set -- "$1" $base
	if [ "$state" = - ] || [ "$state" != "${7-}" ] || [ "$boot" != "$base_boot" ]; then return 1; fi
	same="$same$2:$state:$8 " same_names="$same_names$1$newline"
}

# read_first_states NAME…
read_first_states() { if knows_states "$@"; then read_states "$@"; else boot=''; fi; }

# is_to_copy NAME: whether it is a database that has changed, or is new to the client.
is_to_copy() {
	if [ -n "$boot" ]; then next_state; else state=-; fi
	find_base "$1"
	if is_same "$1"; then return 1; fi
	add_copy "$1"
}

# add_copy NAME: whether it is a database, which is copied.
add_copy() {
	is_database "$1" || return 1
	copy_states="$copy_states$state "
	[ -z "$base" ] || want_hashes $((found - 1))
	state=- base=''
}

# are_still_same NAME…: whether those that were the same before these were copied are so still;
# `moved` becomes the names of the others. A copy whose file was the same all the time has a state.
are_still_same() {
	moved=''
	[ -z "$boot" ] || with_lines "$same_names" compare_states $# "$@"
	[ -z "$moved" ]
}

# compare_states COUNT NAME…: the first COUNT are those of copies.
compare_states() {
	local name before=$copy_states count=$1 i=0 list=$same
	shift
	read_states "$@"
	same='' same_names=''
	for name do
		next_state
		if [ "$i" -lt "$count" ]; then
			if [ "$state" != "${before%% *}" ] || [ -e "$i.pending" ]; then state=-; fi
			echo "$state" >"$i.state"
			before=${before#* }
		else
			case ${list%% *} in
			*:"$state":*) same="$same${list%% *} " same_names="$same_names$name$newline" ;;
			*) moved="$moved$name$newline" ;;
			esac
			list=${list#* }
		fi
		i=$((i + 1))
	done
}

# note_matches: which rules matched something in databases that have not changed, as
# find_unmatched_rules reads it.
note_matches() {
	local one
	for one in $same; do
		one=${one##*:}
		[ "${one%%/*}" = - ] || printf '%s,' "${one%%/*}" >>same.applied
		[ "${one#*/}" = - ] || printf '%s,' "${one#*/}" >>same.columns
	done
}
