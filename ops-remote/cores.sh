#!/bin/sh
# shellcheck shell=dash
# Work on all cores: prepare-pull.sh is sent after this file; sanitize.sh, audit.sh and compare.sh
# call it.
#
# Uses `is_number` and `await_jobs` of prepare-pull.sh, `read_size` of facts.sh.
# shellcheck disable=SC2154,SC2034 # jobs and size are set in prepare-pull.sh

# count_cores: sets `cores` to the number of sqlite3 processes to run at a time.
count_cores() {
	cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null)
	is_number "$cores" || cores=$(nproc 2>/dev/null)
	case $cores in [123]) ;; *) if is_number "$cores" && [ "$cores" -gt 0 ]; then cores=4; else cores=1; fi ;; esac
}

# Bytes. A larger database keeps all cores busy by itself; a caller may set another size in `large`.
LARGE=16777216

# State between calls: the number of sqlite3 processes that run at a time.
cores=1

# on_all_cores FUNCTION NAME…: runs FUNCTION NUMBER NAME for each copy: for a large one in this
# shell, else in a background shell, whose number is `worker`. FUNCTION reports its own failures.
on_all_cores() {
	local function worker copy small workers database size
	function=$1 worker=here copy=0 small='' workers=''
	shift
	count_cores
	for database do
		read_size "$copy"
		if [ "$size" -lt "${large:-$LARGE}" ]; then small="$small $copy"; else "$function" "$copy" "$database"; fi
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
	local turn of copy database
	jobs='' turn=0 of=$cores
	# Several large copies leave none of the cores idle at the end.
	[ -n "${large:-}" ] || cores=1
	trap 'for job in $jobs; do kill "$job"; done 2>/dev/null; exit 143' TERM
	for copy in $small; do
		eval "database=\${$((copy + 1))}"
		[ $((turn % of)) -ne "$worker" ] || "$function" "$copy" "$database"
		turn=$((turn + 1))
	done
}
