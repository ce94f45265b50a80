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
watcher='' # and of what waits for the client to end
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
	[ -z "$watcher" ] || echo >words
	for job in $watcher $jobs; do kill "$job" 2>/dev/null; done
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

# A database that is at least so large keeps all cores busy by itself.
large=16777216

# on_all_cores FUNCTION NAME…: runs FUNCTION NUMBER NAME for each copy, in this shell
# for a large one, else in one of several: `worker` says in which. What fails there has
# been told.
on_all_cores() {
	function=$1 worker=here copy=0 small='' workers=''
	shift
	count_cores
	for database do
		measure "$copy.db"
		if [ "$size" -lt "$large" ]; then small="$small $copy"; else "$function" "$copy" "$database"; fi
		copy=$((copy + 1))
	done
	worker=0
	while [ "$worker" -lt "$cores" ]; do
		work "$@" &
		workers="$workers $!"
		worker=$((worker + 1))
	done
	jobs=$workers
	await_jobs || exit 1
}

work() {
	jobs='' turn=0 of=$cores cores=1
	trap 'for job in $jobs; do kill "$job"; done 2>/dev/null; exit 143' TERM
	for copy in $small; do
		eval "database=\${$((copy + 1))}"
		[ $((turn % of)) -ne "$worker" ] || "$function" "$copy" "$database"
		turn=$((turn + 1))
	done
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

# numbers COUNT: what the copies are called.
numbers() {
	n=0
	while [ "$n" -lt "$1" ]; do printf '%d.db\n' "$n" && n=$((n + 1)); done
}

sha256_of() {
	if command -v sha256sum >/dev/null 2>&1; then sha256sum "$@"; else shasum -a 256 "$@"; fi
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

# ---- the request ---------------------------------------------------------

# take COUNT: so many bytes of our input, and none of what follows. Where `dd` cannot
# fill a block from a pipe, that is one byte at a time.
take() {
	if dd iflag=fullblock count=0 </dev/null; then dd iflag=fullblock bs="$1" count=1; else dd bs=1 count="$1"; fi 2>/dev/null
}

# The client sends lines of a key and a value, then `end`. `rules N` is
# followed by N bytes of SQL, and so is `audit LEVEL N`.
read_request() {
	while IFS= read -r line; do
		value=${line#* }
		case $line in
		'nonce '*) nonce=$value ;;
		'mode '*) mode=$value ;;
		'directory '*) directory=$value ;;
		'staging '*) staging_dir=$value ;;
		'include '*) includes=$includes$value$newline ;;
		'exclude '*) excludes=$excludes$value$newline ;;
		'only '*) only=$value ;;
		'base '*) add_base "$value" ;;
		'rules '*) rules=$(take "$value") || return 1 ;;
		'audit '*) audit_level=${value% *} && audit=$(take "${value#* }") || return 1 ;;
		end) return 0 ;;
		*) return 1 ;;
		esac
	done
	return 1
}

# The client keeps our standard input open until it has all it wants: its end
# means that nobody is left to work for, also when the connection broke. Until
# then come the hashes of what it has, which become an empty line, and lines.
# Only the watcher can write to `words`: who waits for one does not outlive it.
watch_client() {
	mkfifo words || fail no-space "cannot make a pipe in $stage"
	exec 3<&0 4<>words
	{
		if [ "$base_blocks" -eq 0 ] || head -c $((base_blocks * block)) >base; then
			[ "$base_blocks" -eq 0 ] || echo >&4
			cat >&4
		else
			echo full >&4
			cat >/dev/null
		fi
		kill -TERM $$
	} <&3 >/dev/null 2>&1 &
	watcher=$!
	exec 3<&- 4<words </dev/null
}

