#!/bin/sh
# shellcheck shell=dash
# What a dry run tells of the rules and of the schema, never a value: prepare-pull.sh is sent after
# this file and calls it.
#
# Uses `sql`, `mode`, `survey` and `nonce` of prepare-pull.sh, `in_hex` of audit.sh, and the tables of sanitize.sh. The copies
# are ./0.db, ./1.db, …
# shellcheck disable=SC2154 # mode, survey and nonce are set in other files

# The client takes no more than 1,000 facts.
MOST_EFFECTS=400
MOST_COLUMN_LINES=500
# Columns on one line, and bytes of their names in hex; the client takes 64 KiB, and 4 MiB in all.
MOST_COLUMNS_ON_LINE=100
LONGEST_LINE=60000
MOST_SAID=3000000

is_plan() { [ "$mode" = dry-run ] && [ -z "$survey" ]; }

# shape NAME: SQL for the numbers of NULLs, numbers, blobs and empty values, and the lengths of texts.
shape() {
	printf '%s' "count(*) - count($1), total(typeof($1) IN (''integer'', ''real'')), total(typeof($1) = ''blob'' AND length($1)), " \
		"total(typeof($1) IN (''text'', ''blob'') AND length($1) = 0), " \
		"coalesce(min(CASE typeof($1) WHEN ''text'' THEN nullif(length($1), 0) END), 0), " \
		"coalesce(max(CASE typeof($1) WHEN ''text'' THEN length($1) END), 0)"
}

# The statements that describe a rule, before it runs: what it finds in each column, and what the
# column becomes. LIMIT keeps SQLite from computing the new value for each use of it.
describe_rules() {
	cat <<-SQL
		CREATE TEMP TABLE xtask_effect (rule INTEGER, col TEXT, rows INTEGER, nulls INTEGER, numbers INTEGER, blobs INTEGER, empty INTEGER,
		       shortest INTEGER, longest INTEGER, to_nulls INTEGER, to_numbers INTEGER, to_blobs INTEGER, to_empty INTEGER,
		       to_shortest INTEGER, to_longest INTEGER);
		CREATE TEMP TABLE xtask_describe (rule INTEGER, sql TEXT);
	SQL
	is_plan || return 0
	cat <<-SQL
		INSERT INTO temp.xtask_describe
		SELECT rule, 'INSERT INTO temp.xtask_effect SELECT ' || (rule + 1) || ', ''' || $(in_hex col) || ''', count(*), $(shape xtask_was), $(shape xtask_becomes)
		         FROM (SELECT "' || replace(col, '"', '""') || '" AS xtask_was, (' || value || char(10) || ') AS xtask_becomes FROM main."'
		       || replace(tbl, '"', '""') || '"' || condition || char(10) || ' LIMIT -1);'
		  FROM temp.xtask_rule JOIN temp.xtask_set USING (rule) WHERE condition NOTNULL AND NOT deletes;
	SQL
}

# Writes the effects of the rules that ran; of SQL and of a deletion only the number of rows is known.
write_effects() {
	is_plan || return 0
	cat <<-SQL
		.output ~.effects
		.separator ' '
		SELECT * FROM temp.xtask_effect;
		SELECT rule + 1, '-', rows, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 FROM temp.xtask_count JOIN temp.xtask_rule USING (rule)
		 WHERE deletes OR condition IS NULL AND omits IS NULL;
		.output
	SQL
}

# say_effects: a line for each column of each rule, over all databases.
say_effects() {
	local line
	cat ./*.effects >effects || fail no-space "cannot write in $staging_dir"
	cat <<-SQL | sql :memory: | while read -r line; do printf '\nXTASK-DB-FACT 1 %s rule %s\n' "$nonce" "$line"; done
		CREATE TABLE e (rule INTEGER, col, rows INTEGER, a INTEGER, b INTEGER, c INTEGER, d INTEGER, e INTEGER, f INTEGER,
		       g INTEGER, h INTEGER, i INTEGER, j INTEGER, k INTEGER, l INTEGER);
		.separator ' '
		.import effects e
		SELECT rule, col, sum(rows), sum(a), sum(b), sum(c), sum(d), coalesce(min(nullif(e, 0)), 0), max(f),
		       sum(g), sum(h), sum(i), sum(j), coalesce(min(nullif(k, 0)), 0), max(l) FROM e GROUP BY rule, col ORDER BY rule, min(rowid) LIMIT $MOST_EFFECTS;
	SQL
}

# say_columns COUNT: the tables of all copies, each with its columns, in hex. A database whose encoding
# is UTF-16 cannot be attached, and is left out.
say_columns() {
	local i=0
	while [ "$i" -lt "$1" ]; do
		printf '%s\n' "ATTACH '$i.db' AS d;
			SELECT hex(t.name), hex(c.name) FROM d.sqlite_master AS t, pragma_table_xinfo(t.name, 'd') AS c
			 WHERE t.type = 'table' AND t.rootpage AND t.name NOT GLOB 'sqlite_*';
			DETACH d;"
		i=$((i + 1))
	done >columns.sql
	{ printf '%s\n' '.bail off' ".separator ' '" && cat columns.sql; } | sql -readonly :memory: 2>/dev/null | sort -u | say_tables |
		head -n $((2 * MOST_COLUMN_LINES))
}

# say_tables: reads a table and a column from each line, in this order.
say_tables() {
	local table column last='' columns='' on_line=0 said=0
	while read -r table column; do
		if [ "$table" != "$last" ] || [ "$on_line" -ge "$MOST_COLUMNS_ON_LINE" ] || [ $((${#columns} + ${#column})) -gt "$LONGEST_LINE" ]; then
			say_table "$last" "$columns"
			last=$table columns='' on_line=0
		fi
		columns=$columns,$column on_line=$((on_line + 1))
	done
	say_table "$last" "$columns"
}

# say_table TABLE COLUMNS
say_table() {
	[ -n "$2" ] && [ $((${#1} + ${#2})) -le "$LONGEST_LINE" ] || return 0
	said=$((said + ${#1} + ${#2}))
	[ "$said" -gt "$MOST_SAID" ] || printf '\nXTASK-DB-FACT 1 %s columns %s %s\n' "$nonce" "$1" "${2#,}"
}
