#!/bin/sh
# shellcheck shell=dash
# The audit: prepare-pull.sh is sent after this file and calls it when an audit is requested.
# It lists the columns that no rule covers and whose names or values look like secrets.
# Values never leave this file.
#
# Uses `literal`, `sql`, `require_number`, `await_jobs` and `fail` of prepare-pull.sh, `read_facts` of
# facts.sh, `fill_in`, `choose_for` and `find_outreach` of sanitize.sh and `hex` of pack.sh. The copies are ./0.db, ./1.db, …
# shellcheck disable=SC2154,SC2034 # audit, nonce, stage and jobs are set in prepare-pull.sh

MOST_FINDINGS=1000
# Maximum length of the findings that the client keeps for the next pull.
MOST_KEPT=2000000
# Maximum number of columns that one statement reads.
MOST_COLUMNS=40
# The number of rows of which whole values are read.
MOST_ROWS=10000
# Bytes. For a smaller copy, a scan by grep saves no time.
SMALL=1000000
# Bytes. A longer schema text is not parsed: that would take too long.
LONGEST_DEFINITION=100000
# Bytes. Longer blobs are not read: no key is that long.
LONGEST_KEY=1048576

# GLOB ends at a zero byte, which JSONB and other formats contain. This finds the kind of a value
# after a zero byte: it tests each position that starts like a pattern.
BEHIND_ZERO="CASE WHEN typeof(@COL) IN (''text'', ''blob'') AND length(@COL) < $LONGEST_KEY AND instr(CAST(@COL AS BLOB), x''00'') THEN
	(SELECT max(kind) FROM (SELECT kind, pattern, CAST(begins AS BLOB) AS begins, unless FROM temp.xtask_value) AS v WHERE EXISTS (
	  WITH RECURSIVE at(rest) AS (
	       SELECT substr(CAST(@COL AS BLOB), instr(CAST(@COL AS BLOB), begins)) WHERE instr(CAST(@COL AS BLOB), begins)
	       UNION ALL SELECT substr(rest, 1 + instr(substr(rest, 2), begins)) FROM at WHERE instr(substr(rest, 2), begins))
	  SELECT 1 FROM (SELECT CAST(CASE WHEN unless IS NULL THEN rest ELSE substr(rest, 1, instr(rest, CAST(''@'' AS BLOB)) + length(CAST(''@'' AS BLOB)) - 1) END AS TEXT) AS part
	                   FROM at)
	   WHERE part GLOB pattern || ''*'' AND (unless IS NULL OR part NOT GLOB unless))) END"
# Where a pattern with an exception may begin, and the next @.
EXCEPT="EXISTS (
	  WITH RECURSIVE at(rest) AS (
	       SELECT substr(CAST(@COL AS TEXT), instr(CAST(@COL AS TEXT), @BEGINS))
	       UNION ALL SELECT substr(rest, 1 + instr(substr(rest, 2), @BEGINS)) FROM at WHERE instr(substr(rest, 2), @BEGINS))
	  SELECT 1 FROM (SELECT substr(rest, 1, instr(rest, ''@'')) AS part FROM at) WHERE part GLOB @PATTERN AND part NOT GLOB @UNLESS)"

# in_hex EXPRESSION: its first 100 characters, in UTF-8 whatever the database's encoding is.
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

# audit_script NUMBER NAME: the client's SQL fills xtask_word, xtask_none, xtask_value, xtask_whole,
# xtask_setting and xtask_fine.
audit_script() {
	local chosen number quoted leak=''
	choose_for "$2"
	[ ! -e "$1.leak" ] || leak=$(cat "$1.leak")
	literal "$leak" || return 1
	[ -n "$audit_sql" ] || audit_sql=$(audit_template) || return 1
	printf '%s\n' '.bail on' 'PRAGMA temp_store = MEMORY;' "$audit" "DELETE FROM temp.xtask_value WHERE instr(' $forms', ' ' || kind || ' ') = 0;" \
		"DELETE FROM temp.xtask_fine WHERE rule NOT IN ($chosen);" "CREATE TEMP TABLE xtask_leak AS SELECT $quoted AS said;" && fill_in "$1" "$audit_sql"
}

