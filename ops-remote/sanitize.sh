#!/bin/sh
# shellcheck shell=dash
# Sanitizing: prepare-pull.sh is sent after this file and calls it if there are rules.
#
# Uses `sql`, `is_number`, `require_number`, `on_all_cores`, `await_jobs`, `fail`, `fail_sql` and
# `fits_either` of other files; `hex` of pack.sh; `read_facts` and `mark_mode` of facts.sh; `prepare_to_fill` and `scrub` of scrub.sh; `quote_lines`,
# `collect_old`, `write_old` and `look` of leak-check.sh. The copies are ./0.db, ./1.db, …
# shellcheck disable=SC2154,SC2034 # rules, only, partial and jobs are set in other files

# Triggers are off: one could copy a value that a rule is about to remove.
prelude() {
	printf '%s\n' '.bail on' '.dbconfig defensive off' '.dbconfig enable_trigger off' \
		'PRAGMA secure_delete = ON;' 'PRAGMA synchronous = OFF;'
	# A small copy changes in memory, without files beside it.
	[ "$size" -gt "$CHUNK" ] || printf '%s\n' 'PRAGMA journal_mode = MEMORY;' 'PRAGMA temp_store = MEMORY;'
}

# sanitizer NUMBER: runs NUMBER.sql on the copy; sqlite3's messages are in NUMBER.err.
sanitizer() {
	sqlite3 -batch -bail -init /dev/null "$1.db" <"$1.sql" >/dev/null 2>"$1.err" &
	jobs=$!
	await_jobs
}

# sanitize_script NUMBER NAME. The client's SQL fills temp.xtask_rule and temp.xtask_set. A
# truncated script must not run: each step verifies that it was written completely.
sanitize_script() {
	local chosen number
	choose_for "$2" && prelude &&
		printf '%s\n' "$rules" 'CREATE TEMP TABLE xtask_each (has_pattern CONSTRAINT "a pattern for each rule" CHECK (has_pattern));' \
			"INSERT INTO temp.xtask_each SELECT count(*) = $number FROM temp.xtask_rule;" \
			"DELETE FROM temp.xtask_rule WHERE rule NOT IN ($chosen);" && fill_in "$1" "$sanitize_sql"
}

