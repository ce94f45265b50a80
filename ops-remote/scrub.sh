#!/bin/sh
# shellcheck shell=dash
# Scrubbing: prepare-pull.sh is sent after this file, and sanitize.sh calls it. It zeroes the unused
# bytes that deleted or moved rows left: in free pages, between cells, after the end of long values.
# Pages stay in place, so that the next delta is small; only without `dbstat` it runs VACUUM.
#
# Uses `is_number` and `await_jobs` of prepare-pull.sh; `CHUNK` and the SQL of compare.sh; `sanitizer`,
# `prelude` and the facts in `sanitize` of sanitize.sh.
# shellcheck disable=SC2154,SC2034 # jobs, CHUNK and cores are set in other files

# State between calls, set once by `prepare_to_fill`.
fill_sql='' all_bytes=''

# choose_fast NUMBER: decides whether only pages that differ from the base are checked for leaks. The
# base must be scrubbed, and its hashes must be here.
choose_fast() {
	local of scrubbed
	[ -e "$1.old" ] && [ "$has_hashes" -eq 1 ] || return 0
	read -r _ of _ _ scrubbed <"$1.old"
	if [ "$scrubbed" != 1 ] || [ "$of" != "$page" ] || [ "$page" -lt "$BLOCK" ]; then return 0; fi
	: >"$1.fast"
}

# scrub NUMBER
scrub() {
	if list_trunks "$1" >"$1.trunks" 2>/dev/null && fill_holes "$1"; then return 0; fi
	! grep -q 'disk is full' "$1.err" || return 1
	# The copy is thrown away if this fails, so it needs no journal. The SELECT recovers one that a
	# killed sqlite3 left.
	rm -f "$1.spilled" "$1.fast" "$1".fresh.* "$1".noted.*
	{ prelude && printf '%s;\n' 'SELECT count(*) FROM sqlite_master' 'PRAGMA journal_mode = OFF' VACUUM; } >"$1.sql" || return 1
	# There is room for one at a time.
	until mkdir vacuum 2>/dev/null; do sleep 1; done
	sanitizer "$1"
	set -- "$1" $?
	rmdir vacuum
	return "$2"
}

# fill_holes NUMBER: lists the unused bytes and zeroes them, chunk by chunk: the first process does
# both in a copy of one chunk, else all cores zero.
fill_holes() {
	local w=0 fillers=$cores chunks=$(((size + CHUNK - 1) / CHUNK))
	[ "$fillers" -le "$chunks" ] || fillers=$chunks
	if [ "$chunks" -eq 1 ]; then
		{ echo 'PRAGMA temp_store = MEMORY;' && list_holes "$1" && echo '.open :memory:' && fill_script "$1" 0; } >"$1.fill" || return 1
		filler "$1" "$1.db" "$1.fill"
		await_jobs && [ ! -e "$1.unfilled" ]
		return
	fi
	list_holes "$1" >"$1.fill" || return 1
	filler "$1" "$1.db" "$1.fill"
	await_jobs || return 1
	while [ "$w" -lt "$fillers" ]; do
		fill_script "$1" "$w" >"$1.fill.$w" || : >"$1.unfilled"
		filler "$1" :memory: "$1.fill.$w"
		w=$((w + 1))
	done
	await_jobs && [ ! -e "$1.unfilled" ]
}

# filler NUMBER DATABASE SCRIPT: runs it in the background.
filler() {
	sqlite3 -batch -bail -init /dev/null "$2" <"$3" >/dev/null 2>"$1.err" &
	jobs="$jobs $!"
}