# The part that is the same for all copies that one shell audits: ~ stands for the copy's number.
# The schema is trusted if it has no side effects outside the database: SQLite 3.40 cannot read an
# untrusted schema with json_valid() in a CHECK.
audit_template() {
	cat <<-SQL
		$outreach
		.output audit.trust.$worker
		SELECT 'PRAGMA trusted_schema = ' || CASE WHEN EXISTS (SELECT 1 FROM temp.xtask_outreach) THEN 'OFF' ELSE 'ON' END
		       || '; CREATE TEMP TABLE xtask_trust (known);';
		.output
		.read audit.trust.$worker
		SELECT known FROM temp.xtask_trust;
	SQL
	list_columns && list_definitions && list_facts && list_virtual_columns && choose_columns && read_columns && list_unread
}

# A full-text table that stores its own text is listed under its own name. Shadow tables and
# full-text tables over the content of another table are skipped.
list_columns() {
	find_indexes && cat <<-SQL
		CREATE TEMP TABLE xtask_table (name TEXT);
		INSERT INTO temp.xtask_table
		SELECT name FROM main.sqlite_master WHERE type = 'table' AND rootpage AND name NOT GLOB 'sqlite_*'
		   AND name NOT IN (SELECT name FROM temp.xtask_shadow);
		CREATE TEMP TABLE xtask_column (tbl TEXT, col TEXT, cid INTEGER, type TEXT, refers INTEGER, required INTEGER,
		       pk INTEGER, generated INTEGER);
		INSERT INTO temp.xtask_column
		SELECT t.name, c.name, c.cid, lower(c.type),
		       EXISTS (SELECT 1 FROM pragma_foreign_key_list(t.name) AS f WHERE f."from" = c.name COLLATE NOCASE),
		       c."notnull" OR c.pk, c.pk, c.hidden
		  FROM temp.xtask_table AS t, pragma_table_xinfo(t.name) AS c;
	SQL
}