# choose_for NAME: sets `chosen` to the numbers of the rules that are for this database, as a list in
# SQL, and `number` to how many rules there are. The client has sent the pattern of each.
choose_for() {
	local left=$rule_patterns
	chosen=-1 number=0
	while [ -n "$left" ]; do
		if fits_either "$1" "${left%%"$newline"*}"; then chosen=$chosen,$number; fi
		left=${left#*"$newline"} number=$((number + 1))
	done
}

# The part that is the same for all copies, made once: ~ stands for the copy's number. The database
# itself tells which rules it needs; sqlite3 writes the resulting script and reads it.
sanitize_template() {
	make_tables && refuse_outreach && choose_rules && describe_rules && collect_old && order_statements && run_todo rules && find_changed &&
		rebuild_words && end_transaction && run_todo words && write_counts && write_effects && write_old
}

# fill_in NUMBER TEMPLATE: prints the template with the number in place of each ~.
fill_in() {
	local number=$1 text piece
	set -f
	IFS='~'
	# shellcheck disable=SC2086 # pieces
	set -- $2
	unset IFS
	set +f
	text=$1
	shift
	for piece do text=$text$number$piece; done
	printf '%s\n' "$text"
}

make_tables() {
	cat <<-SQL
		CREATE TEMP TABLE xtask_schema AS SELECT schema_version AS version FROM pragma_schema_version;
		CREATE TEMP TABLE xtask_changed (tbl TEXT COLLATE NOCASE);
		CREATE TEMP VIEW xtask_scrub AS
		SELECT 1 FROM temp.xtask_changed UNION ALL SELECT 1 FROM temp.xtask_rule WHERE scrub;
		CREATE TEMP TABLE xtask_count (rule INTEGER, rows INTEGER);
		CREATE TEMP TABLE xtask_todo (sql TEXT);
		CREATE TEMP TABLE xtask_sure (written CONSTRAINT "disk is full" CHECK (written));
	SQL
}

# A schema can call functions that only the sqlite3 program has: edit() in a CHECK runs a command
# when a rule changes a row, even if the schema is not trusted. A call is the name and a bracket or
# comment, unless the name is a table's (but not after a comment); modules need no bracket.
find_outreach() {
	cat <<-SQL
		CREATE TEMP TABLE xtask_outreach AS
		WITH RECURSIVE own(word) AS (VALUES ('edit'), ('readfile'), ('writefile'), ('load_extension'), ('fsdir'),
		       ('zipfile'), ('zipfile_cds'), ('sqlar_uncompress'), ('sha3_query'), ('fts3_tokenizer'), ('usleep')),
		  said(name, is_table, sql) AS (SELECT name, type = 'table', ' ' || lower(replace(replace(replace(replace(replace(sql,
		       char(9), ' '), char(10), ' '), char(12), ' '), char(13), ' '), char(65279), ' ')) || ' ' FROM main.sqlite_master WHERE sql IS NOT NULL),
		  found(name, is_table, word, before, after) AS (
		       SELECT name, is_table, word, substr(sql, 1, instr(sql, word) - 1), substr(sql, instr(sql, word) + length(word))
		         FROM said, own WHERE instr(sql, word)
		       UNION ALL SELECT name, is_table, word, before || word || substr(after, 1, instr(after, word) - 1),
		              substr(after, instr(after, word) + length(word)) FROM found WHERE instr(after, word)),
		  word(name, is_table, word, before, after) AS (
		       SELECT name, is_table, word, rtrim(before, ' "[' || char(39, 96)) || ' ', ltrim(after, ' "]' || char(39, 96)) FROM found
		        WHERE substr(before, -1) NOT GLOB '[a-z0-9_\$]' AND substr(after, 1, 1) NOT GLOB '[a-z0-9_\$]')
		SELECT DISTINCT name, word FROM word
		 WHERE ((after GLOB '(*' OR after GLOB '/[*]*' OR after GLOB '--*')
		        AND NOT (before NOT GLOB '*--*' AND before NOT GLOB '*/[*]*' AND (before GLOB '*[^a-z]table ' OR before GLOB '* if not exists ' OR before GLOB '*[^a-z]references '
		              OR before GLOB '*[^a-z]into ' OR (before GLOB ' create index * on ' OR before GLOB ' create unique index * on ') AND before NOT GLOB '*(*')))
		    OR (word IN ('fsdir', 'zipfile') AND CASE is_table WHEN 1 THEN before GLOB '*[^a-z]using '
		              ELSE before GLOB '*[^a-z]from ' OR before GLOB '*[^a-z]join ' OR before GLOB '* from *, ' END);
	SQL
}

refuse_outreach() {
	find_outreach && cat <<-SQL
		.output ~.outreach
		SELECT replace(replace(name, char(10), ' '), char(13), ' ') || ' calls ' || word FROM temp.xtask_outreach LIMIT 1;
		.output
		CREATE TEMP TABLE xtask_within (it CONSTRAINT "outreach" CHECK (it));
		INSERT INTO temp.xtask_within SELECT NOT EXISTS (SELECT 1 FROM temp.xtask_outreach);
	SQL
}

# Keeps the rules for this database, and of each rule the columns that the database has. The copy's
# `.applied` and `.columns` list the numbers of the kept rules and columns. The newline ends a
# comment in the user's SQL.
choose_rules() {
	cat <<-SQL
		DELETE FROM temp.xtask_rule WHERE tbl IS NOT NULL AND NOT EXISTS (
		       SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = tbl COLLATE NOCASE);
	SQL
	find_indexes && find_closed && cat <<-SQL
		DELETE FROM temp.xtask_set WHERE NOT EXISTS (
		       SELECT 1 FROM temp.xtask_rule AS r, pragma_table_xinfo(r.tbl, 'main') AS c
		        WHERE r.rule = xtask_set.rule AND (deletes OR c.name = xtask_set.col COLLATE NOCASE));
		UPDATE temp.xtask_rule SET sql = (
		       SELECT group_concat(CASE WHEN c.name NOTNULL THEN 'DELETE FROM main."' || replace(c.kept, '"', '""') || '"'
		                WHEN i.fts5 AND i.content NOTNULL
		                THEN 'INSERT INTO main.' || i.quoted || '(' || i.quoted || ') VALUES (''delete-all'')'
		                ELSE 'DELETE FROM main."' || replace(t.name, '"', '""') || '"' END, ';' || char(10))
		         FROM (SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT GLOB 'sqlite_*') AS t
		              LEFT JOIN temp.xtask_index AS i ON i.name = t.name
		              LEFT JOIN temp.xtask_closed AS c ON c.name = t.name
		        WHERE lower(t.name) GLOB lower(omits)
		          -- The tables in which a virtual table keeps its rows change with it.
		          AND t.name NOT IN (SELECT name FROM temp.xtask_shadow) AND NOT EXISTS (
		              SELECT 1 FROM temp.xtask_declared AS o WHERE (head GLOB '*rtree' OR head GLOB '*rtree_i32' OR head GLOB '*geopoly')
		                 AND t.name IN (o.name || '_node', o.name || '_rowid', o.name || '_parent')))
		 WHERE omits IS NOT NULL;
		.output ~.applied
		SELECT rule FROM temp.xtask_rule;
		.output ~.columns
		SELECT rowid FROM temp.xtask_set;
		.output
		CREATE TEMP TABLE xtask_statement AS
		SELECT rule, CASE WHEN condition IS NULL THEN
		       -- The first count is a change itself.
		       'INSERT INTO temp.xtask_count VALUES (' || rule || ', -total_changes());' || char(10) || sql || char(10)
		       || '; UPDATE temp.xtask_count SET rows = rows + total_changes() - 1 WHERE rule = ' || rule || ';'
		       ELSE CASE WHEN deletes THEN 'DELETE FROM ' || quoted ELSE 'UPDATE ' || quoted || ' SET ' || columns END
		       || condition || char(10) || '; INSERT INTO temp.xtask_count VALUES (' || rule || ', changes());' END AS sql
		  FROM (SELECT rule, sql, condition, deletes, 'main."' || replace(tbl, '"', '""') || '"' AS quoted,
		               (SELECT group_concat('"' || replace(col, '"', '""') || '" = ' || value || char(10), ', ')
		                  FROM temp.xtask_set AS s WHERE s.rule = r.rule) AS columns
		          FROM temp.xtask_rule AS r)
		 WHERE sql IS NOT NULL OR (condition IS NOT NULL AND (deletes OR columns IS NOT NULL));
	SQL
}

# Reads the declarations of virtual tables: temp.xtask_declared has what is before the brackets, without
# comments, and what is between them as arguments. A module decides which of these are options.
read_declarations() {
	local cut
	cut='coalesce(length(opens) + instr(substr(rest, length(opens) + 1) || closes, closes) + length(closes) - 1, 1)'
	cat <<-SQL
		CREATE TEMP TABLE xtask_argument AS
		WITH RECURSIVE quote(opens, closes) AS (VALUES ('--', char(10)), ('/*', '*/'), ('''', ''''), ('"', '"'), ('[', ']'), (char(96), char(96))),
		  token(name, depth, said, text, rest) AS (
		       SELECT name, 0, '', '', sql || char(10) || ')' FROM main.sqlite_master WHERE type = 'table' AND rootpage = 0
		       UNION ALL
		       SELECT name, depth + (text = '(') - (text = ')'),
		              CASE WHEN depth < 1 + (text <> '(') AND text IN ('(', ',', ')') THEN ''
		                   WHEN text GLOB '--*' OR text GLOB '/[*]*' THEN said || ' ' ELSE said || text END,
		              substr(rest, 1, $cut), substr(rest, $cut + 1)
		         FROM token LEFT JOIN quote ON substr(rest, 1, length(opens)) = opens WHERE rest <> '')
		SELECT name, depth, trim(said, ' ' || char(9, 10, 12, 13)) AS said FROM token
		 WHERE depth < 1 + (text <> '(') AND text IN ('(', ',', ')');
		CREATE TEMP TABLE xtask_declared AS
		SELECT name, lower(rtrim(said, '"]''' || char(96))) AS head FROM temp.xtask_argument WHERE depth = 0 AND said <> '';
	SQL
}

# Lists the full-text indexes in temp.xtask_index, and their tables in temp.xtask_shadow. `content` is the
# table whose text is indexed, empty without one, and NULL if the index keeps its text (`own`). FTS5
# takes `c = …` for `content = …`, FTS4 the last of several, FTS3 none. Of another module, which a
# server may lack, the tables tell what it is.
find_indexes() {
	read_declarations && cat <<-SQL
		CREATE TEMP TABLE xtask_index AS
		SELECT *, fts5 AND content = '' AND EXISTS (SELECT 1 FROM main.sqlite_master AS s WHERE s.name = i.name || '_content'
		                 AND s.sql GLOB '*(id INTEGER PRIMARY KEY, c[0-9]*')
		       OR content IS NULL AND EXISTS (SELECT 1 FROM main.sqlite_master AS s WHERE s.type = 'table' AND s.name = i.name || '_content') AS own
		  FROM (SELECT d.name, '"' || replace(d.name, '"', '""') || '"' AS quoted, s.name = d.name || '_idx' AS fts5, (
		               SELECT CASE WHEN substr(value, 1, 1) IN ('''', '"', '[', char(96))
		                      THEN replace(substr(value, 2, length(value) - 2), substr(value, -1) || substr(value, -1), substr(value, -1)) ELSE value END
		                 FROM (SELECT rowid AS id, rtrim(substr(said, 1, instr(said, '=') - 1), ' ' || char(9, 10, 12, 13)) AS option,
		                              ltrim(substr(said, instr(said, '=') + 1), ' ' || char(9, 10, 12, 13)) AS value
		                         FROM temp.xtask_argument AS a WHERE a.name = d.name AND depth = 1 AND instr(said, '=') > 1)
		                WHERE substr('content', 1, length(option)) = lower(option) AND head NOT GLOB '*[^a-z0-9_]fts3'
		                ORDER BY id DESC LIMIT 1) AS content
		          FROM temp.xtask_declared AS d JOIN main.sqlite_master AS s ON s.type = 'table' AND CASE
		               WHEN head GLOB '*[^a-z0-9_]fts5' THEN s.name = d.name || '_idx'
		               WHEN head GLOB '*[^a-z0-9_]fts[34]' THEN s.name = d.name || '_segdir'
		               ELSE s.name = d.name || '_idx' AND s.sql LIKE '%(segid, term, pgno,%'
		                 OR s.name = d.name || '_segdir' AND s.sql LIKE '%(level integer,%' END) AS i;
		CREATE TEMP TABLE xtask_shadow AS
		SELECT i.name || '_' || column2 AS name, i.name AS of FROM temp.xtask_index AS i, (VALUES (1, 'data'), (1, 'idx'), (1, 'docsize'),
		       (1, 'config'), (0, 'segments'), (0, 'segdir'), (0, 'docsize'), (0, 'stat')) WHERE fts5 = column1
		UNION ALL SELECT name || '_content', name FROM temp.xtask_index WHERE own;
	SQL
}

# Finds the full-text indexes that this sqlite3 cannot open, as it lacks their module or tokenizer:
# `.parameter set` takes SQL that is an error as a text, or not at all. New versions need the tokenizer
# only for a search. A rule for such an index removes all of its text or, if it has none, its words.
# The view is for names that a dot-command cannot quote.
find_closed() {
	cat <<-SQL
		INSERT INTO temp.xtask_todo
		SELECT 'CREATE TEMP VIEW xtask_search AS SELECT 1 FROM main.' || quoted || ' WHERE ' || quoted || ' MATCH char(34, 34);' || char(10)
		       || '.parameter set @' || rowid || ' ''EXISTS (SELECT 1 FROM temp.xtask_search)''' || char(10) || 'DROP VIEW temp.xtask_search;'
		  FROM temp.xtask_index WHERE EXISTS (SELECT 1 FROM temp.xtask_rule);
		.parameter init
	SQL
	run_todo index && cat <<-SQL
		CREATE TEMP TABLE xtask_closed AS
		SELECT *, name || CASE WHEN own THEN '_content' WHEN fts5 THEN '_idx' ELSE '_segdir' END AS kept,
		       own AND name COLLATE NOCASE IN (SELECT tbl FROM temp.xtask_rule) AS loses_text
		  FROM temp.xtask_index AS i WHERE EXISTS (SELECT 1 FROM temp.xtask_rule)
		   AND (SELECT typeof(value) FROM temp.sqlite_parameters WHERE key = '@' || i.rowid) IS NOT 'integer';
		.parameter clear
		UPDATE temp.xtask_rule SET tbl = kept, look = look AND deletes AND own, deletes = 1, condition = ''
		  FROM temp.xtask_closed AS c WHERE c.name = tbl COLLATE NOCASE;
	SQL
}

# For each rule: note that it runs, describe it, collect the values that it removes, run it.
order_statements() {
	cat <<-SQL
		BEGIN;
		INSERT INTO temp.xtask_todo SELECT sql FROM (
		       SELECT rule, 0 AS step, '.output ~.rule.' || (rule + 1) || char(10) || '.output' AS sql FROM temp.xtask_statement
		       UNION ALL SELECT rule, 1, sql FROM temp.xtask_describe
		       UNION ALL SELECT rule, 2, sql FROM temp.xtask_collect
		       UNION ALL SELECT rule, 3, sql FROM temp.xtask_statement) ORDER BY rule, step;
	SQL
}

# run_todo NAME: runs what is to be done. sqlite3 does not report that the disk was full when it wrote
# a line, and a missing line would leave a secret in place. It writes UTF-8, also for a database in
# UTF-16. No file is written twice: ext4 then waits for the disk.
run_todo() {
	cat <<-SQL
		.output ~.$1.todo
		SELECT sql FROM temp.xtask_todo ORDER BY rowid;
		.output
		INSERT INTO temp.xtask_sure SELECT length(readfile('~.$1.todo')) IS (
		SELECT coalesce(sum(1 + CASE encoding WHEN 'UTF-8' THEN length(CAST(sql AS BLOB)) ELSE (
		       WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < length(sql))
		       SELECT sum(1 + (unicode(substr(sql, i, 1)) > 127) + (unicode(substr(sql, i, 1)) > 2047)
		                    + (unicode(substr(sql, i, 1)) > 65535)) FROM c) END), 0)
		  FROM temp.xtask_todo, pragma_encoding);
		DELETE FROM temp.xtask_todo;
		.read ~.$1.todo
	SQL
}

# Finds the tables that changed; after SQL of the user or a change of the schema, every table may
# have changed.
find_changed() {
	cat <<-SQL
		INSERT INTO temp.xtask_changed
		SELECT CASE WHEN condition IS NULL THEN NULL ELSE tbl END
		  FROM temp.xtask_rule JOIN temp.xtask_count USING (rule) WHERE rows <> 0;
		INSERT INTO temp.xtask_changed
		SELECT NULL FROM temp.xtask_schema, pragma_schema_version WHERE schema_version <> version;
	SQL
}

# Rebuilds full-text indexes, unless what they index is known to be unchanged: their own text, or a
# table; a view and all else may have changed. Contentless ones are emptied; FTS4 has no command for
# that. With `scrub`, `optimize` removes the words of deleted rows from the others. Those that cannot
# be opened become like new ones; NUMBER.emptied lists them. An empty FTS5 index has two rows, one of
# which differs with `contentless_delete`. sqlite_stat4 has samples of rows.
rebuild_words() {
	cat <<-SQL
		INSERT INTO temp.xtask_changed
		SELECT s.name FROM temp.xtask_changed AS c JOIN temp.xtask_shadow AS s ON c.tbl = s.of
		UNION ALL SELECT s.of FROM temp.xtask_changed AS c JOIN temp.xtask_shadow AS s ON c.tbl = s.name;
		CREATE TEMP TABLE xtask_words AS
		SELECT *, content IS '' AS contentless, EXISTS (SELECT 1 FROM temp.xtask_changed) AND (
		       EXISTS (SELECT 1 FROM temp.xtask_changed AS c WHERE c.tbl IS NULL OR c.tbl = i.name)
		    OR content IS '' OR NOT own AND NOT EXISTS (
		       SELECT 1 FROM main.sqlite_master AS t WHERE t.type = 'table' AND t.rootpage AND t.name = i.content COLLATE NOCASE
		          AND t.name COLLATE NOCASE NOT IN (SELECT tbl FROM temp.xtask_changed WHERE tbl NOTNULL))) AS stale
		  FROM temp.xtask_index AS i;
		CREATE TEMP TABLE xtask_emptied AS
		SELECT name, fts5, contentless FROM temp.xtask_words
		 WHERE CASE WHEN name IN (SELECT name FROM temp.xtask_closed) THEN stale OR EXISTS (SELECT 1 FROM temp.xtask_rule WHERE scrub)
		       ELSE stale AND contentless AND NOT fts5 END;
		.output ~.emptied
		SELECT CASE WHEN loses_text THEN 'text ' ELSE 'words ' END || trim(replace(replace(replace(name, char(9), ' '), char(10), ' '), char(13), ' '))
		  FROM temp.xtask_emptied JOIN temp.xtask_closed USING (name)
		 WHERE NOT contentless AND NOT EXISTS (SELECT 1 FROM temp.xtask_rule WHERE lower(name) GLOB lower(omits));
		.output
		INSERT INTO temp.xtask_todo
		SELECT 'INSERT INTO main.' || quoted || '(' || quoted || ') VALUES ('''
		       || CASE WHEN NOT stale THEN 'optimize' WHEN contentless THEN 'delete-all' ELSE 'rebuild' END || ''');'
		  FROM temp.xtask_words
		 WHERE name NOT IN (SELECT name FROM temp.xtask_closed UNION ALL SELECT name FROM temp.xtask_emptied)
		   AND (stale OR EXISTS (SELECT 1 FROM temp.xtask_rule WHERE scrub))
		UNION ALL
		SELECT 'DELETE FROM main."' || replace(s.name, '"', '""') || '"' || CASE column2 WHEN 'data' THEN ' WHERE id NOT IN (1, 10);' ELSE ';' END
		  FROM temp.xtask_emptied AS f, main.sqlite_master AS s, (VALUES (0, 'segments'), (0, 'segdir'), (0, 'stat'), (0, 'docsize'),
		       (1, 'data'), (1, 'idx'), (1, 'docsize'))
		 WHERE s.type = 'table' AND s.name = f.name || '_' || column2 AND fts5 = column1
		UNION ALL
		SELECT 'UPDATE main."' || replace(name, '"', '""') || '_data" SET block = CASE WHEN id = 1 THEN x'''' WHEN substr(block, 5, 4) = x''ff000001'''
		       || ' THEN x''00000000ff000001000000'' ELSE x''00000000000000'' END;'
		  FROM temp.xtask_emptied WHERE fts5
		UNION ALL
		SELECT 'DELETE FROM main."' || replace(kept, '"', '""') || '";' FROM temp.xtask_emptied JOIN temp.xtask_closed USING (name)
		 WHERE contentless AND own
		UNION ALL
		SELECT 'DELETE FROM main.' || name || ';' FROM main.sqlite_master
		 WHERE name = 'sqlite_stat4' AND EXISTS (SELECT 1 FROM temp.xtask_scrub);
	SQL
}

# A transaction that changed nothing is rolled back, so that the file keeps its bytes.
end_transaction() {
	cat <<-SQL
		INSERT INTO temp.xtask_todo
		SELECT CASE WHEN EXISTS (SELECT 1 FROM temp.xtask_scrub) THEN 'COMMIT;' ELSE 'ROLLBACK;' END;
	SQL
}

write_counts() {
	cat <<-SQL
		.output ~.rows
		SELECT coalesce(sum(rows), 0) FROM temp.xtask_count WHERE rule NOT IN (
		       SELECT rule FROM temp.xtask_rule WHERE omits IS NOT NULL);
		SELECT page_count * page_size FROM pragma_page_count, pragma_page_size;
		SELECT freelist_count FROM pragma_freelist_count;
		.output ~.scrub
		SELECT 1 FROM temp.xtask_scrub LIMIT 1;
		.output
		INSERT INTO temp.xtask_sure SELECT coalesce(length(readfile('~.scrub')), 0) = 2 * EXISTS (SELECT 1 FROM temp.xtask_scrub);
	SQL
}

# complaint NUMBER: sqlite3's message about the rules, without the line number in NUMBER.sql, which
# the user does not have. A message at run time may quote data (a JSON path, a searched word, a
# file name): it passes only if it contains nothing but names, numbers and text of the rules.
complaint() {
	local begun number=0 said
	# A rule has a file from its beginning on, and what follows them too.
	for begun in "$1".rule.*; do
		begun=${begun##*.}
		if is_number "$begun" && [ "$begun" -gt "$number" ]; then number=$begun; fi
	done
	if [ "$number" -gt 0 ] && [ ! -e "$1.words.todo" ]; then printf 'rule %s: ' "$number"; fi
	said=$(head -n 1 "$1.err" | sed 's/:* near line [0-9]*:/:/')
	case $said in 'Parse error'*) echo "$said" && return ;; esac
	case ${said#*rror: } in
	'UNIQUE constraint failed'* | 'NOT NULL constraint failed'* | 'CHECK constraint failed'* | \
		'FOREIGN KEY constraint failed'* | 'no such tokenizer'* | 'unknown tokenizer'* | 'no such module'* | 'vtable constructor failed'* | 'cannot store '* | 'datatype mismatch'* | 'malformed JSON'* | 'SHA3 size should be'* | \
		'integer overflow'* | 'string or blob too big'* | 'out of memory'* | 'disk I/O error'* | \
		'database or disk is full'* | 'database is locked'* | 'database disk image is malformed'*) echo "$said" && return ;;
	'no such '*)
		case $rules in *"${said#*rror: no such *: }"*) echo "$said" && return ;; esac
		;;
	esac
	echo 'a value made it fail (the message of SQLite may quote the value: run the rule by hand to read it)'
}

sanitize_all() {
	if ! { quote_lines && prepare_to_fill && sanitize_sql=$(sanitize_template); }; then
		fail no-space "cannot write in $staging_dir"
	fi
	large=$((total + 1)) # A larger limit than any size: copies are masked side by side.
	on_all_cores sanitize "$@"
	large=''
	note_sizes $#
	note_matches
	note_emptied "$@"
	find_unmatched_rules "$@"
}

# note_emptied NAME…: tells the client which full-text indexes were emptied, each with the number of
# databases and the first of them.
note_emptied() {
	local count kind index first
	sort ./*.emptied | uniq -c | while read -r count kind index; do
		first=$(grep -l -x -F -e "$kind $index" ./*.emptied | head -n 1)
		first=${first#./}
		eval "first=\${$((${first%.emptied} + 1))}"
		status emptied "$count" "$(hex "$first")" "$kind" "$(hex "$index")"
	done
}

# sanitize NUMBER NAME
sanitize() {
	local size page mode reserved encoding rows free
	read_facts "$1"
	[ "$mode" != 2 ] || mark_mode "$1" 1 || fail no-space "cannot write in $staging_dir"
	sanitize_script "$1" "$2" >"$1.sql" || fail no-space "cannot write in $staging_dir"
	if ! { sanitizer "$1" && read_outcome "$1"; } || { [ -s "$1.scrub" ] && { choose_fast "$1"; ! scrub "$1"; }; }; then
		[ ! -s "$1.outreach" ] || fail outreach "in the schema of $2, $(cat "$1.outreach")(), which reaches out of the database"
		[ -s "$1.err" ] || fail no-space "masking $2 failed without a message (is $staging_dir full?)"
		! grep -q 'database disk image is malformed' "$1.err" || fail damaged "$directory/$2"
		refuse_schema "$directory/$2" "$(head -n 1 "$1.err")"
		fail_sql sanitize "masking $2 failed: $(complaint "$1")"
	fi
	look "$1" "$2"
	[ "$mode" != 2 ] || mark_mode "$1" 2 || fail no-space "cannot write in $staging_dir"
}

# read_outcome NUMBER: sets `size` and `free`, the number of free pages, to what the rules left.
read_outcome() {
	rows='' free=''
	{ read -r rows && read -r size && read -r free; } <"$1.rows" || rows=''
	require_number "$rows" sqlite3 "the masked rows of $1.db"
	require_number "$size" sqlite3 "the size of $1.db"
	require_number "$free" sqlite3 "the free pages of $1.db"
}

# find_unmatched_rules NAME…: finds rules whose table or column is in none of the databases that
# they are for. Sends the client the existing names, in hex. If only some databases are pulled, the
# client decides whether the rule is for others.
find_unmatched_rules() {
	local applied rows number table column names
	applied=$(cat ./*.applied | tr '\n' ',')
	rows=$(printf '%s\n' "$rules" "
		DELETE FROM temp.xtask_set WHERE rule IN (SELECT rule FROM temp.xtask_rule WHERE rule NOT IN ($applied -1));
		SELECT rule + 1, CASE WHEN tbl IS NULL THEN '-' ELSE hex(tbl) END, '-' FROM temp.xtask_rule WHERE rule NOT IN ($applied -1)
		UNION ALL
		SELECT rule + 1, hex(tbl), hex(col) FROM temp.xtask_set AS s JOIN temp.xtask_rule USING (rule)
		 WHERE s.rowid NOT IN ($(cat ./*.columns | tr '\n' ',') -1)
		 ORDER BY 1;" | sql -separator ' ' :memory:)
	[ -n "$rows" ] || return 0
	while read -r number table column; do
		require_number "$number" sqlite3 'a rule that matches none of the databases'
		names=$(names_instead "$number" "$column" "$@")
		case $names in
		*+*) names=${names%+*}${names#*+} ;;
		*) table=- column=- names='' ;;
		esac
		[ -z "$only$partial$survey" ] || { status unmatched-rule "$number $table $column$names" && continue; }
		echo "prepare-pull: rule $number matches none of the databases" >&2
		printf '\nXTASK-DB-FAILED 1 %s unmatched-rule %s\n' "$nonce" "$number $table $column$names"
		exit 1
	done <<-ROWS
		$rows
	ROWS
}

# names_instead NUMBER COLUMN NAME…: the tables of the databases that a rule is for, or, if COLUMN
# is missing, the columns of its table, each after a space; and a plus if there is such a database.
names_instead() {
	local rule=$1 names i=-1 name chosen number
	names="SELECT ' ' || hex(t.name) FROM d.sqlite_master AS t WHERE t.type = 'table'"
	[ "$2" = - ] || names="SELECT ' ' || hex(c.name) FROM temp.xtask_rule AS r, d.sqlite_master AS t, pragma_table_xinfo(t.name, 'd') AS c
		WHERE r.rule = $rule - 1 AND t.type = 'table' AND t.name = r.tbl COLLATE NOCASE"
	shift 2
	{
		printf '%s\n.bail off\n' "$rules"
		for name do
			i=$((i + 1))
			choose_for "$name"
			case ,$chosen, in *",$((rule - 1)),"*) ;; *) continue ;; esac
			printf '%s\n' "ATTACH '$i.db' AS d;
				SELECT '+'
				UNION ALL
				$names;
				DETACH d;"
		done
	} | sql -readonly :memory: | sort -u | tr -d '\n' | head -c 50000
}
