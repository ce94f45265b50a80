#!/bin/sh
# Sanitizing: prepare-pull.sh is sent behind this, and calls it where there are rules.
#
# Of there: `sql`, `literal`, `header_byte`, `await_jobs`, `fail` and `fail_sql`;
# the copies are 0.db, 1.db, … in the current directory.
# shellcheck disable=SC2154,SC2034 # rules, only and jobs are of there

# How much is looked for. GNU grep needs 31 MB of memory for `pass_bytes` of
# patterns; five times over the file take as long as packing it does.
most_values=100000
pass_bytes=300000
most_bytes=$((5 * pass_bytes))

# The copies of an UPDATE that are left in a page have lost their ends first: so
# what is looked for is how a value begins, of several lines the longest one at
# its beginning. Pages of a long value have no beginning, and may be left when the
# page that had it is in use again: so of each `stride` bytes more a piece is
# looked for. Longer values than `longest` would take too long.
stride=32
longest=65536
# Bytes that no line of grep's can have separate lines as well.
separator="min(instr(rest, x'0a'), coalesce(nullif(instr(rest, x'00'), 0), length(rest)))"
piece_head="SELECT substr(line, 1, 16) AS short, substr(line, 1, 64) AS long, at FROM (
	SELECT CASE WHEN instr(v, x'0a') OR instr(v, x'00') THEN (
		WITH RECURSIVE l(line, rest) AS (
			SELECT x'', CAST(v || x'0a' AS BLOB)
			UNION ALL SELECT substr(rest, 1, $separator - 1), substr(rest, $separator + 1) FROM l WHERE length(rest) > 0)
		SELECT line FROM l ORDER BY length(line) DESC LIMIT 1
	) ELSE v END AS line, at FROM (
		SELECT substr(CAST(v AS BLOB), at, CASE at WHEN 1 THEN 512 ELSE 64 END) AS v,
		       CASE WHEN length(CAST(v AS BLOB)) > $longest THEN $longest + 1 ELSE at END AS at FROM (
			SELECT "
piece_tail="
		) CROSS JOIN temp.xtask_at WHERE typeof(v) IN ('text', 'blob') AND length(CAST(v AS BLOB)) >= 8
		  AND at <= CASE WHEN length(CAST(v AS BLOB)) BETWEEN 17 AND $longest THEN length(CAST(v AS BLOB)) - 15 ELSE 1 END
	)) WHERE at = 1 OR length(line) >= 8"

# Triggers, which might copy what a rule is about to remove, do not fire.
prelude() {
	printf '%s\n' '.bail on' '.dbconfig defensive off' '.dbconfig enable_trigger off' \
		'PRAGMA secure_delete = ON;' 'PRAGMA synchronous = OFF;'
}

# The client's SQL has filled temp.xtask_rule. Which of the rules this database
# needs is asked of the database itself; sqlite3 writes the script and reads it.
# A transaction that changes nothing is undone, so that not a byte of it differs.
sanitize_script() {
	prelude
	cat <<-SQL
		$rules
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
		$(prepare_look)
		BEGIN;
		INSERT INTO temp.xtask_todo SELECT sql FROM (
		       SELECT rule, 1 AS step, '.output $1.rule' || char(10) || 'SELECT ' || (rule + 1) || ';' || char(10)
		              || '.output' || char(10) || sql AS sql FROM temp.xtask_rule
		       UNION ALL SELECT rule, 0, sql FROM temp.xtask_collect) ORDER BY rule, step;
		$(run_todo "$1")
		.output $1.rule
		.output
		$(judge_change)
		INSERT INTO temp.xtask_todo SELECT sql FROM temp.xtask_rebuild;
		INSERT INTO temp.xtask_todo
		SELECT CASE WHEN EXISTS (SELECT 1 FROM temp.xtask_changed) THEN 'COMMIT;' ELSE 'ROLLBACK;' END;
		$(run_todo "$1")
		.output $1.rows
		SELECT coalesce(sum(rows), 0) FROM temp.xtask_count;
		.output
		$(write_values "$1")
	SQL
}

