#!/bin/sh
# The audit: prepare-pull.sh is sent behind this, and calls it where one is asked for.
# It lists the columns that no rule covers, and whose names or values suggest that
# one should: no value leaves this file.
#
# Of there: `literal`, `sql`, `measure`, `require_number`, `is_utf16`, `await_jobs` and `fail`; of
# pack.sh: `hex`. The copies are 0.db, 1.db, … in the current directory.
# shellcheck disable=SC2154,SC2034 # audit, nonce, stage and jobs are of there

most_findings=1000
# So many columns are looked at by one statement.
columns=40
# Smaller copies are looked through as fast as they are looked at.
SMALL=1000000
# No key is as long: blobs that are longer are not read.
longest_key=1048576

# in_hex EXPRESSION: its first 100 characters in UTF-8, whatever the database has.
in_hex() {
	cat <<-SQL
		(WITH RECURSIVE h(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM h WHERE i < min(length($1), 100)),
		 u(u) AS (SELECT unicode(substr($1, i, 1)) FROM h UNION ALL SELECT 8230 WHERE length($1) > 100)
		 SELECT coalesce(group_concat(CASE
		        WHEN u < 128 THEN printf('%02x', u)
		        WHEN u < 2048 THEN printf('%02x%02x', 192 | (u >> 6), 128 | (u & 63))
		        WHEN u < 65536 THEN printf('%02x%02x%02x', 224 | (u >> 12), 128 | ((u >> 6) & 63), 128 | (u & 63))
		        ELSE printf('%02x%02x%02x%02x', 240 | (u >> 18), 128 | ((u >> 12) & 63), 128 | ((u >> 6) & 63),
		                    128 | (u & 63)) END, ''), '') FROM u WHERE u IS NOT NULL)
	SQL
}