# Splits the schema text by column. xtask_said has the column definitions of a table by column
# number, then its constraints; at -1 the columns of a unique index, at -2 those of a unique
# index on JSON, at -3 the condition of a partial unique index.
list_definitions() {
	cat <<-SQL
		CREATE TEMP TABLE xtask_said (tbl TEXT, at INTEGER, text TEXT);
		INSERT INTO temp.xtask_said
		WITH RECURSIVE
		  -- From one bracket, comma, quote or comment to the next; head begins where the definition does.
		  step(tbl, rest, depth, at, head, done) AS (
		       SELECT name, lower(sql), 0, -1, '', NULL FROM main.sqlite_master
		        WHERE type = 'table' AND name IN (SELECT name FROM temp.xtask_table) AND length(sql) < $LONGEST_DEFINITION
		          AND (sql LIKE '%json%' OR sql LIKE '%->%' OR sql LIKE '%check%'
		           OR name IN (SELECT tbl FROM temp.xtask_column WHERE generated))
		       UNION ALL
		       SELECT tbl, ltrim(substr(rest, 1 + CASE substr(rest, 1, 1)
		                   WHEN '-' THEN CASE WHEN rest GLOB '--*' THEN instr(rest || char(10), char(10)) ELSE 1 END
		                   WHEN '/' THEN CASE WHEN rest GLOB '/[*]*' THEN 3 + instr(substr(rest, 3) || '*/', '*/') ELSE 1 END
		                   WHEN '[' THEN instr(rest || ']', ']')
		                   WHEN '"' THEN 1 + instr(substr(rest, 2) || '"', '"')
		                   WHEN '''' THEN 1 + instr(substr(rest, 2) || '''', '''')
		                   WHEN char(96) THEN 1 + instr(substr(rest, 2) || char(96), char(96))
		                   ELSE 1 END), 'abcdefghijklmnopqrstuvwxyz0123456789_ .=<>|:+*%&!' || char(9, 10, 13)),
		              depth + CASE substr(rest, 1, 1) WHEN '(' THEN 1 WHEN ')' THEN -1 ELSE 0 END,
		              at + (depth = 0 AND substr(rest, 1, 1) = '(') + (depth = 1 AND substr(rest, 1, 1) IN (',', ')')),
		              CASE WHEN depth = 0 OR depth = 1 AND substr(rest, 1, 1) = ',' THEN substr(rest, 2) ELSE head END,
		              CASE WHEN depth = 1 AND substr(rest, 1, 1) IN (',', ')') THEN substr(head, 1, length(head) - length(rest)) END
		         FROM step WHERE rest <> '')
		SELECT tbl, at - 1, done FROM step WHERE done GLOB '*json*' OR instr(done, '->') OR done GLOB '*check*'
		    OR done NOTNULL AND (tbl, at - 1) IN (SELECT tbl, cid FROM temp.xtask_column WHERE generated);
		INSERT INTO temp.xtask_said
		WITH index_of(tbl, is_unique, text) AS (
		       SELECT tbl_name, sql LIKE 'create unique %', replace(replace(replace(lower(substr(sql, instr(sql, '('))),
		              char(9), ' '), char(10), ' '), char(13), ' ')
		         FROM main.sqlite_master WHERE type = 'index' AND sql IS NOT NULL)
		SELECT tbl, -1, substr(text, 1, instr(text || ' where ', ' where ')) FROM index_of WHERE is_unique
		UNION ALL SELECT tbl, -2, text FROM index_of WHERE text LIKE '%json%' OR text LIKE '%->%'
		UNION ALL SELECT tbl, -3, substr(text, instr(text, ' where ')) FROM index_of WHERE is_unique AND instr(text, ' where ');
		CREATE TEMP TABLE xtask_mention AS
		SELECT c.tbl, cid, at, text GLOB '*json*' OR instr(text, '->') AS json, text GLOB '*check*' AS checks
		  FROM temp.xtask_said AS s JOIN (
		       SELECT tbl, cid, lower(col) AS name, '*[^a-z0-9_]' || replace(replace(replace(lower(col), '[', '[[]'), '*', '[*]'),
		              '?', '[?]') || '[^a-z0-9_]*' AS pattern FROM temp.xtask_column) AS c
		    ON c.tbl = s.tbl AND instr(text, name) AND ' ' || text || ' ' GLOB pattern;
		-- Of which columns that are not generated themselves a generated one is made.
		CREATE TEMP TABLE xtask_source (tbl TEXT, cid INTEGER, of INTEGER, col TEXT, PRIMARY KEY (tbl, cid, of));
		INSERT INTO temp.xtask_source
		WITH RECURSIVE source(tbl, cid, of) AS (
		       SELECT m.tbl, m.at, m.cid FROM temp.xtask_mention AS m JOIN temp.xtask_column AS g ON g.tbl = m.tbl AND g.cid = m.at
		        WHERE g.generated AND m.cid <> m.at
		       UNION
		       SELECT s.tbl, s.cid, m.cid FROM source AS s JOIN temp.xtask_column AS g ON g.tbl = s.tbl AND g.cid = s.of
		         JOIN temp.xtask_mention AS m ON m.tbl = s.tbl AND m.at = s.of WHERE g.generated AND m.cid <> m.at)
		SELECT s.tbl, s.cid, of, col FROM source AS s JOIN temp.xtask_column AS c ON c.tbl = s.tbl AND c.cid = of WHERE NOT generated;
	SQL
}

# Facts that limit the values a rule can set, one letter each; read by
# xtask/src/sanitize/audit/mask.rs. A fact about a generated column holds for its sources too.
list_facts() {
	cat <<-SQL
		CREATE TEMP TABLE xtask_unique AS
		SELECT t.name AS tbl, x.cid FROM temp.xtask_table AS t, pragma_index_list(t.name) AS l, pragma_index_xinfo(l.name) AS x
		 WHERE l."unique" AND x."key" AND x.cid >= 0;
		CREATE TEMP TABLE xtask_no_rowid AS
		SELECT tbl FROM temp.xtask_column WHERE col = 'rowid' COLLATE NOCASE
		UNION SELECT t.name FROM temp.xtask_table AS t, pragma_index_list(t.name) AS l
		 WHERE l.origin = 'pk' AND NOT EXISTS (SELECT 1 FROM pragma_index_xinfo(l.name) AS x WHERE x.cid = -1);
		CREATE TEMP TABLE xtask_fact (tbl TEXT, cid INTEGER, facts TEXT, PRIMARY KEY (tbl, cid));
		INSERT INTO temp.xtask_fact
		SELECT tbl, cid, CASE WHEN generated THEN 'g' ELSE '' END
		       || CASE WHEN pk AND NOT EXISTS (SELECT 1 FROM pragma_index_list(tbl) WHERE origin = 'pk') THEN 'k' ELSE '' END
		       || CASE WHEN required OR (tbl, cid) IN (
		          SELECT s.tbl, s.of FROM temp.xtask_source AS s JOIN temp.xtask_column AS g ON g.tbl = s.tbl AND g.cid = s.cid
		           WHERE g.required) THEN 'n' ELSE '' END
		       || CASE WHEN (tbl, cid) IN (SELECT tbl, cid FROM temp.xtask_unique) THEN 'u'
		               WHEN (tbl, cid) IN (SELECT tbl, cid FROM temp.xtask_mention WHERE at IN (-1, -3)) OR (tbl, cid) IN (
		                 SELECT s.tbl, s.of FROM temp.xtask_source AS s JOIN temp.xtask_column AS g ON g.tbl = s.tbl AND g.cid = s.cid
		                  WHERE (s.tbl, s.cid) IN (SELECT tbl, cid FROM temp.xtask_unique)
		                     OR g.required AND (s.tbl, s.of) IN (SELECT tbl, cid FROM temp.xtask_mention WHERE json)) THEN 'x' ELSE '' END
		       || CASE WHEN tbl IN (SELECT tbl FROM temp.xtask_no_rowid) THEN 'w' ELSE '' END
		       || CASE WHEN refers OR (tbl, cid) IN (SELECT tbl, of FROM temp.xtask_source)
		                 OR (tbl, cid) IN (SELECT tbl, cid FROM temp.xtask_mention WHERE checks) THEN 'z' ELSE '' END
		       || CASE WHEN (tbl, cid) IN (SELECT tbl, cid FROM temp.xtask_mention WHERE json) THEN 'j' ELSE '' END
		       || CASE WHEN type GLOB '*int*' OR type GLOB '*real*' OR type GLOB '*floa*' OR type GLOB '*doub*'
		                 OR type GLOB '*dec*' OR type GLOB '*num*' THEN 'i' WHEN type GLOB '*blob*' THEN 'b' ELSE 't' END AS facts
		  FROM temp.xtask_column AS c;
	SQL
}

# A virtual table cannot be read if its module is missing. From here on errors do not stop the
# script; `list_unread` reports the columns that were not read. A full-text table without text has
# nothing to read: a rule may have emptied it.
list_virtual_columns() {
	cat <<-SQL
		.bail off
		CREATE TEMP TABLE xtask_virtual AS
		SELECT name, sql, EXISTS (SELECT 1 FROM temp.xtask_index AS i WHERE i.name = m.name) AS own FROM main.sqlite_master AS m
		 WHERE type = 'table' AND rootpage = 0 AND name NOT IN (SELECT name FROM temp.xtask_index WHERE NOT own);
		CREATE TEMP TABLE xtask_opened (name TEXT);
		.output audit.virtual.$worker
		SELECT 'INSERT INTO temp.xtask_opened SELECT ' || quote(name) || ' FROM pragma_table_xinfo(' || quote(name) || ') LIMIT 1;'
		       || CASE WHEN own THEN ' INSERT INTO temp.xtask_column SELECT ' || quote(name)
		       || ', name, cid, lower(type), 0, 0, 0, 0 FROM pragma_table_xinfo(' || quote(name) || ') WHERE hidden <> 1;'
		       || char(10) || 'INSERT INTO temp.xtask_opened SELECT ' || quote(name) || ' WHERE NOT EXISTS (SELECT 1 FROM main."'
		       || replace(name, '"', '""') || '_content");' ELSE '' END
		  FROM temp.xtask_virtual WHERE name NOT IN (SELECT name FROM temp.xtask_outreach);
		.output
		.read audit.virtual.$worker
	SQL
}

choose_columns() {
	cat <<-SQL
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
		SELECT tbl, col, cid, generated, NOT EXISTS (
		           SELECT 1 FROM temp.xtask_fine AS f WHERE lower(c.tbl) GLOB f.tbl AND lower(c.col) GLOB f.col) AS bare,
		       (SELECT max(w.kind) FROM temp.xtask_word AS w
		         WHERE instr(w.types, c.sort) AND t.words GLOB w.tbl
		           AND (w.beside IS NULL OR EXISTS (
		                SELECT 1 FROM temp.xtask_column AS b JOIN temp.xtask_name AS n ON n.name = b.col
		                 WHERE b.tbl = c.tbl AND n.words GLOB w.beside))
		           AND (c.words GLOB w.pattern AND NOT EXISTS (
		                   SELECT 1 FROM temp.xtask_none AS o WHERE c.words GLOB o.pattern AND w.kind GLOB o.kind AND t.words GLOB o.tbl
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
		-- A generated column is what all that it is made of has become.
		UPDATE temp.xtask_look SET bare = 0 WHERE (tbl, cid) IN (SELECT tbl, cid FROM temp.xtask_source) AND (tbl, cid) NOT IN (
		       SELECT s.tbl, s.cid FROM temp.xtask_source AS s JOIN temp.xtask_look AS l ON l.tbl = s.tbl AND l.cid = s.of WHERE l.bare);
		-- What the leak check has found in a survey.
		UPDATE temp.xtask_look SET bare = 1, kind = coalesce(kind, 'personal') FROM temp.xtask_leak
		 WHERE instr(said || ', and of ', ', which are still in ' || replace(tbl || '.' || col, char(10), ' ') || ', and of ');
	SQL
}

# read_columns: prints a line per finding: NUMBER, table, column, rows, kind, facts,
# sources, or after a = the column with the name of the setting. A virtual generated column may need
# a function of the app, so it has its own statement.
read_columns() {
	cat <<-SQL
		-- Columns with the value of a setting, and the column with its name.
		CREATE TEMP TABLE xtask_named AS
		SELECT tbl, cid, condition, $column_in_hex AS name FROM (
		       SELECT v.tbl, v.cid, s.condition, n.col, row_number() OVER (PARTITION BY v.tbl, v.cid ORDER BY s.rowid) AS nth
		         FROM temp.xtask_setting AS s JOIN temp.xtask_column AS v ON v.col = s.value COLLATE NOCASE
		         JOIN temp.xtask_column AS n ON n.tbl = v.tbl AND n.col = s.name COLLATE NOCASE)
		 WHERE nth = 1;
		CREATE TEMP TABLE xtask_part AS
		SELECT dense_rank() OVER (ORDER BY tbl, CASE generated WHEN 2 THEN -1 - cid ELSE cid / $MOST_COLUMNS END) AS part, tbl, cid, kind,
		       generated = 2 AS alone, CASE generated WHEN 2 THEN $column_in_hex END AS named, '"' || replace(col, '"', '""') || '"' AS col,
		       '''~ ' || $table_in_hex || ' ' || $column_in_hex || ' '' || ' AS begin,
		       ' ' || coalesce((SELECT facts FROM temp.xtask_fact AS f WHERE f.tbl = l.tbl AND f.cid = l.cid), 't') || ' ' AS facts,
		       coalesce((SELECT group_concat($column_in_hex) FROM temp.xtask_source AS s WHERE s.tbl = l.tbl AND s.cid = l.cid),
		       '=' || (SELECT name FROM temp.xtask_named AS n WHERE n.tbl = l.tbl AND n.cid = l.cid), '-') || ''' || char(10)' AS tail
		  FROM temp.xtask_look AS l WHERE bare;
		CREATE TEMP TABLE xtask_seen (part INTEGER, lines TEXT);
		.output audit.todo.$worker
		SELECT 'INSERT INTO temp.xtask_seen SELECT ' || part || ', ' || group_concat(line, ' || ')
		       || ' FROM main."' || replace(tbl, '"', '""') || '";'
		  FROM (SELECT part, tbl, begin || 'count(CASE WHEN ' || col || ' COLLATE BINARY NOT IN ('''', x'''') THEN 1 END) || '' '
		               || kind || facts || tail AS line FROM temp.xtask_part WHERE kind IS NOT NULL
		         UNION ALL
		        SELECT part, tbl, 'coalesce(' || begin || 'nullif(count(CASE WHEN (typeof(' || col || ') = ''text'' OR (typeof('
		               || col || ') = ''blob'' AND length(' || col || ') < $LONGEST_KEY)) AND ('
		               || group_concat('CAST(' || col || ' AS TEXT) GLOB ' || quote('*' || pattern || '*') || CASE WHEN unless IS NULL THEN '' ELSE ' AND '
		                  || replace(replace(replace(replace('$EXCEPT', '@BEGINS', quote(begins)), '@PATTERN', quote(pattern)),
		                     '@UNLESS', quote(unless)), '@COL', col) END, ' OR ')
		               || ') THEN 1 END), 0) || '' ' || v.kind || facts || tail || ', '''')'
		          FROM temp.xtask_part AS p, temp.xtask_value AS v GROUP BY part, col, v.kind
		         UNION ALL
		        SELECT part, tbl, 'coalesce(' || begin || 'nullif(count(' || behind || '), 0) || '' '' || max(' || behind || ') || ''' || facts || tail
		               || ', '''')'
		          FROM (SELECT *, replace('$BEHIND_ZERO', '@COL', '"' || replace(tbl, '"', '""') || '".' || col) AS behind FROM temp.xtask_part)
		         WHERE EXISTS (SELECT 1 FROM temp.xtask_value)
		         UNION ALL
		        SELECT part, p.tbl, 'coalesce(' || begin || 'nullif(count(CASE WHEN ' || condition || ' THEN 1 END), 0) || '' setting'
		               || facts || tail || ', '''')'
		          FROM temp.xtask_part AS p JOIN temp.xtask_named AS n ON n.tbl = p.tbl AND n.cid = p.cid WHERE kind IS NULL)
		 GROUP BY part, tbl;
		-- Whole values tell what a column is for: its first rows are enough.
		SELECT 'INSERT INTO temp.xtask_seen SELECT ' || -part || ', ' || group_concat(line, ' || ') || ' FROM (SELECT '
		       || group_concat(DISTINCT col) || ' FROM main."' || replace(tbl, '"', '""') || '" LIMIT $MOST_ROWS);'
		  FROM (SELECT part, tbl, col, 'coalesce(' || begin || 'nullif(count(CASE WHEN typeof(' || col || ') = ''text'' AND length(' || col
		               || ') < 255 AND ' || group_concat(col || CASE must WHEN 1 THEN '' ELSE ' NOT' END || ' GLOB ' || quote(pattern), ' AND ')
		               || ' THEN 1 END), 0) || '' ' || w.kind || facts || tail || ', '''')' AS line
		          FROM temp.xtask_part AS p, temp.xtask_whole AS w WHERE p.kind IS NULL GROUP BY part, col, w.kind)
		 GROUP BY part, tbl;
		.output
		.read audit.todo.$worker
		SELECT substr(lines, 1, length(lines) - 1) FROM temp.xtask_seen WHERE lines <> '';
	SQL
}

# list_unread: the columns that could not be read, with a code for the reason.
list_unread() {
	cat <<-SQL
		CREATE TEMP TABLE xtask_unread AS
		SELECT DISTINCT tbl AS name, CASE WHEN alone THEN named ELSE '2a' END AS named,
		       CASE WHEN EXISTS (SELECT 1 FROM temp.xtask_outreach) THEN 'outreach' WHEN alone THEN 'generated' ELSE 'error' END AS why
		  FROM temp.xtask_part WHERE part NOT IN (SELECT part FROM temp.xtask_seen)
		   AND (kind IS NOT NULL OR EXISTS (SELECT 1 FROM temp.xtask_value))
		    OR kind IS NULL AND -part NOT IN (SELECT part FROM temp.xtask_seen);
		CREATE TEMP TABLE xtask_module (name TEXT);
		INSERT INTO temp.xtask_module SELECT lower(name) FROM pragma_module_list;
		INSERT INTO temp.xtask_unread
		SELECT name, '2a', CASE WHEN name IN (SELECT name FROM temp.xtask_outreach) THEN 'outreach'
		       WHEN EXISTS (SELECT 1 FROM temp.xtask_module AS m WHERE lower(v.sql) GLOB '* using *' || m.name || '*') THEN 'error'
		       ELSE 'module' END
		  FROM temp.xtask_virtual AS v WHERE name NOT IN (SELECT name FROM temp.xtask_opened) AND NOT EXISTS (
		       SELECT 1 FROM temp.xtask_fine AS f WHERE lower(v.name) GLOB f.tbl AND f.col = '*');
		SELECT '~ ' || $name_in_hex || ' ' || named || ' 0 unread ' || why || ' -' FROM temp.xtask_unread;
		SELECT '~ - - 0 end - -' WHERE (SELECT count(*) FROM temp.xtask_look) = (SELECT count(*) FROM temp.xtask_column);
	SQL
}

# reuse_findings COUNT: adds the findings of the bases of unchanged databases, which are numbered
# from COUNT on. The client sends them as BASE TABLE COLUMN ROWS KIND FACTS SOURCES.
reuse_findings() {
	local one n=$1
	echo 'CREATE TABLE same (base INTEGER, db INTEGER);'
	for one in $same; do
		echo "INSERT INTO same VALUES (${one%%:*}, $n);"
		n=$((n + 1))
	done
	cat <<-SQL
		CREATE TABLE old (base INTEGER, tbl TEXT, col TEXT, rows INTEGER, kind TEXT, facts TEXT, sources TEXT);
		.import base.found old
		INSERT INTO found SELECT db, tbl, col, rows, kind, facts, sources FROM same JOIN old USING (base);
		INSERT INTO found SELECT db, '-', '-', 0, 'end', '-', '-' FROM same;
	SQL
}

# keep_findings COUNT: writes the findings of each copy to found.json, for the client to keep.
keep_findings() {
	cat <<-SQL
		.output found.json
		SELECT CASE WHEN sum(length(lines)) < $MOST_KEPT THEN '[' || group_concat('"' || lines || '"') || ']' ELSE 'null' END FROM (
		       SELECT coalesce(group_concat(tbl || ' ' || col || ' ' || rows || ' ' || kind || ' ' || facts || ' ' || sources, ';'), '') AS lines
		         FROM database AS d LEFT JOIN found AS f ON f.db = d.db AND kind <> 'end' WHERE d.db < $1 GROUP BY d.db ORDER BY d.db);
		.output
	SQL
}

# add_up_findings COUNT NAME…: merges the findings of all databases, of which COUNT are copies:
# number of databases, first database, table, column, rows, kind, facts, sources. Of several kinds,
# the kind of the values wins. A database whose audit did not end is a finding too, unless allowed.
add_up_findings() {
	local n database quoted count=$1
	shift
	printf '%s\n' "$base_found" >base.found
	{
		printf '%s\n' "$audit" 'CREATE TABLE database (db INTEGER PRIMARY KEY, name TEXT);'
		n=0
		for database do
			literal "$database"
			printf 'INSERT INTO database VALUES (%d, %s);\n' "$n" "$quoted"
			n=$((n + 1))
		done
		cat <<-SQL
			CREATE TABLE found (db INTEGER, tbl TEXT, col TEXT, rows INTEGER, kind TEXT, facts TEXT, sources TEXT);
			.separator ' '
			.import audit.found found
		SQL
		reuse_findings "$count"
		cat <<-SQL
			INSERT INTO found SELECT db, '2a', '2a', 0, 'unread', 'end', '-' FROM database AS d
			 WHERE db NOT IN (SELECT db FROM found WHERE kind = 'end') AND NOT EXISTS (
			       SELECT 1 FROM temp.xtask_fine WHERE lower(d.name) GLOB tbl AND tbl GLOB '*.*' AND col = '*');
		SQL
		keep_findings "$count"
		cat <<-SQL
			SELECT databases, first, tbl, col, rows, kind, facts, sources FROM (
			       SELECT *, row_number() OVER (PARTITION BY tbl, col, why ORDER BY kind IN ('secret', 'personal'), kind = 'setting', kind IN ('email', 'phone', 'ip', 'iban'), rows DESC, kind) AS nth
			         FROM (SELECT count(DISTINCT db) AS databases, min(db) AS first, tbl, col, sum(rows) AS rows, kind, max(sources) AS sources,
			                      CASE kind WHEN 'unread' THEN facts || CASE facts WHEN 'end' THEN db ELSE '' END END AS why,
			                      CASE kind WHEN 'unread' THEN max(facts) ELSE replace(group_concat(DISTINCT facts), ',', '') END AS facts
			                 FROM (SELECT db, tbl, col, max(rows) AS rows, kind, facts, sources FROM found
			                        WHERE kind <> 'end' GROUP BY db, tbl, col, kind, facts, sources)
			                GROUP BY tbl, col, kind, why))
			 WHERE nth = 1 ORDER BY kind <> 'unread', rows = 0, kind = 'personal', tbl, col, first;
		SQL
	} | sql :memory: 2>audit.err
}

# choose_forms NUMBER: sets `forms` to the kinds of values to search for, each followed by a
# blank. On a large copy GNU grep excludes kinds in a tenth of SQLite's time; it can miss a value
# that crosses a page boundary. Few copies have a secret, but many have personal data in JSON.
choose_forms() {
	local size page mode reserved encoding kind form secrets
	forms=$every_form
	read_facts "$1"
	if [ "$gnu_grep" -eq 0 ] || [ "$size" -lt "$SMALL" ] || [ "$encoding" -gt 1 ]; then return 0; fi
	forms=''
	secrets=0
	if has_form "$1" "$any_secret"; then secrets=1; fi
	while read -r kind form; do
		[ "$secrets" -eq 1 ] || [ "$kind" = json-personal ] || continue
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
	local forms
	choose_forms "$1"
	audit_script "$1" "$2" >"audit.sql.$worker"
	sqlite3 -batch -init /dev/null "$1.db" <"audit.sql.$worker" >>"audit.found.$worker" 2>/dev/null &
	jobs=$!
	await_jobs || :
}

# print_finding DATABASES REST NUMBER NAME…: for the client. NUMBER is that of the first one.
print_finding() {
	local databases=$1 rest=$2
	shift $(($3 + 3))
	printf '\nXTASK-DB-AUDIT 1 %s %d %s %s\n' "$nonce" "$databases" "$(hex "$1")" "$rest"
}

audit_all() {
	local audit_sql='' outreach table_in_hex column_in_hex name_in_hex every_form any_secret kind form large findings databases first rest
	outreach=$(find_outreach) || fail no-space "the audit failed (is $stage full?)"
	table_in_hex=$(in_hex tbl) column_in_hex=$(in_hex col) name_in_hex=$(in_hex name)
	printf "%s\nSELECT kind || ' ' || group_concat(form, '|') FROM temp.xtask_value GROUP BY kind;" "$audit" |
		sql :memory: >audit.forms
	every_form=$(while read -r kind _; do printf '%s ' "$kind"; done <audit.forms)
	any_secret=$(while read -r kind form; do [ "$kind" = json-personal ] || printf '%s|' "$form"; done <audit.forms)
	any_secret=${any_secret%|}
	large=$((total + 1)) # A larger limit than any size: each copy uses one core.
	: >audit.found.none
	on_all_cores audit "$@"
	cat audit.found.* >audit.found || fail no-space "the audit failed (is $stage full?)"
	with_lines "$same_names" add_up_findings $# "$@" >audit.lines || fail no-space "the audit failed (is $stage full?)"
	findings=0
	while read -r databases first rest; do
		require_number "$first" sqlite3 'the findings of the audit'
		findings=$((findings + 1))
		[ "$findings" -le "$MOST_FINDINGS" ] || continue
		with_lines "$same_names" print_finding "$databases" "$rest" "$first" "$@"
	done <audit.lines
	[ "$findings" -le "$MOST_FINDINGS" ] ||
		printf '\nXTASK-DB-AUDIT-MORE 1 %s %d\n' "$nonce" $((findings - MOST_FINDINGS))
	[ "$findings" -eq 0 ] || [ "$audit_level" != fail ] || [ -n "$survey" ] ||
		fail audit "the audit found columns that no rule covers: $findings"
	rm -f audit.*
}
