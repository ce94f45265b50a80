#!/bin/sh
# The copies, consistent and all of one moment: prepare-pull.sh is sent after this file, or
# sources it when run by hand.
#
# Uses `CLOCK`, `sql`, `literal`, `measure`, `is_number`, `read_clock`, `fail` and `fail_sql` of
# prepare-pull.sh; `locate`, `locate_copy`, `me`, and the lists of numbers `files`, `pins` and
# `wide` of find.sh. `alone` lists the databases of ALONE bytes or more.
# shellcheck shell=dash
# shellcheck disable=SC2154,SC2034 # newline, jobs, staging_dir and gnu_stat are set in prepare-pull.sh

ALONE=4194304  # bytes; a larger database in a rollback mode has a sqlite3 of its own
TOGETHER=10    # smaller databases that share a sqlite3, which can attach no more
TRIES=3        # copies of a file that changes meanwhile, before a read transaction guards it
GIVE_UP=10     # copies of such a file if this user cannot guard it
PROBE=16777216 # bytes of a database that are read to estimate how long its copy takes

max_lock=0   # milliseconds that writers may have to wait for a copy; 0 for no limit
skew=0       # milliseconds between the moments of the first and the last database
pinners=''   # sqlite3 processes that pin databases, each as SCRIPT:PID
directors='' # process ids of the shells that write to the pinners
started=0    # number of directors
released=0   # number of directors that were told to pin
dismissed=0  # number of directors that were told to end
guarded=''   # numbers of the databases in WAL mode whose -wal a reader keeps from being reset
marked_at='' # when the -shm files were read, in milliseconds

# Databases in WAL mode are copied as files: production sees no lock and no trace of it. Databases
# in a rollback mode are locked for reading by SQLite, until each is copied.
copy_all() {
	local i tries=0
	stale=$files
	check_locks "$@"
	until copy_once "$tries" "$@"; do tries=$((tries + 1)); done
	for i in $files; do
		is_log_settled "$i" || : >"$i.pending"
		[ ! -s "$i.db-wal" ] || take_log_in "$i" "$@"
	done
	measure_skew
}

# copy_once TRIES NAME…: whether all copies are consistent. If not, the databases under a lock are
# copied again as well: their copies are older than the next copies of the others.
copy_once() {
	local tries=$1
	shift
	rm -f hold-*.moment
	[ "$tries" -lt "$TRIES" ] || guard_the_rest "$tries" "$@"
	pin_all "$@"
	copy_mains "$@"
	release_holders
	copy_logs "$@"
	dismiss_holders
	await_holders "$@"
	[ -z "$stale" ]
}

# copy_file FROM TO: copies in a background job, because a signal interrupts only `wait`.
copy_file() {
	local others=$jobs
	dd if="$1" of="$2" bs=1048576 2>"$2.err" &
	jobs="$jobs $!"
	wait "$!" && jobs=$others && return
	jobs=$others
	explain_copy "$1" "$2"
}

# explain_copy FROM TO: fails with the reason why dd failed.
explain_copy() {
	local why
	[ -r "$1" ] || fail rights "user $(me) may not read $1"
	why=$(head -n 1 "$2.err")
	# A full disk may have no space for the message either.
	case $why in '' | *'No space left'*) fail no-space "copying failed (is $staging_dir full?)" ;; esac
	fail unreadable "$1 cannot be read: ${why##*: }"
}

# ---- as files --------------------------------------------------------------

# A copy is consistent if the -wal was not reset meanwhile: what a checkpoint writes into the main
# file is in the -wal too, until a writer resets it, with a new header. A database with an empty
# -wal is unchanged if its file times are unchanged.
copy_mains() {
	local i line tick quiet stats observed=' '
	stat_quiet "$stale" "$@"
	: >tick || fail no-space "cannot write in $staging_dir"
	tick=$(stat_of tick)
	IFS=$newline
	for line in $stats; do
		i=${quiet%% *} quiet=${quiet#* }
		! is_older "$line" "$tick" || { echo "$line" >"$i.seen" && observed="$observed$i "; }
	done
	unset IFS
	for i in $stale; do
		locate_copy "$i" "$@"
		case $observed in *" $i "*) ;; *) { await_tick || observe; } && echo "$seen" >"$i.seen" ;; esac
		copy_file "$path" "$i.db"
	done
}

