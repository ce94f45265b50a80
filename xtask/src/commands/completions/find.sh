# shellcheck shell=bash
# Asks the program that the repository of this directory has built, and nothing where
# none is: PACKAGE CRATE PROGRAM SHORT ELSEWHERE, then what was typed.
_cargo_xtask_answer() {
	local dir=$PWD package=$1 crate=$2 program=$3 short=$4 elsewhere=$5 target file
	shift 5
	{
		until [[ -f $dir/$crate/Cargo.toml && $(<"$dir/$crate/Cargo.toml") == *xtask-db* ]]; do
			[[ -n $dir ]] || return 1
			dir=${dir%/*}
		done
		for target in "${CARGO_TARGET_DIR-}" "$dir/$crate/target" "$dir/target" "$elsewhere"; do
			for file in "$target/$program" "$target/$short"; do
				# Only what this user has built is run.
				if [[ -n $target && -f $file && -x $file && -O $file ]]; then
					CARGO_MANIFEST_DIR=$dir/$crate CARGO_PKG_NAME=$package \
						"$file" __complete "$@" </dev/null
					return
				fi
			done
		done
	} 2>/dev/null
	return 1
}