# sqlite3 does not say that a disk was too full for a line that it wrote: what is
# missing would be a secret that stays. It writes UTF-8, also where it has UTF-16.
run_todo() {
	cat <<-SQL
		.output $1.todo
		SELECT sql FROM temp.xtask_todo ORDER BY rowid;
		.output
		INSERT INTO temp.xtask_sure SELECT length(readfile('$1.todo')) IS (
		SELECT coalesce(sum(1 + CASE encoding WHEN 'UTF-8' THEN length(CAST(sql AS BLOB)) ELSE (
		       WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < length(sql))
		       SELECT sum(1 + (unicode(substr(sql, i, 1)) > 127) + (unicode(substr(sql, i, 1)) > 2047)
		                    + (unicode(substr(sql, i, 1)) > 65535)) FROM c) END), 0)
		  FROM temp.xtask_todo, pragma_encoding);
		DELETE FROM temp.xtask_todo;
		.read $1.todo
	SQL
}

# What each rule removes is collected right before it runs: of `set` what its
# columns have, and what is generated of them, of `delete` all texts and blobs. A
# rule that then changes other rows than those has a condition that is not the
# same twice. In xtask_old, scope is the column, or 0 for what is deleted.
prepare_look() {
	cat <<-SQL
		CREATE TEMP TABLE xtask_at (at INTEGER PRIMARY KEY);
		WITH a(at) AS (VALUES (1) UNION ALL SELECT at + $stride FROM a WHERE at < $longest) INSERT INTO temp.xtask_at SELECT at FROM a;
		CREATE TEMP TABLE xtask_old (scope INTEGER, short BLOB, long BLOB, at INTEGER, PRIMARY KEY (scope, long, at)) WITHOUT ROWID;
		CREATE TEMP TABLE xtask_kept (scope INTEGER, short BLOB, long BLOB, PRIMARY KEY (scope, short, long)) WITHOUT ROWID;
		CREATE TEMP TABLE xtask_seen (rule INTEGER, rows INTEGER);
		CREATE TEMP TABLE xtask_schema AS SELECT schema_version AS version FROM pragma_schema_version;
		CREATE TEMP TABLE xtask_changed (tbl TEXT COLLATE NOCASE);
		CREATE TEMP TABLE xtask_blind (why TEXT);
		INSERT INTO temp.xtask_blind SELECT 'UTF-16' FROM pragma_encoding WHERE encoding <> 'UTF-8';
		CREATE TEMP TABLE xtask_watch AS
		SELECT row_number() OVER () AS scope, rule, deletes, condition,
		       '"' || replace(tbl, '"', '""') || '"' AS tbl, '"' || replace(name, '"', '""') || '"' AS col
		  FROM (SELECT *, rule NOT IN (SELECT rule FROM temp.xtask_set) AS deletes
		          FROM temp.xtask_rule WHERE condition IS NOT NULL) AS r, pragma_table_xinfo(r.tbl) AS c
		 WHERE c.hidden = 3 OR EXISTS (SELECT 1 FROM temp.xtask_set AS s WHERE s.rule = r.rule AND s.col = c.name)
		    OR (deletes AND c.hidden = 0);
		UPDATE temp.xtask_watch SET scope = 0 WHERE deletes;
		CREATE TEMP TABLE xtask_collect AS
		SELECT rule, 'INSERT INTO temp.xtask_seen SELECT ' || rule || ', count(*) FROM (SELECT 1 FROM "'
		       || replace(tbl, '"', '""') || '"' || condition || char(10) || ');' AS sql
		  FROM temp.xtask_rule WHERE condition IS NOT NULL
		UNION ALL
		SELECT rule, 'INSERT OR IGNORE INTO temp.xtask_old SELECT DISTINCT ' || scope || ', short, long, at FROM ('
		       || $(literal "$piece_head") || col || ' AS v FROM ' || tbl || condition || $(literal "$piece_tail")
		       || ') WHERE (SELECT count(*) FROM temp.xtask_old) <= $most_values LIMIT $most_values + 1;'
		  FROM temp.xtask_watch WHERE NOT EXISTS (SELECT 1 FROM temp.xtask_blind);
	SQL
}