# stat_quiet NUMBERS NAME…: asks one process for the times of those databases whose -wal is empty:
# `quiet` becomes their numbers, `stats` a line for each, as `stat_of` has it.
stat_quiet() {
	local i count=0 numbers=$1
	shift
	quiet='' stats=''
	[ "$gnu_stat" -eq 1 ] || return 0
	for i in $numbers; do
		locate_copy "$i" "$@"
		[ -s "$path-wal" ] || { quiet="$quiet$i " && count=$((count + 1)) && printf '%s\0' "$path"; }
	done >quiet
	stats=$(xargs -0 stat -c "$TIMES" <quiet 2>/dev/null)
	with_lines "$stats" counts "$count" || quiet='' stats=''
}

# counts COUNT LINE…: whether there are so many lines.
counts() { [ $# -eq $(($1 + 1)) ]; }

# is_older STATS STATS: whether the first file was written before the second one was, by a clock that
# counts more than seconds.
is_older() {
	local one=${1#* } other=${2#* }
	case ${one%% *} in *.*[1-9]*) ;; *) return 1 ;; esac
	[ "${1%% *} ${one%% *}" != "${2%% *} ${other%% *}" ]
}

# stat_of FILE…: eight words per file: time of modification (3), inode, size, time of the status
# change (3).
TIMES='%y %i %s %z'
stat_of() {
	if [ "$gnu_stat" -eq 1 ]; then stat -c "$TIMES" "$@"; else stat -f '%Fm x x %i %z %Fc x x' "$@"; fi 2>/dev/null
}

# await_tick: waits until a write would give the file another time than the one in `seen`. On a
# file system whose times have whole seconds, this takes up to a second.
await_tick() {
	local tick last
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

# observe: sets `seen` to a value that every write changes, if the copy could contain half of it.
observe() {
	if [ -s "$path-wal" ]; then seen="log $(od -An -v -tx1 -N32 "$path-wal" 2>/dev/null)"; else seen=$(stat_of "$path"); fi
	# shellcheck disable=SC2086 # words
	set -- $seen
	seen=$*
}

# find_stale NAME…: sets `stale` to the databases whose copy is not consistent.
find_stale() {
	local i quiet stats
	stale=''
	stat_quiet "$files" "$@"
	for i in $files; do
		locate_copy "$i" "$@"
		case $quiet in
		"$i "*) seen=${stats%%"$newline"*} quiet=${quiet#* } stats=${stats#*"$newline"} ;;
		*) observe ;;
		esac
		unchanged "$i" || stale="$stale $i"
	done
}

# unchanged NUMBER: whether it is as it was seen before it was copied. Without file times, contents
# are compared.
unchanged() {
	local before
	read -r before <"$1.seen"
	[ "$seen" = "$before" ] || return 1
	case $seen in '' | 1970-* | 0.*) cmp -s "$path" "$1.db" ;; esac
}

# Copies the committed part of each -wal, as of one moment given by its -shm, and sets `stale` to
# the databases whose copy is not consistent then. If no -shm changes until all are copied,
# nothing more was committed, and the moment may be an earlier one.
copy_logs() {
	local i
	mark_commits mark "$@"
	[ -n "$guarded" ] || dismiss_holders
	[ -z "$files" ] || { read_clock && marked_at=$now; }
	for i in $files; do
		locate_copy "$i" "$@"
		[ ! -e "$i.db-wal" ] || rm "$i.db-wal"
		[ ! -s "$path-wal" ] || copy_file "$path-wal" "$i.db-wal"
	done
	mark_commits later "$@"
	find_stale "$@"
}

# mark_commits KIND NAME…: saves the header of each -shm to NUMBER.KIND, unless it is being written.
mark_commits() {
	local kind=$1 n=0 marked='' name i
	shift
	for name do
		shift
		[ ! -e "$n.$kind" ] || rm "$n.$kind"
		case " $files " in *" $n "*) locate "$name" ;; *) path=/dev/null ;; esac
		[ ! -s "$path-shm" ] || { marked="$marked $n" && set -- "$@" "$path-shm"; }
		n=$((n + 1))
	done
	[ $# -gt 0 ] || return 0
	for _ in 1 2 3 4 5; do write_marks "$kind" "$marked" "$@" && break; done
}