# list_holes NUMBER: the SQL that lists its pages with unused bytes, as PAGE|TAIL|BYTES. With TAIL
# they are at the end of the page, else between the cells. dbstat reports a negative number for an empty page of 64 KiB.
# NUMBER.spilled lists the tables with values on more than one page, by their rowid in the schema.
list_holes() {
	printf '%s\n' \
		"CREATE TEMP TABLE sure (known CONSTRAINT [unknown pages] CHECK (known));
		CREATE TEMP TABLE trunk (no INTEGER PRIMARY KEY, unused INTEGER);" \
		".import $1.trunks trunk" \
		"CREATE TEMP TABLE used (no INTEGER PRIMARY KEY, tail INTEGER NOT NULL, unused INTEGER, tbl TEXT);
		INSERT INTO used SELECT pageno, CASE pagetype WHEN 'overflow' THEN 1 WHEN 'leaf' THEN 0 WHEN 'internal' THEN 0 END, unused, name
		  FROM dbstat;
		CREATE TEMP TABLE free (no INTEGER PRIMARY KEY);
		WITH RECURSIVE
		  lock(no) AS (SELECT 1073741824 / $page + 1),
		  step(pages) AS (SELECT CASE auto_vacuum WHEN 0 THEN 0 ELSE ($page - $reserved) / 5 + 1 END FROM pragma_auto_vacuum),
		  page(no) AS (SELECT 1 UNION ALL SELECT no + 1 FROM page, pragma_page_count WHERE no < page_count)
		INSERT INTO free SELECT page.no FROM page, lock, step
		 WHERE (SELECT freelist_count FROM pragma_freelist_count) > 0 AND page.no NOT IN (SELECT no FROM used) AND page.no <> lock.no
		   AND (pages = 0 OR (page.no - 2) % pages <> 0 AND NOT (page.no = lock.no + 1 AND (lock.no - 2) % pages = 0));
		INSERT INTO sure SELECT count(*) = freelist_count FROM free, pragma_freelist_count;
		INSERT INTO sure SELECT no IN (SELECT no FROM free) FROM trunk;
		CREATE TEMP TABLE hole AS
		SELECT no, tail, unused FROM used WHERE unused <> 0
		UNION ALL SELECT no, 1, coalesce(unused, $page - $reserved) FROM free LEFT JOIN trunk USING (no);
		CREATE TEMP TABLE spilled AS
		SELECT rowid AS id FROM main.sqlite_master WHERE type = 'table' AND name IN (SELECT tbl FROM used WHERE tail);" \
		".output $1.holes" \
		"SELECT * FROM hole;" \
		".output $1.spilled" \
		"SELECT * FROM spilled;" \
		".output" \
		"INSERT INTO sure SELECT length(readfile('$1.holes')) IS coalesce(sum(length(no || '|' || tail || '|' || unused || '|')), 0) FROM hole;
		INSERT INTO sure SELECT length(readfile('$1.spilled')) IS coalesce(sum(length(id || '|')), 0) FROM spilled;"
}

