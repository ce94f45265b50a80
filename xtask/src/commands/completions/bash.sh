# shellcheck shell=bash
_cargo_xtask() {
	local i=1 line
	while ((i < COMP_CWORD)) && [[ ${COMP_WORDS[i]} == [-+]* ]]; do ((i++)); done
	local alias=${COMP_WORDS[i]}
	if ((i < COMP_CWORD)) && [[ $alias != *[^A-Za-z0-9_-]* ]] &&
		declare -F "_cargo_xtask_for_$alias" >/dev/null; then
		COMPREPLY=()
		while IFS=$'\t' read -r line _; do
			COMPREPLY+=("$line")
		done < <("_cargo_xtask_for_$alias" line "${COMP_LINE:0:COMP_POINT}")
		# Bash before 4.4 lacks some of these.
		compopt +o default +o bashdefault +o filenames +o nospace 2>/dev/null
		compopt -o nosort 2>/dev/null
		[[ ${COMPREPLY[0]-} != */ ]] || compopt -o nospace 2>/dev/null
		return
	fi
	if [[ -z ${_cargo_xtask_previous-} ]]; then
		# bash-completion loads the completion of a command at its first TAB.
		if declare -F _comp_load >/dev/null; then
			_comp_load cargo
		elif declare -F _completion_loader >/dev/null; then
			_completion_loader cargo
		fi
		_cargo_xtask_attach
	fi
	[[ -z ${_cargo_xtask_previous-} ]] || "$_cargo_xtask_previous" "$@"
}

# Takes the place of another completion of cargo, and remembers it.
_cargo_xtask_attach() {
	local spec
	spec=$(complete -p cargo 2>/dev/null)
	if [[ $spec == *' -F _cargo_xtask '* ]]; then
		return
	elif [[ $spec =~ ' -F '([^ ]+)' ' ]]; then
		_cargo_xtask_previous=${BASH_REMATCH[1]}
		# Its other options stay.
		eval "${spec/ -F "$_cargo_xtask_previous" / -F _cargo_xtask }"
	else
		complete -o default -F _cargo_xtask cargo
	fi
}

# At the first prompt, all that is loaded after this is there.
_cargo_xtask_at_prompt() {
	local status=$?
	_cargo_xtask_attach
	PROMPT_COMMAND=${PROMPT_COMMAND/_cargo_xtask_at_prompt/:}
	return "$status"
}
_cargo_xtask_attach
PROMPT_COMMAND=_cargo_xtask_at_prompt${PROMPT_COMMAND:+;$PROMPT_COMMAND}