# audit_script NUMBER: the client's SQL has filled xtask_word, xtask_none,
# xtask_value and xtask_fine. Full-text tables that hold their own text are looked at by
# their names, and all that keeps it, or repeats what another table has, is not. What
# cannot be read, since it needs a module or a function of the app's, is said to be so:
# from `.bail off` on, errors leave gaps that the end of it finds. Where nothing reaches out,
# the schema is trusted: without, SQLite 3.40 reads none that has json_valid() in a CHECK.
audit_script() {
	cat <<-SQL
		.bail on
		$outreach
		.output audit.trust.$worker
		SELECT 'PRAGMA trusted_schema = ' || CASE WHEN EXISTS (SELECT 1 FROM temp.xtask_outreach) THEN 'OFF' ELSE 'ON' END
		       || '; CREATE TEMP TABLE xtask_trust (known);';
		.output
		.read audit.trust.$worker
		SELECT known FROM temp.xtask_trust;
		$audit
		DELETE FROM temp.xtask_value WHERE instr(' $forms', ' ' || kind || ' ') = 0;
		CREATE TEMP TABLE xtask_index AS
		SELECT v.name, EXISTS (SELECT 1 FROM main.sqlite_master AS c WHERE c.name = v.name || '_content'
		          AND (c.sql GLOB '*(id INTEGER PRIMARY KEY, c[0-9]*' OR c.sql GLOB '*(docid INTEGER PRIMARY KEY, *')) AS own
		  FROM main.sqlite_master AS v WHERE v.type = 'table' AND v.rootpage = 0
		   AND EXISTS (SELECT 1 FROM main.sqlite_master AS s WHERE s.name IN (v.name || '_config', v.name || '_segdir'));
		CREATE TEMP TABLE xtask_shadow AS
		SELECT name || '_' || column1 AS name FROM temp.xtask_index, (VALUES ('data'), ('idx'), ('docsize'), ('config'),
		       ('segments'), ('segdir'), ('stat')) UNION ALL SELECT name || '_content' FROM temp.xtask_index WHERE own;
		CREATE TEMP TABLE xtask_table (name TEXT);
		INSERT INTO temp.xtask_table
		SELECT name FROM main.sqlite_master WHERE type = 'table' AND rootpage AND name NOT GLOB 'sqlite_*'
		   AND name NOT IN (SELECT name FROM temp.xtask_shadow);
		CREATE TEMP TABLE xtask_column (tbl TEXT, col TEXT, cid INTEGER, type TEXT, refers INTEGER);
		INSERT INTO temp.xtask_column
		SELECT t.name, c.name, c.cid, lower(c.type),
		       EXISTS (SELECT 1 FROM pragma_foreign_key_list(t.name) AS f WHERE f."from" = c.name COLLATE NOCASE)
		  FROM temp.xtask_table AS t, pragma_table_xinfo(t.name) AS c;
		.bail off
		INSERT INTO temp.xtask_table SELECT name FROM temp.xtask_index WHERE own;
		INSERT INTO temp.xtask_column
		SELECT t.name, c.name, c.cid, lower(c.type), 0
		  FROM temp.xtask_index AS t, pragma_table_xinfo(t.name) AS c WHERE t.own AND c.hidden <> 1;
		CREATE TEMP TABLE xtask_name (name TEXT PRIMARY KEY, words TEXT);
		INSERT INTO temp.xtask_name
		WITH RECURSIVE w(name, at, words) AS (
		     SELECT name, 1, '_' FROM (SELECT tbl AS name FROM temp.xtask_column UNION SELECT col FROM temp.xtask_column
		                               UNION SELECT type FROM temp.xtask_column)
		      UNION ALL
		     SELECT name, at + 1, words || CASE
		            WHEN substr(name, at, 1) GLOB '[A-Z]' AND (substr(name, at - 1, 1) GLOB '[a-z]'
		              OR (substr(name, at - 1, 2) GLOB '[A-Z][A-Z]' AND substr(name, at + 1, 1) GLOB '[a-z]'))
		              THEN '_' || lower(substr(name, at, 1))
		            WHEN substr(name, at, 1) GLOB '[A-Za-z]' THEN lower(substr(name, at, 1))
		            WHEN unicode(substr(name, at, 1)) > 127 THEN substr(name, at, 1)
		            ELSE '_' END
		       FROM w WHERE at <= min(length(name), 100))
		SELECT name, replace(replace(replace(words || '_', '____', '_'), '___', '_'), '__', '_') FROM w
		 WHERE at > min(length(name), 100);
		CREATE TEMP TABLE xtask_look AS
		SELECT tbl, col, cid, NOT EXISTS (
		           SELECT 1 FROM temp.xtask_fine AS f WHERE $quoted GLOB f.database
		              AND lower(c.tbl) GLOB f.tbl AND lower(c.col) GLOB f.col) AS bare,
		       (SELECT max(w.kind) FROM temp.xtask_word AS w
		         WHERE instr(w.types, c.sort) AND t.words GLOB w.tbl AND (c.words GLOB w.pattern AND NOT EXISTS (
		                   SELECT 1 FROM temp.xtask_none AS o WHERE c.words GLOB o.pattern AND w.kind GLOB o.kind
		                      AND (o.beside IS NULL OR EXISTS (SELECT 1 FROM temp.xtask_column AS b
		                           WHERE b.tbl = c.tbl AND b.col = o.beside COLLATE NOCASE)))
		               OR (w.tbl = '*' AND d.words GLOB w.pattern))) AS kind
		  FROM (SELECT x.*, words, CASE WHEN type GLOB '*bool*' THEN 'switch'
		               WHEN words GLOB '*_id_' AND (refers OR type GLOB '*int*') THEN 'reference'
		               WHEN type GLOB '*date*' OR type GLOB '*time*' THEN 'time'
		               WHEN type GLOB '*int*' OR type GLOB '*real*' OR type GLOB '*floa*' OR type GLOB '*doub*'
		                 OR type GLOB '*dec*' OR type GLOB '*num*' THEN 'number'
		               ELSE 'text' END AS sort
		          FROM temp.xtask_column AS x JOIN temp.xtask_name ON name = col) AS c
		  JOIN temp.xtask_name AS t ON t.name = c.tbl
		  JOIN temp.xtask_name AS d ON d.name = c.type;
		CREATE TEMP TABLE xtask_part AS
		SELECT dense_rank() OVER (ORDER BY tbl, cid / $columns) AS part, tbl, kind,
		       '"' || replace(col, '"', '""') || '"' AS col,
		       '''$1 ' || $table_in_hex || ' ' || $column_in_hex || ' '' || ' AS begin
		  FROM temp.xtask_look WHERE bare;
		CREATE TEMP TABLE xtask_seen (part INTEGER, lines TEXT);
		.output audit.todo.$worker
		SELECT 'INSERT INTO temp.xtask_seen SELECT ' || part || ', ' || group_concat(line, ' || ')
		       || ' FROM main."' || replace(tbl, '"', '""') || '";'
		  FROM (SELECT part, tbl, begin || 'count(CASE WHEN ' || col || ' COLLATE BINARY NOT IN ('''', x'''') THEN 1 END) || '' '
		               || kind || ''' || char(10)' AS line FROM temp.xtask_part WHERE kind IS NOT NULL
		         UNION ALL
		        SELECT part, tbl, 'coalesce(' || begin || 'nullif(count(CASE WHEN (typeof(' || col || ') = ''text'' OR (typeof('
		               || col || ') = ''blob'' AND length(' || col || ') < $longest_key)) AND ('
		               || group_concat('CAST(' || col || ' AS TEXT) GLOB ''*' || pattern || '*''', ' OR ')
		               || ') THEN 1 END), 0) || '' ' || v.kind || ''' || char(10), '''')'
		          FROM temp.xtask_part AS p, temp.xtask_value AS v GROUP BY part, col, v.kind)
		 GROUP BY part, tbl;
		.output
		.read audit.todo.$worker
		SELECT substr(lines, 1, length(lines) - 1) FROM temp.xtask_seen WHERE lines <> '';
		SELECT DISTINCT '$1 ' || $name_in_hex || ' 2a 0 unread' FROM temp.xtask_table
		 WHERE (name NOT IN (SELECT tbl FROM temp.xtask_column) AND NOT EXISTS (
		       SELECT 1 FROM temp.xtask_fine AS f WHERE $quoted GLOB f.database AND lower(name) GLOB f.tbl AND f.col = '*'))
		    OR name IN (SELECT tbl FROM temp.xtask_part WHERE part NOT IN (SELECT part FROM temp.xtask_seen)
		             AND (kind IS NOT NULL OR EXISTS (SELECT 1 FROM temp.xtask_value)));
		SELECT '$1 - - 0 end' WHERE (SELECT count(*) FROM temp.xtask_look) = (SELECT count(*) FROM temp.xtask_column);
	SQL
}

