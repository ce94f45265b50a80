#!/bin/sh
# shellcheck shell=dash
# Work on all cores: prepare-pull.sh is sent behind this; sanitize.sh, audit.sh and compare.sh call it.
#
# Of prepare-pull.sh: `measure`, `is_number`, `await_jobs`.
# shellcheck disable=SC2154,SC2034 # jobs and size are of there

# count_cores: `cores` becomes how many sqlite3 work at a time.
count_cores() {
	cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null)
	is_number "$cores" || cores=$(nproc 2>/dev/null)
	case $cores in [123]) ;; *) if is_number "$cores" && [ "$cores" -gt 0 ]; then cores=4; else cores=1; fi ;; esac
}

# A database that is at least so large keeps all cores busy by itself; a caller may have set
# another size as `large`.
LARGE=16777216

# Between calls: how many sqlite3 work at a time.
cores=1

# on_all_cores FUNCTION NAME…: runs FUNCTION NUMBER NAME for each copy, in this shell
# for a large one, else in one of several: `worker` says in which. What fails there has
# been told.
on_all_cores() {
	local function worker copy small workers database size
	function=$1 worker=here copy=0 small='' workers=''
	shift
	count_cores
	for database do
		measure "$copy.db"
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
	jobs='' turn=0 of=$cores cores=1
	trap 'for job in $jobs; do kill "$job"; done 2>/dev/null; exit 143' TERM
	for copy in $small; do
		eval "database=\${$((copy + 1))}"
		[ $((turn % of)) -ne "$worker" ] || "$function" "$copy" "$database"
		turn=$((turn + 1))
	done
}