# write_marks KIND NUMBERS SHM…: whether no -shm was being written: it begins with 12 words and a
# copy of them. One process reads all files, so that they are of one moment.
write_marks() {
	local kind=$1 numbers=$2 i first second torn=0
	shift 2
	# shellcheck disable=SC2046 # words
	set -- $(head -q -c 96 "$@" 2>/dev/null | od -An -v -tu4)
	for i in $numbers; do
		[ $# -ge 24 ] || return 0
		first=$1-$2-$3-$4-$5-$6-$7-$8-$9-${10}-${11}-${12}
		second=${13}-${14}-${15}-${16}-${17}-${18}-${19}-${20}-${21}-${22}-${23}-${24}
		echo "$5 $first $second" >"$i.$kind"
		[ "$first" = "$second" ] || torn=1
		shift 24
	done
	return "$torn"
}

# cut_log NUMBER: whether more was committed than at the marked moment; sets `kept` to the bytes
# committed by then. A frame is a page, whose size is in the header, and 24 bytes.
cut_log() {
	local frames first second later log
	[ -e "$1.mark" ] && [ -e "$1.later" ] || return 1
	read -r frames first second <"$1.mark"
	read -r _ later _ <"$1.later"
	[ "$first" = "$second" ] && [ "$first" != "$later" ] && [ "$frames" -gt 0 ] || return 1
	read -r log <"$1.seen"
	# shellcheck disable=SC2086 # words: the second one is the first byte
	set -- $log
	kept=$((32 + frames * (24 + 0x${10}${11}${12}${13})))
}

# is_log_settled NUMBER: whether its -wal has no valid frame after the last commit. Such a frame
# could be committed later without a change of the file.
is_log_settled() {
	local frames log
	[ ! -e "$1.pending" ] || rm "$1.pending"
	[ -s "$1.db-wal" ] && [ -e "$1.mark" ] || return 0
	read -r frames _ <"$1.mark"
	read -r log <"$1.seen"
	# shellcheck disable=SC2086 # words
	set -- "$1" $log
	[ $# -eq 34 ] || return 1
	log="${19} ${20} ${21} ${22} ${23} ${24} ${25} ${26}"
	# shellcheck disable=SC2046 # words
	set -- $(od -An -v -tx1 -j$((32 + 8 + frames * (24 + 0x${11}${12}${13}${14}))) -N8 "$1.db-wal" 2>/dev/null)
	[ "$*" != "$log" ]
}

# take_log_in NUMBER NAME…: recovers the copied -wal, as SQLite does after a crash.
take_log_in() {
	local error
	locate_copy "$@"
	if cut_log "$1" && ! { head -c "$kept" "$1.db-wal" >"$1.cut" && mv "$1.cut" "$1.db-wal"; }; then
		fail no-space "cannot write in $staging_dir"
	fi
	error=$(sql "$1.db" 'PRAGMA wal_checkpoint(TRUNCATE);' 2>&1 >/dev/null) || fail_sql unreadable "$path cannot be read: $error"
	[ ! -s "$1.db-wal" ] || fail no-space "cannot write in $staging_dir"
}

# guard_the_rest TRIES NAME…: opens a read transaction on files that change too fast, so that their
# -wal is not reset until it is copied. Only the owner's reader leaves files that the app can use.
guard_the_rest() {
	local tries=$1 uid i owner
	uid=$(id -u)
	shift
	for i in $stale; do
		locate_copy "$i" "$@"
		# shellcheck disable=SC2012 # see `measure`
		owner=$(ls -lnLd "$path" 2>/dev/null | { read -r _ _ owner _ && echo "$owner"; })
		if [ "$owner" = "$uid" ] && [ -e "$path-wal" ] && [ -e "$path-shm" ]; then
			case " $guarded " in *" $i "*) ;; *) guarded="$guarded $i" ;; esac
		elif [ "$tries" -ge "$GIVE_UP" ] && [ "$owner" = "$uid" ]; then
			fail busy-alone "$path is written faster than it can be copied, and its app locks it for itself (PRAGMA locking_mode)"
		elif [ "$tries" -ge "$GIVE_UP" ]; then
			fail moving "$path is written faster than it can be copied, and the files that user $uid would create beside it to lock it would lock out its owner, user ${owner:-?}"
		fi
		[ "$tries" -lt $((GIVE_UP * 2)) ] || fail moving "$path is written faster than it can be copied"
	done
	for i in $guarded; do locate_copy "$i" "$@" && hold "$path" '' '' "$@"; done
	release_holders
}

