#!/bin/sh
# shellcheck shell=dash
# The comparison: prepare-pull.sh is sent after this file and calls it when the client has
# databases of an earlier pull. The client sends a short hash of every block; this sends the
# blocks that differ. The other side is xtask/src/pull/delta.rs.
#
# Uses `sql`, `report_failure`, `is_number` and `await_jobs` of prepare-pull.sh, `read_size` and
# `read_facts` of facts.sh, `tar_members` of pack.sh.
# shellcheck disable=SC2154 # newline, jobs, largest and base_groups are set in prepare-pull.sh

# Bytes. A block has a hash of 4 bytes. The hashes of a database are sent in groups; a group of
# GROUP bytes covers GROUP_OF bytes of the database, and the last group is padded.
BLOCK=1024
GROUP=64
GROUP_OF=16384
# Bytes that are compared at a time: a multiple of every page size.
CHUNK=2097152
# Bytes that may be compared before they are sent, even if the set is small.
AHEAD=8388608
# Eight samples of SAMPLE bytes decide whether to compare a database of SAMPLED bytes or more.
SAMPLE=131072
SAMPLED=16777216

# State between calls: the number of copies that are compared or need no comparison; the chunks
# that are compared but not yet sent; the bases whose hashes the client sends.
compared=0
ready=' '
wanted=''
hash=sha3 # of a block: its first four bytes

# want_hashes I: those of the base of copy I, whose line is `base`. I.old says what the client has:
# its sha256 and page size, where its groups of hashes begin, how many, whether it is scrubbed.
want_hashes() {
	local groups
	# shellcheck disable=SC2086 # words
	set -- "$1" $base
	groups=$((($4 + GROUP_OF - 1) / GROUP_OF))
	echo "$3 $5 $base_groups $groups $6" >"$1.old"
	base_groups=$((base_groups + groups)) wanted="$wanted $2"
}