# Which tables have changed, and what has to be made anew of them: full-text
# indexes (those without content are emptied), unless their content is a table
# that is as it was; and indexes of expressions, whose values nobody knows.
judge_change() {
	cat <<-SQL
		INSERT INTO temp.xtask_changed
		SELECT CASE WHEN condition IS NULL THEN NULL ELSE tbl END
		  FROM temp.xtask_rule JOIN temp.xtask_count USING (rule) WHERE rows <> 0;
		INSERT INTO temp.xtask_changed
		SELECT NULL FROM temp.xtask_schema, pragma_schema_version WHERE schema_version <> version;
		INSERT INTO temp.xtask_blind SELECT 'sql' FROM temp.xtask_changed WHERE tbl IS NULL;
		INSERT INTO temp.xtask_blind
		SELECT 'condition' FROM temp.xtask_seen AS s JOIN temp.xtask_count AS c USING (rule) WHERE s.rows <> c.rows;
		INSERT INTO temp.xtask_blind SELECT 'long' FROM temp.xtask_old WHERE at > $longest LIMIT 1;
		INSERT INTO temp.xtask_blind SELECT 'many' WHERE (SELECT count(*) FROM temp.xtask_old) > $most_values;
		CREATE TEMP TABLE xtask_plain AS
		SELECT name, virtual, made, ',' || replace(replace(replace(replace(replace(made,
		       '''', ''), '"', ''), '[', ''), ']', ''), char(96), '') || ',' AS bare
		  FROM (SELECT name, rootpage = 0 AS virtual, replace(replace(replace(replace(
		               CASE WHEN rootpage THEN lower(name) ELSE lower(sql) END,
		               ' ', ''), char(9), ''), char(10), ''), char(13), '') AS made
		          FROM main.sqlite_master WHERE type = 'table');
		CREATE TEMP TABLE xtask_rebuild AS
		SELECT 'INSERT INTO ' || fts || '(' || fts || ') VALUES (''' || how || ''');' AS sql FROM (
		       SELECT name, bare, '"' || replace(name, '"', '""') || '"' AS fts,
		              CASE WHEN made LIKE '%content=''''%' OR made LIKE '%content=""%'
		                   THEN 'delete-all' ELSE 'rebuild' END AS how
		         FROM temp.xtask_plain AS p
		        WHERE virtual AND EXISTS (SELECT 1 FROM main.sqlite_master AS shadow
		                       WHERE shadow.name IN (p.name || '_config', p.name || '_segdir'))) AS f
		 WHERE EXISTS (SELECT 1 FROM temp.xtask_changed)
		   AND (how = 'delete-all'
		     OR EXISTS (SELECT 1 FROM temp.xtask_changed AS c WHERE c.tbl IS NULL OR c.tbl = f.name
		             OR c.tbl IN (SELECT f.name || '_' || column1 FROM (VALUES ('data'), ('idx'), ('content'),
		                ('docsize'), ('config'), ('segments'), ('segdir'), ('stat'))))
		     OR (NOT EXISTS (SELECT 1 FROM main.sqlite_master AS shadow WHERE shadow.name = f.name || '_content')
		         AND (SELECT coalesce(max(t.name COLLATE NOCASE IN (SELECT tbl FROM temp.xtask_changed)), 1)
		                FROM temp.xtask_plain AS t WHERE NOT t.virtual
		                 AND instr(replace(f.bare, ')', ','), ',content=' || substr(replace(t.bare, ')', ','), 2)))))
		UNION ALL
		SELECT DISTINCT 'REINDEX "' || replace(i.name, '"', '""') || '";'
		  FROM temp.xtask_changed AS c JOIN main.sqlite_master AS i ON i.type = 'index' AND i.tbl_name = c.tbl COLLATE NOCASE,
		       pragma_index_xinfo(i.name) AS x LEFT JOIN pragma_table_xinfo(c.tbl) AS t ON t.cid = x.cid
		 WHERE x.cid = -2 OR t.hidden IN (2, 3);
	SQL
}

# What the same column still has is no secret; of what was deleted, no more is
# what any column has: a key of another table, a date. Where only the beginning
# is the same, more of it is looked for.
write_values() {
	cat <<-SQL
		DELETE FROM temp.xtask_at WHERE at > coalesce((SELECT max(at) FROM temp.xtask_old), 1);
		INSERT INTO temp.xtask_todo
		SELECT 'INSERT OR IGNORE INTO temp.xtask_kept SELECT ' || scope || ', short, coalesce((
		        SELECT o.long FROM temp.xtask_old AS o WHERE o.scope = ' || scope || ' AND o.long = p.long), x'''') FROM ('
		       || $(literal "$piece_head") || col || ' AS v FROM ' || tbl || $(literal "$piece_tail")
		       || ') AS p WHERE short IN (SELECT short FROM temp.xtask_old WHERE scope = ' || scope || ');'
		  FROM (SELECT scope, tbl, col FROM temp.xtask_watch WHERE scope
		        UNION ALL
		        SELECT 0, '"' || replace(t.name, '"', '""') || '"', '"' || replace(c.name, '"', '""') || '"'
		          FROM main.sqlite_master AS t, pragma_table_xinfo(t.name) AS c
		         WHERE t.type = 'table' AND t.rootpage AND c.hidden = 0) AS w
		 WHERE NOT EXISTS (SELECT 1 FROM temp.xtask_blind)
		   AND EXISTS (SELECT 1 FROM temp.xtask_old AS o WHERE o.scope = w.scope);
		$(run_todo "$1")
		DELETE FROM temp.xtask_old WHERE EXISTS (
		       SELECT 1 FROM temp.xtask_kept AS k WHERE k.scope = xtask_old.scope
		          AND k.short = xtask_old.short AND k.long = xtask_old.long);
		UPDATE temp.xtask_old SET short = long WHERE EXISTS (
		       SELECT 1 FROM temp.xtask_kept AS k WHERE k.scope = xtask_old.scope AND k.short = xtask_old.short);
		INSERT INTO temp.xtask_blind SELECT 'many' WHERE $most_bytes < (
		       SELECT sum(length(short) + 1) FROM (SELECT DISTINCT short FROM temp.xtask_old));
		CREATE TEMP TABLE xtask_part AS
		SELECT '$1.values.' || part AS name, group_concat(CAST(short AS TEXT), char(10)) AS text
		  FROM (SELECT short, sum(length(short) + 1) OVER (ORDER BY short) / $pass_bytes AS part
		          FROM (SELECT DISTINCT short FROM temp.xtask_old))
		 WHERE NOT EXISTS (SELECT 1 FROM temp.xtask_blind) GROUP BY part;
		INSERT INTO temp.xtask_sure SELECT coalesce(writefile(name, text), 0) FROM temp.xtask_part;
		INSERT INTO temp.xtask_sure SELECT coalesce(readfile(name) = CAST(text AS BLOB), 0) FROM temp.xtask_part;
		.output $1.remake
		SELECT CASE WHEN sql LIKE '%without%rowid%' THEN 'REINDEX ' || tbl || ';' ELSE
		       'CREATE TEMP TABLE xtask_copy (r' || places || ');
		        INSERT INTO temp.xtask_copy SELECT _rowid_' || cols || ' FROM ' || tbl || ';
		        DELETE FROM ' || tbl || ';
		        INSERT INTO ' || tbl || ' (_rowid_' || cols || ') SELECT * FROM temp.xtask_copy;
		        DROP TABLE temp.xtask_copy;' END
		  FROM (SELECT sql, '"' || replace(name, '"', '""') || '"' AS tbl,
		               (SELECT group_concat(', c' || cid, '') FROM pragma_table_xinfo(m.name) WHERE hidden = 0) AS places,
		               (SELECT group_concat(', "' || replace(name, '"', '""') || '"', '')
		                  FROM pragma_table_xinfo(m.name) WHERE hidden = 0) AS cols
		          FROM main.sqlite_master AS m WHERE type = 'table' AND rootpage
		           AND NOT EXISTS (SELECT 1 FROM pragma_table_xinfo(m.name) WHERE name = '_rowid_' COLLATE NOCASE)
		           AND EXISTS (
		               SELECT 1 FROM temp.xtask_changed AS c WHERE c.tbl = m.name OR (c.tbl || '_content' = m.name
		                  AND EXISTS (SELECT 1 FROM main.sqlite_master AS v WHERE v.name = c.tbl AND v.rootpage = 0))));
		.output $1.look
		SELECT CASE WHEN NOT EXISTS (SELECT 1 FROM temp.xtask_changed) THEN 'nothing'
		            WHEN EXISTS (SELECT 1 FROM temp.xtask_blind) THEN 'blind'
		            WHEN EXISTS (SELECT 1 FROM temp.xtask_part) THEN 'look' ELSE 'nothing' END;
		.output
	SQL
}

# sanitizer NUMBER: the SQL comes on standard input.
sanitizer() {
	sqlite3 -batch -bail -init /dev/null "$1.db" <"$1.sql" >/dev/null 2>"$1.err" &
	jobs=$!
	await_jobs
}

# Whether no value is left in the bytes of the copy. Other greps than GNU's take
# longer for ten values than VACUUM. With -z a run of zeros is not one long line,
# which it would hold in memory. Only 1 says that it has looked and found nothing.
is_clean() {
	case $(grep --version 2>/dev/null) in 'grep (GNU grep)'*) ;; *) return 1 ;; esac
	for values in "$1".values.*; do
		grep -q -z -a -F -f "$values" "$1.db" 2>/dev/null &
		jobs=$!
		await_jobs
		[ $? -eq 1 ] || return 1
	done
}

# Where nothing is found, every page stays where it was, for the sake of a later
# delta. Where rows grow or shrink, or are in an index, SQLite moves some before
# it changes them, and leaves a copy: then the tables that were changed are put
# together again. Only what is still found costs a VACUUM.
wipe() {
	case $(cat "$1.look") in
	nothing) return 0 ;;
	look)
		if is_clean "$1"; then return 0; fi
		{ prelude && echo 'BEGIN;' && cat "$1.remake" && echo 'COMMIT;'; } >"$1.sql"
		if sanitizer "$1" && is_clean "$1"; then return 0; fi
		;;
	esac
	# The copy is thrown away when this fails, so it needs no journal; one that a
	# killed sqlite3 has left is read first.
	{ prelude && printf '%s;\n' 'SELECT count(*) FROM sqlite_master' 'PRAGMA journal_mode = OFF' VACUUM; } >"$1.sql"
	sanitizer "$1"
}

# complaint NUMBER: what sqlite3 says of the rules. What it says while they run may
# quote data (a JSON path, a word that is looked for, the name of a file): that passes
# only where it is known to have names and numbers in it, or what the rules have.
complaint() {
	number=$(cat "$1.rule" 2>/dev/null)
	[ -z "$number" ] || printf '[[sanitize]] number %s: ' "$number"
	said=$(head -n 1 "$1.err")
	case $said in 'Parse error'*) head -n 3 "$1.err" && return ;; esac
	case ${said#*near line *: } in
	'UNIQUE constraint failed'* | 'NOT NULL constraint failed'* | 'CHECK constraint failed'* | \
		'FOREIGN KEY constraint failed'* | 'cannot store '* | 'datatype mismatch'* | 'malformed JSON'* | 'SHA3 size should be'* | \
		'integer overflow'* | 'string or blob too big'* | 'out of memory'* | 'disk I/O error'* | \
		'database or disk is full'* | 'database is locked'* | 'database disk image is malformed'*) echo "$said" && return ;;
	'no such '*)
		case $rules in *"${said#*near line *: no such *: }"*) echo "$said" && return ;; esac
		;;
	esac
	echo 'a value made it fail (what SQLite says may quote that: run the rule by hand to read it)'
}

# mark_wal NUMBER BYTE: whether the copy is in WAL mode (2) or not (1) is told by
# two bytes. SQLite's own way to change them counts as a change of the database.
mark_wal() { printf '%b' "\\0$2\\0$2" | dd of="$1.db" bs=1 seek=18 conv=notrunc 2>/dev/null; }

sanitize_all() {
	i=0
	for name do
		wal=$(header_byte "$i.db" 18)
		[ "$wal" != 2 ] || mark_wal "$i" 1 || fail no-space "cannot write in $staging_dir"
		sanitize_script "$i" "$name" >"$i.sql"
		if ! { sanitizer "$i" && wipe "$i"; }; then
			[ -s "$i.err" ] || fail no-space "sanitizing $name failed without a word (is $staging_dir full?)"
			fail_sql sanitize "sanitizing $name failed: $(complaint "$i")"
		fi
		rm -f "$i".values.*
		[ "$wal" != 2 ] || mark_wal "$i" 2 || fail no-space "cannot write in $staging_dir"
		i=$((i + 1))
	done
	idle=$(printf "%s\nSELECT 'number ' || (rule + 1) || coalesce(' (table ' || tbl || ')', '') FROM temp.xtask_rule
		WHERE rule NOT IN (%s -1) LIMIT 1;" "$rules" "$(cat ./*.applied | tr '\n' ',')" | sql :memory:)
	[ -z "$idle" ] || [ -n "$only" ] || fail rule "[[sanitize]] $idle applies to none of the databases"
}