# ---- under a lock ----------------------------------------------------------

# check_locks NAME…: fails if a copy would block the app's writers for longer than `max_lock`.
check_locks() {
	local i before lasts
	[ "$max_lock" -gt 0 ] || return 0
	for i in $pins; do
		case " $alone " in *" $i "*) locate_copy "$i" "$@" && measure "$path" ;; *) continue ;; esac
		[ "$size" -gt "$PROBE" ] || continue
		read_clock && before=$now
		dd if="$path" of=probe bs=1048576 count=$((PROBE / 1048576)) 2>/dev/null
		read_clock
		rm -f probe
		lasts=$((size * (now - before) / PROBE))
		[ "$lasts" -le "$max_lock" ] || fail lock "$((lasts / 1000 + 1)) $path"
	done
}

# pin_all NAME…: each `sqlite3` opens its databases, and all pin them at one signal, which is one
# moment. A large database has its own sqlite3: writers of others need not wait for its copy.
pin_all() {
	local i members=0 attach='' of_group='' quoted
	for i in $pins; do
		locate_copy "$i" "$@"
		case " $alone$wide " in *" $i "*) hold "$path" '' "$i" "$@" && continue ;; esac
		# A small cache: a machine of 256 MB also has to run the app.
		literal "$path"
		attach="${attach}ATTACH $quoted AS s$i; PRAGMA s$i.cache_size = -64;$newline"
		of_group="$of_group $i"
		members=$((members + 1))
		[ "$members" -lt "$TOGETHER" ] || { hold :memory: "$attach" "$of_group" "$@" && members=0 attach='' of_group=''; }
	done
	[ "$members" -eq 0 ] || hold :memory: "$attach" "$of_group" "$@"
}

# hold DATABASE ATTACH NUMBERS NAME…: starts a sqlite3 that pins these databases, and its
# director, which copies them. Each ends when the other one or this script ends.
hold() {
	local database=$1 attach=$2 numbers=$3 script
	shift 3
	[ -e ready ] || { mkfifo ready go leave && exec 5<>go 6<>ready 8<>leave; } || fail no-space "cannot make a pipe in $staging_dir"
	started=$((started + 1)) script=hold-$started
	mkfifo "$script.in" "$script.out" || fail no-space "cannot make a pipe in $staging_dir"
	# Not through `sql`: the process id must be sqlite3's own.
	sqlite3 -batch -bail -readonly -init /dev/null "$database" <"$script.in" >"$script.out" 2>"$script.err" 5>&- 6>&- 8>&- &
	pinners="$pinners $script:$!" jobs="$jobs $!"
	direct "$script" "$attach" "$numbers" "$@" 7>&1 >"$script.in" <"$script.out" &
	directors="$directors $!" jobs="$jobs $!"
}

