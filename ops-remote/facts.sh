#!/bin/sh
# shellcheck shell=dash
# What is known of each copy: prepare-pull.sh is sent after this file. A process for each question
# about each copy would take longer than the rest of a small database.
#
# Uses `require_number`, `is_number` and `fail` of prepare-pull.sh, `numbers` of pack.sh.
# shellcheck disable=SC2034,SC2046 # facts are for other files; the names are numbers

# Bytes that are read of each copy: the part of SQLite's header that has facts.
HEADER=64

# note_sizes COUNT: NUMBER.size becomes the size of each copy.
note_sizes() {
	local size name
	[ "$1" -gt 0 ] || return 0
	# GNU, busybox and BSD share no other way than `ls -n` that does not read the files.
	# shellcheck disable=SC2012 # see above
	ls -ln $(numbers "$1") | while read -r _ _ _ _ size name; do
		name=${name##* }
		echo "$size" >"${name%.db}.size"
	done
}

# note_headers COUNT: NUMBER.header becomes each copy's size of a page, its mode (2 for WAL), the
# bytes that are reserved in each page, and its text encoding.
note_headers() {
	local i=0 high low page mode reserved encoding
	[ "$1" -gt 0 ] || return 0
	head -q -c "$HEADER" $(numbers "$1") | od -An -v -tu1 | while read -r _; do
		read -r high low mode _ reserved _
		read -r _
		read -r _ _ _ _ _ _ _ _ _ _ _ encoding _
		for page in "$high" "$low" "$mode" "$reserved" "$encoding"; do is_number "$page" || break 2; done
		page=$((high * 256 + low))
		[ "$page" -ne 1 ] || page=65536
		echo "$page $mode $reserved $encoding" >"$i.header"
		i=$((i + 1))
	done
}

# read_size NUMBER: sets `size`.
read_size() {
	size=''
	[ ! -e "$1.size" ] || read -r size <"$1.size"
	require_number "$size" ls "the size of $1.db"
}

# read_facts NUMBER: sets `size`, `page`, `mode`, `reserved` and `encoding`.
read_facts() {
	encoding=''
	read_size "$1"
	[ ! -e "$1.header" ] || read -r page mode reserved encoding <"$1.header"
	require_number "$encoding" od "the header of $1.db"
}

# mark_mode NUMBER MODE: two bytes of the header say whether the copy is in WAL mode (2) or not (1).
# Changing them through SQLite would count as a change of the database.
mark_mode() {
	local value=$page
	[ "$value" -ne 65536 ] || value=1
	# This writes the beginning of the file again, and keeps the rest.
	printf '%b' "SQLite format 3\\0000$(printf '\\0%o\\0%o' $((value / 256)) $((value % 256)))\\0$2\\0$2" 1<>"$1.db"
}
