#!/bin/sh
# shellcheck shell=dash
# Comparing: prepare-pull.sh is sent behind this, and calls it where the client has
# databases of an earlier pull. Of each it sends a short hash of every block, and the
# blocks that differ are sent back. xtask/src/pull/delta.rs is the other side.
#
# Of prepare-pull.sh: `sql`, `report_failure`, `measure`, `is_number`, `require_number`, `await_jobs`; of pack.sh: `sha256_of`, `tar_members`.
# shellcheck disable=SC2154 # newline, jobs, largest and base_groups are of there

# In bytes. A block has a hash of its own, of 4 bytes. The hashes of a database come in
# groups; a group holds the hashes of GROUP_OF bytes, and the last one is padded.
BLOCK=1024
GROUP=64
GROUP_OF=16384
# What is compared at a time: a multiple of every page size.
CHUNK=2097152
# What may be compared before it is sent, also of small sets.
AHEAD=8388608
# Eight samples tell what to expect of a database that is at least so large.
SAMPLE=131072
SAMPLED=16777216

# Between calls: what the client has; how many copies have been compared, or needed not be;
# chunks that have been, and not been sent.
bases=''
compared=0
ready=' '

# add_base "SHA256 BYTES PAGE-SIZE NAME"
add_base() {
	local groups
	set -- "${1%% *}" "${1#* }"
	set -- "$1" "${2%% *}" "${2#* }"
	groups=$((($2 + GROUP_OF - 1) / GROUP_OF))
	bases="$bases$newline${3#* }/$1 ${3%% *} $base_groups $groups"
	base_groups=$((base_groups + groups))
}

# Every sqlite3 since 3.39 can, unless somebody built it without; in older ones, what
# group_concat makes of bytes ends with the first zero.
can_compare() {
	local answer
	answer=$(printf '%s\n' '.parameter set @a "'"'x'"'"' \
		"SELECT length(sha3(@a)) || typeof(readfile('base')) || typeof(writefile('probe', x'')) ||
		 length(CAST(group_concat(x'0041', '') AS BLOB));" |
		sql :memory: 2>/dev/null)
	[ "$answer" = 32blobinteger2 ]
}

# page_size FILE: `page` becomes its page size, 0 where it is empty.
page_size() {
	page=0
	[ -s "$1" ] || return 0
	# shellcheck disable=SC2046 # the words that od prints
	set -- "$1" $(od -An -tu1 -j16 -N2 "$1" 2>/dev/null)
	require_number "${2-}" od "a byte of $1"
	require_number "${3-}" od "a byte of $1"
	page=$(($2 * 256 + $3))
	[ "$page" -ne 1 ] || page=65536
}