# list_trunks NUMBER: the trunk pages of the freelist, as PAGE|BYTES.
list_trunks() {
	local next left
	[ "$free" -gt 0 ] || return 0
	# shellcheck disable=SC2046 # the words that od prints
	set -- "$1" $(words_of "$1.db" 32)
	next=$2 left=$3
	while [ "$next" -ne 0 ]; do
		[ "$left" -gt 0 ] || return 1
		# shellcheck disable=SC2046 # see above
		set -- "$1" $(words_of "$1.db" $(((next - 1) * page)))
		[ $# -eq 3 ] || return 1
		echo "$next|$((page - reserved - 8 - 4 * $3))" || return 1
		next=$2 left=$((left - 1 - $3))
	done
}

# words_of FILE OFFSET: two big-endian numbers of four bytes.
words_of() {
	local word
	# shellcheck disable=SC2046 # the words that od prints
	set -- $(od -An -tu1 -j"$2" -N8 "$1" 2>/dev/null)
	for word do is_number "$word" || return 1; done
	[ $# -ne 8 ] || echo $(((($1 * 256 + $2) * 256 + $3) * 256 + $4)) $(((($5 * 256 + $6) * 256 + $7) * 256 + $8))
}

# prepare_to_fill: makes the SQL that writes a chunk with zeroed bytes to @target, if any byte changes.
# Unused are the free blocks of a page, which form a list in order, without their first four bytes,
# and the gap between the cell pointers and the cells. In page 1 the header is at offset 100.
prepare_to_fill() {
	local high low
	all_bytes=''
	for high in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do
		for low in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do all_bytes=$all_bytes$high$low; done
	done
	# byte() and two() read one and two bytes of the chunk as a number.
	fill_sql=$(printf '%s\n' "
	DELETE FROM hole;
	INSERT INTO hole SELECT at, size FROM (
		WITH RECURSIVE
		here(no, tail, unused, base) AS (SELECT no, tail, unused, (no - @first) * @page + 1 FROM page
			WHERE no >= @first AND no < @first + $CHUNK / @page),
		tree(base, head) AS (SELECT base, base + CASE no WHEN 1 THEN 100 ELSE 0 END FROM here WHERE NOT tail),
		block(base, at, next, size) AS (
			SELECT base, at, two(base + at), two(base + at + 2) FROM (SELECT base, two(head + 1) AS at FROM tree) WHERE at
			UNION ALL
			SELECT base, next, two(base + next), two(base + next + 2) FROM block WHERE next > at)
		SELECT base + at + 4 AS at, size - 4 AS size FROM block
		UNION ALL
		SELECT at, base + CASE cells WHEN 0 THEN 65536 ELSE cells END - at FROM (
			SELECT base, two(head + 5) AS cells,
			       head + CASE WHEN byte(head) < 8 THEN 12 ELSE 8 END + 2 * two(head + 3) AS at FROM tree)
		UNION ALL
		SELECT base + @page - @reserved - unused, unused FROM here WHERE tail
		) WHERE size > 0 AND substr(@new, at, size) <> zeroblob(size);
	DELETE FROM temp.sqlite_parameters WHERE key = '@filled';
	INSERT INTO temp.sqlite_parameters
	SELECT '@filled', CAST(group_concat(substr(@new, past, at - past) || zeroblob(size), '') AS BLOB)
	  FROM (SELECT at, size, lag(at + size, 1, 1) OVER (ORDER BY at) AS past
	          FROM (SELECT at, size FROM hole UNION ALL SELECT length(@new) + 1, 0) ORDER BY at)
	 WHERE EXISTS (SELECT 1 FROM hole) GROUP BY NULL;
	INSERT INTO able SELECT length(@filled) IS length(@new) FROM hole LIMIT 1;
	SELECT writefile(@target, @filled) FROM hole LIMIT 1;
	INSERT INTO sure SELECT length(readfile(@target)) IS length(@new) FROM hole LIMIT 1;" | sed 's/two(\([^)]*\))/(byte(\1) * 256 + byte(\1 + 1))/g
		s/byte(\([^)]*\))/(instr(@bytes, substr(@new, \1, 1)) - 1)/g')
}

# fill_script NUMBER W: prints the script of process W that zeroes chunks. The sizes are checked, so
# that a failed read or write is not taken for the chunk.
fill_script() {
	local k first=0 groups=0 count=0 target=$1.new.$2
	# A copy of one chunk is read and written as a whole.
	[ "$chunks" -ne 1 ] || target=$1.db
	[ ! -e "$1.fast" ] || read -r _ _ first groups _ <"$1.old"
	if [ -e "$1.fast" ]; then compare_tables; else sure_table; fi || return 1
	printf '%s\n' \
		'CREATE TEMP TABLE page (no INTEGER PRIMARY KEY, tail INTEGER, unused INTEGER);' \
		".import $1.holes page" \
		'CREATE TEMP TABLE hole (at INTEGER PRIMARY KEY, size INTEGER);' \
		'CREATE TEMP TABLE able (fits CONSTRAINT [cannot fill] CHECK (fits));' \
		".parameter set @bytes \"x'$all_bytes'\"" ".parameter set @page $page" ".parameter set @reserved $reserved" \
		".parameter set @target \"'$target'\"" || return 1
	k=$2
	while [ "$k" -lt "$chunks" ]; do
		count_groups "$k" "$groups"
		[ ! -e "$1.fast" ] || load_old_sql "fill.$1.$2" $((first + k * (CHUNK / GROUP_OF))) "$count" || return 1
		if [ "$chunks" -eq 1 ]; then echo ".parameter set @new \"readfile('$target')\""; else load_new_sql "fill.$1.$2" "$1" "$CHUNK" "$k"; fi
		printf '%s\n' \
			".parameter set @first $((k * (CHUNK / page) + 1))" \
			"INSERT INTO sure SELECT length(@new) = min($CHUNK, $((size - k * CHUNK)));" || return 1
		echo "$fill_sql" || return 1
		[ ! -e "$1.fast" ] || { take_filled_sql && find_differences_sql "$1" "$k" && fresh_sql "$1.fresh.$k"; } || return 1
		[ "$chunks" -eq 1 ] || echo ".system [ ! -e $1.new.$2 ] || { dd if=$1.new.$2 of=$1.db bs=$CHUNK seek=$k conv=notrunc && rm $1.new.$2; } 2>/dev/null || : >$1.unfilled" || return 1
		k=$((k + fillers))
	done
}

# find_differences_sql NUMBER K: of a chunk.
find_differences_sql() {
	local bytes=$((size - $2 * CHUNK))
	[ "$bytes" -le "$CHUNK" ] || bytes=$CHUNK
	ask_sql $(((bytes + BLOCK - 1) / BLOCK)) && differ_sql && note_sql "$1.noted.$2"
}

# take_filled_sql: sets @new to the chunk with zeroed bytes.
take_filled_sql() { echo "REPLACE INTO temp.sqlite_parameters SELECT '@new', @filled FROM hole LIMIT 1;"; }

# fresh_sql FILE: writes the pages that differ from the base to a file, for the leak check.
fresh_sql() {
	printf '%s\n' "SELECT writefile('$1', CAST(group_concat(substr(@new, p * @page + 1, @page), '') AS BLOB))
		   FROM (SELECT DISTINCT i * $BLOCK / @page AS p FROM differs ORDER BY p) HAVING count(*) > 0;" \
		"INSERT INTO sure SELECT length(readfile('$1')) IS @page * count(DISTINCT i * $BLOCK / @page) FROM differs HAVING count(*) > 0;" \
		'DELETE FROM differs;'
}