# await_word: `word` becomes the next line from the client. In the background,
# because a signal interrupts only what is waited for.
await_word() {
	head -n 1 <&4 >said &
	jobs="$jobs $!"
	await_jobs
	read -r word <said || fail request "what the client has did not arrive whole"
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
		measure "$directory/$name" && main=$size
		measure "$directory/$name-wal" && size=$((main + size))
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

# One connection attaches ten databases at the most, all in its own text
# encoding. One SELECT begins a read transaction on every one of them: that pins
# the set, and keeps writers from starting .backup again. All groups run at once.
backup_all() {
	i=0 copiers=''
	start_group
	for name do
		if is_utf16 "$directory/$name"; then
			start_copier "$directory/$name" "BEGIN;${newline}SELECT count(*) FROM sqlite_master;${newline}.backup main $i.db"
		else
			# A small cache: a machine of 256 MB runs the app as well.
			attach="${attach}ATTACH $(literal "$directory/$name") AS s$i; PRAGMA s$i.cache_size = -64;$newline"
			pin="$pin + (SELECT count(*) FROM s$i.sqlite_master)"
			copy="$copy.backup s$i $i.db$newline"
			members=$((members + 1))
			[ "$members" -lt 10 ] || finish_group
		fi
		i=$((i + 1))
	done
	[ "$members" -eq 0 ] || finish_group
	for copier in $copiers; do wait "${copier#*:}" || failed_copy=${copier%%:*}; done
	jobs=''
}

start_group() { members=0 attach='' pin='SELECT 0' copy=''; }
finish_group() {
	start_copier :memory: "${attach}BEGIN;$newline$pin;$newline$copy"
	start_group
}

# start_copier DATABASE SQL
start_copier() {
	script=copy-$i
	# Half of it would end well, with half of the copies.
	printf '.bail on\n.timeout 10000\n%s\n' "$2" >"$script.sql" || fail no-space "cannot write in $staging_dir"
	# By hand on purpose, not through `sql`: the process id must be sqlite3's own.
	sqlite3 -batch -bail -readonly -init /dev/null "$1" <"$script.sql" >/dev/null 2>"$script.err" &
	copiers="$copiers $script:$!"
	jobs="$jobs $!"
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

# explain_failed_copy NAME…: sqlite3 says what went wrong, but not with which file.
explain_failed_copy() {
	error=$(head -n 3 "$failed_copy.err")
	case $error in
	*'disk is full'* | *'disk I/O error'* | *'is locked'*) ;;
	*)
		for name do
			why=$(sql -readonly "$directory/$name" 'SELECT count(*) FROM sqlite_master' 2>&1 >/dev/null) ||
				fail unreadable "$directory/$name cannot be read: $why"
		done
		;;
	esac
	fail_sql copy "copying failed: $error"
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
	failed_copy=''
	backup_all "$@"
	[ -z "$failed_copy" ] || explain_failed_copy "$@"
	# .backup makes no file of an empty database.
	for name in $(numbers $#); do [ -e "$name" ] || : >"$name"; done
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
	case $mode in
	stream)
		# The client would wait for the rest of half a stream, and we for its word.
		{ printf '\nXTASK-DB 1 %s\n' "$nonce" && pack "$@"; } || exit 1
		[ "$base_blocks" -eq 0 ] || deliver_again "$@"
		;;
	archive)
		pack "$@" >pull.archive || explain_failed_pack
		announce_archive "$stage/pull.archive" "$@"
		machine=$(word "${FLY_MACHINE_ID:-}")
		printf '\nXTASK-DB-ARCHIVE 1 %s %s %s\n' "$nonce" "${machine:--}" "$stage/pull.archive"
		deliver_again "$@"
		;;
	dry-run)
		pack "$@" >plan || explain_failed_pack
		planned=$(tr -d ' ' <plan)
		require_number "$planned" wc 'the bytes that would be sent'
		printf '\nXTASK-DB-PLAN 1 %s %d\n' "$nonce" "$planned"
		tar_members index.json end.json | compress
		;;
	by-hand)
		archive=$staging_dir/xtask-databases-$(date -u +%Y-%m-%dT%H-%M-%SZ)-$$.tar.gz
		echo 'prepare-pull: by hand, nothing is sanitized: the archive holds production data' >&2
		pack_by_hand "$archive" "$@" || fail no-space "cannot write $archive"
		announce_archive "$archive" "$@"
		;;
	esac
}

# What the client could not put together from what it has, it asks for: numbers of
# databases, which then come whole. It ends our input when it needs nothing more.
deliver_again() {
	await_word
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
	base_blocks=0
	: >sums
	rm -f packed pull.archive
	deliver "$@"
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
	fi
	command -v sqlite3 >/dev/null 2>&1 || fail no-sqlite3 "sqlite3 is not installed on this machine"
	found=$(enter "$directory") || fail no-directory "there is no directory $directory here"
	directory=$found
	found=$(enter "$staging_dir") || fail no-space "there is no directory $staging_dir to copy to"
	staging_dir=$found
	place=$(place)
	gnu_grep=0 # Others cannot look for many things at once, nor in what is no text.
	case $(grep --version 2>/dev/null) in 'grep (GNU grep)'*) gnu_grep=1 ;; esac
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
