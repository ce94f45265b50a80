#!/bin/sh
# Sanitizing: what prepare-pull.sh is sent with when there are rules.
#
# Of there: `sql`, `literal`, `header_byte`, `await_jobs` and `fail_sql`; the copies
# are 0.db, 1.db, … in the current directory.
# shellcheck disable=SC2154,SC2034 # rules, only and jobs are of there

# The client's SQL has filled temp.xtask_rule. Which of the rules this database
# needs is asked of the database itself; sqlite3 writes the script and reads it.
sanitize_script() {
	printf '.bail on\nPRAGMA secure_delete = ON;\nPRAGMA synchronous = OFF;\nPRAGMA journal_mode = OFF;\n%s\n' "$rules"
	cat <<-SQL
		CREATE TEMP TABLE xtask_count (rule INTEGER, rows INTEGER);
		CREATE TEMP TABLE xtask_todo (sql TEXT);
		CREATE TEMP TABLE xtask_sure (written CONSTRAINT "disk is full" CHECK (written));
		DELETE FROM temp.xtask_rule
		 WHERE NOT ($(literal "$2") GLOB pattern
		   AND (tbl IS NULL OR EXISTS (SELECT 1 FROM main.sqlite_master
		        WHERE type = 'table' AND name = tbl COLLATE NOCASE)));
		.output $1.applied
		SELECT rule FROM temp.xtask_rule;
		.output
		INSERT INTO temp.xtask_todo SELECT sql FROM temp.xtask_rule ORDER BY rule;
		.dbconfig enable_trigger off
		BEGIN;
		$(run_todo "$1")
		COMMIT;
		INSERT INTO temp.xtask_todo
		SELECT 'INSERT INTO ' || fts || '(' || fts || ') VALUES (''' || how || ''');' FROM (
		       SELECT '"' || replace(name, '"', '""') || '"' AS fts,
		              CASE WHEN plain LIKE '%content=''''%' OR plain LIKE '%content=""%'
		                   THEN 'delete-all' ELSE 'rebuild' END AS how
		         FROM (SELECT name, replace(replace(replace(replace(lower(sql),
		                      ' ', ''), char(9), ''), char(10), ''), char(13), '') AS plain
		                 FROM main.sqlite_master) AS made
		        WHERE plain LIKE 'createvirtualtable%'
		          AND EXISTS (SELECT 1 FROM main.sqlite_master AS shadow
		                       WHERE shadow.name IN (made.name || '_config', made.name || '_segdir')))
		 WHERE EXISTS (SELECT 1 FROM temp.xtask_rule);
		INSERT INTO temp.xtask_todo SELECT 'VACUUM;' WHERE EXISTS (SELECT 1 FROM temp.xtask_rule);
		$(run_todo "$1")
		.output $1.rows
		SELECT coalesce(sum(rows), 0) FROM temp.xtask_count;
		.output
	SQL
	# The copy is thrown away when it fails, so it needs no journal meanwhile.
	[ "$(header_byte "$1.db" 18)" != 2 ] || echo 'PRAGMA journal_mode = WAL;'
}

# sqlite3 does not say that a disk was too full for a line that it wrote: what is
# missing would be a secret that stays.
run_todo() {
	printf '%s\n' ".output $1.todo" 'SELECT sql FROM temp.xtask_todo ORDER BY rowid;' .output \
		"INSERT INTO temp.xtask_sure SELECT length(readfile('$1.todo')) IS (
		 SELECT coalesce(sum(length(CAST(sql AS BLOB)) + 1), 0) FROM temp.xtask_todo);" \
		'DELETE FROM temp.xtask_todo;' ".read $1.todo"
}

# An UPDATE leaves the old text in free space and in full-text indexes: where
# a rule applies, the indexes are rebuilt (those without content are emptied) and
# the file is written anew. Triggers, which might copy what a rule is about to
# remove, do not fire.
sanitize_all() {
	i=0
	for name do
		sanitize_script "$i" "$name" >"$i.sql"
		sqlite3 -batch -bail -init /dev/null "$i.db" <"$i.sql" >/dev/null 2>"$i.err" &
		jobs=$!
		await_jobs || fail_sql sanitize "sanitizing $name failed: $(head -n 3 "$i.err")"
		i=$((i + 1))
	done
	idle=$(printf "%s\nSELECT 'number ' || (rule + 1) || coalesce(' (table ' || tbl || ')', '') FROM temp.xtask_rule
		WHERE rule NOT IN (%s -1) LIMIT 1;" "$rules" "$(cat ./*.applied | tr '\n' ',')" | sql :memory:)
	[ -z "$idle" ] || [ -n "$only" ] || fail rule "[[sanitize]] $idle applies to none of the databases"
}
