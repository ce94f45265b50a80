_cargo_xtask() {
	local -i i=2
	while (( i < CURRENT )) && [[ $words[i] == [-+]* ]]; do (( i++ )); done
	local name=$words[i]
	if (( i < CURRENT )) && [[ $name != *[^A-Za-z0-9_-]* ]] &&
		(( $+functions[_cargo_xtask_for_$name] )); then
		local line
		local -a values shown directories
		for line in "${(@f)$(_cargo_xtask_for_$name words "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}")}"; do
			[[ -n $line ]] || continue
			if [[ ${line%%$'\t'*} == */ ]]; then
				directories+=("${line%%$'\t'*}")
			else
				values+=("${line%%$'\t'*}")
				shown+=("${${line/$'\t'/  -- }%  -- }")
			fi
		done
		local ret=1
		(( $#values )) && compadd -l -V values -d shown -a values && ret=0
		(( $#directories )) && compadd -S '' -V directories -a directories && ret=0
		return ret
	fi
	[[ -z $_cargo_xtask_previous ]] || eval "$_cargo_xtask_previous"
}

# Takes the place of another completion of cargo, also of one that is loaded later.
_cargo_xtask_attach() {
	(( $+functions[compdef] )) || return 0
	[[ ${_comps[cargo]-} != _cargo_xtask ]] || return 0
	typeset -g _cargo_xtask_previous=${_comps[cargo]-}
	compdef _cargo_xtask cargo
}
autoload -Uz add-zsh-hook
add-zsh-hook precmd _cargo_xtask_attach
_cargo_xtask_attach
