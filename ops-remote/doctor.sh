#!/bin/sh
# shellcheck shell=dash
# Looks around on the server for `cargo xtask doctor`: prepare-pull.sh is sent after this file, and
# calls it in the mode `doctor`. No database is opened by SQLite, nothing is copied, and directories
# of killed runs are removed only if the client says so. xtask/src/doctor/facts.rs reads the facts.
#
# Uses `each_abandoned`, `free_of`, `read_memory`, `place`, `measure`, `sql` and `with_lines` of
# prepare-pull.sh; `find_names`, `locate`, `matches`, `is_named`, `is_sidecar`, `enter`,
# `find_barrier` and `me` of find.sh; `hex` and `word` of pack.sh.
# shellcheck disable=SC2154,SC2034 # set in other files, or for them

MOST_REPORTED=50    # databases that are named for one reason
MOST_LISTED=20000   # files that are compared with the patterns
MOST_LOOKED_AT=1000 # files whose first bytes are read because no pattern names them
DEPTH=4             # directories below each other in which they are searched for
LONG_LOG=67108864   # bytes of a -wal; SQLite starts to reset one at 4 MB

# report KEY WORDS…: names are in hex.
report() { printf '\nXTASK-DB-FACT 1 %s %s\n' "$nonce" "$*"; }

# examine: what may fail like a pull comes last.
examine() {
	local machine region line
	# Programs must not read the client's lines.
	exec 3<&0 </dev/null
	machine=$(word "${FLY_MACHINE_ID:-}")
	region=$(word "${FLY_REGION:-}")
	report server "$(hex "$(me)")" "${machine:--}" "${region:--}"
	report_programs
	report_sqlite3
	place=$(place)
	report_staging
	report_directory
	printf '\nXTASK-DB-FACTS 1 %s\n' "$nonce"
	while read -r line <&3 && [ "$line" = remove ]; do
		each_abandoned rm -rf
		each_abandoned report_leftover
		printf '\nXTASK-DB-FACTS 1 %s\n' "$nonce"
	done
}

# report_programs: whether zstd runs, whether grep is GNU's, and what installs packages.
report_programs() {
	local zstd=no grep=other packages=-
	if zstd -q --single-thread -c </dev/null >/dev/null 2>&1; then zstd=yes; fi
	case $(grep --version 2>/dev/null) in 'grep (GNU grep)'*) grep=gnu ;; esac
	if command -v apk >/dev/null 2>&1; then packages=apk; elif command -v apt-get >/dev/null 2>&1; then packages=apt; fi
	report programs "$zstd" "$grep" "$packages"
}

# report_sqlite3: its version, and what scripts use that it lacks. The questions are those that
# compare.sh and scrub.sh ask.
report_sqlite3() {
	local version lacks=''
	if ! command -v sqlite3 >/dev/null 2>&1; then report sqlite3 missing && return; fi
	version=$(sqlite3 --version 2>/dev/null)
	version=$(word "${version%% *}")
	if [ -z "$version" ]; then report sqlite3 broken && return; fi
	[ "$(ask "length(sha3('x'))")" = 32 ] || lacks="$lacks sha3"
	[ "$(ask "length(CAST(group_concat(x'0041', '') AS BLOB))")" = 2 ] || lacks="$lacks blobs"
	[ "$(ask "hex(substr(substr(zipfile('0000', NULL, 0, 'a', 0), -81, 59), 17, 4))")" = 43BEB7E8 ] || lacks="$lacks zipfile"
	[ "$(ask "count(*) >= 0 FROM dbstat")" = 1 ] || lacks="$lacks dbstat"
	report sqlite3 "$version$lacks"
}

# ask EXPRESSION
ask() { sql :memory: "SELECT $1;" 2>/dev/null; }

# report_staging: the directory of the copies, its free KiB, those of memory if it is there, and what
# killed runs left in it.
report_staging() {
	local entered free memory
	if ! entered=$(enter "$staging_dir"); then report staging missing "$(hex "$staging_dir")" && return; fi
	staging_dir=$entered
	if [ ! -w "$staging_dir" ] || [ ! -x "$staging_dir" ]; then report staging unwritable "$(hex "$staging_dir")" && return; fi
	free=$(free_of "$staging_dir")
	is_number "$free" || free=-
	read_memory "$staging_dir"
	report staging there "$(hex "$staging_dir")" "$free" "${memory:--}"
	each_abandoned report_leftover
}