# compare_to_bases NAME…: I.base says what the client has of copy I, if that is worth
# comparing: its sha256 and page size, where its groups of hashes begin, how many. Where
# the sha256 is the same there is nothing to send, which I.changed says.
compare_to_bases() {
	local i name entry old page sum base
	count_cores
	can_compare || { status whole && return 0; }
	i=0
	for name do
		case $bases$newline in
		*"$newline$name/"*)
			# Both sides have them in one order, and to look past hundreds takes long.
			bases=${bases#*"$newline$name/"}
			entry=${bases%%"$newline"*}
			old=${entry#* }
			page_size "$i.db"
			[ "${old%% *}" != "$page" ] || echo "$entry" >"$i.base"
			;;
		esac
		i=$((i + 1))
	done
	hash_copies "$i"
	while read -r sum name; do
		i=${name%.db}
		read -r base _ <"$i.base"
		if [ "$sum" = "$base" ]; then
			echo '[0,0]' >"$i.changed"
		elif is_mostly_new "$i"; then
			rm "$i.base"
			continue
		fi
		echo "$sum $name" >>sums
	done <hashed
}

# is_mostly_new I: whether more than 60% of a sample differs, as it does after a VACUUM.
# Comparing all of it would take long, and save little.
is_mostly_new() {
	local size first answer s k
	measure "$1.db"
	[ "$size" -ge "$SAMPLED" ] || return 1
	read -r _ _ first _ <"$1.base"
	answer=$({
		compare_tables
		s=0
		while [ "$s" -lt 8 ]; do
			k=$((s * (size / SAMPLE) / 8))
			load_sql sample "$1" "$SAMPLE" "$k" $((first + k * (SAMPLE / GROUP_OF))) $((SAMPLE / GROUP_OF))
			differ_sql $((SAMPLE / BLOCK))
			printf 'INSERT INTO seen SELECT count(*) FROM differs; DELETE FROM differs;\n'
			s=$((s + 1))
		done
		echo "SELECT sum(blocks) * 10 > 8 * $((SAMPLE / BLOCK)) * 6 FROM seen;"
	} | sql :memory:)
	[ "$answer" = 1 ]
}

# hash_copies COUNT: the sha256 of those with a base, on all cores.
hash_copies() {
	local w count i
	w=0
	while [ "$w" -lt "$cores" ]; do
		count=$1 i=$w
		set --
		while [ "$i" -lt "$count" ]; do
			[ ! -e "$i.base" ] || set -- "$@" "$i.db"
			i=$((i + cores))
		done
		if [ $# -gt 0 ]; then
			sha256_of "$@" >"hashed.$w" &
			jobs="$jobs $!"
		fi
		set -- "$count"
		w=$((w + 1))
	done
	await_jobs || fail no-space "cannot write what the copies hash to in $staging_dir"
	cat hashed.* >hashed 2>/dev/null
}

# send_delta I COUNT: of copy I what differs from its base, chunk by chunk.
send_delta() {
	local size k blocks pages differs
	[ "$1" -lt "$compared" ] || start_comparing "$1" "$2" || return 1
	measure "$1.db"
	k=0 blocks=0 pages=0
	while [ $((k * CHUNK)) -lt "$size" ]; do
		await_chunk "$1.$k" || return 1
		if [ "${differs%:*}" -gt 0 ]; then
			tar_members "$1.$k" && rm "$1.$k" || return 1
			blocks=$((blocks + ${differs%:*})) pages=$((pages + ${differs#*:}))
		fi
		k=$((k + 1))
	done
	echo "[$blocks,$pages]" >"$1.changed"
}

# start_comparing I COUNT: on all cores, but behind the app, from copy I on as many as
# are together not larger than the largest one: the chunks of no more than these wait
# on the disk until they are sent. Only what compares can write to `compared`: when all
# of that is gone, nobody waits for it.
start_comparing() {
	local total limit size w nice
	[ -p compared ] || mkfifo compared || return 1
	exec 5<>compared
	ready=' ' total=0 limit=$largest compared=$1
	[ "$limit" -ge "$AHEAD" ] || limit=$AHEAD
	: >chunks
	while [ "$compared" -lt "$2" ]; do
		if [ -e "$compared.base" ] && [ ! -e "$compared.changed" ]; then
			measure "$compared.db"
			total=$((total + size))
			[ "$total" -le "$limit" ] || [ ! -s chunks ] || break
			list_chunks "$compared" >>chunks || return 1
		fi
		compared=$((compared + 1))
	done
	w=0 nice=$(command -v nice) # Not every busybox has it.
	while [ "$w" -lt "$cores" ]; do
		{
			# With glibc: chunks come and go, and their memory is not given back each time.
			export MALLOC_MMAP_THRESHOLD_=67108864 MALLOC_TRIM_THRESHOLD_=67108864
			compare_sql "$w" <chunks | $nice sqlite3 -batch -bail -init /dev/null :memory: >/dev/null 2>"compare.$w.err" ||
				echo "failed $w" >&5
		} &
		w=$((w + 1))
	done
	exec 5<compared
}

# list_chunks I: for each its number, its bytes, and where its hashes are.
list_chunks() {
	local page first groups k bytes skip count
	read -r _ page first groups <"$1.base"
	k=0
	while [ $((k * CHUNK)) -lt "$size" ]; do
		bytes=$((size - k * CHUNK)) skip=$((k * (CHUNK / GROUP_OF)))
		[ "$bytes" -le "$CHUNK" ] || bytes=$CHUNK
		count=$((groups - skip))
		[ "$count" -le $((CHUNK / GROUP_OF)) ] || count=$((CHUNK / GROUP_OF))
		[ "$count" -ge 0 ] || count=0
		echo "$1 $k $bytes $page $((first + skip)) $count"
		k=$((k + 1))
	done
}

# await_chunk I.K: `differs` becomes how many blocks and pages of it do.
await_chunk() {
	local line
	while :; do
		case $ready in
		*" $1:"*)
			differs=${ready#*" $1:"}
			ready="${ready%%" $1:"*} ${differs#* }"
			differs=${differs%% *}
			is_number "${differs%:*}" && is_number "${differs#*:}"
			return
			;;
		esac
		read -r line <&5 || line='failed 0'
		case $line in
		'failed '*)
			# The client's standard output is the stream.
			report_failure compare "comparing failed: $(head -n 3 "compare.${line#* }.err")" >&2
			return 1
			;;
		esac
		ready="$ready$line "
	done
}

# compare_sql W: the script of one of the sqlite3 that compare. Of a chunk with
# differences it writes I.K: a 0 or 1 for each block, and the blocks with a 1. What it
# could not write, or `dd` read, must not pass for a file of that size.
compare_sql() {
	local n i k bytes page skip count blocks
	compare_tables
	n=0
	while read -r i k bytes page skip count; do
		if [ $((n % cores)) -eq "$1" ]; then
			blocks=$(((bytes + BLOCK - 1) / BLOCK))
			load_sql "$1" "$i" "$CHUNK" "$k" "$skip" "$count"
			printf '%s\n' "INSERT INTO sure VALUES (length(@new) = $bytes AND length(@old) = $((count * GROUP)));"
			differ_sql "$blocks"
			printf '%s\n' \
				"SELECT writefile('$i.$k', CAST(
				 (SELECT group_concat(i IN differs, '') FROM (SELECT i FROM block WHERE i < $blocks ORDER BY i)) ||
				 (SELECT group_concat(substr(@new, i * $BLOCK + 1, $BLOCK), '') FROM (SELECT i FROM differs ORDER BY i))
				 AS BLOB)) WHERE EXISTS (SELECT 1 FROM differs);" \
				"INSERT INTO sure SELECT length(readfile('$i.$k')) IS $blocks + sum(min($BLOCK, $bytes - i * $BLOCK))
				 FROM differs GROUP BY NULL;" \
				"SELECT writefile('compared', '$i.$k:' || count(*) || ':' ||
				 count(DISTINCT ($k * $CHUNK + i * $BLOCK) / $page) || char(10)) FROM differs;" \
				'DELETE FROM differs;'
		fi
		n=$((n + 1))
	done
}

compare_tables() {
	cat <<-SQL
		PRAGMA temp_store = MEMORY;
		CREATE TEMP TABLE block (i INTEGER PRIMARY KEY);
		WITH r(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM r WHERE i + 1 < $((CHUNK / BLOCK))) INSERT INTO block SELECT i FROM r;
		CREATE TEMP TABLE differs (i INTEGER PRIMARY KEY);
		CREATE TEMP TABLE seen (blocks INTEGER);
		CREATE TEMP TABLE sure (written CONSTRAINT "disk is full" CHECK (written));
	SQL
}

# load_sql W I BYTES K SKIP COUNT: @new becomes the Kth BYTES of copy I, @old so many
# groups of hashes. A parameter is not copied for each of its blocks.
load_sql() {
	printf '%s\n' \
		".system dd if=$2.db of=new.$1 bs=$3 skip=$4 count=1 2>/dev/null; dd if=base of=old.$1 bs=$GROUP skip=$5 count=$6 2>/dev/null" \
		".parameter set @new \"readfile('new.$1')\"" \
		".parameter set @old \"readfile('old.$1')\""
}

# differ_sql PARTS: fills `differs`.
differ_sql() {
	printf '%s\n' "INSERT INTO differs SELECT i FROM block WHERE i < $1
		AND substr(sha3(substr(@new, i * $BLOCK + 1, $BLOCK)), 1, 4) IS NOT substr(@old, i * 4 + 1, 4);"
}
