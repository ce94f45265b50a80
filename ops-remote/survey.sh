#!/bin/sh
# shellcheck shell=dash
# What kind of databases these are, for a client that has no settings yet: prepare-pull.sh is sent
# after this file and calls it when the request asks for it.
#
# Uses `sql`, `locate` and `nonce` of prepare-pull.sh and find.sh, `read_facts` of facts.sh and
# `hex`, `hex_lines` of pack.sh.
# shellcheck disable=SC2154 # nonce, page and mode are set in other files

MOST_TABLES=200    # names of one database
MOST_ON_LINE=60000 # bytes of them in hex: the client takes lines of 64 KiB
MOST_NAMED=1500000 # bytes of those of all databases: the client takes 4 MiB
MOST_SURVEYED=900  # the client takes no more than 1,000 facts

# survey NAME…: a line for each copy: its name, journal mode, owner, and the names of its tables, as
# lines in hex, or `=` if they are those of the line before, as in a database for each tenant.
survey() {
	# shellcheck disable=SC2034 # read_facts sets them
	local i=0 named=0 last='' name owner tables said size page mode reserved encoding
	for name do
		[ "$i" -lt "$MOST_SURVEYED" ] || break
		read_facts "$i"
		locate "$name"
		# shellcheck disable=SC2012 # GNU, busybox and BSD share no other way
		owner=$(ls -ld "$path" 2>/dev/null | { read -r _ _ owner _ && word "$owner"; })
		tables=$(sql "$i.db" "SELECT substr(name, 1, 60) FROM main.sqlite_master WHERE type = 'table' AND name NOT GLOB 'sqlite_*' LIMIT $MOST_TABLES" 2>/dev/null </dev/null | hex_lines | tr '\n' ,)
		said=$tables
		if [ -n "$tables" ] && [ "$tables" = "$last" ]; then said='='; fi
		if [ "${#said}" -gt "$MOST_ON_LINE" ] || [ $((named + ${#said})) -gt "$MOST_NAMED" ]; then said='' tables=''; fi
		named=$((named + ${#said})) last=$tables
		printf '\nXTASK-DB-FACT 1 %s database %s %s %s %s\n' "$nonce" "$(hex "$name")" "$mode" "${owner:--}" "${said:--}"
		i=$((i + 1))
	done
}