# What was found in each database, added up: how many databases have it, the first of
# them, table, column, rows, kind. A database whose audit came to no end is one more.
add_up_findings() {
	sql :memory: 2>audit.err <<-SQL
		CREATE TABLE found (db INTEGER, tbl TEXT, col TEXT, rows INTEGER, kind TEXT);
		.separator ' '
		.import audit.found found
		WITH RECURSIVE n(db) AS (SELECT 0 UNION ALL SELECT db + 1 FROM n WHERE db + 1 < $1)
		INSERT INTO found SELECT db, '2a', '2a', 0, 'unread' FROM n
		 WHERE db NOT IN (SELECT db FROM found WHERE kind = 'end');
		SELECT count(DISTINCT db), min(db), tbl, col, sum(rows), kind FROM found WHERE kind <> 'end'
		 GROUP BY tbl, col, kind ORDER BY sum(rows) = 0, kind IN ('personal', 'unread'), tbl, col, kind;
	SQL
}

# choose_forms NUMBER: `forms` becomes the kinds of values that are worth a look, each
# with a blank behind it. Whether the bytes of a large copy have any is found by GNU grep
# in a tenth of the time; it may overlook one that ends in the next page of a long value.
choose_forms() {
	forms=$every_form
	measure "$1.db"
	if [ "$gnu_grep" -eq 0 ] || [ "$size" -lt "$SMALL" ] || is_utf16 "$1.db"; then return 0; fi
	has_form "$1" "$any_form" || { forms='' && return 0; }
	forms=''
	while read -r kind form; do
		if has_form "$1" "$form"; then forms="$forms$kind "; fi
	done <audit.forms
}

has_form() {
	grep -q -z -a -E -e "$2" "$1.db" 2>/dev/null </dev/null &
	jobs=$!
	await_jobs
	[ $? -ne 1 ]
}

# audit NUMBER NAME
audit() {
	case $2 in *\'*) quoted=$(literal "$2") ;; *) quoted="'$2'" ;; esac
	choose_forms "$1"
	audit_script "$1" >"audit.sql.$worker"
	sqlite3 -batch -init /dev/null "$1.db" <"audit.sql.$worker" >>"audit.found.$worker" 2>/dev/null &
	jobs=$!
	await_jobs || :
}

audit_all() {
	outreach=$(find_outreach) || fail no-space "the audit failed (is $stage full?)"
	table_in_hex=$(in_hex tbl) column_in_hex=$(in_hex col) name_in_hex=$(in_hex name)
	printf "%s\nSELECT kind || ' ' || group_concat(form, '|') FROM temp.xtask_value GROUP BY kind;" "$audit" |
		sql :memory: >audit.forms
	every_form=$(while read -r kind _; do printf '%s ' "$kind"; done <audit.forms)
	any_form=$(while read -r _ form; do printf '%s|' "$form"; done <audit.forms)
	any_form=${any_form%|}
	large=$((total + 1)) # One takes a core, however large it is.
	on_all_cores audit "$@"
	cat audit.found.* >audit.found || fail no-space "the audit failed (is $stage full?)"
	add_up_findings $# >audit.lines || fail no-space "the audit failed (is $stage full?)"
	findings=0
	while read -r databases first rest; do
		require_number "$first" sqlite3 'what the audit found'
		findings=$((findings + 1))
		[ "$findings" -le "$most_findings" ] || continue
		eval "name=\${$((first + 1))}"
		printf '\nXTASK-DB-AUDIT 1 %s %d %s %s\n' "$nonce" "$databases" "$(hex "$name")" "$rest"
	done <audit.lines
	[ "$findings" -le "$most_findings" ] ||
		printf '\nXTASK-DB-AUDIT-MORE 1 %s %d\n' "$nonce" $((findings - most_findings))
	[ "$findings" -eq 0 ] || [ "$audit_level" != fail ] ||
		fail audit "the audit found columns that no rule covers: $findings"
	rm -f audit.*
}