# ask_for_hashes: the client waits for that if it has any base.
ask_for_hashes() {
	[ "$base_count" -gt 0 ] || return 0
	: >base
	if [ -n "$wanted" ] && ! can_compare; then
		status whole
		wanted='' base_groups=0
		rm -f ./*.old
	fi
	printf '\nXTASK-DB-NEED 1 %s %s%s\n' "$nonce" "$hash" "$wanted"
}

# Every sqlite3 since 3.39 can compare, unless it was built without sha3(). In older versions,
# group_concat() of blobs ends at the first zero byte.
can_compare() {
	local answer
	answer=$(printf '%s\n' '.parameter set @a "'"'x'"'"' \
		"SELECT length(sha3(@a)) || typeof(readfile('base')) || typeof(writefile('probe', x'')) ||
		 length(CAST(group_concat(x'0041', '') AS BLOB));" |
		sql :memory: 2>/dev/null)
	[ "$answer" = 32blobinteger2 ] || return 1
	# zipfile() computes CRC-32 in half the time of sha3().
	hash=sha3
	answer=$(sql :memory: "SELECT hex(substr(substr(zipfile('0000', NULL, 0, 'a', 0), -81, 59), 17, 4));" 2>/dev/null)
	[ "$answer" != 43BEB7E8 ] || hash=crc32
}

# compare_to_bases COUNT: copies I.old to I.base if a comparison is worthwhile.
compare_to_bases() {
	# shellcheck disable=SC2034 # facts that are not needed here
	local i=0 old sum size page mode reserved encoding
	count_cores
	while [ "$i" -lt "$1" ]; do
		if [ -e "$i.old" ]; then
			read -r sum old <"$i.old"
			read_facts "$i"
			if [ "${old%% *}" = "$page" ] && ! is_mostly_new "$i"; then echo "$sum $old" >"$i.base"; fi
		fi
		i=$((i + 1))
	done
}

# is_mostly_new I: whether more than 60% of a sample differs, as after a VACUUM. Comparing the whole
# copy would then take long and save little. The sample is of what the base covers: of a cut pull,
# that may be a part.
is_mostly_new() {
	local covered=$size first groups answer s k
	[ "$size" -ge "$SAMPLED" ] || return 1
	read -r _ _ first groups _ <"$1.old"
	[ "$covered" -le $((groups * GROUP_OF)) ] || covered=$((groups * GROUP_OF))
	answer=$({
		compare_tables
		s=0
		while [ "$s" -lt 8 ]; do
			k=$((s * (covered / SAMPLE) / 8))
			load_new_sql sample "$1" "$SAMPLE" "$k"
			load_old_sql sample $((first + k * (SAMPLE / GROUP_OF))) $((SAMPLE / GROUP_OF))
			ask_sql $((SAMPLE / BLOCK))
			differ_sql
			printf 'INSERT INTO seen SELECT count(*) FROM differs; DELETE FROM differs;\n'
			s=$((s + 1))
		done
		echo "SELECT sum(blocks) * 100 > 8 * $((SAMPLE / BLOCK)) * 60 FROM seen;"
	} | sql :memory:)
	[ "$answer" = 1 ]
}

# send_delta I COUNT: sends the blocks of copy I that differ from its base, chunk by chunk.
send_delta() {
	local size k blocks pages differs
	[ "$1" -lt "$compared" ] || start_comparing "$1" "$2" || return 1
	read_size "$1"
	k=0 blocks=0 pages=0
	while [ $((k * CHUNK)) -lt "$size" ]; do
		! has_no_noted "$1" "$k" || { k=$((k + 1)) && continue; }
		await_chunk "$1.$k" || return 1
		if [ "${differs%:*}" -gt 0 ]; then
			tar_members "$1.$k" && rm "$1.$k" || return 1
			blocks=$((blocks + ${differs%:*})) pages=$((pages + ${differs#*:}))
		fi
		k=$((k + 1))
	done
	echo "[$blocks,$pages]" >"$1.changed"
}

# has_no_noted I K: whether scrub.sh has found that no block of a chunk differs. The bytes of the
# first one change later.
has_no_noted() { [ -e "$1.fast" ] && [ ! -s "$1.noted.$2" ] && [ "$2" -gt 0 ]; }

# start_comparing I COUNT: compares on all cores, at low priority. It starts with copy I and takes
# as many copies as are together not larger than the largest, which bounds the disk space of
# chunks not yet sent. Only these jobs write to `compared`: its reader ends when they end.
start_comparing() {
	local total limit size w nice
	[ -p compared ] || mkfifo compared || return 1
	exec 5<>compared
	ready=' ' total=0 limit=$largest compared=$1
	[ "$limit" -ge "$AHEAD" ] || limit=$AHEAD
	: >chunks
	while [ "$compared" -lt "$2" ]; do
		if [ -e "$compared.base" ]; then
			read_size "$compared"
			total=$((total + size))
			[ "$total" -le "$limit" ] || [ ! -s chunks ] || break
			list_chunks "$compared" >>chunks || return 1
		fi
		compared=$((compared + 1))
	done
	w=0 nice=$(command -v nice) # Some builds of busybox lack nice.
	while [ "$w" -lt "$cores" ]; do
		{
			# Keeps glibc from returning the memory of each chunk to the kernel.
			export MALLOC_MMAP_THRESHOLD_=67108864 MALLOC_TRIM_THRESHOLD_=67108864
			compare_sql "$w" <chunks | $nice sqlite3 -batch -bail -init /dev/null :memory: >/dev/null 2>"compare.$w.err" ||
				echo "failed $w" >&5
		} &
		w=$((w + 1))
	done
	exec 5<compared
}

# count_groups K GROUPS: sets `count` to the groups of chunk K, of GROUPS of a base: those behind it
# are of the next one.
count_groups() {
	count=$(($2 - $1 * (CHUNK / GROUP_OF)))
	[ "$count" -le $((CHUNK / GROUP_OF)) ] || count=$((CHUNK / GROUP_OF))
	[ "$count" -ge 0 ] || count=0
}

# list_chunks I: prints number, size in bytes and position of the hashes of each chunk.
list_chunks() {
	local page first groups k bytes skip count
	read -r _ page first groups _ <"$1.base"
	k=0
	while [ $((k * CHUNK)) -lt "$size" ]; do
		bytes=$((size - k * CHUNK)) skip=$((k * (CHUNK / GROUP_OF)))
		[ "$bytes" -le "$CHUNK" ] || bytes=$CHUNK
		count_groups "$k" "$groups"
		! has_no_noted "$1" "$k" || { k=$((k + 1)) && continue; }
		echo "$1 $k $bytes $page $((first + skip)) $count"
		k=$((k + 1))
	done
}

# await_chunk I.K: sets `differs` to the number of its blocks and pages that differ.
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
			# The report goes to standard error: the client's standard output is the stream.
			report_failure compare "comparing failed: $(head -n 3 "compare.${line#* }.err")" >&2
			return 1
			;;
		esac
		ready="$ready$line "
	done
}

# compare_sql W: prints the script of sqlite3 process W. For a chunk with differences it writes
# I.K: a 0 or 1 for each block, then the blocks with a 1. The size is checked, so that a failed
# write or `dd` is not taken for a short chunk.
compare_sql() {
	local n i k bytes page skip count blocks
	compare_tables
	n=0
	while read -r i k bytes page skip count; do
		if [ $((n % cores)) -eq "$1" ]; then
			blocks=$(((bytes + BLOCK - 1) / BLOCK))
			load_new_sql "$1" "$i" "$CHUNK" "$k"
			load_old_sql "$1" "$skip" "$count"
			printf '%s\n' "INSERT INTO sure VALUES (length(@new) = $bytes AND length(@old) = $((count * GROUP)));"
			if [ -e "$i.fast" ]; then ask_noted_sql "$i.noted.$k"; else ask_sql "$blocks"; fi
			differ_sql
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
	sure_table
	printf '%s\n' "CREATE TEMP TABLE block (i INTEGER PRIMARY KEY);
		WITH r(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM r WHERE i + 1 < $((CHUNK / BLOCK))) INSERT INTO block SELECT i FROM r;
		CREATE TEMP TABLE asked (n INTEGER PRIMARY KEY, i INTEGER);
		CREATE TEMP TABLE noted (i INTEGER PRIMARY KEY);
		CREATE TEMP TABLE differs (i INTEGER PRIMARY KEY);
		CREATE TEMP TABLE seen (blocks INTEGER);"
}

sure_table() {
	printf '%s\n' 'PRAGMA temp_store = MEMORY;' 'CREATE TEMP TABLE sure (written CONSTRAINT [disk is full] CHECK (written));'
}

# load_new_sql W I BYTES K: loads the Kth BYTES of copy I into @new. A parameter, unlike a column,
# is not copied for each block.
load_new_sql() {
	printf '%s\n' ".system dd if=$2.db of=new.$1 bs=$3 skip=$4 count=1 2>/dev/null" ".parameter set @new \"readfile('new.$1')\""
}

# load_old_sql W SKIP COUNT: loads groups of hashes into @old.
load_old_sql() {
	printf '%s\n' ".system dd if=base of=old.$1 bs=$GROUP skip=$2 count=$3 2>/dev/null" ".parameter set @old \"readfile('old.$1')\""
}

# differ_sql: fills `differs` with the blocks of `asked` whose hash is not that of the base.
differ_sql() {
	if [ "$hash" = crc32 ]; then
		# In the central directory each entry has 59 bytes, and the checksum at offset 16.
		printf '%s\n' "REPLACE INTO temp.sqlite_parameters SELECT '@sums', substr(
			zipfile(printf('%04d', n), NULL, 0, substr(@new, i * $BLOCK + 1, $BLOCK), 0), -59 * count(*) - 22, 59 * count(*)) FROM asked;" \
			'INSERT INTO differs SELECT i FROM asked WHERE substr(@sums, n * 59 + 17, 4) IS NOT substr(@old, i * 4 + 1, 4);'
	else
		printf '%s\n' "INSERT INTO differs SELECT i FROM asked
			WHERE substr(sha3(substr(@new, i * $BLOCK + 1, $BLOCK)), 1, 4) IS NOT substr(@old, i * 4 + 1, 4);"
	fi
	echo 'DELETE FROM asked;'
}

# ask_sql BLOCKS: asks for the first BLOCKS of a chunk.
ask_sql() { echo "INSERT INTO asked SELECT i, i FROM block WHERE i < $1;"; }

# note_sql FILE: writes `differs` to a file, for ask_noted_sql.
note_sql() {
	printf '%s\n' ".output $1" 'SELECT i FROM differs;' '.output' \
		"INSERT INTO sure SELECT length(readfile('$1')) IS sum(length(i) + 1) FROM differs HAVING count(*) > 0;"
}

# ask_noted_sql FILE: asks for the blocks in a file; also for the first one, whose bytes change later.
ask_noted_sql() {
	printf '%s\n' ".import $1 noted" 'INSERT INTO asked SELECT row_number() OVER (ORDER BY i) - 1, i FROM (
		SELECT i FROM noted UNION SELECT 0);' 'DELETE FROM noted;'
}