# report_leftover DIRECTORY
report_leftover() {
	local size
	size=$(du -sk "$1" 2>/dev/null)
	size=${size%%[!0-9]*}
	report leftover "$(hex "$1")" "${size:-0}"
}

report_directory() {
	local entered barrier names
	if ! entered=$(enter "$directory"); then
		if find_barrier "$directory"; then report directory barred "$(hex "$barrier")"; else report directory missing "$(hex "$directory")"; fi
		return
	fi
	directory=$entered
	if [ ! -r "$directory" ]; then report directory barred "$(hex "$directory")" && return; fi
	report directory there "$(hex "$directory")"
	list_files_below "$directory" | report_missed
	find_names
	with_lines "$names" report_databases
}

# list_files_below DIRECTORY: those that are large enough for a database.
list_files_below() {
	(cd "$1" && find . -maxdepth "$DEPTH" \( -name '.?*' -o -type d \( -name 'backup_*' -o -name lost+found \) \) -prune \
		-o -type f -size +511c -print 2>/dev/null) | head -n "$MOST_LISTED"
}

# report_missed: which of the files on the input are databases that no pattern names. In directories
# only those are looked at that are called like one.
report_missed() {
	local name path mode looked=0 missed=0
	while IFS= read -r name; do
		name=${name#./}
		case $name in *.db | *.db3 | *.sqlite | *.sqlite3) ;; */*) continue ;; esac
		if is_sidecar "$name" || matches "$name" "$includes" || matches "$name" "$excludes"; then continue; fi
		path=$directory/$name
		[ -r "$path" ] || continue
		looked=$((looked + 1))
		[ "$looked" -le "$MOST_LOOKED_AT" ] || break
		has_magic "$path" || continue
		missed=$((missed + 1))
		[ "$missed" -gt "$MOST_REPORTED" ] || report missed "$(hex "$name")"
	done
	[ "$missed" -le "$MOST_REPORTED" ] || report more-missed $((missed - MOST_REPORTED))
}

# has_magic PATH: whether the file begins like a database; sets `mode` to byte 18 of its header.
has_magic() {
	# shellcheck disable=SC2046 # the words that od prints
	set -- $(od -An -v -tx1 -N19 "$1" 2>/dev/null)
	mode=${19-}
	case "$* " in "$SQLITE_MAGIC "*) ;; *) return 1 ;; esac
}

# report_databases NAME…: their number, bytes, the bytes of the largest one, how many are in WAL
# mode; and those that a pull cannot read, or whose -wal is long.
report_databases() {
	local name path size mode main count=0 bytes=0 largest=0 logged=0 problems=0
	for name do
		locate "$name"
		measure "$path" && main=$size
		measure "$path-wal"
		mode=''
		if is_sidecar "$name" && { [ "$main" -eq 0 ] || [ ! -r "$path" ]; }; then continue; fi
		if [ ! -r "$path" ]; then
			report_problem unreadable "$name" "$main"
		elif [ "$main" -gt 0 ] && ! has_magic "$path"; then
			if is_sidecar "$name" || ! is_named "$name"; then continue; fi
			report_problem foreign "$name" "$main"
		elif [ "$size" -ge "$LONG_LOG" ]; then
			report_problem log "$name" "$size"
		fi
		count=$((count + 1))
		bytes=$((bytes + main + size))
		[ $((main + size)) -le "$largest" ] || largest=$((main + size))
		[ "$mode" != 02 ] || logged=$((logged + 1))
	done
	report databases "$count" "$bytes" "$largest" "$logged"
}

# report_problem KIND NAME BYTES
report_problem() {
	problems=$((problems + 1))
	[ "$problems" -gt "$MOST_REPORTED" ] || report problem "$1" "$(hex "$2")" "$3"
}
