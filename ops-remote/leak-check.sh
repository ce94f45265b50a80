#!/bin/sh
# shellcheck shell=dash
# The leak check: prepare-pull.sh is sent after this file, and sanitize.sh calls it. A value that
# a rule removed from a column must be nowhere else in the copy: not in a table that a trigger
# copied it to, not in a full-text index. Removed values exist only in the files NUMBER.look.*.
#
# Uses `run_todo` and `make_tables` of sanitize.sh; `literal`, `sql`, `status`, `await_jobs`, `fail` and `fail_sql`
# of prepare-pull.sh.
# shellcheck disable=SC2154,SC2034 # jobs is set in prepare-pull.sh

# Maximum number of values to search for, and to search for within other values. GNU grep needs
# 31 MB of memory for PASS_BYTES of patterns, and reads the database once per PASS_BYTES.
MOST_VALUES=200000
MOST_PIECES=30000
PASS_BYTES=300000
# Bytes. A longer blob is read only if the middle of a value is in the bytes of the database.
LONGEST_BLOB=1048576
MOST_LEAKS=50 # databases of which a survey says so

# LINE_HEAD and LINE_TAIL select the longest line of each value. The middle of the line is searched
# for first, since beginnings and ends are common (https://, @gmail.com). Dates are left out: other
# columns have the same. Lines are split at zero bytes too, because `grep -z` is.
SEPARATOR="min(instr(rest, x'0a'), coalesce(nullif(instr(rest, x'00'), 0), length(rest)))"
LINE_HEAD="SELECT substr(line, max(1, length(line) / 2 - 7), 16) AS middle, line FROM (
	SELECT substr(CASE WHEN EXISTS (SELECT 1 FROM temp.xtask_utf8) AND (instr(v, x'0a') OR instr(v, x'00')) THEN (
		WITH RECURSIVE l(line, rest) AS (
			SELECT x'', CAST(v || x'0a' AS BLOB)
			UNION ALL SELECT substr(rest, 1, $SEPARATOR - 1), substr(rest, $SEPARATOR + 1) FROM l WHERE length(rest) > 0)
		SELECT line FROM l ORDER BY length(line) DESC LIMIT 1
	) ELSE v END, 1, 256) AS line FROM (
		SELECT substr(CAST(v AS BLOB), 1, 4096) AS v FROM (
			SELECT "
LINE_TAIL="
		) WHERE typeof(v) IN ('text', 'blob') AND length(CAST(v AS BLOB)) >= 8
	)) WHERE length(line) >= 8
	     AND (length(line) > 32 OR CAST(line AS TEXT) NOT GLOB '[12][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]*')"

# State between calls: LINE_HEAD and LINE_TAIL as SQL literals.
quoted_head='' quoted_tail=''

quote_lines() {
	local quoted
	literal "$LINE_HEAD" && quoted_head=$quoted && literal "$LINE_TAIL" && quoted_tail=$quoted
}

# The values that a rule removes are collected right before it runs. In xtask_old, scope is the
# column that the value was in.
collect_old() {
	cat <<-SQL
		CREATE TEMP TABLE xtask_utf8 AS SELECT 1 FROM pragma_encoding WHERE encoding = 'UTF-8';
		CREATE TEMP TABLE xtask_old (line BLOB, scope INTEGER, middle BLOB, PRIMARY KEY (line, scope)) WITHOUT ROWID;
		CREATE TEMP TABLE xtask_scope AS
		SELECT row_number() OVER () AS scope, rule, condition, tbl || '.' || name AS place,
		       'main."' || replace(tbl, '"', '""') || '"' AS tbl, '"' || replace(name, '"', '""') || '"' AS col
		  FROM (SELECT * FROM temp.xtask_rule WHERE look) AS r, pragma_table_xinfo(r.tbl, 'main') AS c
		 WHERE c.hidden = 0 AND (deletes OR EXISTS (
		       SELECT 1 FROM temp.xtask_set AS s WHERE s.rule = r.rule AND s.col = c.name));
		CREATE TEMP TABLE xtask_collect AS
		SELECT rule, 'INSERT OR IGNORE INTO temp.xtask_old SELECT line, ' || scope || ', middle FROM ('
		       || $quoted_head || col || ' AS v FROM ' || tbl || condition || char(10) || $quoted_tail
		       || ') LIMIT max(0, $MOST_VALUES - (SELECT count(*) FROM temp.xtask_old));' AS sql
		  FROM temp.xtask_scope;
	SQL
}