# direct SCRIPT ATTACH NUMBERS NAME…: writes to the sqlite3, which acknowledges each step with a
# line; if a line is missing, the sqlite3 has failed and says why itself. If NUMBERS is empty,
# this is a guard: nothing is copied.
direct() {
	local script=$1 attach=$2 numbers=$3 i moment=$1.moment pin='SELECT count(*) FROM sqlite_master'
	local ack=".output $1.out$newline.print$newline.output /dev/null"
	shift 3
	[ -n "$numbers" ] || moment=/dev/null
	# Reading from the sqlite3 tells that it has ended.
	trap '' PIPE
	# Opened only for reading: these pipes close when the script ends.
	exec 5<go 8<leave
	printf '.output /dev/null\n.timeout 10000\n%s%s\n' "$attach" "$ack"
	read -r _ || { printf '\n\n' >&6 && exit; }
	echo >&6
	read -r _ <&5 || exit
	[ -z "$attach" ] || for i in $numbers; do pin="$pin UNION ALL SELECT count(*) FROM s$i.sqlite_master"; done
	printf 'BEGIN;\n%s;\n.output %s\n%s\n%s\n' "$pin" "$moment" "$CLOCK" "$ack"
	read -r _ || { echo >&6 && exit; }
	echo >&6
	jobs=''
	trap 'kill $jobs 2>/dev/null; exit 143' TERM
	for i in $numbers; do locate_copy "$i" "$@" && copy_file "$path" "$i.db" >&7; done
	trap - TERM
	# If there are databases in WAL mode, wait until their -shm files were read.
	[ -z "$files" ] || read -r _ <&8
}

# release_holders: waits until all directors are ready, tells them to pin, and waits until
# all have pinned or failed. From then on, a writer of all databases waits for the first one.
release_holders() {
	local ready=$((started - released))
	[ "$ready" -gt 0 ] || return 0
	await_directors "$ready"
	lines "$ready" >&5
	await_directors "$ready"
	released=$started
}

# dismiss_holders: tells the directors that wait for it to end.
dismiss_holders() {
	[ "$started" -gt "$dismissed" ] || return 0
	lines $((started - dismissed)) >&8
	dismissed=$started
}

# lines COUNT: writes COUNT empty lines in one write; each director reads one.
lines() {
	local text=''
	while [ "${#text}" -lt "$1" ]; do text=$text$newline; done
	printf %s "$text"
}

# await_directors COUNT: reads a line of each director. In the background, because a signal
# interrupts only `wait`.
await_directors() {
	local left=$1
	while [ "$left" -gt 0 ] && read -r _; do left=$((left - 1)); done <&6 &
	jobs="$jobs $!"
	wait "$!"
}

await_holders() {
	local job failed='' told=''
	for job in $pinners; do wait "${job#*:}" || failed=${job%%:*}; done
	for job in $directors; do wait "$job" || told=1; done
	jobs='' pinners='' directors=''
	[ -z "$failed" ] || explain_failed_pin "$failed" "$@"
	[ -z "$told" ] || exit 1
	# The copy of an empty file becomes an empty database, which has one page.
	for job in $pins; do
		[ -s "$job.db" ] || sql "$job.db" 'PRAGMA user_version = 0;' || fail no-space "cannot write in $staging_dir"
	done
}

# explain_failed_pin SCRIPT NAME…: finds the file of the error: sqlite3's message does not name it.
explain_failed_pin() {
	local error why i
	error=$(head -n 3 "$1.err")
	shift
	for i in $pins $guarded; do
		case $error in *'disk is full'* | *'disk I/O error'*) break ;; esac
		locate_copy "$i" "$@"
		why=$(sql -readonly "$path" 'SELECT count(*) FROM sqlite_master' 2>&1 >/dev/null) && continue
		case $why in *'is locked'*) fail locked "$path" ;; esac
		case $why in *'readonly database'*) fail unfinished "$path has an unfinished transaction of a program that was killed" ;; esac
		refuse_schema "$path" "$why"
		fail unreadable "$path cannot be read: $why"
	done
	fail_sql copy "copying failed: $error"
}

# refuse_schema PATH MESSAGE: fails if sqlite3 is older than something in the schema.
refuse_schema() {
	local version
	case $2 in *'malformed database schema'*'near "'*) ;; *) return 0 ;; esac
	version=$(sqlite3 --version 2>/dev/null)
	fail too-old "sqlite3 ${version%% *} is too old for the schema of $1: near ${2##*near }"
}

# measure_skew: the time between the first and the last database that was pinned or marked.
measure_skew() {
	local at first='' last=''
	for at in $marked_at $(cat hold-*.moment 2>/dev/null); do
		is_number "$at" || continue
		if [ -z "$first" ] || [ "$at" -lt "$first" ]; then first=$at; fi
		if [ -z "$last" ] || [ "$at" -gt "$last" ]; then last=$at; fi
	done
	skew=$((${last:-0} - ${first:-0}))
}