# Writes the values to search for. A value that the same column still has is no secret: a rule left
# it. Without GNU grep, with too many values or in UTF-16, only whole values are searched for, here.
write_old() { keep_what_is_left && run_todo kept && find_whole && run_todo whole && write_pieces; }

keep_what_is_left() {
	cat <<-SQL
		CREATE TEMP TABLE xtask_kept (line BLOB, scope INTEGER, PRIMARY KEY (line, scope)) WITHOUT ROWID;
		INSERT INTO temp.xtask_todo
		SELECT 'INSERT OR IGNORE INTO temp.xtask_kept SELECT o.line, o.scope FROM (' || $quoted_head || col
		       || ' AS v FROM ' || tbl || $quoted_tail || ') AS p JOIN temp.xtask_old AS o ON o.line = p.line AND o.scope = ' || scope || ';'
		  FROM temp.xtask_scope AS s WHERE EXISTS (SELECT 1 FROM temp.xtask_old AS o WHERE o.scope = s.scope);
	SQL
}

find_whole() {
	cat <<-SQL
		DELETE FROM temp.xtask_old WHERE EXISTS (
		       SELECT 1 FROM temp.xtask_kept AS k WHERE k.line = xtask_old.line AND k.scope = xtask_old.scope);
		CREATE TEMP TABLE xtask_whole AS
		SELECT 1 WHERE NOT $gnu_grep OR NOT EXISTS (SELECT 1 FROM temp.xtask_utf8)
		    OR (SELECT count(*) FROM temp.xtask_old) > $MOST_PIECES;
		$(make_places)
		DELETE FROM temp.xtask_place WHERE NOT EXISTS (SELECT 1 FROM temp.xtask_whole);
		CREATE TEMP TABLE xtask_found (scope INTEGER, place TEXT);
		INSERT INTO temp.xtask_todo
		SELECT 'INSERT INTO temp.xtask_found SELECT DISTINCT o.scope, ''' || place || ''' FROM (' || $quoted_head || col
		       || ' AS v FROM ' || tbl || $quoted_tail || ') AS p JOIN temp.xtask_old AS o ON o.line = p.line;'
		  FROM temp.xtask_place WHERE EXISTS (SELECT 1 FROM temp.xtask_whole);
	SQL
}

write_pieces() {
	cat <<-SQL
		CREATE TEMP TABLE xtask_file (name TEXT, content BLOB);
		INSERT INTO temp.xtask_file
		SELECT 'middle.' || pass, group_concat(CAST(middle AS TEXT), char(10))
		  FROM (SELECT middle, sum(length(middle) + 1) OVER (ORDER BY middle) / $PASS_BYTES AS pass
		          FROM (SELECT DISTINCT middle FROM temp.xtask_old))
		 GROUP BY pass
		UNION ALL
		SELECT 'old.' || scope || '.' || pass, group_concat(CAST(line AS TEXT), char(10))
		  FROM (SELECT line, scope, sum(length(line) + 1) OVER (PARTITION BY scope ORDER BY line) / $PASS_BYTES AS pass
		          FROM temp.xtask_old)
		 GROUP BY scope, pass
		UNION ALL
		SELECT 'scope.' || scope, place FROM temp.xtask_scope;
		DELETE FROM temp.xtask_file WHERE EXISTS (SELECT 1 FROM temp.xtask_whole);
		$(write_files '~')
		.output ~.look.found
		SELECT DISTINCT replace(s.place || ', which are still in ' || p.name, char(10), ' ') FROM temp.xtask_found
		  JOIN temp.xtask_scope AS s USING (scope) JOIN temp.xtask_place AS p USING (place);
		.output
		INSERT INTO temp.xtask_sure SELECT (coalesce(length(readfile('~.look.found')), 0) > 0) = EXISTS (SELECT 1 FROM temp.xtask_found);
		.output ~.look.whole
		SELECT CASE WHEN NOT $gnu_grep THEN 'grep' WHEN EXISTS (SELECT 1 FROM temp.xtask_utf8) THEN 'many' ELSE 'utf-16' END
		  FROM temp.xtask_whole WHERE EXISTS (SELECT 1 FROM temp.xtask_old);
		.output
	SQL
}

# write_files NUMBER: the SQL that writes xtask_file to NUMBER.look.*.
write_files() {
	printf '%s\n' "INSERT INTO temp.xtask_sure SELECT coalesce(writefile('$1.look.' || name, content), 0) FROM temp.xtask_file;" \
		"INSERT INTO temp.xtask_sure SELECT coalesce(readfile('$1.look.' || name) = CAST(content AS BLOB), 0) FROM temp.xtask_file;"
}

# make_places: the SQL that lists the columns of all tables.
make_places() {
	cat <<-SQL
		CREATE TEMP TABLE xtask_place AS
		SELECT t.rowid || '.' || c.cid AS place, 'main."' || replace(t.name, '"', '""') || '"' AS tbl,
		       '"' || replace(c.name, '"', '""') || '"' AS col, coalesce((
		       SELECT name FROM main.sqlite_master AS v WHERE v.rootpage = 0 AND v.name || '_content' = t.name),
		       t.name || '.' || c.name) AS name
		  FROM main.sqlite_master AS t, pragma_table_xinfo(t.name, 'main') AS c
		 WHERE t.type = 'table' AND t.rootpage AND c.hidden IN (0, 3);
	SQL
}

# list_places NUMBER NAME: writes the name of each column to NUMBER.look.place.*, and the SQL that
# reads it to NUMBER.look.read.*.
list_places() {
	sql -readonly "$1.db" <<-SQL >/dev/null 2>"$1.look.err" || was_looked "$1" "$2" 2
		$(make_tables && make_places)
		CREATE TEMP TABLE xtask_file (name TEXT, content BLOB);
		INSERT INTO temp.xtask_file
		SELECT 'place.' || place, name FROM temp.xtask_place
		UNION ALL
		-- A text with a zero would be cut there.
		SELECT 'read.' || place, 'SELECT ' || col || ' FROM ' || tbl || ' WHERE typeof(' || col || ') = ''text'' AND NOT instr('
		       || bytes || ', x''00'');' || char(10) || '.output /dev/null' || char(10) || 'SELECT writefile(''/dev/stdout'', '
		       || bytes || ' || x''0a'') FROM ' || tbl || ' WHERE typeof(' || col || ') = ''blob'' AND length(' || col
		       || ') <= (SELECT bytes FROM temp.xtask_most) OR typeof(' || col
		       || ') = ''text'' AND instr(' || bytes || ', x''00'');'
		  FROM (SELECT *, 'CAST(' || col || ' AS BLOB)' AS bytes FROM temp.xtask_place);
		$(write_files "$1")
	SQL
}

# look NUMBER NAME: fails if a removed value is left; in a survey, the audit is to find its column. A value that crosses a page boundary cannot
# be found in the bytes, so the tables with such rows are read.
look() {
	local most rows found line
	# Reported once per pull, not for each database.
	if [ -s "$1.look.whole" ] && mkdir told 2>/dev/null; then status unlooked "$(cat "$1.look.whole")"; fi
	most=2147483647 rows=all
	if [ -e "$1.spilled" ] && is_clean "$@"; then
		most=$LONGEST_BLOB rows=' '
		while read -r line; do rows="$rows$line "; done <"$1.spilled"
	fi
	found=''
	while read -r line || [ -n "$line" ]; do found="$found${found:+, and of }$line"; done <"$1.look.found"
	find_places "$@"
	[ -z "$found" ] || leaks "$1" "in $2, a rule removes values of $found"
	rm -f "$1".look.* "$1".fresh.*
}

# leaks NUMBER TEXT
leaks() {
	if [ -z "$survey" ] || [ -z "$audit" ]; then fail remains "$2"; fi
	printf '%s' "$2" | tr '\n' ' ' >"$1.leak" || fail no-space "cannot write in $staging_dir"
}

# Tells the client of the values that are left, in as many databases as it takes facts of.
say_leaks() {
	local leak said=0
	for leak in ./*.leak; do
		if [ -e "$leak" ] && [ "$said" -lt "$MOST_LEAKS" ]; then
			printf '\nXTASK-DB-FACT 1 %s leak %s\n' "$nonce" "$(hex "$(head -c 1000 "$leak")")"
			said=$((said + 1))
		fi
	done
}

# is_clean NUMBER NAME: whether the bytes contain no middle.
is_clean() {
	local middles
	for middles in "$1".look.middle.*; do
		[ -e "$middles" ] || return 0
		if [ ! -e "$1.fast" ]; then
			! is_in_copy "$@" "$middles" || return 1
		elif ls "$1".fresh.* >/dev/null 2>&1; then
			! has_line "$@" -z "$middles" "$1".fresh.* || return 1
		fi
	done
}

# is_in_copy NUMBER NAME LINES: whether the copy contains one of LINES, searched on all cores. Each
# reads whole pages, in which a value is in one piece.
is_in_copy() {
	local slice w=0 job status=1
	if [ "$size" -le "$CHUNK" ]; then has_line "$1" "$2" -z "$3" "$1.db"; return; fi
	slice=$((size / cores / CHUNK + 1))
	while [ "$w" -lt "$cores" ]; do
		: >"$1.look.unread.$w"
		{ dd if="$1.db" bs="$CHUNK" skip=$((w * slice)) count="$slice" 2>"$1.look.err" && rm "$1.look.unread.$w"; } |
			grep -q -a -F -z -f "$3" 2>>"$1.look.err" &
		jobs="$jobs $!"
		w=$((w + 1))
	done
	for job in $jobs; do
		wait "$job"
		case $? in 0) status=0 ;; 1) ;; *) [ "$status" -eq 0 ] || status=2 ;; esac
	done
	jobs=''
	# A grep that has found something does not read the rest.
	[ "$status" -ne 1 ] || ! ls "$1".look.unread.* >/dev/null 2>&1 || status=2
	was_looked "$1" "$2" "$status"
}

# has_line NUMBER NAME OPTION LINES FILE…: whether a file contains one of LINES.
has_line() {
	local number=$1 name=$2 option=$3 lines=$4
	shift 4
	grep -q -a -F "$option" -f "$lines" "$@" 2>"$number.look.err" &
	jobs=$!
	await_jobs
	was_looked "$number" "$name" $?
}

# was_looked NUMBER NAME STATUS: only status 1 means that grep read everything and found nothing.
was_looked() {
	if [ "$3" -gt 1 ] || [ -e "$1.look.unread" ]; then
		fail_sql sanitize "searching $2 for removed values failed: $(head -n 3 "$1.look.err")"
	fi
	return "$3"
}

# find_places NUMBER NAME: adds the columns in tables of `rows` that have one of these values. A
# middle alone can be in another column, or in the schema, by coincidence.
find_places() {
	local place n middles old scope
	[ -e "$1.look.middle.0" ] && [ "$rows" != ' ' ] || return 0
	list_places "$@"
	for place in "$1".look.place.*; do
		n=${place#*.look.place.}
		case $rows in all | *" ${n%.*} "*) ;; *) continue ;; esac
		: >"$1.look.lines"
		for middles in "$1".look.middle.*; do
			: >"$1.look.unread" || fail no-space "cannot write in $staging_dir"
			{ read_place "$1" "$n" 2>"$1.look.err" && rm "$1.look.unread"; } |
				grep -a -F -f "$middles" >>"$1.look.lines" 2>>"$1.look.err" &
			jobs=$!
			await_jobs
			was_looked "$1" "$2" $? || :
		done
		[ -s "$1.look.lines" ] || continue
		for old in "$1".look.old.*; do
			scope=${old#*.look.old.}
			! has_line "$1" "$2" -a "$old" "$1.look.lines" || add_place "$1.look.scope.${scope%.*}" "$place"
		done
	done
}

# add_place FROM TO: files that contain column names. `fail` joins the lines.
add_place() {
	local line
	line="$(cat "$1"), which are still in $(cat "$2")"
	case "$found, and of " in *"$line, and of "*) ;; *) found="$found${found:+, and of }$line" ;; esac
}

# read_place NUMBER PLACE: prints the values of a column, each on a line or more.
read_place() {
	{ echo "CREATE TEMP TABLE xtask_most AS SELECT $most AS bytes;" && cat "$1.look.read.$2"; } | sql -readonly "$1.db"
}
